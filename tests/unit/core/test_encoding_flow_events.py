"""Strict encodings, flows that run sync and async, and events of a closed shape."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axis_security import Principal, Secret
from axis_security.core.encoding import (
    MalformedEncoding,
    b64url_decode,
    b64url_encode,
    crockford_decode,
    crockford_encode,
    length_prefixed,
)
from axis_security.core.events import FIELDS, AuditEvent, EventKind, LoggingSink, MalformedEvent, Outcome
from axis_security.core.flow import adrive, drive

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.binary(max_size=100))
def test_base64url_reads_back(data: bytes) -> None:
    """Round trip, without padding."""
    text = b64url_encode(data)
    assert "=" not in text
    assert b64url_decode(text) == data


@given(st.text(max_size=40))
def test_only_canonical_base64url_is_read(text: str) -> None:
    """Whatever is accepted is exactly what would be written."""
    try:
        data = b64url_decode(text)
    except MalformedEncoding:
        return
    assert b64url_encode(data) == text


@pytest.mark.parametrize("text", ["QQ==", "QR", "a b", "a+b/", "é", "A"])
def test_second_spellings_of_base64url_are_refused(text: str) -> None:
    """Padding, stray bits, spaces and the other alphabet are refused."""
    with pytest.raises(MalformedEncoding):
        b64url_decode(text)


@given(st.binary(min_size=5, max_size=20).filter(lambda data: len(data) % 5 == 0))
def test_codes_read_back_as_people_type_them(data: bytes) -> None:
    """Lower case, dashes, spaces and the look-alikes O, I, L read as what was issued."""
    code = crockford_encode(data)
    typed = "-".join([code[i : i + 4] for i in range(0, len(code), 4)]).lower().replace("0", "o").replace("1", "l")
    assert crockford_decode(typed) == crockford_decode(f" {code} ") == data


@given(st.text(max_size=30))
def test_any_typed_code_is_read_or_refused(text: str) -> None:
    """No text makes it raise anything else."""
    try:
        crockford_decode(text)
    except MalformedEncoding:
        pass


@given(st.lists(st.binary(max_size=8), max_size=6), st.lists(st.binary(max_size=8), max_size=6))
def test_distinct_tuples_never_join_equal(a: list[bytes], b: list[bytes]) -> None:
    """Length prefixes leave no two ways to read the same bytes."""
    assert (length_prefixed(*a) == length_prefixed(*b)) is (a == b)


def test_a_part_that_does_not_fit_is_refused() -> None:
    """65,536 bytes have no u16 length."""
    with pytest.raises(ValueError, match="65,535"):
        length_prefixed(bytes(65_536))
    with pytest.raises(ValueError, match="multiple of 5"):
        crockford_encode(b"abc")


def adding(limit: int, closed: list[bool]) -> Generator[int, int, int]:
    """Yields numbers, adds the answers, counts a refused request as zero."""
    total = 0
    try:
        for number in range(limit):
            try:
                total += yield number
            except KeyError:
                total += 0
        return total
    finally:
        closed.append(True)


def test_one_flow_runs_in_both_worlds() -> None:
    """drive and adrive give the same result, throw failures into the flow, and close it."""
    closed: list[bool] = []

    def perform(number: int) -> int:
        if number == 2:
            raise KeyError(number)
        return number * 10

    async def aperform(number: int) -> int:
        await asyncio.sleep(0)
        return perform(number)

    assert drive(adding(5, closed), perform) == asyncio.run(adrive(adding(5, closed), aperform)) == 80
    assert drive(adding(0, closed), perform) == asyncio.run(adrive(adding(0, closed), aperform)) == 0
    assert closed == [True] * 4


def test_a_failure_the_flow_does_not_take_comes_out_and_closes_it() -> None:
    """An unexpected failure reaches the caller, and the flow's own clean-up has run."""
    closed: list[bool] = []

    def perform(_: int) -> int:
        raise ZeroDivisionError

    async def aperform(_: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(adding(3, closed), perform)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(adrive(adding(3, closed), aperform))
    assert closed == [True, True]


def test_every_kind_declares_its_fields() -> None:
    """The table is complete: no kind without a row."""
    assert set(FIELDS) == set(EventKind)


@pytest.mark.parametrize(
    "detail",
    [{"nonsense": 1}, {"key_id": Secret("hunter2")}, {"key_id": ["a"]}, {"key_id": "x" * 600}, {"key_id": b"x"}],
)
def test_events_of_another_shape_are_refused(detail: dict[str, Any]) -> None:
    """Unknown fields, secrets, containers and long texts are refused, and the message shows no secret."""
    with pytest.raises(MalformedEvent) as caught:
        AuditEvent(kind=EventKind.SEAL_KEY_ROTATED, at=NOW, outcome=Outcome.ALLOWED, detail=detail)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(MalformedEvent):
        AuditEvent(kind=EventKind.SEAL_KEY_ROTATED, at=datetime(2026, 1, 1), outcome=Outcome.ALLOWED)


@given(st.text(max_size=100))
def test_control_characters_cannot_forge_a_line(text: str) -> None:
    """Whatever text a person gave as the reason, the event holds no line break or control character."""
    event = AuditEvent(kind=EventKind.LOGOUT, at=NOW, outcome=Outcome.ALLOWED, reason=text)
    assert event.reason is not None
    assert not any(ord(char) < 32 or ord(char) in {127, 0x2028, 0x2029} for char in event.reason)


def test_an_event_knows_its_actor_and_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """by() fills the actor from the principal; the logging sink keeps the whole event as one record."""
    principal = Principal(tenant="acme", user="u", role="admin", session="h")
    event = AuditEvent.by(
        principal, EventKind.ROLE_CHANGED, at=NOW, outcome=Outcome.DENIED, target="user:7", role_from="member", role_to="owner"
    )
    fields = event.as_dict()
    assert (fields["tenant"], fields["user"], fields["role"], fields["session"]) == ("acme", "u", "admin", "h")
    with caplog.at_level("INFO", logger="axis_security.audit"):
        LoggingSink().emit(event)
        LoggingSink().emit(AuditEvent.by(None, EventKind.LOGOUT, at=NOW, outcome=Outcome.ALLOWED))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.records[0].__dict__["event"] == fields
