"""What becomes of each ref of a push."""

from collections.abc import Mapping

import pytest

from guts.ids import ObjectId
from guts.trust.canonical_refs import CanonicalRefs, Conflict
from guts.trust.identity_document import RefRule
from guts.trust.updates import (
    ATOMIC,
    RefUpdate,
    Updates,
    is_stale,
    judge,
    protecting,
    questions,
    wanted_after,
)
from tests.unit.trust.world import BOB, DEV, MAIN, oid

TAG = "refs/tags/v1"
BESIDE = Conflict(MAIN, BOB.author_id, oid(8))
FORWARD = frozenset({(oid(1), oid(2)), (oid(2), oid(3)), (oid(1), oid(3))})


def shown(refs: Mapping[str, ObjectId], *conflicts: Conflict, head: str = MAIN) -> CanonicalRefs:
    return CanonicalRefs({**refs, **{c.name: c.oid for c in conflicts}}, head, conflicts)


def push(**commands: tuple[int | None, int | None]) -> Updates:
    """Return updates of branches; numbers are object ids."""
    return Updates(
        {
            f"refs/heads/{name}": RefUpdate(*(None if number is None else oid(number) for number in command))
            for name, command in commands.items()
        }
    )


def reasons(updates: Updates, before: CanonicalRefs, *rules: RefRule) -> dict[str, str]:
    judged = judge(updates, before, rules, FORWARD)
    return {ref: refusal.reason for ref, refusal in judged.refused.items()}


def test_push_that_moves_forward_is_not_forced() -> None:
    before = shown({MAIN: oid(1), DEV: oid(4)})
    updates = push(main=(1, 2), new=(None, 5))
    judged = judge(updates, before, (), FORWARD)
    assert (judged.updates, dict(judged.refused), judged.forced) == (updates, {}, frozenset())
    refs, head = wanted_after(before, updates, MAIN)
    assert refs == {MAIN: oid(2), DEV: oid(4), "refs/heads/new": oid(5)}, "others are untouched"
    assert head == MAIN


def test_push_that_loses_commits_was_forced_by_whoever_pushes() -> None:
    judged = judge(push(main=(2, 1)), shown({MAIN: oid(2)}), (), FORWARD)
    assert judged.forced == {MAIN}


def test_ref_that_moved_in_between_is_refused_unless_it_is_there_already() -> None:
    before = shown({MAIN: oid(2), TAG: oid(4)})
    assert reasons(push(main=(1, 3)), before) == {MAIN: "fetch first"}
    assert reasons(push(main=(None, 3)), before) == {MAIN: "fetch first"}
    assert reasons(push(main=(1, None)), before) == {MAIN: "fetch first"}
    assert reasons(push(gone=(1, 2)), before) == {"refs/heads/gone": "fetch first"}
    assert reasons(push(main=(1, 2)), before) == {}
    assert reasons(push(gone=(1, None)), before) == {}
    assert reasons(Updates({TAG: RefUpdate(None, oid(5))}), before) == {TAG: "already exists"}
    assert not is_stale(RefUpdate(None, None), None)


def test_moved_tag_is_forced_also_where_it_goes_forward() -> None:
    judged = judge(Updates({TAG: RefUpdate(oid(1), oid(2))}), shown({TAG: oid(1)}), (), FORWARD)
    assert judged.forced == {TAG}


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("refs/guts/conflict/x/refs/heads/main", "refs/guts/ belongs to the nodes"),
        ("refs/pull/1/head", "only branches, tags and notes are published"),
        ("HEAD", "only branches, tags and notes are published"),
        ("refs/heads/a..b", "funny refname"),
        (f"refs/heads/{'x' * 245}", "funny refname"),
    ],
)
def test_names_that_are_not_published(ref: str, reason: str) -> None:
    assert reasons(Updates({ref: RefUpdate(None, oid(1))}), shown({})) == {ref: reason}


def test_name_of_255_bytes_is_published() -> None:
    assert reasons(Updates({f"refs/heads/{'x' * 244}": RefUpdate(None, oid(1))}), shown({})) == {}


