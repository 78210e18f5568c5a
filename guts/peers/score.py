"""Faults that fade, and bans that end (docs/threats.md, "Scoring").

A peer's fault is a number that halves every ten minutes. One fatal fault bans for a day; two serious ones close
together disconnect and shut the peer out for ten minutes; what networks do by themselves costs nothing. Bans are per
key and expire. Time is monotonic, so that a jump of the wall clock bans and frees nobody; the wall clock only labels
what is stored, and a stored ban is never taken for longer than bans are.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.clock import Now
from guts.effects import Persist, ScoreChanged
from guts.errors import PeerFault, Severity
from guts.ids import PeerId

HALF_LIFE: Final = 600.0
"""Seconds."""

DISCONNECT_AT: Final = 45.0
"""Two serious faults within three minutes: the first has faded to 20 by then."""

BAN_AT: Final = 100.0
SHUT_OUT_SECONDS: Final = 600.0
"""After a disconnection for faults: by then half of them is forgotten."""

BAN_SECONDS: Final = 24 * 3600.0
MAX_TRACKED: Final = 10_000
"""Peers with a fault that are remembered in memory; the lowest is forgotten first, the banned last."""


@dataclass(frozen=True, slots=True)
class StoredFault:
    """A peer's fault as the database remembers it: ``value`` at ``updated``. Times are Unix ms; 0 = not banned."""

    peer: PeerId
    value: float
    updated: int
    banned_until: int


@dataclass(slots=True)
class _Fault:
    value: float
    at: float
    banned_until: float = -math.inf

    def at_time(self, now: float) -> float:
        return _decayed(self.value, now - self.at)


class Scores:
    """The fault of every peer that has one."""

    def __init__(self, stored: Iterable[StoredFault], now: Now) -> None:
        """Take over what the database remembers, at most ``MAX_TRACKED`` of it."""
        self._faults: dict[PeerId, _Fault] = {}
        faults: list[tuple[PeerId, _Fault]] = []
        for row in stored:
            left = min((row.banned_until - now.wall) / 1000, BAN_SECONDS)
            value = _decayed(row.value, (now.wall - row.updated) / 1000)
            faults.append((row.peer, _Fault(value, now.mono, now.mono + left if left > 0 else -math.inf)))
        faults.sort(key=lambda item: (item[1].banned_until > now.mono, item[1].value), reverse=True)
        self._faults.update(faults[:MAX_TRACKED])

    def value(self, peer: PeerId, now: float) -> float:
        """Return the fault of ``peer`` at ``now`` (monotonic seconds); 0.0 for a blameless one."""
        fault = self._faults.get(peer)
        return fault.at_time(now) if fault is not None else 0.0

    def banned(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is banned at ``now``."""
        return self.ban_left(peer, now) > 0.0

    def ban_left(self, peer: PeerId, now: float) -> float:
        """Return the seconds until the ban of ``peer`` ends; 0.0 where there is none."""
        fault = self._faults.get(peer)
        return max(0.0, fault.banned_until - now) if fault is not None else 0.0

    def count(self, peer: PeerId, error: PeerFault, now: Now) -> list[Persist]:
        """Add what ``error`` costs to the fault of ``peer``; ban it where that is too much."""
        if error.severity is Severity.NETWORK:
            return []
        value = self.value(peer, now.mono) + error.severity
        seconds = BAN_SECONDS if value >= BAN_AT else SHUT_OUT_SECONDS if value >= DISCONNECT_AT else 0.0
        left = max(seconds, self.ban_left(peer, now.mono))
        self._keep(peer, _Fault(value, now.mono, now.mono + left if left else -math.inf), now.mono)
        until = now.wall + math.ceil(left * 1000) if left else 0
        return [Persist(ScoreChanged(peer, value, float(error.severity), error.code, until, now.wall))]

    def _keep(self, peer: PeerId, fault: _Fault, now: float) -> None:
        if peer not in self._faults and len(self._faults) >= MAX_TRACKED:
            ranks = {other: (kept.banned_until > now, kept.at_time(now)) for other, kept in self._faults.items()}
            del self._faults[min(ranks, key=ranks.__getitem__)]
        self._faults[peer] = fault


def _decayed(value: float, seconds: float) -> float:
    return float(value * 0.5 ** (max(0.0, seconds) / HALF_LIFE))
