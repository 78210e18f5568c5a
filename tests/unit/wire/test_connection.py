"""Connections in pairs, over real secure channels: everything one queues comes out at the other."""

import contextlib
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts.errors import PeerFault
from guts.wire import frames
from guts.wire.codec import BadMessage, UnknownMessage, encode
from guts.wire.connection import (
    MAX_GROWTH,
    MAX_MESSAGE_WINDOW,
    MAX_QUEUED_BYTES,
    MAX_QUEUED_CONTROL,
    MAX_QUEUED_MESSAGES,
    MAX_QUEUED_STREAM_BYTES,
    Connection,
    Event,
    HandshakeCompleted,
    MessageReceived,
    SendQueueFull,
    StreamData,
    StreamEnded,
    StreamReset,
)
from guts.wire.frames import BadFrame, FrameType
from guts.wire.limits import INITIAL_WINDOW, KIB, MAX_OPEN_STREAMS, MIB
from guts.wire.messages import (
    EncodedRefs,
    Error,
    ErrorCode,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Message,
    Ping,
    Pong,
    Refs,
    RefsAnswer,
    RefsStatus,
    ResetCode,
)
from guts.wire.secure import SecureChannel
from guts.wire.streams import BadStream, CreditExceeded, NoFreeStream
from tests.support import channels
from tests.support.messages import EXAMPLES, REPOSITORY

WRITE = 128 * KIB
BIG_REFS = Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (), (), (EncodedRefs(b"h", b"e" * 4 * MIB),)),))


class Side:
    """One end: a Connection, and what came out of it; it consumes at once unless told not to."""

    def __init__(self, channel: SecureChannel) -> None:
        self.channel = channel
        self.connection = Connection(channel)
        self.events: list[Event] = []
        self.reads = True

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self.events.append(event)
            if self.reads:
                match event:
                    case MessageReceived(_, charge):
                        event.decode()
                        self.connection.consumed(0, charge)
                    case StreamData(stream, piece):
                        self.connection.consumed(stream, len(piece))
                    case _:
                        pass

    def messages(self) -> list[Message | UnknownMessage]:
        return [event.decode() for event in self.events if isinstance(event, MessageReceived)]

    def bytes_of(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, StreamData) and e.stream == stream)

    def inject(self, plaintext: bytes) -> None:
        """Take ``plaintext`` as if the other side had sent it."""
        self.other.channel.send(plaintext)
        self.receive(self.other.channel.take())

    other: "Side"


def pair() -> tuple[Side, Side]:
    a, b = (Side(channel) for channel in channels.connected())
    a.other, b.other = b, a
    for side in (a, b):
        side.receive(b"")
        assert side.events.pop() == HandshakeCompleted((channels.BOB if side is a else channels.ALICE).peer_id)
    return a, b


def pump(a: Side, b: Side, chunk: Callable[[], int] = lambda: WRITE) -> None:
    """Carry bytes both ways until nobody has any to send."""
    while a.connection.wants_to_send() or b.connection.wants_to_send():
        for sender, receiver in ((a, b), (b, a)):
            data = sender.connection.data_to_send(WRITE)
            at = 0
            while at < len(data):
                size = chunk()
                receiver.receive(data[at : at + size])
                at += size


def data_frame(stream: int, payload: bytes) -> bytes:
    return frames.header(FrameType.DATA, stream, len(payload)) + payload


def prefixed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


# Messages


def test_connection_establishes_and_says_who_is_there() -> None:
    a, b = Side(channels.dialler(expected=channels.BOB.peer_id)), Side(channels.listener())
    assert not a.connection.established
    pump(a, b)
    assert a.events == [HandshakeCompleted(channels.BOB.peer_id)]
    assert b.events == [HandshakeCompleted(channels.ALICE.peer_id)]
    assert a.connection.established


def test_connection_establishes_byte_by_byte_with_messages_right_behind() -> None:
    a, b = Side(channels.dialler()), Side(channels.listener())
    a.connection.send_message(Ping(1))
    b.connection.send_message(Pong(2))
    pump(a, b, lambda: 1)
    assert a.events == [HandshakeCompleted(channels.BOB.peer_id), MessageReceived(encode(Pong(2)), 0, control=True)]
    assert b.events == [HandshakeCompleted(channels.ALICE.peer_id), MessageReceived(encode(Ping(1)), 0, control=True)]


