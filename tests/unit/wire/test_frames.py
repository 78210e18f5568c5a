"""Frames: the bytes of docs/protocol.md §3, and everything that is not one."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.errors import PeerFault
from guts.wire import frames
from guts.wire.frames import BadFrame, Frame, FrameType
from guts.wire.limits import MAX_FRAME_PAYLOAD, MAX_PLAINTEXT, MAX_STREAM_ID, MAX_WINDOW

DATA, END, RESET, CREDIT, CONTROL = FrameType


def raw(kind: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BIH", kind, stream, len(payload) if length is None else length) + payload


def test_frames_are_the_bytes_of_the_protocol_page() -> None:
    assert frames.header(DATA, 5, 258) == bytes.fromhex("00000000050102")
    assert frames.header(END, 0x01020304, 0) == bytes.fromhex("01010203040000")
    assert frames.reset_frame(2, 4) == bytes.fromhex("020000000200020004")
    assert frames.credit_frame(0, 65_536) == bytes.fromhex("0300000000000400010000")
    assert frames.header(CONTROL, 0, 3) == bytes.fromhex("04000000000003")
    assert (frames.RESET_FRAME_BYTES, frames.CREDIT_FRAME_BYTES) == (9, 11)


def test_split_yields_the_frames_of_a_plaintext() -> None:
    plaintext = raw(0, 0, b"message") + raw(0, 7, b"x") + raw(1, 7, b"") + frames.reset_frame(2, 3)
    plaintext += frames.credit_frame(0, 9) + raw(4, 0, b"ping")
    got = list(frames.split(plaintext))
    assert got == [
        Frame(DATA, 0, b"message"),
        Frame(DATA, 7, b"x"),
        Frame(END, 7, b""),
        Frame(RESET, 2, b"\0\3"),
        Frame(CREDIT, 0, b"\0\0\0\x09"),
        Frame(CONTROL, 0, b"ping"),
    ]
    assert frames.reset_code(got[3]) == 3
    assert frames.credit_amount(got[4]) == 9


def test_split_takes_the_largest_frame() -> None:
    plaintext = raw(0, MAX_STREAM_ID, bytes(MAX_FRAME_PAYLOAD))
    assert len(plaintext) == MAX_PLAINTEXT == 65_519
    [frame] = frames.split(plaintext)
    assert (frame.stream, len(frame.payload)) == (MAX_STREAM_ID, 65_512)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        *[raw(0, 1, b"x")[:cut] for cut in range(1, 8)],
        raw(0, 1, b"x") + b"\0",
        raw(0, 1, b""),  # DATA carries at least a byte
        raw(1, 1, b"x"),
        raw(1, 0, b""),  # END and RESET are not on stream 0
        raw(2, 0, b"\0\0"),
        raw(2, 1, b"\0"),
        raw(2, 1, b"\0\0\0"),
        raw(3, 1, b"\0\0\1"),
        raw(3, 1, b"\0\0\0\0\1"),
        raw(4, 0, b""),
        raw(4, 1, b"ping"),  # CONTROL is on stream 0
        raw(5, 0, b"x"),
        raw(255, 0, b"x"),
    ],
)
def test_split_refuses_what_is_no_sequence_of_frames(plaintext: bytes) -> None:
    with pytest.raises(BadFrame):
        list(frames.split(plaintext))
    with pytest.raises(BadFrame):
        list(frames.split(raw(0, 1, b"good") + plaintext + (b"" if plaintext else b"\0")))


@pytest.mark.parametrize(
    "length", [2, 3, 127, 128, 255, 256, 1023, 4096, 16_384, 32_767, 32_768, 65_511, 65_512, 65_513, 65_535]
)
def test_split_allocates_nothing_for_a_length_that_lies(length: int) -> None:
    plaintext = raw(0, 1, b"x", length)
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame):
            list(frames.split(plaintext))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8192


def test_credit_is_at_least_one_byte_and_at_most_a_window() -> None:
    for amount in (1, MAX_WINDOW):
        assert frames.credit_amount(next(frames.split(frames.credit_frame(1, amount)))) == amount
    for amount in (0, MAX_WINDOW + 1, 2**32 - 1):
        with pytest.raises(BadFrame):
            frames.credit_amount(next(frames.split(frames.credit_frame(1, amount))))


@pytest.mark.parametrize(("stream", "length"), [(-1, 0), (MAX_STREAM_ID + 1, 0), (1, -1), (1, 65_513)])
def test_header_of_an_impossible_frame_is_a_bug(stream: int, length: int) -> None:
    with pytest.raises(AssertionError):
        frames.header(DATA, stream, length)


@given(st.binary(max_size=200))
def test_split_only_ever_raises_peer_faults(plaintext: bytes) -> None:
    try:
        got = list(frames.split(plaintext))
    except PeerFault:
        return
    assert b"".join(raw(f.type, f.stream, f.payload) for f in got) == plaintext
