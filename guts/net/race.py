"""Happy Eyeballs (RFC 8305): several addresses of one node are tried in turn, a quarter of a second apart.

The first authenticated connection wins, and what else is under way is given up. So a family that leads nowhere, or an
address at which somebody else lives now, costs no more than the pause.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from guts.addresses import Address
from guts.errors import GutsError, PeerFault, Unavailable
from guts.net.tcp import TcpConnection

STAGGER: Final = 0.25
"""Seconds until the next address is tried beside those before, if none of them has failed (RFC 8305 §5)."""


class _Won(Exception):
    """One attempt has succeeded."""


def interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Return ``addresses`` with their families in turn, that of the first one first (RFC 8305 §4)."""
    families: dict[bool, list[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(":" in address.ip, []).append(address)
    ranked = [(turn, address) for family in families.values() for turn, address in enumerate(family)]
    return [address for _, address in sorted(ranked, key=lambda pair: pair[0])]


async def race(
    addresses: Sequence[Address],
    dial: Callable[[Address], Awaitable[TcpConnection]],
    stagger: float = STAGGER,
) -> TcpConnection:
    """Return the first connection that ``dial`` makes to any of ``addresses`` (at least one), tried in their order.

    Raises:
        PeerFault, Unavailable: what the first attempt that failed ended in, where all fail.
    """
    won: list[TcpConnection] = []
    errors: list[GutsError] = []

    async def attempt(address: Address, failed: asyncio.Event) -> None:
        try:
            won.append(await dial(address))
        except (PeerFault, Unavailable) as error:
            errors.append(error)
            failed.set()
            return
        raise _Won

    try:
        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                failed = asyncio.Event()
                tasks.create_task(attempt(address, failed))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(stagger):
                        await failed.wait()
    except* _Won:
        pass
    if not won:
        raise errors[0]
    first, *others = won
    for other in others:
        await other.close()
    return first