@pytest.mark.parametrize("seed", range(4))
def test_connection_carries_every_message_in_order_in_any_pieces(seed: int) -> None:
    rng = random.Random(seed)
    a, b = pair()
    control = (Ping, Pong, Goodbye)
    sent = list(EXAMPLES.values()) * 3
    rng.shuffle(sent)
    for message in sent:
        a.connection.send_message(message)
    pump(a, b, lambda: rng.choice((1, 2, 7, 100, 5000)))
    got = b.messages()
    assert [m for m in got if isinstance(m, control)] == [m for m in sent if isinstance(m, control)]
    assert [m for m in got if not isinstance(m, control)] == [m for m in sent if not isinstance(m, control)]


def test_connection_carries_a_refs_longer_than_the_window() -> None:
    a, b = pair()
    a.connection.send_message(BIG_REFS)
    a.connection.send_message(Error(0, ErrorCode.BUSY))
    pump(a, b)
    assert b.messages() == [BIG_REFS, Error(0, ErrorCode.BUSY)]


def test_connection_holds_one_refs_and_a_window_when_nobody_handles_messages() -> None:
    a, b = pair()
    b.reads = False
    a.connection.send_message(BIG_REFS)
    pump(a, b)
    assert b.messages() == [BIG_REFS]
    waiting = 0
    while not a.connection.congested:
        a.connection.send_message(BIG_REFS)
        waiting += 1
        pump(a, b)
    assert b.messages() == [BIG_REFS]
    b.reads = True
    [first] = b.events
    assert isinstance(first, MessageReceived)
    b.connection.consumed(0, first.charge)
    pump(a, b)
    assert b.messages() == [BIG_REFS] * (1 + waiting)


def test_connection_hands_on_messages_of_unknown_type() -> None:
    a, b = pair()
    b.inject(data_frame(0, prefixed(b"\x92\x63\x07")))
    [message] = b.messages()
    assert isinstance(message, UnknownMessage)
    assert message.type == 99
    b.connection.send_message(Error(0, ErrorCode.UNSUPPORTED))
    pump(a, b)
    assert a.messages() == [Error(0, ErrorCode.UNSUPPORTED)]


def test_connection_refuses_control_messages_on_stream_0_and_others_in_control_frames() -> None:
    for message in (Ping(1), Pong(1), Goodbye(GoodbyeCode.IDLE)):
        _, b = pair()
        with pytest.raises(BadMessage, match="outside a CONTROL"):
            b.inject(data_frame(0, prefixed(encode(message))))
    for data in (encode(Error(0, ErrorCode.BUSY)), b"\x92\x63\x07"):
        _, b = pair()
        with pytest.raises(BadMessage, match="in a CONTROL"):
            b.inject(frames.header(FrameType.CONTROL, 0, len(data)) + data)


# Limits of what waits to be sent


def test_connection_queues_256_messages_and_not_257() -> None:
    a, _ = pair()
    for _ in range(MAX_QUEUED_MESSAGES):
        a.connection.send_message(Error(0, ErrorCode.BUSY))
    with pytest.raises(SendQueueFull):
        a.connection.send_message(Error(0, ErrorCode.BUSY))


def test_connection_queues_8_mib_of_messages_and_not_more() -> None:
    def refs(size: int) -> Refs:
        return Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (), (), (EncodedRefs(b"h", b"e" * size),)),))

    size = 4 * MIB - 4 - (len(encode(refs(4_000_000))) - 4_000_000)
    a, _ = pair()
    a.connection.send_message(refs(size))
    a.connection.send_message(refs(size))
    with pytest.raises(SendQueueFull):
        a.connection.send_message(Error(0, ErrorCode.BUSY))
    b, _ = pair()
    b.connection.send_message(refs(size))
    with pytest.raises(SendQueueFull):
        b.connection.send_message(refs(size + 1))
    assert MAX_QUEUED_BYTES == 8 * MIB


def test_connection_queues_64_pings_and_not_65() -> None:
    a, b = pair()
    for n in range(MAX_QUEUED_CONTROL):
        a.connection.send_message(Ping(n))
    with pytest.raises(SendQueueFull):
        a.connection.send_message(Ping(64))
    pump(a, b)
    assert b.messages() == [Ping(n) for n in range(MAX_QUEUED_CONTROL)]


