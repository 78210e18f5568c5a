"""Options of the TCP sockets."""

import ipaddress
import socket
from typing import Final

from guts.addresses import Address
from guts.wire.limits import KIB

NOTSENT_LOWAT_BYTES: Final = 128 * KIB
"""Bytes that the kernel takes before they can be sent (TCP_NOTSENT_LOWAT): what a ping has to wait behind."""


def configure(sock: socket.socket) -> None:
    """Set ``sock`` up for messages that must not wait and bulk bytes that must not pile up.

    Raises:
        OSError: the socket is closed already.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)


def family(address: Address) -> socket.AddressFamily:
    """Return the address family of ``address``."""
    return socket.AF_INET6 if ":" in address.ip else socket.AF_INET


Name = tuple[str, int] | tuple[str, int, int, int]
"""What the socket module calls an address: of IPv4, or of IPv6."""


def address_of(name: Name) -> Address:
    """Return what the socket module calls an address as ours, without an IPv6 zone."""
    return Address(str(ipaddress.ip_address(name[0].partition("%")[0])), name[1])