def test_branch_that_a_clone_checks_out_is_deleted_only_where_another_takes_its_place() -> None:
    before = shown({MAIN: oid(1), DEV: oid(2)})
    assert reasons(push(main=(1, None)), before) == {MAIN: "deletion of the current branch prohibited"}
    renamed = Updates({**push(main=(1, None), trunk=(None, 1)).refs}, head="refs/heads/trunk")
    judged = judge(renamed, before, (), FORWARD)
    assert not judged.refused
    assert wanted_after(before, judged.updates, MAIN) == ({DEV: oid(2), "refs/heads/trunk": oid(1)}, "refs/heads/trunk")


def test_head_that_would_be_nowhere_refuses_everything() -> None:
    before = shown({MAIN: oid(1)})
    nowhere = Updates(push(main=(1, None), dev=(None, 1)).refs, head="refs/heads/trunk")
    assert set(reasons(nowhere, before).values()) == {"guts.head: there is no branch 'trunk'"}
    refused_itself = Updates(
        {MAIN: RefUpdate(oid(1), None), "refs/heads/a b": RefUpdate(None, oid(1))}, head="refs/heads/a b"
    )
    assert reasons(refused_itself, before) == {
        MAIN: "guts.head: there is no branch 'a b'",
        "refs/heads/a b": "funny refname",
    }


def test_push_that_is_refused_whole_moves_head_neither() -> None:
    before = shown({MAIN: oid(1), DEV: oid(2)})
    for updates, rules in (
        (Updates(push(s1=(None, 1)).refs, head="refs/heads/nope"), ()),
        (Updates(push(dev=(2, 1)).refs, head=DEV), (RefRule("dev", 1),)),
        (Updates({**push(trunk=(None, 1)).refs, "refs/x": RefUpdate(None, oid(1))}, head=DEV, atomic=True), ()),
    ):
        judged = judge(updates, before, rules, FORWARD)
        assert judged.refused.keys() == updates.refs.keys()
        assert wanted_after(before, judged.updates, MAIN) == (before.refs, MAIN)


def test_head_that_points_nowhere_is_put_right_by_the_next_push() -> None:
    before = shown({DEV: oid(1), "refs/heads/x": oid(1)})
    tag = Updates({TAG: RefUpdate(None, oid(1))})
    assert wanted_after(before, tag, MAIN)[1] == DEV
    assert wanted_after(before, tag, "refs/heads/x")[1] == "refs/heads/x"
    assert wanted_after(before, push(new=(None, 1)), MAIN)[1] == "refs/heads/new"


def test_first_push_says_what_a_clone_checks_out() -> None:
    empty = shown({})
    assert wanted_after(empty, push(trunk=(None, 1), main=(None, 1)), MAIN)[1] == MAIN
    assert wanted_after(empty, push(trunk=(None, 1), dev=(None, 1)), MAIN)[1] == "refs/heads/trunk"
    assert wanted_after(empty, Updates({TAG: RefUpdate(None, oid(1))}), MAIN)[1] == MAIN


def test_contested_branch_moves_only_with_a_merge_or_where_that_is_given_up() -> None:
    before = shown({MAIN: oid(1)}, BESIDE)
    assert questions(push(main=(1, 2)), before) == [(oid(1), oid(2)), (oid(8), oid(2))]
    assert reasons(push(main=(1, 2)), before) == {MAIN: "in conflict: merge first"}
    refusal = judge(push(main=(1, 2)), before, (), FORWARD).refused[MAIN]
    assert refusal.hint is not None
    assert BESIDE.name in refusal.hint
    merged = judge(push(main=(1, 2)), before, (), FORWARD | {(oid(8), oid(2))})
    assert (dict(merged.refused), merged.forced) == ({}, frozenset())
    given_up = judge(Updates(push(main=(1, 2)).refs, force=True), before, (), FORWARD)
    assert not given_up.refused
    assert given_up.forced == {MAIN}
    # git's --force, which is all that moving it other than forward says, gives up neither side.
    for contained in (frozenset[tuple[ObjectId, ObjectId]](), frozenset({(oid(8), oid(9))})):
        sideways = judge(push(main=(1, 9)), before, (), contained)
        assert sideways.refused[MAIN].reason == "in conflict: merge first"
    assert sideways.refused[MAIN].hint == (
        "git fetch REMOTE refs/heads/main && git merge FETCH_HEAD; or give that up: git push -o guts.force"
    )
    assert not judge(Updates(push(main=(1, 9)).refs, force=True), before, (), FORWARD).refused
    assert reasons(push(main=(1, None)), shown({MAIN: oid(1), DEV: oid(2)}, BESIDE, head=DEV)) == {
        MAIN: "in conflict: merge first"
    }


