"""git's own servers over a bare repository: one request, one child, one answer.

Protocol v2 is stateless, so a client that thinks costs no process. The repository's path is ours; what a client
sends reaches git on stdin, after ``guts.git.git_requests`` has judged it.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from guts.git.command import Child
from guts.git.git_requests import ArchiveRequest, FetchRequest
from guts.git.objects import CHUNK_BYTES
from guts.git.repository import BareRepository

MAX_TREE_DEPTH: Final = 8
"""Of a ``tree:<depth>`` filter: git may walk a tree once for each level above it."""

_UPLOAD_PACK: Final = (
    "uploadpack.allowFilter=true",
    "uploadpack.allowRefInWant=false",
    "uploadpack.allowSidebandAll=false",
    "uploadpackfilter.allow=false",
    "uploadpackfilter.blob:none.allow=true",
    "uploadpackfilter.blob:limit.allow=true",
    "uploadpackfilter.object:type.allow=true",
    "uploadpackfilter.combine.allow=true",
    "uploadpackfilter.tree.allow=true",
    f"uploadpackfilter.tree.maxDepth={MAX_TREE_DEPTH}",
)
"""A filter that reads files of the repository (``sparse:oid``) matches every path against patterns of the client's."""

_UPLOAD_ARCHIVE: Final = ("uploadArchive.allowUnreachable=false",)


@contextlib.asynccontextmanager
async def upload_pack(repository: BareRepository, request: FetchRequest) -> AsyncIterator[AsyncIterator[bytes]]:
    """Enter with what ``git upload-pack`` answers to ``request``, in pieces; hold the pack lock shared meanwhile.

    Raises:
        GitFailed: git ended badly (from the iterator, after what it said to the client).
    """
    arguments = ["upload-pack", "--strict", "--stateless-rpc", str(repository.path)]
    async with _answer(repository, arguments, _UPLOAD_PACK, request.data) as chunks:
        yield chunks


@contextlib.asynccontextmanager
async def upload_archive(repository: BareRepository, request: ArchiveRequest) -> AsyncIterator[AsyncIterator[bytes]]:
    """Enter with what ``git upload-archive`` answers to ``request``: as ``upload_pack``."""
    arguments = ["upload-archive", str(repository.path)]
    async with _answer(repository, arguments, _UPLOAD_ARCHIVE, request.data) as chunks:
        yield chunks


@contextlib.asynccontextmanager
async def _answer(
    repository: BareRepository, arguments: Sequence[str], config: Sequence[str], request: bytes
) -> AsyncIterator[AsyncIterator[bytes]]:
    environment = {"GIT_PROTOCOL": "version=2"}
    # Unlike the rest of git they look at who owns the folder. The node does not: it has been told where its data are,
    # and that may be a volume with an owner of its own.
    owned = f"safe.directory={repository.path}"
    async with repository.git.start(arguments, environment=environment, config=[*config, owned]) as child:
        # Both read their whole request before they answer: it waits in the transport, and there is no deadlock.
        child.write(request)
        child.close_stdin()
        async with contextlib.aclosing(_chunks(child)) as chunks:
            yield chunks


async def _chunks(child: Child) -> AsyncGenerator[bytes, None]:
    while chunk := await child.stdout.read(CHUNK_BYTES):
        yield chunk
    await child.finish()
