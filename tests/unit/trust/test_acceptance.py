"""What a replica does with a record that it is offered."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts import canonical
from guts.canonical import Value
from guts.errors import PeerFault, Severity
from guts.trust.acceptance import (
    MAX_AHEAD_MS,
    MAX_BRIDGE,
    Ahead,
    Decision,
    Duplicate,
    Fork,
    Gap,
    InconsistentRefs,
    InvalidBridge,
    Known,
    NeedsIdentity,
    New,
    NotMaintainer,
    OtherIdentity,
    PastLimit,
    RefChange,
    Stale,
    Suspended,
    Unseen,
    WrongRepository,
    accept,
    ref_changes,
    settles,
)
from guts.trust.chain import IdentityChain
from guts.trust.entries import Entry, Seen
from guts.trust.equivocation import EquivocationProof, InvalidProof
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedHeader, SignedRefs
from tests.unit.trust.world import (
    ALICE,
    BOB,
    DEV,
    EVE,
    MAIN,
    NOW,
    by_hand,
    chain,
    oid,
    publish,
)

CHAIN = chain(ALICE)


def known(record: SignedRefs) -> Known:
    return Known(record.seq, record.hash)


def history(length: int, identity: IdentityChain = CHAIN) -> list[SignedRefs]:
    """Return so many records of Alice, each after the one before."""
    made: list[SignedRefs] = []
    for number in range(length):
        made.append(publish(identity, ALICE, made[-1] if made else None, {MAIN: oid(number)}))
    return made


def headers(*records: SignedRefs) -> list[SignedHeader]:
    return [record.signed_header for record in records]


def test_first_and_next_records_are_new() -> None:
    first, second = history(2)
    assert accept(CHAIN, None, first, [], NOW) == New()
    assert accept(CHAIN, known(first), second, [], NOW) == New()


def test_first_sight_needs_no_history() -> None:
    assert accept(CHAIN, None, history(4)[-1], [], NOW) == New()


def test_same_record_again_is_a_duplicate() -> None:
    first, _ = history(2)
    assert accept(CHAIN, known(first), first, [], NOW) == Duplicate()


def test_rollback_and_replay_of_an_older_record_change_nothing() -> None:
    first, second, third = history(3)
    for older in (first, second):
        assert accept(CHAIN, known(third), older, [], NOW) == Stale()
        assert accept(CHAIN, known(third), older, headers(first, second), NOW) == Stale()


def test_record_of_another_repository_is_refused() -> None:
    other = chain(ALICE, name="other")
    with pytest.raises(WrongRepository):
        accept(other, None, history(1)[0], [], NOW)


def test_record_by_a_stranger_is_refused() -> None:
    with pytest.raises(NotMaintainer):
        accept(CHAIN, None, by_hand(CHAIN, EVE, {}), [], NOW)


def test_record_of_a_later_epoch_waits_for_the_identity() -> None:
    later = CHAIN.extend(CHAIN.successor(created_ms=NOW, nonce=bytes(16)).sign(ALICE))
    record = publish(later, ALICE, None, {MAIN: oid(1)})
    assert accept(CHAIN, None, record, [], NOW) == NeedsIdentity(1)
    assert accept(later, None, record, [], NOW) == New()


def test_record_of_an_earlier_epoch_is_still_accepted() -> None:
    later = CHAIN.extend(CHAIN.successor(created_ms=NOW, nonce=bytes(16)).sign(ALICE))
    assert accept(later, None, history(1)[0], [], NOW) == New()


def test_record_under_another_document_of_that_epoch_is_told_apart() -> None:
    record = by_hand(CHAIN, ALICE, {}, identity_hash=bytes(32))
    assert accept(CHAIN, None, record, [], NOW) == OtherIdentity(0)


def test_maintainer_of_a_later_epoch_only_cannot_sign_for_an_earlier_one() -> None:
    both = (ALICE.author_id, BOB.author_id)
    document = CHAIN.successor(created_ms=NOW, nonce=bytes(16), maintainers=both)
    later = CHAIN.extend(document.sign(ALICE, BOB))
    with pytest.raises(NotMaintainer):
        accept(later, None, by_hand(later, BOB, {}, epoch=0, identity_hash=CHAIN.hash), [], NOW)
    assert accept(later, None, by_hand(later, BOB, {}), [], NOW) == New()


def test_removed_maintainer_counts_up_to_the_freeze_point() -> None:
    before = chain(ALICE, BOB, threshold=1)
    first, second, third = history(3, before)
    point = AuthorPoint(ALICE.author_id, second.seq, second.hash)
    document = before.successor(created_ms=NOW, nonce=bytes(16), maintainers=(BOB.author_id,), removed=(point,))
    after = before.extend(document.sign(BOB))
    assert accept(after, None, first, [], NOW) == New()
    assert accept(after, known(first), second, [], NOW) == New()
    assert accept(after, known(second), third, [], NOW) == PastLimit()
    twin = by_hand(before, ALICE, {}, seq=second.seq)
    assert accept(after, None, twin, [], NOW) == PastLimit()
    with pytest.raises(NotMaintainer):
        accept(after, None, by_hand(after, ALICE, {}), [], NOW)


@pytest.mark.parametrize(("ahead", "expected"), [(0, New()), (1, Ahead(NOW + 1))])
def test_record_more_than_10_minutes_ahead_waits(ahead: int, expected: Decision) -> None:
    record = publish(CHAIN, ALICE, None, {MAIN: oid(1)}, now=NOW + MAX_AHEAD_MS + ahead)
    assert accept(CHAIN, None, record, [], NOW) == expected
    assert accept(CHAIN, None, record, [], NOW + ahead) == New()


def test_seq_ahead_of_the_clock_waits_even_if_the_time_is_not() -> None:
    record = by_hand(CHAIN, ALICE, {}, seq=NOW + 2 * MAX_AHEAD_MS, time_ms=NOW)
    assert accept(CHAIN, None, record, [], NOW) == Ahead(NOW + MAX_AHEAD_MS)


def test_record_that_saw_more_than_is_known_waits() -> None:
    seen = Seen.of({BOB.author_id: 5})
    record = by_hand(CHAIN, ALICE, {}, seen=seen)
    assert accept(CHAIN, None, record, [], NOW) == Unseen(seen.pairs)
    assert accept(CHAIN, None, record, [], NOW, others={BOB.author_id: 4}) == Unseen(seen.pairs)
    assert accept(CHAIN, None, record, [], NOW, others={BOB.author_id: 5}) == New()


def test_gap_is_bridged_by_headers() -> None:
    made = history(6)
    newest = made[-1]
    assert accept(CHAIN, known(made[0]), newest, [], NOW) == Gap(made[4].hash, newest.seq)
    assert accept(CHAIN, known(made[0]), newest, headers(*made[3:5]), NOW) == Gap(made[2].hash, made[3].seq)
    assert accept(CHAIN, known(made[0]), newest, headers(*made[1:5]), NOW) == New()


def test_bridge_may_begin_before_the_known_record() -> None:
    made = history(6)
    assert accept(CHAIN, known(made[2]), made[-1], headers(*made[:5]), NOW) == New()


def test_bridge_that_does_not_lead_anywhere_is_refused() -> None:
    made = history(6)
    for bridge in (headers(*made[1:4]), headers(*reversed(made[1:5])), headers(made[1], made[3], made[4])):
        with pytest.raises(InvalidBridge):
            accept(CHAIN, known(made[0]), made[5], bridge, NOW)


def test_bridge_with_headers_of_another_author_or_repository_is_refused() -> None:
    made = history(4)
    both = chain(ALICE, BOB)
    for stranger in (by_hand(both, BOB, {}), by_hand(chain(ALICE, name="other"), ALICE, {})):
        newest = by_hand(CHAIN, ALICE, {}, seq=NOW + 9, previous=stranger.hash)
        with pytest.raises(InvalidBridge, match="another author"):
            accept(CHAIN, known(made[0]), newest, headers(stranger), NOW)


def test_bridge_whose_seqs_do_not_rise_is_refused() -> None:
    first = by_hand(CHAIN, ALICE, {}, seq=NOW)
    higher = by_hand(CHAIN, ALICE, {}, seq=NOW + 9, previous=first.hash)
    lower = by_hand(CHAIN, ALICE, {}, seq=NOW + 5, previous=higher.hash)
    with pytest.raises(InvalidBridge, match="follow"):
        accept(CHAIN, known(first), lower, headers(higher), NOW)


def test_bridge_has_at_most_1000_headers() -> None:
    first = by_hand(CHAIN, ALICE, {}, seq=NOW)
    made = [first]
    for _ in range(MAX_BRIDGE + 1):
        made.append(by_hand(CHAIN, ALICE, {}, seq=made[-1].seq + 1, previous=made[-1].hash))
    assert accept(CHAIN, known(first), made[-1], headers(*made[1:-1]), NOW) == New()
    with pytest.raises(InvalidBridge, match="more than"):
        accept(CHAIN, known(first), made[-1], headers(*made[:-1]), NOW)


def test_two_records_of_one_seq_are_equivocation() -> None:
    first = history(1)[0]
    twin = publish(CHAIN, ALICE, None, {MAIN: oid(9)})
    assert twin.seq == first.seq
    decision = accept(CHAIN, known(first), twin, [], NOW)
    assert decision == Fork(twin.signed_header, None)
    proof = decision.proof(first.signed_header)
    assert EquivocationProof.decode(proof.encode()) == proof
    assert (proof.author, proof.split_seq, proof.epoch) == (ALICE.author_id, first.seq, 0)
    # Whoever holds the other record makes the same proof.
    reverse = accept(CHAIN, known(twin), first, [], NOW)
    assert isinstance(reverse, Fork)
    assert reverse.proof(twin.signed_header) == proof


def forked() -> tuple[SignedRefs, SignedRefs, list[SignedRefs]]:
    """Return a common record, one after it, and a longer other branch after it."""
    common = history(1)[0]
    ours = publish(CHAIN, ALICE, common, {MAIN: oid(1)}, now=NOW + 5)
    theirs = [common]
    for number in (2, 8, 9):
        theirs.append(publish(CHAIN, ALICE, theirs[-1], {MAIN: oid(20 + number)}, now=NOW + number))
    return common, ours, theirs[1:]


def test_newer_record_whose_history_passes_the_known_one_by_is_equivocation() -> None:
    _, ours, theirs = forked()
    decision = accept(CHAIN, known(ours), theirs[-1], headers(*theirs[:-1]), NOW)
    assert decision == Fork(theirs[1].signed_header, theirs[0].signed_header)
    proof = decision.proof(ours.signed_header)
    assert EquivocationProof.decode(proof.encode()) == proof
    assert proof.split_seq == ours.seq


def test_newer_record_that_shares_only_the_seq_with_the_known_one_is_equivocation() -> None:
    common = history(1)[0]
    ours = publish(CHAIN, ALICE, common, {MAIN: oid(1)})
    theirs = publish(CHAIN, ALICE, common, {MAIN: oid(2)})
    newest = publish(CHAIN, ALICE, theirs, {MAIN: oid(3)})
    decision = accept(CHAIN, known(ours), newest, headers(theirs), NOW)
    assert decision == Fork(theirs.signed_header, None)
    assert decision.proof(ours.signed_header).split_seq == ours.seq


def test_newer_record_without_any_history_is_equivocation() -> None:
    first = history(1)[0]
    restart = publish(CHAIN, ALICE, None, {MAIN: oid(9)}, now=NOW + 5)
    decision = accept(CHAIN, known(first), restart, [], NOW)
    assert decision == Fork(restart.signed_header, None)
    proof = decision.proof(first.signed_header)
    assert EquivocationProof.decode(proof.encode()) == proof


def test_honest_headers_never_make_a_proof() -> None:
    made = headers(*history(5))
    for first, second in itertools.permutations(made, 2):
        for predecessor in (None, *made):
            with pytest.raises(InvalidProof):
                EquivocationProof(first, second, predecessor)


def test_proof_needs_headers_of_one_author_in_one_repository_in_order() -> None:
    _, ours, theirs = forked()
    good = EquivocationProof.of(ours.signed_header, theirs[1].signed_header, theirs[0].signed_header)
    both, other = chain(ALICE, BOB), chain(ALICE, name="other")
    for stranger in (by_hand(both, BOB, {}), by_hand(other, ALICE, {})):
        with pytest.raises(InvalidProof):
            EquivocationProof(ours.signed_header, stranger.signed_header)
    with pytest.raises(InvalidProof):
        EquivocationProof(good.second, good.first, good.predecessor)
    twin = publish(CHAIN, ALICE, None, {MAIN: oid(9)}).signed_header
    first = history(1)[0].signed_header
    low, high = sorted([first, twin], key=lambda signed: signed.header.hash)
    assert EquivocationProof(low, high)
    for parts in ((high, low, None), (low, high, first), (low, low, None)):
        with pytest.raises(InvalidProof):
            EquivocationProof(*parts)


def test_author_who_equivocated_is_suspended_until_reaffirmed() -> None:
    common, ours, theirs = forked()
    proof = EquivocationProof.of(ours.signed_header, theirs[1].signed_header, theirs[0].signed_header)
    assert not settles(CHAIN, proof)
    more = publish(CHAIN, ALICE, ours, {MAIN: oid(3)}, now=NOW + 20)
    assert accept(CHAIN, known(ours), more, [], NOW, proofs={proof.author: proof}) == Suspended()
    assert accept(CHAIN, None, common, [], NOW, proofs={proof.author: proof}) == New()
    point = AuthorPoint(ALICE.author_id, ours.seq, ours.hash)
    later = CHAIN.extend(CHAIN.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(ALICE))
    assert settles(later, proof)
    assert accept(later, known(common), ours, [], NOW, proofs={proof.author: proof}) == New()
    assert accept(later, known(ours), theirs[-1], [], NOW, proofs={proof.author: proof}) == PastLimit()
    again = publish(later, ALICE, ours, {MAIN: oid(3)}, now=NOW + 20)
    assert accept(later, known(ours), again, [], NOW, proofs={proof.author: proof}) == New()


def test_changes_are_forward_unless_marked_since_the_held_record() -> None:
    held = publish(CHAIN, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    forward = publish(CHAIN, ALICE, held, {MAIN: oid(3), DEV: oid(2)})
    assert ref_changes(held, forward) == (RefChange(MAIN, oid(1), oid(3), allowed=False),)
    pushed = publish(CHAIN, ALICE, held, {MAIN: oid(3), DEV: oid(2)}, forced={MAIN})
    assert ref_changes(held, pushed) == (RefChange(MAIN, oid(1), oid(3), allowed=True),)
    deleted = publish(CHAIN, ALICE, held, {MAIN: oid(1)})
    assert ref_changes(held, deleted) == (RefChange(DEV, oid(2), None, allowed=True),)
    assert ref_changes(None, deleted) == ()
    assert ref_changes(held, held) == ()


def test_replica_that_missed_the_forced_record_can_still_check() -> None:
    held = publish(CHAIN, ALICE, None, {MAIN: oid(1)})
    forced = publish(CHAIN, ALICE, held, {MAIN: oid(2)}, forced={MAIN})
    newest = publish(CHAIN, ALICE, forced, {MAIN: oid(3)})
    assert ref_changes(held, newest) == (RefChange(MAIN, oid(1), oid(3), allowed=True),)
    assert ref_changes(forced, newest) == (RefChange(MAIN, oid(2), oid(3), allowed=False),)


def test_replica_that_missed_a_deletion_can_still_check() -> None:
    held = publish(CHAIN, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    deleted = publish(CHAIN, ALICE, held, {MAIN: oid(1)})
    dropped = publish(CHAIN, ALICE, deleted, {MAIN: oid(3)})
    assert list(dropped.entries.refs) == [MAIN]
    back = publish(CHAIN, ALICE, dropped, {MAIN: oid(3), DEV: oid(4)})
    assert RefChange(DEV, oid(2), oid(4), allowed=True) in ref_changes(held, back)
    straight_back = publish(CHAIN, ALICE, deleted, {MAIN: oid(1), DEV: oid(4)})
    assert ref_changes(held, straight_back) == (RefChange(DEV, oid(2), oid(4), allowed=True),)
    assert ref_changes(deleted, straight_back) == ()


def test_entry_that_changes_under_an_old_seq_is_refused() -> None:
    held = publish(CHAIN, ALICE, None, {MAIN: oid(1)})
    entry = held.entries.refs[MAIN]
    for changed in (
        Entry(oid(2), entry.seq, entry.seen, entry.forced),
        Entry(oid(1), entry.seq, entry.seen, entry.seq),
        Entry(oid(1), entry.seq - 1, entry.seen, entry.forced),
    ):
        record = by_hand(CHAIN, ALICE, {MAIN: changed}, seq=NOW + 1, previous=held.hash, head_seq=NOW)
        with pytest.raises(InconsistentRefs) as refused:
            ref_changes(held, record)
        assert refused.value.severity is Severity.MINOR
    new = by_hand(CHAIN, ALICE, {MAIN: entry, DEV: Entry(oid(1), NOW, Seen())}, seq=NOW + 1, head_seq=NOW)
    with pytest.raises(InconsistentRefs):
        ref_changes(held, new)


def test_head_that_changes_under_an_old_seq_is_refused() -> None:
    held = publish(CHAIN, ALICE, None, {})
    moved = by_hand(CHAIN, ALICE, {}, seq=NOW + 1, head=DEV, head_seq=NOW)
    with pytest.raises(InconsistentRefs, match="HEAD"):
        ref_changes(held, moved)
    assert ref_changes(held, by_hand(CHAIN, ALICE, {}, seq=NOW + 1, head=DEV)) == ()


def test_acceptance_never_goes_back_whatever_the_order() -> None:
    made = history(5)
    for order in itertools.permutations(made, 3):
        newest: Known | None = None
        seqs: list[int] = []
        for record in order:
            decision = accept(CHAIN, newest, record, headers(*made[: made.index(record)]), NOW)
            if decision == New():
                newest = known(record)
                seqs.append(record.seq)
            else:
                assert decision == Stale()
        assert seqs == sorted(seqs)
        assert newest == known(max(order, key=lambda record: record.seq))


@given(st.binary(max_size=200))
def test_garbage_is_no_proof(data: bytes) -> None:
    with pytest.raises(PeerFault):
        EquivocationProof.decode(data)


@pytest.mark.parametrize("value", [[], [b"", b""], [b"", b"", None], 7])
def test_other_shapes_are_no_proof(value: Value) -> None:
    with pytest.raises(InvalidProof):
        EquivocationProof.decode(canonical.encode(value))


def test_fork_right_before_the_known_record_is_noticed() -> None:
    common = by_hand(CHAIN, ALICE, {}, seq=NOW)
    ours = by_hand(CHAIN, ALICE, {}, seq=NOW + 1, previous=common.hash)
    theirs = by_hand(CHAIN, ALICE, {}, seq=NOW + 2, previous=common.hash)
    decision = accept(CHAIN, known(ours), theirs, headers(common), NOW)
    assert decision == Fork(theirs.signed_header, common.signed_header)
    assert decision.proof(ours.signed_header).split_seq == ours.seq
    assert accept(CHAIN, known(ours), theirs, [], NOW) == Gap(common.hash, theirs.seq)


def test_author_goes_on_from_the_reaffirmed_record_past_those_cut_off() -> None:
    common, ours, theirs = forked()
    point = AuthorPoint(ALICE.author_id, common.seq, common.hash)
    later = CHAIN.extend(CHAIN.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(ALICE))
    on = publish(later, ALICE, common, {MAIN: oid(3)}, now=NOW + 20)
    assert accept(later, known(common), on, [], NOW) == New()
    # It passes ours and theirs by. That is what the document asks for, and no second history.
    for cut_off in (ours, theirs[0]):
        proof = EquivocationProof.of(cut_off.signed_header, on.signed_header, common.signed_header)
        assert not settles(CHAIN, proof)
        assert settles(later, proof)
        assert accept(later, known(common), on, [], NOW, proofs={proof.author: proof}) == New()
    # Two new histories after it are one again.
    twin = publish(later, ALICE, common, {MAIN: oid(4)}, now=NOW + 20)
    assert not settles(later, EquivocationProof.of(on.signed_header, twin.signed_header, None))


def test_replica_on_the_other_branch_follows_the_reaffirmed_one() -> None:
    _, ours, theirs = forked()
    point = AuthorPoint(ALICE.author_id, theirs[-1].seq, theirs[-1].hash)
    later = CHAIN.extend(CHAIN.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(ALICE))
    assert isinstance(accept(CHAIN, known(ours), theirs[-1], headers(*theirs[:-1]), NOW), Fork)
    assert accept(later, known(ours), theirs[-1], [], NOW) == New()
    on = publish(later, ALICE, theirs[-1], {MAIN: oid(3)}, now=NOW + 20)
    assert accept(later, known(ours), on, [], NOW) == New()
    further = publish(later, ALICE, on, {MAIN: oid(4)}, now=NOW + 21)
    assert accept(later, known(ours), further, headers(on), NOW) == New()
    assert accept(later, known(ours), further, headers(theirs[-1], on), NOW) == New()


def test_record_that_has_seen_the_future_waits_also_where_its_author_is_limited() -> None:
    """Or one maintainer could make another sign a seq that no replica takes."""
    two = chain(ALICE, BOB, threshold=1)
    point = AuthorPoint(ALICE.author_id, 5, bytes(32))
    document = two.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,))
    limited = two.extend(document.sign(ALICE))
    for ahead in (0, 1):
        seen = Seen.of({ALICE.author_id: NOW + MAX_AHEAD_MS + ahead})
        record = by_hand(limited, BOB, {}, seen=seen)
        decision = accept(limited, None, record, (), NOW, others={ALICE.author_id: 5})
        assert isinstance(decision, Ahead if ahead else New)
