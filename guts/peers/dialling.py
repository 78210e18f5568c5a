"""Whom to dial, and when: doors and last-good addresses, each with a waiting time of its own."""

import math
import random
from collections.abc import Callable, Container, Iterable
from typing import Final

from guts.addresses import BootstrapAddress
from guts.ids import PeerId
from guts.peers.backoff import MAX_DELAY, MAX_DELAY_FOR_HOLDER, Backoff
from guts.peers.state import PeerState

STABLE_AFTER: Final = 60.0
"""Seconds that a connection lasts before the failures ahead of it are forgotten: who greets and hangs up at once,
again and again, is dialled less and less often."""


class Dialling:
    """The dials under way, and the waiting time of every target.

    A *door* is an address from the config. Where it came without an id, the id that answered last is remembered, so
    that a door whose node is connected some other way is left alone.
    """

    def __init__(self, doors: tuple[BootstrapAddress, ...], rng: random.Random) -> None:
        self._doors = doors
        self._rng = rng
        self._behind: dict[BootstrapAddress, PeerId] = {}
        self._backoffs = {door: Backoff() for door in doors}
        self.under_way: set[BootstrapAddress] = set()

    @property
    def has_doors(self) -> bool:
        """Whether the config names any."""
        return bool(self._doors)

    def begin(self, target: BootstrapAddress) -> bool:
        """Note that ``target`` is being dialled; ``False`` where it is already."""
        if target in self.under_way:
            return False
        self.under_way.add(target)
        return True

    def end(self, target: BootstrapAddress) -> None:
        """Note that a dial of ``target`` has ended, one way or the other."""
        self.under_way.discard(target)

    def greeted(self, target: BootstrapAddress, peer: PeerId) -> None:
        """Note who answered at ``target``."""
        if target in self._backoffs:
            self._behind[target] = peer

    def failed(
        self,
        target: BootstrapAddress | None,
        state: PeerState | None,
        now: float,
        *,
        lasted: float = 0.0,
        at_least: float = 0.0,
    ) -> None:
        """Put off the next dial of ``target``, where it is a door, and of the peer of ``state``.

        Args:
            lasted: seconds that there was a connection.
            at_least: seconds that the peer asked to be left alone for.
        """
        waiting = [] if state is None else [(state.backoff, MAX_DELAY_FOR_HOLDER if state.repositories else MAX_DELAY)]
        if target is not None and target in self._backoffs:
            waiting.append((self._backoffs[target], MAX_DELAY_FOR_HOLDER))
        for backoff, cap in waiting:
            if lasted >= STABLE_AFTER:
                backoff.succeeded()
            backoff.failed(now, self._rng, cap)
            backoff.not_before = max(backoff.not_before, now + min(at_least, MAX_DELAY))

    def due(
        self,
        peers: Iterable[PeerState],
        connected: Container[PeerId],
        open_targets: Container[BootstrapAddress | None],
        refused: Callable[[PeerId], bool],
        now: float,
    ) -> tuple[list[BootstrapAddress], float]:
        """Return whom to dial, the most wanted first, and when the next one is due (monotonic seconds).

        Doors first, then last-good addresses, then those that peers claim; the most recently seen peer first.

        Args:
            open_targets: what the open connections were dialled at.
            refused: tells who is banned.
        """
        candidates = [
            (door, self._backoffs[door])
            for door in self._doors
            if door not in open_targets and not self._taken(door.peer or self._behind.get(door), connected, refused)
        ]
        candidates += [
            (_target(state), state.backoff)
            for state in sorted(peers, key=lambda state: (not state.reached, -state.last_seen))
            if state.addresses and state.last_seen and not self._taken(state.id, connected, refused)
        ]
        idle = [(target, backoff) for target, backoff in candidates if target not in self.under_way]
        return (
            [target for target, backoff in idle if backoff.not_before <= now],
            min((backoff.not_before for _, backoff in idle if backoff.not_before > now), default=math.inf),
        )

    @staticmethod
    def _taken(peer: PeerId | None, connected: Container[PeerId], refused: Callable[[PeerId], bool]) -> bool:
        return peer is not None and (peer in connected or refused(peer))


def _target(state: PeerState) -> BootstrapAddress:
    address = state.addresses[state.backoff.failures % len(state.addresses)]
    return BootstrapAddress(address.ip, address.port, state.id)
