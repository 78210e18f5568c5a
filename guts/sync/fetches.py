"""The transfers that are running, and who stands in line while there is no room for more."""

from dataclasses import dataclass
from typing import Final

from guts.events import ConnectionId, FetchId
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.goal import Goal
from guts.wire.messages import Objects, ObjectsStatus

MAX_FETCHES: Final = 4
"""Fetches at a time: they share the disk and the link."""

MAX_PROSPECT_FETCHES: Final = 1
"""Of those, for what nobody asked for: strangers who announce much keep nothing out that is wanted."""

MAX_BUSY_PAUSE: Final = 600.0
"""Seconds that a busy peer may ask for at the most."""


@dataclass(slots=True)
class RunningFetch:
    """One running Fetch.

    Attributes:
        request: the id of its GetObjects.
        asked: the candidate answered a GetRefs; else it came by gossip.
        partial: the answer was cut: there is more to ask for when this is committed.
        author: of the record that gossip brought.
        vetted: the record was found good, by all that needs no objects.
        not_held: the peer said that it has not what it was asked for.
        claim: bytes that the peer says the whole repository takes; 0: it does not say.
        prospect: nobody asked for the repository.
        pause: seconds that the peer, being busy, asked to be left alone for.
    """

    repository: RepositoryId
    peer: PeerId
    connection: ConnectionId
    request: int
    asked: bool
    partial: bool
    author: AuthorId | None = None
    vetted: bool = False
    not_held: bool = False
    claim: int = 0
    prospect: bool = False
    pause: float | None = None


class Fetches:
    """The running transfers of a node, one per goal at the most.

    Attributes:
        running: by id.
    """

    def __init__(self) -> None:
        self.running: dict[FetchId, RunningFetch] = {}
        self._offered: dict[RepositoryId, bool] = {}
        self._last = 0

    def room_for(self, goal: Goal) -> bool:
        """Tell whether a transfer for ``goal`` may begin."""
        if goal.fetch is not None or len(self.running) >= MAX_FETCHES:
            return False
        return goal.prospect is None or self._prospects < MAX_PROSPECT_FETCHES

    def begin(self, goal: Goal, fetch: RunningFetch) -> FetchId:
        """Count ``fetch`` in and return its id."""
        self._last += 1
        goal.fetch = FetchId(self._last)
        self.running[goal.fetch] = fetch
        return goal.fetch

    def end(self, fetch: FetchId) -> RunningFetch:
        """Count a transfer out."""
        return self.running.pop(fetch)

    def answered(self, connection: ConnectionId, objects: Objects) -> None:
        """Note why a peer serves no pack, and how long it asks to be left alone; the transfer itself fails next."""
        for fetch in self.running.values():
            if (fetch.connection, fetch.request) == (connection, objects.request):
                fetch.not_held = objects.status is ObjectsStatus.NOT_HELD
                if objects.status is ObjectsStatus.BUSY:
                    fetch.pause = pause(objects.retry_after_s)

    def offer(self, goal: Goal) -> None:
        """Put a goal in line: somebody has something newer for it."""
        self._offered[goal.repository] = goal.prospect is not None

    def withdraw(self, repository: RepositoryId) -> None:
        """Take a goal out of the line, where it stands in it."""
        self._offered.pop(repository, None)

    def invited(self) -> list[RepositoryId]:
        """Take out of the line as many goals as there is room for, and return them."""
        free = max(0, MAX_FETCHES - len(self.running))
        prospects = MAX_PROSPECT_FETCHES - self._prospects
        first: list[RepositoryId] = []
        for repository, prospect in self._offered.items():
            if len(first) == free:
                break
            if not prospect or prospects > 0:
                first.append(repository)
                prospects -= prospect
        for repository in first:
            del self._offered[repository]
        return first

    @property
    def _prospects(self) -> int:
        return sum(fetch.prospect for fetch in self.running.values())


def pause(retry_after_s: int) -> float:
    """Return for how many seconds a busy peer is left alone: what it asks for, in bounds."""
    return min(max(float(retry_after_s), 1.0), MAX_BUSY_PAUSE)
