"""``Reader``: refs and sources of repositories that this node does not hold, for a git client at the control socket."""

import asyncio
from collections.abc import Sequence

from guts.addresses import BootstrapAddress
from guts.events import Read
from guts.ids import PeerId, RepositoryId
from guts.net.tcp import TcpConnection
from guts.node.acceptance import Held
from guts.node.driver import Driver
from guts.node.readings import Reading, Readings
from guts.node.shown_refs import ShownRefs, read_refs


class Reader:
    """Has repositories read, and finds who can serve them."""

    def __init__(self, driver: Driver, readings: Readings) -> None:
        self._driver = driver
        self._readings = readings

    async def refs(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> ShownRefs:
        """Return the verified refs of ``repository``, as the holders have them now.

        Raises:
            NoProviders, ProvidersUnreachable, SyncTimedOut, TooManyReadings: nobody told them.
            StorageFault: the database failed.
        """
        with self._readings.using(repository) as reading:
            sources = await self._read(reading, hints, timeout)
            held = reading.held
            assert held is not None, "a reading with sources has a state"
            notes = tuple(_notes(reading))
            return await asyncio.to_thread(read_refs, held, frozenset(), {}, len(sources), notes)

    async def records(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> tuple[Held, int, list[str]]:
        """Return the verified state of ``repository``, how many holders were compared, and what a person should know.

        Raises: as ``refs``.
        """
        with self._readings.using(repository) as reading:
            sources = await self._read(reading, hints, timeout)
            assert reading.held is not None, "a reading with sources has a state"
            return reading.held, len(sources), _notes(reading)

    async def sources(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> list[TcpConnection]:
        """Return connections to holders of ``repository``, those first that told of its newest records.

        It is read where that has not been done, or where no holder is connected any more.

        Raises: as ``refs``.
        """
        with self._readings.using(repository) as reading:
            if reading.held is None or not self._connections(reading):
                await self._read(reading, hints, timeout)
            return self._connections(reading)

    async def _read(self, reading: Reading, hints: Sequence[BootstrapAddress], timeout: float) -> list[PeerId]:  # noqa: ASYNC109
        known = await self._readings.start(reading)
        result = await self._driver.execute(Read(reading.repository, known, tuple(hints), timeout))
        sources = result["sources"]
        assert isinstance(sources, list), "of a reading"
        return [PeerId.parse(source) for source in sources]

    def _connections(self, reading: Reading) -> list[TcpConnection]:
        peers = self._driver.service.peers
        holders = [state for state in peers.peers_with_repository(reading.repository) if state.id not in reading.faults]
        # Sorting is stable: of two that are as new, the one that was connected first comes first.
        holders.sort(key=lambda state: reading.behind(state.id))
        ready = [state.connection for state in holders]
        found = [self._driver.connection(connection.id) for connection in ready if connection is not None]
        return [connection for connection in found if connection is not None]


def _notes(reading: Reading) -> list[str]:
    """Return what a person should know about those who were asked."""
    lies = [
        f"{peer.short} told what no honest node tells, and was not believed: {why}"
        for peer, why in reading.faults.items()
    ]
    late = [peer.short for peer in reading.told if peer not in reading.faults and reading.behind(peer)]
    behind = [f"newer refs than those of {', '.join(late)} were found: behind, or kept back there"] if late else []
    return lies + behind
