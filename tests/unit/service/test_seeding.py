"""What a node meets without asking, and what it does about it."""

import dataclasses

import pytest

from guts.effects import Effect, Fetch, Persist, Reply, SeedingStopped, Send, Withdraw
from guts.events import (
    Block,
    Command,
    CommandId,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    Follow,
    Reason,
    Seed,
    Unfollow,
)
from guts.gossip.envelope import envelope
from guts.ids import RepositoryId
from guts.service.seeding import JUDGED_SECONDS, MAX_JUDGED, MAX_WAITING_PER_PEER
from guts.sync.policy import Blocked, NotWanted
from guts.sync.prospects import MAX_PROSPECTS_PER_PEER
from guts.wire.messages import GetRefs, NewRepository, Refs, RefsAnswer, RefsStatus, Subscribe
from tests.support.peers import HOUR_MS, WALL, at, author, record_of, repository
from tests.unit.service.bench import RECORD, Bench, R, S, accepted, known

ADA = author(1)
IDENTITY, OTHER_IDENTITY = b"i" * 32, b"j" * 32


def following() -> Bench:
    bench = Bench()
    bench.command(Follow(ADA))
    bench.service.sync.policy.max_repositories = 1_000
    bench.call(1, 1)
    return bench


def questions(effects: list[Effect]) -> list[RepositoryId]:
    """Return what is asked about."""
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    return [query.repository for message in sent if isinstance(message, GetRefs) for query in message.queries]


def announced(wanted: RepositoryId, identity: bytes = IDENTITY, holder: int = 1) -> NewRepository:
    return NewRepository(wanted, 0, identity, record_of(holder, expires=WALL + 10 * HOUR_MS))


def judged(bench: Bench, number: int, wanted: RepositoryId) -> None:
    """Let the peer offer ``wanted``, and the worker find that nobody who is followed maintains it."""
    request = 2 * number - 1
    bench.say(1, Refs(request, (RefsAnswer(wanted, RefsStatus.HELD, (b"document",), (), (RECORD,)),)))
    bench.handle(FetchFinished(FetchId(number), wanted, ConnectionId(1), Failed(NotWanted())))
    assert wanted not in bench.service.sync.goals


def test_what_a_peer_follows_and_what_it_announces_is_looked_at() -> None:
    bench = following()
    assert questions(bench.say(1, Subscribe((R,)))) == [R]
    assert questions(bench.say(1, envelope(announced(S)))) == [S]
    assert bench.service.sync.followed() == []


def test_nothing_is_looked_at_where_nobody_is_followed() -> None:
    bench = Bench()
    bench.call(1, 1)
    assert questions(bench.say(1, Subscribe((R,)))) == []
    assert bench.say(1, envelope(announced(S))) == []


def test_what_is_nobodys_who_is_followed_is_looked_at_again_after_an_hour_or_when_its_identity_changes() -> None:
    bench = following()
    assert questions(bench.say(1, announced(R))) == [R]
    judged(bench, 1, R)
    bench.time = JUDGED_SECONDS - 1
    assert bench.say(1, announced(R)) == []
    assert questions(bench.say(1, Subscribe((R,)))) == []
    assert questions(bench.say(1, announced(R, OTHER_IDENTITY))) == [R]
    judged(bench, 2, R)
    bench.time += JUDGED_SECONDS
    assert questions(bench.say(1, announced(R, OTHER_IDENTITY))) == [R]


def test_what_was_judged_is_remembered_up_to_a_number() -> None:
    bench = following()
    seeding = bench.service._seeding
    for number in range(MAX_JUDGED + 1):
        wanted = repository(1_000 + number)
        bench.service.sync.consider(wanted, bench.service.peers.connections[ConnectionId(1)].peer, IDENTITY, 0.0)
        assert seeding.refused(wanted, Failed(NotWanted()), at(0.0)) == []
        bench.service.sync.drop(wanted)
    assert seeding.wants(repository(1_000), IDENTITY, at(0.0))
    assert not seeding.wants(repository(1_001), IDENTITY, at(0.0))


def test_line_of_a_peer_is_as_long_as_it_may_be_and_moves_on() -> None:
    bench = following()
    many = tuple(repository(1_000 + number) for number in range(MAX_WAITING_PER_PEER))
    asked = questions(bench.say(1, Subscribe(many)))
    assert asked == list(many[:MAX_PROSPECTS_PER_PEER])
    bench.say(1, Subscribe(tuple(repository(5_000 + number) for number in range(MAX_WAITING_PER_PEER))))
    seeding = bench.service._seeding
    [line] = seeding._lines.values()
    assert len(line) == MAX_WAITING_PER_PEER
    answers = tuple(RefsAnswer(wanted, RefsStatus.NOT_HELD) for wanted in asked)
    assert questions(bench.say(1, Refs(1, answers[:1], b"c"))) != []
    assert many[MAX_PROSPECTS_PER_PEER] in bench.service.sync.goals
    bench.end(1)
    assert not seeding._lines
    assert bench.service.sync.goals == {}


def test_unfollow_lets_go_what_is_here_because_of_that_alone() -> None:
    bench = Bench({R: known(1), S: known(1)})
    assert bench.command(Unfollow(ADA, (R,))) == [Withdraw(R), Persist(SeedingStopped(R)), Reply(CommandId(1), {})]
    assert bench.service.sync.followed() == [S]


