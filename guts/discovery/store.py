"""The records that this node keeps for others: signed, expiring, bounded.

Quotas per key, per key and address group, and in all. A publisher that renews its record keeps its place; a
full key keeps a quarter of its places for whom a secret salt favours, so that a crowd that came first can't
keep everyone else out and nobody can compute whom it favours.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kademlia.storage import IStorage

from guts.clock import Now
from guts.discovery.contact import AddressPolicy, address_group
from guts.discovery.keys import Key, node_key, repository_key
from guts.discovery.limits import MAX_RECORDS, MAX_RECORDS_PER_KEY, MAX_RECORDS_PER_KEY_AND_GROUP
from guts.ids import PeerId
from guts.records import MAX_RECORD_LIFE_MS, PeerRecord, ProviderRecord

Record = PeerRecord | ProviderRecord

NEWCOMER_PLACES: Final = MAX_RECORDS_PER_KEY // 4
"""Places of a full key that go to the publishers whom the salt favours."""

STALE_SECONDS: Final = 8 * 3600.0
"""A record not renewed for so long gives way to a newcomer: honest publishers renew every 6 h at most."""


class RecordKind(IntEnum):
    """Kinds of record, as numbers on the wire."""

    PEER = 0
    PROVIDER = 1


class PutStatus(IntEnum):
    """What became of a record; on the wire too."""

    STORED = 0
    BAD_TOKEN = 1
    INVALID = 2
    OUTDATED = 3
    FULL = 4


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record and who brought it, as it is persisted; ``source`` is an IP, empty for this node's own."""

    record: Record
    source: str = ""


@dataclass(frozen=True, slots=True)
class _Held:
    record: Record
    source: str
    group: bytes
    renewed: float


def kind_of(record: Record) -> RecordKind:
    """Return the number of the record's kind."""
    return RecordKind.PEER if isinstance(record, PeerRecord) else RecordKind.PROVIDER


def record_key(record: Record) -> Key:
    """Return where ``record`` lives; nobody can store it anywhere else."""
    match record:
        case PeerRecord():
            return node_key(record.peer)
        case ProviderRecord():
            return repository_key(record.repository)


def verify_record(kind: int, data: bytes, now_ms: int) -> Record:
    """Return the record of that kind in ``data``, fully checked.

    Raises:
        PeerFault: malformed, not signed by whom it speaks of, or expired.
        ValueError: no such kind.
    """
    match RecordKind(kind):
        case RecordKind.PEER:
            return PeerRecord.verify(data, now_ms)
        case RecordKind.PROVIDER:
            return ProviderRecord.verify(data, now_ms)


