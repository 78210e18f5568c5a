"""Stream 0: messages out of bytes in any pieces, and how long they may be."""

import random
import struct

import pytest

from guts.wire.codec import BadMessage, encode
from guts.wire.inbox import Inbox
from guts.wire.limits import MAX_MESSAGE_BYTES, MAX_REFS_BYTES
from guts.wire.messages import EncodedRefs, Refs, RefsAnswer, RefsStatus
from tests.support.messages import EXAMPLES, REPOSITORY

ENCODED = [encode(message) for message in EXAMPLES.values()]
REFS = encode(Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (), (), (EncodedRefs(b"h", b"e" * 3_000_000),)),)))


def prefixed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def test_inbox_returns_messages_whole_byte_by_byte_and_in_any_pieces() -> None:
    stream = b"".join(map(prefixed, ENCODED))
    whole = Inbox().receive(stream)
    assert [data for data, _ in whole] == ENCODED
    assert sum(charge for _, charge in whole) == len(stream)
    single = Inbox()
    got = [message for at in range(len(stream)) for message in single.receive(stream[at : at + 1])]
    assert got == whole
    for seed in range(20):
        rng = random.Random(seed)
        inbox, at, pieces = Inbox(), 0, []
        while at < len(stream):
            size = rng.randint(1, 300)
            pieces += inbox.receive(stream[at : at + size])
            at += size
        assert pieces == whole


def test_inbox_keeps_an_incomplete_message_to_itself() -> None:
    data = prefixed(ENCODED[0])
    inbox = Inbox()
    assert inbox.receive(data[:-1]) == []
    assert inbox.receive(data[-1:] + data[:3]) == [(ENCODED[0], len(data))]


@pytest.mark.parametrize("length", [0, 1, MAX_REFS_BYTES + 1, 2**31, 2**32 - 1])
def test_inbox_refuses_a_length_that_no_message_has_from_the_length_alone(length: int) -> None:
    with pytest.raises(BadMessage):
        Inbox().receive(struct.pack(">I", length))


def test_inbox_waits_for_64_kib_of_any_message_and_not_a_byte_more() -> None:
    assert Inbox().receive(struct.pack(">I", MAX_MESSAGE_BYTES) + b"\x92\x0b") == []
    inbox = Inbox()
    assert inbox.receive(struct.pack(">I", MAX_MESSAGE_BYTES + 1) + b"\x92") == []
    with pytest.raises(BadMessage):
        inbox.receive(b"\x0b")


def test_inbox_waits_for_the_longest_refs() -> None:
    assert Inbox().receive(struct.pack(">I", MAX_REFS_BYTES) + b"\x94\x06") == []
    with pytest.raises(BadMessage):
        Inbox().receive(struct.pack(">I", MAX_REFS_BYTES) + b"\x82\x06")


def test_inbox_prepays_long_messages_only() -> None:
    inbox = Inbox()
    inbox.receive(struct.pack(">I", MAX_MESSAGE_BYTES) + b"\x92\x0b" + bytes(60_000))
    assert inbox.prepayable() == 0


def test_inbox_prepays_each_byte_once() -> None:
    stream = prefixed(REFS)
    inbox = Inbox()
    assert inbox.receive(stream[:500_000]) == []
    assert inbox.prepayable() == 500_000
    assert inbox.prepayable() == 0
    inbox.receive(stream[500_000:900_000])
    assert inbox.prepayable() == 400_000
    [(data, charge)] = inbox.receive(stream[900_000:])
    assert data == REFS
    assert charge == len(stream) - 900_000


def test_inbox_prepays_nothing_while_a_complete_message_waits() -> None:
    stream = prefixed(REFS)
    inbox = Inbox()
    [(_, charge)] = inbox.receive(prefixed(ENCODED[0]) + stream[:500_000])
    assert inbox.prepayable() == 0
    inbox.handled(charge)
    assert inbox.prepayable() == 500_000
