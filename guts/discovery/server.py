"""``Discovery``: publish and find who holds a repository, and where a peer is."""

import asyncio
import contextlib
import functools
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from guts.clock import Now
from guts.discovery.contact import AddressPolicy, Contact, DhtContact, normal_ip
from guts.discovery.endpoint import Endpoint, cap_package_loggers, route_source
from guts.discovery.keys import KEY_BITS, Key, node_key, repository_key
from guts.discovery.limits import BUCKET_SIZE, SOFT_SECONDS
from guts.discovery.lookup import Ask, AskPage, Lookup, LookupStats
from guts.discovery.messages import Answer, Found, read_put
from guts.discovery.protocol import DiscoveryProtocol
from guts.discovery.routing import RoutingTable
from guts.discovery.store import (
    PutStatus,
    Record,
    RecordStore,
    StoredRecord,
    kind_of,
    record_key,
)
from guts.discovery.tokens import WriteTokens
from guts.discovery.transport import DatagramSender, Target
from guts.errors import PeerFault
from guts.identity import SigningKey
from guts.ids import PeerId, RepositoryId
from guts.records import PeerRecord, ProviderRecord

_R = TypeVar("_R", PeerRecord, ProviderRecord)

SALT_BYTES: Final = 16
MAX_PAGES: Final = 24
"""Further pages of records that one lookup asks for: all 64 records of two holders."""

PEER_QUORUM: Final = 3
"""Holders that must show a peer record before a search for it stops: the newest of three is new enough."""

REFRESH_SECONDS: Final = 900.0
"""How often a node looks for itself, and pings whom it has not heard for as long."""

BUCKET_REFRESH_SECONDS: Final = 3600.0
"""A bucket that no lookup has touched for so long gets one (Kademlia §2.3)."""

SWEEP_SECONDS: Final = 60.0
REJOIN_SECONDS: Final = 30.0
"""How soon a node that knows nobody knocks at the doors again."""

JITTER: Final = 0.2
MAX_DOORS: Final = 64
MAX_REFRESHED_BUCKETS: Final = 4
MAX_PINGS: Final = 8
MIN_REPUBLISH_SECONDS: Final = 1800.0
MAX_REPUBLISH_SECONDS: Final = 6 * 3600.0


