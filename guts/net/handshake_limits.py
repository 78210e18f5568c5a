"""``HandshakeGate``: which handshakes a listener begins, and which it gives up for others (docs/protocol.md §2).

Whoever connects has proved nothing, so all that tells one stranger from another is the address; and one who holds an
address often holds its whole network. So places and rates are counted by address (IPv6: by /64, the smallest network
that is handed out) and by prefix (/24, IPv6: /48).

Where places are short the oldest handshake goes, of the address, the prefix, or the prefix that has most: an honest
handshake takes a round trip or two, and is hardly ever the oldest; who says nothing always is. The newcomer could be
refused instead, but then whoever opens 64 connections every five seconds keeps everybody out.

The gate keeps no time and touches no socket: the caller gives monotonic seconds, and acts.

Not promised: room under a flood from hundreds of networks at once. What it costs stays bounded then, and honest
diallers get in by chance.
"""

import ipaddress
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from guts.addresses import neighbours

MAX_SOURCES: Final = 10_000
"""Addresses whose rate is remembered, about 2 MB; the one that has not come for longest is forgotten first. Forgetting
helps nobody who comes from fewer networks, and each of those has the limits in progress all the same."""

_MINUTE: Final = 60.0
_GRAIN: Final = 1e-6
"""Seconds: sums of times are off by less."""


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """How many handshakes a listener takes; each at least 1.

    Attributes:
        in_progress: at a time (commonware 512 of cheaper ones). Each is a socket and a task, some 10 KiB.
        per_address: at a time from one address: a restart, and a few nodes behind one router.
        per_prefix: at a time from one /24 or /48.
        per_minute: begun by one address; a peer that lost its connection comes back once (commonware: 1 in 5 s).
        burst: begun by one address at once, when it did not come before.
        per_second: for which anything is computed, by everyone together: 50 take 2 % of a core.
        spare_neighbours: whether addresses of one non-global range with this node (loopback, a LAN, a compose
            network) are counted in ``in_progress`` and ``per_second`` only: one operator owns them all, and the
            Internet may come through the one address of a router.
    """

    in_progress: int = 64
    per_address: int = 4
    per_prefix: int = 16
    per_minute: float = 6.0
    burst: int = 6
    per_second: float = 50.0
    spare_neighbours: bool = True


DEFAULT_HANDSHAKE_LIMITS: Final = HandshakeLimits()


@dataclass(frozen=True, slots=True)
class _Place:
    source: bytes
    prefix: bytes


class HandshakeGate:
    """The handshakes of one listener: those in progress, and how often who came."""

    def __init__(self, limits: HandshakeLimits) -> None:
        """Begin with nobody."""
        self._limits = limits
        self._places: OrderedDict[int, _Place] = OrderedDict()  # oldest first
        self._by_source: Counter[bytes] = Counter()
        self._by_prefix: Counter[bytes] = Counter()
        self._paid_until: OrderedDict[bytes, float] = OrderedDict()  # who came the longest ago first
        self._computed_until = float("-inf")

    def __len__(self) -> int:
        """How many are in progress."""
        return len(self._places)

    @property
    def sources(self) -> int:
        """How many addresses' rates are remembered."""
        return len(self._paid_until)

    def may_begin(self, remote: str, own: str, now: float) -> bool:
        """Tell whether the address ``remote``, connected to our address ``own``, may begin one more now.

        Each that may is counted against the address's rate.
        """
        if self._spared(remote, own):
            return True
        source, _ = _networks(remote)
        interval = _MINUTE / self._limits.per_minute
        paid_until = max(self._paid_until.pop(source, now), now)
        allowed = paid_until - now <= (self._limits.burst - 1) * interval + _GRAIN
        self._paid_until[source] = paid_until + interval if allowed else paid_until
        if len(self._paid_until) > MAX_SOURCES:
            self._paid_until.popitem(last=False)
        return allowed

    def begin(self, handshake: int, remote: str, own: str) -> int | None:
        """Count ``handshake`` in; return the one that has to go for it, if any: that one is counted out already."""
        source, prefix = _networks(remote)
        goes: int | None = None
        if not self._spared(remote, own) and self._by_source[source] >= self._limits.per_address:
            goes = next(number for number, place in self._places.items() if place.source == source)
        elif not self._spared(remote, own) and self._by_prefix[prefix] >= self._limits.per_prefix:
            goes = next(number for number, place in self._places.items() if place.prefix == prefix)
        elif len(self._places) >= self._limits.in_progress:
            most = max(self._by_prefix.values())
            goes = next(number for number, place in self._places.items() if self._by_prefix[place.prefix] == most)
        if goes is not None:
            self.end(goes)
        self._places[handshake] = _Place(source, prefix)
        self._by_source[source] += 1
        self._by_prefix[prefix] += 1
        return goes

    def end(self, handshake: int) -> None:
        """Count ``handshake`` out; one that is out already stays out."""
        place = self._places.pop(handshake, None)
        if place is not None:
            _decrease(self._by_source, place.source)
            _decrease(self._by_prefix, place.prefix)

    def wait_to_compute(self, now: float) -> float:
        """Return 0 and count one more for which something is computed; or in how many seconds to ask again."""
        interval = 1 / self._limits.per_second
        computed_until = max(self._computed_until, now)
        wait = computed_until - now - (1.0 - interval)  # what a second allows may come at once
        if wait > _GRAIN:
            return wait
        self._computed_until = computed_until + interval
        return 0.0

    def _spared(self, remote: str, own: str) -> bool:
        return self._limits.spare_neighbours and neighbours(remote, own)


def _networks(ip: str) -> tuple[bytes, bytes]:
    """Return whom ``ip`` is counted as, and the prefix it belongs to."""
    packed = ipaddress.ip_address(ip).packed
    return (packed, packed[:3]) if len(packed) == 4 else (packed[:8], packed[:6])


def _decrease(counts: Counter[bytes], key: bytes) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
