"""``MissingNews``: what was told of in short and has not come in full, and whom to ask for it when (Plumtree §3.3).

One timer for each repository: the record is asked for by GetRefs, which brings whatever is newer there. The first who
told is asked when it runs out, the next one after another wait, until the news are here or nobody is left.
"""

import heapq
import math
import random
from dataclasses import dataclass
from typing import Final

from guts.events import ConnectionId
from guts.ids import AuthorId, RepositoryId
from guts.wire.messages import NewCommit

ROUND_TRIPS: Final = 2.0
"""Round trips of a link that a record may take longer, by the tree, than the short news by the link."""

MIN_WAIT: Final = 0.2
"""Seconds: the least retransmission time-out of TCP in practice. What one lost packet holds up is on its way."""

MAX_WAIT: Final = 2.0
"""Seconds: who answers a Ping late chooses how long its round trip looks, and the wait is everybody's."""

UNKNOWN_ROUND_TRIP: Final = 0.25
"""Seconds taken for a round trip of a link that no Ping has measured yet."""

MAX_MISSING: Final = 4_096
"""Repositories with news missing at a time; news of more wait for anti-entropy."""


@dataclass(frozen=True, slots=True)
class Told:
    """What somebody told in short."""

    author: AuthorId
    seq: int
    hash: bytes


@dataclass(slots=True)
class _Missing:
    """Who told of something newer, in order, and what; ``deadline`` in monotonic seconds."""

    tellers: dict[ConnectionId, Told]
    deadline: float


class MissingNews:
    """The timers of every repository."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._missing: dict[RepositoryId, _Missing] = {}
        self._timers: list[tuple[float, RepositoryId]] = []

    def told(self, teller: ConnectionId, news: NewCommit, round_trip: float | None, now: float) -> None:
        """Note that ``teller`` has news that have not come in full; ``round_trip``: of the link, in seconds."""
        missing = self._missing.get(news.repository)
        if missing is None:
            if len(self._missing) >= MAX_MISSING:
                return
            missing = self._missing[news.repository] = _Missing({}, math.inf)
        if teller not in missing.tellers:
            self._wait(news.repository, missing, min(missing.deadline, self._until(round_trip, now)))
        missing.tellers[teller] = Told(news.author, news.seq, news.hash)

    def tellers(self, repository: RepositoryId) -> dict[ConnectionId, Told]:
        """Return who told of news of ``repository`` that are missing, the first first; not to be changed."""
        missing = self._missing.get(repository)
        return missing.tellers if missing is not None else {}

    def due(self, now: float) -> list[RepositoryId]:
        """Return the repositories whose timers have run out at ``now``; each needs ``wait`` or ``here``."""
        found: list[RepositoryId] = []
        while self._timers and self._timers[0][0] <= now:
            deadline, repository = heapq.heappop(self._timers)
            missing = self._missing.get(repository)
            if missing is not None and missing.deadline == deadline:
                found.append(repository)
        return found

    def wait(self, repository: RepositoryId, round_trip: float | None, now: float) -> None:
        """Begin the timer of ``repository`` again."""
        self._wait(repository, self._missing[repository], self._until(round_trip, now))

    def asked(self, repository: RepositoryId, teller: ConnectionId) -> None:
        """Take out ``teller``, which is being asked, or has not what it told."""
        missing = self._missing.get(repository)
        if missing is not None:
            missing.tellers.pop(teller, None)
            if not missing.tellers:
                del self._missing[repository]

    def here(self, repository: RepositoryId) -> None:
        """Forget ``repository``: nothing of it is missing, or it is no longer followed."""
        self._missing.pop(repository, None)

    def drop_link(self, link: ConnectionId) -> None:
        """Forget what was told over a connection that is gone."""
        for repository in [repository for repository, missing in self._missing.items() if link in missing.tellers]:
            self.asked(repository, link)

    def deadline(self) -> float:
        """Return when ``due`` has something (monotonic seconds), or earlier; infinity for never."""
        return self._timers[0][0] if self._timers else math.inf

    def _until(self, round_trip: float | None, now: float) -> float:
        seconds = ROUND_TRIPS * (UNKNOWN_ROUND_TRIP if round_trip is None else round_trip)
        return now + min(MAX_WAIT, max(MIN_WAIT, seconds)) * self._rng.uniform(1.0, 1.5)

    def _wait(self, repository: RepositoryId, missing: _Missing, deadline: float) -> None:
        if deadline != missing.deadline:
            missing.deadline = deadline
            heapq.heappush(self._timers, (deadline, repository))
