"""Faults that fade, and bans that end (docs/threats.md, "Scoring").

A peer's fault is a number that halves every ten minutes. One fatal fault bans; two serious ones close together
disconnect; what networks do by themselves costs nothing. Bans are per key and expire. Time is monotonic, so that a
jump of the wall clock bans and frees nobody; the wall clock only labels what is stored.
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

DISCONNECT_AT: Final = 50.0
BAN_AT: Final = 100.0
BAN_SECONDS: Final = 24 * 3600.0
MAX_TRACKED: Final = 10_000
"""Peers with a fault that are remembered in memory; the lowest is forgotten first (the database keeps bans)."""


@dataclass(slots=True)
class _Fault:
    value: float
    at: float
    banned_until: float = -math.inf


class Scores:
    """The fault of every peer that has one."""

    def __init__(self, stored: Iterable[tuple[PeerId, float, int]], now: Now) -> None:
        """Take over ``(peer, fault, banned until in Unix ms)`` rows from the database."""
        self._faults = {
            peer: _Fault(value, now.mono, now.mono + (until - now.wall) / 1000 if until > now.wall else -math.inf)
            for peer, value, until in stored
        }

    def value(self, peer: PeerId, now: float) -> float:
        """Return the fault of ``peer`` at ``now`` (monotonic seconds); 0.0 for a blameless one."""
        fault = self._faults.get(peer)
        return fault.value * 0.5 ** (max(0.0, now - fault.at) / HALF_LIFE) if fault else 0.0

    def banned(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is banned at ``now``."""
        fault = self._faults.get(peer)
        return fault is not None and now < fault.banned_until

    def ban_left(self, peer: PeerId, now: float) -> float:
        """Return the seconds until the ban of ``peer`` ends; 0.0 where there is none."""
        fault = self._faults.get(peer)
        return max(0.0, fault.banned_until - now) if fault else 0.0

    def count(self, peer: PeerId, error: PeerFault, now: Now) -> list[Persist]:
        """Add what ``error`` costs to the fault of ``peer``; ban it where that is too much."""
        if error.severity is Severity.NETWORK:
            return []
        fault = _Fault(self.value(peer, now.mono) + error.severity, now.mono)
        until = 0
        if fault.value >= BAN_AT:
            fault.banned_until = now.mono + BAN_SECONDS
            until = now.wall + int(BAN_SECONDS * 1000)
        if peer not in self._faults and len(self._faults) >= MAX_TRACKED:
            del self._faults[min(self._faults, key=lambda other: self.value(other, now.mono))]
        self._faults[peer] = fault
        return [Persist(ScoreChanged(peer, fault.value, float(error.severity), error.code, until, now.wall))]
