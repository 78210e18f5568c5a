"""Honest peers on bad links, for a day: nobody thinks ill of them (S1 of the tests of scoring)."""

from collections import Counter

from guts.ids import PeerId
from tests.simulation.scenarios.churn import DOORS
from tests.simulation.scenarios.news import LATENCY
from tests.simulation.scenarios.scenario import Run
from tests.support.simulator.host import Host, Settings
from tests.support.simulator.links import Access, LinkProfile
from tests.support.simulator.project import Project
from tests.support.simulator.world import World

GREY = 20.0
"""Fault from which a peer gets no new fetches."""

KBIT_64 = 8_000.0
KINDS: tuple[tuple[str, Access], ...] = (
    ("good", Access()),
    ("64 kbit/s", Access(KBIT_64, KBIT_64)),
    ("stalls of 30 s", Access(stall=30.0)),
    ("stalls of 120 s", Access(stall=120.0)),
    ("20 % loss", Access(loss=0.2)),
    ("clock 1 h off", Access()),
    ("restarts every 5 min", Access()),
)
HOUR_MS = 3_600_000
RESTART_EVERY = 300.0
BETWEEN_PUSHES = 600.0
HOLDERS = 10
REPOSITORIES = 1


def honest(run: Run) -> None:
    """A day of honest nodes, a seventh each: good, 64 kbit/s, stalls of 30 s and 120 s, 20 % loss, 1 h off, restarts.

    Nobody's fault reaches 20, in anybody's eyes, at any time. Each node seeds a repository of ten holders, with
    a push every ten minutes.

    Options: hours (24), connections (that a node has at most, 8; a door 200).
    """
    hours, connections = run.option("hours", 24), int(run.option("connections", 8))
    world = World(0, run.seed, LinkProfile(LATENCY), running=False)
    for number in range(run.nodes):
        host = world.add_host(access=KINDS[number % len(KINDS)][1])
        host.skew_ms = (number % 2 * 2 - 1) * HOUR_MS if _kind(host) == "clock 1 h off" else 0
    doors = tuple(world.target(number * len(KINDS)) for number in range(DOORS))
    for host in world.hosts:
        host.settings = Settings(doors=doors, max_connections=200 if host.target in doors else connections)
    homes = _repositories(world)
    for host in world.hosts:
        world.start(host)
        world.run(0.05)
    world.connect_randomly()
    for host in world.hosts:
        if _kind(host) == "restarts every 5 min":
            world.engine.call_later(world.rng.uniform(0.0, RESTART_EVERY), _restart, world, host)
    pushes = 0
    while world.now < hours * 3600.0:
        for project, home in homes:
            if world.hosts[home].program is not None:
                world.publish(home, project)
                pushes += 1
            world.run(BETWEEN_PUSHES / len(homes))
        faults = [fault for host in world.hosts for _, _, _, fault in host.disk.ledger]
        print(
            f"  {world.now / 3600:.1f} hours: {len(faults)} faults, the highest {max(faults, default=0.0):g}",
            flush=True,
        )
    _judge(run, world)
    behind = sum(
        len(project.versions) - project.version(host.disk.copies[project.id].replica) > 1
        for project, _ in homes
        for host in world.hosts
        if project.id in host.disk.copies and _kind(host) == "good"
    )
    run.add("pushes", pushes)
    run.add("good nodes more than one push behind", behind)
    run.done_with(world)


def _kind(host: Host) -> str:
    return KINDS[host.number % len(KINDS)][0]


def _repositories(world: World) -> list[tuple[Project, int]]:
    homes: list[tuple[Project, int]] = []
    for _ in range(REPOSITORIES):
        numbers = [host.number for host in world.hosts]
        world.rng.shuffle(numbers)
        for start in range(0, max(1, len(numbers) - HOLDERS + 1), HOLDERS):
            holders = sorted(numbers[start : start + HOLDERS])
            # Who signs has a clock that is right: a signer whose clock is off refuses.
            able = [number for number in holders if _kind(world.hosts[number]) != "clock 1 h off"]
            project = world.project()
            world.place(project, holders)
            homes.append((project, able[0]))
    return homes


def _restart(world: World, host: Host) -> None:
    world.stop(host, dark=world.rng.random() < 0.5)
    world.engine.call_later(world.rng.uniform(1.0, 10.0), world.start, host)
    world.engine.call_later(RESTART_EVERY * world.rng.uniform(0.9, 1.1), _restart, world, host)


def _judge(run: Run, world: World) -> None:
    kinds = {host.key.peer_id: _kind(host) for host in world.hosts}
    grey: set[tuple[int, PeerId]] = set()
    reasons: Counter[tuple[str, str]] = Counter()
    worst = 0.0
    for host in world.hosts:
        for peer, reason, _, fault in host.disk.ledger:
            reasons[reason, kinds[peer]] += 1
            worst = max(worst, fault)
            if fault >= GREY:
                grey.add((host.number, peer))
    for (reason, kind), count in sorted(reasons.items()):
        print(f"  {count} x {reason} against {kind}")
    run.add("grey peers, counted once for each that saw it", len(grey), at_most=0)
    run.add("highest fault", worst)
    run.add("faults", sum(reasons.values()))
