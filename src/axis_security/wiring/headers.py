"""Response headers: one reviewed default for every adapter.

Sources: OWASP HTTP Headers cheat sheet, ASVS 5.0 V3.4 (3.4.1 HSTS, 3.4.3 CSP, 3.4.4 nosniff, 3.4.5 referrer, 3.4.6 framing, 3.4.8 COOP),
Mozilla "modern" TLS for the HSTS age.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from axis_security.core.errors import ConfigError

__all__ = ["SecurityHeaders", "new_nonce"]

_TWO_YEARS: Final = 63_072_000

_CSP: Final[Mapping[str, tuple[str, ...]]] = {
    "default-src": ("'self'",),
    "script-src": ("'self'", "{nonce}"),
    "style-src": ("'self'", "{nonce}"),
    "img-src": ("'self'", "data:"),
    "object-src": ("'none'",),
    "base-uri": ("'none'",),
    "form-action": ("'self'",),
    "frame-ancestors": ("'none'",),
}
_SCRIPTS: Final = {"default-src", "script-src", "script-src-elem", "script-src-attr"}
# Keywords that let in what was injected; a whole scheme (`data:` is a script of whoever writes the address); a host that is any host.
_UNSAFE: Final = re.compile(
    r"'unsafe-(?:inline|eval|hashes)'|[a-z][a-z0-9+.-]*:|(?:[a-z][a-z0-9+.-]*://)?\*(?:[:/].*)?", re.IGNORECASE | re.ASCII
)
_SOURCE: Final = re.compile(r"[!-+\--:<-~]+", re.ASCII)  # visible ASCII without comma and semicolon


def new_nonce(random: Callable[[int], str] = secrets.token_urlsafe) -> str:
    """A fresh CSP nonce: 128 bits (CSP level 3 section 7.1 asks for at least that)."""
    return random(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityHeaders:
    """The headers of every answer.

    Args:
        csp: directives over the default, merged by name; ``{nonce}`` is replaced at each request. Sources that undo the policy
            (``'unsafe-inline'``, ``'unsafe-eval'``, any host, a bare scheme) are refused for scripts.
        hsts_seconds: how long browsers insist on https; at least a year (ASVS 3.4.1). Sent over https only (RFC 6797 section 7.2).
        hsts_subdomains: whether subdomains are included.
        permissions: browser features switched off.

    Raises:
        ConfigError: a value would weaken the page or break the header.
    """

    csp: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hsts_seconds: int = _TWO_YEARS
    hsts_subdomains: bool = True
    permissions: tuple[str, ...] = ("camera", "geolocation", "microphone", "payment", "usb")

    def __post_init__(self) -> None:
        problems = []
        for directive, sources in self.csp.items():
            if re.fullmatch(r"[a-z-]+", directive) is None or any(_SOURCE.fullmatch(source) is None for source in sources):
                problems.append(f"`{directive}` holds a character that ends a directive")
            if directive in _SCRIPTS and any(_UNSAFE.fullmatch(source) for source in sources):
                problems.append(f"`{directive}` would let injected scripts run")
        if self.hsts_seconds < 31_536_000:
            problems.append("HSTS is shorter than a year (ASVS 3.4.1)")
        if any(re.fullmatch(r"[a-z-]+", feature) is None for feature in self.permissions):
            problems.append("a permission is no feature name")
        if problems:
            raise ConfigError(
                what="the security headers are not usable", why="; ".join(problems), fix="use hosts, 'self', hashes or {nonce}"
            )

    def render(self, *, secure: bool, nonce: str | None = None) -> list[tuple[str, str]]:
        """The headers, lower-case names, in a fixed order.

        Args:
            secure: whether the request came over https.
            nonce: this request's nonce; without one, nonce sources are left out.
        """
        hsts = f"max-age={self.hsts_seconds}" + ("; includeSubDomains" if self.hsts_subdomains else "")
        headers = [("strict-transport-security", hsts)] if secure else []
        return [
            *headers,
            ("content-security-policy", self._policy(nonce)),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("permissions-policy", ", ".join(f"{feature}=()" for feature in self.permissions)),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ]

    def _policy(self, nonce: str | None) -> str:
        directives = {**_CSP, **self.csp}
        return "; ".join(f"{name} {' '.join(_sources(sources, nonce))}".rstrip() for name, sources in directives.items())


def _sources(sources: Iterable[str], nonce: str | None) -> Iterable[str]:
    for source in sources:
        if source != "{nonce}":
            yield source
        elif nonce is not None:
            yield f"'nonce-{nonce}'"
