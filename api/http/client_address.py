"""Whose address a request comes from, also behind proxies: what they say counts, what clients say does not."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from litestar import Request

Networks = tuple[IPv4Network | IPv6Network, ...]


def client_address(request: Request[Any, Any, Any], trusted: Networks) -> str:  # Any: Litestar's slots
    """The address nearest to us that is not a proxy of ours; `unknown` where the server knows none."""
    peer = request.client.host if request.client else "unknown"
    return nearest_untrusted(peer, request.headers.getall("x-forwarded-for", []), trusted)


def nearest_untrusted(peer: str, forwarded_for: Iterable[str], trusted: Networks) -> str:
    """The peer, unless it is trusted; then who it says it forwards for, and so on from right to left.

    Each proxy appends whom it saw: only the entries at the right were written by ours, the rest is the client's word.
    """
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    nearest = peer
    while hops and _is_trusted(nearest, trusted):
        address = _address(hops.pop())
        if address is None:
            break
        nearest = str(address)
    return nearest


def _is_trusted(text: str, trusted: Networks) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
