"""The next record of an author."""

from collections.abc import Mapping, Set

import pytest

from guts.errors import PeerFault
from guts.identity import SigningKey, domain
from guts.ids import AuthorId, ObjectId
from guts.trust.acceptance import Known, New, accept
from guts.trust.authoring import CannotPublish, Copy, UnsignedRefs, own_moves, prepare_refs, wanted
from guts.trust.canonical_refs import AncestorFacts, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.entries import MAX_REFS, MAX_SEEN_AUTHORS, Entry, Seen
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedRefs
from tests.unit.trust.world import ALICE, BOB, DEV, EVE, MAIN, NOW, by_hand, chain, key, oid, publish, records

ONE = chain(ALICE)
TWO = chain(ALICE, BOB, threshold=1)
A, B = ALICE.author_id, BOB.author_id


def prepare(previous: SignedRefs | None, wanted: dict[str, ObjectId], head: str = MAIN) -> UnsignedRefs | None:
    return prepare_refs(ONE, A, previous, wanted, head, NOW)


def test_first_record_has_no_predecessor_and_nothing_forced() -> None:
    record = publish(ONE, ALICE, None, {MAIN: oid(1)})
    assert record.header.previous == b""
    assert (record.seq, record.header.time_ms, record.header.epoch) == (NOW, NOW, 0)
    assert record.entries.refs == {MAIN: Entry(oid(1), NOW, Seen(), 0)}
    assert record.header.identity_hash == ONE.hash


def test_repository_without_refs_can_be_published() -> None:
    assert publish(ONE, ALICE, None, {}).tips() == frozenset()


def test_next_record_follows_and_keeps_what_did_not_change() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    second = publish(ONE, ALICE, first, {MAIN: oid(3), DEV: oid(2)}, now=NOW + 50)
    assert second.header.previous == first.hash
    assert second.seq == NOW + 50
    assert second.entries.refs[DEV] == first.entries.refs[DEV]
    assert second.entries.refs[MAIN] == Entry(oid(3), NOW + 50, Seen(), 0)
    assert accept(ONE, Known(first.seq, first.hash), second, [], NOW) == New()


def test_seq_rises_even_if_the_clock_goes_back() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1)})
    second = publish(ONE, ALICE, first, {MAIN: oid(2)}, now=NOW - 10_000)
    assert (second.seq, second.header.time_ms) == (NOW + 1, NOW - 10_000)


def test_nothing_changed_is_reported() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    assert prepare(first, {MAIN: oid(1), DEV: oid(2)}) is None
    assert prepare(first, {MAIN: oid(1)}) is not None
    assert prepare(first, {MAIN: oid(1), DEV: oid(2)}, head=DEV) is not None
    deleted = publish(ONE, ALICE, first, {MAIN: oid(1)})
    assert prepare(deleted, {MAIN: oid(1)}) is None


def test_new_maintainer_with_nothing_to_change_signs_nothing() -> None:
    alice = publish(TWO, ALICE, None, {MAIN: oid(1)})
    assert prepare_refs(TWO, B, None, {MAIN: oid(1)}, MAIN, NOW, others=records(alice)) is None


def test_head_alone_is_a_change() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    second = publish(ONE, ALICE, first, {MAIN: oid(1), DEV: oid(2)}, head=DEV)
    assert (second.header.head, second.entries.head_seq) == (DEV, second.seq)
    assert second.entries.refs == first.entries.refs
    third = publish(ONE, ALICE, second, {MAIN: oid(3), DEV: oid(2)}, head=DEV)
    assert third.entries.head_seq == second.seq


def test_deletion_leaves_a_tombstone_for_one_record_where_nobody_else_signs() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    second = publish(ONE, ALICE, first, {MAIN: oid(1)})
    assert second.entries.refs[DEV] == Entry(None, second.seq, Seen(), second.seq)
    third = publish(ONE, ALICE, second, {MAIN: oid(3)})
    assert DEV not in third.entries.refs


