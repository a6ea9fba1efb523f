"""What the shared nouns refuse: spellings that would come back as something else, and values no store or terminal should get."""

from __future__ import annotations

import pickle
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security import Principal, Secret
from axis_security.auth.kdf_pool import Busy
from axis_security.core.encoding import MalformedEncoding, crockford_decode
from axis_security.core.errors import AxisError, ConfigError, MalformedId
from axis_security.core.events import AuditEvent, EventKind, MalformedEvent, Outcome
from axis_security.core.ids import KeyType, TenantId, parse_id
from axis_security.core.schema import DatabaseRoles, SchemaPart
from axis_security.testing import ManualClock, MemorySink

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.text() | st.integers().map(str), st.sampled_from(KeyType))
def test_whatever_parse_id_reads_is_an_id(text: str, kind: KeyType) -> None:
    """A text that is read back is one that a tenant may have; everything else is refused."""
    try:
        value = parse_id(text, kind)
    except MalformedId:
        return
    assert (TenantId(value).text, TenantId(value).key_type) == (text, kind)


@pytest.mark.parametrize(("text", "kind"), [("-7", KeyType.INT), ("9" * 30, KeyType.INT), ("9" * 5000, KeyType.INT), ("a\n", KeyType.TEXT)])
def test_what_no_id_may_be_is_not_read_as_one(text: str, kind: KeyType) -> None:
    """Negative, out of range and invisible ids are refused on the way in as they are at construction."""
    with pytest.raises(MalformedId):
        parse_id(text, kind)


@pytest.mark.parametrize("text", ["AAAA_AAA", "+AAAAAAA", "AAAAAAAU", "AAAAAAA\n", "\uff21" * 8, "A" * 7])
def test_a_code_has_no_other_spellings(text: str) -> None:
    """What Python's int() would take (underscores, signs, other digits) is no code."""
    with pytest.raises(MalformedEncoding):
        crockford_decode(text)


def test_a_long_code_costs_in_proportion() -> None:
    """A million typed characters are read in a moment: the work is linear in what a stranger sends."""
    began = time.process_time()
    crockford_decode("Z" * 1_000_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_an_event_holds_no_number_that_json_lacks(number: float) -> None:
    """NaN would break the log's canonical JSON after the act it records; it is refused before."""
    with pytest.raises(MalformedEvent):
        AuditEvent(kind=EventKind.SECRET_STALE, at=NOW, outcome=Outcome.FAILED, detail={"age_seconds": number})


@pytest.mark.parametrize("char", ["\x9b", "\x85", "\u202e", "\u2066", "\u200f", "\ud800", "\x7f"])
@pytest.mark.parametrize("name", ["role", "session", "target", "reason", "request"])
def test_every_text_of_an_event_is_cleaned(name: str, char: str) -> None:
    """Terminal controls, direction marks and half surrogates are escaped in each field, and the rest can be encoded."""
    fields: dict[str, Any] = {name: f"a{char}b"}
    text = getattr(AuditEvent(kind=EventKind.LOGOUT, at=NOW, outcome=Outcome.ALLOWED, **fields), name)
    assert char not in text
    assert (text[:2], text[-1]) == ("a\\", "b")
    text.encode("utf-8")


class Nowhere(tzinfo):
    """A zone that knows no offset: the datetime is naive by the language's own rule."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


@pytest.mark.parametrize(
    "bad", [{"assurance": True}, {"assurance": 9}, {"assurance": "2"}, {"auth_time": "now"}, {"auth_time": NOW.replace(tzinfo=Nowhere())}]
)
def test_a_principal_is_refused_with_our_own_error(bad: dict[str, Any]) -> None:
    """An assurance that is none, and a time that names no moment, are configuration errors; True is not one factor."""
    with pytest.raises(ConfigError):
        Principal(tenant=1, role="member", **bad)


@pytest.mark.parametrize("name", ["public", "none", "user", "current_user", "session_user", "pg_monitor", "Axis", "a-b", "", "a" * 64])
def test_role_names_that_sql_reads_otherwise_are_refused(name: str) -> None:
    """`GRANT … TO public` would grant to everybody."""
    with pytest.raises(ConfigError):
        DatabaseRoles(app=name)


def test_roles_are_distinct_and_parts_have_a_digest() -> None:
    """One name never serves as two roles; a part's digest follows its statements and roles."""
    with pytest.raises(ConfigError):
        DatabaseRoles(app="a", owner="a")
    part = SchemaPart(name="x", create=lambda roles: [f"GRANT USAGE ON SCHEMA axis TO {roles.app}"], drop=lambda _: [])
    assert part.digest(DatabaseRoles()) == part.digest(DatabaseRoles())
    assert part.digest(DatabaseRoles()) != part.digest(DatabaseRoles.prefixed("other"))


def test_a_secret_gives_no_state() -> None:
    """Serialisers that ask for an object's state instead of its reduction get nothing either."""
    with pytest.raises(TypeError) as caught:
        Secret("canary-1").__getstate__()
    assert "canary" not in str(caught.value)


def test_plain_attributes_of_an_error_cross_a_process_boundary() -> None:
    """A worker's Busy still says when to come back."""
    again = pickle.loads(pickle.dumps(Busy(retry_after=3)))
    assert isinstance(again, AxisError)
    assert (type(again), again.retry_after, dict(again.facts)) == (Busy, 3, {"retry_after": 3})  # type: ignore[attr-defined]  # Busy's own


def test_the_manual_clock_moves_only_when_told() -> None:
    """It stands still, moves by seconds or timedelta, answers in UTC, and takes no naive time."""
    clock = ManualClock()
    first = clock.now()
    assert clock.now() == first
    assert clock.advance(1.5) - first == timedelta(seconds=1.5)
    assert clock.advance(timedelta(hours=-1)) < first
    clock.set(NOW)
    assert clock.now() == NOW
    assert clock.now().tzinfo is UTC
    for attempt in (lambda: ManualClock(datetime(2026, 1, 1)), lambda: clock.set(datetime(2026, 1, 1))):
        with pytest.raises(ValueError, match="aware"):
            attempt()


def test_the_memory_sink_keeps_in_order_and_can_fail() -> None:
    """Events come back by kind; a sink told to fail raises and keeps nothing."""
    sink = MemorySink()
    for kind in (EventKind.LOGIN, EventKind.LOGOUT, EventKind.LOGIN):
        sink.emit(AuditEvent(kind=kind, at=NOW, outcome=Outcome.ALLOWED))
    assert sink.kinds == [EventKind.LOGIN, EventKind.LOGOUT, EventKind.LOGIN]
    assert len(sink.of(EventKind.LOGIN)) == 2
    sink.failing = RuntimeError("full")
    with pytest.raises(RuntimeError):
        sink.emit(AuditEvent(kind=EventKind.LOGIN, at=NOW, outcome=Outcome.ALLOWED))
    assert len(sink.events) == 3
