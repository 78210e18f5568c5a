"""Faults that fade, and bans that end (docs/threats.md, "Scoring").

A peer's fault is a number that halves every ten minutes. One fatal fault bans for a day; two serious ones close
together shut the peer out for ten minutes; whoever comes back and does it again is shut out or banned for twice as
long. What networks do by themselves costs nothing. Bans are per key and end.

Times are monotonic in here, and milliseconds of the node's *running time* in what is kept: how long it has run, all
its runs together. So no jump of the wall clock bans or frees anybody, in this run or between two.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.clock import Now
from guts.effects import KeptScore, Persist, ScoreChanged
from guts.errors import PeerFault, Severity
from guts.ids import PeerId

HALF_LIFE: Final = 600.0
"""Seconds."""

GREY_AT: Final = 20.0
"""One serious fault, for three minutes: others are asked first, its news are not listened to."""

SHUT_OUT_AT: Final = 45.0
"""Two serious faults within three minutes: the first has faded to 20 by then."""

BAN_AT: Final = 100.0
SHUT_OUT_SECONDS: Final = 600.0
"""The first time: by then half of the faults is forgotten."""

MAX_SHUT_OUT_SECONDS: Final = 24 * 3600.0
BAN_SECONDS: Final = 24 * 3600.0
"""The first time."""

MAX_BAN_SECONDS: Final = 30 * 24 * 3600.0
REPEATS_KEPT: Final = 7 * 24 * 3600.0
"""Seconds after the end of a shut-out or ban in which the next one counts as a repeat."""

MAX_TRACKED: Final = 10_000
"""Peers with a fault that are remembered in memory; the lowest is forgotten first, the banned last."""


@dataclass(slots=True)
class _Fault:
    """``KeptScore`` in monotonic seconds."""

    value: float = 0.0
    at: float = -math.inf
    barred_until: float = -math.inf
    banned: bool = False
    shut_outs: int = 0
    bans: int = 0
    repeats_until: float = -math.inf

    def at_time(self, now: float) -> float:
        return decayed(self.value, now - self.at)


class Scores:
    """The fault of every peer that has one."""

    def __init__(
        self, stored: Iterable[KeptScore], now: Now, ran: int = 0, trusted: frozenset[PeerId] = frozenset()
    ) -> None:
        """Take over what the database remembers, at most ``MAX_TRACKED`` of it.

        Args:
            ran: for how long the node has run before ``now``, in ms.
            trusted: peers of the operator: their faults are counted and have no consequence.
        """
        self._zero = now.mono - ran / 1000
        self._trusted = trusted
        faults = [(kept.peer, self._taken_over(kept)) for kept in stored]
        faults.sort(key=lambda item: (item[1].barred_until > now.mono, item[1].at_time(now.mono)), reverse=True)
        self._faults = dict(faults[:MAX_TRACKED])

    def ran(self, now: float) -> int:
        """Return for how long the node has run at ``now`` (monotonic seconds), all its runs together, in ms."""
        return round((now - self._zero) * 1000)

    def value(self, peer: PeerId, now: float) -> float:
        """Return the fault of ``peer`` at ``now`` (monotonic seconds); 0.0 for a blameless one."""
        fault = self._faults.get(peer)
        return fault.at_time(now) if fault is not None else 0.0

    def grey(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is let in and no more: others are asked first, and its gossip is not listened to."""
        return peer not in self._trusted and self.value(peer, now) >= GREY_AT

    def banned(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is shut out or banned at ``now``."""
        return self.ban_left(peer, now) > 0.0

    def ban_left(self, peer: PeerId, now: float) -> float:
        """Return the seconds until ``peer`` is let in; 0.0 where it is."""
        fault = self._faults.get(peer)
        return max(0.0, fault.barred_until - now) if fault is not None and peer not in self._trusted else 0.0

    def count(self, peer: PeerId, error: PeerFault, now: Now) -> list[Persist]:
        """Add what ``error`` costs to the fault of ``peer``; shut it out, or ban it, where that is too much."""
        if error.severity is Severity.NETWORK:
            return []
        before = self._faults.get(peer, _Fault())
        fault = _Fault(before.at_time(now.mono) + error.severity, now.mono, before.barred_until, before.banned)
        if now.mono < before.repeats_until:
            fault.shut_outs, fault.bans, fault.repeats_until = before.shut_outs, before.bans, before.repeats_until
        seconds = 0.0 if peer in self._trusted else _bar(fault, now.mono)
        self._keep(peer, fault, now.mono)
        return [self._changed(peer, fault, float(error.severity), error.code, seconds, now)]

    def _changed(self, peer: PeerId, fault: _Fault, change: float, reason: str, seconds: float, now: Now) -> Persist:
        kept = KeptScore(
            peer,
            fault.value,
            self.ran(fault.at),
            self.ran(fault.barred_until) if fault.barred_until > now.mono else None,
            fault.banned,
            fault.shut_outs,
            fault.bans,
            self.ran(fault.repeats_until) if fault.repeats_until > now.mono else 0,
        )
        return Persist(ScoreChanged(kept, change, reason, round(seconds * 1000), now.wall))

    def _taken_over(self, kept: KeptScore) -> _Fault:
        return _Fault(
            kept.value,
            self._zero + kept.ran / 1000,
            -math.inf if kept.barred_until is None else self._zero + kept.barred_until / 1000,
            kept.banned,
            kept.shut_outs,
            kept.bans,
            self._zero + kept.repeats_until / 1000,
        )

    def _keep(self, peer: PeerId, fault: _Fault, now: float) -> None:
        if peer not in self._faults and len(self._faults) >= MAX_TRACKED:
            ranks = {other: (kept.barred_until > now, kept.at_time(now)) for other, kept in self._faults.items()}
            del self._faults[min(ranks, key=ranks.__getitem__)]
        self._faults[peer] = fault


def decayed(value: float, seconds: float) -> float:
    """Return what is left of a fault after ``seconds``; time that runs backwards changes nothing."""
    return float(value * 0.5 ** (max(0.0, seconds) / HALF_LIFE))


def _bar(fault: _Fault, now: float) -> float:
    """Shut out or ban whoever has ``fault``, where that is due and not done yet; return for how many seconds."""
    barred = fault.barred_until > now
    if fault.value >= BAN_AT and not (barred and fault.banned):
        seconds = min(BAN_SECONDS * 2.0 ** min(fault.bans, 16), MAX_BAN_SECONDS)
        fault.banned = True
        fault.bans += 1
    elif fault.value >= SHUT_OUT_AT and not barred:
        seconds = min(SHUT_OUT_SECONDS * 2.0 ** min(fault.shut_outs, 16), MAX_SHUT_OUT_SECONDS)
        fault.banned = False
        fault.shut_outs += 1
    else:
        return 0.0
    fault.barred_until = now + seconds
    fault.repeats_until = fault.barred_until + REPEATS_KEPT
    return seconds
