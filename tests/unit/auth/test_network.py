"""Addresses to count by, and login names in one form."""

from __future__ import annotations

import pytest

from axis_security.auth.identifiers import identifier_or_decoy, normalise_identifier
from axis_security.auth.network import UNKNOWN_NETWORK, client_address, network_of
from axis_security.core.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:C000:0207", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", UNKNOWN_NETWORK),
        ("localhost", UNKNOWN_NETWORK),
        ("192.0.2.007", UNKNOWN_NETWORK),
        ("1" * 100, UNKNOWN_NETWORK),
        ("١٩٢.0.2.7", UNKNOWN_NETWORK),
        ("\ud800", UNKNOWN_NETWORK),
    ],
)
def test_cve_2026_45364_one_customer_is_one_network(address: str, network: str) -> None:
    """IPv6 counts by /64, IPv4 in IPv6 clothes is IPv4, and what cannot be read shares one budget."""
    assert network_of(address) == network


def test_a_forged_forwarded_for_changes_nothing() -> None:
    """Only the entries that our own proxies appended are read: with 0, 1 and 2 of them, forged entries to the left are ignored."""
    forged = ["1.1.1.1, 2.2.2.2", "10.0.0.9, 198.51.100.4"]
    assert client_address("10.0.0.1", forwarded_for=forged) == "10.0.0.1"
    assert client_address("10.0.0.1", forwarded_for=forged, hops=1) == "198.51.100.4"
    assert client_address("10.0.0.1", forwarded_for=forged, hops=2) == "10.0.0.9"
    assert client_address("10.0.0.1", forwarded_for=["6.6.6.6"] * 9 + forged, hops=1) == "198.51.100.4"


@pytest.mark.parametrize("header", [[], [""], ["198.51.100.4"], ["nonsense, 198.51.100.4"], [", 198.51.100.4"], ["x" * 10_000]])
def test_a_chain_that_our_proxies_did_not_write_falls_back_to_the_peer(header: list[str]) -> None:
    """Fewer entries than declared, or no address in our proxy's place: count the peer itself."""
    assert client_address("10.0.0.1", forwarded_for=header, hops=2) == "10.0.0.1"


def test_the_number_of_proxies_is_checked() -> None:
    """A negative or absurd number is refused."""
    for hops in (-1, 9):
        with pytest.raises(ConfigError):
            client_address("10.0.0.1", hops=hops)


def test_case_and_compatible_forms_are_one_login_name() -> None:
    """Case and compatibility forms fold together; different letters don't (CVE-2019-19844's dotless i)."""
    for text in ("ANN@Example.com", " ann@example.com ", "\uff41nn@example.com", "ann@EXAMPLE.COM"):
        assert normalise_identifier(text) == "ann@example.com"
    assert normalise_identifier("m\u0131ke@example.com") != normalise_identifier("mike@example.com")
    assert normalise_identifier("\u212aim@example.com") == "kim@example.com"


@pytest.mark.parametrize("text", ["", "  ", "a b", "a\0b", "a\nb", "\ud800", "a" * 321, "\ufdfa" * 320, None, 7, "a\u200bb", "a\u202eb"])
def test_what_cannot_be_a_name_becomes_an_unknown_one(text: object) -> None:
    """No text raises; what no account can have takes the path of an unknown account."""
    assert normalise_identifier(text) is None
    decoy = identifier_or_decoy(text)
    assert 0 < len(decoy) <= 320
    assert normalise_identifier(decoy) is None
