"""Login names: one normal form, so that no two spellings are two accounts or two budgets.

NFKC and full case folding, the "identifier caseless match" of Unicode (D146). Mail goes to the stored, normalised address and never to what was
typed: two addresses that fold together reach the one mailbox that was verified (the class of CVE-2019-19844).
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Final

__all__ = ["MAX_IDENTIFIER_CHARS", "identifier_or_decoy", "normalise_identifier"]

MAX_IDENTIFIER_CHARS: Final = 320
"""Longest login name: 64 of local part, the at sign, 255 of domain (RFC 5321 section 4.5.3.1)."""


def normalise_identifier(text: object) -> str | None:
    """The one form of a login name, or ``None`` for what none can be: empty, too long, with white space, controls or lone surrogates.

    White space around the name is taken off: people paste it, and no account can have it.
    """
    if not isinstance(text, str) or len(text) > MAX_IDENTIFIER_CHARS:
        return None
    trimmed = text.strip()
    try:
        trimmed.encode("utf-8")
    except UnicodeEncodeError:
        return None
    # Fold, normalise, and once more: the first pass can make characters that the second still folds.
    folded = trimmed
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded.casefold())
    if not 0 < len(folded) <= MAX_IDENTIFIER_CHARS or any(unicodedata.category(char)[0] in "CZ" for char in folded):
        return None
    return folded


def identifier_or_decoy(text: object) -> str:
    """The normal form, or for what has none a name that no account can have: it then takes the same path as an unknown one, to the end."""
    known = normalise_identifier(text)
    if known is not None:
        return known
    seen = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b""
    return f"(unusable {hashlib.sha256(seen).hexdigest()[:32]})"
