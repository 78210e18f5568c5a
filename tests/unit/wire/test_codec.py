"""The codec: every message, both directions; hostile bytes."""

import contextlib
import json
import time
import tracemalloc

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guts import canonical
from guts.errors import PeerFault, Severity
from guts.ids import RepositoryId
from guts.wire import limits
from guts.wire.codec import BadMessage, UnknownMessage, decode, encode, max_bytes, type_of
from guts.wire.fields import Reader
from guts.wire.messages import (
    EncodedRefs,
    Error,
    ErrorCode,
    Gossip,
    Message,
    NewCommit,
    Ping,
    Refs,
    RefsAnswer,
    RefsStatus,
    Subscribe,
)
from tests.support.bombs import bombs
from tests.support.messages import AUTHOR, EXAMPLES, HASH, MESSAGES, REPOSITORY
from tests.vectors import make_messages

each_example = pytest.mark.parametrize("message", EXAMPLES.values(), ids=EXAMPLES.keys())


def test_committed_vectors_are_what_the_codec_writes() -> None:
    assert make_messages.PATH.read_text() == make_messages.text()


def test_committed_vectors_decode() -> None:
    vectors = json.loads(make_messages.PATH.read_text())
    for vector in vectors:
        assert decode(bytes.fromhex(vector["hex"])) == EXAMPLES[vector["name"]]
    assert {vector["message"] for vector in vectors} == {
        "Hello",
        "HelloAck",
        "Ping",
        "Pong",
        "GetRefs",
        "Refs",
        "GetObjects",
        "Objects",
        "GitService",
        "GetReceipt",
        "Receipt",
        "GetPeers",
        "Peers",
        "NewCommit",
        "NewRepository",
        "NewProof",
        "Prune",
        "Graft",
        "Gossip",
        "Subscribe",
        "Goodbye",
        "Error",
    }


def test_codec_writes_the_bytes_of_the_protocol_page() -> None:
    assert encode(Ping(7)) == bytes.fromhex("920307")
    assert encode(Error(2, ErrorCode.NOT_FOUND, "no", 0)) == bytes.fromhex("95130202a26e6f00")
    assert encode(NewCommit(REPOSITORY, AUTHOR, 5, HASH)) == (
        b"\x96\x09\xc4\x20" + REPOSITORY + b"\xc4\x20" + AUTHOR + b"\x05\xc4\x20" + HASH + b"\xc0"
    )


@given(MESSAGES)
def test_codec_returns_what_was_encoded(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert encode(decode(data)) == data


@each_example
def test_codec_refuses_a_message_cut_short_anywhere(message: Message) -> None:
    data = encode(message)
    for length in range(len(data)):
        with pytest.raises(PeerFault):
            decode(data[:length])


@each_example
@pytest.mark.parametrize("garbage", [b"\x00", b"\xc0", b"\xc1", b"\x90", b"\xff" * 9])
def test_codec_refuses_bytes_after_a_message(message: Message, garbage: bytes) -> None:
    with pytest.raises(PeerFault):
        decode(encode(message) + garbage)


@each_example
def test_codec_only_ever_raises_peer_faults_on_flipped_bytes(message: Message) -> None:
    data = bytearray(encode(message))
    for at in range(len(data)):
        for value in {data[at] ^ 1, data[at] ^ 0x80, 0xC0, 0xC1, 0x90, 0xDD, 0xFF}:
            changed = bytes(data[:at]) + bytes([value]) + bytes(data[at + 1 :])
            with contextlib.suppress(PeerFault):
                assert encode(decode(changed)) == changed


@given(st.binary(max_size=400), st.integers(0, 0x7F), st.integers(0, 15))
@example(b"", 3, 2)
def test_codec_only_ever_raises_peer_faults_on_garbage(data: bytes, number: int, length: int) -> None:
    for candidate in (data, bytes([0x90 | length, number]) + data):
        with contextlib.suppress(PeerFault):
            assert encode(decode(candidate)) == candidate


_values = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40) | st.none() | st.booleans(),
    lambda values: st.lists(values, max_size=6),
    max_leaves=20,
)


@given(st.integers(0, 21), st.lists(_values, max_size=8))
def test_codec_only_ever_raises_peer_faults_on_wrong_types(number: int, values: list[canonical.Value]) -> None:
    data = canonical.encode([number, *values])
    with contextlib.suppress(PeerFault):
        assert encode(decode(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb([3, 7.0]),
        msgpack.packb([3, {}]),
        msgpack.packb([3, msgpack.ExtType(1, b"x")]),
        msgpack.packb([3, msgpack.Timestamp(1)]),
        msgpack.packb([3, True]),
        msgpack.packb([3, None]),
        msgpack.packb([3, []]),
        msgpack.packb([3, -1]),
        msgpack.packb([3]),
        msgpack.packb([3, 7, 7]),
        b"\x92\x03\xcc\x07",  # 7 in two bytes
        b"\x92\xcc\x03\x07",  # the type in two bytes
        b"\xdc\x00\x02\x03\x07",  # a list in its longer form
        b"\x81\x03\x07",
        b"\x03",
    ],
)
def test_codec_refuses_what_is_not_a_canonical_ping(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data)


def test_codec_refuses_text_that_is_not_utf8_or_not_printable() -> None:
    for raw in (b"\xff", b"\xed\xa0\x80", b"a\nb", b"a\x00", b"\x1b[31m", "\u202e".encode()):
        data = bytes.fromhex("95130202") + bytes([0xA0 | len(raw)]) + raw + b"\x00"
        with pytest.raises(BadMessage):
            decode(data)