def test_connection_drops_gossip_first() -> None:
    a, b = pair()
    for _ in range(MAX_QUEUED_MESSAGES // 2 - 1):
        a.connection.send_message(Error(0, ErrorCode.BUSY))
    a.connection.send_message(Gossip("repositories", b"kept"))
    a.connection.send_message(Gossip("repositories", b"dropped"))
    a.connection.send_message(Error(1, ErrorCode.BUSY))
    pump(a, b)
    assert [m for m in b.messages() if isinstance(m, Gossip)] == [Gossip("repositories", b"kept")]
    assert b.messages()[-1] == Error(1, ErrorCode.BUSY)
    assert a.connection.gossip_dropped == 1


def test_connection_takes_256_kib_on_a_stream_and_not_a_byte_more() -> None:
    a, _ = pair()
    stream = a.connection.open_stream()
    assert a.connection.stream_room(stream) == MAX_QUEUED_STREAM_BYTES
    a.connection.send_stream(stream, bytes(MAX_QUEUED_STREAM_BYTES))
    assert a.connection.stream_room(stream) == 0
    with pytest.raises(AssertionError):
        a.connection.send_stream(stream, b"x")


# Streams


@pytest.mark.parametrize("seed", range(4))
def test_connection_carries_streams_both_ways_in_any_pieces(seed: int) -> None:
    rng = random.Random(seed)
    a, b = pair()
    sent: dict[int, bytes] = {}
    for side in (a, b):
        for _ in range(5):
            stream = side.connection.open_stream()
            sent[stream] = rng.randbytes(rng.choice((0, 1, 1000, 65_512, 65_513, 200_000)))
            side.connection.send_stream(stream, sent[stream])
            side.connection.end_stream(stream)
    pump(a, b, lambda: rng.randint(1, 70_000))
    for stream, data in sent.items():
        receiver = b if stream % 2 else a
        assert receiver.bytes_of(stream) == data
        assert receiver.events.count(StreamEnded(stream)) == 1


def test_connection_moves_megabytes_through_windows_that_grow() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    piece = bytes(range(256)) * 1024
    for _ in range(80):
        a.connection.send_stream(stream, piece)
        pump(a, b)
    assert b.bytes_of(stream) == piece * 80
    state = b.connection._streams.of(stream)
    assert state is not None
    assert state.window.size == 16 * MIB


def test_window_of_messages_grows_to_4_mib_and_not_further() -> None:
    a, b = pair()
    sizes = set()
    for number in range(600):
        a.connection.send_message(Refs(1 + number, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (b"d" * 50_000,)),)))
        pump(a, b)
        sizes.add(b.connection._window.size)
    assert sizes == {1 * MIB, 2 * MIB, MAX_MESSAGE_WINDOW}


def test_windows_of_a_connection_grow_by_32_mib_in_all() -> None:
    a, b = pair()
    streams = [a.connection.open_stream() for _ in range(4)]
    for _ in range(80):
        for stream in streams:
            a.connection.send_stream(stream, bytes(MAX_QUEUED_STREAM_BYTES))
        pump(a, b)
    states = [b.connection._streams.of(stream) for stream in streams]
    grown = sum(state.window.size - INITIAL_WINDOW for state in states if state is not None)
    assert 16 * MIB < grown <= MAX_GROWTH
    for stream in streams:
        a.connection.end_stream(stream)
        b.connection.end_stream(stream)
    pump(a, b)
    assert b.connection._growth == MAX_GROWTH


def test_connection_holds_a_stream_at_one_window_when_nobody_reads() -> None:
    a, b = pair()
    b.reads = False
    stream = a.connection.open_stream()
    for _ in range(8):
        a.connection.send_stream(stream, bytes(a.connection.stream_room(stream)))
        pump(a, b)
    assert len(b.bytes_of(stream)) == INITIAL_WINDOW
    assert a.connection.stream_room(stream) == 0
    b.connection.consumed(stream, INITIAL_WINDOW)
    pump(a, b)
    assert len(b.bytes_of(stream)) == INITIAL_WINDOW + MAX_QUEUED_STREAM_BYTES


def test_ping_and_gossip_pass_while_a_stream_is_saturated() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    a.connection.send_stream(stream, bytes(MAX_QUEUED_STREAM_BYTES))
    b.receive(a.connection.data_to_send(1))
    b.events.clear()
    a.connection.send_message(Gossip("repositories", b"news"))
    a.connection.send_message(Ping(1))
    b.receive(a.connection.data_to_send(1))
    assert b.messages() == [Ping(1), Gossip("repositories", b"news")]
    assert isinstance(b.events[-1], StreamData)
    assert a.connection.wants_to_send()


def test_messages_and_streams_share_each_transport_message() -> None:
    a, b = pair()
    streams = [a.connection.open_stream() for _ in range(3)]
    for stream in streams:
        a.connection.send_stream(stream, bytes(MAX_QUEUED_STREAM_BYTES))
    a.connection.send_message(BIG_REFS)
    order = []
    for _ in range(6):
        b.events.clear()
        b.receive(a.connection.data_to_send(1))
        order += [event.stream for event in b.events if isinstance(event, StreamData)]
    assert order == streams * 2  # a frame of a stream, in turn, beside each half of Refs


