"""``Penalties``: addresses from which somebody was banned are served more slowly for a while.

A ban is of a key, and a new key costs nothing. So for an hour whoever comes anew from the same address pays ten times
as much for everything, out of purses that all who do so share; each further ban from there doubles that. From the same
network of the internet it is ten times, however often. Who was here before is a neighbour, and pays as before: who is
connected, and a blameless key that had stayed at that address for a while and comes back to it.
"""

import math
from dataclasses import dataclass
from typing import Final

from guts.addresses import non_global_range
from guts.peers.networks import host, prefix

PENALTY_SECONDS: Final = 3600.0
PENALTY: Final = 10.0
"""What everything costs after the first ban, in tokens: a tenth of the rates."""

MAX_PENALTY: Final = 160.0
"""After the fifth: a question in ten seconds, for which everybody is listened to again (``rates.MAX_WAIT``)."""

MAX_PENALTIES: Final = 10_000
"""Networks remembered; the ones whose penalty ends first are forgotten first."""


STAYED_SECONDS: Final = 600.0
"""Of one connection, after which a key is known at its address. Whoever keeps keys for the time after a ban pays for
each with one of the four places of an address, for as long."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Where a key has been connected for long.

    Attributes:
        host: what its address counts as.
        since: monotonic seconds, of its first such connection from there.
    """

    host: str
    since: float


def stayed(before: Stay | None, ip: str, since: float, until: float) -> Stay | None:
    """Return the stay of a key after a connection from ``ip``, given that before it (times in monotonic seconds)."""
    if until - since < STAYED_SECONDS or (before is not None and before.host == host(ip)):
        return before
    return Stay(host(ip), since)


@dataclass(frozen=True, slots=True)
class _Penalty:
    until: float = -math.inf
    factor: float = 1.0


class Penalties:
    """The penalty of each address and network that has one. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._penalties: dict[str, _Penalty] = {}

    def add(self, ip: str, now: float) -> None:
        """Penalise ``ip``, and its network where that is one of the internet: in a LAN many share a range."""
        for place, highest in _places(ip):
            before = self._penalties.pop(place, _Penalty())
            factor = min(before.factor * 2.0, highest) if before.until > now else PENALTY
            self._penalties[place] = _Penalty(now + PENALTY_SECONDS, factor)
        while len(self._penalties) > MAX_PENALTIES:
            # Every penalty is as long, so the first one in is the first to end.
            del self._penalties[next(iter(self._penalties))]

    def penalty(self, ip: str, since: float, now: float) -> float:
        """Return how many times as much everything costs for who has come from ``ip`` at ``since``; 1.0: no more."""
        found = (self._penalties.get(place, _Penalty()) for place, _ in _places(ip))
        return max((p.factor for p in found if now < p.until and since >= p.until - PENALTY_SECONDS), default=1.0)


def _places(ip: str) -> list[tuple[str, float]]:
    """Return what ``ip`` is counted as, each with its highest penalty."""
    alone = (host(ip), MAX_PENALTY)
    return [alone, (prefix(ip), PENALTY)] if non_global_range(ip) is None else [alone]
