"""What answers git: the requests of ``fetch`` and ``archive``, from the repositories held here."""

import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from guts.git.git_requests import ArchiveRequest, FetchRequest
from guts.git.upload_pack import upload_archive, upload_pack
from guts.ids import RepositoryId
from guts.node.git_relay import Source, relay
from guts.node.limits import Patience
from guts.node.repositories import Repositories


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
    preparing = math.inf
    """The git that asked has nobody else to turn to, and sees the progress."""

    def __init__(self, repositories: Repositories, repository: RepositoryId) -> None:
        self._repositories = repositories
        self._repository = repository

    @contextlib.asynccontextmanager
    async def request(self, request: FetchRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with git's answer.

        Raises:
            NotARepository: the repository is not here.
            GitFailed: git ended badly, after what it told its client (from the iterator).
        """
        bare = await self._repositories.open(self._repository)
        async with self._repositories.locks(self._repository).shared(), upload_pack(bare, request) as chunks:
            yield chunks


@contextlib.asynccontextmanager
async def relayed(sources: Sequence[Source], request: FetchRequest, patience: Patience) -> AsyncIterator[GitAnswer]:
    """Enter with the answer that ``relay`` gets from ``sources``."""
    notes: list[str] = []
    async with contextlib.aclosing(relay(sources, request, notes, patience.busy)) as pieces:
        yield GitAnswer(pieces, notes)


@contextlib.asynccontextmanager
async def held_upload_archive(
    repositories: Repositories, repository: RepositoryId, request: ArchiveRequest
) -> AsyncIterator[GitAnswer]:
    """Enter with this node's own answer to ``git archive --remote``. Raises: as ``HeldSource.request``."""
    bare = await repositories.open(repository)
    async with repositories.locks(repository).shared(), upload_archive(bare, request) as chunks:
        yield GitAnswer(chunks)
