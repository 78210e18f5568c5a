"""What a node seeds, and why; what is met without being asked for."""

import dataclasses

import pytest

from guts.effects import Fetch, Persist, SeedingStopped, Terms
from guts.errors import Unavailable
from guts.events import Accepted, Failed, NothingNew, Reason
from guts.sync.goal import NoLongerFollowed, Prospect
from guts.sync.policy import Blocked, Choices, NoPlace, NotWanted, Policy, judge
from guts.sync.prospects import MAX_PROSPECTS, MAX_PROSPECTS_PER_PEER
from guts.sync.quotas import QuotaExceeded
from guts.sync.setbacks import MAX_FAILURES, RETRY_AFTER_FAULT, RETRY_AFTER_REFUSAL, RETRY_AFTER_TROUBLE
from guts.wire.messages import RefsQuery
from tests.support.peers import IDS, author, repository
from tests.unit.sync.test_reposync import (
    NOTHING_KNOWN,
    A,
    B,
    Bench,
    R,
    S,
    accepted,
    failed,
    known,
    newer,
    news,
    not_held,
)

ADA, BO, EVE = author(1), author(2), author(3)


# --- who decides --------------------------------------------------------------------------------------------


def test_a_block_outranks_a_wish_which_outranks_an_owner_who_outranks_the_topic() -> None:
    blocked = frozenset({EVE})
    assert judge(Terms(Reason.EXPLICIT), R, [ADA]) is Reason.EXPLICIT
    with pytest.raises(Blocked, match="who is blocked"):
        judge(Terms(Reason.EXPLICIT, blocked=blocked), R, [ADA, EVE])
    met = Terms(None, frozenset({ADA}), True, blocked)
    assert judge(met, R, [BO, ADA]) is Reason.OWNER
    assert judge(met, R, [BO]) is Reason.TOPIC
    with pytest.raises(Blocked):
        judge(met, R, [ADA, EVE])
    with pytest.raises(NotWanted):
        judge(Terms(None, frozenset({ADA})), R, [BO])


def test_policy_considers_what_it_may_want_and_nothing_else() -> None:
    assert not Policy().considers(R, 0, announced=True)
    assert not Policy().takes_more
    topic = Policy(topic=True, max_repositories=1)
    assert topic.considers(R, 0, announced=True)
    assert not topic.considers(R, 0, announced=False)
    follows = Policy(Choices({}, owners=frozenset({ADA})), max_repositories=1)
    assert follows.considers(R, 0, announced=False)
    follows.unfollow(ADA)
    assert not follows.considers(R, 0, announced=True)

    topic.block(R)
    assert not topic.considers(R, 0, announced=True)
    topic.unblock(R)
    topic.dropped(R, declined=True)
    assert not topic.considers(R, 0, announced=True)
    topic.took(R, Reason.EXPLICIT)
    assert topic.considers(R, 0, announced=True)


def test_places_are_for_what_nobody_asked_for_and_the_newcomer_is_refused() -> None:
    policy = Policy(topic=True, max_repositories=1)
    policy.took(R, Reason.TOPIC)
    assert not policy.considers(S, 0, announced=True)
    assert (policy.taken, policy.refused) == (1, 1)
    policy.took(R, Reason.EXPLICIT)
    assert policy.considers(S, 0, announced=True)
    assert (policy.taken, policy.reason(R)) == (0, Reason.EXPLICIT)


def test_what_nobody_asked_for_needs_a_place() -> None:
    full = Terms(None, frozenset({ADA}), True, room=False)
    for maintainer in (ADA, BO):
        with pytest.raises(NoPlace):
            judge(full, R, [maintainer])
    with pytest.raises(NotWanted):
        judge(dataclasses.replace(full, topic=False), R, [BO])
    assert judge(Terms(Reason.EXPLICIT, room=False), R, [BO]) is Reason.EXPLICIT
    policy = Policy(topic=True, max_repositories=1)
    prospect = Prospect(A, b"i" * 32)
    assert policy.terms(S, prospect).room
    policy.took(R, Reason.TOPIC)
    assert not policy.terms(S, prospect).room


# --- prospects ----------------------------------------------------------------------------------------------


def bench_that_follows() -> Bench:
    bench = Bench()
    bench.sync.policy.follow(ADA)
    bench.sync.policy.max_repositories = 1_000
    bench.ready(A)
    return bench


def test_prospect_is_asked_about_and_told_to_nobody_until_it_is_here() -> None:
    bench = bench_that_follows()
    bench.ready(B)
    bench.sync.consider(R, A, None, 0.0)
    assert bench.sync.followed() == []
    assert bench.sync.ask(A, [R], 0.0) == [bench.ask(A, 1, NOTHING_KNOWN)]
    [fetch] = bench.refs(A, 1, newer())
    assert isinstance(fetch, Fetch)
    assert fetch.terms == Terms(None, frozenset({ADA}))
    taken = Accepted(known(5), accepted(5).news, reason=Reason.OWNER, maintainers=(ADA,))
    assert bench.fetched(1, A, taken)[:2] == [bench.tell(A, (R,)), bench.tell(B, (R,))]
    assert bench.sync.followed() == [R]
    assert bench.sync.policy.reason(R) is Reason.OWNER


@pytest.mark.parametrize("outcome", [Failed(NotWanted()), Failed(Blocked(EVE, R)), "not held", "gone"])
def test_prospect_that_is_not_taken_leaves_no_trace(outcome: object) -> None:
    bench = bench_that_follows()
    bench.sync.consider(R, A, None, 0.0)
    bench.sync.ask(A, [R], 0.0)
    if outcome == "gone":
        assert bench.gone(A) == []
    elif isinstance(outcome, Failed):
        bench.refs(A, 1, newer())
        assert bench.fetched(1, A, outcome) == []
    else:
        assert bench.refs(A, 1, not_held()) == []
    assert bench.sync.goals == {}
    assert bench.sync.may_consider(A)


