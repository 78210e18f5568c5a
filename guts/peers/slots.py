"""Slots: who may come in, and who goes when everything is taken.

Whoever dials us chose us, so an attacker may hold as many incoming connections as there are. Room for those that we
dial is kept from them; a host has 4 of them and a /24 or /48 has 10; and when all are taken a newcomer takes the place
of one that nothing speaks for, as in Bitcoin Core (``src/node/eviction.cpp``): an attacker would have to be near, long
here, useful and in many networks at once to push everybody out.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from guts.peers.networks import Surroundings, host, prefix
from guts.peers.state import PeerConnection

TARGET_OUTBOUND: Final = 8
"""Connections we dial ourselves: who dials chooses, and so cannot be surrounded by those who dial us (Bitcoin 8,
Radicle 8). As many are kept free for them."""

MAX_OUTBOUND: Final = 16
"""More than the target are dialled for repositories that are followed; Radicle has the same number."""

MAX_PER_HOST: Final = 4
"""Incoming connections of one IPv4 address or IPv6 /64: people behind one address translator."""

MAX_PER_PREFIX: Final = 10
"""Incoming connections of one /24 or /48: a company, a university."""

PROTECTED_PREFIXES: Final = 4
"""Connections kept when all are taken, of networks that a secret chooses: nobody knows which to be in."""

PROTECTED_NEAR: Final = 8
"""Connections kept for their short round trips: distance can't be faked."""

PROTECTED_HOLDERS: Final = 8
"""Connections kept because they hold what is followed here."""

PROTECTED_KNOWN: Final = 8
"""Connections kept because this node has dialled that peer with success before: they are no strangers."""

GRACE: Final = 3.0
"""Seconds for which a newcomer is sent away for no other stranger: time for a hello, and to be told of other nodes. So
a door that everybody calls at once introduces some after the other, in the place of none."""


class Slots:
    """Counts of incoming connections, and the choice of who goes."""

    def __init__(self, maximum: int, surroundings: Surroundings, secret: bytes) -> None:
        """Args: ``maximum``: connections in all; ``secret``: 16 random bytes."""
        self._maximum = maximum
        self._surroundings = surroundings
        self._secret = secret

    @property
    def outbound_target(self) -> int:
        """How many to dial of our own accord; of a small table half: whoever dials takes a place of somebody else."""
        return max(1, min(TARGET_OUTBOUND, self._maximum // 2))

    @property
    def inbound_maximum(self) -> int:
        """How many may come in; a small table keeps half."""
        return self._maximum - min(TARGET_OUTBOUND, self._maximum // 2)

    def free(self, taken: int) -> int:
        """Return how many more connections there may be."""
        return self._maximum - taken

    def crowded(self, ip: str, inbound: Sequence[PeerConnection]) -> bool:
        """Tell whether host or network of ``ip`` has as many of the ``inbound`` connections as it may."""
        if self._surroundings.is_local(ip):
            return False
        there = [connection.address.ip for connection in inbound]
        return (
            sum(host(other) == host(ip) for other in there) >= MAX_PER_HOST
            or sum(prefix(other) == prefix(ip) for other in there) >= MAX_PER_PREFIX
        )

    def least_wanted(
        self,
        inbound: Sequence[PeerConnection],
        useful: Callable[[PeerConnection], bool],
        known: Callable[[PeerConnection], bool],
        now: float,
        *,
        stranger: bool,
    ) -> PeerConnection | None:
        """Return which of the ``inbound`` connections goes for a newcomer; ``None``: all are worth keeping.

        Kept are some of networks that a secret chooses, those with the shortest round trips, holders of what is
        followed here, peers that were reached before, and of the rest the half that has been here longest. Of what is
        left it is the youngest of the most frequent network.

        Args:
            useful: tells who holds something that is followed.
            known: tells whom this node has reached before.
            now: monotonic seconds.
            stranger: the newcomer is not known; then who came within ``GRACE`` is kept too.
        """
        left = list(inbound)
        chosen: dict[str, PeerConnection] = {}
        for connection in sorted(left, key=lambda c: (self._rank(c), c.opened_at)):
            chosen.setdefault(prefix(connection.address.ip), connection)
        _protect(left, list(chosen.values())[:PROTECTED_PREFIXES])
        measured = [(c.rtt, c.opened_at, c) for c in left if c.rtt is not None]
        measured.sort(key=lambda item: item[:2])
        _protect(left, [connection for _, _, connection in measured[:PROTECTED_NEAR]])
        left.sort(key=lambda c: c.opened_at)
        _protect(left, [c for c in left if useful(c)][:PROTECTED_HOLDERS])
        _protect(left, [c for c in left if known(c)][:PROTECTED_KNOWN])
        left = [c for c in left[len(left) // 2 :] if not stranger or now - c.opened_at >= GRACE]
        if not left:
            return None
        frequent = Counter(prefix(c.address.ip) for c in inbound)
        return max(left, key=lambda c: (frequent[prefix(c.address.ip)], c.opened_at, c.id))

    def _rank(self, connection: PeerConnection) -> bytes:
        network = prefix(connection.address.ip).encode()
        return hashlib.blake2b(network, key=self._secret, digest_size=8).digest()


def _protect(left: list[PeerConnection], kept: Sequence[PeerConnection]) -> None:
    ids = {connection.id for connection in kept}
    left[:] = [connection for connection in left if connection.id not in ids]
