"""Scoring on whole networks: hostile programs are kept out, their neighbours are not, nobody pays for our own fault.

The letters are those of the tests that scoring must pass: S2 hostile programs, S3 on and off, S5 our own clock, S6
neighbours behind one address, C2 a new identity after each ban.
"""

import logging
from collections.abc import Callable, Sequence

import pytest

from guts.addresses import Address
from guts.ids import RepositoryId
from guts.peers.mass_fault import Sign
from guts.peers.score import BAN_SECONDS, SHUT_OUT_AT, Bar, Scores
from guts.service.service import Service
from guts.wire import codec
from guts.wire.messages import (
    EncodedRefs,
    GetRefs,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Message,
    Ping,
    Receipt,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from tests.simulation.intruders import Deed, Intruder, intruder
from tests.support.simulator.project import Project
from tests.support.simulator.world import World

SEED = 5
NOBODY = RepositoryId(b"n" * 32)
MIB = 1 << 20


def scores(world: World, number: int) -> Scores:
    """Return the scores of a host."""
    return service(world, number).peers.scores


def service(world: World, number: int) -> Service:
    """Return the service of a host."""
    program = world.hosts[number].program
    assert isinstance(program, Service)
    return program


def banned_pairs(world: World, hosts: int) -> list[tuple[int, int]]:
    """Return who of the first ``hosts`` keeps out whom of them."""
    return [
        (number, other)
        for number in range(hosts)
        for other in range(hosts)
        if scores(world, number).banned(world.peer(other), world.now)
    ]


def holding(hosts: int, seed: int = SEED, *, skew_ms: int = 0) -> tuple[World, Project]:
    """Return a world whose hosts hold one repository; the clock of the last one is ``skew_ms`` ahead."""
    print(f"seed {seed}")
    world = World(hosts, seed, running=False)
    world.hosts[-1].skew_ms = skew_ms
    project = world.project()
    world.place(project, range(hosts))
    for host in world.hosts:
        world.start(host)
    return world, project


# --- S2: each fatal and each serious fault ----------------------------------------------------------------------


def nothing(program: Intruder, project: Project) -> Sequence[Deed]:
    return ()


def hello_twice(program: Intruder, project: Project) -> Sequence[Deed]:
    return [program.hello(program.world.reading(program.host))]


def bytes_of_no_message(program: Intruder, project: Project) -> Sequence[Deed]:
    return [b"\xc1" * 100]


def not_canonical(program: Intruder, project: Project) -> Sequence[Deed]:
    return [b"\x92\x03\xcd\x00\x01"]


def trailing_bytes(program: Intruder, project: Project) -> Sequence[Deed]:
    return [codec.encode(Ping(1)) + b"\x00"]


def nonsense_as_gossip(program: Intruder, project: Project) -> Sequence[Deed]:
    return [Gossip(f"repo/{project.id}", b"nonsense")]


def forged_receipt(program: Intruder, project: Project) -> Sequence[Deed]:
    return [Receipt(0, b"receipt")]


def speaks_before_the_hello(program: Intruder, project: Project) -> Sequence[Deed]:
    return [Subscribe((project.id,))]


def record_nobody_signed(program: Intruder, project: Project) -> Sequence[Deed]:
    def lie(message: Message) -> Sequence[Deed]:
        if not isinstance(message, GetRefs):
            return ()
        record = program.world.projects[project.id].last[project.maintainers[0].author_id]
        forged = EncodedRefs(record.header_bytes[:-1] + bytes([record.header_bytes[-1] ^ 1]), record.entries_bytes)
        held = RefsAnswer(project.id, RefsStatus.HELD, (), (), (forged,))
        return [Refs(message.request, (held,))]

    program.answer = lie
    return [Subscribe((project.id,))]


def answers_nobody_asked_for(program: Intruder, project: Project) -> Sequence[Deed]:
    return [Refs(77, (RefsAnswer(project.id, RefsStatus.NOT_HELD),))]


def answers_about_another_repository(program: Intruder, project: Project) -> Sequence[Deed]:
    def lie(message: Message) -> Sequence[Deed]:
        return (
            [Refs(message.request, (RefsAnswer(NOBODY, RefsStatus.NOT_HELD),))] if isinstance(message, GetRefs) else ()
        )

    program.answer = lie
    return [Subscribe((project.id,))]


Program = Callable[[Intruder, Project], Sequence[Deed]]
FATAL: list[Program] = [
    hello_twice,
    bytes_of_no_message,
    not_canonical,
    trailing_bytes,
    nonsense_as_gossip,
    forged_receipt,
    speaks_before_the_hello,
    record_nobody_signed,
]
SERIOUS: list[Program] = [answers_nobody_asked_for, answers_about_another_repository]


@pytest.mark.parametrize("fault", FATAL)
def test_s2_one_fatal_fault_bans(fault: Program) -> None:
    world, project = holding(3)
    world.connect_randomly(2.0)
    world.run(5.0)
    bad = intruder(world, 0, hello=fault is not speaks_before_the_hello)
    world.run(5.0)
    bad.do(*fault(bad, project))
    world.run(60.0)
    standing = scores(world, 0).standing(bad.id, world.now)
    assert standing.bar is Bar.BANNED
    assert standing.left == pytest.approx(BAN_SECONDS, abs=60)
    assert bad.said < MIB
    assert bad.connection is None
    # It comes again, and is not let in; its own hello, which nobody takes, may break the line ahead of the goodbye.
    again = Intruder(world, bad.host, 0)
    world.stop(bad.host)
    again.start()
    world.run(5.0)
    assert {type(message) for message in again.heard} <= {Goodbye}
    assert {goodbye.code for goodbye in again.goodbyes()} <= {GoodbyeCode.BANNED}
    assert (again.connection, again.ended) == (None, 1)
    assert banned_pairs(world, 3) == []


@pytest.mark.parametrize("fault", SERIOUS)
def test_s2_two_serious_faults_disconnect(fault: Program) -> None:
    world, project = holding(3)
    world.connect_randomly(2.0)
    world.run(5.0)
    bad = intruder(world, 0)
    bad.do(*fault(bad, project))
    world.run(5.0)
    first = scores(world, 0).standing(bad.id, world.now)
    assert (first.bar, first.grey, bad.connection is None) == (None, True, False)
    world.run(60.0)
    # A grey peer is not asked while others hold the same: what it says wrong now it says of its own accord.
    bad.do(Refs(78, ()))
    world.run(5.0)
    standing = scores(world, 0).standing(bad.id, world.now)
    assert standing.bar is Bar.SHUT_OUT
    assert bad.connection is None
    assert bad.said < MIB


# --- S3 -----------------------------------------------------------------------------------------------------------


def arrivals(world: World, project: Project, honest: int, pushes: int, between: float, within: float) -> float:
    """Publish now and then; return which share of (push, honest host) was there in time."""
    arrived = 0
    for push in range(pushes):
        world.publish(push % honest, project)
        world.run(within)
        newest = max(project.versions.values())
        arrived += sum(version == newest for version in world.versions(project)[:honest])
        world.run(between - within)
    return arrived / (pushes * honest)


def test_s3_who_stays_below_the_threshold_harms_nobody() -> None:
    """Every 12 minutes a serious fault, which never adds up; and in between it takes news, and gives none."""
    honest = 10
    world, project = holding(honest)
    world.connect_randomly(4.0)
    world.run(30.0)
    attackers = [intruder(world, victim) for victim in range(honest)]
    for attacker in attackers:
        attacker.do(Subscribe((project.id,)))
    highest = 0.0
    shares = []
    for number in range(5):
        for attacker in attackers:
            attacker.do(Refs(1_000 + number, ()))
        world.run(1.0)
        highest = max(highest, *(scores(world, a.victim).value(a.id, world.now) for a in attackers))
        shares.append(arrivals(world, project, honest, 4, 180.0, 5.0))
    assert 25.0 < highest < SHUT_OUT_AT
    assert all(attacker.connection is not None for attacker in attackers)
    assert sum(shares) / len(shares) >= 0.95


# --- S5 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-1, 1])
def test_s5_node_whose_own_clock_is_off_by_a_day_bans_nobody(days: int, caplog: pytest.LogCaptureFixture) -> None:
    honest = 9
    world, project = holding(honest + 1, skew_ms=days * 86_400_000)
    broken = world.hosts[-1]
    world.connect_randomly(3.0, range(honest))
    for other in range(6):
        world.connect(broken.number, other)
    world.run(60.0)
    guard = scores(world, broken.number).guard
    assert guard.up(world.now)
    assert guard.sign is Sign.CLOCK
    for push in range(5):
        world.publish(push % honest, project)
        world.run(120.0)
    assert guard.up(world.now)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "its clock is 1440 min off" in warnings[0]
    assert banned_pairs(world, honest + 1) == []
    broken.skew_ms = 0
    world.run(700.0)
    assert not guard.up(world.now)


# --- S6, C2 -------------------------------------------------------------------------------------------------------


def questions(project: Project, start: int, count: int) -> list[Deed]:
    """Return ``count`` questions about everything in the repository."""
    return [GetRefs(start + number, (RefsQuery(project.id, 0, b"", ()),)) for number in range(count)]


def answered(program: Intruder) -> int:
    """Return how many questions were answered with refs."""
    return sum(isinstance(message, Refs) for message in program.heard)


def neighbours(seed: int, *, hostile: bool) -> int:
    """Return how many answers three neighbours behind one address get in ten minutes, while a fourth misbehaves."""
    world, project = holding(1, seed)
    home = "203.0.114.7"
    three = [intruder(world, 0, Address(home, 10_000 + number)) for number in range(3)]
    fourth: Intruder | None = None
    for step in range(120):
        for program in three:
            program.do(*questions(project, 1 + 100 * step, 5))
        if hostile and step % 3 == 0:
            fourth = intruder(world, 0, Address(home, 11_000 + step))
        elif fourth is not None:
            fourth.do(*(questions(project, 1, 500) if step % 3 == 1 else [b"\xc1"]))
        world.run(5.0)
    assert (scores(world, 0).penalty(home, world.now, world.now) > 1.0) is hostile
    return sum(answered(program) for program in three)


def test_s6_neighbours_behind_one_address_keep_four_fifths_of_what_they_had() -> None:
    alone, beside = neighbours(SEED, hostile=False), neighbours(SEED, hostile=True)
    print(alone, beside)
    assert alone == 3 * 600
    assert beside >= 0.8 * alone


def test_c2_new_identity_after_each_ban_gets_a_twentieth_of_what_an_honest_peer_gets() -> None:
    world, project = holding(1)
    honest = intruder(world, 0, Address("198.18.7.7", 9000))
    honest.do()
    world.run(5.0)
    served = identities = 0
    for number in range(100):
        churner = intruder(world, 0, Address("203.0.114.7", 10_000 + number))
        honest.do(*questions(project, 1 + 100 * number, 50))
        world.run(1.0)
        churner.do(*questions(project, 1, 500))
        world.run(8.0)
        churner.do(b"\xc1")
        world.run(1.0)
        assert scores(world, 0).banned(churner.id, world.now)
        served += churner.served
        identities += 1
        world.stop(churner.host)
    print(f"{identities} identities got {served} bytes, an honest peer {honest.served}")
    assert honest.served > 1_000_000
    assert served < 0.05 * honest.served
