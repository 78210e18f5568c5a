"""Partitions: each part goes on by itself, and afterwards everybody has everything."""

from collections import Counter

from tests.simulation.scenarios.news import LATENCY
from tests.simulation.scenarios.scenario import Run
from tests.support.simulator.host import Settings
from tests.support.simulator.links import LinkProfile
from tests.support.simulator.project import Project
from tests.support.simulator.statistics import Waiting
from tests.support.simulator.world import World

MAINTAINERS_PER_PART = 2
REFS = ("refs/heads/main", "refs/heads/dev", "refs/heads/feature", "refs/tags/v1")
HEALED_WITHIN = 60.0


def partition(run: Run) -> None:
    """Two to five parts (by the seed), pushes in each by two maintainers, then the net is one again.

    Identical state everywhere within 60 virtual seconds; no record lost; what the parts did differently is listed as
    conflicts.

    Options: parts, pushes (in each part, 500), seconds (between two pushes of a part, 0.5).
    """
    parts = int(run.option("parts", 2 + run.seed % 4))
    pushes, between = int(run.option("pushes", 500)), run.option("seconds", 0.5)
    world = World(run.nodes, run.seed, LinkProfile(LATENCY, loss=0.01), Settings(), running=False)
    project = world.project(parts * MAINTAINERS_PER_PART)
    world.place(project, range(run.nodes))
    for host in world.hosts:
        world.start(host)
    world.connect_randomly()
    world.run(30.0)
    numbers = list(range(run.nodes))
    world.rng.shuffle(numbers)
    members = [sorted(numbers[part::parts]) for part in range(parts)]
    world.partition(members)
    made = _pushes(world, project, members, pushes, between)
    world.run(10.0)
    run.add("parts", parts)
    run.add("pushes", made)
    run.add("in one state within each part", _share_settled(world, project, members))
    world.heal()
    waiting = Waiting(world, project)
    world.observe(waiting)
    took = world.run(4 * HEALED_WITHIN, lambda: not waiting.lacking)
    run.add("seconds until the state is the same everywhere", took, at_most=HEALED_WITHIN)
    _check(run, world, project)
    run.done_with(world)


def _pushes(world: World, project: Project, members: list[list[int]], pushes: int, between: float) -> int:
    """Have the maintainers of each part push there, each at a host of its own."""
    made = 0
    for _ in range(pushes):
        for part, hosts in enumerate(members):
            which = world.rng.randrange(MAINTAINERS_PER_PART)
            author = part * MAINTAINERS_PER_PART + which
            home = hosts[which * len(hosts) // MAINTAINERS_PER_PART]
            world.publish(home, project, author, world.rng.choice(REFS))
            made += 1
        world.run(between)
    return made


def _points(world: World, project: Project, number: int) -> tuple[bytes, ...]:
    return tuple(sorted(record.hash for record in world.hosts[number].disk.copies[project.id].replica.newest.values()))


def _share_settled(world: World, project: Project, members: list[list[int]]) -> float:
    same = sum(len({_points(world, project, number) for number in hosts}) == 1 for hosts in members)
    return same / len(members)


def _check(run: Run, world: World, project: Project) -> None:
    replicas = [host.disk.copies[project.id].replica for host in world.hosts]
    states = {
        (replica.chain.hash, tuple(refs.refs.items()), refs.head, refs.conflicts)
        for replica in replicas
        for refs in [replica.canonical(project.commits)]
    }
    run.add("different states in the end", len(states), at_most=1)
    lost = sum(replica.newest.get(author) != record for replica in replicas for author, record in project.last.items())
    run.add("newest records missing somewhere", lost, at_most=0)
    refs = replicas[0].canonical(project.commits)
    # Nothing that any part showed in the end is unreachable: it is shown, contained in what is, or a conflict.
    shown = project.commits.closure(refs.refs.values())
    tips = {oid for record in project.last.values() for oid in record.tips()}
    run.add("commits signed last that no ref reaches", len(project.commits.missing(tips, shown)), at_most=0)
    run.add("conflicts listed", len(refs.conflicts), at_least=1)
    missing = sum(copy.commits & shown != shown for host in world.hosts for copy in [host.disk.copies[project.id]])
    run.add("hosts that lack objects", missing, at_most=0)
    faults = [fault for host in world.hosts for fault in host.disk.ledger]
    print(f"  faults: {Counter(reason for _, reason, _, _ in faults)}")
    run.add("faults counted against anybody", len(faults), at_most=0)
