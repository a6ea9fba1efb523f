"""RFC 9116 ``security.txt``: where strangers report a vulnerability, kept fresh only while somebody looks after it.

A file whose ``Expires`` renews itself for ever says nothing about whether anyone still reads the mailbox. Here ``Expires`` is
computed when the file is served, and moves on only while ``reviewed_on`` is younger than ``review_every``. After that it stands
still, the file expires, and the check turns red: abandonment shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from urllib.parse import urlsplit

from axis_security.core.checks import CheckResult, Finding, Severity
from axis_security.core.errors import ConfigError

__all__ = ["CONTENT_TYPE", "WELL_KNOWN_PATH", "SecurityTxt", "check_security_txt"]

WELL_KNOWN_PATH: Final = "/.well-known/security.txt"
"""RFC 9116 section 3."""
CONTENT_TYPE: Final = "text/plain; charset=utf-8"
"""RFC 9116 section 3: the encoding must be stated."""
MAX_BYTES: Final = 32 * 1024
"""RFC 9116 section 5.6 asks readers to bound what they take."""

_MAX_LIFE: Final = timedelta(days=365)
"""RFC 9116 section 2.5.5: less than a year into the future is recommended."""
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*", re.ASCII)
_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_FIELDS: Final = {
    "contact": "Contact",
    "expires": "Expires",
    "encryption": "Encryption",
    "acknowledgments": "Acknowledgments",
    "preferred-languages": "Preferred-Languages",
    "canonical": "Canonical",
    "policy": "Policy",
    "hiring": "Hiring",
}
_ONCE: Final = {"expires", "preferred-languages"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityTxt:
    """What the file says, and the rule for its freshness.

    Args:
        contact: where to report, best first: ``mailto:``, ``tel:`` or ``https://`` addresses (section 2.5.3).
        reviewed_on: the day a person last checked that every address here is read. Change it by hand, after checking.
        review_every: how long a review lasts; 1 to 365 days.
        lasting: how far into the future ``Expires`` lies; 1 to 364 days.
        canonical: the ``https://`` addresses this file is served at.
        encryption, acknowledgments, policy, hiring: ``https://`` addresses; encryption may also be ``dns:`` or ``openpgp4fpr:``.
        preferred_languages: RFC 5646 tags such as ``en``.

    Raises:
        ConfigError: a field breaks RFC 9116.
    """

    contact: tuple[str, ...]
    reviewed_on: date
    review_every: timedelta = timedelta(days=180)
    lasting: timedelta = timedelta(days=90)
    canonical: tuple[str, ...] = ()
    encryption: tuple[str, ...] = ()
    acknowledgments: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    hiring: tuple[str, ...] = ()
    preferred_languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not timedelta(days=1) <= self.lasting < _MAX_LIFE or not timedelta(days=1) <= self.review_every <= _MAX_LIFE:
            raise ConfigError(
                what="security.txt would not stay fresh",
                why="`lasting` must lie in 1 to 364 days and `review_every` in 1 to 365 (RFC 9116 section 2.5.5)",
                fix="keep the defaults: 90 and 180 days",
            )
        problems = [problem for name, value in self._pairs() if (problem := _problem(name.lower(), value)) is not None]
        if not self.contact:
            problems.append("there is no Contact")
        if problems:
            raise ConfigError(
                what="security.txt breaks RFC 9116",
                why="; ".join(problems),
                fix="give full addresses with their scheme: mailto:, tel: or https://",
            )

    def expires(self, now: datetime) -> datetime:
        """When the file served at *now* expires: midnight UTC, at most ``lasting`` ahead, never beyond the last review's reach."""
        reach = datetime.combine(self.reviewed_on, time(tzinfo=UTC)) + self.review_every
        day = datetime.combine(now.astimezone(UTC).date(), time(tzinfo=UTC))
        return min(day + self.lasting, reach) if day < reach else reach

    def render(self, now: datetime) -> bytes:
        """The file's bytes at *now*: CRLF line ends, stable within a day."""
        lines = [f"{name}: {value}" for name, value in self._pairs()]
        lines.append(f"Expires: {self.expires(now):%Y-%m-%dT%H:%M:%SZ}")
        return ("\r\n".join(lines) + "\r\n").encode("utf-8")

    def check(self, now: datetime) -> CheckResult:
        """Whether the file holds at *now*, and whether its review is due."""
        result = check_security_txt(self.render(now), now=now)
        due = self.reviewed_on + self.review_every
        findings = list(result.findings)
        if now.astimezone(UTC).date() >= due:
            findings.append(
                Finding(
                    code="disclosure.review_overdue",
                    severity=Severity.ERROR,
                    object=WELL_KNOWN_PATH,
                    what="nobody has reviewed security.txt in time",
                    why=f"the last review was on {self.reviewed_on}, and one was due on {due}",
                    fix="check that every address is read, then set reviewed_on to today",
                )
            )
        return CheckResult(name=result.name, ok=not findings, seen=f"{result.seen}; reviewed {self.reviewed_on}", findings=tuple(findings))

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for name in ("contact", "encryption", "acknowledgments", "canonical", "policy", "hiring"):
            for value in getattr(self, name):
                yield _FIELDS[name], value
        if self.preferred_languages:
            yield "Preferred-Languages", ", ".join(self.preferred_languages)


