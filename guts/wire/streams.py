"""One stream's two directions: what may still arrive, and what waits to be sent.

Credit is a promise to hold so many bytes: ``ReceiveWindow`` hands it out as the reader consumes,
``SendQueue`` spends what the other side handed out. The table of streams, with the rule which ids open, is
``StreamTable``.
"""

from collections import deque
from collections.abc import Iterator
from typing import ClassVar, Final, final

from guts.errors import Unavailable
from guts.wire.frames import BadFrame
from guts.wire.limits import INITIAL_WINDOW, MAX_OPEN_STREAMS, MAX_STREAM_ID, MAX_WINDOW
from guts.wire.secure import Direction


class CreditExceeded(BadFrame):
    """A peer sent more than it had credit for, or gave more credit than any window."""

    code: ClassVar[str] = "CREDIT_EXCEEDED"


class BadStream(BadFrame):
    """A peer used a stream id that it may not use: ours, one never opened, or one too many."""

    code: ClassVar[str] = "BAD_STREAM"


class NoFreeStream(Unavailable):
    """All streams that we may open are open; one must end first."""

    code: ClassVar[str] = "NO_FREE_STREAM"


@final
class ReceiveWindow:
    """Flow control of what arrives: credit given + bytes unread + bytes read but not yet granted = size.

    Attributes:
        size: 1 MiB at first; doubled at each grant whose reader has kept up, to 16 MiB.
        credit: bytes the other side may still send.
        unread: bytes that arrived and were not consumed yet.
    """

    __slots__ = ("_freed", "credit", "size", "unread")

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.credit = INITIAL_WINDOW
        self.unread = 0
        self._freed = 0

    def receive(self, count: int) -> None:
        """Account for ``count`` bytes that arrived.

        Raises:
            CreditExceeded: more than was allowed.
        """
        if count > self.credit:
            raise CreditExceeded(f"{count} bytes where {self.credit} are allowed")
        self.credit -= count
        self.unread += count

    def consume(self, count: int, growth: int) -> int:
        """Account for ``count`` bytes that the reader took; return the credit to grant now, often 0.

        Args:
            count: 0..``unread``.
            growth: how much larger the window may become.
        """
        if not 0 <= count <= self.unread:
            raise AssertionError(f"{count} bytes consumed of {self.unread}")
        self.unread -= count
        self._freed += count
        # Half a window at a time: few frames, and the sender never runs dry for a round trip.
        if self._freed < self.size // 2:
            return 0
        keeps_up = self.unread <= self.size // 4
        grown = self.size if keeps_up and self.size <= min(growth, MAX_WINDOW // 2) else 0
        grant = self._freed + grown
        self.size += grown
        self.credit += grant
        self._freed = 0
        return grant


@final
class SendQueue:
    """What waits to be sent, and the credit for it.

    Attributes:
        size: bytes waiting.
        credit: bytes that the other side still allows.
        ending: END follows the last byte.
    """

    __slots__ = ("_pieces", "credit", "ending", "size")

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self.size = 0
        self.credit = INITIAL_WINDOW
        self.ending = False

    def __len__(self) -> int:
        """Pieces (messages, on stream 0) that wait, whole or in part."""
        return len(self._pieces)

    def put(self, data: bytes) -> None:
        """Queue ``data``; empty is nothing."""
        if data:
            self._pieces.append(memoryview(data))
            self.size += len(data)

    def allow(self, amount: int) -> None:
        """Account for credit of ``amount`` bytes.

        Raises:
            CreditExceeded: more than any window is now outstanding.
        """
        self.credit += amount
        if self.credit > MAX_WINDOW:
            raise CreditExceeded(f"{self.credit} bytes of credit on one stream")

    @property
    def sendable(self) -> int:
        """Bytes that could be sent now."""
        return min(self.size, self.credit)

    @property
    def at_end(self) -> bool:
        """Nothing waits but END."""
        return self.ending and self.size == 0

    def take(self, count: int) -> Iterator[memoryview]:
        """Yield exactly ``count`` (at most ``sendable``) bytes, in pieces that are not copied."""
        self.size -= count
        self.credit -= count
        while count:
            piece = self._pieces.popleft()
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
                piece = piece[:count]
            count -= len(piece)
            yield piece


@final
class StreamState:
    """An open stream.

    Attributes:
        received_end: the other side sent END.
        sent_end: our END has gone out.
    """

    __slots__ = ("queue", "received_end", "sent_end", "window")

    def __init__(self) -> None:
        self.window = ReceiveWindow()
        self.queue = SendQueue()
        self.received_end = False
        self.sent_end = False

    @property
    def closed(self) -> bool:
        """Both directions ended."""
        return self.received_end and self.sent_end


FIRST_OUTBOUND_ID: Final = 1
FIRST_INBOUND_ID: Final = 2


@final
class StreamTable:
    """The open streams of a connection, and which ids may be used.

    The dialler opens odd ids, the other side even ones, rising. Opening an id opens every lower one of its
    opener that was not open yet (as in QUIC, RFC 9000 §3.2), so that each id is unopened, open or closed, and
    nothing needs to be kept of closed ones. Each opener has at most ``MAX_OPEN_STREAMS``.
    """

    __slots__ = ("_next_ours", "_next_theirs", "_open")

    def __init__(self, direction: Direction) -> None:
        ours_odd = direction is Direction.OUTBOUND
        self._next_ours = FIRST_OUTBOUND_ID if ours_odd else FIRST_INBOUND_ID
        self._next_theirs = FIRST_INBOUND_ID if ours_odd else FIRST_OUTBOUND_ID
        self._open: dict[int, StreamState] = {}

    def open(self) -> int:
        """Open a stream of ours and return its id.

        Raises:
            NoFreeStream: 64 of ours are open.
        """
        stream = self._next_ours
        if self._count(stream) >= MAX_OPEN_STREAMS or stream > MAX_STREAM_ID:
            raise NoFreeStream("all streams of this connection are in use")
        self._next_ours += 2
        self._open[stream] = StreamState()
        return stream

    def of(self, stream: int) -> StreamState | None:
        """Return the open stream with this id, or ``None``."""
        return self._open.get(stream)

    def opened_by_peer(self, stream: int) -> StreamState | None:
        """Return the stream that the peer named; opens its own. ``None``: closed here already.

        Raises:
            BadStream: the peer may not use this id.
        """
        state = self._open.get(stream)
        if state is not None:
            return state
        if stream % 2 == self._next_ours % 2:
            if stream >= self._next_ours:
                raise BadStream(f"stream {stream} was never opened")
            return None
        if stream < self._next_theirs:
            return None
        new = (stream - self._next_theirs) // 2 + 1
        if stream == 0 or self._count(stream) + new > MAX_OPEN_STREAMS:
            raise BadStream(f"stream {stream} is one more than may be open")
        for each in range(self._next_theirs, stream + 2, 2):
            self._open[each] = StreamState()
        self._next_theirs = stream + 2
        return self._open[stream]

    def close(self, stream: int) -> StreamState | None:
        """Forget an open stream and return it, or ``None`` if it is not open."""
        return self._open.pop(stream, None)

    def _count(self, like: int) -> int:
        return sum(1 for stream in self._open if stream % 2 == like % 2)
