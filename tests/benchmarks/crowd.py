"""Many idle peers of one node, in a process of their own: each authenticated, greeted, and pinging as nodes do.

    python -m tests.benchmarks.crowd ADDRESS NETWORK COUNT

It prints a line when all are greeted, and stays until its input ends.
"""

import asyncio
import contextlib
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from guts.addresses import Address
from guts.identity import SigningKey
from guts.net.dial import dial
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from guts.records import PeerRecord
from guts.wire.codec import UnknownMessage
from guts.wire.limits import PROTOCOL_VERSION
from guts.wire.messages import Hello, HelloAck, Message, Ping, Pong

DIALS_PER_SECOND = 40.0
"""Below what a listener computes for strangers (``guts.net.handshake_limits``)."""

PING_SECONDS = 30.0
DAY_MS = 86_400_000


class IdlePeer:
    """One peer; ``greeted`` when the node has answered its Hello."""

    def __init__(self, key: SigningKey, connection: TcpConnection) -> None:
        self._key = key
        self._connection = connection
        self._heard = asyncio.Event()
        self.greeted = asyncio.Event()

    async def run(self) -> None:
        """Answer pings, and send some, until the connection ends."""
        async with asyncio.TaskGroup() as tasks:
            pinging = tasks.create_task(self._ping())
            await self._connection.run(self._on_message)
            pinging.cancel()

    def greet(self) -> None:
        """Say hello."""
        now = time.time_ns() // 1_000_000
        record = PeerRecord.sign(self._key, (), ("seed",), now, now + DAY_MS).encoded
        version = PROTOCOL_VERSION
        self._connection.send(Hello(version, version, "crowd/1", ("seed",), record, now, os.urandom(8)))

    def _on_message(self, message: Message | UnknownMessage) -> None:
        self._heard.set()
        match message:
            case Ping(nonce=nonce):
                self._connection.send(Pong(nonce))
            case HelloAck():
                self.greeted.set()
            case _:
                pass

    async def _ping(self) -> None:
        """Send a Ping where the node was silent for so long, as ``guts.peers.keepalive`` does."""
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(PING_SECONDS * random.uniform(0.8, 1.2)):
                    await self._heard.wait()
            except TimeoutError:
                self._connection.send(Ping(random.getrandbits(64)))


async def crowd(address: Address, network: str, count: int) -> None:
    """Connect ``count`` peers, say so, and stay until standard input ends."""
    static = KeyPair.generate()
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []
        for _ in range(count):
            key = SigningKey.generate()
            peer = IdlePeer(key, await dial(address, key=key, network=network, static=static))
            running.append(tasks.create_task(peer.run()))
            peer.greet()
            async with asyncio.timeout(30.0):
                await peer.greeted.wait()
            await asyncio.sleep(1 / DIALS_PER_SECOND)
        print("greeted", count, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print("left", sum(not task.done() for task in running), flush=True)
        for task in running:
            task.cancel()


@contextlib.contextmanager
def gathered(address: str, network: str, count: int) -> Iterator[None]:
    """Enter when another process has ``count`` idle peers at ``address``; at the end none of them was lost."""
    command = [sys.executable, "-m", "tests.benchmarks.crowd", address, network, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline().split() == ["greeted", str(count)]
            yield
            process.stdin.close()
            assert process.stdout.readline().split() == ["left", str(count)]
        finally:
            if not process.stdin.closed:
                process.stdin.close()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    asyncio.run(crowd(Address.parse(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
