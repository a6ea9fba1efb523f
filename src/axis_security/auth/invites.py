"""The secret half of an invitation. Who may invite whom is the members' business (:mod:`axis_security.rbac.members`); this makes the link.

The members' store looks an invitation up by a 32-byte digest. With a rotated key there are several candidates: try each, newest first.
"""

from __future__ import annotations

from typing import Final

from axis_security.auth.ports import Digest
from axis_security.auth.recovery import DigestRing
from axis_security.auth.tokens import Landed, LinkRefused, Purpose, PurposeTokens
from axis_security.auth.visitor import Visitor
from axis_security.core.secret import Secret

__all__ = ["InvitationLinks"]


class InvitationLinks:
    """Makes and reads the tokens of invitations.

    Args:
        tokens: the tokens of the login flows, for the text form and the landing cookie.
        digests: the digest keys.
    """

    def __init__(self, *, tokens: PurposeTokens, digests: DigestRing) -> None:
        self._tokens: Final = tokens
        self._digests: Final = digests

    def mint(self) -> tuple[Secret[str], bytes]:
        """A fresh token for the letter, and the digest for ``members.invite(digest=…)``."""
        text = self._tokens.fresh_text()
        found = dict(self._tokens.candidates(Purpose.INVITATION, text.reveal()) or ())
        return text, found[self._digests.active]

    def digests(self, text: object) -> tuple[bytes, ...]:
        """The digests to try with ``members.peek`` and ``members.accept``, the active key's first; none for a text that is no token."""
        found: tuple[Digest, ...] = self._tokens.candidates(Purpose.INVITATION, text) or ()
        return tuple(digest for _, digest in sorted(found, key=lambda pair: pair[0] != self._digests.active))

    def land(self, text: object, *, visitor: Visitor) -> Landed | LinkRefused:
        """What a GET of the link does: the token moves into a cookie of ten minutes, and nothing is accepted."""
        if not isinstance(text, str) or not self.digests(text):
            return LinkRefused("malformed")
        return Landed(self._tokens.landing_headers(Purpose.INVITATION, Secret(text), visitor=visitor))

    def landed(self, *, visitor: Visitor) -> Secret[str] | None:
        """The token that the landing cookie holds, for the page and for the POST that accepts."""
        return self._tokens.landed(Purpose.INVITATION, visitor=visitor)
