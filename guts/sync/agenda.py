"""What is due when: the next round of anti-entropy of each goal, and the end of each command's patience."""

import heapq
import math
from collections.abc import Iterator, Mapping
from typing import TypeVar

from guts.events import CommandId
from guts.ids import RepositoryId
from guts.sync.goal import Goal, Waiter

G = TypeVar("G", bound=Goal)


class Agenda:
    """Two heaps, so that 10,000 goals cost nothing per event. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._rounds: list[tuple[float, RepositoryId]] = []
        self._waits: list[tuple[float, CommandId, RepositoryId]] = []

    def schedule(self, goal: Goal, time: float) -> None:
        """Let the next round of ``goal`` be at ``time``, and not when it was to be before; infinity: at none."""
        goal.next_ask = time
        if time < math.inf:
            heapq.heappush(self._rounds, (time, goal.repository))

    def wait(self, goal: Goal, waiter: Waiter) -> None:
        """Note until when ``waiter`` waits for ``goal``."""
        heapq.heappush(self._waits, (waiter.deadline, waiter.command_id, goal.repository))

    def rounds(self, goals: Mapping[RepositoryId, G], now: float) -> Iterator[G]:
        """Yield the goals whose round is due; each is to be scheduled again before the next is taken."""
        while self._rounds and self._rounds[0][0] <= now:
            time, repository = heapq.heappop(self._rounds)
            goal = goals.get(repository)
            if goal is not None and goal.next_ask == time:
                yield goal

    def late(self, now: float) -> Iterator[tuple[RepositoryId, CommandId]]:
        """Yield the commands whose time is over, answered or not."""
        while self._waits and self._waits[0][0] <= now:
            _, command_id, repository = heapq.heappop(self._waits)
            yield repository, command_id

    def deadline(self) -> float:
        """Return when something is due next; infinity for never."""
        first_round = self._rounds[0][0] if self._rounds else math.inf
        return min(first_round, self._waits[0][0]) if self._waits else first_round
