"""``GitService``, both ends (docs/protocol.md §4): one request of git's own protocol on a stream, and its answer.

A stream has one use, so a client between two requests costs the server nothing: no process, no place in line.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import ClassVar, Final

from guts.errors import ExitStatus, GutsError, PeerFault, Unavailable
from guts.git.command import GitFailed, GitTimedOut
from guts.git.git_requests import MAX_FETCH_BYTES, BadGitRequest, FetchRequest, UnsupportedGitRequest
from guts.git.repository import NotARepository
from guts.git.upload_pack import upload_pack
from guts.ids import RepositoryId
from guts.net.stream import Stream, StreamFailed
from guts.net.tcp import TcpConnection
from guts.node.limits import Patience
from guts.node.pace import CHUNK_BYTES, TransferStalled
from guts.node.repositories import Repositories
from guts.wire.messages import UPLOAD_PACK, Error, ErrorCode, GitService, ResetCode

CAPABILITY: Final = "git-service"
"""In the Hello of a node that answers ``GitService``."""


class SourceBusy(Unavailable):
    """A node answers as many requests of git as it can at a time."""

    code: ClassVar[str] = "SOURCE_BUSY"


class SourceRefuses(Unavailable):
    """A node does not, or no longer, answer such a request for the repository."""

    code: ClassVar[str] = "SOURCE_REFUSES"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class TooCostly(Unavailable):
    """git met one of its limits over a request; whoever asked is told no more than that it broke off."""

    code: ClassVar[str] = "TOO_COSTLY"


class GitServer:
    """The worker behind ``ServeGit``; ``serve`` is run by the driver in a task of its own."""

    def __init__(self, repositories: Repositories, patience: Patience) -> None:
        self._repositories = repositories
        self._patience = patience

    async def serve(self, message: GitService, connection: TcpConnection) -> GutsError | None:
        """Answer ``message``; return why that failed, if it did."""
        try:
            stream = connection.stream(message.stream)
        except GutsError as error:
            return error
        try:
            await self._serve(message, stream)
        except UnsupportedGitRequest as error:
            connection.send(Error(message.request, ErrorCode.REFUSED, "not answered here"))
            stream.reset(ResetCode.REFUSED)
            return error
        except NotARepository as error:
            connection.send(Error(message.request, ErrorCode.NOT_FOUND, "not held here"))
            stream.reset(ResetCode.NOT_FOUND)
            return error
        except GitTimedOut:
            stream.reset(ResetCode.CANCELLED)
            return TransferStalled(f"the answer took longer than {self._patience.transfer:g} s")
        except GutsError as error:
            stream.reset(ResetCode.INTERNAL_ERROR)
            return error
        except TimeoutError:
            stream.reset(ResetCode.CANCELLED)
            return TransferStalled("the peer does not send its request, or take the answer")
        return None

    async def _serve(self, message: GitService, stream: Stream) -> None:
        async with asyncio.timeout(self._patience.stall):
            data = await _whole(stream)
        request = await asyncio.to_thread(FetchRequest.parse, data)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._repositories.holding(message.repository))
            bare = await self._repositories.open(message.repository)
            chunks = await stack.enter_async_context(upload_pack(bare, request))
            try:
                async for chunk in chunks:
                    async with asyncio.timeout(self._patience.stall):
                        await stream.write(chunk)
            except GitFailed as error:
                if error.is_limit:
                    raise TooCostly(str(error)) from error
                # What the request is to blame for, git has told in its answer, which ends where it ends.
                if error.is_ours:
                    raise
        async with asyncio.timeout(self._patience.stall):
            await stream.end()


async def _whole(stream: Stream) -> bytes:
    """Return all that comes. Raises: ``BadGitRequest``: it is more than a request has; ``StreamFailed``."""
    parts: list[bytes] = []
    room = MAX_FETCH_BYTES
    while part := await stream.read(CHUNK_BYTES):
        room -= len(part)
        if room < 0:
            raise BadGitRequest(f"a request of more than {MAX_FETCH_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


class NodeSource:
    """Another node that holds the repository.

    Args:
        next_request: gives ids for requests that nothing else under way on ``connection`` has.
        blame: counts a fault in its answer against the node.
    """

    def __init__(
        self,
        connection: TcpConnection,
        repository: RepositoryId,
        next_request: Callable[[], int],
        blame: Callable[[PeerFault], Awaitable[None]],
        patience: Patience,
    ) -> None:
        self._connection = connection
        self._repository = repository
        self._next_request = next_request
        self._blame = blame
        self._patience = patience

    @property
    def name(self) -> str:
        """The node's id, short."""
        return self._connection.peer.short

    @property
    def patience(self) -> Patience:
        """How long it is waited for."""
        return self._patience

    async def blame(self, error: PeerFault) -> None:
        """Count ``error``, which was in its answer, against the node."""
        await self._blame(error)

    @contextlib.asynccontextmanager
    async def request(self, request: FetchRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with what the node answers to ``request``, as it comes.

        Raises (from the iterator too):
            SourceBusy, SourceRefuses: the node said so.
            TransferStalled: it does not go on.
            StreamFailed, NoFreeStream: the node or the connection broke off.
        """
        stream = self._connection.open_stream()
        try:
            self._connection.send(GitService(self._next_request(), self._repository, stream.id, UPLOAD_PACK))
            try:
                async with asyncio.timeout(self._patience.stall):
                    await stream.write(request.data)
                    await stream.end()
            except TimeoutError:
                raise TransferStalled("it does not take the request") from None
            except StreamFailed as error:
                raise _refusal(error) from None
            async with contextlib.aclosing(_answer(stream, self._patience)) as chunks:
                yield chunks
        finally:
            # After its end, a reset says nothing; before it, the peer need not go on.
            stream.reset(ResetCode.CANCELLED)


async def _answer(stream: Stream, patience: Patience) -> AsyncGenerator[bytes, None]:
    """Yield the answer, and say by the type of the error what the other side's reset says."""
    left = patience.first_byte
    while True:
        try:
            async with asyncio.timeout(left):
                chunk = await stream.read(CHUNK_BYTES)
        except TimeoutError:
            raise TransferStalled(f"nothing came for {left:g} s") from None
        except StreamFailed as error:
            raise _refusal(error) from None
        if not chunk:
            return
        left = patience.stall
        yield chunk


def _refusal(error: StreamFailed) -> Unavailable:
    match error.reset:
        case ResetCode.LIMIT:
            return SourceBusy("it is busy")
        case ResetCode.NOT_FOUND:
            return SourceRefuses("it does not hold the repository any more")
        case ResetCode.REFUSED:
            return SourceRefuses("it does not answer such a request")
        case None:
            return error
        case _:
            return StreamFailed("it broke off", reset=error.reset)
