"""Links: how long something takes from one host to another, and whether it gets there.

A link is a stream, as TCP is: what is lost comes late (a retransmission after a timeout that doubles, and all that was
sent behind it waits), and after ``MAX_RETRANSMISSIONS`` in a row the connection is reset. Each pair of hosts has a
latency of its own, lognormal over the pairs and the same in every connection between the two; jitter is exponential.
The rates are those of a host's access to the net, shared by all its connections; packs and messages don't wait for each
other, as frames of many streams take turns. Between parts of a partition nothing passes: what was sent waits, and comes
with the first retransmission after the parts are one again.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from guts.events import ConnectionId

SEGMENT_BYTES: Final = 1_400
"""What is lost at a time."""

FRAME_BYTES: Final = 64
"""What a message takes on the wire beside itself: IP, TCP, Noise, framing."""

MIN_RTO: Final = 0.2
"""Seconds: the least retransmission timeout of Linux."""

MAX_RETRANSMISSIONS: Final = 8
"""Of one segment in a row: then the connection is reset, after 50 s on a link of 50 ms."""

H = TypeVar("H", bound="End")


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """What links are like.

    Attributes:
        latency: seconds, one way: the median over all links.
        spread: standard deviation of the logarithm of the latency, over all links; 0: all are the same.
        jitter: mean of what is added to a latency, as a share of it.
        loss: share of segments that are lost, 0 to below 1.
    """

    latency: float = 0.05
    spread: float = 0.5
    jitter: float = 0.05
    loss: float = 0.0

    def latency_between(self, seed: int, one: int, other: int) -> float:
        """Return the latency between two hosts, seconds."""
        if not self.spread:
            return self.latency
        low, high = sorted((one, other))
        return self.latency * math.exp(random.Random((seed << 48) ^ (low << 24) ^ high).gauss(0.0, self.spread))


@dataclass(frozen=True, slots=True)
class Access:
    """A host's access to the net. Rates are bytes per second.

    Attributes:
        loss: share of segments that are lost here, on top of the link's.
        stall: seconds for which nothing passes now and then; 0: never.
        stall_every: mean seconds between the ends and beginnings of stalls.
    """

    up: float = math.inf
    down: float = math.inf
    loss: float = 0.0
    stall: float = 0.0
    stall_every: float = 600.0


@dataclass(slots=True, eq=False)
class End:
    """A host, as far as links know it.

    Attributes:
        part: of the partition in which it is; all are in part 0 when there is none.
        stalled_until: nothing passes before.
    """

    number: int
    access: Access = field(default_factory=Access)
    part: int = 0
    stalled_until: float = 0.0
    sent_until: list[float] = field(default_factory=lambda: [0.0, 0.0])
    received_until: list[float] = field(default_factory=lambda: [0.0, 0.0])


@dataclass(slots=True, eq=False)
class Link(Generic[H]):
    """One connection. Sides are 0, who dialled, and 1.

    Attributes:
        ids: what each side calls it.
        clear_at: per side that sends, for messages and for packs: nothing that is sent later arrives earlier.
        stuck: per side that sends: what waits for a partition to end, and since when.
        withheld: per side that receives: ``None``, and behind it the messages that it does not take yet; else empty.
    """

    hosts: tuple[H, H]
    ids: tuple[ConnectionId, ConnectionId]
    latency: float
    open: bool = True
    clear_at: list[list[float]] = field(default_factory=lambda: [[0.0, 0.0], [0.0, 0.0]])
    stuck: list[list[Any]] = field(default_factory=lambda: [[], []])
    withheld: list[list[Any]] = field(default_factory=lambda: [[], []])
    stuck_since: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def transit(self, rng: random.Random, profile: LinkProfile, side: int, size: int, now: float, lane: int) -> float:
        """Return when ``size`` bytes sent by ``side`` at ``now`` arrive; infinity: the connection is reset.

        Args:
            lane: 0 for messages, 1 for packs.
        """
        source, target = self.hosts[side], self.hosts[1 - side]
        size += FRAME_BYTES
        departs = max(now, source.stalled_until)
        if source.access.up < math.inf:
            departs = max(departs, source.sent_until[lane]) + size / source.access.up
            source.sent_until[lane] = departs
        delay = self.latency
        if profile.jitter:
            delay -= delay * profile.jitter * math.log(1.0 - rng.random())
        lost = profile.loss + source.access.loss + target.access.loss
        if lost:
            late = self._retransmitted(rng, min(lost, 0.95), 1 + size // SEGMENT_BYTES)
            if late == math.inf:
                return late
            delay += late
        arrives = departs + delay
        if target.access.down < math.inf:
            arrives = max(arrives, target.received_until[lane]) + size / target.access.down
            target.received_until[lane] = arrives
        arrives = max(arrives, target.stalled_until, self.clear_at[side][lane])
        self.clear_at[side][lane] = arrives
        return arrives

    def _retransmitted(self, rng: random.Random, lost: float, segments: int) -> float:
        if rng.random() < (1.0 - lost) ** segments:
            return 0.0
        timeout = max(MIN_RTO, 4.0 * self.latency)
        late = timeout
        for _ in range(MAX_RETRANSMISSIONS - 1):
            if rng.random() >= lost:
                return late
            timeout *= 2.0
            late += timeout
        return math.inf

    def retried_after(self, side: int, now: float) -> float:
        """Return when the first retransmission of what is stuck is made at or after ``now``."""
        timeout = max(MIN_RTO, 4.0 * self.latency)
        at = self.stuck_since[side] + timeout
        while at < now:
            timeout = min(2.0 * timeout, 120.0)
            at += timeout
        return at
