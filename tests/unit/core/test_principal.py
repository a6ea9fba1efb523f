"""Principal, ids and the acting context."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security import Principal, acting_as, current_principal
from axis_security.core.context import maybe_principal
from axis_security.core.errors import AxisError, ConfigError, MalformedId, PrincipalRequired
from axis_security.core.ids import KeyType, TenantId, UserId, parse_id

VALUES = st.uuids() | st.integers(0, 2**63 - 1) | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)


@given(VALUES)
def test_an_id_has_one_text_and_reads_back(value: Any) -> None:
    """The text form maps back to the same value for the id's key type."""
    tenant = TenantId(value)
    assert parse_id(tenant.text, tenant.key_type) == value
    assert TenantId.of(tenant) is tenant


@pytest.mark.parametrize("value", [True, -1, 2**63, "", " ", "a b", "é", "a\0", "x" * 129, 1.5, None, b"a", UserId("u")])
def test_other_spellings_are_refused(value: Any) -> None:
    """bools, negatives, empty, spaced, non-ASCII, long and foreign values are no ids."""
    with pytest.raises(MalformedId):
        TenantId.of(value)


@pytest.mark.parametrize(
    ("text", "kind"), [("007", KeyType.INT), ("+7", KeyType.INT), ("A" * 32, KeyType.UUID), ("", KeyType.TEXT), ("x", KeyType.INT)]
)
def test_a_second_spelling_of_an_id_is_refused(text: str, kind: KeyType) -> None:
    """Only the canonical text reads back."""
    with pytest.raises(MalformedId):
        parse_id(text, kind)


@given(st.text(), st.text(), st.text())
def test_any_text_gives_a_principal_or_a_typed_refusal(tenant: str, role: str, session: str) -> None:
    """No input raises anything but our own errors."""
    try:
        principal = Principal(tenant=tenant, role=role, session=session)
    except AxisError:
        return
    assert (principal.tenant.text, principal.role, principal.session) == (tenant, role, session)


def test_a_principal_is_frozen_and_checked() -> None:
    """Nothing can be changed afterwards, and a naive time or odd role is refused."""
    principal = Principal(tenant=uuid.uuid4(), user=7, role="member", auth_time=datetime.now(UTC))
    with pytest.raises(AttributeError):
        principal.role = "owner"  # type: ignore[misc]  # wrong on purpose
    bads: list[dict[str, Any]] = [{"role": "Owner"}, {"role": "a b"}, {"auth_time": datetime(2026, 1, 1)}, {"session": ""}]
    for bad in bads:
        fields: dict[str, Any] = {"tenant": 1, "role": "member", **bad}
        with pytest.raises(ConfigError):
            Principal(**fields)


A, B = Principal(tenant="a", role="member"), Principal(tenant="b", role="member")


def test_acting_nests_and_ends() -> None:
    """The inner principal holds inside, the outer afterwards, nobody at the end; also when the block raises."""
    with acting_as(A):
        with pytest.raises(ZeroDivisionError), acting_as(B):
            assert current_principal() is B
            raise ZeroDivisionError
        assert current_principal() is A
    assert maybe_principal() is None
    with pytest.raises(PrincipalRequired):
        current_principal()


def test_a_thread_starts_unbound_unless_the_context_is_copied() -> None:
    """A plain thread does not inherit the principal; one that runs in a copy of the context does."""
    seen: list[Principal | None] = []
    with acting_as(A):
        for target in (
            lambda: seen.append(maybe_principal()),
            lambda context=contextvars.copy_context(): context.run(lambda: seen.append(maybe_principal())),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, A]


def test_tasks_keep_their_own_principal() -> None:
    """Interleaved tasks never see one another's principal."""

    async def work(principal: Principal) -> bool:
        with acting_as(principal):
            for _ in range(20):
                await asyncio.sleep(0)
                if current_principal() is not principal:
                    return False
        return True

    async def both() -> list[bool]:
        return await asyncio.gather(*(work(each) for each in (A, B) * 10))

    assert all(asyncio.run(both()))


def test_only_a_principal_can_act() -> None:
    """A tenant id or a dict is no principal."""
    with pytest.raises(TypeError), acting_as("a"):  # type: ignore[arg-type]  # wrong on purpose
        pass