def test_codec_names_an_unknown_type() -> None:
    for number in (0, 23, 24, 127):
        with pytest.raises(UnknownMessage) as caught:
            decode(canonical.encode([number, b"whatever", [1, "x"]]))
        assert caught.value.type == number
        assert caught.value.severity is Severity.NETWORK


def test_codec_refuses_an_unknown_type_that_is_not_canonical() -> None:
    with pytest.raises(PeerFault) as caught:
        decode(b"\x92\x63\xcc\x07")
    assert not isinstance(caught.value, UnknownMessage)


def test_codec_reads_a_type_from_two_bytes() -> None:
    assert type_of(b"\x92\x03") == 3
    for start in (b"", b"\x92", b"\x82\x03", b"\x92\x80", b"\x92\xcc"):
        with pytest.raises(BadMessage):
            type_of(start)


# Sizes, at N and N + 1


def test_codec_takes_refs_with_the_largest_record_and_header() -> None:
    record = EncodedRefs(b"h" * limits.MAX_HEADER_BYTES, b"e" * limits.MAX_ENTRIES_BYTES)
    refs = Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (), (), (record,)),), b"c" * 64)
    assert decode(encode(refs)) == refs


def test_codec_bounds_refs_as_a_whole() -> None:
    documents = (b"d" * limits.MAX_DOCUMENT_BYTES,) * 64
    spare = limits.MAX_REFS_BYTES - len(encode(Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, documents),))))
    exact = Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (*documents, b"d" * (spare - 3))),))
    assert len(encode(exact)) == limits.MAX_REFS_BYTES
    assert decode(encode(exact)) == exact
    over = Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (*documents, b"d" * (spare - 2))),))
    with pytest.raises(ValueError, match="more than"):
        encode(over)
    with pytest.raises(BadMessage):
        decode(canonical.encode([6, *over.packed()]))


def test_codec_bounds_a_new_commit_with_its_record() -> None:
    spare = limits.MAX_NEW_COMMIT_BYTES - len(
        encode(NewCommit(REPOSITORY, AUTHOR, 1, HASH, EncodedRefs(b"h", b"e" * 256)))
    )
    fits = NewCommit(REPOSITORY, AUTHOR, 1, HASH, EncodedRefs(b"h", b"e" * (256 + spare)))
    assert len(encode(fits)) == limits.MAX_NEW_COMMIT_BYTES
    assert decode(encode(fits)) == fits
    over = NewCommit(REPOSITORY, AUTHOR, 1, HASH, EncodedRefs(b"h", b"e" * (257 + spare)))
    with pytest.raises(ValueError, match="more than"):
        encode(over)
    with pytest.raises(BadMessage):
        decode(canonical.encode([9, *over.packed()]))


def test_codec_bounds_unknown_messages() -> None:
    def unknown(size: int) -> bytes:
        return canonical.encode([99, b"x" * size])

    size = limits.MAX_MESSAGE_BYTES - len(unknown(60_000)) + 60_000
    with pytest.raises(UnknownMessage):
        decode(unknown(size))
    with pytest.raises(BadMessage):
        decode(unknown(size + 1))


def test_largest_subscribe_and_gossip_fit_a_message() -> None:
    ids = tuple(RepositoryId(n.to_bytes(32, "big")) for n in range(limits.MAX_SUBSCRIPTIONS))
    for message in (
        Subscribe(ids),
        Subscribe((), ids),
        Subscribe(ids[:512], ids[512:]),
        Gossip("t" * limits.MAX_TOPIC_BYTES, b"d" * limits.MAX_GOSSIP_BYTES),
    ):
        assert decode(encode(message)) == message


def test_a_message_has_at_most_so_many_values() -> None:
    def many(headers: int) -> bytes:
        full = RefsAnswer(REPOSITORY, RefsStatus.HELD, (b"d",) * 1024, (b"h",) * 1024)
        last = RefsAnswer(REPOSITORY, RefsStatus.HELD, (b"d",) * 1024, (b"h",) * headers)
        return encode(Refs(1, (*(full,) * 7, last)))

    # 2 lists and 3 scalars of the message; each answer a list with 4 lists and 3 scalars in it.
    headers = limits.MAX_ITEMS - 5 - 8 * 8 - 7 * 2048 - 1024
    assert 0 < headers < limits.MAX_HEADERS
    assert isinstance(decode(many(headers)), Refs)
    with pytest.raises(BadMessage, match="more than 16384 values"):
        decode(many(headers + 1))


def test_reader_refuses_a_list_by_its_declared_length() -> None:
    assert Reader(b"\x92\x01\x02").array(2) == 2
    for longer in (b"\x93\x01\x02\x03", b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(ValueError, match="2 are allowed"):
            Reader(longer).array(2)


# msgpack bombs (docs/threats.md A7)


@pytest.mark.parametrize("name", bombs().keys())
def test_a7_codec_stays_small_and_quick_under_a_bomb(name: str) -> None:
    bomb = bombs()[name]
    best = 1e9
    for _ in range(3):
        started = time.perf_counter()
        with pytest.raises(PeerFault):
            decode(bomb)
        best = min(best, time.perf_counter() - started)
    tracemalloc.start()
    try:
        with pytest.raises(PeerFault):
            decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * limits.MIB + len(bomb)
    assert best < 0.1  # A7 asks for 20 ms; a busy machine gets five times that


def test_each_type_knows_its_largest_size() -> None:
    assert max_bytes(6) == 4 * limits.MIB + 64 * limits.KIB
    assert max_bytes(9) == 8 * limits.KIB
    assert {max_bytes(number) for number in range(128) if number not in (6, 9)} == {64 * limits.KIB}
