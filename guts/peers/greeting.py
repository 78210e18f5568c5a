"""The hello: what this node says of itself, and which of two connections to one peer stays."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from guts.clock import Now
from guts.errors import PeerFault
from guts.ids import PeerId
from guts.peers.state import PeerConnection
from guts.records import InvalidRecord, PeerRecord
from guts.wire.limits import PROTOCOL_VERSION
from guts.wire.messages import Hello, HelloAck
from guts.wire.secure import Direction


class UnexpectedMessage(PeerFault):
    """A message came that no state of the connection allows."""

    code: ClassVar[str] = "UNEXPECTED_MESSAGE"


@dataclass(frozen=True, slots=True)
class Self:
    """What this node says of itself in its hello.

    Attributes:
        start_nonce: 8 random bytes, drawn once per process.
    """

    peer: PeerId
    software: str
    capabilities: tuple[str, ...]
    start_nonce: bytes

    def hello(self, peer_record: bytes, now: Now) -> Hello:
        """Return the dialler's first message."""
        version = PROTOCOL_VERSION
        return Hello(version, version, self.software, self.capabilities, peer_record, now.wall, self.start_nonce)

    def ack(self, peer_record: bytes, now: Now) -> HelloAck:
        """Return the answer to a Hello."""
        return HelloAck(PROTOCOL_VERSION, self.software, self.capabilities, peer_record, now.wall, self.start_nonce)

    def replaces(self, new: PeerConnection, old: PeerConnection) -> bool:
        """Tell whether ``new`` takes the place of ``old`` to the same peer (docs/protocol.md §4).

        Of two that one side dialled, the one that was dialled decides: it keeps the older one, and answers a Hello
        on another with Goodbye. So a HelloAck on a second one means that the other side lost the first.
        """
        if new.start_nonce != old.start_nonce:
            return True
        if new.direction is old.direction:
            return new.direction is Direction.OUTBOUND
        return (new.direction is Direction.OUTBOUND) == (self.peer < new.peer)


def introduce(connection: PeerConnection, hello: Hello | HelloAck, now: Now) -> PeerRecord:
    """Note what the peer says of itself, and return its record.

    Raises:
        PeerFault: the record is invalid, or another node's.
    """
    # Its time is not looked at: it came from the node itself, just now, and clocks differ.
    record = PeerRecord.decode(hello.peer_record)
    if record.peer != connection.peer:
        raise InvalidRecord("the hello carries another node's record")
    connection.start_nonce = hello.start_nonce
    connection.software = hello.software
    connection.clock_at_zero = hello.time_ms - int(now.mono * 1000)
    return record


def clock_offset(chosen: Iterable[PeerConnection], now: Now) -> int | None:
    """Return by how many milliseconds the clocks of ``chosen`` peers are ahead, the median; ``None``: of nobody.

    Args:
        chosen: ready connections that this node dialled of its own accord, one of each network: whoever dials us, or
            has himself dialled, could otherwise outvote them.
    """
    offsets = [connection.clock_at_zero + int(now.mono * 1000) - now.wall for connection in chosen]
    return statistics.median_low(offsets) if offsets else None
