"""Older entries made again from newer ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts import canonical
from guts.errors import PeerFault
from guts.trust.deltas import apply_delta, make_delta
from guts.trust.entries import Entries, Entry, Seen
from tests.unit.trust.world import BOB, CAROL, oid

REFS = ("refs/heads/a", "refs/heads/b", "refs/heads/c", "refs/tags/v1")

_seen = st.sampled_from([Seen(), Seen.of({BOB.author_id: 3}), Seen.of({BOB.author_id: 3, CAROL.author_id: 9})])
_entry = st.builds(
    lambda target, seq, seen: Entry(None if target is None else oid(target), seq, seen, 0 if target else seq),
    st.none() | st.integers(1, 3),
    st.integers(1, 5),
    _seen,
)
ALL = Seen.of({BOB.author_id: 5, CAROL.author_id: 9})
_entries = st.builds(
    lambda refs, head: Entries(refs, ALL, head, Seen()),
    st.dictionaries(st.sampled_from(REFS), _entry),
    st.integers(1, 5),
)


@given(_entries, st.none() | _entries)
def test_older_entries_come_out_as_they_were(older: Entries, newer: Entries | None) -> None:
    assert apply_delta(make_delta(older, newer), newer).encode() == older.encode()


@given(_entries, _entries, st.binary(max_size=60), st.integers(0, 200))
def test_damaged_delta_raises_peer_faults_alone(older: Entries, newer: Entries, junk: bytes, at: int) -> None:
    delta = make_delta(older, newer)
    for damaged in (junk, delta[:at] + junk + delta[at + len(junk) :], delta + junk, delta[:at]):
        try:
            apply_delta(damaged, newer)
        except PeerFault:
            continue


def test_delta_is_as_small_as_the_change() -> None:
    refs = {f"refs/heads/{number:04}": Entry(oid(number), 1, Seen()) for number in range(1000)}
    older = Entries(refs, Seen(), 1, Seen())
    newer = Entries({**refs, "refs/heads/0007": Entry(oid(7_000), 2, Seen())}, Seen(), 1, Seen())
    assert len(make_delta(older, newer)) < 100 < len(older.encode()) // 100


def test_delta_that_drops_what_is_not_there_is_refused() -> None:
    entries = Entries({}, Seen(), 1, Seen())
    for dropped in ("refs/heads/a", 7):
        with pytest.raises(PeerFault, match="another record"):
            apply_delta(canonical.encode([entries.encode(), [dropped]]), entries)
    with pytest.raises(PeerFault, match="not a delta"):
        apply_delta(canonical.encode([entries.encode()]), entries)
