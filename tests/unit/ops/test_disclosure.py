"""security.txt: valid by another implementation's judgement, and fresh only while reviewed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sectxt  # type: ignore[import-untyped]  # ships no types
from hypothesis import given
from hypothesis import strategies as st

from axis_security.core.errors import ConfigError
from axis_security.ops.disclosure import SecurityTxt, check_security_txt

NOW = datetime.now(UTC)
TODAY = NOW.date()


def sample(**changes: Any) -> SecurityTxt:
    """A complete file, reviewed today unless told."""
    fields: dict[str, Any] = {
        "contact": ("mailto:security@example.org", "https://example.org/report"),
        "reviewed_on": TODAY,
        "canonical": ("https://example.org/.well-known/security.txt",),
        "policy": ("https://example.org/policy",),
        "encryption": ("https://example.org/key.asc",),
        "preferred_languages": ("en", "de-CH"),
    }
    return SecurityTxt(**{**fields, **changes})


def test_an_independent_validator_accepts_it() -> None:
    """sectxt, which shares no code with us, finds no error and the lines end in CRLF."""
    data = sample().render(NOW)
    parsed = sectxt.Parser(data, urls="https://example.org/.well-known/security.txt")
    assert parsed.errors == []
    assert data.count(b"\r\n") == data.count(b"\n") == 7


def test_expires_moves_on_only_while_reviewed() -> None:
    """Within the review's reach Expires lies ahead; after it, it stands still and the file expires."""
    text = sample(reviewed_on=date(2026, 1, 1), review_every=timedelta(days=180), lasting=timedelta(days=90))
    reach = datetime(2026, 6, 30, tzinfo=UTC)
    assert text.expires(datetime(2026, 1, 2, 15, tzinfo=UTC)) == datetime(2026, 4, 2, tzinfo=UTC)
    assert text.expires(datetime(2026, 6, 1, tzinfo=UTC)) == reach
    late = datetime(2026, 9, 1, tzinfo=UTC)
    assert text.expires(late) == reach
    assert {finding.code for finding in text.check(late).findings} == {"disclosure.expired", "disclosure.review_overdue"}
    assert text.check(datetime(2026, 6, 1, tzinfo=UTC)).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"contact": ()},
        {"contact": ("security@example.org",)},
        {"contact": ("http://example.org/report",)},
        {"contact": ("https://example.org/\r\nContact: mailto:evil@example.org",)},
        {"canonical": ("http://example.org/security.txt",)},
        {"preferred_languages": ("english language",)},
        {"lasting": timedelta(days=400)},
        {"review_every": timedelta(days=4000)},
    ],
)
def test_a_file_that_breaks_the_rfc_cannot_be_built(changes: dict[str, Any]) -> None:
    """Every breach of RFC 9116 is refused at construction."""
    with pytest.raises(ConfigError):
        sample(**changes)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "no_contact"),
        (b"Contact: mailto:a@example.org\n", "no_expires"),
        (b"Contact: mailto:a@example.org\nExpires: soon\n", "no_expires"),
        (b"Contact: mailto:a@example.org\nExpires: 2020-01-01T00:00:00Z\n", "expired"),
        (b"Contact: mailto:a@example.org\nExpires: 2999-01-01T00:00:00Z\n", "too_far"),
        (b"Contact: a@example.org\n", "field"),
        (b"Contact mailto:a@example.org\n", "syntax"),
        (b"Expires: 2020-01-01T00:00:00Z\nExpires: 2020-01-01T00:00:00Z\n", "repeated"),
        (b"\xff\xfe", "encoding"),
        (b"#" * 40_000, "too_large"),
    ],
)
def test_each_fault_has_its_code(data: bytes, code: str) -> None:
    """A reader is told which rule is broken."""
    result = check_security_txt(data, now=NOW)
    assert not result.ok
    assert f"disclosure.{code}" in {finding.code for finding in result.findings}


@pytest.mark.parametrize("contact", ["mailto:security@example.com?subject=report", "tel:+49-30-1234567", "https://example.com/report"])
def test_every_kind_of_contact_is_taken(contact: str) -> None:
    """By mail, by telephone or on the web: RFC 9116 section 2.5.3."""
    text = SecurityTxt(
        contact=(contact,), reviewed_on=date(2026, 5, 1), encryption=("openpgp4fpr:5f2d",), preferred_languages=("en", "de-AT")
    )
    assert text.check(datetime(2026, 5, 2, tzinfo=UTC)).ok


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contact", "tel:call me"), ("contact", "https://"), ("contact", "https://[::1"), ("encryption", "http://example.com/key"),
        ("preferred_languages", "en us"), ("policy", "https://example.com/a b"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_is_refused(field: str, value: str) -> None:
    """An address that nobody can use, in each of its kinds, and never a crash over it."""
    with pytest.raises(ConfigError):
        SecurityTxt(**{"contact": ("mailto:s@example.com",), "reviewed_on": date(2026, 5, 1), field: (value,)})  # type: ignore[arg-type]


@pytest.mark.parametrize("expires", ["2026-02-30T00:00:00Z", "2026-05-01", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_an_odd_date_is_judged(expires: str) -> None:
    """One that is none, and one at the end of what a calendar holds: not ok, and no crash."""
    data = f"Contact: mailto:s@example.com\nExpires: {expires}\n".encode()
    assert not check_security_txt(data, now=datetime(2026, 5, 2, tzinfo=UTC)).ok


@given(
    st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: f"Contact: {text}\r\nExpires: {text}\r\n".encode("utf-8", "surrogatepass"))
)
def test_no_bytes_make_the_check_raise(data: bytes) -> None:
    """Whatever a server sends, the answer is a result."""
    result = check_security_txt(data, now=NOW)
    assert result.ok is not bool(result.findings)
