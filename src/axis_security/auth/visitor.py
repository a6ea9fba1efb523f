"""What a login flow knows of the browser in front of it."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from axis_security.auth.cookies import CookiesRead
from axis_security.auth.network import network_of

__all__ = ["MAX_LABEL_CHARS", "Visitor", "client_label"]

MAX_LABEL_CHARS = 200
"""Longest label of a device, in characters."""


def client_label(agent: object) -> str:
    """What a ``User-Agent`` says, fit for a list and a log: printable, on one line, cut to 200 characters. The client may claim anything."""
    if not isinstance(agent, str):
        return ""
    return "".join(char if unicodedata.category(char)[0] not in "CZ" else " " for char in agent[:MAX_LABEL_CHARS]).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A request, as far as authentication looks at it. Adapters make one of each request.

    Args:
        cookies: as :meth:`~axis_security.auth.cookies.CookieProfile.read` gave them.
        address: the client's, as :func:`~axis_security.auth.network.client_address` gave it.
        agent: the User-Agent header.
        host: the Host header; the development cookies need it.
    """

    cookies: CookiesRead = field(default_factory=CookiesRead)
    address: str = ""
    agent: str = ""
    host: str = ""

    @property
    def network(self) -> str:
        """The network to count by."""
        return network_of(self.address)

    @property
    def label(self) -> str:
        """The device's label."""
        return client_label(self.agent)
