"""``Readings``: what the refs of a repository are that this node does not hold, from more than one holder.

A reading is a goal that ends in an answer instead of a copy: holders are looked up, dialled and asked as for a copy,
and what they say is judged without its objects, by a worker (``Look``) that keeps what it found. Nobody is told of it.

One holder's answer may be old, and nothing in it shows that. So a reading waits for a second one: until two have been
compared, or nobody else can be had, or ``GRACE`` seconds after the first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final, assert_never

from guts.addresses import BootstrapAddress
from guts.effects import Candidate, Effect, Look, Reply, Result
from guts.errors import GutsError, StorageFault, Unavailable
from guts.events import (
    Accepted,
    CommandId,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    Incomplete,
    Known,
    LookFinished,
    NothingNew,
)
from guts.ids import PeerId, RepositoryId
from guts.sync.fetches import RunningFetch
from guts.sync.goal import Goal, Waiter
from guts.sync.inquiries import DoesNotConnect, Inquiries
from guts.sync.rounds import Batch

WANTED_SOURCES: Final = 2
"""Holders that are compared: the least of which one can show that another is behind."""

GRACE: Final = 1.0
"""Seconds for a second holder to be found, dialled and asked when one has answered: a lookup takes 0.2 s where nobody
is silent, and 1.8 s at the most until a silent node is given up. Somebody sits and waits for the answer."""

MAX_READINGS: Final = 32
"""Readings under way: each may be a lookup and eight dials. Who clones more at once waits for the first to end."""


class TooManyReadings(Unavailable):
    """More repositories are being read at once than this node has room for."""

    code: ClassVar[str] = "TOO_MANY_READINGS"

    def __init__(self) -> None:
        super().__init__(f"{MAX_READINGS} repositories are being read already", hint="try again in a moment")


@dataclass(slots=True)
class Reading(Goal):
    """A repository that is being read; ``held``: a state of it is known, if from an earlier reading.

    Attributes:
        sources: the holders that have been compared, in the order in which they answered.
        ends: monotonic seconds at which no other holder is waited for.
        claims: bytes that the whole repository takes, as its holders say.
    """

    sources: dict[PeerId, None] = field(default_factory=dict)
    claims: dict[PeerId, int] = field(default_factory=dict)
    ends: float = math.inf

    def reply(self, waiter: Waiter, now: float) -> Reply:
        """Answer ``waiter``: what was found is with the worker."""
        result: Result = {
            "repository": str(self.repository),
            "sources": [str(source) for source in self.sources],
            "claimed_bytes": max(self.claims.values(), default=0),
            "seconds": round(now - waiter.started, 3),
        }
        return Reply(waiter.command_id, result)


class Readings(Inquiries[Reading]):
    """Every repository that is being read."""

    def read(
        self, repository: RepositoryId, known: Known, hints: Iterable[BootstrapAddress], waiter: Waiter, now: float
    ) -> list[Effect]:
        """Read ``repository``; the waiter is answered when that has ended, well or not.

        Args:
            known: what an earlier reading found: nobody is listened to who says less.
            hints: dialled first.
        """
        reading = self.goals.get(repository)
        if reading is not None:
            self._wait(reading, waiter)
            return self._dial_hints(reading, hints)
        if len(self.goals) >= MAX_READINGS:
            return [Reply(waiter.command_id, TooManyReadings())]
        reading = self.goals[repository] = Reading(repository, known, held=known.epoch >= 0, next_ask=math.inf)
        self._wait(reading, waiter)
        effects = self._dial_hints(reading, hints) + self._ask_everybody(reading, now)
        return effects + self._search.look_up(reading, now)

    def peer_ready(self, peer: PeerId, connection: ConnectionId, now: float) -> list[Effect]:
        """Ask a new peer about all that is being read."""
        effects = self._greet(peer, connection, now)
        return effects + self.ask(peer, list(self.goals), now)

    def look_finished(self, event: LookFinished, now: float) -> list[Effect]:
        """Take what came of looking at an answer."""
        return self._ended(event, now)[1]

    # --- what a reading is ----------------------------------------------------------------------------------

    def _transfer(self, goal: Reading, fetch: FetchId, transfer: RunningFetch, candidate: Candidate) -> Effect:
        return Look(fetch, transfer.connection, goal.repository, candidate)

    def _nothing_newer(self, goal: Reading, peer: PeerId, now: float) -> None:
        self._compared(goal, peer, now)

    def _claimed(self, goal: Reading, peer: PeerId, size: int) -> None:
        goal.claims[peer] = size

    def _compared(self, goal: Reading, peer: PeerId, now: float) -> None:
        if not goal.sources:
            goal.ends = now + GRACE
            self._agenda.schedule(goal, min(goal.next_ask, goal.ends))
        goal.sources[peer] = None

    def _finished(
        self, goal: Reading, transfer: RunningFetch, event: FetchFinished | LookFinished, now: float
    ) -> list[Effect]:
        match event.outcome:
            case Accepted(known=known, proofs=proofs):
                before, goal.known, goal.held = goal.known, known, True
                self._compared(goal, transfer.peer, now)
                # As for a copy: there may be more, or another record counts than was told.
                afresh = [transfer.peer] if transfer.partial or proofs else []
                if any(known.head(author) is None for author, _ in before.heads):
                    afresh = list(self._holders(goal.repository))
                return [effect for peer in afresh for effect in self._ask_afresh(goal, peer, now)]
            case NothingNew(known=known) if known.epoch >= 0:
                goal.known, goal.held = known, True
                self._compared(goal, transfer.peer, now)
                return []
            case NothingNew():
                goal.note(transfer.peer, "says that it holds it, and offers nothing")
                return []
            case Incomplete():
                return self._failed(goal, transfer, DoesNotConnect("its answer is not whole"), now)
            case Failed(error=error):
                return self._failed(goal, transfer, error, now)
            case _:
                assert_never(event.outcome)

    def _failed(self, goal: Reading, transfer: RunningFetch, error: GutsError, now: float) -> list[Effect]:
        # Unlike who follows, who waits here is told at once: later, everybody is asked again.
        if isinstance(error, StorageFault):
            waiters, goal.waiters = goal.waiters, []
            return [*(Reply(waiter.command_id, error) for waiter in waiters), *self._give_up(goal)]
        self._excuse(transfer.peer, [goal.repository], str(error), math.inf)
        return []

    def _enough(self, goal: Reading) -> bool:
        return False

    def _round(self, goal: Reading, batch: Batch, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for peer in self._setbacks.rested(goal, now):
            effects += self.ask(peer, [goal.repository], now)
        due = min([goal.ends if goal.ends > now else math.inf, *(goal.retry_after[peer] for peer in goal.resting)])
        self._agenda.schedule(goal, due)
        return effects + self._settle(goal, now)

    def _settle(self, goal: Reading, now: float) -> list[Effect]:
        if self.goals.get(goal.repository) is not goal:
            return []
        self._invitations.stand_in_line(goal)
        if goal.sources and (now >= goal.ends or not goal.busy or self._agreed(goal)):
            waiters, goal.waiters = goal.waiters, []
            self._forget(goal)
            return [goal.reply(waiter, now) for waiter in waiters]
        if goal.sources or goal.busy:
            return []
        waiters, goal.waiters = goal.waiters, []
        self._forget(goal)
        return [Reply(waiter.command_id, goal.failure()) for waiter in waiters]

    def _agreed(self, goal: Reading) -> bool:
        """Tell whether enough holders have been compared, something counts, and none of them has more to say."""
        pending = goal.fetch is not None or goal.offers or not goal.asking.isdisjoint(goal.sources)
        return len(goal.sources) >= WANTED_SOURCES and bool(goal.known.heads) and not pending

    def _expire(self, goal: Reading, command_id: CommandId, now: float) -> list[Effect]:
        late = [waiter for waiter in goal.waiters if waiter.command_id == command_id]
        goal.waiters = [waiter for waiter in goal.waiters if waiter.command_id != command_id]
        if late and not goal.waiters:
            self._forget(goal)
        if goal.sources:
            return [goal.reply(waiter, now) for waiter in late]
        return [Reply(waiter.command_id, goal.too_late()) for waiter in late]

    def _give_up(self, goal: Reading) -> list[Effect]:
        self._forget(goal)
        return []
