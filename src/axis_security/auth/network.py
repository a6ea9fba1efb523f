"""Whose request is it, on the network: the address to count by.

``X-Forwarded-For`` is text that the client may send; only the entries that our own proxies appended mean anything. So the host declares how
many of them there are, and everything further left is ignored.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from axis_security.core.errors import ConfigError

__all__ = ["UNKNOWN_NETWORK", "client_address", "network_of"]

UNKNOWN_NETWORK: Final = "unknown"
"""Stands for every address that cannot be read; they share one budget."""

_IPV6_PREFIX: Final = 64
_MAX_HOPS: Final = 8
_MAX_ADDRESS_CHARS: Final = 64


def client_address(peer: str, *, forwarded_for: Sequence[str] = (), hops: int = 0) -> str:
    """The client's address.

    Args:
        peer: who connected to us.
        forwarded_for: every ``X-Forwarded-For`` header of the request, in order.
        hops: how many proxies of ours stand in front, each of which appends the address it saw. With 0 the header is ignored.

    Returns:
        The entry that the outermost of our proxies wrote; *peer* where the chain is shorter than declared, or that entry is no address: such a
        request did not come through the proxies.

    Raises:
        ConfigError: *hops* is not in 0..8.
    """
    if not 0 <= hops <= _MAX_HOPS:
        raise ConfigError(
            what="unusable number of proxies", why=f"hops={hops}", fix="declare how many proxies of yours append to X-Forwarded-For (0..8)"
        )
    if hops == 0:
        return peer
    # Only the tail is ours; splitting from the right leaves a megabyte of forged entries alone.
    entries = ",".join(forwarded_for).rsplit(",", hops)
    tail = entries[-hops:] if len(entries) >= hops else []
    if not tail:
        return peer
    claimed = tail[0].strip(" \t")
    return claimed if network_of(claimed) != UNKNOWN_NETWORK else peer


def network_of(address: str) -> str:
    """The network to count by: an IPv4 address as it is, an IPv6 address by its /64, which is what one customer gets.

    IPv4 in IPv6 clothes (``::ffff:192.0.2.1``) is that IPv4 address, so that one machine has one budget.
    """
    if not isinstance(address, str) or len(address) > _MAX_ADDRESS_CHARS:
        return UNKNOWN_NETWORK
    text = address.partition("%")[0]
    if text.startswith("[") and "]" in text:
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]  # a proxy that writes the port too
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return UNKNOWN_NETWORK
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, _IPV6_PREFIX)))
    return str(found)