def test_tombstone_stays_while_another_maintainer_has_an_entry() -> None:
    bob = publish(TWO, BOB, None, {MAIN: oid(1)})
    alice = publish(TWO, ALICE, None, {}, others=[bob])
    assert alice.entries.refs[MAIN].oid is None
    more = publish(TWO, ALICE, alice, {DEV: oid(2)}, others=[bob])
    assert more.entries.refs[MAIN] == alice.entries.refs[MAIN]
    # Bob drops the entry that she superseded; then she can drop the tombstone.
    without = publish(TWO, BOB, bob, {DEV: oid(3)}, others=[more])
    assert MAIN not in without.entries.refs
    last = publish(TWO, ALICE, more, {DEV: oid(4)}, others=[without])
    assert MAIN not in last.entries.refs


def test_forced_changes_carry_their_seq_from_then_on() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1)})
    second = publish(ONE, ALICE, first, {MAIN: oid(2)}, forced={MAIN})
    third = publish(ONE, ALICE, second, {MAIN: oid(3)})
    assert second.entries.refs[MAIN].forced == second.seq
    assert third.entries.refs[MAIN].forced == second.seq


def test_entry_that_had_been_dropped_comes_back_as_forced() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1)})
    second = publish(ONE, ALICE, first, {MAIN: oid(1), DEV: oid(2)})
    assert second.entries.refs[DEV].forced == second.seq


def test_own_moves_are_what_git_must_be_asked_about() -> None:
    first = publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    assert own_moves(None, {MAIN: oid(1)}) == ()
    assert own_moves(first, {MAIN: oid(3), "refs/heads/new": oid(4)}) == ((MAIN, oid(1), oid(3)),)
    assert own_moves(first, {MAIN: oid(1), DEV: oid(2)}) == ()


