"""Anti-entropy in batches: each repository about once in an interval, in few messages."""

import itertools
import random

import pytest

from guts.effects import Send
from guts.events import ConnectionId, Head, Known
from guts.ids import PeerId, RepositoryId
from guts.sync.reposync import RepoSync
from guts.sync.rounds import ROUNDS, Batch, Rounds
from guts.wire.limits import MAX_QUERIES
from guts.wire.messages import GetRefs, Refs, RefsAnswer, RefsStatus
from tests.support.peers import IDS, author, repository

INTERVAL = 60.0
STEP = INTERVAL / ROUNDS
PEERS = IDS[1:5]


@pytest.mark.parametrize("seed", range(5))
def test_next_round_is_within_half_an_interval_and_on_the_grid(seed: int) -> None:
    rounds = Rounds(INTERVAL, random.Random(seed))
    times = sorted({rounds.next(1000.0) for _ in range(1000)})
    assert times[0] >= 1000.0 + INTERVAL / 2 - STEP / 2
    assert times[-1] <= 1000.0 + 1.5 * INTERVAL + STEP / 2
    assert ROUNDS <= len(times) <= ROUNDS + 2
    assert all(abs(later - earlier - STEP) < 1e-6 for earlier, later in itertools.pairwise(times))
    pauses = [rounds.next(1000.0) - 1000.0 for _ in range(10_000)]
    assert abs(sum(pauses) / len(pauses) - INTERVAL) < INTERVAL / 20


def test_first_round_is_not_before_the_start() -> None:
    for seed in range(200):
        assert 0.0 <= Rounds(INTERVAL, random.Random(seed)).first(0.0) <= INTERVAL + STEP


def test_nodes_that_start_together_do_not_ask_together() -> None:
    times = {Rounds(INTERVAL, random.Random(seed)).next(0.0) for seed in range(50)}
    assert len(times) == 50


@pytest.mark.parametrize("count", [1, MAX_QUERIES, MAX_QUERIES + 1, 5 * MAX_QUERIES])
def test_batch_asks_as_few_as_can_be_and_nobody_twice_before_everybody(count: int) -> None:
    batch = Batch(random.Random(count))
    chosen = [batch.choose(PEERS) for _ in range(count)]
    assert len(set(chosen)) == min(len(PEERS), -(-count // MAX_QUERIES))
    assert set(batch.peers) == set(chosen)
    assert max(chosen.count(peer) for peer in PEERS) <= MAX_QUERIES * -(-count // (MAX_QUERIES * len(PEERS)))


def test_who_comes_first_is_drawn_anew_in_each_round() -> None:
    rng = random.Random(1)
    assert {Batch(rng).choose(PEERS) for _ in range(50)} == set(PEERS)


def test_batch_asks_only_who_is_willing() -> None:
    batch = Batch(random.Random(1))
    assert [batch.choose([peer]) for peer in PEERS] == PEERS


class Interval:
    """A RepoSync with so many repositories that every peer holds, whose questions are answered with nothing new."""

    def __init__(self, repositories: int, seed: int) -> None:
        print(f"seed {seed}")
        held = {
            repository(number): Known(0, b"i" * 32, ((author(1), Head(1, b"h" * 32)),))
            for number in range(repositories)
        }
        self.sync = RepoSync(held, self.holders, random.Random(seed), 0.0, INTERVAL)
        self.compared: dict[RepositoryId, list[float]] = {wanted: [] for wanted in held}
        self.sent: list[tuple[float, Send]] = []
        for number, peer in enumerate(PEERS):
            self.sync.peer_ready(peer, ConnectionId(number), (), 0.0)

    @staticmethod
    def holders(_: RepositoryId) -> list[PeerId]:
        return list(PEERS)

    def run(self, seconds: float) -> None:
        while (now := self.sync.deadline()) <= seconds:
            waiting = [effect for effect in self.sync.tick(now) if isinstance(effect, Send)]
            while waiting:
                send = waiting.pop()
                self.sent.append((now, send))
                assert isinstance(send.message, GetRefs)
                asked = [query.repository for query in send.message.queries]
                for wanted in asked:
                    self.compared[wanted].append(now)
                answers = tuple(RefsAnswer(wanted, RefsStatus.HELD) for wanted in asked)
                effects = self.sync.refs(send.connection, Refs(send.message.request, answers), now)
                waiting += [effect for effect in effects if isinstance(effect, Send)]


@pytest.mark.parametrize("repositories", [1, 100, 2_000])
def test_repositories_are_compared_once_in_an_interval_in_few_messages(repositories: int) -> None:
    many = Interval(repositories, 7)
    rounds = 5
    many.run(rounds * INTERVAL)
    times = [time for times in many.compared.values() for time in times]
    assert rounds - 2 <= len(times) / repositories <= rounds + 1
    assert all(
        later - earlier <= 1.5 * INTERVAL + STEP
        for times in many.compared.values()
        for earlier, later in itertools.pairwise(times)
    )
    # At the most one for every 64 repositories, and one for each round that is not full.
    assert len(many.sent) <= len(times) / MAX_QUERIES + (rounds + 1) * ROUNDS


def test_ten_thousand_repositories_are_two_hundred_messages_a_minute() -> None:
    many = Interval(10_000, 1)
    many.run(INTERVAL)
    assert len(many.sent) < 200
