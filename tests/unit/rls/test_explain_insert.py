"""Why an INSERT would be refused, as far as its own text tells."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from axis_security import Principal, acting_as
from axis_security.rls.explain import Verdict
from axis_security.rls.tenancy import Tenancy

METADATA = sa.MetaData()
NOTE = sa.Table("note", METADATA, sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("tenant_id", sa.BigInteger))


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ({"id": 1}, Verdict.ALLOWED),
        ({"id": 1, "tenant_id": 1}, Verdict.ALLOWED),
        ({"id": 1, "tenant_id": None}, Verdict.ALLOWED),
        ({"id": 1, "tenant_id": 2}, Verdict.NOT_ALLOWED),
        ([{"id": 1, "tenant_id": 1}, {"id": 2, "tenant_id": 1}], Verdict.ALLOWED),
        ([{"id": 1, "tenant_id": 1}, {"id": 2, "tenant_id": 2}], Verdict.NOT_ALLOWED),
        ([{"id": 1, "tenant_id": 2}, {"id": 2, "tenant_id": 1}], Verdict.NOT_ALLOWED),
    ],
)
def test_a_row_for_another_tenant_is_told_in_any_place(rows: Any, verdict: Verdict) -> None:
    """One such row among many refuses the whole statement."""
    tenancy = Tenancy(METADATA)
    tenancy.protect(NOTE)
    with acting_as(Principal(tenant=1, user=1, role="member")):
        assert tenancy.explain(sa.insert(NOTE).values(rows)).verdict is verdict
