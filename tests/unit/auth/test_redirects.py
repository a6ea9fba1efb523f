"""Return-to: a plain path of this app, or the default."""

from __future__ import annotations

import pytest

from axis_security.auth.redirects import return_to


@pytest.mark.parametrize("target", ["/", "/inbox", "/a/b/", "/a?next=%2Fb&x=1", "/caf%C3%A9", "/@ann", "/a-b_c~d.e/f", "/search?q=a/b"])
def test_plain_paths_pass(target: str) -> None:
    """The control: ordinary paths come back as they are."""
    assert return_to(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "",
        None,
        7,
        b"/inbox",
        "inbox",
        "//evil.example",
        "///evil.example",
        "////evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\\/evil.example",
        "\\/evil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/%5cevil.example",
        "/%5C%5Cevil.example",
        "/%2f%2fevil.example",
        "/%2Fevil.example",
        "/%252f%252fevil.example",
        "https://evil.example",
        "https:evil.example",
        "https:/evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "https://app.example.com@evil.example",
        "//app.example.com@evil.example",
        "https://app.example.com.evil.example",
        "//evil.example/app.example.com",
        ".evil.example",
        "@evil.example",
        "/./evil",
        "/../evil",
        "/a/..//evil.example",
        "/%2e%2e/evil",
        "/a//b",
        "/a\nSet-Cookie:x=1",
        "/a%0d%0aSet-Cookie:x=1",
        "/%00",
        "/a\x00",
        "/\u2215evil.example",
        "/\uff0fevil.example",
        "/é",
        "/\ud800",
        "/a#//evil.example",
        "/%",
        "/%zz",
        "/" + "a" * 3000,
        "?next=/a",
        "/;//evil.example",
    ],
)
def test_cve_2023_49438_and_ghsa_w2j7_f3c6_g8cw_the_redirect_corpus_leads_home(target: object) -> None:
    """Every address that a browser and a server could read differently leads to the default."""
    assert return_to(target, default="/home") == "/home"
