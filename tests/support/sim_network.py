"""A network of datagrams in memory: latency, loss, partitions, counters, all from one seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

SimAddress = tuple[str, int]


class DatagramReceiver(Protocol):
    """What receives: an asyncio ``DatagramProtocol`` does."""

    def datagram_received(self, data: bytes, addr: SimAddress) -> None: ...


class SimTransport:
    """One endpoint; set ``receiver`` before anything is sent to it."""

    def __init__(self, network: "SimNetwork", address: SimAddress) -> None:
        self._network = network
        self.address = address
        self.receiver: DatagramReceiver | None = None
        self._closing = False

    def sendto(self, data: bytes, addr: SimAddress) -> None:
        assert not self._closing, "sent on a closed transport"
        self._network.carry(data, self.address, addr)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._network.detach(self.address)


@dataclass
class SimNetwork:
    """Carries datagrams between attached transports in the running loop's time.

    Attributes:
        latency: seconds one way, uniform between the two.
        loss: chance that a datagram is lost.
        watch: called with (data, source, destination) of every datagram sent, before loss.
        cut: tells whether nothing passes between two addresses.
    """

    rng: random.Random
    latency: tuple[float, float] = (0.010, 0.140)
    loss: float = 0.0
    watch: Callable[[bytes, SimAddress, SimAddress], None] | None = None
    cut: Callable[[SimAddress, SimAddress], bool] | None = None
    counters: Counter[str] = field(default_factory=Counter)
    _endpoints: dict[SimAddress, SimTransport] = field(default_factory=dict)

    def transport(self, address: SimAddress) -> SimTransport:
        """Attach a new endpoint."""
        assert address not in self._endpoints, f"{address} is taken"
        endpoint = self._endpoints[address] = SimTransport(self, address)
        return endpoint

    def detach(self, address: SimAddress) -> None:
        """Forget an endpoint; what is on its way to it is lost."""
        self._endpoints.pop(address, None)

    def carry(self, data: bytes, source: SimAddress, destination: SimAddress) -> None:
        """Deliver a datagram later, or lose it."""
        self.counters["datagrams"] += 1
        self.counters["bytes"] += len(data)
        if self.watch is not None:
            self.watch(data, source, destination)
        lost = self.rng.random() < self.loss or (self.cut is not None and self.cut(source, destination))
        delay = self.rng.uniform(*self.latency)
        if not lost:
            asyncio.get_running_loop().call_later(delay, self._deliver, data, source, destination)

    def _deliver(self, data: bytes, source: SimAddress, destination: SimAddress) -> None:
        endpoint = self._endpoints.get(destination)
        if endpoint is not None and endpoint.receiver is not None:
            endpoint.receiver.datagram_received(data, source)