class Discovery:
    """A node of the DHT.

    The caller owns the tasks: ``run`` is the upkeep and returns only when cancelled; every other coroutine may be
    cancelled at any time.
    """

    def __init__(
        self,
        *,
        key: SigningKey,
        clock: Callable[[], Now],
        rng: random.Random,
        client_mode: bool = False,
        own_address_towards: Callable[[str], str | None] = route_source,
    ) -> None:
        """Take the node key, both clocks and randomness (``SystemRandom`` in production).

        Args:
            client_mode: ask only; answer nothing, hold nothing, enter no table.
            own_address_towards: from which of its addresses this node reaches another one.
        """
        cap_package_loggers()
        self.counters: Counter[str] = Counter()
        # Of the latest search or publication; upkeep leaves it alone.
        self.last_lookup = LookupStats()
        self._key = key
        self._own = node_key(key.peer_id)
        self._clock = clock
        self._rng = rng
        self._client_mode = client_mode
        self._policy = AddressPolicy(own_address_towards)
        self._table = RoutingTable(self._own, self._policy.is_local)
        self._store = RecordStore(clock, rng.randbytes(SALT_BYTES), self._policy)
        self._store.centre(self._own)
        self._doors: list[DhtContact] = []
        self._endpoint = Endpoint(
            key=key,
            clock=clock,
            router=self._table,
            store=self._store,
            tokens=WriteTokens(rng),
            policy=self._policy,
            counters=self.counters,
            client_mode=client_mode,
        )
        self._port = 0

    async def listen(self, host: str, port: int) -> None:
        """Open the UDP socket: ``0.0.0.0`` or an IPv4 address; ``::`` for IPv6 and IPv4; an IPv6 address.

        Raises:
            PortBusy, BadListenAddress: the operator can mend it.
        """
        self._port = await self._endpoint.open(host, port)
        self._policy.use(ipv4=":" not in host or host == "::", ipv6=":" in host)

    def attach(self, transport: DatagramSender, port: int) -> DiscoveryProtocol:
        """Use ``transport`` instead of a socket; datagrams go into the returned protocol's ``datagram_received``."""
        self._port = port
        return self._endpoint.attach(transport)

    @property
    def port(self) -> int:
        """The UDP port; 0 before ``listen``."""
        return self._port

    @property
    def _protocol(self) -> DiscoveryProtocol:
        protocol: DiscoveryProtocol | None = self._endpoint.protocol
        assert protocol is not None, "listen first"
        return protocol

    async def close(self) -> None:
        """Close the socket; searches under way end without further answers."""
        self._endpoint.stop()
        # asyncio gives the socket back in the loop's next turn.
        await asyncio.sleep(0)

    # Joining

    async def join(self, contacts: Sequence[tuple[str, int, PeerId | None]]) -> int:
        """Knock at ``contacts`` (numeric addresses), look for oneself, and return how many contacts are known.

        An id, where one is given, must be proven; without one, the first signed answer tells it. Whoever does not
        answer within ``SOFT_SECONDS`` is not waited for where others do, and enters the table later.

        Raises:
            ValueError: an ip is not a numeric address.
        """
        doors = [DhtContact(normal_ip(ip), port, peer) for ip, port, peer in contacts]
        self._doors = list(dict.fromkeys([*doors, *self._doors]))[:MAX_DOORS]
        knocks = [self._knock(door) for door in doors if door.peer != self._key.peer_id]
        _, silent = await asyncio.wait(knocks, timeout=SOFT_SECONDS) if knocks else ((), ())
        while silent and not len(self._table):
            _, silent = await asyncio.wait(silent, return_when=asyncio.FIRST_COMPLETED)
        if len(self._table):
            await self._nearest(self._own, waits=False)
        return len(self._table)

    def _knock(self, door: DhtContact) -> "asyncio.Future[Answer | None]":
        key = None if door.peer is None else node_key(door.peer)
        return self._protocol.call(Target(door.ip, door.port, key), "ping")

    # Publishing

    async def provide(self, record: ProviderRecord) -> int:
        """Store ``record`` at the nodes nearest to its repository; return how many have it, oneself included."""
        return await self._publish(record)

    async def announce(self, record: PeerRecord) -> int:
        """Store ``record`` at the nodes nearest to its peer; return how many have it, oneself included."""
        return await self._publish(record)

    async def _publish(self, record: Record) -> int:
        key = record_key(record)
        lookup = await self._nearest(key)
        self.last_lookup = lookup.stats
        nearest = lookup.nearest
        stored = 0
        if self._is_among(key, nearest):
            stored += self._store.put(record) is PutStatus.STORED
        puts = [
            self._protocol.ask(found.contact, "put_record", found.token, int(kind_of(record)), record.encoded)
            for found in nearest
        ]
        for put in puts:
            stored += self._was_stored(await put)
        return stored

    def _is_among(self, key: Key, nearest: list[Found]) -> bool:
        if self._client_mode:
            return False
        if len(nearest) < BUCKET_SIZE:
            return True
        return key.distance(self._own) < key.distance(nearest[-1].contact.key)

    def _was_stored(self, answer: Answer | None) -> bool:
        if answer is None:
            return False
        try:
            status = read_put(answer)
        except PeerFault:
            self._blame(answer.contact)
            return False
        self.counters[f"put_{status.name.lower()}"] += 1
        return status is PutStatus.STORED

    # Finding

    async def find_providers(self, repository: RepositoryId) -> AsyncGenerator[ProviderRecord, None]:
        """Yield verified provider records as they are found, at most one per peer and seq (rising).

        What this node holds itself comes first, its own record included. Ends when the lookup is done; a caller
        that has reached a provider may stop before (``contextlib.aclosing`` ends the search at once).
        """
        newest: dict[PeerId, int] = {}
        async with contextlib.aclosing(self._records(repository_key(repository))) as blobs:
            async for blob in blobs:
                record = self._verified(ProviderRecord.verify, blob)
                if record is None or record.repository != repository:
                    continue
                if record.seq > newest.get(record.peer, -1):
                    newest[record.peer] = record.seq
                    yield record

    async def find_peer(self, peer: PeerId) -> PeerRecord | None:
        """Return the newest record of ``peer`` that the nodes nearest to it hold, or ``None``."""
        newest: PeerRecord | None = None
        shown = 0
        async with contextlib.aclosing(self._records(node_key(peer))) as blobs:
            async for blob in blobs:
                record = self._verified(PeerRecord.verify, blob)
                if record is None or record.peer != peer:
                    continue
                shown += 1
                if newest is None or record.seq > newest.seq:
                    newest = record
                if shown == PEER_QUORUM:
                    break
        return newest

    def _verified(self, verify: Callable[[bytes, int], _R], blob: bytes) -> _R | None:
        try:
            return verify(blob, self._clock().wall)
        except PeerFault as fault:
            self.counters[f"found_{fault.code.lower()}"] += 1
            return None

    async def _records(self, key: Key) -> AsyncGenerator[bytes, None]:
        for record in self._store.records(key):
            yield record.encoded
        ask = functools.partial(self._ask_records, key)
        lookup = self._lookup(key, lambda contact: ask(contact, 0, b""), ask)
        try:
            async with contextlib.aclosing(lookup.run(self._table.nearest(key))) as answers:
                async for found in answers:
                    for blob in found.records:
                        yield blob
        finally:
            self.last_lookup = lookup.stats

    def _ask_records(self, key: Key, contact: Contact, skip: int, token: bytes) -> "asyncio.Future[Answer | None]":
        return self._protocol.ask(contact, "get_records", key, skip, token)

    async def _nearest(self, key: Key, *, waits: bool = True) -> Lookup:
        lookup = self._lookup(key, lambda contact: self._protocol.ask(contact, "find_node", key), waits=waits)
        async with contextlib.aclosing(lookup.run(self._table.nearest(key))) as answers:
            async for _ in answers:
                pass
        return lookup

    def _lookup(self, key: Key, ask: Ask, ask_page: AskPage | None = None, *, waits: bool = True) -> Lookup:
        self._table.touch(key, self._clock().mono)
        return Lookup(
            key,
            ask,
            own=self._own,
            clock=self._clock,
            policy=self._policy,
            blame=self._blame,
            ask_page=ask_page,
            max_pages=MAX_PAGES,
            waits=waits,
        )

    def _blame(self, contact: Contact) -> None:
        # It signed nonsense: no lost datagram explains that.
        self.counters["nonsense"] += 1
        self._table.remove(contact.key)

    # State

    def contacts(self) -> list[DhtContact]:
        """Return the contacts that have proven themselves and did not fail since, longest known first."""
        good = sorted((e for e in self._table.entries() if e.failures == 0), key=lambda e: e.first_seen)
        return [DhtContact(e.contact.ip, e.contact.port, e.contact.peer) for e in good]

    def records(self) -> list[StoredRecord]:
        """Return what this node stores for others, to persist it."""
        return self._store.stored()

    def restore(self, records: Iterable[StoredRecord]) -> int:
        """Take back what ``records`` returned in an earlier run; return how many are still good."""
        return self._store.restore(records)

    def republish_interval(self) -> float:
        """Return after how many seconds own records should be published again: half a node's observed life."""
        half = self._table.mean_life(self._clock().mono) / 2
        return self._jittered(min(max(half, MIN_REPUBLISH_SECONDS), MAX_REPUBLISH_SECONDS))

    # Upkeep

    async def run(self) -> None:
        """Refresh, sweep and rejoin for as long as the node lives; cancel to end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(REFRESH_SECONDS, self._refresh))
            tasks.create_task(self._every(SWEEP_SECONDS, self._sweep))
            tasks.create_task(self._every(REJOIN_SECONDS, self._rejoin))

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._jittered(seconds))
            await step()

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)

    async def _refresh(self) -> None:
        self._policy.forget()
        now = self._clock().mono
        await self._nearest(self._own)
        for index in self._table.untouched(now - BUCKET_REFRESH_SECONDS)[:MAX_REFRESHED_BUCKETS]:
            await self._nearest(self._table.random_key(index, self._rng.getrandbits(KEY_BITS)))
        silent = [entry.contact for entry in self._table.entries() if entry.last_seen < now - REFRESH_SECONDS]
        for start in range(0, len(silent), MAX_PINGS):
            pings = [self._protocol.ask(contact, "ping") for contact in silent[start : start + MAX_PINGS]]
            for ping in pings:
                await ping

    async def _sweep(self) -> None:
        self._store.sweep()

    async def _rejoin(self) -> None:
        if not len(self._table) and self._doors:
            await self.join([*self._doors])