def test_streams_end_in_both_directions_and_then_late_frames_are_dropped() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    a.connection.end_stream(stream)
    pump(a, b)
    assert b.events == [StreamEnded(stream)]
    b.connection.send_stream(stream, b"answer")
    b.connection.end_stream(stream)
    pump(a, b)
    assert a.events == [StreamData(stream, b"answer"), StreamEnded(stream)]
    assert a.connection.stream_room(stream) == b.connection.stream_room(stream) == 0
    a.events.clear()
    for late in (data_frame(stream, b"late"), frames.credit_frame(stream, 5), frames.reset_frame(stream, 0)):
        a.inject(late)
        b.inject(late)
    assert a.events == []


@pytest.mark.parametrize("late", [data_frame(1, b"x"), frames.header(FrameType.END, 1, 0)])
def test_connection_refuses_anything_after_end(late: bytes) -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    a.connection.end_stream(stream)
    pump(a, b)
    with pytest.raises(BadFrame):
        b.inject(late)


def test_reset_kills_a_stream_on_both_sides() -> None:
    for resetter in (0, 1):
        sides = pair()
        a, b = sides
        stream = a.connection.open_stream()
        a.connection.send_stream(stream, bytes(100_000))
        b.connection.expect_stream(stream)
        b.connection.send_stream(stream, bytes(100_000))
        sides[resetter].connection.reset_stream(stream, ResetCode.REFUSED)
        assert sides[resetter].connection.stream_room(stream) == 0
        pump(a, b)
        assert sides[1 - resetter].events[-1] == StreamReset(stream, 3)
        assert StreamReset(stream, 3) not in sides[resetter].events
        assert not [e for e in sides[resetter].events if isinstance(e, StreamData)]
        for side in sides:
            assert side.connection.stream_room(stream) == 0
            side.connection.reset_stream(stream, ResetCode.CANCELLED)
            side.connection.end_stream(stream)
            side.connection.consumed(stream, 5)
            assert not side.connection.wants_to_send()


def test_both_sides_may_reset_at_once() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    a.connection.send_stream(stream, b"x")
    pump(a, b)
    a.connection.reset_stream(stream, ResetCode.CANCELLED)
    b.connection.reset_stream(stream, ResetCode.LIMIT)
    from_a, from_b = a.connection.data_to_send(WRITE), b.connection.data_to_send(WRITE)
    b.receive(from_a)
    a.receive(from_b)
    assert a.events == []
    assert b.events == [StreamData(stream, b"x")]


def test_a_reset_that_the_peer_was_first_with_is_not_sent() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    b.connection.expect_stream(stream)
    a.connection.reset_stream(stream, ResetCode.CANCELLED)
    b.connection.reset_stream(stream, ResetCode.LIMIT)
    b.receive(a.connection.data_to_send(WRITE))
    assert not b.connection.wants_to_send()
    assert b.events == []


def test_a_message_may_name_a_stream_before_its_first_byte_comes() -> None:
    a, b = pair()
    streams = [a.connection.open_stream() for _ in range(3)]
    b.connection.expect_stream(streams[1])
    b.connection.send_stream(streams[1], b"early answer")
    for stream in streams:
        a.connection.send_stream(stream, b"%d" % stream)
    pump(a, b)
    assert a.bytes_of(streams[1]) == b"early answer"
    assert [b.bytes_of(stream) for stream in streams] == [b"1", b"3", b"5"]


def test_a_message_can_not_name_a_stream_that_is_closed_or_not_the_peers() -> None:
    a, b = pair()
    stream = a.connection.open_stream()
    a.connection.send_stream(stream, b"x")
    a.connection.reset_stream(stream, ResetCode.CANCELLED)
    pump(a, b)
    with pytest.raises(NoFreeStream):
        b.connection.expect_stream(stream)
    b.connection.expect_stream(3)
    b.connection.reset_stream(3, ResetCode.REFUSED)
    with pytest.raises(NoFreeStream):
        b.connection.expect_stream(3)
    for wrong in (0, 2, 2**32 - 1):
        with pytest.raises(BadStream):
            b.connection.expect_stream(wrong)


def test_connection_has_64_streams_of_each_side_and_a_65th_is_a_fault() -> None:
    a, b = pair()
    for side in (a, b):
        for _ in range(MAX_OPEN_STREAMS):
            side.connection.send_stream(side.connection.open_stream(), b"x")
        with pytest.raises(NoFreeStream):
            side.connection.open_stream()
    pump(a, b)
    with pytest.raises(BadStream):
        b.inject(data_frame(129, b"x"))


