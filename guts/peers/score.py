"""Faults that fade, and bans that end (docs/threats.md, "Scoring").

A peer's fault is a number that halves every ten minutes. One fatal fault bans for a day; two serious ones close
together shut the peer out for ten minutes; whoever comes back and does it again is shut out or banned for twice as
long. What networks do by themselves costs nothing. Bans are per key and end.

Times are monotonic in here, and milliseconds of the node's *running time* in what is kept: how long it has run, all
its runs together. So no jump of the wall clock bans or frees anybody, in this run or between two.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from guts.addresses import Address, BanSubject
from guts.clock import Now
from guts.effects import BanKept, KeptScore, Persist, ScoreChanged
from guts.errors import ExitStatus, PeerFault, Severity, UsageError
from guts.ids import PeerId
from guts.peers.bans import OperatorBan, OperatorBans
from guts.peers.mass_fault import NO_EVIDENCE, WINDOW, Evidence, MassFaultGuard, Sign
from guts.peers.penalties import Penalties

log = logging.getLogger(__name__)

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

MINOR_UP_TO: Final = 15.0
"""Minor faults add nothing above it: a relay may not know better, and whoever signs bad records for many repositories
must not be able to make those who pass them on grey."""

MAX_TRACKED: Final = 10_000
"""Peers with a fault that are remembered in memory; the lowest is forgotten first, the banned last."""


MASS_FAULT: Final = "MASS_FAULT"
"""Reason in the ledger: what was counted of late is taken back, for this node was the broken one."""

UNBANNED: Final = "UNBANNED"
"""Reason in the ledger: the operator has forgiven the peer."""


class TrustedPeer(UsageError):
    """The operator wants a peer banned that the config trusts."""

    code: ClassVar[str] = "TRUSTED_PEER"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, peer: BanSubject) -> None:
        super().__init__(f"{peer} is in network.trusted_peers", hint="take it out of the config and restart the node")


class Bar(StrEnum):
    """Why a peer is not let in."""

    SHUT_OUT = "shut out"
    BANNED = "banned"
    BY_OPERATOR = "banned by the operator"


@dataclass(frozen=True, slots=True)
class Standing:
    """How this node sees a peer, for people.

    Attributes:
        bar: why it is not let in; ``None``: it is.
        left: seconds until it is let in; infinity: never.
        shut_outs, bans: how many there were in a row.
    """

    fault: float
    grey: bool
    trusted: bool
    bar: Bar | None
    left: float
    shut_outs: int
    bans: int


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
    """The fault of every peer that has one, and whom the operator keeps out.

    Attributes:
        trusted: peers of the operator.
        bans: by the operator.
        guard: whether bans for faults are suspended.
    """

    def __init__(
        self,
        stored: Iterable[KeptScore],
        now: Now,
        ran: int = 0,
        trusted: frozenset[PeerId] = frozenset(),
        bans: Iterable[BanKept] = (),
    ) -> None:
        """Take over what the database remembers; of faults, at most ``MAX_TRACKED``.

        Args:
            ran: for how long the node has run before ``now``, in ms.
            trusted: peers of the operator: their faults are counted and have no consequence.
            bans: by the operator.
        """
        self._zero = now.mono - ran / 1000
        self.trusted = trusted
        self.bans = OperatorBans(bans, self._zero)
        self.guard = MassFaultGuard()
        self._penalties = Penalties()
        faults = [(kept.peer, self._taken_over(kept)) for kept in stored]
        faults.sort(key=lambda item: (item[1].barred_until > now.mono, item[1].at_time(now.mono)), reverse=True)
        self._faults = dict(faults[:MAX_TRACKED])

    # --- questions ------------------------------------------------------------------------------------------

    def ran(self, now: float) -> int:
        """Return for how long the node has run at ``now`` (monotonic seconds), all its runs together, in ms."""
        return round((now - self._zero) * 1000)

    def value(self, peer: PeerId, now: float) -> float:
        """Return the fault of ``peer`` at ``now`` (monotonic seconds); 0.0 for a blameless one."""
        fault = self._faults.get(peer)
        return fault.at_time(now) if fault is not None else 0.0

    def grey(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is let in and no more: others are asked first, and its gossip is not listened to."""
        return peer not in self.trusted and self.value(peer, now) >= GREY_AT

    def banned(self, peer: PeerId, now: float) -> bool:
        """Tell whether ``peer`` is not let in at ``now``: shut out, or banned for faults or by the operator."""
        return self.ban_left(peer, now) > 0.0

    def ban_left(self, peer: PeerId, now: float) -> float:
        """Return the seconds until ``peer`` is let in; 0.0 where it is, infinity where it never is."""
        return self._bar(peer, now)[1]

    def refuses(self, address: Address, now: float) -> bool:
        """Tell whether the operator lets nobody in from ``address``."""
        return self.bans.of_address(address, now) is not None

    def shut(self, peer: PeerId | None, address: Address, now: float) -> float | None:
        """Return for how many seconds the operator yet bans ``address``; ``None``: not, or ``peer`` is trusted."""
        ban = self.bans.of_address(address, now) if peer not in self.trusted else None
        return ban.until - now if ban is not None else None

    def penalty(self, ip: str, since: float, now: float) -> float:
        """Return how many times as much everything costs at ``now`` for who has come from ``ip`` at ``since``.

        1.0: as for others; else somebody from there, or from near it, was banned lately. Times are monotonic seconds.
        """
        return self._penalties.penalty(ip, since, now)

    def standing(self, peer: PeerId, now: float) -> Standing:
        """Return how this node sees ``peer``."""
        fault, (bar, left) = self._faults.get(peer, _Fault()), self._bar(peer, now)
        repeats = now < fault.repeats_until
        return Standing(
            fault.at_time(now),
            self.grey(peer, now),
            peer in self.trusted,
            bar,
            left,
            fault.shut_outs if repeats else 0,
            fault.bans if repeats else 0,
        )

    def _bar(self, peer: PeerId, now: float) -> tuple[Bar | None, float]:
        """Return what keeps ``peer`` out the longest, and for how many seconds yet."""
        bar, left = None, 0.0
        if peer in self.trusted:
            return bar, left
        fault = self._faults.get(peer)
        if fault is not None and fault.barred_until > now:
            bar, left = Bar.BANNED if fault.banned else Bar.SHUT_OUT, fault.barred_until - now
        ban = self.bans.get(peer, now)
        if ban is not None and ban.until - now > left:
            bar, left = Bar.BY_OPERATOR, ban.until - now
        return bar, left

    def barred(self, now: float) -> Iterator[tuple[PeerId, Bar, float]]:
        """Yield who is shut out or banned for faults, and for how many seconds yet."""
        for peer, fault in self._faults.items():
            if fault.barred_until > now and peer not in self.trusted:
                yield peer, Bar.BANNED if fault.banned else Bar.SHUT_OUT, fault.barred_until - now

    # --- changes --------------------------------------------------------------------------------------------

    def count(
        self,
        peer: PeerId,
        error: PeerFault,
        now: Now,
        evidence: Evidence = NO_EVIDENCE,
        addresses: Iterable[Address] = (),
    ) -> list[Persist]:
        """Add what ``error`` costs to the fault of ``peer``; shut it out, or ban it, where that is too much.

        Args:
            evidence: tells whether it may be this node that is broken; then nothing is added.
            addresses: where the peer was connected from.
        """
        if error.severity is Severity.NETWORK:
            return []
        self.guard.note(peer, evidence, now.mono)
        effects = self.look(evidence, now)
        suspended = self.guard.up(now.mono)
        before = self._faults.get(peer, _Fault())
        value = before.at_time(now.mono)
        cost = 0.0 if suspended else float(error.severity)
        if error.severity is Severity.MINOR:
            cost = min(cost, max(0.0, MINOR_UP_TO - value))
        fault = _Fault(value + cost, now.mono, before.barred_until, before.banned)
        if now.mono < before.repeats_until:
            fault.shut_outs, fault.bans, fault.repeats_until = before.shut_outs, before.bans, before.repeats_until
        seconds = 0.0 if suspended or peer in self.trusted else _bar(fault, now.mono)
        if seconds:
            for address in addresses:
                self._penalties.add(address.ip, now.mono)
        self._keep(peer, fault, now.mono)
        return [*effects, self._changed(peer, fault, cost, error.code, seconds, now)]

    def look(self, evidence: Evidence, now: Now) -> list[Persist]:
        """Let the guard judge; where it comes up, forgive those whom it looked at what was counted of late.

        Others are not forgiven: who dialled us is no evidence that this node is broken, and may profit from it.
        """
        if not self.guard.look(evidence, now.mono):
            return []
        if self.guard.sign is Sign.CLOCK:
            why = f"its clock is {abs(evidence.clock_offset_ms or 0) / 60_000:.0f} min off from its peers'"
        else:
            why = f"{self.guard.faulty} of {self.guard.of} peers seem faulty: its clock, disk or version may be wrong"
        log.log(
            logging.DEBUG if self.guard.told else logging.WARNING,
            "this node seems to be broken, and bans nobody for now: %s",
            why,
        )
        self.guard.told = True
        looked_at = {*evidence.dialled, *self.guard.accused}
        late = [
            peer
            for peer, fault in self._faults.items()
            if peer in looked_at and fault.value and now.mono - fault.at < WINDOW
        ]
        return [effect for peer in late for effect in self.forgive(peer, MASS_FAULT, now)]

    def forgive(self, peer: PeerId, reason: str, now: Now) -> list[Persist]:
        """Take the faults of ``peer`` back, and a bar for them; nothing where there are none."""
        before = self._faults.get(peer)
        if before is None:
            return []
        fault = _Fault(0.0, now.mono)
        if reason == MASS_FAULT and now.mono < before.repeats_until:
            barred = before.barred_until > now.mono
            fault.shut_outs = before.shut_outs - (barred and not before.banned)
            fault.bans = before.bans - (barred and before.banned)
            fault.repeats_until = before.repeats_until
        self._faults[peer] = fault
        return [self._changed(peer, fault, -before.at_time(now.mono), reason, 0.0, now)]

    def ban(self, wanted: OperatorBan, now: float, *, merge: bool) -> list[Persist]:
        """Let nobody of ``wanted`` in; see ``OperatorBans.ban``.

        Raises:
            TrustedPeer: the config says otherwise.
            UsageError: as ``OperatorBans.ban``.
        """
        if wanted.subject in self.trusted:
            raise TrustedPeer(wanted.subject)
        return self.bans.ban(wanted, now, merge=merge)

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
