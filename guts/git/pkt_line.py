"""pkt-lines and side-bands, as git speaks them (gitprotocol-common(5), gitprotocol-pack(5)). Sans-IO.

A packet is its payload, or a ``Mark``. ``Packets`` takes bytes as they come; ``read_packet`` reads a blocking stream.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import ClassVar, Final

from guts.errors import PeerFault

LENGTH_BYTES: Final = 4
MAX_PAYLOAD: Final = 65_516
"""What git puts into one pkt-line at the most (``LARGE_PACKET_DATA_MAX``)."""

PACK_BAND: Final = 1
PROGRESS_BAND: Final = 2
ERROR_BAND: Final = 3


class Mark(Enum):
    """The packets without a payload."""

    FLUSH = b"0000"
    DELIMITER = b"0001"
    RESPONSE_END = b"0002"


Packet = bytes | Mark

_MARKS: Final = {0: Mark.FLUSH, 1: Mark.DELIMITER, 2: Mark.RESPONSE_END}


class BadPacket(PeerFault):
    """The bytes are no pkt-lines."""

    code: ClassVar[str] = "BAD_PKT_LINE"


def encode(payload: bytes) -> bytes:
    """Return the pkt-line of ``payload``, of at most ``MAX_PAYLOAD`` bytes. Raises: ``ValueError``: more."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a pkt-line of {len(payload)} bytes where {MAX_PAYLOAD} are allowed")
    return b"%04x%b" % (len(payload) + LENGTH_BYTES, payload)


def on_band(band: int, data: bytes) -> Iterator[bytes]:
    """Yield ``data`` as pkt-lines of a side-band (1: pack, 2: progress, 3: error)."""
    room = MAX_PAYLOAD - 1
    for start in range(0, len(data), room):
        yield encode(bytes((band,)) + data[start : start + room])


class Packets:
    """Takes bytes in pieces of any length and gives packets; holds less than one packet back."""

    def __init__(self) -> None:
        self._rest = b""

    def receive_data(self, data: bytes) -> list[Packet]:
        """Return the packets that ``data`` completes. Raises: ``BadPacket``."""
        data = self._rest + data
        packets: list[Packet] = []
        start = 0
        while len(data) - start >= LENGTH_BYTES:
            length = _length(data[start : start + LENGTH_BYTES])
            if length in _MARKS:
                packets.append(_MARKS[length])
                start += LENGTH_BYTES
                continue
            if len(data) - start < length:
                break
            packets.append(data[start + LENGTH_BYTES : start + length])
            start += length
        self._rest = data[start:]
        return packets

    @property
    def inside(self) -> bool:
        """Tell whether the bytes so far end in the middle of a packet."""
        return bool(self._rest)


def read_packet(read: Callable[[int], bytes]) -> Packet | None:
    """Return the next packet of a blocking stream, ``None`` at its end; ``read(n)`` gives n bytes, or what is left.

    Raises:
        BadPacket: no pkt-line, or the stream ends inside of one.
    """
    head = read(LENGTH_BYTES)
    if not head:
        return None
    length = _length(head)
    if length in _MARKS:
        return _MARKS[length]
    payload = read(length - LENGTH_BYTES)
    if len(payload) != length - LENGTH_BYTES:
        raise BadPacket("the stream ends inside of a packet")
    return payload


def _length(head: bytes) -> int:
    try:
        # Four digits and nothing else: int() would take "0x10" and " 1f", fromhex() skips blanks.
        length = int.from_bytes(bytes.fromhex(head.decode())) if head.isalnum() and len(head) == LENGTH_BYTES else -1
    except ValueError:
        length = -1
    if length in _MARKS or LENGTH_BYTES <= length <= MAX_PAYLOAD + LENGTH_BYTES:
        return length
    raise BadPacket(f"{head!r} is not the length of a packet")
