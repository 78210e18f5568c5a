"""Messages: every field at its limit and one past it."""

import dataclasses
from typing import Any

import pytest

from guts.ids import AuthorId, PeerId
from guts.wire.codec import decode, encode
from guts.wire.messages import (
    EncodedRefs,
    GetRefs,
    GoodbyeCode,
    Hello,
    KnownHead,
    KnownSplit,
    ObjectsStatus,
    Ping,
    Pong,
    RecordQuery,
    Refs,
    RefsAnswer,
    RefsQuery,
)
from tests.support.messages import AUTHOR, EXAMPLES, HASH, OTHER_REPOSITORY, RECORD, REPOSITORY

_HELLO = EXAMPLES["Hello"]
_ACK = EXAMPLES["HelloAck"]
_HEAD = KnownHead(AUTHOR, 1, HASH)
_SPLIT = KnownSplit(AUTHOR, 1)
_QUERY = RefsQuery(REPOSITORY, 1, HASH, (_HEAD,))
_RECORD_QUERY = RecordQuery(REPOSITORY, AUTHOR, 1)
_ANSWER = EXAMPLES["Refs"].answers[0]  # type: ignore[union-attr]

MAX_SEQ = 2**63 - 1
MAX_UINT32 = 2**32 - 1
WEEK = 7 * 24 * 3600

