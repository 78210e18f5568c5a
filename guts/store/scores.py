"""Fault scores and bans, the ledger that explains them to the operator, and the running time that they count in.

How much of a ban is over is counted in the time that the node has run (``ran``, milliseconds, all its runs together):
a clock that was wrong, or is, ends no ban and makes none longer. What the clock said is kept for people.
"""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection, delete, select

from guts.ids import PeerId
from guts.store.dialect import insert_or_update
from guts.store.schema import bans, running_time, score_ledger, scores

KEPT_CHANGES: Final = 100
"""Ledger rows per peer: what an operator reads, not an archive; a hostile peer can cause any number."""

KEPT_SCORES: Final = 10_000
"""Scores remembered without a ban: identities cost nothing to make, so the oldest go."""

KEPT_BANS: Final = 10_000
"""Scores remembered with a ban in force, the newest: whoever makes an identity after each ban fills no disk."""


@final
@dataclass(frozen=True, slots=True)
class StoredScore:
    """The fault value of a peer.

    Attributes:
        value: as it was when the node had run for ``ran`` ms; it decays from there.
        updated: what the clock said then, Unix milliseconds.
        barred_until: the peer is not let in before the node has run for so many ms; ``None``: it is.
        banned: that is a ban, not a shut-out.
        shut_outs, bans: how many there were in a row.
        repeats_until: when those are forgotten, in ms of the running time.
    """

    peer: PeerId
    value: float
    updated: int
    ran: int = 0
    barred_until: int | None = None
    banned: bool = False
    shut_outs: int = 0
    bans: int = 0
    repeats_until: int = 0


@final
@dataclass(frozen=True, slots=True)
class ScoreChange:
    """One row of the ledger.

    Attributes:
        at: Unix milliseconds.
        ran: when that was, in ms of the running time.
        change: what was added to the score.
        total: what the score was then.
        reason: code of the fault.
        barred_ms: for how long the peer was shut out or banned for it; 0 = it was not.
    """

    at: int
    ran: int
    change: float
    total: float
    reason: str
    barred_ms: int = 0


@final
@dataclass(frozen=True, slots=True)
class StoredBan:
    """A ban by the operator.

    Attributes:
        subject: a peer's id, or a network.
        until: in ms of the running time; ``None``: for good.
        made: Unix milliseconds.
    """

    subject: str
    until: int | None
    made: int
    reason: str


@final
@dataclass(frozen=True, slots=True)
class RunningTime:
    """For how long the node has run, in ms, and when that was written.

    Attributes:
        boot: which start of the machine that was in; "": not known.
        since_boot: ms since that start.
    """

    ran: int
    boot: str
    since_boot: int


def save_score(connection: Connection, score: StoredScore, change: ScoreChange | None = None) -> None:
    """Store ``score`` and, where one is given, the change that led to it."""
    insert_or_update(
        connection,
        scores,
        [
            {
                "peer": score.peer,
                "value": score.value,
                "updated": score.updated,
                "ran": score.ran,
                "barred_until": score.barred_until,
                "banned": score.banned,
                "shut_outs": score.shut_outs,
                "bans": score.bans,
                "repeats_until": score.repeats_until,
            }
        ],
    )
    if change is None:
        return
    connection.execute(
        score_ledger.insert().values(
            peer=score.peer,
            at=change.at,
            ran=change.ran,
            change=change.change,
            total=change.total,
            reason=change.reason,
            barred_ms=change.barred_ms,
        )
    )
    newest_to_go = (
        select(score_ledger.c.number)
        .where(score_ledger.c.peer == score.peer)
        .order_by(score_ledger.c.number.desc())
        .offset(KEPT_CHANGES)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(
        delete(score_ledger).where(score_ledger.c.peer == score.peer, score_ledger.c.number <= newest_to_go)
    )


def load_scores(connection: Connection) -> list[StoredScore]:
    """Return every score, in order of the peers' ids."""
    rows = connection.execute(
        select(
            scores.c.peer,
            scores.c.value,
            scores.c.updated,
            scores.c.ran,
            scores.c.barred_until,
            scores.c.banned,
            scores.c.shut_outs,
            scores.c.bans,
            scores.c.repeats_until,
        ).order_by(scores.c.peer)
    )
    return [StoredScore(PeerId(row[0]), *row[1:]) for row in rows]


def load_ledger(connection: Connection, peer: PeerId) -> list[ScoreChange]:
    """Return the kept changes of the score of ``peer``, oldest first."""
    rows = connection.execute(
        select(
            score_ledger.c.at,
            score_ledger.c.ran,
            score_ledger.c.change,
            score_ledger.c.total,
            score_ledger.c.reason,
            score_ledger.c.barred_ms,
        )
        .where(score_ledger.c.peer == peer)
        .order_by(score_ledger.c.number)
    )
    return [ScoreChange(*row) for row in rows]


def prune_scores(connection: Connection, ran: int, keep: int = KEPT_SCORES, keep_bans: int = KEPT_BANS) -> int:
    """Forget all but the ``keep`` newest scores without a ban in force, and the ``keep_bans`` newest with one.

    Bans by the operator go when they have ended.

    Args:
        ran: for how long the node has run, in ms.

    Returns how many went.
    """
    connection.execute(delete(bans).where(bans.c.until <= ran))
    barred = scores.c.barred_until.is_not(None) & (scores.c.barred_until > ran)
    gone = 0
    for kind, kept in ((~barred, keep), (barred, keep_bans)):
        going = select(scores.c.peer).where(kind).order_by(scores.c.updated.desc(), scores.c.peer).offset(kept)
        gone += connection.execute(delete(scores).where(scores.c.peer.in_(going))).rowcount
    return gone


def save_ban(connection: Connection, ban: StoredBan) -> None:
    """Store a ban by the operator, in the place of an earlier one of the same subject."""
    row = {"subject": ban.subject, "until": ban.until, "made": ban.made, "reason": ban.reason}
    insert_or_update(connection, bans, [row])


def delete_ban(connection: Connection, subject: str) -> None:
    """Forget a ban by the operator."""
    connection.execute(delete(bans).where(bans.c.subject == subject))


def load_bans(connection: Connection) -> list[StoredBan]:
    """Return the bans by the operator, in order of their subjects."""
    rows = connection.execute(select(bans.c.subject, bans.c.until, bans.c.made, bans.c.reason).order_by(bans.c.subject))
    return [StoredBan(*row) for row in rows]


def save_running_time(connection: Connection, time: RunningTime) -> None:
    """Store for how long the node has run."""
    row = {"id": 1, "ran": time.ran, "boot": time.boot, "since_boot": time.since_boot}
    insert_or_update(connection, running_time, [row])


def load_running_time(connection: Connection) -> RunningTime:
    """Return for how long the node has run; 0 ms for a new one."""
    row = connection.execute(select(running_time.c.ran, running_time.c.boot, running_time.c.since_boot)).one_or_none()
    return RunningTime(0, "", 0) if row is None else RunningTime(*row)