def test_second_maintainer_signs_only_what_changes_and_supersedes_what_was_seen() -> None:
    alice = publish(TWO, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    bob = publish(TWO, BOB, None, {MAIN: oid(3), DEV: oid(2)}, others=[alice])
    assert list(bob.entries.refs) == [MAIN]
    assert bob.entries.refs[MAIN].seen == Seen.of({A: alice.seq})
    assert dict(canonical_refs(TWO, records(alice, bob)).refs) == {MAIN: oid(3), DEV: oid(2)}
    # What Bob superseded, Alice drops with her next record, which says that it has seen his.
    again = publish(TWO, ALICE, alice, {MAIN: oid(3), DEV: oid(4)}, others=[bob])
    assert list(again.entries.refs) == [DEV]
    assert again.entries.seen == Seen.of({B: bob.seq})
    assert dict(canonical_refs(TWO, records(again, bob)).refs) == {MAIN: oid(3), DEV: oid(4)}


def test_own_value_that_lost_a_conflict_is_kept_until_its_author_pushes() -> None:
    alice = publish(TWO, ALICE, None, {MAIN: oid(1)})
    bob = publish(TWO, BOB, None, {MAIN: oid(2)})
    assert len(canonical_refs(TWO, records(alice, bob)).conflicts) == 1
    kept = publish(TWO, BOB, bob, {MAIN: oid(1), DEV: oid(3)}, others=[alice])
    assert kept.entries.refs[MAIN] == bob.entries.refs[MAIN]
    merged = publish(TWO, BOB, kept, {MAIN: oid(4), DEV: oid(3)}, others=[alice])
    result = canonical_refs(TWO, records(alice, merged))
    assert (dict(result.refs), result.conflicts) == ({MAIN: oid(4), DEV: oid(3)}, ())


def test_own_hidden_value_in_the_way_of_a_new_one_is_withdrawn() -> None:
    outer, inner, other = "refs/heads/a", "refs/heads/a/b", "refs/heads/c"
    for mine, theirs in ((outer, inner), (inner, outer)):
        alice = publish(TWO, ALICE, None, {theirs: oid(1)})
        bob = publish(TWO, BOB, None, {mine: oid(2)})
        kept = publish(TWO, BOB, bob, {theirs: oid(1), other: oid(5)}, others=[alice])
        assert kept.entries.refs[mine] == bob.entries.refs[mine]
        pushed = publish(TWO, BOB, kept, {theirs: oid(3), other: oid(5)}, others=[alice])
        assert pushed.entries.refs[mine].oid is None
        shown = canonical_refs(TWO, records(alice, pushed))
        assert (dict(shown.refs), shown.conflicts) == ({theirs: oid(3), other: oid(5)}, ())


def test_seen_is_joined_with_what_older_entries_had_seen() -> None:
    three = chain(ALICE, BOB, EVE, threshold=1)
    bob = publish(three, BOB, None, {MAIN: oid(1)})
    alice = publish(three, ALICE, None, {MAIN: oid(2)}, others=[bob])
    eve = publish(three, EVE, None, {DEV: oid(3)})
    # Bob's record is not at hand this time; the entry that had seen it stays covered.
    later = publish(three, ALICE, alice, {MAIN: oid(2), DEV: oid(4)}, others=[eve])
    assert later.entries.seen == Seen.of({B: bob.seq, EVE.author_id: eve.seq})


def test_signature_made_elsewhere_is_checked() -> None:
    unsigned = prepare(None, {MAIN: oid(1)})
    assert unsigned is not None
    assert unsigned.header.body == unsigned.body
    good = ALICE.sign(domain("refs"), unsigned.body)
    assert unsigned.attach(A, good).header == unsigned.header
    for author, signature in (
        (A, EVE.sign(domain("refs"), unsigned.body)),
        (A, ALICE.sign(domain("identity"), unsigned.body)),
        (A, b""),
        (B, BOB.sign(domain("refs"), unsigned.body)),
    ):
        with pytest.raises(PeerFault):
            unsigned.attach(author, signature)


@pytest.mark.parametrize(
    "wanted",
    [
        {"HEAD": oid(1)},
        {"refs/heads/a..b": oid(1)},
        {"refs/remotes/origin/main": oid(1)},
        {"refs/heads/\udcff": oid(1)},
        {"refs/heads/a": oid(1), "refs/heads/a/b": oid(1)},
    ],
)
def test_names_that_cannot_be_published_are_told_to_the_person(wanted: dict[str, ObjectId]) -> None:
    with pytest.raises(CannotPublish):
        prepare(None, wanted)


def test_detached_head_and_strangers_are_told() -> None:
    with pytest.raises(CannotPublish, match="not a branch"):
        prepare(None, {MAIN: oid(1)}, head="HEAD")
    with pytest.raises(CannotPublish, match="not a maintainer"):
        prepare_refs(ONE, EVE.author_id, None, {}, MAIN, NOW)


def many(count: int, width: int = 0) -> dict[str, ObjectId]:
    return {f"refs/heads/{n:05}".ljust(width, "x"): oid(1) for n in range(count)}


def test_5000_refs_are_published_and_5001_refused() -> None:
    full = publish(ONE, ALICE, None, many(MAX_REFS))
    assert len(full.tips()) == 1
    with pytest.raises(CannotPublish, match="5001 refs"):
        prepare(None, many(MAX_REFS + 1))
    renamed = {ref + "x": value for ref, value in many(1).items()}
    with pytest.raises(CannotPublish, match="deleted lately"):
        prepare(full, {**dict(list(many(MAX_REFS).items())[1:]), **renamed})


def test_record_over_4_mib_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only with more authors than can be maintainers at once do 5,000 refs come near the real limit.
    size = len(by_hand(ONE, ALICE, {ref: Entry(value, NOW, Seen()) for ref, value in many(50).items()}).entries_bytes)
    monkeypatch.setattr("guts.trust.authoring.MAX_ENTRIES_BYTES", size)
    assert prepare(None, many(50)) is not None
    with pytest.raises(CannotPublish, match="4 MiB"):
        prepare(None, many(51))


def test_seq_is_above_what_others_have_seen_of_records_cut_off_since() -> None:
    both = chain(ALICE, BOB)
    first = publish(both, ALICE, None, {MAIN: oid(1)})
    cut_off = publish(both, ALICE, first, {MAIN: oid(2)}, now=NOW + 50)
    bob = publish(both, BOB, None, {MAIN: oid(3)}, others=[cut_off], forced={MAIN})
    again = publish(both, ALICE, first, {MAIN: oid(4)}, others=[bob], forced={MAIN})
    assert again.seq == cut_off.seq + 1


def test_author_goes_on_from_nothing_but_the_record_that_counts() -> None:
    one = chain(ALICE)
    first = publish(one, ALICE, None, {MAIN: oid(1)})
    counts = publish(one, ALICE, first, {MAIN: oid(2)})
    cut_off = publish(one, ALICE, counts, {MAIN: oid(3)})
    point = AuthorPoint(ALICE.author_id, counts.seq, counts.hash)
    after = one.extend(one.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(ALICE))
    for previous in (None, first, cut_off):
        with pytest.raises(CannotPublish, match="not held here"):
            publish(after, ALICE, previous, {MAIN: oid(4)})
    on = publish(after, ALICE, counts, {MAIN: oid(4)})
    assert publish(after, ALICE, on, {MAIN: oid(5)}).header.previous == on.hash


def copied(
    author: AuthorId,
    own: SignedRefs | None,
    refs: dict[str, ObjectId],
    *,
    others: Mapping[AuthorId, SignedRefs],
    ancestors: AncestorFacts = frozenset(),
    force: Set[str] = frozenset(),
    prune: bool = False,
) -> dict[str, ObjectId]:
    """Return the refs that an author wants whose copy has ``refs``."""
    return wanted(TWO, author, own, Copy(refs, MAIN, force, prune), others=others, ancestors=ancestors)[0]


def test_copy_that_lacks_refs_deletes_none_also_not_its_authors_own() -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(2), "refs/tags/v1": oid(1)}, others=[alices])
    assert set(bobs.entries.live()) == {"refs/tags/v1"}

    bob_lacks_all = copied(B, bobs, {MAIN: oid(1)}, others=records(alices))
    assert bob_lacks_all == {MAIN: oid(1), DEV: oid(2), "refs/tags/v1": oid(1)}
    alice_lacks_all = copied(A, alices, {MAIN: oid(1)}, others=records(bobs))
    assert alice_lacks_all == {MAIN: oid(1), DEV: oid(2), "refs/tags/v1": oid(1)}
    newcomer = copied(B, None, {}, others=records(alices))
    assert newcomer == {MAIN: oid(1), DEV: oid(2)}


