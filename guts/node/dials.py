"""Dials: names become addresses, and several addresses of one node race."""

import asyncio
import functools
import socket
from typing import ClassVar, Final, Protocol

from guts.addresses import Address, BootstrapAddress
from guts.effects import Dial
from guts.errors import Unavailable
from guts.ids import PeerId
from guts.net.race import interleaved, race
from guts.net.tcp import TcpConnection

RESOLVE_TIMEOUT: Final = 5.0
MAX_RESOLVED: Final = 8
"""Addresses of one name that are tried: both families of a few machines."""


class Unresolvable(Unavailable):
    """A host name leads nowhere."""

    code: ClassVar[str] = "UNRESOLVABLE"


class NoAnswer(Unavailable):
    """A dial took longer than the operator's ``connection_timeout``."""

    code: ClassVar[str] = "TIMED_OUT"


class DialAddress(Protocol):
    """Opens an authenticated connection; see ``guts.net.dial.dial``."""

    async def __call__(self, address: Address, *, expected: PeerId | None) -> TcpConnection: ...


async def reach(effect: Dial, dial: DialAddress, timeout: float) -> TcpConnection:  # noqa: ASYNC109
    """Return a connection to what ``effect`` names.

    Args:
        timeout: seconds for name, connect and handshake of all addresses together.

    Raises:
        PeerFault, Unavailable: nobody there, or nobody we can talk to.
    """
    target = effect.target
    try:
        async with asyncio.timeout(timeout):
            addresses = interleaved((*await resolve(target), *effect.others))
            return await race(addresses, functools.partial(dial, expected=target.peer))
    except TimeoutError:
        raise NoAnswer(f"no answer in {timeout:g} s") from None


async def resolve(target: BootstrapAddress) -> list[Address]:
    """Return the numeric addresses of ``target``, whose host the operator may have given by name; at least one.

    Raises:
        Unresolvable: the name leads nowhere, or takes too long to.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        raise Unresolvable(f"the name {target.host!r} leads to no address") from None
    addresses = [Address(str(sockaddr[0]).partition("%")[0], int(sockaddr[1])) for *_, sockaddr in found]
    return list(dict.fromkeys(addresses))[:MAX_RESOLVED]
