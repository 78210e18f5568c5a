"""What was told of and has not come is asked for after a while, of one teller after the other."""

import math
import random

import pytest

from guts.events import ConnectionId
from guts.gossip import missing as module
from guts.gossip.missing import MAX_WAIT, MIN_WAIT, ROUND_TRIPS, UNKNOWN_ROUND_TRIP, MissingNews
from guts.wire.messages import NewCommit
from tests.support.peers import author, repository

R, S = repository(1), repository(2)
C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)


def news(of: object = R, seq: int = 5) -> NewCommit:
    return NewCommit(S if of is S else R, author(1), seq, b"h" * 32)


def missing(seed: int = 1) -> MissingNews:
    return MissingNews(random.Random(seed))


def test_nothing_is_due_where_nothing_is_missing() -> None:
    assert missing().deadline() == math.inf
    assert missing().due(1e9) == []


@pytest.mark.parametrize(
    ("round_trip", "least"), [(None, ROUND_TRIPS * UNKNOWN_ROUND_TRIP), (0.01, MIN_WAIT), (1.0, ROUND_TRIPS)]
)
def test_wait_is_about_two_round_trips_jittered(round_trip: float | None, least: float) -> None:
    waits = set()
    for seed in range(20):
        timers = missing(seed)
        timers.told(C1, news(), round_trip, 100.0)
        waits.add(timers.deadline() - 100.0)
    assert len(waits) == 20
    assert least <= min(waits) + 1e-9
    assert max(waits) <= 1.5 * least


def test_tellers_are_had_in_order_and_each_once() -> None:
    timers = missing()
    for link in (C2, C1, C2, C3):
        timers.told(link, news(), 0.1, 0.0)
    assert list(timers.tellers(R)) == [C2, C1, C3]
    assert timers.due(0.19) == []
    assert timers.due(0.4) == [R]
    assert timers.due(0.4) == []
    timers.asked(R, C2)
    timers.wait(R, 0.1, 0.4)
    assert list(timers.tellers(R)) == [C1, C3]
    assert timers.due(0.9) == [R]


def test_second_teller_does_not_put_the_timer_off() -> None:
    timers = missing()
    timers.told(C1, news(), 0.1, 0.0)
    first = timers.deadline()
    timers.told(C2, news(), 5.0, 0.1)
    assert timers.deadline() == first


def test_teller_may_tell_of_something_newer() -> None:
    timers = missing()
    timers.told(C1, news(seq=5), 0.1, 0.0)
    timers.told(C1, news(seq=6), 0.1, 0.0)
    assert [told.seq for told in timers.tellers(R).values()] == [6]


def test_last_teller_takes_the_repository_with_it() -> None:
    timers = missing()
    timers.told(C1, news(), 0.1, 0.0)
    timers.told(C1, news(S), 0.1, 0.0)
    timers.told(C2, news(S), 0.1, 0.0)
    timers.drop_link(C1)
    assert timers.tellers(R) == {}
    assert list(timers.tellers(S)) == [C2]
    assert timers.due(9.0) == [S]
    timers.asked(R, C1)
    timers.asked(S, C2)
    assert timers.tellers(S) == {}


def test_what_is_here_is_due_no_more() -> None:
    timers = missing()
    timers.told(C1, news(), 0.1, 0.0)
    timers.here(R)
    timers.here(R)
    assert timers.due(9.0) == []
    assert timers.deadline() == math.inf
    # The timer of before does not count for what is missing anew.
    timers.told(C1, news(), 0.1, 0.0)
    timers.here(R)
    timers.told(C1, news(), 2.0, 0.1)
    assert timers.due(1.0) == []
    assert timers.due(9.0) == [R]


def test_so_many_repositories_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MAX_MISSING == 4_096
    monkeypatch.setattr(module, "MAX_MISSING", 1)
    timers = missing()
    timers.told(C1, news(), 0.1, 0.0)
    timers.told(C1, news(S), 0.1, 0.0)
    assert timers.tellers(S) == {}
    timers.told(C2, news(), 0.1, 0.0)
    assert list(timers.tellers(R)) == [C1, C2]


def test_slow_answers_to_pings_put_off_nobodys_news() -> None:
    for seed in range(20):
        timers = missing(seed)
        timers.told(C1, news(), 31.0, 0.0)
        assert MAX_WAIT <= timers.deadline() <= 1.5 * MAX_WAIT
        timers.told(C2, news(), 0.05, 0.1)
        assert timers.deadline() <= 0.1 + 1.5 * MIN_WAIT
        assert timers.due(0.1 + 1.5 * MIN_WAIT) == [R]
        timers.told(C1, news(), 0.05, 0.2)
        assert timers.due(1.0) == []
