"""The transfers that are running, and who stands in line while there is no room for more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from guts.errors import GutsError, PeerFault, Severity
from guts.events import ConnectionId, FetchId
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.sync.goal import Goal
from guts.wire.messages import Objects, ObjectsStatus

MAX_FETCHES: Final = 4
"""Fetches at a time: they share the disk and the link."""

MAX_FETCHES_PER_PEER: Final = 2
"""Of those, from one peer: as many as it serves to one at a time. The last place is for a peer that has none, so that
two that drip their packs don't fill all."""

MAX_PROSPECT_FETCHES: Final = 1
"""Of those, for what nobody asked for: strangers who announce much keep nothing out that is wanted."""

MAX_BUSY_PAUSE: Final = 600.0
"""Seconds that a busy peer may ask for at the most."""

HURRY_SECONDS: Final = 3.0
"""Seconds in which a transfer has to bring something (``guts.node.transfers``) when another peer has the same: a pack
of what is new begins within a round trip or two. Doubled with every transfer of a goal that was told to hurry since the
last commit: on a slow link, or where there is much to count, all are slow, and one of them has to come to its end."""

MAX_HURRIED: Final = 5
"""Doublings of that: more than a minute and a half is more than who hurries nobody waits."""


def is_as_signed(error: GutsError) -> bool:
    """Tell whether what came is as its author signed it, and not taken: no fault of who sent it."""
    return isinstance(error, PeerFault) and error.severity is Severity.NETWORK


@dataclass(slots=True)
class RunningFetch:
    """One running Fetch.

    Attributes:
        request: the id of its GetObjects.
        asked: the candidate answered a GetRefs; else it came by gossip.
        partial: the answer was cut: there is more to ask for when this is committed.
        offer: the id of the records that were offered (``guts.sync.refused``).
        author: of the record that gossip brought.
        vetted: the record was found good, by all that needs no objects.
        not_held: the peer said that it has not what it was asked for.
        claim: bytes that the peer says the whole repository takes; 0: it does not say.
        prospect: nobody asked for the repository.
        begun: monotonic seconds.
        hurried: it was told to hurry.
        pause: seconds that the peer, being busy, asked to be left alone for.
    """

    repository: RepositoryId
    peer: PeerId
    connection: ConnectionId
    request: int
    asked: bool
    partial: bool
    offer: bytes
    author: AuthorId | None = None
    vetted: bool = False
    not_held: bool = False
    claim: int = 0
    prospect: bool = False
    begun: float = 0.0
    hurried: bool = False
    pause: float | None = None

    def failed_for_its_record(self, error: GutsError) -> bool:
        """Tell whether it failed for what its author signed, as far as can be known, and not for its teller.

        Who tells of a record passes it on before it has the objects itself. An author can sign what leads nowhere, and
        who tells of it in good faith must not be left alone for that.
        """
        if self.author is None or not self.vetted:
            return False
        return self.not_held or is_as_signed(error)


class Fetches:
    """The running transfers of a node, one per goal at the most.

    Args:
        per_peer: how many may run from one peer; where that is less than all, the last place is for a peer without any.

    Attributes:
        running: by id.
    """

    def __init__(self, per_peer: int) -> None:
        self._per_peer = per_peer
        self.running: dict[FetchId, RunningFetch] = {}
        self._offered: dict[RepositoryId, bool] = {}
        self._last = 0

    def room_for(self, goal: Goal, peer: PeerId) -> bool:
        """Tell whether a transfer for ``goal`` from ``peer`` may begin."""
        if goal.fetch is not None or not self.room_from(peer):
            return False
        return goal.prospect is None or self._prospects < MAX_PROSPECT_FETCHES

    def room_from(self, peer: PeerId, asked: int = 0) -> bool:
        """Tell whether one more transfer from ``peer`` may run, besides ``asked`` that it was just asked for."""
        count = asked + sum(fetch.peer == peer for fetch in self.running.values())
        kept = 1 if count and self._per_peer < MAX_FETCHES else 0
        return count < self._per_peer and len(self.running) < MAX_FETCHES - kept

    def begin(self, goal: Goal, fetch: RunningFetch) -> FetchId:
        """Count ``fetch`` in and return its id."""
        self._last += 1
        goal.fetch = FetchId(self._last)
        self.running[goal.fetch] = fetch
        return goal.fetch

    def end(self, fetch: FetchId) -> RunningFetch:
        """Count a transfer out."""
        return self.running.pop(fetch)

    def hurry(self, goal: Goal, peer: PeerId) -> float | None:
        """Return in how many seconds the transfer of ``goal`` has to bring something, now that ``peer`` has the same.

        ``None``: there is none, or it was told already, or it is from that peer.
        """
        if goal.fetch is None:
            return None
        transfer = self.running[goal.fetch]
        if transfer.hurried or transfer.peer == peer:
            return None
        transfer.hurried = True
        seconds = HURRY_SECONDS * 2.0 ** min(goal.hurried, MAX_HURRIED)
        goal.hurried += 1
        return seconds

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

    def invited(self, offered: Callable[[RepositoryId], bool]) -> Iterator[RepositoryId]:
        """Take out of the line as many goals as there is room for, one after the other.

        Args:
            offered: tells whether one of those who offered something for it may be asked now.
        """
        free = max(0, MAX_FETCHES - len(self.running))
        prospects = MAX_PROSPECT_FETCHES - self._prospects
        for repository, prospect in list(self._offered.items()):
            if free == 0:
                return
            if (not prospect or prospects > 0) and offered(repository):
                del self._offered[repository]
                free -= 1
                prospects -= prospect
                yield repository

    @property
    def _prospects(self) -> int:
        return sum(fetch.prospect for fetch in self.running.values())


def pause(retry_after_s: int) -> float:
    """Return for how many seconds a busy peer is left alone: what it asks for, in bounds."""
    return min(max(float(retry_after_s), 1.0), MAX_BUSY_PAUSE)