def test_one_transfer_at_a_time_is_for_prospects() -> None:
    bench = bench_that_follows()
    for wanted, request in ((repository(11), 1), (repository(12), 3)):
        bench.sync.consider(wanted, A, None, 0.0)
        bench.sync.ask(A, [wanted], 0.0)
        bench.refs(A, request, newer(wanted))
    running = bench.sync.fetches.running
    assert [fetch.repository for fetch in running.values()] == [repository(11)]
    # What somebody asked for does not wait.
    bench.want()
    assert any(isinstance(effect, Fetch) for effect in bench.refs(A, 4, newer()))
    assert len(running) == 2
    # The place is free again: who offered the other one is asked again.
    asked = bench.fetched(1, A, Failed(NotWanted()), wanted=repository(11))
    query = RefsQuery(repository(12), 0, b"", ())
    assert asked == [bench.ask(A, 6, query)]


def test_wish_for_a_prospect_makes_it_explicit() -> None:
    bench = bench_that_follows()
    bench.sync.consider(R, A, None, 0.0)
    bench.sync.ask(A, [R], 0.0)
    assert bench.want()[0] == bench.tell(A, (R,))
    [fetch] = bench.refs(A, 1, newer())
    assert isinstance(fetch, Fetch)
    assert fetch.terms.reason is Reason.EXPLICIT


def test_so_many_prospects_are_looked_at_of_one_peer_and_of_all() -> None:
    bench = bench_that_follows()
    for peer in IDS[1:]:
        bench.ready(peer)
    for number in range(MAX_PROSPECTS_PER_PEER):
        assert bench.sync.may_consider(A)
        bench.sync.consider(repository(100 + number), A, None, 0.0)
    assert not bench.sync.may_consider(A)
    number = 200
    while bench.sync.may_consider(peer := IDS[2 + (number - 200) // MAX_PROSPECTS_PER_PEER]):
        bench.sync.consider(repository(number), peer, None, 0.0)
        number += 1
    assert len(bench.sync.goals) == MAX_PROSPECTS


def test_prospect_whose_fetch_ends_after_it_was_dropped_is_not_seeded() -> None:
    bench = bench_that_follows()
    bench.sync.consider(R, A, None, 0.0)
    bench.sync.ask(A, [R], 0.0)
    bench.refs(A, 1, newer())
    bench.sync.drop(R)
    with pytest.raises(NoLongerFollowed):
        bench.sync.terms(R)
    assert bench.fetched(1, A, accepted(5)) == [Persist(SeedingStopped(R))]


# --- refusals and failures ----------------------------------------------------------------------------------


def test_b7_peer_whose_transfers_failed_three_times_is_left_alone_while_there_is_another() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    now = 0.0
    for number in range(1, MAX_FAILURES + 1):
        assert any(isinstance(effect, Fetch) for effect in bench.news(A, news(10 + number), now=now)), number
        bench.fetched(number, A, Failed(Unavailable("no pack")), now=now)
        assert bench.news(A, news(20), now=now + RETRY_AFTER_TROUBLE - 1) == []
        now += RETRY_AFTER_TROUBLE
    assert bench.news(A, news(20), now=now) == []
    assert any(isinstance(effect, Fetch) for effect in bench.news(B, news(20), now=now))
    bench.fetched(4, B, NothingNew(known(1)), now=now)
    back = now - RETRY_AFTER_TROUBLE + RETRY_AFTER_FAULT
    assert bench.news(A, news(20), now=back - 1) == []
    assert bench.news(A, news(20), now=back) != []


def test_only_holder_is_asked_again_however_often_it_failed() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    for number in range(1, 3 * MAX_FAILURES):
        now = (number - 1) * RETRY_AFTER_TROUBLE
        assert any(isinstance(effect, Fetch) for effect in bench.news(A, news(10 + number), now=now)), number
        bench.fetched(number, A, Failed(Unavailable("no pack")), now=now)


def test_holder_whose_claim_is_too_much_is_passed_over_and_another_is_believed() -> None:
    bench = Bench()
    bench.ready(A, R)
    bench.want()
    bench.refs(A, 1, newer())
    refusal = Failed(QuotaExceeded("seeding.repo_max", 10, 11, claimed=True))
    assert bench.fetched(1, A, refusal) == []
    bench.ready(B, R, now=1.0)
    bench.refs(B, 3, newer(), now=1.0)
    assert (
        any(isinstance(effect, Fetch) for effect in bench.sync.fetches.running.values()) or bench.sync.fetches.running
    )


def test_wish_that_no_quota_allows_ends_in_the_quota() -> None:
    bench = Bench()
    bench.ready(A, R)
    bench.want()
    bench.looked_up()
    bench.refs(A, 1, newer())
    effects = bench.fetched(1, A, Failed(QuotaExceeded("seeding.disk", 10, 11, claimed=True)))
    assert failed(effects, QuotaExceeded, "seeding.disk allows 10")
    assert bench.sync.goals == {}


def test_what_was_refused_is_tried_again_after_a_while() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.news(A, news(7))
    bench.fetched(1, A, Failed(Blocked(EVE, R)))
    assert bench.news(A, news(8), now=RETRY_AFTER_REFUSAL - 1) == []
    assert bench.news(A, news(8), now=RETRY_AFTER_REFUSAL) != []
