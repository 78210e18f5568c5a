"""Networks: which addresses count as one place, and which ones this node dials on another's word.

Whoever has one address of an IPv4 /24 or an IPv6 /48 often has them all, and of IPv6 a /64 is what one line gets. So
places at a node are counted by these. Inside a non-global range that the node itself is in (loopback, a LAN, a compose
network) one operator owns everything, and nothing is counted.
"""

import functools
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from guts.addresses import Address, neighbours, non_global_range

MIN_GLOBAL_PORT: Final = 1024
"""Lower ports of global addresses are other people's services: nobody has this node knock there by a record."""

T = TypeVar("T")


@functools.lru_cache(maxsize=8192)
def host(ip: str) -> str:
    """Return whom ``ip`` is counted as: an IPv4 address is itself, an IPv6 address its /64."""
    return ip if ":" not in ip else str(ipaddress.ip_network((ip, 64), strict=False))


@functools.lru_cache(maxsize=8192)
def prefix(ip: str) -> str:
    """Return the /24 or /48 that ``ip`` is in."""
    return str(ipaddress.ip_network((ip, 48 if ":" in ip else 24), strict=False))


@functools.lru_cache(maxsize=8192)
def is_public(ip: str) -> bool:
    """Tell whether a packet to ``ip`` can end neither on this machine, nor in its surroundings, nor at many."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.is_site_local):
        return False
    if address.is_multicast or address.is_unspecified or address.is_link_local or address.is_loopback:
        return False
    return not (address.is_reserved or non_global_range(ip) is not None or ip.startswith("0."))


class Surroundings:
    """The non-global ranges that this node is in."""

    def __init__(self, own: Iterable[str] = ()) -> None:
        """Take the node's own addresses, as its interfaces have them or as it is called by."""
        self._inside = {non_global_range(ip) for ip in own} - {None}

    def is_local(self, ip: str) -> bool:
        """Tell whether ``ip`` is in a non-global range that this node is in too."""
        return non_global_range(ip) in self._inside

    def may_dial(self, address: Address) -> bool:
        """Tell whether an address that another node named is dialled: never one that means something else here."""
        if self.is_local(address.ip):
            return address.port > 0
        return is_public(address.ip) and address.port >= MIN_GLOBAL_PORT

    def place(self, address: Address) -> str:
        """Return what diversity counts ``address`` as: its prefix; where it is local, what nobody else is."""
        return str(address) if self.is_local(address.ip) else prefix(address.ip)


def public_prefix(host: str) -> str:
    """Return the /24 or /48 of the internet that ``host`` is in; "": a name, or nearby, where many share a range."""
    return prefix(host) if is_public(host) else ""


def means_the_same(there: str, ip: str) -> bool:
    """Tell whether ``ip`` names the same node for somebody at ``there`` as it does here."""
    return is_public(ip) or neighbours(there, ip)


def diversely(items: Iterable[T], place: Callable[[T], str]) -> list[T]:
    """Return ``items`` so that no place comes again before every other has come; else their order stays."""
    turns: Counter[str] = Counter()
    ranked = []
    for item in items:
        ranked.append((turns[place(item)], item))
        turns[place(item)] += 1
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]
