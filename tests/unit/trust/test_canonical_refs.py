"""The refs of a repository, from every maintainer's newest record."""

import itertools
import random

import pytest

from guts.ids import AuthorId, ObjectId
from guts.trust.canonical_refs import (
    MAX_QUESTIONS,
    Conflict,
    ancestor_questions,
    canonical_refs,
    counting,
    within_limit,
)
from guts.trust.entries import MAX_REFS, Entry, Seen
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedRefs
from tests.unit.trust.world import (
    ALICE,
    BOB,
    CAROL,
    DEV,
    EVE,
    MAIN,
    NOW,
    by_hand,
    chain,
    key,
    oid,
    publish,
    records,
)

THREE = chain(ALICE, BOB, CAROL, threshold=1)
A, B, C = ALICE.author_id, BOB.author_id, CAROL.author_id


def entry(number: int | None, seq: int, **seen: int) -> Entry:
    """Return an entry whose author had seen ``seen``, by name."""
    vector = Seen.of({key(name).author_id: value for name, value in seen.items()})
    return Entry(None if number is None else oid(number), seq, vector, seq)


def test_one_maintainer_is_shown_as_signed() -> None:
    one = chain(ALICE)
    record = publish(one, ALICE, None, {MAIN: oid(1), DEV: oid(2)}, head=DEV)
    result = canonical_refs(one, records(record))
    assert dict(result.refs) == {MAIN: oid(1), DEV: oid(2)}
    assert list(result.refs) == [DEV, MAIN]
    assert (result.head, result.conflicts) == (DEV, ())


def test_nothing_signed_yet() -> None:
    result = canonical_refs(THREE, {})
    assert (dict(result.refs), result.head) == ({}, MAIN)


def test_deleted_refs_are_not_shown() -> None:
    one = chain(ALICE)
    first = publish(one, ALICE, None, {MAIN: oid(1), DEV: oid(2)})
    second = publish(one, ALICE, first, {MAIN: oid(1)})
    assert dict(canonical_refs(one, records(second)).refs) == {MAIN: oid(1)}


def test_strangers_do_not_count() -> None:
    record = by_hand(THREE, EVE, {MAIN: entry(1, 1)})
    assert counting(THREE, records(record)) == []
    assert dict(canonical_refs(THREE, records(record)).refs) == {}


def test_value_that_another_has_seen_is_superseded() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20, alice=10)}, seen=Seen.of({A: 10}))
    assert dict(canonical_refs(THREE, records(alice, bob)).refs) == {MAIN: oid(2)}
    # What Alice set later, Bob has not seen.
    newer = by_hand(THREE, ALICE, {MAIN: entry(3, 11)})
    result = canonical_refs(THREE, records(newer, bob))
    assert result.refs[MAIN] == oid(3)
    assert result.conflicts == (Conflict(MAIN, B, oid(2)),)


def test_fast_forward_wins_over_order_of_maintainers() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20)})
    both = records(alice, bob)
    assert ancestor_questions(THREE, both) == {(oid(1), oid(2)), (oid(2), oid(1))}
    result = canonical_refs(THREE, both, {(oid(1), oid(2))})
    assert (dict(result.refs), result.conflicts) == ({MAIN: oid(2)}, ())


def test_without_fast_forward_the_first_listed_is_shown_and_the_rest_kept_beside() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20)})
    carol = by_hand(THREE, CAROL, {MAIN: entry(3, 30)})
    result = canonical_refs(THREE, records(carol, bob, alice))
    assert dict(result.refs) == {
        MAIN: oid(1),
        f"refs/guts/conflict/{B}/{MAIN}": oid(2),
        f"refs/guts/conflict/{C}/{MAIN}": oid(3),
    }
    assert sorted(result.refs, key=str.encode) == list(result.refs)


def test_value_inside_another_is_no_conflict() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20)})
    carol = by_hand(THREE, CAROL, {MAIN: entry(3, 30)})
    result = canonical_refs(THREE, records(alice, bob, carol), {(oid(1), oid(3))})
    assert result.refs[MAIN] == oid(2)
    assert result.conflicts == (Conflict(MAIN, C, oid(3)),)


def test_tags_with_different_values_are_in_conflict_though_one_contains_the_other() -> None:
    tag = "refs/tags/v1"
    alice = by_hand(THREE, ALICE, {tag: entry(1, 10)})
    bob = by_hand(THREE, BOB, {tag: entry(2, 20)})
    assert ancestor_questions(THREE, records(alice, bob)) == frozenset()
    result = canonical_refs(THREE, records(alice, bob), {(oid(1), oid(2))})
    assert (result.refs[tag], result.conflicts) == (oid(1), (Conflict(tag, B, oid(2)),))


def test_equal_values_are_no_conflict() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(1, 20)})
    assert ancestor_questions(THREE, records(alice, bob)) == frozenset()
    assert dict(canonical_refs(THREE, records(alice, bob)).refs) == {MAIN: oid(1)}


