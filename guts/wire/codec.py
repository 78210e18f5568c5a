"""Bytes <-> messages: the canonical array ``[type, field…]`` (docs/protocol.md §4).

``_TYPES`` is the one table; it drives both directions. Decoding is bounded before it allocates: the length of
the whole by the message's type, everything inside by the message's list of fields (``fields.py``).
"""

from typing import ClassVar, Final

import msgpack

from guts import canonical
from guts.canonical import Bounds, Value
from guts.errors import PeerFault, Severity
from guts.wire import limits
from guts.wire.fields import Layout, Reader
from guts.wire.messages import (
    Error,
    GetObjects,
    GetPeers,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    Gossip,
    Graft,
    Hello,
    HelloAck,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    Peers,
    Ping,
    Pong,
    Prune,
    Receipt,
    Refs,
    Subscribe,
)

_TYPES: Final[dict[int, type[Message]]] = {
    1: Hello,
    2: HelloAck,
    3: Ping,
    4: Pong,
    5: GetRefs,
    6: Refs,
    7: GetObjects,
    8: Objects,
    9: NewCommit,
    10: NewRepository,
    11: Gossip,
    12: Subscribe,
    13: GetPeers,
    14: Peers,
    15: GitService,
    16: GetReceipt,
    17: Receipt,
    18: Goodbye,
    19: Error,
    20: NewProof,
    21: Prune,
    22: Graft,
}
_NUMBERS: Final[dict[type[Layout], int]] = {message: number for number, message in _TYPES.items()}
_MAX_BYTES: Final[dict[int, int]] = {
    _NUMBERS[Refs]: limits.MAX_REFS_BYTES,
    _NUMBERS[NewCommit]: limits.MAX_NEW_COMMIT_BYTES,
}
"""Messages whose largest size is not ``MAX_MESSAGE_BYTES``."""

_UNKNOWN_BOUNDS: Final = Bounds(limits.MAX_MESSAGE_BYTES)
_MAX_TYPE: Final = 0x7F
"""Type numbers are one byte of msgpack, so the first two bytes of a message tell its type."""


class BadMessage(PeerFault):
    """A message is malformed, too long, or has a field out of its range."""

    code: ClassVar[str] = "BAD_MESSAGE"


class UnknownMessage(PeerFault):
    """A well-formed message of a type this version does not know: answered with ``Error(unsupported)``.

    Attributes:
        type: the type number, 0..127.
    """

    code: ClassVar[str] = "UNKNOWN_MESSAGE"
    severity: ClassVar[Severity] = Severity.NETWORK

    def __init__(self, number: int) -> None:
        super().__init__(f"a message of the unknown type {number}")
        self.type = number


def encode(message: Message) -> bytes:
    """Return the canonical bytes of ``message``.

    Raises:
        ValueError: they would be longer than messages of this type may be; who fills the message sees to it
            that they are not.
    """
    number = _NUMBERS[type(message)]
    packed: list[Value] = [number, *message.packed()]
    data = canonical.encode(packed)
    if len(data) > max_bytes(number):
        raise ValueError(f"{type(message).__name__} has {len(data)} bytes, more than {max_bytes(number)}")
    return data


def decode(data: bytes) -> Message:
    """Return the message that ``data`` holds, whole and nothing after it.

    Raises:
        BadMessage, guts.canonical.NotCanonical: not a message.
        UnknownMessage: canonical, but of an unknown type.
    """
    number = type_of(data)
    if len(data) > max_bytes(number):
        raise BadMessage(f"{len(data)} bytes in a message of type {number}")
    layout = _TYPES.get(number)
    if layout is None:
        canonical.decode(data, _UNKNOWN_BOUNDS)
        raise UnknownMessage(number)
    try:
        message = _read(layout, Reader(data))
    # Unpacker raises ValueError and its children, and UnpackException where the bytes end too early.
    except (ValueError, msgpack.UnpackException) as error:
        raise BadMessage(f"not a {layout.__name__}: {error}") from None
    if encode(message) != data:  # also where bytes follow
        raise BadMessage(f"not the canonical encoding of a {layout.__name__}")
    return message


def _read(layout: type[Message], reader: Reader) -> Message:
    reader.array_of(1 + len(layout.FIELDS))
    reader.scalar()  # the type, already known
    return layout(*[field.read(reader) for field in layout.FIELDS])


def type_of(data: bytes | bytearray) -> int:
    """Return the type number of the message that ``data`` (at least its first two bytes) begins.

    Raises:
        BadMessage: no message begins so.
    """
    if len(data) < 2 or data[0] & 0xF0 != 0x90 or data[1] > _MAX_TYPE:
        raise BadMessage("not a list that begins with the number of a type")
    return data[1]


def max_bytes(number: int) -> int:
    """Return how long a message of type ``number`` may be."""
    return _MAX_BYTES.get(number, limits.MAX_MESSAGE_BYTES)
