"""Who is connected to whom, of hundreds of real services: under attack, after a restart, when many leave."""

import itertools
import math
from collections import Counter

import pytest

from guts.addresses import Address, BootstrapAddress
from guts.effects import Disconnect
from guts.ids import PeerId
from guts.peers.networks import host as host_of
from guts.peers.networks import prefix
from guts.peers.slots import MAX_PER_HOST, MAX_PER_PREFIX, TARGET_OUTBOUND
from guts.peers.state import PeerConnection
from guts.wire.secure import Direction
from tests.support.simulator.host import Host, Settings
from tests.support.simulator.links import LinkProfile
from tests.support.simulator.statistics import quantile
from tests.support.simulator.world import World
from tests.support.sybils import invade

LINKS = LinkProfile(0.05)
HONEST = 40
ONE_24 = [Address(f"66.6.6.{1 + n % 250}", 9000 + n // 250) for n in range(1000)]
MANY_24 = [Address(f"66.{n // 250}.{n % 250}.1", 9000) for n in range(1000)]


def settled(hosts: int, seed: int, *, seconds: float = 120.0) -> World:
    """Return a world in which all joined by one door, host 0, and have found each other."""
    print(f"seed {seed}")
    world = World(0, seed, LINKS)
    for number in range(hosts):
        door = () if number == 0 else (world.hosts[0].target,)
        world.start(world.add_host(settings=Settings(doors=door)))
    world.run(seconds)
    return world


def ready(host: Host) -> list[PeerConnection]:
    return list(host.service.peers.ready())


def dialled(host: Host, among: set[PeerId]) -> list[PeerConnection]:
    """Return the connections that a host has dialled to some peers."""
    return [c for c in ready(host) if c.direction is Direction.OUTBOUND and c.peer in among]


def component(world: World, hosts: list[Host]) -> set[int]:
    """Return the numbers of those of ``hosts`` that are connected to the first of them, over each other."""
    numbers = {host.key.peer_id: host.number for host in hosts}
    by_number = {host.number: host for host in hosts}
    found, front = {hosts[0].number}, [hosts[0].number]
    while front:
        for connection in ready(by_number[front.pop()]):
            number = numbers.get(connection.peer)
            if number is not None and number not in found:
                found.add(number)
                front.append(number)
    return found


class Dials:
    """When the dials of one host came."""

    def __init__(self, world: World, target: BootstrapAddress) -> None:
        self.times: list[float] = []
        inner = world.wires.dial

        def dial(host: Host, wanted: BootstrapAddress) -> None:
            if (wanted.host, wanted.port) == (target.host, target.port):
                self.times.append(world.now)
            inner(host, wanted)

        world.wires.dial = dial  # type: ignore[method-assign,assignment]

    def per_second(self, window: float = 10.0) -> float:
        """Return the highest rate over any ``window`` seconds."""
        return max((sum(t <= u < t + window for u in self.times) for t in self.times), default=0) / window


# --- C1: many identities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [ONE_24, MANY_24], ids=["one network", "a thousand networks"])
def test_c1_thousand_identities_take_no_place_that_the_victim_chose_and_keep_no_honest_peer_out(
    where: list[Address],
) -> None:
    world = settled(HONEST, 1)
    victim, honest = world.hosts[7], {host.key.peer_id for host in world.hosts}
    chosen = {connection.peer for connection in dialled(victim, honest)}
    assert len(chosen) >= TARGET_OUTBOUND
    invade(world, where, victim.target, claims=2000)
    world.run(60.0)
    manager = victim.service.peers
    opened = [connection for connection in manager.connections.values() if not connection.closing]
    assert len(opened) <= 50
    inbound = [c.address.ip for c in opened if c.direction is Direction.INBOUND and c.peer not in honest]
    print(f"{len(opened)} connections, {len(inbound)} of the attacker's")
    assert max(Counter(map(host_of, inbound)).values()) <= MAX_PER_HOST
    assert max(Counter(map(prefix, inbound)).values()) <= MAX_PER_PREFIX
    if where is ONE_24:
        assert len(inbound) <= MAX_PER_PREFIX
    else:
        assert len(inbound) >= 20, "there is an attack"
    assert len(dialled(victim, honest)) >= TARGET_OUTBOUND
    assert chosen <= {connection.peer for connection in dialled(victim, honest)}
    # Whom the victim has reached before gets in, and while the attacker has one network, who is new as well.
    reached = {state.id for state in manager.book.peers.values() if state.reached}
    friends = [host for host in world.hosts[:HONEST] if host.key.peer_id in reached]
    for friend in friends[:3]:
        world.disconnect(friend.number, victim.number)
        world.run(0.2)
        world.connect(friend.number, victim.number)
        world.run(2.0)
        assert manager.connection_to(friend.key.peer_id) is not None
    for _ in range(3 if where is ONE_24 else 0):
        newcomer = world.add_host(settings=Settings())
        world.start(newcomer)
        world.connect(newcomer.number, victim.number)
        world.run(2.0)
        assert manager.connection_to(newcomer.key.peer_id) is not None
    # The book holds claims of theirs, and all whom the victim had reached.
    assert len(manager.book.peers) <= 1050
    assert chosen <= {state.id for state in manager.book.peers.values() if state.reached}


# --- D4: a restart ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True], ids=["sybils", "nobody"])
def test_d4_node_that_restarts_with_poisoned_doors_finds_an_honest_peer_within_a_minute(silent: bool) -> None:
    world = settled(HONEST, 2)
    victim, honest = world.hosts[7], {host.key.peer_id for host in world.hosts}
    anchors = [connection.peer for connection in victim.service.peers.upkeep.anchors()]
    doors = invade(world, [Address(f"66.6.{n}.1", 9000) for n in range(20)], victim.target, claims=500)
    world.run(60.0)
    world.stop(victim)
    if silent:
        for host in world.hosts[HONEST:]:
            world.stop(host, dark=True)
    world.run(300.0)
    victim.settings = Settings(doors=tuple(doors[:8]))
    world.start(victim)
    restarted = victim.service.peers
    assert set(restarted.book.anchors) == set(anchors)
    took = world.run(60.0, lambda: bool(dialled(victim, honest)))
    print(f"the first honest peer after {took:.1f} s")
    assert took < 5.0
    world.run(60.0)
    assert len(dialled(victim, honest)) >= TARGET_OUTBOUND - 2
    assert {connection.peer for connection in dialled(victim, honest)} >= set(anchors)


def test_d4_node_whose_book_is_dead_finds_the_network_by_its_door() -> None:
    world = settled(HONEST, 3)
    victim = world.hosts[7]
    world.stop(victim)
    for host in world.hosts[8:]:
        world.stop(host, dark=True)
    world.start(victim)
    took = world.run(120.0, lambda: any(c.peer == world.peer(0) for c in ready(victim)))
    print(f"the door after {took:.1f} s")
    assert took < 60.0


# --- restarts -----------------------------------------------------------------------------------------------


def test_three_hundred_nodes_that_restart_at_once_find_four_peers_and_spare_their_door() -> None:
    world = settled(300, 4, seconds=240.0)
    hosts = world.hosts[1:]
    assert min(len(ready(host)) for host in hosts) >= 4
    for host in hosts:
        world.stop(host)
    world.run(30.0)
    dials = Dials(world, world.hosts[0].target)
    begun = world.now
    for host in hosts:
        world.start(host)
    took = {host.number: math.inf for host in hosts}

    def all_have_four() -> bool:
        for host in hosts:
            if took[host.number] == math.inf and len(ready(host)) >= 4:
                took[host.number] = world.now - begun
        return all(time < math.inf for time in took.values())

    for _ in range(120):
        if all_have_four():
            break
        world.run(1.0)
    p99 = quantile(list(took.values()), 0.99)
    print(f"p99 {p99:.1f} s; at the door {dials.per_second():.1f} dials/s, {len(dials.times)} in all")
    assert p99 < 60.0
    assert dials.per_second() < 5.0


def test_node_whose_three_hundred_peers_heard_that_it_restarts_is_found_by_some_and_not_overrun() -> None:
    world = World(0, 5, LINKS)
    hub = world.add_host(settings=Settings(max_connections=400))
    world.start(hub)
    for number in range(300):
        host = world.add_host(settings=Settings(doors=(hub.target,)))
        world.engine.call_at(number * 0.1, world.start, host)
    world.run(90.0)
    peers = len(ready(hub))
    assert peers >= 250
    # As the driver does at the end.
    goodbye = hub.service.peers.stop()
    for connection in ready(hub):
        world._perform(hub, Disconnect(connection.id, goodbye))
    dials = Dials(world, hub.target)
    world.run(1.0)
    world.stop(hub)
    world.run(2.0)
    world.start(hub)
    four = world.run(60.0, lambda: len(ready(hub)) >= 4)
    world.run(60.0)
    print(f"{peers} peers; four after {four:.1f} s, {len(ready(hub))} in the end; {dials.per_second():.1f} dials/s")
    assert four < 60.0
    assert dials.per_second() < 5.0


# --- who leaves ---------------------------------------------------------------------------------------------


def test_those_who_stay_are_one_network_when_a_fifth_leaves_and_others_come_and_go() -> None:
    world = settled(100, 6, seconds=240.0)
    rng = world.rng
    stay = [world.hosts[n] for n in range(1, 41)]
    mortal = [world.hosts[n] for n in (0, *range(41, 100))]
    rng.shuffle(mortal)
    for host in mortal[:20]:
        world.stop(host, dark=True)
    world.run(180.0)
    assert component(world, stay) == {host.number for host in stay}
    alive = mortal[20:]
    for minute in range(8):
        for host in rng.sample(alive, 10):
            world.stop(host, dark=rng.random() < 0.5)
            alive.remove(host)
        for _ in range(10):
            host = world.add_host(settings=Settings(doors=(stay[minute % 40].target,)))
            world.start(host)
            alive.append(host)
        world.run(60.0)
        everybody = [*stay, *alive]
        found = component(world, everybody)
        assert {host.number for host in stay} <= found, f"minute {minute}"
    assert min(len(ready(host)) for host in stay) >= 4
    assert len(found) >= 0.98 * len(everybody)
    print(f"{len(found)} of {len(everybody)} in one component; degrees {sorted(len(ready(h)) for h in stay)}")


def test_two_halves_that_were_cut_apart_are_one_again() -> None:
    world = settled(60, 7)
    halves = [list(range(30)), list(range(30, 60))]
    world.partition(halves)
    world.run(1200.0)
    between = [
        (a, b) for a, b in itertools.product(*halves) if world.hosts[a].service.peers.connection_to(world.peer(b))
    ]
    assert between == []
    world.heal()
    took = world.run(300.0, lambda: len(component(world, world.hosts)) == 60)
    print(f"one network after {took:.1f} s")
    assert took < 300.0