# (message, field, the last good values, the first bad ones)
LIMITS: list[tuple[Any, str, list[object], list[object]]] = [
    (_HELLO, "version_min", [1], [0, 2, True]),
    (_HELLO, "version_max", [1, 65_535], [0, 65_536]),
    (_HELLO, "software", ["", "s" * 64], ["s" * 65, "é" * 33, "a\nb", b"guts"]),
    (_HELLO, "capabilities", [(), ("c" * 32,) * 32], [("c",) * 33, ("c" * 33,), ("",), ["c"]]),
    (_HELLO, "peer_record", [b"", b"r" * 512], [b"r" * 513, "r"]),
    (_HELLO, "time_ms", [0, MAX_SEQ], [-1, MAX_SEQ + 1, 1.0]),
    (_HELLO, "start_nonce", [bytes(8)], [bytes(7), bytes(9), b""]),
    (_ACK, "version", [1, 65_535], [0, 65_536]),
    (_ACK, "software", ["s" * 64], ["s" * 65]),
    (_ACK, "capabilities", [("c",) * 32], [("c",) * 33]),
    (_ACK, "peer_record", [b"r" * 512], [b"r" * 513]),
    (_ACK, "time_ms", [MAX_SEQ], [MAX_SEQ + 1]),
    (_ACK, "start_nonce", [bytes(8)], [bytes(9)]),
    (Ping(0), "nonce", [0, 2**64 - 1], [-1, 2**64]),
    (Pong(0), "nonce", [0, 2**64 - 1], [-1, 2**64]),
    (GetRefs(1, ()), "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (GetRefs(1, ()), "queries", [(), (_RECORD_QUERY,) * 64], [(_RECORD_QUERY,) * 65, (_HEAD,), [_QUERY]]),
    (GetRefs(1, ()), "cursor", [b"", b"c" * 64], [b"c" * 65]),
    (_QUERY, "repository", [OTHER_REPOSITORY], [bytes(32), AuthorId(bytes(32)), PeerId(bytes(32))]),
    (_QUERY, "documents", [0, MAX_UINT32], [-1, MAX_UINT32 + 1]),
    (_QUERY, "identity_hash", [b"", HASH], [HASH[1:], HASH + b"x"]),
    (_QUERY, "known", [(), (_HEAD,) * 64], [(_HEAD,) * 65, (_QUERY,)]),
    (_QUERY, "splits", [(), (_SPLIT,) * 64], [(_SPLIT,) * 65, (_HEAD,)]),
    (_QUERY, "fork", [0, MAX_UINT32], [-1, MAX_UINT32 + 1]),
    (_SPLIT, "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (_HEAD, "author", [AUTHOR], [REPOSITORY]),
    (_HEAD, "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (_HEAD, "hash", [HASH], [b"", HASH + b"x"]),
    (_RECORD_QUERY, "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (Refs(1, ()), "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (Refs(1, ()), "answers", [(), (_ANSWER,) * 64], [(_ANSWER,) * 65, (_QUERY,)]),
    (Refs(1, ()), "cursor", [b"c" * 64], [b"c" * 65]),
    (_ANSWER, "status", [], [0, ObjectsStatus.PACK_FOLLOWS]),
    (_ANSWER, "documents", [(b"d",) * 1024, (b"d" * 65_536,)], [(b"d",) * 1025, (b"d" * 65_537,), (b"",)]),
    (_ANSWER, "headers", [(b"h",) * 1024, (b"h" * 1024,)], [(b"h",) * 1025, (b"h" * 1025,), (b"",)]),
    (_ANSWER, "records", [(), (RECORD,) * 64], [(RECORD,) * 65, (b"record",)]),
    (_ANSWER, "proofs", [(), (b"p",) * 65, (b"p" * 65_536,)], [(b"p",) * 66, (b"p" * 65_537,), (b"",)]),
    (_ANSWER, "size", [0, 2**63 - 1], [-1, 2**63]),
    (RECORD, "header", [b"h" * 1024], [b"", b"h" * 1025]),
    (RECORD, "entries", [b"e" * 4_194_304], [b"", b"e" * 4_194_305]),
    (EXAMPLES["GetObjects"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["GetObjects"], "stream", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["GetObjects"], "slices", [bytes(8)], [bytes(7), bytes(9)]),
    (EXAMPLES["GetObjects"], "filter", ["", "f" * 64], ["f" * 65]),
    (EXAMPLES["GetObjects"], "wants", [0, 200_000], [-1, 200_001]),
    (EXAMPLES["GetObjects"], "haves", [0, 200_000], [-1, 200_001]),
    (EXAMPLES["Objects"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["Objects"], "status", [], [2, GoodbyeCode.FULL]),
    (EXAMPLES["Objects"], "retry_after_s", [0, WEEK], [-1, WEEK + 1]),
    (EXAMPLES["GitService"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["GitService"], "stream", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["GitService"], "service", [1, 255], [0, 256]),
    (EXAMPLES["GetReceipt"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["GetReceipt"], "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (EXAMPLES["Receipt"], "request", [0, MAX_UINT32], [-1, MAX_UINT32 + 1]),
    (EXAMPLES["Receipt"], "receipt", [b"r", b"r" * 260], [b"", b"r" * 261, None]),
    (EXAMPLES["GetPeers"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["Peers"], "request", [1, MAX_UINT32], [0, MAX_UINT32 + 1]),
    (EXAMPLES["Peers"], "records", [(), (b"r" * 512,) * 32], [(b"r",) * 33, (b"",), (b"r" * 513,), [b"r"]]),
    (EXAMPLES["NewCommit"], "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (EXAMPLES["NewCommit"], "hash", [HASH], [b"", HASH[1:]]),
    (EXAMPLES["NewCommit"], "record", [None, RECORD], [b"record"]),
    (EXAMPLES["NewRepository"], "epoch", [0, MAX_UINT32], [-1, MAX_UINT32 + 1]),
    (EXAMPLES["NewRepository"], "identity_hash", [HASH], [b""]),
    (EXAMPLES["NewRepository"], "peer_record", [b"r" * 512], [b"r" * 513]),
    (EXAMPLES["NewProof"], "seq", [0, MAX_SEQ], [-1, MAX_SEQ + 1]),
    (EXAMPLES["NewProof"], "proof", [b"p", b"p" * 3136], [b"", b"p" * 3137]),
    (EXAMPLES["Gossip"], "topic", ["t", "t" * 80], ["", "t" * 81, "a\nb"]),
    (EXAMPLES["Gossip"], "data", [b"d", b"d" * 10_240], [b"", b"d" * 10_241]),
    (EXAMPLES["Subscribe"], "added", [(), (REPOSITORY,) * 1023], [(REPOSITORY,) * 1024, (REPOSITORY,) * 1025]),
    (EXAMPLES["Subscribe"], "removed", [(), (REPOSITORY,) * 1023], [(REPOSITORY,) * 1024, (AUTHOR,)]),
    (EXAMPLES["Goodbye"], "code", [], [2]),
    (EXAMPLES["Goodbye"], "text", ["", "t" * 256], ["t" * 257, "\x1b[0m"]),
    (EXAMPLES["Goodbye"], "retry_after_s", [WEEK], [WEEK + 1]),
    (EXAMPLES["Error"], "request", [0, MAX_UINT32], [-1, MAX_UINT32 + 1]),
    (EXAMPLES["Error"], "code", [], [1]),
    (EXAMPLES["Error"], "text", ["t" * 256], ["t" * 257]),
    (EXAMPLES["Error"], "retry_after_s", [WEEK], [-1, WEEK + 1]),
]


@pytest.mark.parametrize(
    ("message", "field", "good", "bad"), LIMITS, ids=[f"{type(m).__name__}.{f}" for m, f, _, _ in LIMITS]
)
def test_message_takes_a_field_at_its_limit_and_not_past_it(
    message: Any, field: str, good: list[object], bad: list[object]
) -> None:
    for value in good:
        assert getattr(dataclasses.replace(message, **{field: value}), field) == value
    for value in bad:
        with pytest.raises(ValueError, match=type(message).__name__):
            dataclasses.replace(message, **{field: value})


def test_every_field_of_every_message_has_its_limits_tested() -> None:
    tested = {(type(message), field) for message, field, _, _ in LIMITS}
    ids = {"repository", "author"}  # any 32 bytes of the right type
    for layout in (
        *{type(message) for message in EXAMPLES.values()},
        KnownHead,
        KnownSplit,
        RefsQuery,
        RecordQuery,
        RefsAnswer,
        EncodedRefs,
    ):
        for field in dataclasses.fields(layout):
            assert (layout, field.name) in tested or field.name in ids, (layout, field.name)


def test_hello_speaks_a_range_of_versions() -> None:
    assert Hello(3, 3, "", (), b"", 0, bytes(8)).version_min == 3
    with pytest.raises(ValueError, match="version_min is above"):
        Hello(3, 2, "", (), b"", 0, bytes(8))


def test_messages_are_values() -> None:
    for message in EXAMPLES.values():
        again = decode(encode(message))
        assert again == message
        assert hash(again) == hash(message)
