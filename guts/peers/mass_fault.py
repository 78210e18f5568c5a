"""``MassFaultGuard``: when most peers seem faulty at once, this node is the broken one.

A broken disk makes every pack look damaged, a wrong version every message; a clock that is off by a day makes this
node wrong about what is new. Then nobody is to be banned. Only peers that this node has dialled of its own accord are
looked at, and each network has one vote: any number of others, who dialled in or had themselves dialled by saying what
they hold, may belong to one person, who could have the bans suspended. For the same reason those who come in the place
of a faulty one have no vote while there are eight.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from guts.ids import PeerId

WINDOW: Final = 600.0
"""Seconds: faults within them are seen together, and the guard stays up for so long after the last sign."""

MIN_PEERS: Final = 5
"""Of fewer peers most may be hostile by chance."""

MAX_VOTES: Final = 8
"""Networks that are looked at together, as many as a node dials of its own accord: whoever goes in a fault makes room
for another connection, and for no other vote."""

MAX_CLOCK_OFFSET_MS: Final = 600_000
"""Between this clock and the middle one of the peers': records of 10 minutes ahead are let wait by every node."""


class Sign(StrEnum):
    """What made the guard come up."""

    FAULTS = "faults"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the guard looks at.

    Attributes:
        dialled: the peers to which a connection that this node dialled of its own accord is ready, the longest first,
            each with the network that it votes for.
        clock_offset_ms: by how much their clocks are ahead of ours, in the middle; ``None``: nobody is there.
    """

    dialled: Mapping[PeerId, str] = field(default_factory=dict)
    clock_offset_ms: int | None = None


NO_EVIDENCE: Final = Evidence()


class MassFaultGuard:
    """Whether bans are suspended, and why. Times are monotonic seconds.

    Attributes:
        sign: what was seen last; ``None``: it has never been up, or came down.
        since: when it came up.
        told: people were told; until peers that are here, and enough of them, seem well again.
        faulty, of: that many of so many networks, at the last sign.
    """

    def __init__(self) -> None:
        self.sign: Sign | None = None
        self.since = 0.0
        self.told = False
        self.faulty = 0
        self.of = 0
        self._until = 0.0
        self._faults: dict[PeerId, tuple[str, float]] = {}
        self._voters: dict[str, float] = {}

    def up(self, now: float) -> bool:
        """Tell whether bans are suspended at ``now``."""
        return self.sign is not None and now < self._until

    def note(self, peer: PeerId, evidence: Evidence, now: float) -> None:
        """Remember a fault of ``peer``, if it is one that was dialled."""
        if peer in evidence.dialled:
            self._faults[peer] = evidence.dialled[peer], now

    @property
    def accused(self) -> Collection[PeerId]:
        """The peers whose faults of late are evidence."""
        return self._faults.keys()

    def look(self, evidence: Evidence, now: float) -> bool:
        """Judge; return whether the guard has come up just now."""
        self._faults = {peer: fault for peer, fault in self._faults.items() if now - fault[1] < WINDOW}
        self._vote(evidence, now)
        faulty = len({place for place, _ in self._faults.values() if place in self._voters})
        of = len(self._voters)
        if not self.up(now):
            self.sign = None
        if of < MIN_PEERS:
            return False
        if 2 * faulty > of:
            sign = Sign.FAULTS
        elif (
            len(set(evidence.dialled.values())) >= MIN_PEERS
            and abs(evidence.clock_offset_ms or 0) > MAX_CLOCK_OFFSET_MS
        ):
            sign = Sign.CLOCK
        else:
            if not self.up(now):
                self.told = False
            return False
        came_up = self.sign is None
        if came_up:
            self.since = now
        self.sign, self.faulty, self.of, self._until = sign, faulty, of, now + WINDOW
        return came_up

    def _vote(self, evidence: Evidence, now: float) -> None:
        """Let the networks vote that are here; those of a moment ago too, while any fault is remembered."""
        kept = self._voters if self._faults else {}
        self._voters = {place: seen for place, seen in kept.items() if now - seen < WINDOW}
        for place in evidence.dialled.values():
            if place in self._voters or len(self._voters) < MAX_VOTES:
                self._voters[place] = now
