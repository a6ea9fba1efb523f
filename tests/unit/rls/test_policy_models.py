"""The policies of a table before any server sees them: which are floors, and which conditions each command asks."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from tests.integration.rls.declared import ExamplePolicy, declare

from axis_security.core.schema import DatabaseRoles
from axis_security.rls.predicate import SELF, PolicyModel, own_rows, policies_of
from axis_security.rls.tenancy import Tenancy

ROLES = DatabaseRoles.prefixed("words")
TENANT = "tenant_id"


def policies(tenancy: Tenancy, name: str) -> dict[str, PolicyModel]:
    """The policies of table *name*."""
    model = tenancy.model()
    declared = model.protected()["public", name]
    return {policy.name: policy for policy in policies_of(model, declared.table, declared.shape)}


def shaped(**shape: Any) -> dict[str, PolicyModel]:
    """The policies of one table of *shape*."""
    metadata = sa.MetaData()
    columns: list[sa.Column[Any]] = [sa.Column("id", sa.BigInteger, primary_key=True), sa.Column(TENANT, sa.BigInteger)]
    tenancy = Tenancy(metadata, roles=ROLES)
    tenancy.protect(sa.Table("t", metadata, *columns, sa.Column("who", sa.BigInteger)), **shape)
    return policies(tenancy, "t")


@pytest.mark.parametrize("shape", [{}, {"reach": "below"}, {"visible_to": "who"}, {"owner": "who"}], ids=str)
def test_every_floor_is_restrictive_and_covers_every_command(shape: dict[str, Any]) -> None:
    """A floor that is permissive is another door. Whatever the shape, one restrictive policy holds for each command, and writes ask for the own tenant."""
    found = shaped(**shape)
    floors = [policy for name, policy in found.items() if name.startswith("axis_floor")]
    assert all(not policy.permissive for policy in floors)
    assert all(policy.permissive for name, policy in found.items() if not name.startswith("axis_floor"))
    covered = {policy.command for policy in floors}
    assert covered in ({"ALL"}, {"SELECT", "INSERT", "UPDATE", "DELETE"})
    own = f'"{TENANT}" = (SELECT axis.tenant_id())'
    for policy in floors:
        if policy.command in ("ALL", "INSERT", "UPDATE"):
            assert policy.check is not None
            assert own in policy.check
        if policy.command in ("ALL", "UPDATE", "DELETE"):
            assert policy.using is not None
            assert own in policy.using


def test_a_condition_of_the_policy_is_asked_in_the_rows_policy() -> None:
    """Admins write any contact of the tenant, members those they own; without a policy the tenant alone is asked."""
    keyless = declare(ROLES, None, policy=ExamplePolicy())
    update = policies(keyless, "contact")["axis_update"].using
    assert update is not None
    assert update.split(" OR ") == [
        "\"tenant_id\" = (SELECT axis.tenant_for('contacts.write'))",
        "(\"tenant_id\" = (SELECT axis.tenant_for_own('contacts.write', 'owner_id')) AND \"owner_id\" = (SELECT axis.user_id()::bigint))",
    ]
    assert policies(keyless, "contact")["axis_select"].using == "\"tenant_id\" = (SELECT axis.tenant_for('contacts.read'))"
    assert policies(keyless, "event")["axis_select"].using == '"tenant_id" = (SELECT axis.tenant_id())', "no capability was asked for"
    assert policies(declare(ROLES, None), "contact")["axis_update"].using == '"tenant_id" = (SELECT axis.tenant_id())'


class OwnersOnly:
    """Nobody holds the capability but for what is theirs."""

    def grants(self) -> Any:
        return [grant for grant in ExamplePolicy().grants() if grant.capability != "contacts.write" or grant.when is not None]


def test_a_capability_that_is_held_under_a_condition_only_is_asked_under_it_only() -> None:
    """Where no role holds it without condition, no branch lets anybody through without it."""
    update = policies(declare(ROLES, None, policy=OwnersOnly()), "contact")["axis_update"].using  # type: ignore[arg-type]  # a policy is what has grants
    assert update is not None
    assert "axis.tenant_for(" not in update
    assert "axis.tenant_for_own('contacts.write', 'owner_id')" in update


def widely() -> dict[str, dict[str, PolicyModel]]:
    """A document that may be read further and is its owner's own, its parts, their lines, and the list of who it is shared with."""
    metadata = sa.MetaData()

    def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
        return sa.Table(name, metadata, sa.Column("id", sa.BigInteger, primary_key=True), *columns)

    share = table(
        "share", sa.Column(TENANT, sa.BigInteger), sa.Column("doc_id", sa.ForeignKey("doc.id")), sa.Column("grantee", sa.BigInteger)
    )
    doc = table("doc", sa.Column(TENANT, sa.BigInteger), sa.Column("who", sa.Uuid), sa.Column("other", sa.BigInteger))
    part = table("part", sa.Column("doc_id", sa.ForeignKey("doc.id")), sa.Column("who", sa.Text))
    line = table("line", sa.Column("part_id", sa.ForeignKey("part.id")))
    tenancy = Tenancy(metadata, roles=ROLES)
    tenancy.protect(share, visible_to="grantee")
    tenancy.protect(doc, shared_through=share, reach="below", visible_to="other", owner="who")
    tenancy.protect(part, via=doc, owner="who")
    tenancy.protect(line, via=part)
    return {name: policies(tenancy, name) for name in ("share", "doc", "part", "line")}


