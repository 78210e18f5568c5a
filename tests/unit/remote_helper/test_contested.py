"""What a push is told when another one crossed it."""

from guts.remote_helper.contested import crossed
from tests.unit.trust.world import ALICE, BOB, DEV, EVE, MAIN

MAINTAINERS = [ALICE.author_id, BOB.author_id]
BOBS = f"refs/guts/conflict/{BOB.author_id}/{MAIN}"


def test_whose_value_is_shown_is_told_where_the_other_one_is() -> None:
    assert crossed([MAIN, DEV, BOBS], [MAIN, DEV], ALICE.author_id, MAINTAINERS, "guts") == [
        f"{MAIN} is in conflict with what {str(BOB.author_id)[:12]}… pushed: "
        f"git fetch guts {BOBS} && git merge FETCH_HEAD, then push again"
    ]


def test_whose_value_is_beside_is_told_to_fetch_the_one_that_is_shown() -> None:
    assert crossed([MAIN, BOBS], [MAIN], BOB.author_id, MAINTAINERS, "guts") == [
        f"{MAIN} is in conflict with what {str(ALICE.author_id)[:12]}… pushed: "
        f"git fetch guts {MAIN} && git merge FETCH_HEAD, then push again"
    ]
    (line,) = crossed([MAIN, BOBS], [MAIN], BOB.author_id, [*MAINTAINERS, EVE.author_id], "guts")
    assert line.startswith(f"{MAIN} is in conflict with what another maintainer pushed: git fetch guts {MAIN} ")


def test_conflict_of_a_ref_that_was_not_pushed_is_not_told() -> None:
    assert crossed([MAIN, DEV, BOBS], [DEV], ALICE.author_id, MAINTAINERS, "guts") == []
