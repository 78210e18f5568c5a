"""``AddressBook``: peers that could be dialled, those that were reached apart from those that are only claimed.

An address that was reached is worth more than any number of claims: identities and records cost nothing to make, so
claims push out claims, those of whoever made the most of them first, and never a peer that this node has reached. Of
those that were reached the ones of crowded networks go first.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.addresses import Address
from guts.ids import PeerId
from guts.peers.claims import Claims
from guts.peers.networks import Surroundings, diversely, means_the_same, prefix
from guts.peers.state import PeerState
from guts.records import PeerRecord

MAX_ADDRESS_BOOK: Final = 1000
"""Peers whose addresses are remembered in memory; connected ones that were never reached come on top."""

MAX_ANCHORS: Final = 2
"""Peers dialled first after a start: whoever poisons the book and the doors of a restarting node does not choose
these (Bitcoin Core keeps as many)."""

DOOR: Final = "bootstrap"
"""The capability of a node that is there to be dialled by who knows nobody."""

MAX_MISSES: Final = 3
"""Failed dials in a row after which a peer that was never reached is forgotten."""


@dataclass(frozen=True, slots=True)
class StoredPeer:
    """A peer as the database remembers it.

    Attributes:
        addresses: where it can be dialled, the best first.
        last_seen: Unix ms.
        reached: at the first of its addresses, at whatever time.
        last_good: when, Unix ms; 0 = never. The two most recent ones are the anchors.
        failures: dials there that failed since.
        record: its newest signed PeerRecord.
        capabilities: what it said that it does.
    """

    peer: PeerId
    addresses: tuple[Address, ...]
    last_seen: int
    reached: bool = False
    last_good: int = 0
    failures: int = 0
    record: bytes = b""
    capabilities: tuple[str, ...] = ()


class AddressBook:
    """What is known of every peer.

    Attributes:
        peers: by id.
        anchors: peers of the last run to be dialled first.
    """

    def __init__(self, me: PeerId, stored: Iterable[StoredPeer], surroundings: Surroundings) -> None:
        self._me = me
        self._surroundings = surroundings
        rows = [row for row in stored if row.peer != me]
        rows.sort(key=lambda row: (not row.reached, row.failures, -row.last_good, -row.last_seen))
        rows = diversely(rows, lambda row: f"{row.reached} {self._place(row.addresses)}")
        rows.sort(key=lambda row: not row.reached)
        self.peers: dict[PeerId, PeerState] = {}
        self._claims = Claims()
        self._met = 0
        for row in rows[:MAX_ADDRESS_BOOK]:
            self._take_in(_state(row))
        # Everybody's door is nobody's anchor.
        good = [row for row in rows if row.last_good and DOOR not in row.capabilities]
        good.sort(key=lambda row: -row.last_good)
        self.anchors = [row.peer for row in good[:MAX_ANCHORS] if row.peer in self.peers]

    def state(self, peer: PeerId, source: str = "") -> PeerState:
        """Return what is known of ``peer``, beginning to know it where nothing is; ``source``: who told of it."""
        known = self.peers.get(peer)
        if known is None:
            self._make_room()
            known = self._take_in(PeerState(peer, source=source))
        return known

    def changed(self, state: PeerState) -> None:
        """Note that ``state`` was reached, or heard of, or that it is connected, or no more."""
        if self.peers.get(state.id) is state and state.connection is None and not state.reached:
            self._claims.put(state.id, state.source, (state.last_seen, state.met))
        else:
            self._claims.remove(state.id)

    def claim(self, record: PeerRecord, teller: str) -> None:
        """Take the record of a node that somebody at ``teller`` (an IP address) passed on."""
        if record.peer == self._me:
            return
        known = self.peers.get(record.peer)
        if known is None:
            useful = any(self._surroundings.may_dial(a) and means_the_same(teller, a.ip) for a in record.addresses)
            if not useful or (len(self.peers) >= MAX_ADDRESS_BOOK and self._least_use() is None):
                return
            known = self.state(record.peer, prefix(teller))
        elif known.connection is not None or record.seq <= known.record_seq:
            return
        self.introduced(known, record, teller, known.good)

    def introduced(self, state: PeerState, record: PeerRecord, there: str, good: Address | None) -> None:
        """Take what a node says of itself.

        Args:
            there: where its word came from: who is elsewhere names no address of a network that this node is in.
            good: where it was reached, which stays the best address.
        """
        claimed = [address for address in record.addresses if means_the_same(there, address.ip)]
        state.good = good
        state.addresses = tuple(dict.fromkeys((*([good] if good else []), *claimed)))
        state.record, state.record_seq, state.record_expires = record.encoded, record.seq, record.expires

    def missed(self, state: PeerState) -> None:
        """Note that no address of a peer could be reached; a claim that comes to nothing too often is forgotten."""
        state.misses += 1
        if state.misses >= MAX_MISSES and not state.reached and state.connection is None and not state.repositories:
            self._forget(state)

    def trim(self) -> None:
        """Forget what there is too much of, now that somebody is no longer connected."""
        while len(self.peers) > MAX_ADDRESS_BOOK and (state := self._least_use(whoever=True)) is not None:
            self._forget(state)

    def dialable(self, state: PeerState) -> list[Address]:
        """Return where ``state`` may be dialled: where it was reached, and of its claims what means the same here."""
        return [a for a in state.addresses if a == state.good or self._surroundings.may_dial(a)]

    def place(self, state: PeerState) -> str:
        """Return the network of the best address of ``state``."""
        return self._place(state.addresses)

    def _place(self, addresses: tuple[Address, ...]) -> str:
        return self._surroundings.place(addresses[0]) if addresses else ""

    def _make_room(self) -> None:
        if len(self.peers) >= MAX_ADDRESS_BOOK and (state := self._least_use()) is not None:
            self._forget(state)

    def _take_in(self, state: PeerState) -> PeerState:
        self._met += 1
        state.met = self._met
        self.peers[state.id] = state
        self.changed(state)
        return state

    def _forget(self, state: PeerState) -> None:
        self.peers.pop(state.id, None)
        self._claims.remove(state.id)

    def _least_use(self, *, whoever: bool = False) -> PeerState | None:
        """Return whom to forget: of the source with the most claims, the one heard of the longest ago.

        Args:
            whoever: also a peer that was reached, where no claim is left: of the most frequent network.
        """
        if (claimed := self._claims.first()) is not None:
            return self.peers[claimed]
        idle = [state for state in self.peers.values() if state.connection is None] if whoever else []
        if not idle:
            return None
        crowd = Counter(self.place(state) for state in idle)
        return min(idle, key=lambda state: (-crowd[self.place(state)], state.last_seen))


def _state(row: StoredPeer) -> PeerState:
    good = row.addresses[0] if row.reached and row.addresses else None
    return PeerState(
        row.peer,
        row.addresses,
        last_seen=row.last_seen,
        reached=row.reached,
        good=good,
        record=row.record,
        capabilities=row.capabilities,
    )
