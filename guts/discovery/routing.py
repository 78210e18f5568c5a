"""The routing table: contacts that proved themselves, and the exact k nearest of them to any key.

The table answers, it does not act: it sends no probe and reads no clock (Kademlia §2.2 with prefix-length
buckets; at most 160 of them whatever ids are crafted).
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from guts.discovery.contact import Contact, address_group
from guts.discovery.keys import KEY_BITS, Key
from guts.discovery.limits import (
    BUCKET_SIZE,
    MAX_FAILURES,
    MAX_PER_BUCKET_AND_GROUP,
    MAX_PER_TABLE_AND_GROUP,
)

SILENCE_SECONDS: Final = 30.0
"""When nobody at all has answered for so long, our own line is cut: nobody is evicted for it."""

MOVE_SECONDS: Final = 900.0
"""A contact silent for so long may turn up at a new address; before, the old address must fail first."""

PRIOR_LIFE_SECONDS: Final = 7200.0
"""The life a node is taken to have before any was observed."""


@dataclass(slots=True)
class Entry:
    """A contact in the table; times are monotonic seconds."""

    contact: Contact
    first_seen: float
    last_seen: float
    failures: int = 0


class _Bucket:
    """Contacts that share a prefix of one length with this node, and spares that found no room."""

    __slots__ = ("entries", "spares", "touched")

    def __init__(self, now: float) -> None:
        self.entries: dict[Key, Entry] = {}
        self.spares: OrderedDict[Key, Entry] = OrderedDict()
        self.touched = now


class RoutingTable:
    """Proven contacts by distance."""

    def __init__(self, own: Key, is_local: Callable[[str], bool]) -> None:
        """Take this node's position, and what tells addresses that the diversity limits spare."""
        self.own = own
        self._is_local = is_local
        self._buckets: dict[int, _Bucket] = {}
        self._addresses: dict[tuple[str, int], Key] = {}
        self._groups: Counter[bytes] = Counter()
        self._last_answer = float("-inf")
        self._deaths = 0
        self._lived = 0.0

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets.values():
            for entry in bucket.entries.values():
                yield entry.contact

    def __contains__(self, key: Key) -> bool:
        bucket = self._buckets.get(self._index(key))
        return bucket is not None and key in bucket.entries

    def at(self, address: tuple[str, int]) -> Key | None:
        """Return who has proven to live at ``address``."""
        return self._addresses.get(address)

    def entries(self) -> list[Entry]:
        """Return every entry, in no order."""
        return [entry for bucket in self._buckets.values() for entry in bucket.entries.values()]

    def _index(self, key: Key) -> int:
        return KEY_BITS - self.own.distance(key).bit_length()

    def wants(self, contact: Contact) -> bool:
        """Tell whether proving ``contact`` could give it a place: it is new, and there is room."""
        if contact.key == self.own or contact.key in self or contact.address in self._addresses:
            return False
        bucket = self._buckets.get(self._index(contact.key))
        return bucket is None or self._fits(bucket, contact)

    def answered(self, contact: Contact, now: float) -> bool:
        """Note that ``contact`` proved itself by a signed answer; tell whether it is in the table."""
        if contact.key == self.own:
            return False
        self._last_answer = now
        bucket = self._buckets.setdefault(self._index(contact.key), _Bucket(now))
        entry = bucket.entries.get(contact.key)
        if entry is not None:
            return self._renew(bucket, entry, contact, now)
        holder = self._addresses.get(contact.address)
        if holder is not None:
            self._drop(holder)
        if self._fits(bucket, contact):
            self._place(bucket, Entry(contact, now, now))
            return True
        bucket.spares.pop(contact.key, None)
        bucket.spares[contact.key] = Entry(contact, now, now)
        if len(bucket.spares) > BUCKET_SIZE:
            bucket.spares.popitem(last=False)
        return False

    def _renew(self, bucket: _Bucket, entry: Entry, contact: Contact, now: float) -> bool:
        if entry.contact.address != contact.address:
            # A relay can show another node's answers at its own address: the address that works stays.
            if entry.failures == 0 and now - entry.last_seen < MOVE_SECONDS:
                return True
            self._drop(contact.key)
            return self.answered(contact, now)
        entry.contact = contact
        entry.last_seen = now
        entry.failures = 0
        return True

    def failed(self, key: Key, ip: str, port: int, now: float) -> bool:
        """Note that a contact did not answer at an address; tell whether it lost its place.

        At another address than its own here nothing is noted: whoever names a wrong one does a node no harm.
        """
        bucket = self._buckets.get(self._index(key))
        if bucket is None:
            return False
        spare = bucket.spares.get(key)
        if spare is not None and (spare.contact.ip, spare.contact.port) == (ip, port):
            del bucket.spares[key]
        entry = bucket.entries.get(key)
        if entry is None or (entry.contact.ip, entry.contact.port) != (ip, port):
            return False
        entry.failures += 1
        if entry.failures < MAX_FAILURES or now - self._last_answer > SILENCE_SECONDS:
            return False
        self._deaths += 1
        self._lived += entry.last_seen - entry.first_seen
        self.remove(key)
        return True

    def remove(self, key: Key) -> None:
        """Take a contact out of the table; a spare takes its place."""
        bucket = self._buckets.get(self._index(key))
        if bucket is None or key not in bucket.entries:
            return
        self._drop(key)
        for spare_key in reversed(bucket.spares):
            spare = bucket.spares[spare_key]
            if spare.contact.address not in self._addresses and self._fits(bucket, spare.contact):
                del bucket.spares[spare_key]
                self._place(bucket, spare)
                return

    def _drop(self, key: Key) -> None:
        entry = self._buckets[self._index(key)].entries.pop(key)
        del self._addresses[entry.contact.address]
        self._groups[address_group(entry.contact.ip)] -= 1

    def _place(self, bucket: _Bucket, entry: Entry) -> None:
        bucket.entries[entry.contact.key] = entry
        bucket.spares.pop(entry.contact.key, None)
        self._addresses[entry.contact.address] = entry.contact.key
        self._groups[address_group(entry.contact.ip)] += 1

    def _fits(self, bucket: _Bucket, contact: Contact) -> bool:
        if len(bucket.entries) >= BUCKET_SIZE:
            return False
        if self._is_local(contact.ip):
            return True
        group = address_group(contact.ip)
        if self._groups[group] >= MAX_PER_TABLE_AND_GROUP:
            return False
        same = sum(address_group(entry.contact.ip) == group for entry in bucket.entries.values())
        return same < MAX_PER_BUCKET_AND_GROUP

    def nearest(
        self, target: Key, count: int = BUCKET_SIZE, accept: Callable[[Contact], bool] | None = None
    ) -> list[Contact]:
        """Return exactly the ``count`` nearest contacts to ``target`` that ``accept``, nearest first."""
        number = target.number
        candidates = self if accept is None else filter(accept, self)
        return heapq.nsmallest(count, candidates, key=lambda contact: contact.key.number ^ number)

    def touch(self, target: Key, now: float) -> None:
        """Note that a lookup for ``target`` has just refreshed its bucket."""
        bucket = self._buckets.get(self._index(target))
        if bucket is not None:
            bucket.touched = now

    def untouched(self, before: float) -> list[int]:
        """Return the shared-prefix lengths whose buckets no lookup has refreshed since ``before``."""
        return sorted(i for i, bucket in self._buckets.items() if bucket.entries and bucket.touched < before)

    def random_key(self, index: int, bits: int) -> Key:
        """Return the key of bucket ``index`` that random ``bits`` (160 of them) choose."""
        tail = KEY_BITS - index - 1
        flipped = self.own.number >> tail ^ 1
        return Key((flipped << tail | bits & (1 << tail) - 1).to_bytes(Key.LENGTH, "big"))

    def mean_life(self, now: float) -> float:
        """Return the observed mean life of a node in seconds: time lived over deaths, with a cautious prior."""
        alive = sum(now - entry.first_seen for entry in self.entries())
        return (PRIOR_LIFE_SECONDS + self._lived + alive) / (1 + self._deaths)
