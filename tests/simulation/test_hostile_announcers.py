"""Peers that announce what they do not hold (docs/threats.md B7), on a simulated network of 20."""

import random
from dataclasses import dataclass

import pytest

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import Effect, ResetStream, Send
from guts.events import ConnectionId, Event, MessageReceived, Seed
from guts.gossip.envelope import envelope
from guts.ids import RepositoryId
from guts.service.service import Service
from guts.wire.messages import (
    EncodedRefs,
    GetObjects,
    GetRefs,
    Hello,
    HelloAck,
    Message,
    NewRepository,
    Objects,
    ObjectsStatus,
    Refs,
    RefsAnswer,
    RefsStatus,
    ResetCode,
)
from tests.support.simulator.host import make_service
from tests.support.simulator.observer import Observer
from tests.support.simulator.program import Act
from tests.support.simulator.project import Project
from tests.support.simulator.world import World

NODES = 20
HONEST, LIAR, VICTIM = 0, 1, 2


@dataclass
class Announcer:
    """Says to everybody that it holds a repository, with the records that anybody may pass on, and never gives a pack.

    Attributes:
        silent: it does not even refuse.
        asked: how often it was asked for a pack.
    """

    inner: Service
    project: Project
    record: EncodedRefs
    peer_record: bytes
    silent: bool
    asked: int = 0

    def handle(self, event: Event, now: Now) -> list[Act] | list[Effect]:
        return [*self._acts(event, now)]

    def _acts(self, event: Event, now: Now) -> list[Effect]:
        if not isinstance(event, MessageReceived):
            return self.inner.handle(event, now)
        match event.message:
            case GetRefs(request=request, queries=queries):
                answers = tuple(self._answer(query.repository) for query in queries)
                return [Send(event.connection, Refs(request, answers))]
            case GetObjects(request=request, stream=stream):
                self.asked += 1
                refusal = Send(event.connection, Objects(request, ObjectsStatus.NOT_HELD))
                reset = ResetStream(event.connection, stream, ResetCode.NOT_FOUND)
                return [] if self.silent else [refusal, reset]
            case Hello() | HelloAck():
                return [*self.inner.handle(event, now), self._announcement(event.connection)]
            case _:
                return self.inner.handle(event, now)

    def deadline(self, now: float) -> float:
        return self.inner.deadline(now)

    def _answer(self, repository: RepositoryId) -> RefsAnswer:
        if repository != self.project.id:
            return RefsAnswer(repository, RefsStatus.NOT_HELD)
        return RefsAnswer(repository, RefsStatus.HELD, self.project.chain.documents, (), (self.record,))

    def _announcement(self, connection: ConnectionId) -> Send:
        chain = self.project.chain
        return Send(connection, envelope(NewRepository(self.project.id, chain.epoch, chain.hash, self.peer_record)))


class Attempts(Observer):
    """Counts the packs that the victim asks for, by whom it asks."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def sent(self, time: float, source: int, target: int, message: Message, size: int) -> None:
        if source == VICTIM and isinstance(message, GetObjects):
            self.asked.append(target)


def network(seed: int, liars: int, *, silent: bool) -> tuple[World, Project, Attempts]:
    """Return a network in which one host holds a repository and others only say so, all connected at random."""
    world = World(NODES, seed, running=False)
    project = world.project()
    record = world.place(project, [HONEST])
    for host in world.hosts:
        if not LIAR <= host.number < LIAR + liars or host.number == VICTIM:
            world.start(host)
            continue
        inner = make_service(host, world.reading(host), random.Random(seed))
        encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
        world.start(host, Announcer(inner, project, encoded, inner.peers.peer_record, silent))
        world.providers.provide(host, project.id)
    attempts = Attempts()
    world.observe(attempts)
    world.connect_randomly(8.0)
    world.connect(VICTIM, LIAR)
    world.run(5.0)
    return world, project, attempts


def seed_it(world: World, project: Project, *hints: BootstrapAddress) -> bool:
    """Have the victim seed the repository; tell whether it has it within ten minutes."""
    world.command(VICTIM, Seed(project.id, hints, 600.0))
    world.run(600.0, until=lambda: bool(world.versions(project)[VICTIM]))
    return bool(world.versions(project)[VICTIM])


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_b7_announcer_of_what_it_does_not_hold_costs_no_more_than_three_attempts(seed: int, silent: bool) -> None:
    world, project, attempts = network(seed, 1, silent=silent)
    assert seed_it(world, project, world.target(LIAR)), f"seed {seed}"
    assert len(attempts.asked) <= 3, f"seed {seed}: {attempts.asked}"
    assert attempts.asked[-1] == HONEST
    assert world.hosts[VICTIM].service.peers.scores.value(world.peer(LIAR), world.now) == 0.0
