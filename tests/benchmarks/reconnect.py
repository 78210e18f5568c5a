"""How the peers of a node come back when it restarts: how soon, and how many knock at once.

    python -m tests.benchmarks.reconnect [peers]

One ``guts node run`` that 300 peers know as their door and nothing else. Each of those has the product's own
``Service`` and dials, over real connections, in one other process; it holds no repository, and nobody can dial it. The
node is killed and started again, and then stopped and started again. Seconds count from its second start; it takes one
or two until it listens.
"""

import asyncio
import collections
import contextlib
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, Send
from guts.errors import GutsError, PeerFault, Unavailable
from guts.events import Connected, ConnectionId, DialFailed, Disconnected, Event, MessageReceived, Woke
from guts.gossip.protocol import GossipProtocol
from guts.identity import SigningKey
from guts.net.dial import dial
from guts.net.tcp import TcpConnection
from guts.node.dials import resolve
from guts.node.node import read_clock
from guts.noise.keys import KeyPair
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.records import PeerRecord
from guts.service.service import Service
from guts.sync.reposync import RepoSync
from guts.wire.codec import UnknownMessage
from guts.wire.messages import Message
from tests.benchmarks import network
from tests.benchmarks.figure import Figure, show

PEERS = 300
DOOR = 1
FIRST_DIALS_PER_SECOND = 20.0
DAY_MS = 86_400_000
LIMIT_SECONDS = 300.0
DOWN_SECONDS = 5.0


class LightNode:
    """A node that only connects: the real service, dials and connections; nothing on disk, no DHT.

    Attributes:
        ready_at: monotonic seconds since when it has a ready connection; ``None``: it has none.
    """

    def __init__(self, door: BootstrapAddress, network_name: str, dials: list[float]) -> None:
        self.ready_at: float | None = None
        self._key = SigningKey.generate()
        self._network = network_name
        self._dials = dials
        self._static = KeyPair.generate()
        self._events: asyncio.Queue[Event] = asyncio.Queue(64)
        self._connections: dict[ConnectionId, TcpConnection] = {}
        self._count = 0
        rng, now = random.SystemRandom(), read_clock()
        record = PeerRecord.sign(self._key, (), (), now.wall, now.wall + DAY_MS).encoded
        me = Self(self._key.peer_id, "guts/light", (), rng.randbytes(8))
        peers = PeerManager(me, record, Limits(50, 30.0), Scores([], now), (), (door,), rng, ("127.0.0.1",))
        sync = RepoSync({}, lambda _: [], rng, now.mono, 600.0)
        self._peers, self._service = peers, Service(peers, GossipProtocol(rng), sync)

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = read_clock()
                for effect in self._service.handle(await self._next(now), read_clock()):
                    self._perform(effect, tasks)
                ready = any(True for _ in self._peers.ready())
                self.ready_at = (self.ready_at or time.monotonic()) if ready else None

    async def _next(self, now: Now) -> Event:
        try:
            async with asyncio.timeout(max(0.01, min(3600.0, self._service.deadline(now.mono) - now.mono))):
                return await self._events.get()
        except TimeoutError:
            return Woke()

    def _perform(self, effect: Effect, tasks: asyncio.TaskGroup) -> None:
        match effect:
            case Send(connection=number, message=message) if number in self._connections:
                self._connections[number].send(message)
            case Disconnect(connection=number, goodbye=goodbye) if number in self._connections:
                tasks.create_task(self._connections[number].close(goodbye))
            case Dial(target=target):
                tasks.create_task(self._dial(target))
            case _:
                pass

    async def _dial(self, target: BootstrapAddress) -> None:
        self._dials.append(time.monotonic())
        try:
            address, *_ = await resolve(target)
            connection = await dial(
                address, key=self._key, network=self._network, static=self._static, expected=target.peer
            )
        except (PeerFault, Unavailable) as error:
            await self._events.put(DialFailed(target, error))
            return
        self._count += 1
        number = ConnectionId(self._count)
        self._connections[number] = connection
        await self._events.put(Connected(number, connection.direction, connection.peer, connection.remote, target))

        async def on_message(message: Message | UnknownMessage) -> None:
            if not isinstance(message, UnknownMessage):
                await self._events.put(MessageReceived(number, message))

        try:
            await connection.run(on_message)
        finally:
            del self._connections[number]
        ended: GutsError | None = connection.closed_by
        await self._events.put(Disconnected(number, ended))


