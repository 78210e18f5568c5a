"""What a flood of strangers costs a node (docs/threats.md A3): processor time, and the pings of its peers.

    python -m tests.benchmarks.handshake_flood [seconds]

Another process opens 2,000 connections a second from 50 addresses, and says on each what could be the first message
of a handshake. The node, in a process of its own, spares no neighbour, for all of them come from loopback. Meanwhile
five peers that were there before ping it twice a second.
"""

import asyncio
import contextlib
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from guts.addresses import Address
from guts.config import Config
from guts.identity import SigningKey
from guts.keystore import load_or_create_node_key
from guts.net.dial import dial
from guts.net.handshake_limits import HandshakeLimits
from guts.net.tcp import TcpConnection
from guts.node.node import running
from guts.noise.keys import KeyPair
from guts.wire.codec import UnknownMessage
from guts.wire.messages import HelloAck, Message, Ping, Pong
from tests.benchmarks import network
from tests.benchmarks.crowd import IdlePeer
from tests.benchmarks.figure import Figure, show
from tests.support.flood import addresses

SECONDS = 30.0
PER_SECOND = 2000
SOURCES = 50
PEERS = 5
"""All of one address, which may begin six handshakes at once."""

PINGS_PER_SECOND = 2
HELD = 500
"""Connections that the attacker holds open at a time."""

NETWORK = "flood"


def flood(port: int) -> None:
    """Open connections at the rate until standard input ends."""
    rng, held, sources = random.Random(1), deque[socket.socket](), addresses(SOURCES)
    os.set_blocking(0, False)
    started, number = time.monotonic(), 0
    while sys.stdin.buffer.read(1) is None:
        while number < (time.monotonic() - started) * PER_SECOND:
            sock = socket.socket()
            sock.bind((sources[number % SOURCES], 0))
            sock.settimeout(1.0)
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", port))
                sock.send(b"\x00\x20" + rng.randbytes(32))
            held.append(sock)
            if len(held) > HELD:
                held.popleft().close()
            number += 1
        time.sleep(0.002)
    print(number, number / (time.monotonic() - started), flush=True)


async def node(home: Path) -> None:
    """Run a node that spares nobody; print its port; end with standard input."""
    settings = {"network.listen_addr": "127.0.0.1:0", "network.network_name": NETWORK}
    config = Config.load(settings, {"GUTS_HOME": str(home)})
    key = load_or_create_node_key(config.network.keypair)
    limits = HandshakeLimits(spare_neighbours=False)
    async with running(config, key, client=False, stop=asyncio.Event(), handshakes=limits) as started:
        status = await started.control.status()
        print(Address.parse(_first(status["listen"])).port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _first(addresses: object) -> str:
    assert isinstance(addresses, list | tuple)
    return str(addresses[0])


@contextlib.contextmanager
def process(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run this module in another process until the end."""
    command = [sys.executable, "-m", "tests.benchmarks.handshake_flood", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            assert started.stdin is not None
            started.stdin.close()


class Pinger:
    """One peer that measures how long its pings take."""

    def __init__(self, connection: TcpConnection) -> None:
        self.connection = connection
        self.seconds: list[float] = []
        self.greeted = asyncio.Event()
        self._sent: dict[int, float] = {}

    def hear(self, message: Message | UnknownMessage) -> None:
        """Note a Pong."""
        if isinstance(message, Pong) and message.nonce in self._sent:
            self.seconds.append(time.monotonic() - self._sent.pop(message.nonce))
        elif isinstance(message, HelloAck):
            self.greeted.set()
        elif isinstance(message, Ping):
            self.connection.send(Pong(message.nonce))

    async def ping(self) -> None:
        """Ping at the rate, once the node has said hello."""
        await self.greeted.wait()
        while True:
            nonce = random.getrandbits(64)
            self._sent[nonce] = time.monotonic()
            self.connection.send(Ping(nonce))
            await asyncio.sleep(random.uniform(0.8, 1.2) / PINGS_PER_SECOND)


async def pinged(port: int, seconds: float, pid: int) -> tuple[list[float], float]:
    """Return how long pings took under the flood, and the node's share of a core."""
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        pingers, running_tasks = [], []
        for _ in range(PEERS):
            key = SigningKey.generate()
            connection = await dial(
                Address("127.0.0.1", port), key=key, network=NETWORK, static=KeyPair.generate(), expected=None
            )
            pinger = Pinger(connection)
            IdlePeer(key, connection).greet()
            running_tasks += [tasks.create_task(connection.run(pinger.hear)), tasks.create_task(pinger.ping())]
            pingers.append(pinger)
        with process("flood", str(port)) as attacker:
            await asyncio.sleep(2.0)
            for pinger in pingers:
                pinger.seconds.clear()
            used, begun = network.processor_seconds(pid), time.monotonic()
            await asyncio.sleep(seconds)
            share = (network.processor_seconds(pid) - used) / (time.monotonic() - begun)
            assert attacker.stdin is not None
            assert attacker.stdout is not None
            attacker.stdin.close()
            count, rate = (await asyncio.to_thread(attacker.stdout.readline)).split()
            print(f"{count} connections, {float(rate):.0f} a second")
        for task in running_tasks:
            task.cancel()
    assert all(pinger.seconds for pinger in pingers), "a peer was lost"
    return [value for pinger in pingers for value in pinger.seconds], share


def measure(seconds: float = SECONDS) -> list[Figure]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as home, process("node", home) as victim:
        assert victim.stdout is not None
        port = int(victim.stdout.readline())
        network.wait_quiet(victim.pid)
        pings, share = asyncio.run(pinged(port, seconds, victim.pid))
    p99 = statistics.quantiles(pings, n=100)[98]
    return [
        Figure("2,000 first messages a second: processor time", "% of a core", [100 * share], 50, "at most", 1),
        Figure("the same: p99 of its peers' pings", "ms", [1000 * p99], 500, "at most", 0),
    ]


def main() -> None:
    """Run from the command line."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    match sys.argv[1:]:
        case ["flood", port]:
            flood(int(port))
        case ["node", home]:
            asyncio.run(node(Path(home)))
        case arguments:
            show(measure(*map(float, arguments)))


if __name__ == "__main__":
    main()
