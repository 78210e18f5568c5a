"""What answers git: the requests of ``fetch`` and ``archive``, from what is held here or from those who hold it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from guts.addresses import BootstrapAddress
from guts.errors import PeerFault
from guts.git.git_requests import ArchiveRequest, FetchRequest
from guts.git.upload_pack import upload_archive, upload_pack
from guts.ids import RepositoryId
from guts.node.git_relay import Course, Source, relay
from guts.node.git_turns import Turns
from guts.node.limits import Patience
from guts.node.reader import Reader
from guts.node.repositories import Repositories
from guts.store.accepted import NotHeld


@dataclass(frozen=True, slots=True)
class GitAnswer:
    """An answer in git's own protocol, as it comes.

    Attributes:
        chunks: its bytes.
        notes: lines for the person who waits; complete when the first chunk is there.
    """

    chunks: AsyncIterator[bytes]
    notes: list[str] = field(default_factory=list)


class HeldSource:
    """This node's own repository, as a source for ``relay``."""

    name = "this node"
    patience = None
    """The git that asked has nobody else to turn to, and sees the progress."""

    def __init__(self, repositories: Repositories, repository: RepositoryId) -> None:
        self._repositories = repositories
        self._repository = repository

    async def blame(self, error: PeerFault) -> None:
        """Nobody else is to blame."""

    @contextlib.asynccontextmanager
    async def request(self, request: FetchRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with git's answer.

        Raises:
            NotARepository: the repository is not here.
            GitFailed: git ended badly, after what it told its client (from the iterator).
        """
        async with self._repositories.holding(self._repository):
            bare = await self._repositories.open(self._repository)
            async with upload_pack(bare, request) as chunks:
                yield chunks


class GitAnswers:
    """Answers the git clients at the control socket."""

    def __init__(self, repositories: Repositories, reader: Reader, patience: Patience) -> None:
        self._repositories = repositories
        self._reader = reader
        self._patience = patience
        self._turns = Turns()

    @contextlib.asynccontextmanager
    async def upload_pack(
        self,
        repository: RepositoryId,
        data: bytes,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (of a search for holders)
    ) -> AsyncIterator[GitAnswer]:
        """Enter with the answer to one ``fetch`` of protocol v2; ``data``: see ``FetchRequest.parse``.

        Raises:
            BadGitRequest, UnsupportedGitRequest: see ``guts.git.git_requests``.
            NoProviders, ProvidersUnreachable…: nobody holds the repository: as ``Reader.sources``.
            NoSourceAnswered: whoever holds it can't answer (from the answer's iterator).
            StorageFault: the database failed.
        """
        request = await asyncio.to_thread(FetchRequest.parse, data)
        sources: Sequence[Source]
        if await self._is_held(repository):
            sources = [HeldSource(self._repositories, repository)]
        else:
            sources = self._turns.in_order(data, await self._reader.sources(repository, hints, timeout))
        course = Course()
        try:
            async with contextlib.aclosing(relay(sources, request, course, self._patience.busy)) as pieces:
                yield GitAnswer(pieces, course.notes)
        finally:
            if course.given_by is not None:
                self._turns.note(data, course.given_by)

    @contextlib.asynccontextmanager
    async def upload_archive(
        self,
        repository: RepositoryId,
        data: bytes,
        hints: Sequence[BootstrapAddress],
        timeout: float,  # noqa: ASYNC109 (of a search for holders)
    ) -> AsyncIterator[GitAnswer]:
        """Enter with the answer to one ``git archive --remote``.

        Raises:
            BadGitRequest: see ``guts.git.git_requests``.
            NoSuchRef, NoProviders…: it is not held here, and can't be had: as ``Reader.copy``.
            GitFailed: git ended badly, after what it told its client (from the answer's iterator).
        """
        request = ArchiveRequest.parse(data)
        async with contextlib.AsyncExitStack() as stack:
            if await self._is_held(repository):
                await stack.enter_async_context(self._repositories.holding(repository))
                bare = await self._repositories.open(repository)
            else:
                bare = await stack.enter_async_context(self._reader.copy(repository, request.tree, hints, timeout))
            yield GitAnswer(await stack.enter_async_context(upload_archive(bare, request)))

    async def _is_held(self, repository: RepositoryId) -> bool:
        try:
            await self._repositories.known(repository)
        except NotHeld:
            return False
        return not self._repositories.is_lost(repository)