def check_security_txt(data: bytes, *, now: datetime) -> CheckResult:
    """Read a security.txt as a stranger would, and say what is wrong. Never raises, whatever the bytes."""
    findings: list[Finding] = []

    def find(code: str, why: str, fix: str) -> None:
        findings.append(
            Finding(
                code=f"disclosure.{code}",
                severity=Severity.ERROR,
                object=WELL_KNOWN_PATH,
                what="security.txt breaks RFC 9116",
                why=why,
                fix=fix,
            )
        )

    if len(data) > MAX_BYTES:
        find("too_large", f"it has more than {MAX_BYTES} bytes", "shorten it")
        return CheckResult(name="disclosure.security_txt", ok=False, seen="too large", findings=tuple(findings))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        find("encoding", "it is not UTF-8 (section 3)", "write it as UTF-8")
        return CheckResult(name="disclosure.security_txt", ok=False, seen="not UTF-8", findings=tuple(findings))
    fields: dict[str, list[str]] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, separator, value = line.partition(": ")
        if not separator or not re.fullmatch(r"[!-9;-~]+", name):
            find("syntax", f"line {number} is no `Name: value`", "write one field a line, with `: ` between name and value")
            continue
        key = name.lower()
        fields.setdefault(key, []).append(value.strip())
        problem = _problem(key, value.strip())
        if problem is not None:
            find("field", f"line {number}: {problem}", "give the full address with its scheme")
    if not fields.get("contact"):
        find("no_contact", "there is no Contact field (section 2.5.3)", "add one")
    for key in sorted(_ONCE):
        if len(fields.get(key, ())) > 1:
            find("repeated", f"{_FIELDS[key]} stands more than once", "keep one")
    expires = _read_date(fields["expires"][0]) if fields.get("expires") else None
    if expires is None:
        find("no_expires", "there is no readable Expires field (section 2.5.5)", "add one, as an RFC 3339 date")
        seen = "no Expires"
    else:
        seen = f"expires {expires:%Y-%m-%d}"
        if expires <= now:
            find("expired", f"it expired on {expires:%Y-%m-%d}", "review it, and set reviewed_on to today")
        elif expires - now > _MAX_LIFE:
            find("too_far", "Expires lies more than a year ahead", "keep it under a year")
    return CheckResult(name="disclosure.security_txt", ok=not findings, seen=seen, findings=tuple(findings))


def _problem(key: str, value: str) -> str | None:
    if "\r" in value or "\n" in value or not value.isprintable():
        return f"{_FIELDS.get(key, 'a field')} holds control characters"
    match key:
        case "contact":
            return None if _is_contact(value) else "Contact must be a mailto:, tel: or https:// address"
        case "encryption":
            ok = _is_https(value) or value.startswith(("dns:", "openpgp4fpr:"))
            return None if ok else "Encryption must be an https://, dns: or openpgp4fpr: address"
        case "acknowledgments" | "canonical" | "policy" | "hiring":
            return None if _is_https(value) else f"{_FIELDS[key]} must be an https:// address"
        case "preferred-languages":
            tags = [tag.strip() for tag in value.split(",")]
            return (
                None if all(_LANGUAGE.fullmatch(tag) for tag in tags) else "Preferred-Languages must be RFC 5646 tags with commas between"
            )
        case _:
            return None  # section 2.4: unknown fields are ignored


def _is_contact(value: str) -> bool:
    if value.startswith("mailto:"):
        return _EMAIL.fullmatch(value.removeprefix("mailto:").partition("?")[0]) is not None
    if value.startswith("tel:"):
        return re.fullmatch(r"\+?[0-9().-]{3,40}", value.removeprefix("tel:")) is not None
    return _is_https(value)


def _is_https(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme == "https" and bool(parts.hostname) and " " not in value
    except ValueError:
        return False


def _read_date(value: str) -> datetime | None:
    if _DATE.fullmatch(value) is None:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
