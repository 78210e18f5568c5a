"""``received``: the bytes of a pack as they come, while they come fast enough; ``Pace`` says what that is."""

import asyncio
from collections.abc import AsyncGenerator
from typing import ClassVar, Final

from guts.errors import Unavailable
from guts.net.stream import Stream
from guts.node.limits import Patience

CHUNK_BYTES: Final = 256 * 1024

MIN_BYTES_PER_SECOND: Final = 1024
"""Of a pack that comes or goes, averaged over ``Patience.stall``: who sends or takes a byte a minute would hold one of
four places."""

HURRIED_BYTES: Final = 48 * 1024
"""Of a pack in the seconds that an effect ``Hurry`` allows: 16 KiB/s in the three of the first one, since another peer
has the same; half with each further one, which allows twice the seconds."""


class TransferStalled(Unavailable):
    """A peer stopped in the middle."""

    code: ClassVar[str] = "STALLED"


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
        if self._limit is not None:
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
