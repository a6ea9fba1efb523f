"""Find secrets in source: our own keys by shape and checksum, other people's by their fixed prefixes.

No entropy guessing: a scanner that cries at every hash is one that people turn off. A line that must hold a pattern (a test's
fixture, a document) carries ``axis-security: not-a-secret`` with a reason on the same line.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from axis_security.core.checks import Finding, Severity
from axis_security.core.minted import MINTED_PATTERN, is_minted

__all__ = ["scan_files", "scan_text", "tracked_files"]

_ALLOWED: Final = re.compile(r"axis-security: not-a-secret\s+\S.{7,}")
"""The marker, and a reason of at least eight characters behind it."""
_MAX_BYTES: Final = 2 * 1024 * 1024
_PIECE: Final = 20_000
_OVERLAP: Final = 1_000

_PATTERNS: Final[tuple[tuple[str, str, re.Pattern[str]], ...]] = (
    ("private_key", "a private key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")),
    ("aws_access_key", "an AWS access key id", re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Z0-9])")),
    ("github_token", "a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255})\b")),
    ("slack_token", "a Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,250}")),
    ("stripe_key", "a Stripe live key", re.compile(r"\b(?:sk|rk)_live_[A-Za-z0-9]{16,250}")),
    ("vault_token", "an OpenBao or Vault token", re.compile(r"\b(?:hvs|hvb|hvr|s)\.[A-Za-z0-9_-]{24,250}")),
    ("google_api_key", "a Google API key", re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b")),
    (
        "url_password",
        "a password in a connection URL",
        re.compile(
            r"\b(?:postgres(?:ql)?(?:\+\w+)?|mysql|mongodb(?:\+srv)?|rediss?|valkeys?|amqps?)://[^\s:/@'\"{}$<>]+:(?P<value>[^\s@'\"{}$<>]{3,})@"
        ),
    ),
    (
        "framework_secret",
        "a framework's secret key as a literal",
        re.compile(r"(?i)\b(?:SECRET_KEY|JWT_SECRET|SESSION_SECRET)\b\s*[:=]\s*[rbu]?(['\"])(?P<value>[^'\"\s]{16,})\1"),
    ),
)


def scan_text(text: str, *, name: str) -> Iterator[Finding]:
    """Findings in *text*, one for each kind on a line; the secret itself never appears in one, only its kind and place."""
    for number, line in enumerate(text.splitlines(), start=1):
        if _ALLOWED.search(line):
            continue
        found: dict[str, str] = {}
        # A line of generated code can be the whole file. Pieces that overlap by more than a secret's length cost no more than their sum, and miss none.
        for begin in range(0, max(len(line) - _OVERLAP, 1), _PIECE - _OVERLAP):
            piece = line[begin : begin + _PIECE]
            found |= {
                f"minted_key {match[1]}": f"an axis-security {match[1]} key" for match in MINTED_PATTERN.finditer(piece) if is_minted(match)
            }
            found |= {code: what for code, what, pattern in _PATTERNS if pattern.search(piece)}
        for code, what in found.items():
            yield _finding(code.partition(" ")[0], what, name, number)


def scan_files(paths: Iterable[Path], *, root: Path | None = None) -> Iterator[Finding]:
    """Findings in the files at *paths*; binary files and files over 2 MiB are passed over. Names are shown relative to *root*."""
    for path in paths:
        try:
            if not path.is_file() or path.stat().st_size > _MAX_BYTES:
                continue
            data = path.read_bytes()
        except OSError as error:
            shown = str(path.relative_to(root)) if root else str(path)
            yield Finding(
                code="secrets.unreadable",
                severity=Severity.ERROR,
                object=shown,
                what="a file could not be scanned",
                why=error.strerror or "unreadable",
                fix="make it readable, or leave it out of the list",
            )
            continue
        if b"\0" in data:
            continue
        yield from scan_text(data.decode("utf-8", "replace"), name=str(path.relative_to(root)) if root else str(path))


def tracked_files(root: Path) -> list[Path]:
    """What git tracks below *root*, and what it neither tracks nor ignores; outside a checkout, every file."""
    git = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(git, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git here, or no checkout
        return sorted(path for path in root.rglob("*") if path.is_file())
    return sorted({root / name for name in done.stdout.decode("utf-8", "surrogateescape").split("\0") if name})


def _finding(code: str, what: str, name: str, line: int) -> Finding:
    return Finding(
        code=f"secrets.{code}",
        severity=Severity.ERROR,
        object=f"{name}:{line}",
        what=f"{what} stands in the source",
        why="everyone who can read the repository, now or in its history, has it",
        fix="revoke it, put the new one into the secrets manager, and take this one out; if it is none, add `axis-security: not-a-secret <reason>` to the line",
        evidence={"line": line},
    )
