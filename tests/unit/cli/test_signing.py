"""What an author signs: the record that follows from what everybody signed, and no other."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from guts.cli.answer import Answer
from guts.cli.signing import MAX_SEQ_AHEAD_MS, MAX_TIME_OFFSET_MS, NotAsked, Update, sign_refs
from guts.identity import domain
from guts.ids import ObjectId
from guts.trust.authoring import CannotPublish, Copy, UnsignedRefs, prepare_refs, wanted
from guts.trust.entries import Entry, Seen
from guts.trust.signed_refs import KIND, SignedRefs
from guts.trust.updates import RefUpdate, Updates
from tests.unit.trust.world import ALICE, BOB, DEV, EVE, MAIN, NOW, by_hand, chain, oid, publish

TWO = chain(ALICE, BOB, threshold=1)
OTHER = chain(ALICE, BOB, threshold=1, name="other")
BOBS = publish(TWO, BOB, None, {MAIN: oid(1), DEV: oid(2)})
ALICES = publish(TWO, ALICE, None, {MAIN: oid(1), DEV: oid(2), "refs/heads/mine": oid(3)}, others=[BOBS])
NO_NOTES = Path("/nonexistent/author.key")


def prepared(
    unsigned: UnsignedRefs, records: Iterable[SignedRefs], ancestors: Iterable[tuple[ObjectId, ObjectId]] = ()
) -> Answer:
    """Return what a node answers."""
    encode = base64.b64encode
    return Answer(
        {
            "body": encode(unsigned.body).decode(),
            "entries": encode(unsigned.entries).decode(),
            "records": [
                {"header": encode(record.header_bytes).decode(), "entries": encode(record.entries_bytes).decode()}
                for record in records
            ],
            "ancestors": [{"ancestor": str(old), "descendant": str(new)} for old, new in ancestors],
        }
    )


def next_of_alice(
    wanted: Mapping[str, ObjectId],
    *,
    previous: SignedRefs | None = ALICES,
    forced: frozenset[str] = frozenset(),
    other: SignedRefs = BOBS,
    now: int = NOW + 5,
) -> UnsignedRefs:
    unsigned = prepare_refs(
        TWO,
        ALICE.author_id,
        previous,
        wanted,
        MAIN,
        now,
        forced=forced,
        others={other.author: other},
    )
    assert unsigned is not None
    return unsigned


def signs(
    answer: Answer, refs: Mapping[str, ObjectId], *, force: bool = False, prune: bool = False, now: int = NOW
) -> bytes:
    own_copy = Copy(refs, MAIN, set(refs) if force else set(), prune)
    return sign_refs(ALICE, answer, TWO, own_copy, now, NO_NOTES).signature


def test_author_signs_a_record_that_keeps_what_others_published() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(3)}
    refs, _ = wanted(TWO, ALICE.author_id, ALICES, Copy(mine, MAIN), others={BOB.author_id: BOBS})
    unsigned = next_of_alice(refs)
    signed = sign_refs(ALICE, prepared(unsigned, [ALICES, BOBS]), TWO, Copy(mine, MAIN), NOW, NO_NOTES)
    signature, updates = signed.signature, signed.updates
    assert signed.header == unsigned.header
    assert updates == [Update(MAIN, oid(1), oid(4), forced=False)]
    assert signature == ALICE.sign(domain(KIND), unsigned.body)
    assert unsigned.attach(ALICE.author_id, signature).entries.live() == mine


def test_node_that_deletes_what_others_published_gets_no_signature_unless_asked_to() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(3)}
    answer = prepared(next_of_alice(mine), [ALICES, BOBS])
    with pytest.raises(NotAsked):
        signs(answer, mine)
    assert signs(answer, mine, prune=True)


def test_node_that_drops_an_own_ref_gets_no_signature() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(3)}
    forgetful = next_of_alice({MAIN: oid(4), DEV: oid(2)}, previous=None)
    for records in ([BOBS], [ALICES, BOBS]):
        with pytest.raises(NotAsked):
            signs(prepared(forgetful, records), mine)


def test_node_that_marks_a_change_as_forced_gets_no_signature_unless_asked_to() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(5), DEV: oid(2)}
    answer = prepared(next_of_alice(mine, forced=frozenset({"refs/heads/mine"})), [ALICES, BOBS])
    with pytest.raises(NotAsked):
        signs(answer, mine)
    assert signs(answer, mine, force=True)


def test_node_that_works_with_what_nobody_signed_gets_no_signature() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(3), DEV: oid(2)}
    assert signs(prepared(next_of_alice(mine), [ALICES, BOBS]), mine)
    elsewhere = publish(OTHER, BOB, None, {MAIN: oid(1)})
    stranger = publish(chain(EVE), EVE, None, {MAIN: oid(1)})
    forged = SignedRefs(BOBS.header, BOBS.entries, ALICES.header_bytes, BOBS.entries_bytes)
    for record in (elsewhere, stranger, forged):
        with pytest.raises(NotAsked):
            signs(prepared(next_of_alice(mine, other=record), [ALICES, record]), mine)


def test_branch_that_the_author_is_on_becomes_head_only_where_that_was_asked_for() -> None:
    mine = Copy({MAIN: oid(1), DEV: oid(2), "refs/heads/mine": oid(3)}, DEV)
    unsigned = prepare_refs(TWO, ALICE.author_id, ALICES, mine.refs, DEV, NOW + 5, others={BOB.author_id: BOBS})
    assert unsigned is not None
    answer = prepared(unsigned, [ALICES, BOBS])
    with pytest.raises(NotAsked):
        sign_refs(ALICE, answer, TWO, mine, NOW, NO_NOTES)
    assert sign_refs(ALICE, answer, TWO, replace(mine, move_head=True), NOW, NO_NOTES)


def test_node_with_another_time_gets_no_signature() -> None:
    mine = {MAIN: oid(4), "refs/heads/mine": oid(3), DEV: oid(2)}
    time = NOW + 10 * MAX_TIME_OFFSET_MS
    answer = prepared(next_of_alice(mine, now=time), [ALICES, BOBS])
    for now in (time - MAX_TIME_OFFSET_MS, time + MAX_TIME_OFFSET_MS):
        assert signs(answer, mine, now=now)
    for now in (time - MAX_TIME_OFFSET_MS - 1, time + MAX_TIME_OFFSET_MS + 1):
        with pytest.raises(NotAsked, match="5 minutes"):
            signs(answer, mine, now=now)


def test_node_that_would_use_up_the_seqs_to_come_gets_no_signature() -> None:
    mine = {MAIN: oid(4), DEV: oid(2)}
    for ahead, previous_seq in ((0, NOW + MAX_SEQ_AHEAD_MS - 1), (1, NOW + MAX_SEQ_AHEAD_MS), (2, 2**62)):
        previous = by_hand(TWO, ALICE, {MAIN: Entry(oid(1), NOW, Seen())}, seq=previous_seq, head_seq=NOW)
        answer = prepared(next_of_alice(mine, previous=previous, now=NOW), [previous, BOBS])
        if not ahead:
            assert signs(answer, mine)
        else:
            with pytest.raises(NotAsked, match="10 minutes"):
                signs(answer, mine)


MINE = "refs/heads/mine"
PUSHED = Updates({MAIN: RefUpdate(oid(1), oid(4)), MINE: RefUpdate(oid(3), None)})
AFTER = {MAIN: oid(4), DEV: oid(2)}


def signs_push(answer: Answer, updates: Updates = PUSHED) -> bytes:
    return sign_refs(ALICE, answer, TWO, updates, NOW, NO_NOTES).signature


def test_push_is_signed_as_git_asked_for_it_and_not_otherwise() -> None:
    signed = sign_refs(ALICE, prepared(next_of_alice(AFTER), [ALICES, BOBS]), TWO, PUSHED, NOW, NO_NOTES)
    moved = [(update.ref, update.old, update.new) for update in signed.updates]
    assert moved == [(MAIN, oid(1), oid(4)), (MINE, oid(3), None)]
    elsewhere: list[Mapping[str, ObjectId]] = [
        {MAIN: oid(4)},  # deletes what nobody asked for
        {**AFTER, MINE: oid(3)},  # leaves out what was
        {**AFTER, MAIN: oid(5)},
        {**AFTER, "refs/heads/more": oid(4)},
        {**AFTER, DEV: oid(4)},
    ]
    for refs in elsewhere:
        with pytest.raises(NotAsked):
            signs_push(prepared(next_of_alice(refs), [ALICES, BOBS]))


def test_push_is_marked_as_forced_where_it_names_the_ref_only() -> None:
    forced = prepared(next_of_alice(AFTER, forced=frozenset({MAIN})), [ALICES, BOBS])
    assert signs_push(forced)
    elsewhere = {**AFTER, DEV: oid(5)}
    with pytest.raises(NotAsked):
        signs_push(prepared(next_of_alice(elsewhere, forced=frozenset({DEV})), [ALICES, BOBS]))


def test_push_of_a_ref_that_is_elsewhere_than_git_saw_it_is_not_signed() -> None:
    stale = Updates({MAIN: RefUpdate(oid(9), oid(4)), MINE: RefUpdate(oid(3), None)})
    with pytest.raises(NotAsked, match="not where git saw it"):
        signs_push(prepared(next_of_alice(AFTER), [ALICES, BOBS]), stale)


def test_push_moves_head_where_that_was_asked_for_only() -> None:
    unsigned = prepare_refs(TWO, ALICE.author_id, ALICES, AFTER, DEV, NOW + 5, others={BOB.author_id: BOBS})
    assert unsigned is not None
    answer = prepared(unsigned, [ALICES, BOBS])
    with pytest.raises(NotAsked):
        signs_push(answer)
    assert signs_push(answer, replace(PUSHED, head=DEV))


def test_head_that_would_point_at_no_branch_is_not_signed() -> None:
    nowhere = "refs/heads/nope"
    unsigned = prepare_refs(TWO, ALICE.author_id, ALICES, AFTER, nowhere, NOW + 5, others={BOB.author_id: BOBS})
    assert unsigned is not None
    answer = prepared(unsigned, [ALICES, BOBS])
    with pytest.raises(CannotPublish, match="no such branch"):
        signs_push(answer, replace(PUSHED, head=nowhere))
    # As many refs as the node says are left of the push, none: HEAD is not moved by what is refused.
    alone = prepare_refs(
        TWO,
        ALICE.author_id,
        ALICES,
        {MAIN: oid(1), DEV: oid(2), MINE: oid(3)},
        nowhere,
        NOW + 5,
        others={BOB.author_id: BOBS},
    )
    assert alone is not None
    with pytest.raises(NotAsked):
        signs_push(prepared(alone, [ALICES, BOBS]), replace(PUSHED, head=nowhere).without(PUSHED.refs))