def test_copy_that_lacks_a_ref_in_conflict_deletes_nobodys_value() -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(1)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(2)})
    for author, own, other in ((A, alices, bobs), (B, bobs, alices)):
        assert copied(author, own, {}, others=records(other)) == {MAIN: oid(1)}


def test_copy_that_lacks_a_ref_which_another_moved_forward_unseen_keeps_it() -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(1)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(2)})
    assert copied(A, alices, {}, others=records(bobs), ancestors={(oid(1), oid(2))}) == {MAIN: oid(2)}


def test_copy_that_lacks_a_ref_which_another_moved_since_keeps_it() -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(3)}, others=[alices])
    wanted = copied(A, alices, {MAIN: oid(1)}, others=records(bobs))
    assert wanted == {MAIN: oid(1), DEV: oid(3)}
    assert prepare_refs(TWO, A, alices, wanted, MAIN, NOW, others=records(bobs)) is None


def test_branch_that_is_only_behind_is_left_alone_unless_it_is_forced_back() -> None:
    bobs = publish(TWO, BOB, None, {MAIN: oid(2), DEV: oid(3), "refs/tags/v1": oid(2)})
    stale = {MAIN: oid(1), DEV: oid(4), "refs/tags/v1": oid(1)}
    behind = {(oid(1), oid(2))}
    assert copied(A, None, stale, others=records(bobs), ancestors=behind) == {**stale, MAIN: oid(2)}
    assert copied(A, None, stale, others=records(bobs), ancestors=behind, force={MAIN}) == stale
    assert copied(A, None, stale, others=records(bobs)) == stale