async def herd(door: BootstrapAddress, network_name: str, count: int) -> None:
    """Run ``count`` light nodes. A line of standard input asks how many are back, and how they dialled since then."""
    dials: list[float] = []
    nodes = [LightNode(door, network_name, dials) for _ in range(count)]
    async with asyncio.TaskGroup() as tasks:
        running = []
        for node in nodes:
            running.append(tasks.create_task(node.run()))
            await asyncio.sleep(1 / FIRST_DIALS_PER_SECOND)
        while line := await asyncio.to_thread(sys.stdin.readline):
            since = float(line)
            ready = sorted(node.ready_at - since for node in nodes if node.ready_at is not None)
            seconds = collections.Counter(int(at - since) for at in dials if at >= since)
            late = ready[min(len(ready), -(-len(nodes) * 99 // 100)) - 1] if ready else 0.0
            print(len(ready), late, max(seconds.values(), default=0), sum(seconds.values()), flush=True)
        for task in running:
            task.cancel()


class Herd:
    """The other process."""

    def __init__(self, process: "subprocess.Popen[str]", count: int) -> None:
        self._process = process
        self._count = count

    def ask(self, since: float) -> tuple[int, float, int, int]:
        """Return how many are connected, when 99 % were, and the most dials in a second, and all; since a moment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{since}\n")
        self._process.stdin.flush()
        ready, late, most, dials = self._process.stdout.readline().split()
        return int(ready), float(late), int(most), int(dials)

    def gather(self, since: float) -> tuple[float, int, int]:
        """Wait until all are connected; return when 99 % were, the most dials in a second, and all dials."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            ready, late, most, dials = self.ask(since)
            if ready == self._count:
                return late, most, dials
            assert time.monotonic() < deadline, f"{ready} of {self._count} are back"
            time.sleep(1.0)

    def scatter(self) -> None:
        """Wait until none is connected."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (ready := self.ask(0.0)[0]) > 0:
            assert time.monotonic() < deadline, f"{ready} are still connected"
            time.sleep(0.1)


@contextlib.contextmanager
def grazing(door: str, network_name: str, count: int) -> Iterator[Herd]:
    """Enter with light nodes in another process; they begin to connect."""
    command = [sys.executable, "-m", "tests.benchmarks.reconnect", door, network_name, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Herd(process, count)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def measure(peers: int = PEERS) -> list[Figure]:
    """Run everything; return the figures."""
    figures: list[Figure] = []
    with network.crowded(peers) as (cluster, address, name):
        cluster.start(DOOR)
        with grazing(address, name, peers) as herd:
            herd.gather(time.monotonic())
            for ends, what in ((signal.SIGKILL, "a kill"), (signal.SIGTERM, "a stop")):
                if ends is signal.SIGKILL:
                    cluster.kill(DOOR)
                else:
                    cluster.stop(DOOR)
                herd.scatter()
                time.sleep(DOWN_SECONDS)
                since = time.monotonic()
                cluster.start(DOOR)
                late, most, dials = herd.gather(since)
                print(f"after {what}: {dials} dials for {peers} peers")
                figures += [
                    Figure(f"{peers} peers back after {what}, 99 %", "s", [late], 120, "at most", 1),
                    Figure("the same, most dials in a second", "", [most], 50, "at most", 0),
                ]
    return figures


def main() -> None:
    """Run from the command line."""
    match sys.argv[1:]:
        case [door, network_name, count]:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
            asyncio.run(herd(BootstrapAddress.parse(door), network_name, int(count)))
        case arguments:
            show(measure(*map(int, arguments)))


if __name__ == "__main__":
    main()
