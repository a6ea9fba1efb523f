"""Security headers: the default holds, and can't be argued into a weak one."""

from __future__ import annotations

from typing import Any

import pytest

from axis_security.core.errors import ConfigError
from axis_security.wiring.headers import SecurityHeaders, new_nonce


def test_the_default_sets_every_header_asvs_names() -> None:
    """Over https all eight headers are there, and scripts need the nonce."""
    headers = dict(SecurityHeaders().render(secure=True, nonce="n0nce"))
    assert headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"
    assert "script-src 'self' 'nonce-n0nce'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert len(headers) == 8


def test_hsts_is_not_sent_over_http() -> None:
    """RFC 6797 section 7.2: no HSTS over an insecure transport."""
    assert "strict-transport-security" not in dict(SecurityHeaders().render(secure=False))


def test_without_a_nonce_no_empty_source_is_left() -> None:
    """A page that asked for no nonce allows no inline script at all."""
    policy = dict(SecurityHeaders().render(secure=True))["content-security-policy"]
    assert "nonce" not in policy
    assert "script-src 'self';" in policy


@pytest.mark.parametrize(
    "weak",
    [
        {"csp": {"script-src": ("'unsafe-inline'",)}},
        {"csp": {"script-src": ("*",)}},
        {"csp": {"default-src": ("https:",)}},
        {"csp": {"script-src": ("data:",)}},
        {"csp": {"script-src": ("'Unsafe-Inline'",)}},
        {"csp": {"script-src": ("https://*",)}},
        {"csp": {"script-src": ("*:443",)}},
        {"csp": {"script-src-elem": ("'self'", "'unsafe-inline'")}},
        {"csp": {"script-src-attr": ("'unsafe-hashes'",)}},
        {"csp": {"img-src": ("'self'; script-src *",)}},
        {"csp": {"img-src; script-src": ("*",)}},
        {"hsts_seconds": 300},
        {"permissions": ("camera=*",)},
    ],
)
def test_a_weak_policy_cannot_be_built(weak: dict[str, Any]) -> None:
    """Sources that let injected scripts run, a short HSTS and header injection are refused."""
    with pytest.raises(ConfigError):
        SecurityHeaders(**weak)


def test_a_host_may_widen_what_is_no_script() -> None:
    """Images from a named host are added; the rest of the default stays."""
    policy = dict(SecurityHeaders(csp={"img-src": ("'self'", "https://cdn.example.org")}).render(secure=True))["content-security-policy"]
    assert "img-src 'self' https://cdn.example.org" in policy
    hosts = ("https://cdn.example.org", "*.example.org", "'strict-dynamic'", "'sha256-RFWPLDbv2BY+rCkDzsE+0fr8ylGr2R2faWMhq4lfEQc='")
    assert " ".join(hosts) in dict(SecurityHeaders(csp={"script-src": hosts}).render(secure=True))["content-security-policy"]
    assert "object-src 'none'" in policy


def test_nonces_differ() -> None:
    """Each request's nonce is fresh."""
    assert len({new_nonce() for _ in range(100)}) == 100