def test_refs_that_a_copy_lacks_go_away_where_that_was_asked_for() -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(1)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(3)}, others=[alices])
    assert copied(A, alices, {MAIN: oid(1)}, others=records(bobs), prune=True) == {MAIN: oid(1)}
    own = publish(TWO, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    assert copied(A, own, {MAIN: oid(1)}, others={}, prune=True) == {MAIN: oid(1)}


def test_head_stays_while_its_branch_does_unless_it_is_moved() -> None:
    bobs = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(2)})
    both = {MAIN: oid(1), DEV: oid(2)}

    def head(own_copy: Copy) -> str:
        return wanted(TWO, A, None, own_copy, others=records(bobs))[1]

    assert head(Copy(both, DEV)) == MAIN
    assert head(Copy(both, DEV, move_head=True)) == DEV
    assert head(Copy({DEV: oid(2)}, DEV)) == MAIN, "nobody has deleted it"
    assert head(Copy({DEV: oid(2)}, DEV, prune=True)) == DEV


def test_maintainer_who_was_removed_is_told_so() -> None:
    left = TWO.extend(
        TWO.successor(created_ms=NOW, nonce=bytes(16), maintainers=(A,), removed=(AuthorPoint(B, 0, b""),)).sign(ALICE)
    )
    with pytest.raises(CannotPublish, match="removed, at epoch 1"):
        publish(left, BOB, None, {MAIN: oid(1)})
    with pytest.raises(CannotPublish, match="is not a maintainer"):
        publish(left, EVE, None, {MAIN: oid(1)})


def test_author_with_more_predecessors_than_a_record_tells_of_is_told_so() -> None:
    first, second, third = ([key(f"{name}{number}") for number in range(31)] for name in ("first", "second", "third"))

    def published(identity: IdentityChain, keys: list[SigningKey]) -> list[SignedRefs]:
        return [publish(identity, k, None, {f"refs/heads/{k.author_id}": oid(1)}) for k in keys]

    def replaced(
        identity: IdentityChain, gone: list[SignedRefs], stay: list[SigningKey], new: list[SigningKey]
    ) -> IdentityChain:
        document = identity.successor(
            created_ms=NOW,
            nonce=bytes(16),
            maintainers=tuple(k.author_id for k in (ALICE, *stay, *new)),
            threshold=1,
            removed=tuple(AuthorPoint(record.author, record.seq, record.hash) for record in gone),
        )
        return identity.extend(document.sign(ALICE, *new))

    identity = chain(ALICE, *first, threshold=1)
    others = published(identity, first)
    identity = replaced(identity, others, [], second)
    others += published(identity, second)
    identity = replaced(identity, others[31:34], second[3:], third[:3])
    newest = published(identity, third[:3])
    most = [*others, *newest[:2]]
    assert len(most) == MAX_SEEN_AUTHORS
    assert len(publish(identity, ALICE, None, {MAIN: oid(2)}, others=most).entries.seen.pairs) == MAX_SEEN_AUTHORS
    with pytest.raises(CannotPublish, match="65 other maintainers"):
        publish(identity, ALICE, None, {MAIN: oid(2)}, others=[*others, *newest])


def test_author_goes_on_to_have_seen_what_is_no_longer_held() -> None:
    """Or what another's entry had superseded would be back."""
    bobs = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(2)})
    alices = publish(TWO, ALICE, None, {MAIN: oid(3), DEV: oid(4)}, others=[bobs], forced={MAIN, DEV}, head=DEV)
    further = publish(TWO, ALICE, alices, {MAIN: oid(5)}, forced={MAIN}, head=MAIN)
    assert further.entries.refs[DEV].oid is None
    assert {entry.seen.get(B) for entry in further.entries.refs.values()} == {bobs.seq}
    assert further.entries.head_seen.get(B) == bobs.seq
    assert dict(canonical_refs(TWO, records(bobs, further)).refs) == {MAIN: oid(5)}