def test_blocked_repository_is_let_go_and_not_sought() -> None:
    bench = Bench({R: known(1)})
    assert bench.command(Block(R, (R,))) == [Withdraw(R), Persist(SeedingStopped(R)), Reply(CommandId(1), {})]
    [reply] = bench.command(Seed(R, (), 10.0))
    assert isinstance(reply, Reply)
    assert isinstance(reply.result, Blocked)


def test_held_repository_that_a_blocked_author_comes_to_maintain_is_let_go() -> None:
    bench = Bench({R: known(1)})
    bench.call(1, 1)
    bench.say(1, Subscribe((R,)))
    effects = bench.say(1, Refs(1, (RefsAnswer(R, RefsStatus.HELD, (b"document",), (), ()),)))
    assert any(isinstance(effect, Fetch) for effect in effects)
    effects = bench.handle(FetchFinished(FetchId(1), R, ConnectionId(1), Failed(Blocked(ADA, R))))
    assert [effect for effect in effects if not isinstance(effect, Send)] == [Withdraw(R), Persist(SeedingStopped(R))]
    assert bench.service.sync.goals == {}


@pytest.mark.parametrize("command", [Block(ADA, ()), Unfollow(ADA, ())])
def test_e4_what_was_committed_while_its_author_was_blocked_or_unfollowed_is_let_go(command: Command) -> None:
    bench = following()
    bench.say(1, Subscribe((R,)))
    bench.say(1, Refs(1, (RefsAnswer(R, RefsStatus.HELD, (b"document",), (), (RECORD,)),)))
    bench.command(command)
    outcome = dataclasses.replace(accepted(1), reason=Reason.OWNER, maintainers=(ADA,))
    # Nothing is announced, provided or confirmed.
    assert bench.handle(FetchFinished(FetchId(1), R, ConnectionId(1), outcome)) == [Persist(SeedingStopped(R))]
    assert bench.service.sync.goals == {}
    assert bench.service.sync.policy.taken == 0


def test_e4_held_repository_whose_new_maintainer_was_blocked_in_that_moment_is_let_go() -> None:
    bench = Bench({R: known(1)})
    bench.call(1, 1)
    bench.say(1, Subscribe((R,)))
    bench.say(1, Refs(1, (RefsAnswer(R, RefsStatus.HELD, (b"document",), (), ()),)))
    bench.command(Block(ADA, ()))
    outcome = dataclasses.replace(accepted(2), maintainers=(ADA,))
    effects = bench.handle(FetchFinished(FetchId(1), R, ConnectionId(1), outcome))
    assert [effect for effect in effects if not isinstance(effect, Send)] == [Withdraw(R), Persist(SeedingStopped(R))]


def test_no_more_is_looked_at_than_there_are_places() -> None:
    bench = following()
    bench.service.sync.policy.max_repositories = 3
    bench.service.sync.policy.took(S, Reason.OWNER)
    met = [repository(100 + number) for number in range(10)]
    assert questions(bench.say(1, Subscribe(tuple(met)))) == met[:2]
    # What is not wanted, and what the peer says nothing about, makes room for the next ones.
    judged(bench, 1, met[0])
    assert set(bench.service.sync.goals) == set(met[2:4])
    # Without a place nobody waits.
    bench.service.sync.policy.took(R, Reason.OWNER)
    bench.service.sync.policy.took(repository(99), Reason.OWNER)
    bench.end(1)
    bench.call(2, 2)
    assert questions(bench.say(2, Subscribe(tuple(met)))) == []
    assert not bench.service._seeding._lines


def test_no_more_is_taken_than_there_are_places() -> None:
    bench = following()
    policy = bench.service.sync.policy
    policy.topic, policy.max_repositories = True, 2
    asked = [bench.say(1, announced(repository(100 + number))) for number in range(10)]
    assert [questions(effects) for effects in asked[:3]] == [[repository(100)], [repository(101)], []]
    # One of them is asked for, and another is taken, before the second one comes.
    policy.took(S, Reason.TOPIC)
    outcome = dataclasses.replace(accepted(1), reason=Reason.TOPIC)
    [fetch] = offered(bench, 1, repository(100))
    bench.handle(FetchFinished(fetch.fetch, fetch.repository, fetch.connection, outcome))
    assert policy.taken == 2
    [fetch] = offered(bench, 2, repository(101))
    assert not fetch.terms.room


def test_place_that_is_gone_when_it_is_committed_is_not_taken() -> None:
    bench = following()
    policy = bench.service.sync.policy
    policy.topic, policy.max_repositories = True, 1
    bench.say(1, announced(R))
    [fetch] = offered(bench, 1, R)
    policy.took(S, Reason.TOPIC)
    outcome = dataclasses.replace(accepted(1), reason=Reason.TOPIC)
    assert bench.handle(FetchFinished(fetch.fetch, R, fetch.connection, outcome)) == [Persist(SeedingStopped(R))]
    assert (policy.taken, policy.refused) == (1, 1)
    # It is worth a look again as soon as there is a place.
    policy.dropped(S, declined=False)
    assert questions(bench.say(1, announced(R))) == [R]


def offered(bench: Bench, request: int, wanted: RepositoryId) -> list[Fetch]:
    """Let the peer offer ``wanted`` and return what is fetched."""
    effects = bench.say(1, Refs(request, (RefsAnswer(wanted, RefsStatus.HELD, (b"document",), (), (RECORD,)),)))
    return [effect for effect in effects if isinstance(effect, Fetch)]
