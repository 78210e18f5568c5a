"""The simulator itself: a seed is a run, links are streams, a disk outlives a restart, and anything can be a peer."""

import ipaddress
import math
import random

import pytest

from guts.clock import Now
from guts.effects import Dial, Effect, Send
from guts.events import Connected, ConnectionId, DialFailed, Disconnected, Event, MessageReceived
from guts.records import PeerRecord
from guts.wire.messages import (
    Error,
    ErrorCode,
    GetObjects,
    Hello,
    HelloAck,
    Message,
    Objects,
    ObjectsStatus,
    Ping,
    Pong,
)
from tests.simulation.__main__ import main
from tests.simulation.scenarios.listed import SCENARIOS
from tests.simulation.scenarios.scenario import BadRun, Missed, Run, Scenario
from tests.support.simulator.addresses import address
from tests.support.simulator.host import LIFE_MS, Host
from tests.support.simulator.links import FRAME_BYTES, Access, End, Link, LinkProfile
from tests.support.simulator.program import AskObjects, SendBytes
from tests.support.simulator.wires import CONNECTION_TIMEOUT
from tests.support.simulator.world import WALL, World

SEED = 7
LINKS = LinkProfile(0.05, spread=0.0, jitter=0.0)


class Stranger:
    """A program that is no service: it says hello, and notes what happens."""

    def __init__(self, host: Host) -> None:
        record = PeerRecord.sign(host.key, (host.address,), (), 1, WALL + LIFE_MS).encoded
        self._hello = Hello(1, 1, "stranger", (), record, WALL, b"stranger")
        self.heard: list[tuple[float, Event]] = []

    def handle(self, event: Event, now: Now) -> list[Effect]:
        self.heard.append((now.mono, event))
        return [Send(event.connection, self._hello)] if isinstance(event, Connected) else []

    def deadline(self, now: float) -> float:
        return math.inf

    @property
    def messages(self) -> list[tuple[float, Message]]:
        return [(at, event.message) for at, event in self.heard if isinstance(event, MessageReceived)]

    @property
    def connected(self) -> list[tuple[float, ConnectionId]]:
        return [(at, event.connection) for at, event in self.heard if isinstance(event, Connected)]

    @property
    def ends(self) -> list[float]:
        return [at for at, event in self.heard if isinstance(event, Disconnected)]


def met(links: LinkProfile = LINKS) -> tuple[World, Stranger, ConnectionId]:
    """Return a world of a service (0) and a stranger (1) that has dialled it."""
    print(f"seed {SEED}")
    world = World(1, SEED, links)
    host = world.add_host()
    stranger = Stranger(host)
    world.start(host, stranger)
    world.act(1, Dial(world.target(0)))
    world.run(1.0)
    [(_, connection)] = stranger.connected
    return world, stranger, connection


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    runs = [SCENARIOS["partition"].measure(10, seed, pushes=3, parts=2) for seed in (SEED, SEED, SEED + 1)]
    assert runs[0].digests == runs[1].digests
    assert runs[0].figures == runs[1].figures
    assert runs[0].digests != runs[2].digests


def test_figure_that_is_missed_names_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    def play(run: Run) -> None:
        run.add("share", run.option("share", 1.0), at_least=0.5)

    scenario = Scenario("made-up", play, 5, 2, {"share": (0, 1)})
    assert scenario.run(seed=3)["share"] == 1.0
    with pytest.raises(Missed, match=r"make sim NODES=9 SEED=3 SCENARIO=made-up OPTIONS='share=0\.25'"):
        scenario.run(9, 3, share=0.25)
    for nodes, options, says in (
        (5, {"shore": 0.25}, "knows no option 'shore': it has share"),
        (5, {"share": 1.01}, "share=1.01 is out of range: 0 to 1"),
        (5, {"share": math.nan}, "share=nan is out of range: 0 to 1"),
        (1, {}, "made-up needs at least 2 nodes, not 1"),
    ):
        with pytest.raises(BadRun, match=says):
            scenario.check(nodes, options)
    with pytest.raises(BadRun):
        scenario.run(1)
    assert scenario.run(2, share=1.0)["share"] == 1.0
    assert "made-up: 9 nodes, seed 3" in capsys.readouterr().out


