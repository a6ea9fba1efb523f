"""A request as the gate looks at it, whatever server it came through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from axis_security.auth.csrf import SAFE_METHODS

__all__ = ["WANTED_HEADERS", "WEBSOCKET", "RequestFacts", "merged"]

WEBSOCKET: Final = "WEBSOCKET"
"""Stands for the method of a WebSocket handshake."""

WANTED_HEADERS: Final = frozenset(
    {
        "accept",
        "authorization",
        "content-type",
        "cookie",
        "host",
        "origin",
        "sec-fetch-mode",
        "sec-fetch-site",
        "user-agent",
        "x-csrf-token",
        "x-forwarded-for",
        "x-forwarded-proto",
    }
)
"""All that the gate reads; an adapter may leave out the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What a request says. Nothing in here is believed yet.

    Args:
        method: as received; :data:`WEBSOCKET` for a handshake.
        path: decoded, from the root of the host.
        query: as received, without the question mark.
        secure: whether it came over TLS, as the server sees it.
        peer: address of whoever connected.
        headers: names in lower case; :data:`WANTED_HEADERS` suffice. Repeated ones joined as :func:`merged` does.
    """

    method: str
    path: str
    query: str = ""
    secure: bool = True
    peer: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_websocket(self) -> bool:
        """Whether it asks for a WebSocket."""
        return self.method == WEBSOCKET

    @property
    def is_safe(self) -> bool:
        """Whether its method changes nothing."""
        return self.method in SAFE_METHODS

    @property
    def is_navigation(self) -> bool:
        """Whether a person opens a page: such a request may be answered with a page or sent elsewhere; a script's may not."""
        return (
            self.method in {"GET", "HEAD"}
            and "text/html" in self.headers.get("accept", "")
            and self.headers.get("sec-fetch-mode", "navigate") == "navigate"
        )


def merged(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header lines as one mapping: repeated names are joined with a comma, cookies with a semicolon, so that two never pass for one."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            found[name] += ("; " if name == "cookie" else ", ") + value
        else:
            found[name] = value
    return found
