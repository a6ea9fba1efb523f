"""The rules of binding without a driver: who may use an open transaction, and what is said to who may not."""

from __future__ import annotations

from typing import Any

import pytest

from axis_security import Assurance, Principal, acting_as
from axis_security.core.errors import ConfigError
from axis_security.core.ids import KeyType
from axis_security.rls.bind import (
    AutocommitRefused,
    PrincipalChanged,
    TenantBinder,
    TenantNotBound,
    WrongTenantKey,
    guarded_already,
    outside,
)

BINDER = TenantBinder(seal=lambda principal: f"sealed for {principal.tenant.text}", key_type=KeyType.TEXT)


def who(**changes: Any) -> Principal:
    """Ann of Acme, but for *changes*."""
    return Principal(**{"tenant": "acme", "user": "ann", "role": "member", **changes})


def test_what_begins_is_sealed_for_whoever_acts() -> None:
    """The sealed text travels as a parameter, beside the statement and never in it."""
    with acting_as(who()):
        bound = BINDER.begin()
    assert bound.params == ("sealed for acme",)
    assert "acme" not in bound.sql
    assert bound.owner == who()


def test_the_same_person_goes_on_after_a_step_up() -> None:
    """Another object for the same tenant, user and role, with a higher assurance, is not another principal."""
    with acting_as(who()):
        bound = BINDER.begin()
    for same in (who(), who(assurance=Assurance.AAL2)):
        with acting_as(same):
            BINDER.admit(bound)


@pytest.mark.parametrize("change", [{"tenant": "globex"}, {"user": "bob"}, {"role": "owner"}, {"user": None}])
def test_anybody_else_is_refused(change: dict[str, Any]) -> None:
    """One of the three differs: the statement is not sent."""
    with acting_as(who()):
        bound = BINDER.begin()
    with acting_as(who(**change)), pytest.raises(PrincipalChanged) as caught:
        BINDER.admit(bound)
    assert caught.value.http_status == 409


def test_nobody_is_refused_with_what_is_wrong() -> None:
    """Outside any principal; inside somebody's transaction; in a transaction that is none of ours."""
    with pytest.raises(TenantNotBound, match="outside `acting_as") as caught:
        BINDER.begin()
    assert caught.value.http_status == 401
    with acting_as(who()):
        bound = BINDER.begin()
        with pytest.raises(TenantNotBound, match="outside `acting_as"):
            BINDER.admit(None)
    with pytest.raises(TenantNotBound, match="belongs to a principal"):
        BINDER.admit(bound)


def test_a_tenant_of_another_type_is_refused() -> None:
    """An integer tenant on a text column."""
    with acting_as(who(tenant=5)), pytest.raises(WrongTenantKey, match="text"):
        BINDER.begin()


def test_outside_a_transaction_the_stronger_reason_comes_first() -> None:
    """Where nobody acts that is said, else that autocommit holds no context."""
    with pytest.raises(TenantNotBound):
        outside(BINDER)
    with acting_as(who()), pytest.raises(AutocommitRefused, match="autocommit"):
        outside(BINDER)


def test_what_is_guarded_is_not_guarded_again() -> None:
    """Installing twice does nothing; installing another tenancy is refused, and says on what."""
    other = TenantBinder(seal=lambda _: "", key_type=KeyType.TEXT)
    assert guarded_already("pool", None, BINDER) is False
    assert guarded_already("pool", BINDER, BINDER) is True
    with pytest.raises(ConfigError, match="the pool is guarded already"):
        guarded_already("pool", other, BINDER)