def test_every_scenario_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["simulation", "--list"])
    assert main() == 0
    listed = capsys.readouterr().out
    assert all(f"{name} (" in listed and scenario.about in listed for name, scenario in SCENARIOS.items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["partition", "--nodes", "0"], "partition needs at least 10 nodes, not 0"),
        (["partition", "parts=many"], "'parts=many' is not NAME=NUMBER"),
        (["partition", "pushes"], "'pushes' is not NAME=NUMBER"),
        (["partition", "parts=1"], "parts=1 is out of range: 2 to 5"),
        (["partition", "ports=3"], "partition knows no option 'ports': it has parts, pushes, seconds"),
    ],
)
def test_slips_are_told_in_a_line_before_anything_is_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("sys.argv", ["simulation", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].endswith(f"error: {says}")


@pytest.mark.parametrize("name", SCENARIOS)
def test_options_of_a_scenario_are_those_that_it_tells_of(name: str) -> None:
    scenario = SCENARIOS[name]
    assert all(option in scenario.about.partition("Options:")[2] for option in scenario.options)


def test_stranger_is_greeted_after_the_round_trips_that_this_takes() -> None:
    _, stranger, _ = met()
    # Two round trips of 0.1 s for TCP and the handshake, one for the hello.
    assert [at for at, _ in stranger.connected] == [pytest.approx(0.2)]
    assert [at for at, message in stranger.messages if isinstance(message, HelloAck)] == [pytest.approx(0.3)]


def test_stranger_whose_bytes_are_no_message_is_cut_off_and_blamed() -> None:
    world, stranger, connection = met()
    world.act(1, SendBytes(connection, b"\x92\x03\xc0"))
    world.run(1.0)
    assert stranger.ends == [pytest.approx(1.1)]
    assert [(peer, reason) for peer, reason, _, _ in world.hosts[0].disk.ledger] == [(world.peer(1), "BAD_MESSAGE")]


def test_stranger_that_asks_for_what_is_not_held_is_told_so_by_the_service() -> None:
    world, stranger, connection = met()
    request = GetObjects(1, world.project().id, 1, b"\xff" * 8, "", 0, 0)
    world.act(1, AskObjects(connection, request, ()))
    world.run(1.0)
    assert [m.status for _, m in stranger.messages if isinstance(m, Objects)] == [ObjectsStatus.NOT_HELD]


def test_stranger_that_says_what_no_version_knows_is_answered() -> None:
    world, stranger, connection = met()
    world.act(1, SendBytes(connection, b"\x91\x7d"))
    world.run(1.0)
    assert [m.code for _, m in stranger.messages if isinstance(m, Error)] == [ErrorCode.UNSUPPORTED]


def test_host_that_is_stopped_says_so_and_one_that_is_dark_does_not() -> None:
    for dark, ends in ((False, 1), (True, 0)):
        world, stranger, _ = met()
        world.stop(world.hosts[0], dark=dark)
        world.run(20.0)
        assert len(stranger.ends) == ends
        world.act(1, Dial(world.target(0)))
        begun = world.now
        world.run(20.0)
        [failed] = [at - begun for at, event in stranger.heard if isinstance(event, DialFailed)]
        assert failed == pytest.approx(CONNECTION_TIMEOUT if dark else 0.1)


def test_what_is_sent_into_a_partition_comes_in_order_after_it() -> None:
    world, stranger, connection = met()
    world.partition([[1]])
    for nonce in range(3):
        world.act(1, Send(connection, Ping(nonce)))
    world.run(30.0)
    assert not [m for _, m in stranger.messages if isinstance(m, Pong)]
    world.heal()
    healed = world.now
    world.run(40.0)
    pongs = [(at, m.nonce) for at, m in stranger.messages if isinstance(m, Pong)]
    assert [nonce for _, nonce in pongs] == [0, 1, 2]
    # A retransmission whose wait has doubled since the partition began: at most as long again.
    assert healed < pongs[0][0] < healed + 31.0


def test_disk_outlives_a_restart_and_nothing_else_does() -> None:
    world = World(2, SEED, LINKS)
    project = world.project()
    world.connect(0, 1)
    world.run(1.0)
    world.publish(0, project)
    before = world.hosts[0].service
    world.stop(world.hosts[0])
    world.run(1.0)
    world.start(world.hosts[0])
    after = world.hosts[0].service
    assert after is not before
    assert after.sync.holds(project.id)
    assert world.peer(1) in after.peers.peers
    assert before.peers.me.start_nonce != after.peers.me.start_nonce


def arrivals(links: LinkProfile, access: Access, count: int = 400, size: int = 100) -> list[float]:
    """Return how long each of ``count`` things takes that are sent a second apart, in a link of its own each."""
    rng = random.Random(SEED)
    ids = (ConnectionId(1), ConnectionId(2))
    found: list[float] = []
    for _ in range(count):
        link = Link((End(0, access), End(1)), ids, links.latency)
        found.append(link.transit(rng, links, 0, size, 0.0, 0))
    return found


def test_loss_is_late_and_at_last_a_reset() -> None:
    lossless = arrivals(LINKS, Access())
    assert lossless == [0.05] * 400
    lossy = arrivals(LinkProfile(0.05, spread=0.0, jitter=0.0, loss=0.1), Access())
    late = [seconds for seconds in lossy if seconds > 0.05]
    assert 20 < len(late) < 60
    assert min(late) == pytest.approx(0.05 + 0.2)
    assert math.inf in arrivals(LinkProfile(0.05, spread=0.0, loss=0.9), Access())


def test_slow_access_takes_its_time_and_what_is_behind_waits() -> None:
    slow = Access(up=8_000.0)
    link = Link((End(0, slow), End(1)), (ConnectionId(1), ConnectionId(2)), 0.05)
    rng = random.Random(SEED)
    first, second = (link.transit(rng, LINKS, 0, 8_000 - FRAME_BYTES, 0.0, 0) for _ in range(2))
    assert [first, second] == pytest.approx([1.05, 2.05])
    # A pack has a lane of its own, as streams take turns.
    assert link.transit(rng, LINKS, 0, 8_000 - FRAME_BYTES, 0.0, 1) == pytest.approx(1.05)


def test_latency_belongs_to_a_pair_and_spreads_around_the_median() -> None:
    links = LinkProfile(0.05, spread=0.5)
    assert links.latency_between(1, 2, 3) == links.latency_between(1, 3, 2) != links.latency_between(2, 2, 3)
    found = sorted(links.latency_between(1, 0, other) for other in range(1, 1000))
    assert found[500] == pytest.approx(0.05, rel=0.1)
    assert found[10] < 0.03
    assert found[990] > 0.09


def test_each_host_is_in_a_network_of_its_own_unless_told() -> None:
    networks = {address(number).ip.rpartition(".")[0] for number in range(3000)}
    assert len(networks) == 3000
    assert all(ipaddress.ip_address(address(number).ip).is_global for number in range(0, 65_536, 999))
    world = World(0, SEED)
    pair = [world.add_host(address(7, within=within)).address.ip for within in (2, 3)]
    assert pair == ["20.0.7.2", "20.0.7.3"]