def test_ref_inside_another_is_refused_unless_that_goes_away_in_the_same_push() -> None:
    before = shown({MAIN: oid(1), "refs/heads/a": oid(1)})
    inside = Updates({"refs/heads/a/b": RefUpdate(None, oid(1))})
    assert reasons(inside, before) == {"refs/heads/a/b": "'refs/heads/a' exists; cannot create 'refs/heads/a/b'"}
    replaced = Updates({"refs/heads/a": RefUpdate(oid(1), None), **inside.refs})
    assert reasons(replaced, before) == {}
    # Nor where its going away is refused.
    kept = Updates({"refs/heads/a": RefUpdate(oid(2), None), **inside.refs})
    assert list(reasons(kept, before)) == ["refs/heads/a", "refs/heads/a/b"]
    assert list(reasons(Updates({"refs/heads/main/x": RefUpdate(None, oid(1))}), before)) == ["refs/heads/main/x"]


def test_branch_at_something_else_than_a_commit_is_refused() -> None:
    updates = Updates({DEV: RefUpdate(None, oid(5)), TAG: RefUpdate(None, oid(5))})
    judged = judge(updates, shown({}), (), frozenset(), {oid(5)})
    assert {ref: refusal.reason for ref, refusal in judged.refused.items()} == {DEV: "a branch points at a commit"}


def test_one_refused_ref_refuses_an_atomic_push_and_no_other() -> None:
    before = shown({MAIN: oid(1)})
    commands = {**push(main=(1, 2)).refs, "refs/guts/x": RefUpdate(None, oid(2))}
    assert list(reasons(Updates(commands), before)) == ["refs/guts/x"]
    atomic = judge(Updates(commands, atomic=True), before, (), FORWARD)
    assert not atomic.updates.refs
    assert {ref: refusal.reason for ref, refusal in atomic.refused.items()} == {
        MAIN: ATOMIC,
        "refs/guts/x": "refs/guts/ belongs to the nodes",
    }


def test_protected_ref_is_made_and_moves_forward_only() -> None:
    rule = RefRule("main", 1)
    before = shown({MAIN: oid(2), DEV: oid(2)}, head=DEV)
    assert reasons(push(main=(2, 3)), before, rule) == {}
    assert reasons(push(main=(None, 3)), shown({}), rule) == {}
    assert reasons(push(main=(2, 1)), before, rule) == {MAIN: "protected: it only moves forward"}
    assert reasons(push(main=(2, None)), before, rule) == {MAIN: "protected: it can't be deleted"}
    assert reasons(push(dev=(2, 1)), before, rule) == {}
    tags = RefRule("refs/tags/*", 1)
    assert reasons(Updates({TAG: RefUpdate(oid(1), oid(2))}), shown({TAG: oid(1)}), tags) == {
        TAG: "protected: it only moves forward"
    }


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("main", ["refs/heads/main"], ["refs/heads/main2", "refs/tags/main", "refs/heads/x/main"]),
        ("release/*", ["refs/heads/release/1"], ["refs/heads/release", "refs/heads/release/1/2"]),
        ("release/**", ["refs/heads/release/1", "refs/heads/release/1/2"], ["refs/heads/releases"]),
        ("refs/tags/v*", ["refs/tags/v1", "refs/tags/v"], ["refs/tags/w1", "refs/heads/v1"]),
        ("a.c", ["refs/heads/a.c"], ["refs/heads/abc"]),
        ("refs/**", ["refs/heads/x", "refs/tags/y/z"], []),
    ],
)
def test_patterns_of_protected_refs(pattern: str, matching: list[str], others: list[str]) -> None:
    rules = (RefRule(pattern, 1),)
    assert all(protecting(ref, rules) for ref in matching)
    assert not any(protecting(ref, rules) for ref in others)
