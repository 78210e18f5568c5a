"""``Connection``: bytes of one socket <-> messages and streams. Sans-IO; the shell is ``guts.net.tcp``.

Bytes that arrived go into ``receive_data``, which returns what happened. What was queued by ``send_message``
and ``send_stream`` comes out of ``data_to_send`` when the shell can write: frames outside credit first, then
messages, then one frame of each stream with data in turn. Nothing is encrypted before it is asked for, so a
ping overtakes a pack of any size by all but what the shell has already taken.

Messages and bytes stay charged to their sender until ``consumed`` says that the reader has them: who does not
call it stops the peer after one window, and that is all the memory it costs.
"""

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Final, assert_never, final

from guts.errors import Unavailable
from guts.ids import PeerId
from guts.wire import codec, frames
from guts.wire.codec import BadMessage, UnknownMessage
from guts.wire.frames import BadFrame, Frame, FrameType
from guts.wire.inbox import Inbox
from guts.wire.limits import (
    FRAME_HEADER_BYTES,
    INITIAL_WINDOW,
    KIB,
    MAX_FRAME_PAYLOAD,
    MAX_PLAINTEXT,
    MESSAGE_LENGTH_BYTES,
    MIB,
)
from guts.wire.messages import Goodbye, Gossip, Message, Ping, Pong, ResetCode
from guts.wire.secure import SecureChannel
from guts.wire.streams import BadStream, NoFreeStream, ReceiveWindow, SendQueue, StreamState, StreamTable

MAX_QUEUED_BYTES: Final = 8 * MIB
"""Messages that wait to be sent: a Refs answer of the largest size (4 MiB + 64 KiB) may wait behind a page of
others. A peer that does not take this much is not reading its answers."""

MAX_QUEUED_MESSAGES: Final = 256
"""Messages that wait to be sent: what 10 news per second pile up in a stall of 25 s, which is longer than a
write may stall (20 s)."""

MAX_QUEUED_CONTROL: Final = 64
"""Pings, pongs and goodbyes that wait: one is the norm, so whoever makes us owe 64 pongs is flooding."""

MAX_QUEUED_STREAM_BYTES: Final = 256 * KIB
"""Bytes that wait on one bulk stream: four frames keep the socket busy while the writer sleeps."""

MAX_GROWTH: Final = 32 * MIB
"""What all windows of a connection may grow together beyond their first size: two at full width."""

MAX_MESSAGE_WINDOW: Final = 4 * MIB
"""What messages that wait for their handler may take: a Refs of the largest size still passes 130 ms of round trip at
30 MB/s, and a peer that is not listened to for a while fills no more."""

_SMALLEST_PIECE: Final = 1 * KIB
"""A frame of bulk bytes is not begun for less room than this in a transport message."""

_CONTROL_MESSAGES: Final = (Ping, Pong, Goodbye)


class SendQueueFull(Unavailable):
    """The peer takes what we send too slowly; the connection is closed."""

    code: ClassVar[str] = "SEND_QUEUE_FULL"


@final
@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """The other side has proved who it is."""

    peer: PeerId


@final
@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message arrived; ``charge`` goes to ``consumed(0, charge)`` when it has been handled.

    Attributes:
        data: its bytes, not yet decoded: a peer can send thousands at once, and decoding is the dear part.
        control: it came outside credit.
    """

    data: bytes
    charge: int
    control: bool = False

    def decode(self) -> Message | UnknownMessage:
        """Return the message.

        Raises:
            PeerFault: the bytes are none, or one that may not come this way. It ends the connection.
        """
        try:
            message = codec.decode(self.data)
        except UnknownMessage as unknown:
            if not self.control:
                return unknown
            raise BadMessage("an unknown message in a CONTROL frame") from None
        if isinstance(message, _CONTROL_MESSAGES) != self.control:
            where = "in a" if self.control else "outside a"
            raise BadMessage(f"{type(message).__name__} {where} CONTROL frame")
        return message


@final
@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes of a bulk stream arrived; to be reported by ``consumed`` when they have been read."""

    stream: int
    data: bytes


