"""``Penalties``: addresses from which somebody was banned are served more slowly for a while.

A ban is of a key, and a new key costs nothing. So for an hour whoever comes from the same address, or the same network
of the internet, gets a tenth of the rates: a neighbour behind one address suffers little, who makes up keys gets no
more.
"""

import math
from typing import Final

from guts.addresses import non_global_range
from guts.peers.networks import host, prefix

PENALTY_SECONDS: Final = 3600.0
MAX_PENALTIES: Final = 10_000
"""Networks remembered; the ones whose penalty ends first are forgotten first."""


class Penalties:
    """When the penalty of which network ends, in monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, ip: str, now: float) -> None:
        """Penalise ``ip``, and its network where that is one of the internet: in a LAN many share a range."""
        for place in _places(ip):
            self._until.pop(place, None)
            self._until[place] = now + PENALTY_SECONDS
        while len(self._until) > MAX_PENALTIES:
            # Every penalty is as long, so the first one in is the first to end.
            del self._until[next(iter(self._until))]

    def penalised(self, ip: str, since: float, now: float) -> bool:
        """Tell whether who has come from ``ip`` at ``since`` is to be served more slowly at ``now``.

        Who was here before somebody from there was banned is not the one who came back under another key.
        """
        return any(now < until <= since + PENALTY_SECONDS for until in map(self._end, _places(ip)))

    def _end(self, place: str) -> float:
        return self._until.get(place, -math.inf)


def _places(ip: str) -> list[str]:
    return [host(ip), prefix(ip)] if non_global_range(ip) is None else [host(ip)]
