"""The router of a ``tests.support.wan.Wan``: one TUN device per network namespace, every packet late, some lost.

    python -m tests.support.wan_router SEED NAMESPACE=ADDRESS…

The kernel that these tests meet may have no netem. So a packet that a node sends comes out of its namespace's device
here, and goes into the device of the namespace that has its destination, after the delay of the two. Orders come on
standard input, one JSON object per line, and each is answered with a line; the devices are gone with this process.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import socket
import struct
import subprocess
import sys
from typing import Final

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
CLONE_NEWNET: Final = 0x40000000
MTU: Final = 1500
PACKETS_PER_TURN: Final = 64
EARLY: Final = 0.0002
"""Seconds by which a packet may be early, so that timers need not be finer."""

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    # os.setns is of Python 3.12.
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def open_device(namespace: str) -> int:
    """Return the descriptor of a new TUN device ``eth0`` in a namespace."""
    ours, theirs = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(theirs)
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"eth0", IFF_TUN | IFF_NO_PI))
        finally:
            _enter(ours)
    finally:
        os.close(ours)
        os.close(theirs)
    return device


class Router:
    """The packets under way, and the rules that they are under.

    Attributes:
        delay: seconds, one way.
        jitter: seconds, the most that is added at random; packets may overtake each other then.
        loss: the chance of a packet to be lost, 0..1.
    """

    def __init__(self, devices: dict[bytes, int], seed: int) -> None:
        self.delay = self.jitter = self.loss = 0.0
        self._devices = devices
        self._numbers = {ip: number for number, ip in enumerate(devices)}
        self._group = dict.fromkeys(devices, 0)
        self._links: dict[tuple[int, int], float] = {}
        self._rng = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._counts = {"packets": 0, "bytes": 0, "lost": 0, "cut": 0}
        for ip, device in devices.items():
            self._loop.add_reader(device, self._readable, ip, device)

    def obey(self, order: dict[str, object]) -> dict[str, int]:
        """Take an order; return what has passed so far."""
        match order:
            case {"delay": float(delay), "jitter": float(jitter), "loss": float(loss)}:
                self.delay, self.jitter, self.loss = delay, jitter, loss
            case {"link": [int(one), int(other)], "delay": float(delay)}:
                self._links[one, other] = self._links[other, one] = delay
            case {"groups": list(groups)}:
                ips = list(self._devices)
                self._group = dict.fromkeys(ips, 0)
                for number, members in enumerate(groups, 1):
                    for member in members:
                        self._group[ips[member]] = number
            case {"counts": True}:
                pass
            case _:
                raise AssertionError(order)
        return self._counts

    def _readable(self, source: bytes, device: int) -> None:
        for _ in range(PACKETS_PER_TURN):
            try:
                packet = os.read(device, 2 * MTU)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._take(source, packet)

    def _take(self, source: bytes, packet: bytes) -> None:
        destination = packet[16:20]
        device = self._devices.get(destination)
        if device is None or self._group[source] != self._group[destination]:
            self._counts["cut"] += 1
            return
        if self.loss and self._rng.random() < self.loss:
            self._counts["lost"] += 1
            return
        self._counts["packets"] += 1
        self._counts["bytes"] += len(packet)
        delay = self._links.get((self._numbers[source], self._numbers[destination]), self.delay)
        if self.jitter:
            delay += self.jitter * self._rng.random()
        heapq.heappush(self._queue, (self._loop.time() + delay, next(self._order), device, packet))
        if self._timer is None or self._queue[0][0] < self._timer.when():
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._queue[0][0], self._deliver) if self._queue else None

    def _deliver(self) -> None:
        self._timer = None
        now = self._loop.time() + EARLY
        while self._queue and self._queue[0][0] <= now:
            _, _, device, packet = heapq.heappop(self._queue)
            with contextlib.suppress(OSError):  # the device's queue is full: lost, as in a real router
                os.write(device, packet)
        self._arm()


async def main(seed: int, hosts: list[str]) -> None:
    """Route until standard input ends."""
    devices: dict[bytes, int] = {}
    for host in hosts:
        namespace, _, address = host.partition("=")
        devices[socket.inet_aton(address)] = open_device(namespace)
        commands = f"addr add {address}/16 dev eth0\nlink set eth0 mtu {MTU} up\nlink set lo up\n"
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=commands.encode(), check=True)
    router = Router(devices, seed)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("{}", flush=True)
    while line := await reader.readline():
        print(json.dumps(router.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # late packets are the test's to order, not the machine's
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
