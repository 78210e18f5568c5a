"""Real services on a seeded network: news spreads, what is lost is repaired, and a seed is a run."""

import pytest

from guts.events import Connect, Known, Read, Seed, SyncNow, Unseed
from guts.sync.readings import GRACE
from guts.wire.messages import Message
from tests.support.peers import repository
from tests.support.service_world import MAX_LATENCY, World

R = repository(7)
SEEDS = range(20)
HOSTS = 6


def connected(seed: int, hosts: int = HOSTS, **times: float) -> World:
    """Return a world in which host 0 has published R, and the others, connected in a ring with chords, seed it."""
    print(f"seed {seed}")
    world = World(hosts, seed, **times)
    for number in range(hosts):
        for step in (1, 3):
            world.command(number, Connect(world.target((number + step) % hosts), 10.0))
    world.run(2.0)
    world.publish(0, R, 1)
    for number in range(1, hosts):
        world.command(number, Seed(R, (), 30.0))
    world.run(10.0, lambda: world.seqs(R) == [1] * hosts)
    assert world.seqs(R) == [1] * hosts
    world.run(1.0)
    return world


def answers(world: World, number: int) -> list[object]:
    return [reply.result for reply in world.hosts[number].replies.values()]


@pytest.mark.parametrize("seed", SEEDS)
def test_all_replicas_get_the_news_within_virtual_milliseconds(seed: int) -> None:
    world = connected(seed)
    world.publish(0, R, 2)
    took = world.run(5.0, lambda: world.seqs(R) == [2] * HOSTS)
    assert world.seqs(R) == [2] * HOSTS
    # Four hops at the most, each a message, a transfer of a round trip, perhaps a question first.
    assert took < 4 * 6 * MAX_LATENCY, f"{took * 1000:.0f} ms"
    assert all(
        not host.service.peers.scores.value(world.peer(n), world.now) for host in world.hosts for n in range(HOSTS)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_gossip_is_repaired_by_anti_entropy(seed: int) -> None:
    world = connected(seed)
    world.lose = lambda source, to, message: True
    world.publish(0, R, 2)
    world.run(1.0)
    assert world.seqs(R) == [2] + [1] * (HOSTS - 1)
    # Each asks one holder at random every 30 to 90 s: some rounds, for so few.
    world.run(900.0, lambda: world.seqs(R) == [2] * HOSTS)
    assert world.seqs(R) == [2] * HOSTS


@pytest.mark.parametrize("seed", SEEDS)
def test_partitioned_replica_catches_up_after_it_is_back(seed: int) -> None:
    world = connected(seed)
    world.cut = lambda source, to: 5 in (source, to)
    for number in range(HOSTS):
        if number != 5:
            world.disconnect(5, number)
    world.publish(0, R, 2)
    world.run(120.0)
    assert world.seqs(R) == [2] * (HOSTS - 1) + [1]
    world.cut = lambda source, to: False
    # It knows holders, so it knocks at least every 30 s; news is asked for on connect.
    took = world.run(120.0, lambda: world.seqs(R) == [2] * HOSTS)
    assert world.seqs(R) == [2] * HOSTS
    assert took < 35.0, took


runs: dict[int, str] = {}
"""Digest by seed."""


@pytest.mark.parametrize("seed", SEEDS)
def test_same_seed_gives_the_same_run(seed: int) -> None:
    def digest(seed: int) -> str:
        world = connected(seed, hosts=4)
        world.publish(0, R, 2)
        world.lose = lambda source, to, message: world.rng.random() < 0.5
        world.run(10.0)
        world.publish(0, R, 3)
        world.run(40.0)
        return world.digest()

    runs[seed] = digest(seed)
    assert digest(seed) == runs[seed]
    assert len(set(runs.values())) == len(runs)


def test_seeder_finds_dials_and_copies_from_a_stranger() -> None:
    world = World(3, 1)
    world.publish(2, R, 9)
    asked = world.command(0, Seed(R, (), 30.0))
    world.run(5.0)
    assert world.seqs(R) == [9, 0, 9]
    result = world.hosts[0].replies[asked].result
    assert isinstance(result, dict)
    assert (result["repository"], result["epoch"], result["seq"]) == (str(R), 0, 9)
    assert isinstance(result["seconds"], float)
    assert 0.0 < result["seconds"] < 1.0
    # A second holder is in the DHT now; a third node may take it from either.
    world.command(1, Seed(R, (), 30.0))
    world.run(5.0)
    assert world.seqs(R) == [9, 9, 9]


def test_hundred_repositories_travel_four_at_a_time() -> None:
    world = World(2, 1)
    repositories = [repository(number) for number in range(100)]
    for wanted in repositories:
        world.publish(1, wanted, 3)
    world.command(0, Connect(world.target(1), 10.0))
    world.run(1.0)
    for wanted in repositories:
        world.command(0, Seed(wanted, (), 60.0))
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, len(world.hosts[0].service.sync.fetches.running))
        return len(world.hosts[0].disk) == 100

    took = world.run(60.0, done)
    assert most == 4
    assert took < 100 / 4 * 8 * MAX_LATENCY
    # Nothing is asked again and again: one question each, and one more where there was no room at first.
    assert world.sent < 100 * 12


