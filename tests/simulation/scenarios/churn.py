"""Churn: nodes come and go, and those that stay hear all the news."""

from collections import deque
from collections.abc import Iterable

from tests.simulation.scenarios.news import LATENCY
from tests.simulation.scenarios.scenario import Run
from tests.support.simulator.host import Host, Settings
from tests.support.simulator.links import LinkProfile
from tests.support.simulator.project import Project
from tests.support.simulator.statistics import Spread
from tests.support.simulator.topology import components
from tests.support.simulator.world import World

DOORS = 3
STABLE = 0.3
"""Share of nodes that stay when all others come and go."""

AWAY = 120.0
"""Seconds that a node is away."""


def peopled(run: Run) -> tuple[World, Project]:
    """Return a world in which all hosts hold one repository and know the same three doors, which never leave."""
    world = World(run.nodes, run.seed, LinkProfile(LATENCY, loss=0.01), running=False)
    doors = tuple(world.target(number) for number in range(DOORS))
    for host in world.hosts:
        host.settings = Settings(doors=doors, max_connections=200 if host.number < DOORS else 50)
    project = world.project(1)
    world.place(project, range(run.nodes))
    for host in world.hosts:
        world.start(host)
        world.run(0.1)
    world.connect_randomly()
    world.run(120.0)
    return world, project


def leave(run: Run) -> None:
    """A fifth of the nodes is gone at once, without a word; news goes on meanwhile.

    Options: share (that leaves, 0.2), minutes (of news after that, 3).
    """
    world, project = peopled(run)
    spread = Spread(project.id)
    world.observe(spread)
    gone = world.rng.sample(world.hosts[DOORS:], round(run.nodes * run.option("share", 0.2)))
    for host in gone:
        world.stop(host, dark=True)
    stay = [host for host in world.hosts if host not in gone]
    for _ in range(int(run.option("minutes", 3) * 6)):
        spread.signed(world.now, 0, world.publish(0, project))
        world.run(10.0)
    world.run(180.0)
    run.add("components of those that stay", len(components(world.wires, stay)), at_most=1)
    run.add("share of news that they have", _share(spread, world, project, stay), at_least=0.999)
    run.add("of them with the newest", _with_newest(world, project, stay), at_least=0.999)
    run.done_with(world)


def churn(run: Run) -> None:
    """Each minute a tenth of the nodes leaves, half of them without a word, and comes back two minutes later.

    Three in ten stay all the time.

    Options: minutes (60), share (that leaves each minute, 0.1).
    """
    world, project = peopled(run)
    spread = Spread(project.id)
    world.observe(spread)
    stay = world.hosts[: max(DOORS, round(STABLE * run.nodes))]
    others = world.hosts[len(stay) :]
    away: deque[tuple[float, Host]] = deque()
    each = run.nodes * run.option("share", 0.1) / 6
    due, apart, looks = 0.0, 0, 0
    for turn in range(int(run.option("minutes", 60) * 6)):
        spread.signed(world.now, 0, world.publish(0, project))
        due += each
        leaving = world.rng.sample([host for host in others if host.program is not None], int(due))
        due -= len(leaving)
        for host in leaving:
            world.stop(host, dark=world.rng.random() < 0.5)
            away.append((world.now + AWAY, host))
        while away and away[0][0] <= world.now:
            world.start(away.popleft()[1])
        world.run(10.0)
        if turn % 6 == 5:
            running = [host for host in world.hosts if host.program is not None]
            looks += 1
            apart += sum(not part.isdisjoint(stay) for part in components(world.wires, running)) > 1
    world.run(180.0)
    run.add("looks at which those that stay were not in one component", apart, at_most=0)
    run.add("looks", looks)
    run.add("share of news that those that stay have", _share(spread, world, project, stay), at_least=0.999)
    run.add("of them with the newest", _with_newest(world, project, stay), at_least=0.999)
    faults = [fault for host in world.hosts for fault in host.disk.ledger]
    run.add("faults counted against anybody", len(faults), at_most=0)
    run.done_with(world)


def _share(spread: Spread, world: World, project: Project, stay: list[Host]) -> float:
    """Return the share of pairs (record, host) in which the host has the record, or a newer one of its author."""
    others = [host for host in stay if host.number]
    newest = {host: project.version(host.disk.copies[project.id].replica) for host in others}
    had = 0
    for digest, journey in spread.journeys.items():
        number = project.versions[digest]
        had += sum(host.number in journey.committed or newest[host] >= number for host in others)
    return had / len(spread.journeys) / len(others)


def _with_newest(world: World, project: Project, hosts: Iterable[Host]) -> float:
    versions = [project.version(host.disk.copies[project.id].replica) for host in hosts]
    return versions.count(len(project.versions)) / len(versions)
