"""What answers git: the requests of ``fetch`` and ``archive``, from the repositories held here."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from guts.git.git_requests import ArchiveRequest, FetchRequest
from guts.git.upload_pack import upload_archive, upload_pack
from guts.ids import RepositoryId
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


@contextlib.asynccontextmanager
async def held_upload_pack(
    repositories: Repositories, repository: RepositoryId, request: FetchRequest
) -> AsyncIterator[GitAnswer]:
    """Enter with this node's own answer to a ``fetch``.

    Raises:
        NotARepository: the repository is not here.
        GitFailed: git ended badly, which it told its client where that is to know (from the iterator).
    """
    bare = await repositories.open(repository)
    async with repositories.locks(repository).shared(), upload_pack(bare, request) as chunks:
        yield GitAnswer(chunks)


@contextlib.asynccontextmanager
async def held_upload_archive(
    repositories: Repositories, repository: RepositoryId, request: ArchiveRequest
) -> AsyncIterator[GitAnswer]:
    """Enter with this node's own answer to ``git archive --remote``. Raises: as ``held_upload_pack``."""
    bare = await repositories.open(repository)
    async with repositories.locks(repository).shared(), upload_archive(bare, request) as chunks:
        yield GitAnswer(chunks)