def test_silence_where_nothing_happens() -> None:
    world = connected(1)
    before = world.sent
    world.run(600.0)
    # Per connection (12) a ping and a pong from both sides every 24 to 36 s; per host a question and an answer
    # every 30 to 90 s. Questions that go round in circles would be thousands.
    assert world.sent - before < 2 * HOSTS * 4 * 600 / 24 + HOSTS * 2 * 600 / 30


def test_peer_that_is_gone_is_noticed_within_ninety_seconds() -> None:
    world = connected(3, hosts=4)
    world.cut = lambda source, to: 2 in (source, to)
    world.run(100.0)
    assert [number for number in (0, 1, 3) if world.hosts[number].service.peers.connection_to(world.peer(2))] == []


def test_unseeded_repository_is_no_longer_told_of() -> None:
    world = connected(4, hosts=3)
    world.command(2, Unseed(R))
    world.run(1.0)
    told: list[tuple[int, int]] = []

    def lose(source: int, to: int, message: Message) -> bool:
        told.append((source, to))
        return False

    world.lose = lose
    world.publish(0, R, 2)
    world.run(1.0)
    assert world.seqs(R) == [2, 2, 1]
    assert all(to != 2 for _, to in told)


def test_sync_now_brings_what_gossip_lost() -> None:
    world = connected(5, hosts=2)
    world.lose = lambda source, to, message: True
    world.publish(0, R, 2)
    asked = world.command(1, SyncNow(R, 10.0))
    world.run(2.0)
    assert world.seqs(R) == [2, 2]
    result = world.hosts[1].replies[asked].result
    assert isinstance(result, dict)
    assert result["seq"] == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_stranger_reads_what_two_holders_tell_and_leaves_nothing_behind(seed: int) -> None:
    world = connected(seed, hosts=5)
    stranger = world.hosts[4]
    world.command(4, Unseed(R))
    world.run(1.0)
    world.publish(0, R, 2)
    stranger.replies.clear()
    begun = world.now
    world.command(4, Read(R, Known(), (), 30.0))
    world.run(30.0, lambda: bool(stranger.replies))
    [result] = answers(world, 4)
    assert isinstance(result, dict)
    sources = result["sources"]
    assert isinstance(sources, list)
    assert len(set(sources)) >= 2
    assert world.now - begun < GRACE
    assert stranger.read[R] in (1, 2)
    assert (stranger.service.sync.goals, stranger.service.sync.readings.goals) == ({}, {})
    assert all(
        R not in state.subscriptions for host in world.hosts[:4] for state in [host.service.peers.state(world.peer(4))]
    )


def test_seed_of_what_nobody_has_fails_with_the_reason() -> None:
    world = World(2, 1)
    world.command(0, Connect(world.target(1), 10.0))
    world.run(1.0)
    asked = world.command(0, Seed(R, (), 30.0))
    world.run(5.0)
    result = world.hosts[0].replies[asked].result
    assert isinstance(result, Exception)
    assert "no replica of" in str(result)
    assert world.hosts[0].service.sync.goals == {}


def test_connect_to_nobody_fails_with_the_reason() -> None:
    world = World(1, 1)
    world.command(0, Connect(world.target(0), 10.0))
    world.run(1.0)
    [result] = answers(world, 0)
    assert str(result) == "nobody there"
