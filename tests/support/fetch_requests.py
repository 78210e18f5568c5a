"""Requests of git's protocol v2 made by hand, and what is in the answers."""

from dataclasses import dataclass, field

from guts.git.pkt_line import ERROR_BAND, PACK_BAND, PROGRESS_BAND, Mark, Packets, encode
from guts.ids import ObjectId


def fetch_request(*arguments: str, command: str = "fetch") -> bytes:
    """Return one request with ``arguments``."""
    head = [f"command={command}\n", "agent=git/2.39.5\n", "object-format=sha1\n"]
    lines = [encode(line.encode()) for line in head] + [Mark.DELIMITER.value]
    return b"".join(lines + [encode(f"{argument}\n".encode()) for argument in arguments]) + Mark.FLUSH.value


def done(*wants: ObjectId, haves: tuple[ObjectId, ...] = ()) -> bytes:
    """Return the request for a pack with ``wants``, without a further word."""
    return fetch_request(
        "thin-pack", "ofs-delta", *(f"want {oid}" for oid in wants), *(f"have {oid}" for oid in haves), "done"
    )


@dataclass
class Response:
    """What an answer says.

    Attributes:
        header: the packets before the pack, marks as their names.
        whole: it ended with a flush.
    """

    header: list[str] = field(default_factory=list)
    pack: bytes = b""
    progress: bytes = b""
    error: bytes = b""
    whole: bool = False


def response(data: bytes) -> Response:
    """Return what is in ``data``."""
    packets = Packets()
    answer, banded = Response(), False
    for packet in packets.receive_data(data):
        answer.whole = packet is Mark.FLUSH
        if isinstance(packet, Mark):
            answer.header.append(packet.name)
        elif not banded:
            answer.header.append(packet.decode().rstrip("\n"))
            banded = packet == b"packfile\n"
        elif packet[0] == PACK_BAND:
            answer.pack += packet[1:]
        elif packet[0] == PROGRESS_BAND:
            answer.progress += packet[1:]
        else:
            assert packet[0] == ERROR_BAND
            answer.error += packet[1:]
    assert not packets.inside
    return answer