def test_tombstone_loses_against_a_concurrent_value_and_wins_over_a_seen_one() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    unseen = by_hand(THREE, BOB, {MAIN: entry(None, 20)})
    assert dict(canonical_refs(THREE, records(alice, unseen)).refs) == {MAIN: oid(1)}
    seen = by_hand(THREE, BOB, {MAIN: entry(None, 20, alice=10)}, seen=Seen.of({A: 10}))
    assert dict(canonical_refs(THREE, records(alice, seen)).refs) == {}
    carol = by_hand(THREE, CAROL, {MAIN: entry(3, 30)})
    assert dict(canonical_refs(THREE, records(alice, seen, carol)).refs) == {MAIN: oid(3)}


def test_authors_who_claim_to_have_seen_each_other_hide_nothing() -> None:
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10, bob=20)}, seen=Seen.of({B: 20}))
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20, alice=10)}, seen=Seen.of({A: 10}))
    assert canonical_refs(THREE, records(alice, bob)).refs[MAIN] == oid(1)


def test_ref_and_directory_of_one_name_are_a_conflict() -> None:
    outer, inner = "refs/heads/a", "refs/heads/a/b"
    alice = by_hand(THREE, ALICE, {inner: entry(1, 10)})
    bob = by_hand(THREE, BOB, {outer: entry(2, 20)})
    result = canonical_refs(THREE, records(alice, bob))
    assert dict(result.refs) == {inner: oid(1), f"refs/guts/conflict/{B}/{outer}": oid(2)}
    alice = by_hand(THREE, ALICE, {outer: entry(1, 10)})
    bob = by_hand(THREE, BOB, {inner: entry(2, 20)})
    result = canonical_refs(THREE, records(alice, bob))
    assert dict(result.refs) == {outer: oid(1), f"refs/guts/conflict/{B}/{inner}": oid(2)}
    assert result.conflicts[0].name == f"refs/guts/conflict/{B}/{inner}"


def test_head_is_joined_like_a_ref() -> None:
    alice = publish(THREE, ALICE, None, {MAIN: oid(1), DEV: oid(2)}, head=MAIN)
    bob = publish(THREE, BOB, None, {MAIN: oid(1), DEV: oid(2)}, head=DEV, others=[alice])
    assert canonical_refs(THREE, records(alice, bob)).head == DEV
    # Alice's next push, about something else, does not turn HEAD back.
    again = publish(THREE, ALICE, alice, {MAIN: oid(3), DEV: oid(2)}, head=DEV, others=[bob])
    assert again.header.head == MAIN
    assert canonical_refs(THREE, records(again, bob)).head == DEV
    # Two who set it without knowing of each other: the first listed.
    carol = by_hand(THREE, CAROL, {}, head="refs/heads/carol")
    assert canonical_refs(THREE, records(carol, bob, again)).head == DEV


def test_removed_maintainer_keeps_counting_up_to_the_freeze_point_until_superseded() -> None:
    first = publish(THREE, ALICE, None, {MAIN: oid(1)})
    second = publish(THREE, ALICE, first, {MAIN: oid(2)})
    third = publish(THREE, ALICE, second, {MAIN: oid(3)})
    document = THREE.successor(
        created_ms=NOW,
        nonce=bytes(16),
        maintainers=(C, B),
        removed=(AuthorPoint(A, second.seq, second.hash),),
    )
    after = THREE.extend(document.sign(BOB))
    assert [within_limit(after, record) for record in (first, second, third)] == [True, True, False]
    assert dict(canonical_refs(after, records(second)).refs) == {MAIN: oid(2)}
    assert dict(canonical_refs(after, records(first)).refs) == {MAIN: oid(1)}
    assert dict(canonical_refs(after, records(third)).refs) == {}
    twin = by_hand(THREE, ALICE, {MAIN: entry(9, 1)}, seq=second.seq)
    assert dict(canonical_refs(after, records(twin)).refs) == {}
    # Those who are maintainers now come before her.
    carol = by_hand(after, CAROL, {MAIN: entry(5, 30)})
    bob = by_hand(after, BOB, {MAIN: entry(4, 20)})
    assert [record.author for record in counting(after, records(second, bob, carol))] == [C, B, A]
    bob = publish(after, BOB, None, {MAIN: oid(7)}, others=[second])
    assert dict(canonical_refs(after, records(second, bob)).refs) == {MAIN: oid(7)}


class Git:
    """Commits with parents, made up, and what contains what."""

    def __init__(self) -> None:
        self.ancestors: dict[ObjectId, frozenset[ObjectId]] = {}

    def commit(self, *parents: ObjectId) -> ObjectId:
        made = oid(len(self.ancestors) + 1)
        self.ancestors[made] = frozenset(parents).union(*(self.ancestors[p] for p in parents))
        return made

    def facts(self) -> frozenset[tuple[ObjectId, ObjectId]]:
        return frozenset((a, d) for d, ancestors in self.ancestors.items() for a in ancestors)


