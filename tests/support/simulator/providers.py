"""``Providers``: the DHT as a table and a delay. Its own simulation is tests/simulation/test_discovery*."""

from collections.abc import Callable
from typing import Final

from guts.clock import Now
from guts.events import Event, LookupFinished, ProvidersFound
from guts.ids import RepositoryId
from guts.records import ProviderRecord
from tests.support.simulator.engine import Engine
from tests.support.simulator.host import LIFE_MS, Host

MAX_FOUND: Final = 64
"""Records that the holders of a key keep for it (``guts.discovery.limits``)."""

LOOKUP_HOPS: Final = 4
"""Round trips of a lookup, one after the other."""


class Providers:
    """Who provides what. Lookups see all of it, in every part of a partition only what is there.

    Args:
        handle: gives an event to the program of a host.
    """

    def __init__(
        self, engine: Engine, latency: float, reading: Callable[[Host], Now], handle: Callable[[Host, Event], None]
    ) -> None:
        self._engine = engine
        self._latency = latency
        self._reading = reading
        self._handle = handle
        self._table: dict[RepositoryId, dict[int, Host]] = {}
        self._signed: dict[tuple[RepositoryId, int], ProviderRecord] = {}

    def provide(self, host: Host, repository: RepositoryId) -> None:
        """Note that ``host`` provides ``repository``."""
        self._table.setdefault(repository, {})[host.number] = host

    def withdraw(self, host: Host, repository: RepositoryId) -> None:
        """Note that it does so no longer."""
        self._table.get(repository, {}).pop(host.number, None)

    def find(self, host: Host, repository: RepositoryId) -> None:
        """Look ``repository`` up for ``host``."""
        delay = 2 * LOOKUP_HOPS * self._latency * self._engine.rng.uniform(0.5, 1.5)
        self._engine.call_later(delay, self._found, host, host.program, repository)

    def _found(self, host: Host, program: object, repository: RepositoryId) -> None:
        if host.program is not program:
            return
        providers = [other for other in self._table.get(repository, {}).values() if other.part == host.part]
        if len(providers) > MAX_FOUND:
            providers = self._engine.rng.sample(providers, MAX_FOUND)
        records = tuple(self._record(other, repository) for other in providers)
        if records:
            self._handle(host, ProvidersFound(repository, records))
        self._handle(host, LookupFinished(repository, 20))

    def _record(self, host: Host, repository: RepositoryId) -> ProviderRecord:
        now = self._reading(host).wall
        record = self._signed.get((repository, host.number))
        if record is None or record.expires < now + LIFE_MS // 2:
            record = ProviderRecord.sign(host.key, repository, (host.address,), now, now + LIFE_MS)
            self._signed[repository, host.number] = record
        return record
