"""What this node gives to those who ask: refs, packs, git's own protocol, receipts."""

from collections.abc import Iterable
from typing import Final

from guts.effects import Effect, LoadRefs, ResetStream, Send, Serve, ServeGit
from guts.events import ConnectionId, Known
from guts.ids import RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.networks import public_prefix
from guts.peers.state import PeerConnection
from guts.service.admission import BUSY_RETRY_AFTER, Admission, Admitted
from guts.service.serve_queue import ServeQueue
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync
from guts.wire.limits import SLICES_BYTES
from guts.wire.messages import (
    UPLOAD_PACK,
    Error,
    ErrorCode,
    GetObjects,
    GetReceipt,
    GetRefs,
    GitService,
    Objects,
    ObjectsStatus,
    ResetCode,
)

ALL_SLICES: Final = b"\xff" * SLICES_BYTES

SEEDS: Final = "seed"
"""The capability of those who keep what they commit, and so give receipts."""


class Serving:
    """Answers requests, or says why not.

    Attributes:
        admission: how many are being worked on.
    """

    def __init__(self, peers: PeerManager, sync: RepoSync, receipts: Receipts, admission: Admission) -> None:
        self.admission = admission
        self._peers = peers
        self._sync = sync
        self._receipts = receipts
        self._queue = ServeQueue()
        self._expected: dict[RepositoryId, set[ConnectionId]] = {}
        self._sent_away: dict[RepositoryId, set[ConnectionId]] = {}

    def get_refs(self, connection: PeerConnection, admitted: Admitted[GetRefs]) -> list[Effect]:
        """Have what is asked for read from the store."""
        message = admitted.message
        if not self.admission.begin_load(connection.id):
            busy = Error(message.request, ErrorCode.BUSY, "too many requests under way", BUSY_RETRY_AFTER)
            return [Send(connection.id, busy)]
        return [LoadRefs(connection.id, message.request, message.queries, message.cursor)]

    # --- packs ----------------------------------------------------------------------------------------------

    def get_objects(self, connection: PeerConnection, admitted: Admitted[GetObjects], now: float) -> list[Effect]:
        """Have a pack made: at once, or when there is a place, or when what was told of is committed here."""
        message = admitted.message
        network = public_prefix(connection.address.ip)
        if message.slices != ALL_SLICES or message.filter:
            return _refused(connection.id, message, ObjectsStatus.UNSUPPORTED)
        if not self._sync.holds(message.repository):
            return _refused(connection.id, message, ObjectsStatus.NOT_HELD)
        if connection.id in self._expected.get(message.repository, ()):
            if self._queue.park(connection.id, network, message, now):
                return []
            # Others took all there is to wait for the commit: what is asked for may be here already, and if not, it is
            # told of again when it is.
            self._sent_away.setdefault(message.repository, set()).add(connection.id)
        return self._serve_or_wait(connection.id, network, message, now)

    def expect(self, repository: RepositoryId, told: Iterable[ConnectionId]) -> None:
        """Let those who were ``told`` of a record of ``repository`` wait for its objects until they are committed."""
        if told := set(told):
            self._expected.setdefault(repository, set()).update(told)

    def settled(
        self, repository: RepositoryId, now: float, *, committed: bool
    ) -> tuple[list[Effect], frozenset[ConnectionId]]:
        """Serve who waited for a transfer of ``repository``, which has ended.

        Returns:
            The effects, and who was told in vain: all where nothing was committed, else those for whom it took too
            long, so that they were sent away.
        """
        told = self._expected.pop(repository, set())
        effects: list[Effect] = []
        for request in self._queue.unpark(repository):
            effects += self._serve_or_wait(request.connection, request.network, request.message, now)
        sent_away = self._sent_away.pop(repository, set())
        return effects, frozenset(sent_away if committed else told)

    def served(self, connection: ConnectionId) -> list[Effect]:
        """Note that a pack was sent or not, and give its place to who waits for one."""
        self.admission.end_serve(connection, self._queue.end(connection))
        effects: list[Effect] = []
        for request in self._queue.in_turn():
            if not self._sync.holds(request.message.repository):
                self._queue.refuse(request)
                effects += _refused(request.connection, request.message, ObjectsStatus.NOT_HELD)
            elif self.admission.begin_serve(request.connection, request.network):
                self._queue.begin_waiting(request)
                effects.append(Serve(request.connection, request.message))
        return effects

    def wanted(self, connection: ConnectionId) -> bool:
        """Tell whether somebody waits who could have a place of ``connection``, were it free."""
        freed = self._queue.network(connection)
        return any(
            self.admission.would_serve(request.connection, request.network, freed)
            for request in self._queue.waiting
            if request.connection != connection
        )

    def gone(self, connection: ConnectionId) -> None:
        """Forget the requests that came over a connection that is gone."""
        self._queue.gone(connection)
        for links in (*self._expected.values(), *self._sent_away.values()):
            links.discard(connection)

    def deadline(self) -> float:
        """Return when ``tick`` is due (monotonic seconds); infinity for never."""
        return self._queue.deadline()

    def tick(self, now: float) -> list[Effect]:
        """Send away those who have waited for too long."""
        effects: list[Effect] = []
        for request in self._queue.expired(now):
            repository = request.message.repository
            if repository in self._expected:
                self._sent_away.setdefault(repository, set()).add(request.connection)
            effects += _refused(request.connection, request.message, ObjectsStatus.BUSY)
        return effects

    def _serve_or_wait(self, connection: ConnectionId, network: str, message: GetObjects, now: float) -> list[Effect]:
        if self.admission.begin_serve(connection, network):
            self._queue.begin(connection, network)
            return [Serve(connection, message)]
        displaced = self._queue.wait(connection, network, message, now)
        if displaced is None:
            return _refused(connection, message, ObjectsStatus.BUSY)
        return [
            effect
            for request in displaced
            for effect in _refused(request.connection, request.message, ObjectsStatus.BUSY)
        ]

    def git_service(self, connection: PeerConnection, admitted: Admitted[GitService]) -> list[Effect]:
        """Have git answer on a stream."""
        message = admitted.message
        if message.service != UPLOAD_PACK:
            error, code, text, wait = ErrorCode.UNSUPPORTED, ResetCode.REFUSED, "unknown service", 0
        elif not self._sync.holds(message.repository):
            error, code, text, wait = ErrorCode.NOT_FOUND, ResetCode.NOT_FOUND, "not held here", 0
        elif not self.admission.begin_git(connection.id, connection.address):
            error, code, text, wait = ErrorCode.BUSY, ResetCode.LIMIT, "too many under way", BUSY_RETRY_AFTER
        else:
            return [ServeGit(connection.id, message)]
        refusal = Send(connection.id, Error(message.request, error, text, wait))
        return [refusal, ResetStream(connection.id, message.stream, code)]

    def get_receipt(self, connection: PeerConnection, admitted: Admitted[GetReceipt]) -> list[Effect]:
        """Give a receipt, now or when the record is here."""
        message = admitted.message
        goal = self._sync.goals.get(message.repository)
        if SEEDS not in self._peers.me.capabilities:
            refusal = Error(message.request, ErrorCode.REFUSED, "this node keeps nothing")
        elif goal is None:
            refusal = Error(message.request, ErrorCode.NOT_FOUND, "not followed here")
        else:
            return self._receipts.asked(connection.id, message, goal.known if goal.held else Known())
        return [Send(connection.id, refusal)]


_RESETS: Final = {
    ObjectsStatus.NOT_HELD: ResetCode.NOT_FOUND,
    ObjectsStatus.UNSUPPORTED: ResetCode.REFUSED,
    ObjectsStatus.BUSY: ResetCode.LIMIT,
}


def _refused(connection: ConnectionId, message: GetObjects, status: ObjectsStatus) -> list[Effect]:
    wait = BUSY_RETRY_AFTER if status is ObjectsStatus.BUSY else 0
    return [
        Send(connection, Objects(message.request, status, wait)),
        ResetStream(connection, message.stream, _RESETS[status]),
    ]