class RecordStore(IStorage):  # type: ignore[misc]  # the package has no types
    """Newest record per key and publisher."""

    def __init__(
        self, clock: Callable[[], Now], salt: bytes, policy: AddressPolicy, max_records: int = MAX_RECORDS
    ) -> None:
        """Take a clock, 16 secret random bytes, and what tells addresses that the group quota spares."""
        self._max_records = max_records
        self._clock = clock
        self._salt = salt
        self._policy = policy
        self._held: dict[Key, dict[PeerId, _Held]] = {}
        self._keys: list[tuple[int, Key]] = []
        self._count = 0
        self._own = Key(bytes(Key.LENGTH))

    def centre(self, own: Key) -> None:
        """Say where this node lives: when the store is full, what is farthest from there gives way."""
        self._own = own
        self._keys = sorted((own.distance(key), key) for key in self._held)

    def __len__(self) -> int:
        return self._count

    def put(self, record: Record, source: str = "") -> PutStatus:
        """Store a verified record that came from the IP ``source`` (empty: this node's own)."""
        now = self._clock()
        if not now.wall < record.expires <= now.wall + MAX_RECORD_LIFE_MS:
            return PutStatus.INVALID
        key = record_key(record)
        held = self._held.get(key, {})
        old = held.get(record.peer)
        if old is not None:
            if record.seq < old.record.seq:
                return PutStatus.OUTDATED
            if record.seq == old.record.seq and record.encoded != old.record.encoded:
                return PutStatus.OUTDATED
        spared = source == "" or self._policy.is_local(source)
        new = _Held(record, source, b"" if spared else address_group(source), now.mono)
        if not self._make_room(key, held, new, old, now):
            return PutStatus.FULL
        self._insert(key, new)
        return PutStatus.STORED

    def _make_room(self, key: Key, held: dict[PeerId, _Held], new: _Held, old: _Held | None, now: Now) -> bool:
        live = [h for h in held.values() if h.record.expires > now.wall and h is not old]
        if new.group:
            neighbours = [h for h in live if h.group == new.group]
            if len(neighbours) >= MAX_RECORDS_PER_KEY_AND_GROUP:
                # Only staleness makes room in a crowded group, also for a publisher that moves there.
                return self._evict_stale(key, neighbours, now)
        if old is not None:
            return True
        if len(live) < len(held):
            self._sweep_key(key, now.wall)
        if len(live) >= MAX_RECORDS_PER_KEY:
            return self._evict_stale(key, live, now) or self._evict_newcomer(key, live, new.record.peer)
        return self._count < self._max_records or self._evict_farthest(key, now)

    def _evict_stale(self, key: Key, candidates: list[_Held], now: Now) -> bool:
        stalest = min(candidates, key=lambda h: h.renewed)
        if now.mono - stalest.renewed <= STALE_SECONDS:
            return False
        self._delete(key, stalest.record.peer)
        return True

    def _evict_newcomer(self, key: Key, live: list[_Held], peer: PeerId) -> bool:
        # Own records never give way. Of the rest, the salt favours NEWCOMER_PLACES; the longest-held others stay.
        ranked = sorted((self._favour(h.record.peer), h.record.peer) for h in live if h.source)
        favoured = ranked[:NEWCOMER_PLACES]
        if not favoured or self._favour(peer) >= favoured[-1][0]:
            return False
        self._delete(key, favoured[-1][1])
        return True

    def _evict_farthest(self, key: Key, now: Now) -> bool:
        self.sweep()
        if self._count < self._max_records:
            return True
        distance, farthest = self._keys[-1]
        if self._own.distance(key) >= distance:
            return False
        self._delete(farthest, next(iter(self._held[farthest])))
        return True

    def _favour(self, peer: PeerId) -> bytes:
        return hashlib.blake2b(peer, key=self._salt, digest_size=16).digest()

    def _insert(self, key: Key, new: _Held) -> None:
        publishers = self._held.get(key)
        if publishers is None:
            publishers = self._held[key] = {}
            insort(self._keys, (self._own.distance(key), key))
        if new.record.peer not in publishers:
            self._count += 1
        publishers[new.record.peer] = new

    def _delete(self, key: Key, peer: PeerId) -> None:
        publishers = self._held[key]
        del publishers[peer]
        self._count -= 1
        if not publishers:
            del self._held[key]
            del self._keys[bisect_left(self._keys, (self._own.distance(key), key))]

    def _sweep_key(self, key: Key, wall: int) -> None:
        for peer in [peer for peer, h in self._held[key].items() if h.record.expires <= wall]:
            self._delete(key, peer)

    def sweep(self) -> None:
        """Forget what has expired."""
        wall = self._clock().wall
        for key in list(self._held):
            self._sweep_key(key, wall)

    def records(self, key: Key) -> list[Record]:
        """Return the unexpired records at ``key``, longest held first."""
        wall = self._clock().wall
        return [h.record for h in self._held.get(key, {}).values() if h.record.expires > wall]

    def stored(self) -> list[StoredRecord]:
        """Return everything, for persistence."""
        return [StoredRecord(h.record, h.source) for held in self._held.values() for h in held.values()]

    def restore(self, stored: Iterable[StoredRecord]) -> int:
        """Take back what ``stored`` returned in an earlier run; return how many still have a place."""
        return sum(self.put(item.record, item.source) is PutStatus.STORED for item in stored)

    # The package's storage interface. Nothing in Guts writes through it; whoever does is checked too.

    def __setitem__(self, key: bytes, value: Record) -> None:
        """Raises: ``PeerFault``: not a valid record; ``KeyError``: not one of this key, or no place for it."""
        record = verify_record(kind_of(value), value.encoded, self._clock().wall)
        if record_key(record) != key:
            raise KeyError(key)
        if self.put(record) is not PutStatus.STORED:
            raise KeyError(key)

    def __getitem__(self, key: bytes) -> list[Record]:
        records = self.records(Key(key))
        if not records:
            raise KeyError(key)
        return records

    def get(self, key: bytes, default: list[Record] | None = None) -> list[Record] | None:
        """Return the unexpired records at ``key``, or ``default`` when there are none."""
        return self.records(Key(key)) or default

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[Key, Record]]:
        """Yield what was last renewed more than ``seconds_old`` ago."""
        before = self._clock().mono - seconds_old
        for key, held in self._held.items():
            yield from ((key, h.record) for h in held.values() if h.renewed <= before)

    def __iter__(self) -> Iterator[tuple[Key, Record]]:
        for key, held in self._held.items():
            yield from ((key, h.record) for h in held.values())
