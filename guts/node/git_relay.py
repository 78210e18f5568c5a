"""``relay``: one ``fetch``, several sources, one answer.

Until a byte of the pack has been passed on, whatever goes wrong with a source leads to the next one. Only the git that
asked can tell whether a pack has all that was wanted; a source that leaves something out makes it fail, not believe.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from guts.errors import GutsError, PeerFault, Unavailable
from guts.git.fetch_responses import FetchResponse
from guts.git.git_requests import FetchRequest
from guts.git.pkt_line import ERROR_BAND, PROGRESS_BAND, on_band
from guts.node.git_service import SourceBusy
from guts.node.limits import Patience
from guts.node.pace import MIN_BYTES_PER_SECOND, TransferStalled

BUSY_PAUSE: Final = 2.0
"""Seconds until nodes that are all busy are asked again."""


class Source(Protocol):
    """What can answer a ``fetch``: this node's repository, or another node.

    Attributes:
        name: for people.
        patience: how long it is waited for; ``None`` where nothing could be gained by another source.
    """

    @property
    def name(self) -> str: ...
    @property
    def patience(self) -> Patience | None: ...
    def request(self, request: FetchRequest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Enter with the bytes of the answer. Raises: ``GutsError`` (from the iterator too)."""

    async def blame(self, error: PeerFault) -> None:
        """Count ``error``, which was in its answer, against the source."""


class NoSourceAnswered(Unavailable):
    """Nobody who holds the repository could answer git's request.

    Attributes:
        reasons: why, for each source.
    """

    code: ClassVar[str] = "NO_SOURCE_ANSWERED"

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons) or "there is nobody to ask")
        self.reasons = list(reasons)


class AnswersDiffer(Unavailable):
    """A source answers otherwise than the one before it, the beginning of whose answer git knows already."""

    code: ClassVar[str] = "ANSWERS_DIFFER"


@dataclass(slots=True)
class Course:
    """How an answer came about.

    Attributes:
        notes: a line for each source that failed before the first piece was yielded. After that, such lines are
            part of the answer, as git's own progress is.
        given_by: the source of the pack, once a byte of it has been passed on.
    """

    notes: list[str] = field(default_factory=list)
    given_by: Source | None = None


async def relay(
    sources: Sequence[Source], request: FetchRequest, course: Course, busy: float
) -> AsyncGenerator[bytes, None]:
    """Yield the answer of the first of ``sources`` that gives one.

    Args:
        course: is told how it went.
        busy: seconds for a place, where every source that is left is busy.

    Raises:
        NoSourceAnswered: before the first piece. Later the answer ends in git's own form of an error.
    """
    clock = asyncio.get_running_loop()
    until = clock.time() + busy
    passed = _Passed()
    reasons: list[str] = []
    left = list(sources)
    while left:
        waiting: list[Source] = []
        for number, source in enumerate(left):
            try:
                async with contextlib.aclosing(_answer(source, request, passed)) as pieces:
                    async for piece in pieces:
                        if passed.pack_begun:
                            course.given_by = source
                        yield piece
                return
            except GutsError as error:
                if isinstance(error, PeerFault):
                    await source.blame(error)
                if passed.pack_begun:
                    yield _ending(f"{source.name} broke off in the middle of the pack ({error}); try again")
                    return
                if isinstance(error, SourceBusy):
                    waiting.append(source)
                    continue
                reasons.append(f"{source.name}: {error}")
                following = next(iter([*left[number + 1 :], *waiting]), None)
                if following is not None:
                    note = f"{source.name} failed ({error}); going on with {following.name}"
                    if passed.header:
                        yield _line(note)
                    else:
                        course.notes.append(note)
        left = waiting
        if left and clock.time() + BUSY_PAUSE > until:
            reasons += [f"{source.name} is busy" for source in left]
            break
        if left:
            await asyncio.sleep(BUSY_PAUSE)
    failure = NoSourceAnswered(reasons)
    if not passed.header:
        raise failure
    yield _ending(str(failure))


class _Passed:
    """What git has been told already, by whichever source.

    Attributes:
        header: the sections before the pack.
        pack_begun: a byte of the pack, or the end.
    """

    def __init__(self) -> None:
        self.header = b""
        self.pack_begun = False


async def _answer(source: Source, request: FetchRequest, passed: _Passed) -> AsyncGenerator[bytes, None]:
    """Yield what may be passed on of one source's answer. Raises: ``GutsError``: why it is none, or no whole one."""
    pace = _Pace(source.patience)
    response = FetchResponse(request)
    async with source.request(request) as chunks:
        while not response.whole:
            chunk = await pace.next(chunks)
            if not chunk:
                break
            piece = response.receive_data(chunk)
            pace.came(response.pack_bytes)
            if response.header and not passed.header:
                passed.header = response.header
                piece = response.header + piece
            elif response.header and response.header != passed.header:
                raise AnswersDiffer("it answers otherwise than the source before it")
            passed.pack_begun |= bool(response.pack_bytes) or response.whole
            if piece:
                yield piece
        response.receive_eof()


class _Pace:
    """For how long a source is waited for: until its pack begins, and then for each so many bytes of it.

    While it prepares a pack it sends a few bytes a second, or now and then one: that it goes on at all is for whoever
    reads its stream to see. Only waiting counts: while git is busy, the source has no credit to send.
    """

    def __init__(self, patience: Patience | None) -> None:
        self._patience = patience
        self._left = math.inf if patience is None else patience.preparing
        self._counted = 0

    async def next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Return the next chunk, ``b""`` at the end. Raises: ``TransferStalled``; what ``chunks`` raise."""
        clock = asyncio.get_running_loop()
        asked = clock.time()
        try:
            async with asyncio.timeout(None if self._left == math.inf else self._left):
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise TransferStalled("its pack comes too slowly" if self._counted else "its pack does not begin") from None
        self._left -= clock.time() - asked
        return chunk

    def came(self, pack_bytes: int) -> None:
        """Note how many bytes of the pack are here."""
        if self._patience is None or not pack_bytes:
            return
        if not self._counted or pack_bytes - self._counted >= MIN_BYTES_PER_SECOND * self._patience.stall:
            self._left, self._counted = self._patience.stall, pack_bytes


def _line(text: str) -> bytes:
    return b"".join(on_band(PROGRESS_BAND, f"guts: {text}\n".encode()))


def _ending(text: str) -> bytes:
    return b"".join(on_band(ERROR_BAND, f"guts: {text}\n".encode()))
