"""``Penalties``: addresses from which somebody was banned are served more slowly for a while.

A ban is of a key, and a new key costs nothing. So for an hour whoever comes from the same address, or the same network
of the internet, gets a tenth of the rates: a neighbour behind one address suffers little, who makes up keys gets no
more.
"""

from typing import Final

from guts.addresses import Address, Network
from guts.peers.bans import ALL_BITS, network_around

PENALTY_SECONDS: Final = 3600.0
V4_PREFIX: Final = 24
V6_PREFIX: Final = 48
"""Bits: what one customer gets at the least; of /48 networks nobody has many."""

MAX_PENALTIES: Final = 10_000
"""Networks remembered; the ones whose penalty ends first are forgotten first."""


class Penalties:
    """When the penalty of which network ends, in monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[Network, float] = {}

    def add(self, address: Address, now: float) -> None:
        """Penalise ``address``, and its network where that is one of the internet: in a LAN many share a range."""
        for network in _networks(address):
            self._until.pop(network, None)
            self._until[network] = now + PENALTY_SECONDS
        while len(self._until) > MAX_PENALTIES:
            # Every penalty is as long, so the first one in is the first to end.
            del self._until[next(iter(self._until))]

    def penalised(self, address: Address, now: float) -> bool:
        """Tell whether who comes from ``address`` at ``now`` is to be served more slowly."""
        return any(self._until.get(network, now) > now for network in _networks(address))


def _networks(address: Address) -> list[Network]:
    alone = network_around(address.ip, ALL_BITS)
    around = network_around(address.ip, V4_PREFIX if alone.version == 4 else V6_PREFIX)
    return [alone, around] if alone.is_global else [alone]
