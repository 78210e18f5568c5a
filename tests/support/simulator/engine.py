"""``Engine``: virtual time, a queue of what happens when, one source of randomness, the digest of a run."""

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

Work = Callable[..., None]


class Engine:
    """What happens when. Times are seconds since the start of the run.

    Attributes:
        now: the time.
        happened: pieces of work done so far.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.happened = 0
        self._count = itertools.count(1)
        self._queue: list[tuple[float, int, Work, tuple[Any, ...]]] = []
        self._digest = hashlib.sha256()

    def call_at(self, time: float, work: Work, *arguments: Any) -> None:
        """Call ``work`` at ``time``, or now where that is over; what is due at one time is done in order."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._count), work, arguments))

    def call_later(self, seconds: float, work: Work, *arguments: Any) -> None:
        """Call ``work`` in ``seconds``."""
        self.call_at(self.now + seconds, work, *arguments)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass; return how much did until ``until``, asked after each piece of work, or ``seconds``."""
        queue, start = self._queue, self.now
        end = start + seconds
        if until is not None and until():
            return 0.0
        while queue and queue[0][0] <= end:
            self.now, _, work, arguments = heapq.heappop(queue)
            self.happened += 1
            work(*arguments)
            if until is not None and until():
                return self.now - start
        self.now = end
        return seconds

    def record(self, data: bytes) -> None:
        """Take ``data`` into the digest."""
        self._digest.update(data)

    def digest(self) -> str:
        """Return the hash of all that was recorded."""
        return self._digest.hexdigest()
