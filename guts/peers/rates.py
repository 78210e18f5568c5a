"""How much a peer may ask of this node, and how fast: token buckets, on monotonic time.

A bucket is kept as a debt that fades at the rate: a message adds what it costs, and as long as the debt is not above
the burst nobody waits. What is above is time: the peer is not listened to until the debt has faded to the burst, but
for no longer than ``MAX_WAIT``; then it may say one thing more, and waits again for what it owes by then. So nothing is
ever refused or lost, and a peer that goes on gets exactly the rate, or a message in ``MAX_WAIT`` where that is more.
The excess is never a fault: links stall and then deliver all at once, and whoever counts that bans honest peers.

There is one bucket per peer and class of messages, one per peer for bytes, one for the bytes of all, and one for the
signatures that all peers together make this node check. In a network that has lost a key to a ban, all costs ten times
as much or more (``penalties``), from buckets of the address: who makes up a new key is not served as before.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from guts.effects import Candidate
from guts.ids import PeerId
from guts.limits import Limits
from guts.peers.networks import host
from guts.wire.messages import (
    Error,
    GetObjects,
    GetPeers,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    Gossip,
    Graft,
    Hello,
    HelloAck,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    Peers,
    Ping,
    Pong,
    Prune,
    Receipt,
    Refs,
    Subscribe,
)

MAX_PEERS: Final = 4096
"""Peers whose debts are remembered, 1 kB each; who is gone and owes nothing is forgotten first."""

UNLOOKED: Final = 256
"""Of so many it is not looked for who owes nothing: it costs more than to remember them, and most come again."""

MAX_CONTROL_PENALTY: Final = 40.0
"""How many times as much a Ping costs at the most: with four neighbours none is silent until it seems dead."""

MAX_WAIT: Final = 10.0
"""Seconds for which a peer is not listened to at the most: with the 30 s between two Pings, and what a link takes, it
says something well within the 90 s after which the silent are given up, whatever one excess has cost."""

FAIR_SHARE: Final = 1 / 8
"""Of the signatures that all make this node check: who used less of late waits for nobody else's, and throw-away keys
that use up everything keep each other waiting."""


class MessageClass(StrEnum):
    """What a message counts as; the names of its limits begin so."""

    CONTROL = "control"
    GOSSIP = "gossip"
    REFS = "refs"
    OBJECTS = "objects"
    ANSWERS = "answers"


def class_of(message: Message) -> MessageClass:
    """Return the class of ``message``."""
    match message:
        case Hello() | HelloAck() | Ping() | Pong() | Goodbye():
            return MessageClass.CONTROL
        case Gossip() | NewCommit() | NewProof() | NewRepository() | Subscribe() | Prune() | Graft():
            return MessageClass.GOSSIP
        case GetRefs() | GetReceipt() | GetPeers():
            return MessageClass.REFS
        case GetObjects() | GitService():
            return MessageClass.OBJECTS
        case Refs() | Objects() | Receipt() | Peers() | Error():
            return MessageClass.ANSWERS
        case _:
            assert_never(message)


def signatures_in(message: Message) -> int:
    """Return how many signatures there may be to check in ``message`` itself."""
    match message:
        case Hello() | HelloAck() | NewRepository() | Receipt():
            return 1
        case Peers(records=records):
            return len(records)
        case _:
            return 0


def signatures_offered(candidate: Candidate) -> int:
    """Return how many signatures there are to check in what a peer offers, at the least."""
    parts = (candidate.documents, candidate.bridge, candidate.records, candidate.proofs, candidate.proofs)
    return sum(len(part) for part in parts)


@dataclass(slots=True)
class TokenBucket:
    """What was used lately.

    Attributes:
        debt: tokens, at the time ``at`` (monotonic seconds); it fades at the rate.
    """

    debt: float = 0.0
    at: float = 0.0

    def owed(self, rate: float, now: float) -> float:
        """Return the debt at ``now``, where ``rate`` tokens per second come back."""
        return max(0.0, self.debt - rate * max(0.0, now - self.at))

    def spend(self, amount: float, rate: float, burst: float, now: float) -> float:
        """Add ``amount`` tokens; return the seconds until the debt is no more than ``burst``, 0.0 where it is not."""
        self.debt = self.owed(rate, now) + amount
        self.at = max(self.at, now)
        return max(0.0, self.debt - burst) / rate

    def forgive(self, burst: float) -> None:
        """Owe no more than ``burst``: the limits have changed, and nobody shall pay by the old ones for long."""
        self.debt = min(self.debt, burst)


def _class_buckets() -> dict[MessageClass, TokenBucket]:
    return {kind: TokenBucket() for kind in MessageClass}


@dataclass(slots=True)
class _Debts:
    """What one peer has used."""

    classes: dict[MessageClass, TokenBucket] = field(default_factory=_class_buckets)
    bytes: TokenBucket = field(default_factory=TokenBucket)
    checks: TokenBucket = field(default_factory=TokenBucket)


class Rates:
    """The buckets of every peer that has used anything lately, and those that all share.

    Args:
        penalty: tells how many times as much everything costs at a time for a peer at an IP: somebody was banned lately
            there, or near it; 1.0: as for others.
    """

    def __init__(self, limits: Limits, penalty: Callable[[PeerId, str, float], float]) -> None:
        self._limits = limits
        self._penalty = penalty
        self._peers: OrderedDict[PeerId | str, _Debts] = OrderedDict()
        self._total_bytes = TokenBucket()
        self._checks = TokenBucket()

    def spend(self, peer: PeerId, ip: str, kind: MessageClass, size: int, now: float) -> float:
        """Account for a message of ``size`` bytes; return for how many seconds ``peer`` is not to be listened to,
        0.0 to ``MAX_WAIT``.

        Args:
            size: with what came on streams that the peer opened.
        """
        cost = self._penalty(peer, ip, now)
        # Who is made to pay more is known by the place: a new key for each visit is no new purse.
        debts = self._of(peer if cost <= 1.0 else host(ip), now)
        # A neighbour who is made to wait too long for a Ping seems dead, and is none of the banned.
        control = kind is MessageClass.CONTROL
        wait = max(
            self._take(debts.classes[kind], kind, min(cost, MAX_CONTROL_PENALTY) if control else cost, now),
            self._take(debts.bytes, "bytes", cost * size, now),
            # What all share is not used up faster by who pays more.
            self._take(self._total_bytes, "total_bytes", size, now),
        )
        return min(wait, MAX_WAIT)

    def spend_checks(self, peer: PeerId, count: int, now: float) -> float:
        """Account for ``count`` signatures to check; return for how long ``peer``, who caused it, has to wait.

        It does where all together are above the burst, and it alone above its fair share.
        """
        rate, burst = self._limits.values["checks_rate"], self._limits.values["checks_burst"]
        fair = burst * FAIR_SHARE
        own = self._of(peer, now).checks
        above_its_share = own.spend(count, rate * FAIR_SHARE, fair, now) > 0.0
        own.forgive(burst)
        wait = self._take(self._checks, "checks", count, now)
        # Keys that nobody uses again leave no debt without end to those who do wait.
        most = burst / FAIR_SHARE
        self._checks.forgive(most)
        return min(wait, (most - burst) / rate, MAX_WAIT) if above_its_share else 0.0

    def changed(self) -> None:
        """Go by new limits from now on."""
        buckets = [("total_bytes", self._total_bytes), ("checks", self._checks)]
        for debts in self._peers.values():
            buckets += [*((str(kind), bucket) for kind, bucket in debts.classes.items())]
            buckets += [("bytes", debts.bytes), ("checks", debts.checks)]
        for name, bucket in buckets:
            bucket.forgive(self._limits.values[f"{name}_burst"])

    def used(self, now: float) -> dict[str, float]:
        """Return what is used of each burst, by the peer that uses most of it."""
        used = dict.fromkeys([f"{name}_burst" for name in (*MessageClass, "bytes")], 0.0) | {
            "total_bytes_burst": self._owed(self._total_bytes, "total_bytes", now),
            "checks_burst": self._owed(self._checks, "checks", now),
        }
        for debts in self._peers.values():
            for name, bucket in (*debts.classes.items(), ("bytes", debts.bytes)):
                key = f"{name}_burst"
                used[key] = max(used[key], self._owed(bucket, name, now))
        return used

    def _take(self, bucket: TokenBucket, name: str, amount: float, now: float) -> float:
        burst = self._limits.values[f"{name}_burst"]
        wait = bucket.spend(amount, self._limits.values[f"{name}_rate"], burst, now)
        self._limits.used(f"{name}_burst", min(bucket.debt, burst))
        if wait:
            self._limits.bit(f"{name}_rate")
        return wait

    def _owed(self, bucket: TokenBucket, name: str, now: float) -> float:
        return bucket.owed(self._limits.values[f"{name}_rate"], now)

    def _of(self, peer: PeerId | str, now: float) -> _Debts:
        debts = self._peers.get(peer)
        if debts is None:
            while (many := len(self._peers)) >= UNLOOKED and (
                many >= MAX_PEERS or self._paid(next(iter(self._peers.values())), now)
            ):
                self._peers.popitem(last=False)
            debts = self._peers[peer] = _Debts()
        self._peers.move_to_end(peer)
        return debts

    def _paid(self, debts: _Debts, now: float) -> bool:
        """Tell whether a peer owes nothing, so that to forget it changes nothing."""
        owed = [self._owed(bucket, str(kind), now) for kind, bucket in debts.classes.items()]
        checks = debts.checks.owed(self._limits.values["checks_rate"] * FAIR_SHARE, now)
        return not any(owed) and not checks and not self._owed(debts.bytes, "bytes", now)
