"""Cost: what a node spends depends on what it seeds, and not on how many others there are."""

from tests.simulation.scenarios.news import LATENCY
from tests.simulation.scenarios.scenario import Run
from tests.support.simulator.host import Settings
from tests.support.simulator.links import LinkProfile
from tests.support.simulator.project import Project
from tests.support.simulator.statistics import Traffic
from tests.support.simulator.world import World

REPOSITORIES = 2
"""That each node seeds."""

HOLDERS = 10
"""That each repository has."""


def cost(run: Run) -> None:
    """Messages and bytes per node in networks of nodes/30, nodes/10, nodes/3 and nodes, each seeding two repositories.

    Options: minutes (10), sizes (how many of the four, the smallest first).
    """
    minutes = run.option("minutes", 10)
    sizes = [run.nodes // divisor for divisor in (30, 10, 3, 1)][: int(run.option("sizes", 4))]
    assert sizes[0] >= HOLDERS, f"the smallest network needs {HOLDERS} nodes"
    sent: list[tuple[float, float]] = []
    for size in sizes:
        traffic = _measured(run, size, minutes)
        messages, volume = traffic.messages / size / minutes, traffic.bytes / size / minutes
        sent.append((messages, volume))
        run.add(f"{size} nodes: messages per node and minute", messages)
        run.add(f"{size} nodes: bytes per node and minute", volume)
    run.add("messages, largest network against smallest", sent[-1][0] / sent[0][0], at_most=1.25)
    run.add("bytes, largest network against smallest", sent[-1][1] / sent[0][1], at_most=1.25)


def _measured(run: Run, size: int, minutes: float) -> Traffic:
    # One place more than the mean degree that is wanted, as in ``news``.
    world = World(size, run.seed, LinkProfile(LATENCY, loss=0.01), Settings(max_connections=9), running=False)
    homes: list[tuple[Project, int]] = []
    for _ in range(REPOSITORIES):
        numbers = list(range(size))
        world.rng.shuffle(numbers)
        for start in range(0, size - HOLDERS + 1, HOLDERS):
            project = world.project()
            holders = sorted(numbers[start : start + HOLDERS])
            world.place(project, holders)
            homes.append((project, holders[0]))
    for host in world.hosts:
        world.start(host)
    world.connect_randomly()
    world.run(600.0)
    traffic = Traffic()
    world.observe(traffic)
    # One push per repository and minute, spread over it.
    for _ in range(int(minutes)):
        for project, home in homes:
            world.publish(home, project)
            world.run(60.0 / len(homes))
    run.done_with(world)
    return traffic
