"""Frames: what the plaintext of a transport message is made of (docs/protocol.md §3).

A frame is a header of seven bytes and a payload; a plaintext holds one or more whole frames.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import ClassVar, Final, final

from guts.errors import PeerFault
from guts.wire.limits import FRAME_HEADER_BYTES, MAX_FRAME_PAYLOAD, MAX_STREAM_ID, MAX_WINDOW

_HEADER: Final = struct.Struct(">BIH")
_RESET: Final = struct.Struct(">H")
_CREDIT: Final = struct.Struct(">I")

RESET_FRAME_BYTES: Final = FRAME_HEADER_BYTES + _RESET.size
CREDIT_FRAME_BYTES: Final = FRAME_HEADER_BYTES + _CREDIT.size


@unique
class FrameType(IntEnum):
    """What a frame does to its stream."""

    DATA = 0
    END = 1
    RESET = 2
    CREDIT = 3
    CONTROL = 4


class BadFrame(PeerFault):
    """A plaintext is not a sequence of frames, or a frame breaks the rules of its stream."""

    code: ClassVar[str] = "BAD_FRAME"


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was received.

    Attributes:
        stream: 0 for messages.
        payload: its length fits its type.
    """

    type: FrameType
    stream: int
    payload: bytes


def header(kind: FrameType, stream: int, length: int) -> bytes:
    """Return the seven bytes in front of a payload of ``length`` bytes (0..65,512)."""
    if not 0 <= stream <= MAX_STREAM_ID or not 0 <= length <= MAX_FRAME_PAYLOAD:
        raise AssertionError(f"no frame has stream {stream} and {length} bytes")
    return _HEADER.pack(kind, stream, length)


def reset_frame(stream: int, code: int) -> bytes:
    """Return the frame that kills ``stream``."""
    return header(FrameType.RESET, stream, _RESET.size) + _RESET.pack(code)


def credit_frame(stream: int, amount: int) -> bytes:
    """Return the frame that allows ``amount`` (1..16 MiB) more bytes on ``stream``."""
    return header(FrameType.CREDIT, stream, _CREDIT.size) + _CREDIT.pack(amount)


def reset_code(frame: Frame) -> int:
    """Return the code of a RESET frame, 0..65,535; later versions may add codes."""
    code: int = _RESET.unpack(frame.payload)[0]
    return code


def credit_amount(frame: Frame) -> int:
    """Return the number in a CREDIT frame.

    Raises:
        BadFrame: none, or more than any window.
    """
    amount: int = _CREDIT.unpack(frame.payload)[0]
    if not 1 <= amount <= MAX_WINDOW:
        raise BadFrame(f"credit of {amount} bytes")
    return amount


def split(plaintext: bytes) -> Iterator[Frame]:
    """Yield the frames of ``plaintext``.

    Raises:
        BadFrame: none, one that is cut short, of an unknown type, or whose payload does not fit its type.
    """
    end = len(plaintext)
    if end == 0:
        raise BadFrame("a transport message without frames")
    at = 0
    while at < end:
        if end - at < FRAME_HEADER_BYTES:
            raise BadFrame("a frame's header is cut short")
        number, stream, length = _HEADER.unpack_from(plaintext, at)
        at += FRAME_HEADER_BYTES
        if end - at < length:
            raise BadFrame(f"a frame of {length} bytes where {end - at} are left")
        if number not in _PAYLOAD_BYTES:
            raise BadFrame(f"a frame of the unknown type {number}")
        kind = FrameType(number)
        low, high = _PAYLOAD_BYTES[kind]
        if not low <= length <= high:
            raise BadFrame(f"a frame {kind.name} of {length} bytes")
        if (stream == 0 and kind in _NEVER_ON_0) or (stream != 0 and kind is FrameType.CONTROL):
            raise BadFrame(f"a frame {kind.name} on stream {stream}")
        yield Frame(kind, stream, plaintext[at : at + length])
        at += length


_PAYLOAD_BYTES: Final[dict[int, tuple[int, int]]] = {
    FrameType.DATA: (1, MAX_FRAME_PAYLOAD),
    FrameType.END: (0, 0),
    FrameType.RESET: (_RESET.size, _RESET.size),
    FrameType.CREDIT: (_CREDIT.size, _CREDIT.size),
    FrameType.CONTROL: (1, MAX_FRAME_PAYLOAD),
}
_NEVER_ON_0: Final = (FrameType.END, FrameType.RESET)
