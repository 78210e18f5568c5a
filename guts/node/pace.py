"""How fast packs go: ``received``, the bytes of one as they come, ``Pace``, what is fast enough for that, and
``given``, which sends one."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.errors import Unavailable
from guts.net.stream import Stream
from guts.node.limits import Patience

CHUNK_BYTES: Final = 256 * 1024

MIN_BYTES_PER_SECOND: Final = 1024
"""Of a pack that comes or goes, averaged over ``Patience.stall``: who sends or takes a byte a minute would hold one of
four places."""

CONTENDED_BYTES_PER_SECOND: Final = 2 * MIN_BYTES_PER_SECOND
"""Of a pack that goes while others wait for its place, averaged over ``Patience.contended``."""

PIECE_BYTES: Final = 64 * 1024
"""Of a pack that goes: what was taken is counted in these."""

LOOK_SECONDS: Final = 1.0
"""Between two looks at whether somebody waits for the place of a peer that is slow: of the 20 that they wait."""

HURRIED_BYTES: Final = 48 * 1024
"""Of a pack in the seconds that an effect ``Hurry`` allows: 16 KiB/s in the three of the first one, since another peer
has the same; half with each further one, which allows twice the seconds."""


class TransferStalled(Unavailable):
    """A peer stopped in the middle."""

    code: ClassVar[str] = "STALLED"


class GaveWay(TransferStalled):
    """A peer took a pack too slowly while others waited for its place."""


class Pace:
    """How fast the pack of one transfer has to come; ``hurry`` changes that while it comes."""

    def __init__(self, patience: Patience) -> None:
        self.first_byte = patience.first_byte
        self.seconds = patience.stall
        self.bytes = MIN_BYTES_PER_SECOND * patience.stall
        self.hurries = 0
        self._limit: asyncio.Timeout | None = None

    def hurry(self, seconds: float) -> None:
        """Allow no more than ``seconds`` for the next ``HURRIED_BYTES``, where less than that was allowed."""
        if seconds >= self.seconds:
            return
        self.seconds, self.bytes = seconds, HURRIED_BYTES
        self.first_byte = min(self.first_byte, seconds)
        self.hurries += 1
        if self._limit is not None and not self._limit.expired():
            end = asyncio.get_running_loop().time() + seconds
            when = self._limit.when()
            self._limit.reschedule(end if when is None else min(when, end))

    async def read(self, stream: Stream, seconds: float) -> bytes:
        """Return what comes next. Raises: ``TimeoutError``, ``StreamFailed``."""
        async with asyncio.timeout(seconds) as limit:
            self._limit = limit
            try:
                return await stream.read(CHUNK_BYTES)
            finally:
                self._limit = None


async def received(stream: Stream, pace: Pace) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of an answer as they come. Raises: ``TransferStalled``, ``StreamFailed``."""
    clock = asyncio.get_running_loop()
    left, count, hurries = pace.first_byte, 0, pace.hurries
    begins = True
    while True:
        asked = clock.time()
        try:
            chunk = await pace.read(stream, left)
        except TimeoutError:
            raise TransferStalled(f"{count} bytes of the answer are all that came in time") from None
        if not chunk:
            return
        # Only what we waited for the peer counts: while git is busy, the peer has no credit to send.
        left -= clock.time() - asked
        count += len(chunk)
        if pace.hurries > hurries:
            begins, left, count, hurries = False, pace.seconds, 0, pace.hurries
        elif begins or count >= pace.bytes:
            begins, left, count = False, pace.seconds, 0
        yield chunk


@dataclass(slots=True)
class _Span:
    """Bytes that a peer has to take in a time; only the time for which it is waited for counts.

    Attributes:
        left: seconds, below 0 where it was slower.
    """

    seconds: float
    rate: int
    left: float
    count: int = 0

    def passed(self, seconds: float, count: int) -> None:
        self.left -= seconds
        self.count += count
        if self.count >= self.rate * self.seconds:
            self.left, self.count = self.seconds, 0


class Giving:
    """How fast one pack is taken.

    Args:
        wanted: tells whether another waits for its place.
    """

    def __init__(self, patience: Patience, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._alone = _Span(patience.stall, MIN_BYTES_PER_SECOND, patience.stall)
        self._contended = _Span(patience.contended, CONTENDED_BYTES_PER_SECOND, patience.contended)
        self._timer: asyncio.TimerHandle | None = None
        self._gave_way = False

    async def write(self, stream: Stream, data: bytes) -> None:
        """Send ``data``. Raises: ``TransferStalled``, ``GaveWay``, ``StreamFailed``."""
        for start in range(0, len(data), PIECE_BYTES):
            await self._write(stream, data[start : start + PIECE_BYTES])

    async def _write(self, stream: Stream, piece: bytes) -> None:
        clock = asyncio.get_running_loop()
        begun = clock.time()
        try:
            async with asyncio.timeout(self._alone.left) as limit:
                self._timer = clock.call_later(max(self._contended.left, 0.0), self._look, limit)
                try:
                    await stream.write(piece)
                finally:
                    self._timer.cancel()
        except TimeoutError:
            if self._gave_way:
                raise GaveWay("the peer takes the pack slowly, and others wait") from None
            raise TransferStalled("the peer does not take the pack") from None
        seconds = clock.time() - begun
        self._alone.passed(seconds, len(piece))
        self._contended.passed(seconds, len(piece))

    def _look(self, limit: asyncio.Timeout) -> None:
        """End the write under ``limit`` if somebody waits for the place; else look again."""
        clock = asyncio.get_running_loop()
        if self._wanted() and not limit.expired():
            self._gave_way = True
            limit.reschedule(clock.time())
        else:
            self._timer = clock.call_later(LOOK_SECONDS, self._look, limit)
