"""Upkeep: how many connections are missing, for what, and the dials that follow from it.

Eight are dialled of our own accord, or as many as half of the places. Up to sixteen are dialled in all where followed
repositories have fewer than three connected holders. While nothing is missing a feeler goes out every two minutes to an
address that was only claimed, so that claims become addresses that are known to work before they are needed (Bitcoin
Core does so).
"""

import math
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from guts.effects import Dial
from guts.events import ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.peers.book import MAX_ANCHORS, AddressBook
from guts.peers.dialling import LONELY_BELOW, OF_OUR_OWN_ACCORD, Around, Dialling
from guts.peers.networks import Surroundings
from guts.peers.score import Scores
from guts.peers.slots import MAX_OUTBOUND, Slots
from guts.peers.state import PeerConnection, PeerState
from guts.wire.secure import Direction

UPKEEP_INTERVAL: Final = 60.0
"""Seconds between two looks at whom to dial where nothing happens: a ban may have ended."""

FEELER_INTERVAL: Final = 120.0
"""Seconds between two feelers, ± half (Bitcoin Core 120)."""

WANTED_HOLDERS: Final = 3
"""Other holders of each followed repository to be connected to, as a best effort."""

SCARCE_INTERVAL: Final = 30.0
"""Seconds between two looks at which repositories have fewer: there may be thousands."""


class Upkeep:
    """Looks at the connections, which are the manager's, and tells whom to dial.

    Attributes:
        followed: the repositories that this node follows; a live view.
        due_at: monotonic seconds of the next look.
    """

    def __init__(
        self,
        me: PeerId,
        connections: Mapping[ConnectionId, PeerConnection],
        book: AddressBook,
        dialling: Dialling,
        slots: Slots,
        surroundings: Surroundings,
        scores: Scores,
        rng: random.Random,
        *,
        feelers: bool,
    ) -> None:
        """Args: ``feelers``: whether to send any; a node that lives for one command does not."""
        self.followed: Collection[RepositoryId] = frozenset()
        self.due_at = -math.inf
        self._me = me
        self._connections = connections
        self._book = book
        self._dialling = dialling
        self._slots = slots
        self._surroundings = surroundings
        self._scores = scores
        self._rng = rng
        self._feelers = feelers
        self._feeler_at = math.inf
        self._scarce: set[RepositoryId] = set()
        self._scarce_until = -math.inf

    def opened(self) -> Iterator[PeerConnection]:
        """Yield the connections that are not being closed, in the order in which they were opened."""
        return (connection for connection in self._connections.values() if not connection.closing)

    def dialled(self) -> list[PeerConnection]:
        """Return those of them that we dialled."""
        return [connection for connection in self.opened() if connection.direction is Direction.OUTBOUND]

    def anchors(self) -> list[PeerConnection]:
        """Return the connections that have lasted longest, of those that we dialled of our own accord; no door's."""
        mine = [c for c in self.dialled() if c.ready and not (c.extra or c.feeler)]
        return [c for c in mine if not self._dialling.is_door(self._book.peers[c.peer])][:MAX_ANCHORS]

    def missing(self) -> int:
        """Return how many more connections to dial of our own accord; below 0 where there are more than wanted."""
        have = sum(1 for connection in self.dialled() if not (connection.extra or connection.feeler))
        return (
            self._slots.outbound_target - have - sum(p in OF_OUR_OWN_ACCORD for p in self._dialling.under_way.values())
        )

    def surplus(self, newest: PeerConnection) -> PeerConnection | None:
        """Return who goes where more are dialled than should be: who was dialled for what it holds, longest ago."""
        dialled = self.dialled()
        extra = [c for c in dialled if c.extra and c.ready and c is not newest]
        if len(dialled) <= MAX_OUTBOUND or not extra:
            return None
        return min(extra, key=lambda c: (self.holds_something(self._book.peers.get(c.peer)), c.opened_at))

    def holds_something(self, state: PeerState | None) -> bool:
        """Tell whether the peer of ``state`` is known to hold something that is followed here."""
        return state is not None and not state.repositories.isdisjoint(self.followed)

    def worthy(self, state: PeerState | None) -> bool:
        """Tell whether it is worth much knocking: it was reached before as well."""
        return state is not None and state.reached and self.holds_something(state)

    def tick(self, now: float) -> list[Dial]:
        """Return whom to dial, where it is time to look."""
        if now < self.due_at:
            return []
        if self._feelers and self._feeler_at == math.inf:
            self._feeler_at = now + self._feeler_wait()
        around = self._around(now)
        peers = min(self.missing(), self._dialling.room, self._free())
        holders = min(
            self._missing_holders(),
            self._dialling.room_for_claims,
            self._dialling.room - max(peers, 0),
            self._free() - max(peers, 0),
        )
        dials, following = self._dialling.due(around, peers, holders if around.scarce else 0, now)
        if now >= self._feeler_at:
            self._feeler_at = now + self._feeler_wait()
            if self.missing() <= 0 and len(dials) < min(self._dialling.room, self._free()):
                dials += self._dialling.feeler(around, now)
        self.due_at = min(following, now + UPKEEP_INTERVAL, self._feeler_at)
        return dials

    def _around(self, now: float) -> Around:
        ready = [connection for connection in self.opened() if connection.ready]
        if now >= self._scarce_until:
            self._scarce_until = now + SCARCE_INTERVAL
            held: Counter[RepositoryId] = Counter()
            for connection in ready:
                held.update(self._book.peers[connection.peer].repositories.intersection(self.followed))
            self._scarce = {repository for repository in self.followed if held[repository] < WANTED_HOLDERS}
        return Around(
            {connection.peer for connection in self._connections.values()} | {self._me},
            {connection.dialled for connection in self._connections.values()},
            Counter(self._surroundings.place(connection.address) for connection in self.dialled()),
            lambda peer: self._scores.banned(peer, now),
            lambda peer, address: self._scores.shut(peer, address, now) is not None,
            self._scarce,
            len(ready) < LONELY_BELOW,
        )

    def _missing_holders(self) -> int:
        return MAX_OUTBOUND - max(len(self.dialled()), self._slots.outbound_target) - len(self._dialling.under_way)

    def _free(self) -> int:
        return self._slots.free(sum(1 for _ in self.opened())) - len(self._dialling.under_way)

    def _feeler_wait(self) -> float:
        return FEELER_INTERVAL * self._rng.uniform(0.5, 1.5)
