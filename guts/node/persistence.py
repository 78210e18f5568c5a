"""``Persistence``: what the service wants kept, written behind its back, in order, many changes in one transaction."""

import asyncio
import contextlib
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
from guts.store.transactions import CommitUnknown

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1024
"""Changes waiting for the database. Of what comes then meetings, faults and receipts are forgotten; not what the
operator wants, of which nobody else makes more."""

TOGETHER: Final = 0.25
"""Seconds for which a change waits for others: of a push to many replicas each sends a receipt, and what they all write
at once holds up nobody. What a crash takes within it is told again, or happens again."""

MAX_TOGETHER: Final = 64
"""Changes in one transaction: a commit has to wait for no more than them. As many wait for no others."""

PRUNE_EVERY: Final = 1000
"""Meetings and faults between two looks at what there is too much of; the first is at the first of them."""

Row = PeerSeen | PeerMissed | ScoreChanged | BanKept | BanLifted | ReceiptKept
Change = Row | SeedingStopped


class Persistence:
    """The queue of changes and its one writer."""

    def __init__(
        self, database: Database, removals: Removals, running_time: Callable[[], score_table.RunningTime]
    ) -> None:
        """Args: ``running_time``: tells for how long the node has run; kept with every ban, whose end it tells."""
        self._database = database
        self._removals = removals
        self._running_time = running_time
        self._queue: asyncio.Queue[Change] = asyncio.Queue()
        self._running = False
        self._hurry = asyncio.Event()
        self._until_pruned = 1

    def keep(self, change: Change) -> None:
        """Queue ``change``; never blocks."""
        wanted = isinstance(change, BanKept | BanLifted | SeedingStopped)
        if self._queue.qsize() >= QUEUE_LIMIT and not wanted:
            log.debug("the database is behind: a %s is not kept", type(change).__name__)
            return
        self._queue.put_nowait(change)
        # The operator may want the contrary in a moment, and what comes last counts.
        if isinstance(change, SeedingStopped) or self._queue.qsize() >= MAX_TOGETHER:
            self._hurry.set()

    async def run(self) -> None:
        """Write what is queued until cancelled; what is queued then is forgotten, and nobody waits for it."""
        self._running = True
        try:
            while True:
                changes = [await self._queue.get()]
                try:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TOGETHER):
                            await self._hurry.wait()
                    while len(changes) < MAX_TOGETHER and not self._queue.empty():
                        changes.append(self._queue.get_nowait())
                    if self._queue.empty():
                        self._hurry.clear()
                    await self._write(changes)
                finally:
                    for _ in changes:
                        self._queue.task_done()
        finally:
            self._running = False
            while not self._queue.empty():
                self._queue.get_nowait()
                self._queue.task_done()

    async def drain(self) -> None:
        """Return when everything that is queued has been written, or ``run`` has ended."""
        if self._running:
            self._hurry.set()
            await self._queue.join()

    async def _write(self, changes: list[Change]) -> None:
        """Write ``changes``, those of rows that follow each other in one transaction."""
        rows: list[Row] = []
        for change in changes:
            if isinstance(change, SeedingStopped):
                await self._write_rows(rows)
                rows = []
                await self._stop_seeding(change)
            else:
                rows.append(change)
        await self._write_rows(rows)

    async def _stop_seeding(self, change: SeedingStopped) -> None:
        try:
            await self._removals.stop_seeding(change.repository, DROPPED)
        except StorageFault as error:
            _not_kept(change, error)

    async def _write_rows(self, rows: list[Row]) -> None:
        if not rows:
            return
        try:
            await self._database.write(_apply_all, rows, self._running_time())
        except StorageFault as error:
            # What may be there already is not written twice.
            if len(rows) == 1 or isinstance(error, CommitUnknown):
                for row in rows:
                    _not_kept(row, error)
                return
            # One that can't be kept takes no other with it.
            for row in rows:
                await self._write_rows([row])
            return
        self._until_pruned -= sum(not isinstance(row, ReceiptKept) for row in rows)
        if self._until_pruned <= 0:
            self._until_pruned += PRUNE_EVERY
            await self._prune()

    async def _prune(self) -> None:
        try:
            await self._database.write(_prune, self._running_time().ran)
        except StorageFault as error:
            log.warning("can't forget what there is too much of: %s", error)


def _not_kept(change: Change, error: StorageFault) -> None:
    log.warning("can't keep a %s: %s", type(change).__name__, error)


def stored_receipt(receipt: CommitReceipt) -> receipt_table.StoredReceipt:
    """Return ``receipt`` as the database keeps it."""
    claim = receipt.claim
    return receipt_table.StoredReceipt(
        claim.repository, claim.author, claim.peer, claim.seq, claim.hash, claim.time_ms, receipt.encoded
    )


def _apply_all(connection: Connection, rows: list[Row], running_time: score_table.RunningTime) -> None:
    for row in rows:
        _apply(connection, row, running_time)


def _apply(connection: Connection, row: Row, running_time: score_table.RunningTime) -> None:
    match row:
        case ReceiptKept(receipt=receipt):
            receipt_table.keep(connection, stored_receipt(receipt))
        case PeerSeen():
            _peer_seen(connection, row)
        case PeerMissed():
            peer_table.mark_failed(connection, row.peer, row.address)
        case ScoreChanged():
            _score_changed(connection, row)
            if row.score.barred_until is not None:
                score_table.save_running_time(connection, running_time)
        case BanKept(subject=subject, until=until, made=made, reason=reason):
            ban = score_table.StoredBan(subject_text(subject), until, made, reason)
            score_table.save_ban(connection, ban)
            score_table.save_running_time(connection, running_time)
        case BanLifted(subject=subject):
            score_table.delete_ban(connection, subject_text(subject))
        case _:
            assert_never(row)


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
