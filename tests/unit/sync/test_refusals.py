"""What was not taken, and why, is kept for the operator, and bounded."""

import pytest

from guts.errors import UsageError
from guts.events import Reason
from guts.sync.refusals import MAX_REFUSALS, Refusal, Refusals
from tests.support.peers import author, repository

ADA, BO = author(1), author(2)


def refusal(number: int, reason: Reason = Reason.TOPIC, *owners: int) -> Refusal:
    followed = frozenset(author(owner) for owner in owners)
    return Refusal(repository(number), UsageError(f"refusal {number}"), reason, followed, number)


@pytest.mark.parametrize("count", [MAX_REFUSALS, MAX_REFUSALS + 1])
def test_so_many_are_kept_of_a_reason_and_the_topic_pushes_out_no_owner(count: int) -> None:
    refusals = Refusals()
    refusals.note(refusal(0, Reason.OWNER, 1))
    for number in range(1, count + 1):
        refusals.note(refusal(number))
    kept = [one.at_ms for one in refusals]
    assert kept == [*range(count, count - MAX_REFUSALS, -1), 0]


def test_last_reason_of_a_repository_counts() -> None:
    refusals = Refusals()
    refusals.note(refusal(1, Reason.OWNER, 1))
    refusals.note(refusal(1))
    assert [one.reason for one in refusals] == [Reason.TOPIC]
    refusals.forget(repository(1))
    refusals.forget(repository(1))
    assert list(refusals) == []


def test_who_is_unfollowed_takes_along_what_nobody_else_is_followed_for() -> None:
    refusals = Refusals()
    refusals.note(refusal(1, Reason.OWNER, 1))
    refusals.note(refusal(2, Reason.OWNER, 1, 2))
    refusals.note(refusal(3))
    refusals.unfollowed({BO})
    assert [one.repository for one in refusals] == [repository(3), repository(2)]
