"""What this node gives to those who ask: refs, packs, git's own protocol, receipts."""

from typing import Final

from guts.effects import Effect, LoadRefs, ResetStream, Send, Serve, ServeGit
from guts.events import Known
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.service.admission import BUSY_RETRY_AFTER, Admission, Admitted
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

    def get_refs(self, connection: PeerConnection, admitted: Admitted[GetRefs]) -> list[Effect]:
        """Have what is asked for read from the store."""
        message = admitted.message
        if not self.admission.begin_load(connection.id):
            busy = Error(message.request, ErrorCode.BUSY, "too many requests under way", BUSY_RETRY_AFTER)
            return [Send(connection.id, busy)]
        return [LoadRefs(connection.id, message.request, message.queries, message.cursor)]

    def get_objects(self, connection: PeerConnection, admitted: Admitted[GetObjects]) -> list[Effect]:
        """Have a pack made."""
        message = admitted.message
        if message.slices != ALL_SLICES or message.filter:
            status, code, wait = ObjectsStatus.UNSUPPORTED, ResetCode.REFUSED, 0
        elif not self._sync.holds(message.repository):
            status, code, wait = ObjectsStatus.NOT_HELD, ResetCode.NOT_FOUND, 0
        elif not self.admission.begin_serve(connection.id):
            status, code, wait = ObjectsStatus.BUSY, ResetCode.LIMIT, BUSY_RETRY_AFTER
        else:
            return [Serve(connection.id, message)]
        refusal = Send(connection.id, Objects(message.request, status, wait))
        return [refusal, ResetStream(connection.id, message.stream, code)]

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