@final
@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The other side will send no more on this stream."""

    stream: int


@final
@dataclass(frozen=True, slots=True)
class StreamReset:
    """The other side gave this stream up; ``code`` is a ``ResetCode`` or one of a later version."""

    stream: int
    code: int


Event = HandshakeCompleted | MessageReceived | StreamData | StreamEnded | StreamReset


@final
class Connection:
    """One side of a connection, from raw bytes to messages and back.

    A ``PeerFault`` out of any method ends it: the shell closes the socket.
    """

    __slots__ = (
        "_announced",
        "_channel",
        "_control",
        "_credits",
        "_growth",
        "_inbox",
        "_messages",
        "_ready",
        "_resets",
        "_streams",
        "_window",
        "gossip_dropped",
    )

    def __init__(self, channel: SecureChannel) -> None:
        self._channel = channel
        self._announced = False
        self._streams = StreamTable(channel.direction)
        self._window = ReceiveWindow()
        self._inbox = Inbox()
        self._messages = SendQueue()
        self._control: deque[bytes] = deque()
        self._credits: dict[int, int] = {}
        self._resets: dict[int, int] = {}
        self._ready: deque[int] = deque()
        self._growth = MAX_GROWTH
        self.gossip_dropped = 0

    @property
    def established(self) -> bool:
        """Whether the handshake is done."""
        return self._channel.established

    # Receiving

    def receive_data(self, data: bytes) -> list[Event]:
        """Take bytes as they arrived, in any pieces, and return what happened, in order.

        Raises:
            PeerFault: the peer broke a rule.
        """
        events: list[Event] = []
        plaintexts = self._channel.receive(data)
        if not self._announced and self._channel.established and self._channel.peer is not None:
            self._announced = True
            events.append(HandshakeCompleted(self._channel.peer))
        for plaintext in plaintexts:
            for frame in frames.split(plaintext):
                self._receive_frame(frame, events)
        return events

    def _receive_frame(self, frame: Frame, events: list[Event]) -> None:
        if frame.type is FrameType.CONTROL:
            events.append(MessageReceived(frame.payload, 0, control=True))
        elif frame.stream == 0:
            self._receive_on_0(frame, events)
        else:
            state = self._streams.opened_by_peer(frame.stream)
            # A stream that we reset stays in the table until the RESET is on its way, so that both sides
            # count the same streams as open; what still arrives on it is dropped.
            if state is not None and (frame.type is FrameType.RESET or frame.stream not in self._resets):
                self._receive_on_stream(frame, state, events)

    def _receive_on_0(self, frame: Frame, events: list[Event]) -> None:
        if frame.type is FrameType.CREDIT:
            self._messages.allow(frames.credit_amount(frame))
            return
        self._window.receive(len(frame.payload))
        for data, charge in self._inbox.receive(frame.payload):
            events.append(MessageReceived(data, charge))
        self._prepay()

    def _receive_on_stream(self, frame: Frame, state: StreamState, events: list[Event]) -> None:
        stream = frame.stream
        match frame.type:
            case FrameType.DATA:
                if state.received_end:
                    raise BadFrame("bytes after END")
                state.window.receive(len(frame.payload))
                events.append(StreamData(stream, frame.payload))
            case FrameType.END:
                if state.received_end:
                    raise BadFrame("END after END")
                state.received_end = True
                events.append(StreamEnded(stream))
                self._close_if_done(stream, state)
            case FrameType.RESET:
                if stream not in self._resets:
                    events.append(StreamReset(stream, frames.reset_code(frame)))
                self._forget(stream)
            case FrameType.CREDIT:
                state.queue.allow(frames.credit_amount(frame))
                self._make_ready(stream, state)
            case FrameType.CONTROL:
                raise AssertionError("a CONTROL frame is never on a stream")
            case _:
                assert_never(frame.type)

    def consumed(self, stream: int, count: int) -> bool:
        """Say that the reader took ``count`` bytes of ``stream`` (of 0: a message's ``charge``).

        Credit is granted when enough has come together; returned is whether any waits to be sent. Of a stream
        that is closed, nothing happens.
        """
        if stream == 0:
            self._grant(0, self._window, count, min(self._growth, MAX_MESSAGE_WINDOW - self._window.size))
            self._inbox.handled(count)
            self._prepay()
        else:
            state = self._streams.of(stream)
            if state is not None and stream not in self._resets and not state.received_end:
                self._grant(stream, state.window, count, self._growth)
        return bool(self._credits)

    def _grant(self, stream: int, window: ReceiveWindow, count: int, growth: int) -> None:
        before = window.size
        amount = window.consume(count, growth)
        self._growth -= window.size - before
        if amount:
            self._credits[stream] = self._credits.get(stream, 0) + amount

    def _prepay(self) -> None:
        """Grant credit for the part of a long message that waits for its rest and blocks nobody else's."""
        part = self._inbox.prepayable()
        if part:
            # Nobody has read it yet: no reason to think that its reader keeps up.
            self._grant(0, self._window, part, growth=0)

    # Sending

    def send_message(self, message: Message) -> None:
        """Queue ``message``. Gossip is dropped (and counted) while half of the queue is full.

        Raises:
            SendQueueFull: the peer is not taking what we send.
        """
        data = codec.encode(message)
        if isinstance(message, _CONTROL_MESSAGES):
            if len(self._control) >= MAX_QUEUED_CONTROL:
                raise SendQueueFull(f"{MAX_QUEUED_CONTROL} pings and pongs wait to be sent")
            self._control.append(frames.header(FrameType.CONTROL, 0, len(data)) + data)
            return
        if isinstance(message, Gossip) and self.congested:
            self.gossip_dropped += 1
            return
        size = MESSAGE_LENGTH_BYTES + len(data)
        if len(self._messages) >= MAX_QUEUED_MESSAGES or self._messages.size + size > MAX_QUEUED_BYTES:
            raise SendQueueFull(f"{len(self._messages)} messages wait to be sent")
        self._messages.put(len(data).to_bytes(MESSAGE_LENGTH_BYTES, "big") + data)

    @property
    def congested(self) -> bool:
        """Whether half of the queue of messages is full."""
        queue = self._messages
        return len(queue) >= MAX_QUEUED_MESSAGES // 2 or queue.size >= MAX_QUEUED_BYTES // 2

    def open_stream(self) -> int:
        """Open a stream and return its id; the other side learns of it by the first frame, or a message.

        Raises:
            NoFreeStream: 64 of ours are open.
        """
        return self._streams.open()

    def expect_stream(self, stream: int) -> None:
        """Open a stream that the peer named in a message; its first frame may not be here yet.

        Raises:
            BadStream: the peer may not use this id.
            NoFreeStream: the stream is closed already.
        """
        if stream == 0:
            raise BadStream("stream 0 carries messages")
        if self._streams.opened_by_peer(stream) is None or stream in self._resets:
            raise NoFreeStream(f"stream {stream} is closed")

    def stream_room(self, stream: int) -> int:
        """Return how many bytes may be queued on ``stream`` now; 0 if it is closed."""
        state = self._streams.of(stream)
        if state is None or stream in self._resets or state.queue.ending:
            return 0
        return MAX_QUEUED_STREAM_BYTES - state.queue.size

    def stream_flushed(self, stream: int) -> bool:
        """Tell whether nothing of ``stream`` waits to be sent, END included; so of one that is closed."""
        state = self._streams.of(stream)
        return state is None or (state.queue.size == 0 and state.queue.ending == state.sent_end)

    def send_stream(self, stream: int, data: bytes) -> None:
        """Queue ``data``, at most ``stream_room`` bytes. It is not copied."""
        if len(data) > self.stream_room(stream):
            raise AssertionError(f"{len(data)} bytes on stream {stream}: no room")
        state = self._streams.of(stream)
        if state is not None:
            state.queue.put(data)
            self._make_ready(stream, state)

    def end_stream(self, stream: int) -> None:
        """Send no more on ``stream`` after what is queued. Of a stream that is closed, nothing happens."""
        state = self._streams.of(stream)
        if state is not None and stream not in self._resets:
            state.queue.ending = True
            self._make_ready(stream, state)

    def reset_stream(self, stream: int, code: ResetCode) -> None:
        """Give ``stream`` up in both directions. Of a stream that is closed, nothing happens."""
        if self._streams.of(stream) is not None:
            self._resets.setdefault(stream, code)

    def wants_to_send(self) -> bool:
        """Whether ``data_to_send`` would return anything."""
        if self._channel.buffered:
            return True
        if not self.established:
            return False
        return bool(self._control or self._credits or self._resets or self._messages.sendable or self._ready)

    def data_to_send(self, max_bytes: int) -> bytes:
        """Return bytes for the socket: stops after the transport message that reaches ``max_bytes``."""
        while self.established and self._channel.buffered < max_bytes:
            plaintext = self._next_plaintext()
            if not plaintext:
                break
            self._channel.send(plaintext)
        return self._channel.take()

    def _next_plaintext(self) -> bytes:
        parts: list[bytes | memoryview] = []
        room = self._take_control(parts, MAX_PLAINTEXT)
        # While streams wait, messages get half of each transport message: neither starves the other.
        share = MAX_FRAME_PAYLOAD // 2 if self._ready else MAX_FRAME_PAYLOAD
        room -= self._take_data(parts, 0, self._messages, min(room, share + FRAME_HEADER_BYTES))
        for _ in range(len(self._ready)):
            if room < _SMALLEST_PIECE:
                break
            stream = self._ready.popleft()
            state = self._streams.of(stream)
            if state is None or stream in self._resets:
                continue
            room -= self._take_data(parts, stream, state.queue, room)
            if state.queue.at_end:
                if room >= FRAME_HEADER_BYTES:
                    parts.append(frames.header(FrameType.END, stream, 0))
                    room -= FRAME_HEADER_BYTES
                    state.sent_end = True
                    self._close_if_done(stream, state)
                else:
                    self._ready.append(stream)
            else:
                self._make_ready(stream, state)
        return b"".join(parts)

    def _take_control(self, parts: list[bytes | memoryview], room: int) -> int:
        """Move frames outside credit to ``parts`` and return the room that is left."""
        while self._resets and room >= frames.RESET_FRAME_BYTES:
            stream, code = self._resets.popitem()
            parts.append(frames.reset_frame(stream, code))
            room -= frames.RESET_FRAME_BYTES
            self._forget(stream)
        while self._credits and room >= frames.CREDIT_FRAME_BYTES:
            stream, amount = self._credits.popitem()
            if stream == 0 or self._streams.of(stream) is not None:
                parts.append(frames.credit_frame(stream, amount))
                room -= frames.CREDIT_FRAME_BYTES
        while self._control and room >= len(self._control[0]):
            room -= len(self._control[0])
            parts.append(self._control.popleft())
        return room

    def _take_data(self, parts: list[bytes | memoryview], stream: int, queue: SendQueue, room: int) -> int:
        """Move a DATA frame of up to ``room`` bytes to ``parts`` and return its size, or 0."""
        count = min(queue.sendable, room - FRAME_HEADER_BYTES)
        if count <= 0:
            return 0
        parts.append(frames.header(FrameType.DATA, stream, count))
        parts.extend(queue.take(count))
        return FRAME_HEADER_BYTES + count

    def _make_ready(self, stream: int, state: StreamState) -> None:
        if (state.queue.sendable or (state.queue.at_end and not state.sent_end)) and stream not in self._ready:
            self._ready.append(stream)

    def _close_if_done(self, stream: int, state: StreamState) -> None:
        if state.closed:
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        state = self._streams.close(stream)
        self._resets.pop(stream, None)
        self._credits.pop(stream, None)
        if state is not None:
            self._growth += state.window.size - INITIAL_WINDOW
