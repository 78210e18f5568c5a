"""pkt-lines: as git writes them, in pieces of any length, and nothing else."""

import io
import random

import pytest

from guts.git.pkt_line import MAX_PAYLOAD, BadPacket, Mark, Packet, Packets, encode, on_band, read_packet

SPOKEN: list[Packet] = [b"command=fetch\n", Mark.DELIMITER, b"", b"x" * MAX_PAYLOAD, Mark.RESPONSE_END, Mark.FLUSH]


def written(packets: list[Packet]) -> bytes:
    return b"".join(packet.value if isinstance(packet, Mark) else encode(packet) for packet in packets)


def test_packets_are_encoded_as_git_does() -> None:
    # gitprotocol-common(5): "0006a\n", "0005a", "000bfoobar\n", "0004".
    assert [encode(line) for line in (b"a\n", b"a", b"foobar\n", b"")] == [
        b"0006a\n",
        b"0005a",
        b"000bfoobar\n",
        b"0004",
    ]


def test_longest_packet_has_65520_bytes() -> None:
    assert len(encode(b"x" * MAX_PAYLOAD)) == 65_520
    with pytest.raises(ValueError, match="65517"):
        encode(b"x" * (MAX_PAYLOAD + 1))


def test_packets_come_out_whole_however_they_are_cut() -> None:
    rng, data, packets, found = random.Random(7), written(SPOKEN), Packets(), list[Packet]()
    while data:
        size = rng.choice((1, 2, 3, 5, 70_000))
        found += packets.receive_data(data[:size])
        data = data[size:]
    assert found == SPOKEN
    assert not packets.inside


def test_half_a_packet_is_inside() -> None:
    packets = Packets()
    assert packets.receive_data(b"0006a") == []
    assert packets.inside


@pytest.mark.parametrize("head", [b"0003", b"fff1", b"ffff", b"+004", b" 004", b"-001", b"0x10", b"zzzz", b"PACK"])
def test_what_is_no_length_is_refused(head: bytes) -> None:
    with pytest.raises(BadPacket):
        Packets().receive_data(head)
    with pytest.raises(BadPacket):
        read_packet(io.BytesIO(head).read)


def test_blocking_stream_is_read_packet_by_packet() -> None:
    stream = io.BytesIO(written(SPOKEN))
    assert [read_packet(stream.read) for _ in SPOKEN] == SPOKEN
    assert read_packet(stream.read) is None


@pytest.mark.parametrize("cut", [b"00", b"0006a"])
def test_stream_that_ends_inside_a_packet_is_refused(cut: bytes) -> None:
    with pytest.raises(BadPacket):
        read_packet(io.BytesIO(cut).read)


def test_bands_are_cut_to_the_longest_packet() -> None:
    data = b"x" * (2 * MAX_PAYLOAD)
    found = Packets().receive_data(b"".join(on_band(1, data)))
    assert all(isinstance(packet, bytes) and packet[0] == 1 for packet in found)
    assert b"".join(packet[1:] for packet in found if isinstance(packet, bytes)) == data
    assert len(found) == 3
