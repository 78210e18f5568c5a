"""Records: one byte form, one signature over everything, every limit at N and N+1."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts import canonical
from guts.canonical import Bounds, NotCanonical, Value
from guts.errors import PeerFault
from guts.identity import domain
from guts.ids import AuthorId, ObjectId
from guts.records import InvalidRecord, Signed
from guts.trust.entries import (
    MAX_ENTRIES_BYTES,
    MAX_ITEMS,
    MAX_REFS,
    MAX_SEEN_AUTHORS,
    Entries,
    Entry,
    InvalidRefs,
    Seen,
)
from guts.trust.signed_refs import KIND, MAX_HEADER_BYTES, Header, SignedHeader, SignedRefs
from tests.unit.trust.world import ALICE, BOB, CAROL, DEV, EVE, MAIN, NOW, by_hand, chain, key, oid, publish

CHAIN = chain(ALICE)
WIDE = Bounds(MAX_ENTRIES_BYTES, max_list=6_000, max_items=MAX_ITEMS)


def simple() -> SignedRefs:
    return publish(CHAIN, ALICE, None, {MAIN: oid(1), DEV: oid(2)})


def resigned(record: SignedRefs, entries: bytes) -> SignedRefs:
    """Return what an author gets accepted who signs ``entries`` as they are."""
    h = record.header
    header = Header(
        h.repository,
        h.author,
        h.epoch,
        h.identity_hash,
        h.seq,
        h.previous,
        h.time_ms,
        h.head,
        hashlib.sha256(entries).digest(),
    )
    return SignedRefs.decode(Signed.sign(KIND, header.body, ALICE).encode(), entries)


def test_record_reads_back_as_it_was_written() -> None:
    record = simple()
    again = SignedRefs.decode(record.header_bytes, record.entries_bytes)
    assert again == record
    assert again.entries.encode() == record.entries_bytes
    assert Header.decode_body(record.header.body) == record.header
    assert (record.author, record.seq, record.hash) == (ALICE.author_id, NOW, record.header.hash)
    assert record.tips() == {oid(1), oid(2)}
    assert list(record.entries.refs) == [DEV, MAIN]
    assert record.signed_header == SignedHeader.decode(record.header_bytes)
    assert record.header.hash == Signed.decode(record.header_bytes, MAX_HEADER_BYTES).hash(KIND)


def test_header_of_one_record_with_entries_of_another_is_refused() -> None:
    first = simple()
    second = publish(CHAIN, ALICE, first, {MAIN: oid(3)})
    with pytest.raises(InvalidRefs, match="not those"):
        SignedRefs.decode(first.header_bytes, second.entries_bytes)
    with pytest.raises(InvalidRefs, match="not those"):
        SignedRefs.decode(second.header_bytes, first.entries_bytes)


def test_record_signed_by_another_key_is_refused() -> None:
    record = simple()
    body = record.header.body
    for keys in ((EVE,), (ALICE, EVE)):
        with pytest.raises(InvalidRefs, match="nobody else"):
            SignedRefs.decode(Signed.sign(KIND, body, *keys).encode(), record.entries_bytes)
    forged = Signed(body, ((ALICE.public, EVE.sign(domain(KIND), body)),))
    with pytest.raises(InvalidRecord):
        SignedRefs.decode(forged.encode(), record.entries_bytes)


def test_signature_made_for_another_kind_of_record_is_refused() -> None:
    record = simple()
    with pytest.raises(InvalidRecord):
        SignedRefs.decode(Signed.sign("identity", record.header.body, ALICE).encode(), record.entries_bytes)


def test_relabelled_record_is_refused() -> None:
    # The body of a record of one repository under the signature it had in another.
    record, other = simple(), chain(ALICE, name="other")
    h = record.header
    body = Header(
        other.repository,
        h.author,
        h.epoch,
        other.hash,
        h.seq,
        h.previous,
        h.time_ms,
        h.head,
        h.entries_hash,
    ).body
    signature = Signed.decode(record.header_bytes, MAX_HEADER_BYTES).signatures
    with pytest.raises(InvalidRecord):
        SignedRefs.decode(Signed(body, signature).encode(), record.entries_bytes)


@given(st.data())
def test_record_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    record = simple()
    parts = [bytearray(record.header_bytes), bytearray(record.entries_bytes)]
    which = data.draw(st.integers(0, 1))
    position = data.draw(st.integers(0, len(parts[which]) - 1))
    parts[which][position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerFault):
        SignedRefs.decode(bytes(parts[0]), bytes(parts[1]))


@given(st.binary(max_size=400))
def test_garbage_is_a_fault_of_the_peer(data: bytes) -> None:
    for decode in (Entries.decode, Header.decode_body, SignedHeader.decode):
        with pytest.raises(PeerFault):
            decode(data)
    with pytest.raises(PeerFault):
        SignedRefs.decode(data, data)


SCALARS: Any = st.integers(-1, 5) | st.none() | st.booleans() | st.binary(max_size=33) | st.text(max_size=9)
VALUES: Any = SCALARS | st.lists(SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=5), max_size=5)


@settings(max_examples=100)
@given(st.lists(VALUES, min_size=4, max_size=11))
def test_canonical_garbage_is_a_fault_of_the_peer(value: Value) -> None:
    data = canonical.encode(value)
    for decode in (Entries.decode, Header.decode_body, SignedHeader.decode):
        with pytest.raises(PeerFault):
            decode(data)


AUTHORS = st.integers(0, 5).map(lambda n: key(f"a{n}").author_id)
SEQS = st.integers(1, 2**63 - 1)
SEEN = st.dictionaries(AUTHORS, SEQS, max_size=6).map(Seen.of)
NAMES = st.lists(st.text("abcé-", min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda parts: "refs/heads/" + "/".join(parts)
)
OIDS = st.integers(0, 9).map(oid)


@st.composite
def entries_values(draw: st.DrawFn) -> Entries:
    refs: dict[str, Entry] = {}
    for name in draw(st.sets(NAMES, max_size=8)):
        seq = draw(SEQS)
        target = draw(st.none() | OIDS)
        clash = any(n.startswith(name + "/") or name.startswith(n + "/") for n in refs)
        if target is None or clash:
            refs[name] = Entry(None, seq, draw(SEEN), seq)
        else:
            refs[name] = Entry(target, seq, draw(SEEN), draw(st.sampled_from([0, seq])))
    head_seen = draw(SEEN)
    joined: dict[AuthorId, int] = {}
    for seen in [head_seen, *(entry.seen for entry in refs.values())]:
        for author, number in seen.pairs:
            joined[author] = max(number, joined.get(author, 0))
    return Entries(refs, Seen.of(joined), draw(SEQS), head_seen)


@settings(max_examples=60)
@given(entries_values())
def test_any_entries_read_back_and_have_one_encoding(entries: Entries) -> None:
    data = entries.encode()
    again = Entries.decode(data)
    assert again == entries
    assert again.encode() == data
    reversed_refs = dict(reversed(list(entries.refs.items())))
    assert Entries(reversed_refs, entries.seen, entries.head_seq, entries.head_seen).encode() == data


def tabled() -> list[Any]:
    """Return the decoded entries of a record with two authors seen and three vectors."""
    one = Seen.of({BOB.author_id: 5})
    both = Seen.of({BOB.author_id: 7, CAROL.author_id: 3})
    refs = {MAIN: Entry(oid(1), NOW, one, 0), DEV: Entry(oid(2), NOW, both, NOW)}
    value = canonical.decode(by_hand(CHAIN, ALICE, refs, seen=both).entries_bytes, WIDE)
    assert isinstance(value, list)
    return value


def test_tables_hold_each_vector_once() -> None:
    keys, rows, record, head, refs = tabled()
    assert keys == sorted([BOB.public, CAROL.public])
    b, c = keys.index(BOB.public), keys.index(CAROL.public)
    assert rows == sorted([[], [[b, 5]], sorted([[b, 7], [c, 3]])])
    assert [ref[0] for ref in refs] == [DEV, MAIN]
    assert rows[record] == rows[refs[0][3]]
    assert rows[head[1]] == []


def _swap_refs(v: list[Any]) -> None:
    v[4].reverse()


def _swap_authors(v: list[Any]) -> None:
    v[0].reverse()
    v[1] = [[[1 - index, seq] for index, seq in row] for row in v[1]]


def _swap_rows(v: list[Any]) -> None:
    v[1].reverse()
    v[2], v[3][1] = 2 - v[2], 2 - v[3][1]
    for ref in v[4]:
        ref[3] = 2 - ref[3]


def _repeat_row(v: list[Any]) -> None:
    v[1].append(v[1][2])


def _unused_row(v: list[Any]) -> None:
    v[1].append([[1, 99]])


def _unused_author(v: list[Any]) -> None:
    v[0].append(b"\xff" * 32)


def _repeat_ref(v: list[Any]) -> None:
    v[4].append(v[4][1])


def _row_outside(v: list[Any]) -> None:
    v[4][0][3] = 3


def _negative_row(v: list[Any]) -> None:
    v[4][0][3] = -1


def _author_outside(v: list[Any]) -> None:
    v[1][1] = [[2, 5]]


def _pairs_descend(v: list[Any]) -> None:
    v[1][v[2]].reverse()


def _seen_zero(v: list[Any]) -> None:
    v[1][1][0][1] = 0


def _bool_seq(v: list[Any]) -> None:
    v[4][0][2] = True


def _bool_row(v: list[Any]) -> None:
    v[2] = True


def _short_oid(v: list[Any]) -> None:
    v[4][0][1] = bytes(19)


def _text_oid(v: list[Any]) -> None:
    v[4][0][1] = "x"


def _short_key(v: list[Any]) -> None:
    v[0][0] = bytes(31)


def _text_key(v: list[Any]) -> None:
    v[0][0] = "x"


def _bad_name(v: list[Any]) -> None:
    v[4][0][0] = "refs/heads/a..b"


def _conflict_name(v: list[Any]) -> None:
    v[4][0][0] = "refs/guts/conflict/x"


def _unforced_deletion(v: list[Any]) -> None:
    v[4][1][1] = None


def _forced_later(v: list[Any]) -> None:
    v[4][0][4] = NOW + 1


def _set_later(v: list[Any]) -> None:
    v[4][0][2] = NOW + 1


def _head_set_later(v: list[Any]) -> None:
    v[3][0] = NOW + 1


def _head_never_set(v: list[Any]) -> None:
    v[3][0] = 0


def _record_saw_less(v: list[Any]) -> None:
    v[2] = v[4][1][3]


def _pair_of_three(v: list[Any]) -> None:
    v[1][1][0].append(1)


def _row_of_text(v: list[Any]) -> None:
    v[1][1] = "x"


def _no_head(v: list[Any]) -> None:
    v[3] = []


def _entry_of_four(v: list[Any]) -> None:
    v[4][0].pop()


def _clash(v: list[Any]) -> None:
    v[4].insert(1, [DEV + "/x", oid(1), NOW, 0, 0])


MUTATIONS = [value for name, value in sorted(globals().items()) if name.startswith("_") and name[1].islower()]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_entries_with_anything_else_are_refused_even_when_signed(mutate: Any) -> None:
    value = tabled()
    assert resigned(by_hand(CHAIN, ALICE, {}), canonical.encode(value)).entries.refs[MAIN].oid == oid(1)
    mutate(value)
    with pytest.raises(PeerFault):
        resigned(by_hand(CHAIN, ALICE, {}), canonical.encode(value))


def test_author_does_not_list_itself_as_seen() -> None:
    with pytest.raises(InvalidRefs, match="of itself"):
        by_hand(CHAIN, ALICE, {}, seen=Seen.of({ALICE.author_id: 1}))


def test_seen_vector_is_ordered_and_covers_what_is_below_it() -> None:
    low, high = sorted([BOB.author_id, CAROL.author_id])
    with pytest.raises(InvalidRefs):
        Seen(((high, 1), (low, 1)))
    with pytest.raises(InvalidRefs):
        Seen(((low, 1), (low, 2)))
    with pytest.raises(InvalidRefs):
        Seen(((low, 2**63),))
    one, two = Seen.of({low: 1}), Seen.of({low: 2, high: 1})
    assert two.covers(one)
    assert not one.covers(two)
    assert (one.get(low), one.get(high)) == (1, 0)


def refs(count: int) -> dict[str, Entry]:
    return {f"refs/heads/b{n:05}": Entry(oid(n), 1, Seen()) for n in range(count)}


def test_record_has_at_most_5000_refs() -> None:
    full = by_hand(CHAIN, ALICE, refs(MAX_REFS))
    assert len(full.entries.refs) == MAX_REFS
    with pytest.raises(InvalidRefs):
        Entries(refs(MAX_REFS + 1), Seen(), 1, Seen())
    value = canonical.decode(full.entries_bytes, WIDE)
    assert isinstance(value, list)
    assert isinstance(value[4], list)
    value[4].append(["refs/heads/c", oid(1), 1, 0, 0])
    with pytest.raises(InvalidRefs):
        Entries.decode(canonical.encode(value))


def test_record_has_seen_at_most_64_authors() -> None:
    def entries(count: int) -> bytes:
        return Entries({}, Seen.of({key(f"a{n}").author_id: 1 for n in range(count)}), 1, Seen()).encode()

    assert len(Entries.decode(entries(MAX_SEEN_AUTHORS)).seen.pairs) == MAX_SEEN_AUTHORS
    with pytest.raises(InvalidRefs):
        Entries.decode(entries(MAX_SEEN_AUTHORS + 1))


def test_entries_have_at_most_4_mib_and_headers_1_kib() -> None:
    for decode, limit in ((Entries.decode, MAX_ENTRIES_BYTES), (SignedHeader.decode, MAX_HEADER_BYTES)):
        with pytest.raises(NotCanonical, match="inside the bounds"):
            decode(b"\xc1" * limit)
        with pytest.raises(NotCanonical, match="bytes where"):
            decode(b"\xc1" * (limit + 1))


def test_longest_head_fits_a_header() -> None:
    head = "refs/heads/" + "h" * 244
    assert by_hand(CHAIN, ALICE, {}, head=head, previous=bytes(32), seq=2**63 - 1).header.head == head


def test_32_maintainers_with_5000_refs_of_255_bytes_fit_in_4_mib() -> None:
    others = [key(f"m{n}").author_id for n in range(31)]
    full: dict[str, Entry] = {}
    for n in range(MAX_REFS):
        seen = Seen.of(dict.fromkeys(others, NOW + n))
        full[f"refs/heads/{n:05}".ljust(255, "x")] = Entry(ObjectId(bytes(20)), NOW + n, seen, NOW)
    newest = Seen.of(dict.fromkeys(others, NOW + MAX_REFS))
    record = by_hand(CHAIN, ALICE, full, seq=NOW + MAX_REFS, seen=newest, head_seen=newest)
    assert 3_000_000 < len(record.entries_bytes) < MAX_ENTRIES_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 2**63},
        {"seq": 0, "time_ms": 0},
        {"seq": 2**63},
        {"time_ms": NOW + 1},
        {"time_ms": -1},
        {"identity_hash": b""},
        {"previous": bytes(31)},
        {"head": "refs/tags/v1"},
        {"head": "main"},
    ],
)
def test_header_with_a_bad_field_cannot_be_made(change: Any) -> None:
    with pytest.raises(InvalidRefs):
        by_hand(CHAIN, ALICE, {}, head_seq=1, **change)


@pytest.mark.parametrize(
    ("index", "value"),
    [(0, 2), (0, True), (1, bytes(31)), (3, True), (5, None), (8, b"x"), (9, bytes(31))],
)
def test_header_body_with_a_value_of_another_type_is_refused(index: int, value: Value) -> None:
    fields = canonical.decode(simple().header.body, Bounds(10_000))
    assert isinstance(fields, list)
    fields[index] = value
    with pytest.raises(InvalidRefs):
        Header.decode_body(canonical.encode(fields))


@pytest.mark.parametrize(("seq", "forced"), [(0, 0), (2**63, 0), (1, 2), (1, -1)])
def test_entry_numbers_are_bounded(seq: int, forced: int) -> None:
    with pytest.raises(InvalidRefs):
        Entry(oid(1), seq, Seen(), forced)


def test_names_are_checked_when_entries_are_made() -> None:
    with pytest.raises(InvalidRefs):
        Entries({"HEAD": Entry(oid(1), 1, Seen())}, Seen(), 1, Seen())
