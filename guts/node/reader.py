"""``Reader``: refs and sources of repositories that this node does not hold, for a git client at the control socket."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence, Set
from typing import ClassVar, Final

from guts.addresses import BootstrapAddress
from guts.effects import Result
from guts.errors import ExitStatus, Unavailable, UsageError
from guts.events import Read
from guts.git.repository import BareRepository
from guts.ids import AuthorId, ObjectId, PeerId, RepositoryId
from guts.node.acceptance import Held
from guts.node.driver import Driver
from guts.node.evidence import Pair, contained
from guts.node.git_service import CAPABILITY, NodeSource
from guts.node.limits import Patience
from guts.node.readings import Reading, Readings
from guts.node.shown_refs import ShownRefs, read_refs
from guts.trust.canonical_refs import AncestorFacts, ancestor_questions
from guts.trust.ref_names import is_tag

_SHORT: Final = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}")
"""What git makes of a short name, in this order (gitrevisions(7))."""


class NoSuchRef(UsageError):
    """The repository has no ref of that name."""

    code: ClassVar[str] = "NO_SUCH_REF"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, name: str) -> None:
        super().__init__(f"the repository has no branch or tag {name!r}", hint="git ls-remote shows what it has")


class NothingCounts(Unavailable):
    """The histories of all authors have split, and nobody told a record from before."""

    code: ClassVar[str] = "NOTHING_COUNTS"

    def __init__(self) -> None:
        super().__init__(
            "its authors have signed two histories each, and no replica that was found tells what was before",
            hint="try again later; its maintainers say which one counts: guts identity reaffirm",
        )


class Reader:
    """Has repositories read, and finds who can serve them."""

    def __init__(self, driver: Driver, readings: Readings, patience: Patience) -> None:
        self._driver = driver
        self._readings = readings
        self._patience = patience

    async def refs(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> ShownRefs:
        """Return the verified refs of ``repository``, as the holders have them now.

        Raises:
            NoProviders, ProvidersUnreachable, SyncTimedOut, TooManyReadings: nobody told them.
            NothingCounts: what was told is not to be believed.
            NoSourceAnswered: nobody has given the commits and tags that are needed to tell them.
            StorageFault: the database failed.
        """
        with self._readings.using(repository) as reading:
            sources = await self._read(reading, hints, timeout)
            held = reading.held
            assert held is not None, "a reading with sources has a state"
            ancestors = await self._ancestors(reading, held)
            records = [record.tips() for record in held.records.values()]
            tagged = {
                oid for record in held.records.values() for ref, oid in record.entries.live().items() if is_tag(ref)
            }
            peeled = await reading.scratch.peel(tagged, records, self._sources(reading))
            return await asyncio.to_thread(read_refs, held, ancestors, peeled, len(sources), tuple(_notes(reading)))

    async def claim(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> tuple[int, int, tuple[AuthorId, ...]]:
        """Return how many bytes ``repository`` takes, as its holders say, how many were asked, and who maintains it.

        The largest of their claims counts; 0: none of them says. Raises: as ``refs``.
        """
        with self._readings.using(repository) as reading:
            result = await self._told(reading, hints, timeout)
            sources, claimed = result["sources"], result["claimed_bytes"]
            assert isinstance(sources, list), "of a reading"
            assert isinstance(claimed, int), "of a reading"
            assert reading.held is not None, "a reading with sources has a state"
            return claimed, len(sources), reading.held.chain.current.maintainers

    async def state(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> tuple[Held, AncestorFacts, int, list[str]]:
        """Return the verified state of ``repository`` and what its refs depend on besides, how many holders were
        compared, and what a person should know.

        Raises: as ``refs``.
        """
        with self._readings.using(repository) as reading:
            sources = await self._read(reading, hints, timeout)
            assert reading.held is not None, "a reading with sources has a state"
            return reading.held, await self._ancestors(reading, reading.held), len(sources), _notes(reading)

    async def contained(
        self,
        repository: RepositoryId,
        refs: Mapping[str, ObjectId],
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> list[str]:
        """Return which of ``refs`` are part of what is signed for the ref of that name. Raises: as ``refs``."""
        with self._readings.using(repository) as reading:
            if reading.held is None or not self._sources(reading):
                await self._read(reading, hints, timeout)
            assert reading.held is not None, "a reading with sources has a state"
            records = [record.tips() for record in reading.held.records.values()]

            def ask(pairs: Sequence[Pair]) -> Awaitable[Set[Pair]]:
                return reading.scratch.contained(pairs, records, self._sources(reading))

            return await contained(reading.held, refs, ask)

    async def sources(
        self,
        repository: RepositoryId,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> list[NodeSource]:
        """Return the holders of ``repository`` that answer git, those first that told of its newest records.

        It is read where that has not been done, or where no holder is connected any more.

        Raises: as ``refs``.
        """
        with self._readings.using(repository) as reading:
            if reading.held is None or not self._sources(reading):
                await self._read(reading, hints, timeout)
            return self._sources(reading)

    @contextlib.asynccontextmanager
    async def copy(
        self,
        repository: RepositoryId,
        name: str,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (told to the service)
    ) -> AsyncIterator[BareRepository]:
        """Enter with a repository that has the ref called ``name``, of git's short names too, and nothing before it.

        An empty ``name`` asks for no ref (``git archive --list``): the repository is empty, and nobody is asked.

        Raises:
            NoSuchRef: the verified refs have none of that name.
            GutsError: as ``refs``.
        """
        if not name:
            async with self._readings.empty_copy() as bare:
                yield bare
            return
        with self._readings.using(repository) as reading:
            shown = await self.refs(repository, hints, timeout)
            full = shown.head if name == "HEAD" else name
            found = next((ref for ref in (form.format(full) for form in _SHORT) if ref in shown.refs), None)
            if found is None:
                raise NoSuchRef(name)
            async with self._readings.shallow_copy(
                found, shown.refs[found].target, shown.head, self._sources(reading)
            ) as bare:
                yield bare

    async def _ancestors(self, reading: Reading, held: Held) -> AncestorFacts:
        questions = sorted(await asyncio.to_thread(ancestor_questions, held.chain, held.records))
        if not questions:
            return frozenset()
        records = [record.tips() for record in held.records.values()]
        answers = await reading.scratch.are_ancestors(questions, records, self._sources(reading))
        return {pair for pair, answer in zip(questions, answers, strict=True) if answer}

    async def _read(self, reading: Reading, hints: Sequence[BootstrapAddress], timeout: float) -> list[PeerId]:  # noqa: ASYNC109
        sources = (await self._told(reading, hints, timeout))["sources"]
        assert isinstance(sources, list), "of a reading"
        if reading.held is not None and not reading.held.records:
            raise NothingCounts
        return [PeerId.parse(source) for source in sources]

    async def _told(self, reading: Reading, hints: Sequence[BootstrapAddress], timeout: float) -> Result:  # noqa: ASYNC109
        known = await self._readings.start(reading)
        return await self._driver.execute(Read(reading.repository, known, tuple(hints), timeout))

    def _sources(self, reading: Reading) -> list[NodeSource]:
        service = self._driver.service
        holders = [
            state
            for state in service.peers.peers_with_repository(reading.repository)
            if CAPABILITY in state.capabilities and state.id not in reading.faults
        ]
        # Sorting is stable: of two that are as new, the one that was connected first comes first.
        holders.sort(key=lambda state: reading.behind(state.id))
        ready = [state.connection for state in holders if state.connection is not None]
        open_ = [(one.id, connection) for one in ready if (connection := self._driver.connection(one.id)) is not None]
        next_request = service.sync.requests.next
        return [
            NodeSource(
                connection,
                reading.repository,
                next_request,
                functools.partial(self._driver.source_failed, connection_id),
                self._patience,
            )
            for connection_id, connection in open_
        ]


def _notes(reading: Reading) -> list[str]:
    """Return what a person should know about those who were asked."""
    lies = [
        f"{peer.short} told what no honest node tells, and was not believed: {why}"
        for peer, why in reading.faults.items()
    ]
    late = [peer.short for peer in reading.told if peer not in reading.faults and reading.behind(peer)]
    behind = [f"newer refs than those of {', '.join(late)} were found: behind, or kept back there"] if late else []
    return lies + behind
