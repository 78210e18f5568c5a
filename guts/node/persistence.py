"""``Persistence``: what the service wants kept, written behind its back, in order."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, assert_never

from sqlalchemy import Connection

from guts.addresses import subject_text
from guts.effects import BanKept, BanLifted, PeerMissed, PeerSeen, ReceiptKept, ScoreChanged, SeedingStopped
from guts.errors import StorageFault
from guts.node.removal import Removals
from guts.records import CommitReceipt, PeerRecord
from guts.store import peers as peer_table
from guts.store import receipts as receipt_table
from guts.store import scores as score_table
from guts.store.database import Database
from guts.store.seeding import DROPPED

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1024
"""Changes waiting for the database. What comes when it is full is dropped: a meeting, fault or receipt is forgotten."""

PRUNE_EVERY: Final = 1000
"""Meetings and faults between two looks at what there is too much of; the first is at the first of them."""

Change = PeerSeen | PeerMissed | ScoreChanged | BanKept | BanLifted | SeedingStopped | ReceiptKept


class Persistence:
    """The queue of changes and its one writer."""

    def __init__(
        self, database: Database, removals: Removals, running_time: Callable[[], score_table.RunningTime]
    ) -> None:
        """Args: ``running_time``: tells for how long the node has run; kept with every ban, whose end it tells."""
        self._database = database
        self._removals = removals
        self._running_time = running_time
        self._queue: asyncio.Queue[Change] = asyncio.Queue(QUEUE_LIMIT)
        self._running = False
        self._changes = 0

    def keep(self, change: Change) -> None:
        """Queue ``change``; never blocks."""
        try:
            self._queue.put_nowait(change)
        except asyncio.QueueFull:
            log.debug("the database is behind: a %s is not kept", type(change).__name__)

    async def run(self) -> None:
        """Write what is queued until cancelled; what is queued then is forgotten, and nobody waits for it."""
        self._running = True
        try:
            while True:
                change = await self._queue.get()
                try:
                    await self._write(change)
                finally:
                    self._queue.task_done()
        finally:
            self._running = False
            while not self._queue.empty():
                self._queue.get_nowait()
                self._queue.task_done()

    async def drain(self) -> None:
        """Return when everything that is queued has been written, or ``run`` has ended."""
        if self._running:
            await self._queue.join()

    async def _write(self, change: Change) -> None:
        try:
            match change:
                case SeedingStopped():
                    await self._removals.stop_seeding(change.repository, DROPPED)
                case ReceiptKept():
                    await self._database.write(receipt_table.keep, stored_receipt(change.receipt))
                case _:
                    await self._database.write(_apply, change, self._running_time())
                    if self._changes % PRUNE_EVERY == 0:
                        await self._database.write(_prune, self._running_time().ran)
                    self._changes += 1
        except StorageFault as error:
            log.warning("can't keep a %s: %s", type(change).__name__, error)


def stored_receipt(receipt: CommitReceipt) -> receipt_table.StoredReceipt:
    """Return ``receipt`` as the database keeps it."""
    claim = receipt.claim
    return receipt_table.StoredReceipt(
        claim.repository, claim.author, claim.peer, claim.seq, claim.hash, claim.time_ms, receipt.encoded
    )


def _apply(
    connection: Connection,
    change: PeerSeen | PeerMissed | ScoreChanged | BanKept | BanLifted,
    running_time: score_table.RunningTime,
) -> None:
    match change:
        case PeerSeen():
            _peer_seen(connection, change)
        case PeerMissed():
            peer_table.mark_failed(connection, change.peer, change.address)
        case ScoreChanged():
            _score_changed(connection, change)
            if change.score.barred_until is not None:
                score_table.save_running_time(connection, running_time)
        case BanKept(subject=subject, until=until, made=made, reason=reason):
            ban = score_table.StoredBan(subject_text(subject), until, made, reason)
            score_table.save_ban(connection, ban)
            score_table.save_running_time(connection, running_time)
        case BanLifted(subject=subject):
            score_table.delete_ban(connection, subject_text(subject))
        case _:
            assert_never(change)


def _prune(connection: Connection, ran: int) -> None:
    """Forget peers and scores past their bounds: a new identity for each visit must fill no disk."""
    peer_table.prune_peers(connection)
    score_table.prune_scores(connection, ran)


def _score_changed(connection: Connection, change: ScoreChanged) -> None:
    score = change.score
    score_table.save_score(
        connection,
        score_table.StoredScore(
            score.peer,
            score.value,
            change.wall,
            score.ran,
            score.barred_until,
            score.banned,
            score.shut_outs,
            score.bans,
            score.repeats_until,
        ),
        score_table.ScoreChange(change.wall, score.ran, change.change, score.value, change.reason, change.barred_ms),
    )


def _peer_seen(connection: Connection, seen: PeerSeen) -> None:
    claimed = PeerRecord.decode(seen.peer_record).addresses
    reached = (seen.address,) if seen.address is not None else ()
    addresses = tuple(dict.fromkeys((*reached, *claimed)))
    row = peer_table.StoredPeer(seen.peer, seen.wall, seen.capabilities, addresses, seen.peer_record)
    peer_table.save_peer(connection, row)
    if seen.address is not None:
        peer_table.mark_good(connection, seen.peer, seen.address, seen.wall)
