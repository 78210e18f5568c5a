"""News: what one maintainer signs reaches everybody who wants it, fast and cheaply."""

import heapq
import math

from tests.simulation.scenarios.scenario import Run
from tests.support.simulator.host import Settings
from tests.support.simulator.links import LinkProfile
from tests.support.simulator.project import Project
from tests.support.simulator.statistics import Spread, Traffic, Waiting, quantile
from tests.support.simulator.world import World

LATENCY = 0.05
MAINTAINERS = 4
BETWEEN_PUSHES = 15.0
NEVER = 1e9


def gathered(run: Run, links: LinkProfile, degree: float, ask_interval: float) -> tuple[World, Project]:
    """Return a world in which all hosts hold one repository, connected at random.

    Each host has places for one more than ``degree``, and dials half: with the usual fifty the mean would become
    16, as peers tell each other of peers; with none to spare a host would sometimes find no place at all.
    """
    settings = Settings(ask_interval=ask_interval, max_connections=round(degree) + 1)
    world = World(run.nodes, run.seed, links, settings, running=False)
    project = world.project(MAINTAINERS)
    world.place(project, range(run.nodes))
    for host in world.hosts:
        world.start(host)
    world.connect_randomly(degree)
    world.run(30.0)
    for host in world.hosts:
        # Both that it dialled had no place left, and it has no door to learn of others from.
        while not host.links:
            world.connect(host.number, world.rng.randrange(run.nodes))
            world.run(5.0)
    return world, project


def home_of(world: World, author: int) -> int:
    """Return the host at which a maintainer pushes."""
    return author * len(world.hosts) // MAINTAINERS


def push(world: World, project: Project, spread: Spread, pushes: int, maintainers: int = MAINTAINERS) -> None:
    """Have the maintainers push in turn, each at a host of its own."""
    for number in range(pushes):
        author = number % maintainers
        home = home_of(world, author)
        spread.signed(world.now, home, world.publish(home, project, author))
        world.run(BETWEEN_PUSHES)


def news(run: Run) -> None:
    """News of one repository that all nodes want, on a random graph of mean degree 8, without loss and with 5 %.

    Options: pushes (measured, after as many that let the tree settle), degree, loss.
    """
    pushes, degree = int(run.option("pushes", 12)), run.option("degree", 8)
    _spread(run, LinkProfile(LATENCY), degree, pushes, "no loss", 1)
    _spread(run, LinkProfile(LATENCY), degree, pushes, "no loss, four push", MAINTAINERS)
    _spread(run, LinkProfile(LATENCY, loss=run.option("loss", 0.05)), degree, pushes, "loss", MAINTAINERS)
    _certain(run, degree)


def _spread(run: Run, links: LinkProfile, degree: float, pushes: int, name: str, maintainers: int) -> None:
    world, project = gathered(run, links, degree, ask_interval=NEVER)
    spread, traffic = Spread(project.id), Traffic()
    world.observe(spread, traffic)
    push(world, project, spread, pushes, maintainers)
    spread.forget()
    push(world, project, spread, pushes, maintainers)
    world.run(30.0)
    journeys = spread.journeys.values()
    others = (run.nodes - 1) * len(journeys)
    heard = [seconds for journey in journeys for seconds in journey.heard.values()]
    committed = sum(len(journey.committed) for journey in journeys)
    run.add(f"{name}: mean degree", 2 * len(world.wires.links) / run.nodes)
    run.add(f"{name}: heard by gossip alone, share", len(heard) / others, at_least=0.999)
    run.add(f"{name}: committed by gossip alone, share", committed / others, at_least=0.999)
    most = math.inf if links.loss else 6.0
    run.add(f"{name}: median of delivery, link latencies", quantile(heard, 0.5) / LATENCY)
    run.add(f"{name}: p99 of delivery, link latencies", quantile(heard, 0.99) / LATENCY, at_most=most)
    done = [seconds for journey in journeys for seconds in journey.committed.values()]
    run.add(
        f"{name}: p99 of the shortest paths, link latencies", quantile(_shortest(world, maintainers), 0.99) / LATENCY
    )
    run.add(f"{name}: p99 until committed, link latencies", quantile(done, 0.99) / LATENCY)
    copies = sum(journey.copies for journey in journeys) / others
    run.add(f"{name}: copies of the record per subscriber", copies, at_most=1.5)
    run.add(f"{name}: of these in answers", sum(journey.pulled for journey in journeys) / others)
    run.add(f"{name}: messages per subscriber and push", traffic.messages / others / 2)
    run.done_with(world)


def _shortest(world: World, maintainers: int) -> list[float]:
    """Return the latencies of the shortest paths from the maintainers to everybody: nothing is faster than that."""
    found: list[float] = []
    for author in range(maintainers):
        reached: dict[int, float] = {}
        queue = [(0.0, home_of(world, author))]
        while queue:
            seconds, number = heapq.heappop(queue)
            if number not in reached:
                reached[number] = seconds
                for link, side in world.hosts[number].links.values():
                    heapq.heappush(queue, (seconds + link.latency, link.hosts[1 - side].number))
        found += [seconds for seconds in reached.values() if seconds]
    return found


def _certain(run: Run, degree: float) -> None:
    """Half of all gossip is lost for good: anti-entropy makes up for it."""
    world, project = gathered(run, LinkProfile(LATENCY, loss=0.05), degree, ask_interval=60.0)
    spread = Spread(project.id)
    world.observe(spread)
    world.wires.lose = lambda source, to, message: "Gossip" in type(message).__name__ and world.rng.random() < 0.5
    push(world, project, spread, 4)
    waiting = Waiting(world, project)
    world.observe(waiting)
    took = world.run(600.0, lambda: not waiting.lacking)
    newest = len(project.versions)
    share = world.versions(project).count(newest) / run.nodes
    run.add("half of gossip lost for good: seconds until anti-entropy has made up for it", took)
    run.add("half of gossip lost for good: with anti-entropy, share that has the newest", share, at_least=1.0)
    run.done_with(world)