def test_an_opener_that_resets_may_open_again_at_once() -> None:
    a, b = pair()
    for round_ in range(5):
        streams = [a.connection.open_stream() for _ in range(MAX_OPEN_STREAMS)]
        for stream in streams:
            a.connection.send_stream(stream, b"x")
        pump(a, b)
        for stream in streams[: 20 + round_]:
            b.connection.reset_stream(stream, ResetCode.LIMIT)
        for stream in streams:
            a.connection.reset_stream(stream, ResetCode.CANCELLED)
        data = a.connection.data_to_send(WRITE)
        stream = a.connection.open_stream()
        a.connection.send_stream(stream, b"next")
        b.receive(data)
        pump(a, b)
        assert b.bytes_of(stream) == b"next"
        a.connection.reset_stream(stream, ResetCode.CANCELLED)
        pump(a, b)


# A hostile peer


@pytest.mark.parametrize("stream", [0, 1])
def test_overrunning_credit_is_a_fault(stream: int) -> None:
    _, b = pair()
    b.reads = False
    # On stream 0: short messages that nobody handles; 64 frames of 16 KiB are a window.
    filler = (prefixed(encode(Error(0, ErrorCode.BUSY, "t" * 200))) * 5_000)[:INITIAL_WINDOW]
    for at in range(0, INITIAL_WINDOW, 16 * KIB):
        b.inject(data_frame(stream, filler[at : at + 16 * KIB]))
    with pytest.raises(CreditExceeded):
        b.inject(data_frame(stream, b"\0"))


@pytest.mark.parametrize("stream", [0, 1])
def test_too_much_credit_is_a_fault(stream: int) -> None:
    a, _ = pair()
    a.connection.open_stream()
    a.inject(frames.credit_frame(stream, 15 * MIB))
    with pytest.raises(CreditExceeded):
        a.inject(frames.credit_frame(stream, 1))


def test_a_stream_that_we_never_opened_is_a_fault() -> None:
    for frame in (data_frame(1, b"x"), frames.header(FrameType.END, 1, 0), frames.reset_frame(1, 0)):
        a, _ = pair()
        with pytest.raises(BadStream):
            a.inject(frame)


def test_an_empty_transport_message_is_a_fault() -> None:
    a, _ = pair()
    with pytest.raises(BadFrame):
        a.inject(b"")


def test_opening_and_resetting_without_end_leaves_nothing_behind() -> None:
    _, b = pair()
    for stream in range(1, 4001, 2):
        b.inject(data_frame(stream, b"x") + frames.reset_frame(stream, 0))
    assert not b.connection.wants_to_send()
    assert b.connection._streams._open == {}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 3, 4]),
            st.sampled_from([0, 1, 2, 3, 4, 130, 2**32 - 1]),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([prefixed(encode(m)) for m in EXAMPLES.values()]),
                st.sampled_from([encode(m) for m in EXAMPLES.values()]),
            ),
        ),
        max_size=12,
    )
)
def test_connection_only_ever_raises_peer_faults(
    received: list[tuple[int, int, bytes]],
) -> None:
    _a, b = pair()
    b.connection.open_stream()
    try:
        for kind, stream, payload in received:
            b.inject(struct.pack(">BIH", kind, stream, len(payload)) + payload)
            b.connection.data_to_send(WRITE)
    except PeerFault:
        return
    assert not b.connection.wants_to_send() or b.connection.data_to_send(WRITE)


@pytest.mark.parametrize("seed", range(3))
def test_connection_only_ever_raises_peer_faults_on_altered_bytes(seed: int) -> None:
    rng = random.Random(seed)
    a, b = pair()
    for message in EXAMPLES.values():
        a.connection.send_message(message)
    data = bytearray(a.connection.data_to_send(WRITE))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    before = len(b.events)
    with contextlib.suppress(PeerFault):
        b.receive(bytes(data))
    assert len(b.events) == before


def test_connection_decodes_a_message_only_when_it_is_its_turn() -> None:
    _, b = pair()
    b.reads = False
    b.inject(data_frame(0, prefixed(b"\x92\x03\xff") + prefixed(encode(Error(0, ErrorCode.BUSY)))))
    bad, good = b.events
    assert isinstance(bad, MessageReceived)
    assert isinstance(good, MessageReceived)
    assert good.decode() == Error(0, ErrorCode.BUSY)
    with pytest.raises(BadMessage):
        bad.decode()
