"""Signed records of nodes: who may say what of whom, for how long, in how many bytes."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts import canonical
from guts.addresses import Address
from guts.canonical import Bounds, NotCanonical, Value
from guts.errors import PeerFault
from guts.identity import SigningKey, domain
from guts.ids import AuthorId, RepositoryId
from guts.records import (
    MAX_RECEIPT_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORD_LIFE_MS,
    MAX_SEQ,
    MAX_SIGNATURES,
    RECORD_LIFE_MS,
    CommitReceipt,
    ExpiredRecord,
    InvalidRecord,
    PeerRecord,
    ProviderRecord,
    ReceiptClaim,
    Signed,
)

KEY, EVE = SigningKey(bytes(range(32))), SigningKey(bytes(32))
REPOSITORY = RepositoryId(bytes(range(32)))
AUTHOR, HASH = AuthorId(bytes(range(32, 64))), bytes(range(64, 96))
NOW = 1_800_000_000_000
EXPIRES = NOW + RECORD_LIFE_MS
V4, V6 = Address("192.0.2.1", 9000), Address("2001:db8::1", 65_535)


def peer(**change: Any) -> PeerRecord:
    fields: dict[str, Any] = {"addresses": (V4, V6), "capabilities": ("seed",), "seq": 7, "expires": EXPIRES}
    return PeerRecord.sign(KEY, **{**fields, **change})


def provider(**change: Any) -> ProviderRecord:
    fields: dict[str, Any] = {"repository": REPOSITORY, "addresses": (V4, V6), "seq": 7, "expires": EXPIRES}
    return ProviderRecord.sign(KEY, **{**fields, **change})


def receipt(**change: Any) -> CommitReceipt:
    fields: dict[str, Any] = {"repository": REPOSITORY, "author": AUTHOR, "seq": 7, "digest": HASH, "time_ms": NOW}
    return CommitReceipt.sign(KEY, **{**fields, **change})


def peer_with(index: int, value: Value) -> bytes:
    """Return a peer record, properly signed, whose field ``index`` is ``value``."""
    return _with("peer", peer().encoded, index, value)


def _with(kind: str, encoded: bytes, index: int, value: Value) -> bytes:
    fields = canonical.decode(Signed.decode(encoded, MAX_RECORD_BYTES).body, Bounds(MAX_RECORD_BYTES))
    assert isinstance(fields, list)
    fields[index] = value
    return Signed.sign(kind, canonical.encode(fields), KEY).encode()


def test_records_read_back() -> None:
    for addresses in ((), (V4,), (V4, V6)):
        made = peer(addresses=addresses)
        assert PeerRecord.verify(made.encoded, NOW) == made
        held = provider(addresses=addresses)
        assert ProviderRecord.verify(held.encoded, NOW) == held
    assert made.peer == held.peer == KEY.peer_id


@pytest.mark.parametrize("now", [EXPIRES - MAX_RECORD_LIFE_MS, NOW, EXPIRES - 1])
def test_record_is_good_until_it_expires(now: int) -> None:
    assert PeerRecord.verify(peer().encoded, now).expires == EXPIRES
    assert ProviderRecord.verify(provider().encoded, now).expires == EXPIRES


@pytest.mark.parametrize("now", [EXPIRES - MAX_RECORD_LIFE_MS - 1, EXPIRES, EXPIRES + 1])
def test_record_that_expired_or_lives_too_long_is_refused(now: int) -> None:
    with pytest.raises(ExpiredRecord):
        PeerRecord.verify(peer().encoded, now)
    with pytest.raises(ExpiredRecord):
        ProviderRecord.verify(provider().encoded, now)


def test_nobody_signs_for_another_node() -> None:
    for made, kind, verify in (
        (peer().encoded, "peer", PeerRecord.verify),
        (provider().encoded, "provider", ProviderRecord.verify),
    ):
        body = Signed.decode(made, MAX_RECORD_BYTES).body
        for keys in ((EVE,), (EVE, KEY)):
            with pytest.raises(InvalidRecord, match="signed by the node"):
                verify(Signed.sign(kind, body, *keys).encode(), NOW)
        forged = Signed(body, ((KEY.public, EVE.sign(domain(kind), body)),))
        with pytest.raises(InvalidRecord, match="not valid"):
            verify(forged.encode(), NOW)


def test_signature_of_one_kind_is_worth_nothing_for_another() -> None:
    body = Signed.decode(peer().encoded, MAX_RECORD_BYTES).body
    for kind in ("provider", "handshake", "dht-answer"):
        with pytest.raises(InvalidRecord):
            PeerRecord.verify(Signed.sign(kind, body, KEY).encode(), NOW)
    with pytest.raises(InvalidRecord):
        ProviderRecord.verify(peer().encoded, NOW)
    with pytest.raises(InvalidRecord):
        PeerRecord.verify(provider().encoded, NOW)


def test_record_has_at_most_512_bytes() -> None:
    addresses = tuple(Address(f"2001:db8::{n:x}", 65_000) for n in range(1, 9))
    sizes: dict[int, bytes] = {}
    for length in range(33):
        capabilities = ("a" * 32, "b" * 32, "c" * 32, "e" * 32, "d" * length)
        encoded = peer(addresses=addresses, capabilities=capabilities).encoded
        sizes[len(encoded)] = encoded
    full = sizes[MAX_RECORD_BYTES]
    assert PeerRecord.verify(full, NOW).encoded == full
    with pytest.raises(NotCanonical, match="513 bytes where 512"):
        PeerRecord.verify(sizes[MAX_RECORD_BYTES + 1], NOW)


def test_record_has_at_most_8_addresses_and_8_capabilities_of_32_bytes() -> None:
    as_values: list[Value] = [[bytes([192, 0, 2, n]), 9000, "tcp"] for n in range(9)]
    assert len(PeerRecord.verify(peer_with(1, as_values[:8]), NOW).addresses) == 8
    with pytest.raises(InvalidRecord):
        PeerRecord.verify(peer_with(1, as_values), NOW)
    assert len(ProviderRecord.verify(_with("provider", provider().encoded, 2, as_values[:8]), NOW).addresses) == 8
    with pytest.raises(InvalidRecord):
        ProviderRecord.verify(_with("provider", provider().encoded, 2, as_values), NOW)
    eight: list[Value] = [str(n) for n in range(8)]
    assert len(PeerRecord.verify(peer_with(2, eight), NOW).capabilities) == 8
    with pytest.raises(InvalidRecord):
        PeerRecord.verify(peer_with(2, [*eight, "8"]), NOW)
    assert PeerRecord.verify(peer_with(2, ["é" * 16]), NOW).capabilities == ("é" * 16,)
    with pytest.raises(InvalidRecord):
        PeerRecord.verify(peer_with(2, ["é" * 16 + "x"]), NOW)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, bytes(31)),
        (0, "x"),
        (1, None),
        (1, ["192.0.2.1:9000"]),
        (1, [[bytes(5), 9000, "tcp"]]),
        (1, [[bytes(4), 0, "tcp"]]),
        (1, [[bytes(4), 65_536, "tcp"]]),
        (1, [[bytes(4), 9000, "udp"]]),
        (1, [[bytes(4), "9000", "tcp"]]),
        (1, [[bytes(4), 9000]]),
        (2, "seed"),
        (2, [b"seed"]),
        (3, -1),
        (3, MAX_SEQ + 1),
        (3, True),
        (3, "7"),
        (4, None),
        (4, -1),
    ],
)
def test_field_of_another_shape_is_refused(index: int, value: Value) -> None:
    with pytest.raises(InvalidRecord):
        PeerRecord.verify(peer_with(index, value), NOW)


def test_provider_record_of_another_shape_is_refused() -> None:
    wrong: list[tuple[int, Value]] = [(0, bytes(31)), (0, "x"), (1, bytes(31)), (2, [[]]), (3, -1), (4, "x")]
    for index, value in wrong:
        with pytest.raises(InvalidRecord):
            ProviderRecord.verify(_with("provider", provider().encoded, index, value), NOW)


def test_highest_seq_is_accepted() -> None:
    assert PeerRecord.verify(peer(seq=MAX_SEQ).encoded, NOW).seq == MAX_SEQ


def test_receipt_reads_back() -> None:
    made = receipt()
    assert CommitReceipt.verify(made.encoded) == made
    assert (
        made.claim == ReceiptClaim.decode(made.encoded) == ReceiptClaim(REPOSITORY, AUTHOR, 7, HASH, KEY.peer_id, NOW)
    )


def test_receipt_is_signed_by_the_node_that_it_speaks_of() -> None:
    body = Signed.decode(receipt().encoded, MAX_RECEIPT_BYTES).body
    for keys in ((EVE,), (EVE, KEY)):
        with pytest.raises(PeerFault):
            CommitReceipt.verify(Signed.sign("receipt", body, *keys).encode())
    forged = Signed(body, ((KEY.public, EVE.sign(domain("receipt"), body)),)).encode()
    assert ReceiptClaim.decode(forged).peer == KEY.peer_id
    with pytest.raises(InvalidRecord, match="not valid"):
        CommitReceipt.verify(forged)
    for kind in ("provider", "peer", "refs", "identity"):
        with pytest.raises(InvalidRecord, match="not valid"):
            CommitReceipt.verify(Signed.sign(kind, body, KEY).encode())


def test_largest_receipt_is_taken_and_a_longer_one_is_not() -> None:
    largest = receipt(seq=MAX_SEQ, time_ms=MAX_SEQ)
    assert len(largest.encoded) == MAX_RECEIPT_BYTES
    assert CommitReceipt.verify(largest.encoded) == largest
    with pytest.raises(NotCanonical, match="261 bytes where 260"):
        CommitReceipt.verify(largest.encoded + b"x")


@pytest.mark.parametrize(
    ("index", "value"),
    [
        *((index, wrong) for index in (0, 1, 3, 4) for wrong in (bytes(31), bytes(33), "x", None)),
        *((index, wrong) for index in (2, 5) for wrong in (-1, MAX_SEQ + 1, True, "7", None)),
    ],
)
def test_receipt_of_another_shape_is_refused(index: int, value: Value) -> None:
    with pytest.raises(InvalidRecord):
        CommitReceipt.verify(_with("receipt", receipt().encoded, index, value))


@given(st.binary(max_size=600))
def test_garbage_is_a_fault_of_the_peer(data: bytes) -> None:
    for decode in (CommitReceipt.verify, ReceiptClaim.decode):
        with pytest.raises(PeerFault):
            decode(data)
    for verify in (PeerRecord.verify, ProviderRecord.verify):
        with pytest.raises(PeerFault):
            verify(data, NOW)


@given(st.data())
def test_record_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    for verify, encoded in (
        (PeerRecord.verify, peer().encoded),
        (ProviderRecord.verify, provider().encoded),
    ):
        changed = bytearray(encoded)
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(PeerFault):
            verify(bytes(changed), NOW)
        with pytest.raises(PeerFault):
            verify(encoded[: data.draw(st.integers(0, len(encoded) - 1))], NOW)
    changed = bytearray(receipt().encoded)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerFault):
        CommitReceipt.verify(bytes(changed))


def test_envelope_holds_1_to_64_signatures_by_ascending_keys() -> None:
    keys = [SigningKey(bytes([n]) * 32) for n in range(MAX_SIGNATURES + 1)]
    full = Signed.sign("x", b"body", *keys[:MAX_SIGNATURES])
    again = Signed.decode(full.encode(), 10_000)
    assert again == full
    again.check("x")
    for pairs in (
        (),
        Signed.sign("x", b"body", *keys).signatures,
        tuple(reversed(full.signatures[:2])),
        full.signatures[:1] * 2,
    ):
        with pytest.raises(PeerFault):
            Signed.decode(Signed(b"body", pairs).encode(), 10_000)


@pytest.mark.parametrize(
    "value",
    [
        [b"body"],
        ["body", [[bytes(32), bytes(64)]]],
        [b"body", b"x"],
        [b"body", [bytes(32)]],
        [b"body", [[bytes(31), bytes(64)]]],
        [b"body", [[bytes(32), bytes(63)]]],
        [b"body", [[bytes(32), bytes(64), 1]]],
        7,
    ],
)
def test_envelope_of_another_shape_is_refused(value: Value) -> None:
    with pytest.raises(InvalidRecord):
        Signed.decode(canonical.encode(value), 1_000)


def test_one_invalid_signature_among_good_ones_is_noticed() -> None:
    good = Signed.sign("x", b"body", KEY, EVE)
    bad = Signed(b"body", ((good.signatures[0][0], bytes(64)), good.signatures[1]))
    with pytest.raises(InvalidRecord, match="this x record"):
        bad.check("x")


def test_hash_is_over_domain_and_body_and_not_over_signatures() -> None:
    one, two = Signed.sign("x", b"body", KEY), Signed.sign("x", b"body", KEY, EVE)
    assert one.hash("x") == two.hash("x") == hashlib.sha256(b"guts/x/1\0body").digest()
    assert one.hash("y") != one.hash("x")