ACTING = "(SELECT axis.tenant_id())"
OWN = f'("{TENANT}" = {ACTING} AND "who" = (SELECT axis.user_id()::uuid))'
FURTHER = (
    f'"other" = {ACTING} OR "id" = ANY (ARRAY(SELECT s."doc_id" FROM "public"."share" AS s WHERE s."grantee" = {ACTING}))'
    f' OR ({ACTING} IS NOT NULL AND "{TENANT}" = ANY ((SELECT axis.tenants_below())::bigint[]))'
)


def test_own_rows_are_a_users_own_whatever_may_be_read_further() -> None:
    """Each tenant stands below itself, so reading downwards must be narrowed as well: else a colleague's rows are read by that way."""
    found = widely()["doc"]
    for name in ("axis_floor", "axis_select"):
        assert found[name].using == f'(("{TENANT}" = {ACTING} OR {FURTHER}) AND "who" = (SELECT axis.user_id()::uuid))'
    for name in ("axis_floor_update", "axis_floor_delete", "axis_update", "axis_delete"):
        assert found[name].using == OWN
    for name in ("axis_floor_insert", "axis_floor_update", "axis_insert", "axis_update"):
        assert found[name].check == OWN
    assert found["axis_system"].using == f'"{TENANT}" IS NOT NULL AND (SELECT axis.is_system())'


def test_rows_found_through_others_are_read_where_those_are() -> None:
    """At each depth a name of its own, the condition of the table there, and its own user's rows."""
    found = widely()
    doc = f'EXISTS (SELECT FROM "public"."doc" AS axis_1 WHERE axis_1."id" = {SELF}."doc_id" AND (axis_1."{TENANT}" = {ACTING} AND axis_1."who" = (SELECT axis.user_id()::uuid)))'
    assert found["part"]["axis_update"].using == f'({doc} AND "who" = (SELECT axis.user_id()))'
    read = found["part"]["axis_select"].using
    assert read is not None
    assert read.startswith(
        f'(EXISTS (SELECT FROM "public"."doc" AS axis_1 WHERE axis_1."id" = {SELF}."doc_id" AND ((axis_1."{TENANT}" = {ACTING} OR axis_1."other" = '
    )
    assert read.endswith(' AND "who" = (SELECT axis.user_id()))')
    assert found["line"]["axis_delete"].using == (
        f'EXISTS (SELECT FROM "public"."part" AS axis_1 WHERE axis_1."id" = {SELF}."part_id" AND '
        f'(EXISTS (SELECT FROM "public"."doc" AS axis_1_1 WHERE axis_1_1."id" = axis_1."doc_id" AND '
        f'(axis_1_1."{TENANT}" = {ACTING} AND axis_1_1."who" = (SELECT axis.user_id()::uuid))) AND axis_1."who" = (SELECT axis.user_id())))'
    )
    assert found["line"]["axis_system"].using == "(SELECT axis.is_system())"
    assert found["share"]["axis_select"].using == f'("{TENANT}" = {ACTING} OR "grantee" = {ACTING})'


def test_what_is_a_tenant_s_own_is_said_for_an_export() -> None:
    """Under the alias that the caller reads the table by, and without the rows that it may only read."""
    model = declare(ROLES, None).model()
    assert own_rows(model, ("public", "contact"), "t") == f't."{TENANT}" = {ACTING}'