def test_any_order_of_arrival_gives_the_same_refs_and_a_push_that_saw_all_settles_them() -> None:
    people = [ALICE, BOB, CAROL]
    for seed in range(60):
        rng = random.Random(seed)
        git = Git()
        newest: dict[str, SignedRefs] = {}
        views: list[dict[str, SignedRefs]] = [{}, {}, {}]
        for step in range(12):
            who = rng.randrange(3)
            for other in rng.sample(range(3), rng.randint(0, 2)):
                for name, record in views[other].items():
                    if name not in views[who] or views[who][name].seq < record.seq:
                        views[who][name] = record
            mine = str(people[who].author_id)
            view = views[who]
            base = canonical_refs(THREE, records(*view.values()), git.facts())
            wanted = {r: o for r, o in base.refs.items() if not r.startswith("refs/guts/")}
            ref = rng.choice([MAIN, DEV, "refs/heads/dev/x"])
            if ref in wanted and rng.random() < 0.3:
                del wanted[ref]
            else:
                wanted = {r: o for r, o in wanted.items() if not (r + "/").startswith(ref + "/")}
                wanted = {r: o for r, o in wanted.items() if not (ref + "/").startswith(r + "/")}
                wanted[ref] = git.commit(*([base.refs[ref]] if ref in base.refs else []))
            record = publish(
                THREE,
                people[who],
                view.get(mine),
                wanted,
                now=NOW + step,
                head=base.head,
                forced={ref},
                others=[r for name, r in view.items() if name != mine],
                ancestors=git.facts(),
            )
            view[mine] = newest[mine] = record
            # Whoever pushes sees what was pushed; where that frees a name, also what a clash had hidden.
            after = canonical_refs(THREE, records(*view.values()), git.facts())
            shown = {r: o for r, o in after.refs.items() if not r.startswith("refs/guts/")}
            hidden = {conflict.ref for conflict in base.conflicts} - base.refs.keys()
            assert {r: o for r, o in shown.items() if r not in hidden - wanted.keys()} == wanted, f"seed {seed}"
        facts = git.facts()
        results = [canonical_refs(THREE, records(*order), facts) for order in itertools.permutations(newest.values())]
        assert all(result == results[0] for result in results), f"seed {seed}"
        questions = ancestor_questions(THREE, records(*newest.values()))
        assert canonical_refs(THREE, records(*newest.values()), facts & questions) == results[0]


def test_values_that_contain_each_other_are_one_and_the_first_is_shown() -> None:
    # A commit, and an annotated tag of it: git says of both that they contain the other.
    alice = by_hand(THREE, ALICE, {MAIN: entry(1, 10)})
    bob = by_hand(THREE, BOB, {MAIN: entry(2, 20)})
    carol = by_hand(THREE, CAROL, {MAIN: entry(3, 30)})
    same = {(oid(1), oid(2)), (oid(2), oid(1))}
    result = canonical_refs(THREE, records(alice, bob), same)
    assert (dict(result.refs), result.conflicts) == ({MAIN: oid(1)}, ())
    older = {(oid(1), oid(3)), (oid(2), oid(3))}
    assert dict(canonical_refs(THREE, records(alice, bob, carol), same | older).refs) == {MAIN: oid(3)}


def disagreeing(refs: int, *more: str) -> tuple[dict[AuthorId, SignedRefs], frozenset[tuple[ObjectId, ObjectId]]]:
    """Return records of two who differ on ``refs``, of all three on ``more``; Bob's values contain Alice's."""
    names = [f"refs/heads/{number:05}" for number in range(refs)]
    alice = {name: entry(3 * number, 10) for number, name in enumerate([*names, *more])}
    bob = {name: entry(3 * number + 1, 20) for number, name in enumerate([*names, *more])}
    carol = {name: entry(3 * (refs + number) + 2, 30) for number, name in enumerate(more)}
    facts = frozenset((oid(3 * number), oid(3 * number + 1)) for number in range(refs + len(more)))
    return records(by_hand(THREE, ALICE, alice), by_hand(THREE, BOB, bob), by_hand(THREE, CAROL, carol)), facts


def test_two_who_differ_on_every_ref_are_compared_on_all() -> None:
    both, facts = disagreeing(MAX_REFS)
    assert len(ancestor_questions(THREE, both)) == 2 * MAX_REFS == MAX_QUESTIONS // 2
    assert canonical_refs(THREE, both, facts).conflicts == ()


def test_values_past_the_bound_count_as_unrelated_and_refs_of_few_values_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The ref that all three differ on is first by name, and takes 6 of the pairs.
    contended = "refs/heads/-"
    made, facts = disagreeing(4, contended)
    for bound, asked, unrelated in (
        (14, 14, set[str]()),
        (13, 8, {contended}),
        (8, 8, {contended}),
        (7, 6, {contended, "refs/heads/00003"}),
    ):
        monkeypatch.setattr("guts.trust.canonical_refs.MAX_QUESTIONS", bound)
        questions = ancestor_questions(THREE, made)
        assert len(questions) == asked
        result = canonical_refs(THREE, made, facts)
        # Facts that nobody asked for do not make a difference between replicas that have them or not.
        assert result == canonical_refs(THREE, made, facts & questions)
        assert {conflict.ref for conflict in result.conflicts if conflict.author == B} == unrelated
