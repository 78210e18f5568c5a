"""Fault scores and bans, and the ledger that explains them to the operator."""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection, delete, select

from guts.ids import PeerId
from guts.store.dialect import insert_or_update
from guts.store.schema import score_ledger, scores

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
        value: as it was at ``updated``; it decays from there.
        updated: Unix milliseconds.
        banned_until: Unix milliseconds.
    """

    peer: PeerId
    value: float
    updated: int
    banned_until: int | None = None


@final
@dataclass(frozen=True, slots=True)
class ScoreChange:
    """One row of the ledger.

    Attributes:
        at: Unix milliseconds.
        change: what was added to the score.
        reason: code of the fault.
    """

    at: int
    change: float
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Ban:
    """A ban that is in force.

    Attributes:
        remaining_ms: until it ends.
    """

    peer: PeerId
    remaining_ms: int


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
                "banned_until": score.banned_until,
            }
        ],
    )
    if change is None:
        return
    connection.execute(
        score_ledger.insert().values(peer=score.peer, at=change.at, change=change.change, reason=change.reason)
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
        select(scores.c.peer, scores.c.value, scores.c.updated, scores.c.banned_until).order_by(scores.c.peer)
    )
    return [StoredScore(PeerId(peer), value, updated, until) for peer, value, updated, until in rows]


def load_ledger(connection: Connection, peer: PeerId) -> list[ScoreChange]:
    """Return the kept changes of the score of ``peer``, oldest first."""
    rows = connection.execute(
        select(score_ledger.c.at, score_ledger.c.change, score_ledger.c.reason)
        .where(score_ledger.c.peer == peer)
        .order_by(score_ledger.c.number)
    )
    return [ScoreChange(at, change, reason) for at, change, reason in rows]


def load_bans(connection: Connection, now_ms: int) -> list[Ban]:
    """Return the bans in force, the one that ends first first."""
    rows = connection.execute(
        select(scores.c.peer, scores.c.banned_until)
        .where(scores.c.banned_until > now_ms)
        .order_by(scores.c.banned_until, scores.c.peer)
    )
    return [Ban(PeerId(peer), until - now_ms) for peer, until in rows if until is not None]


def prune_scores(connection: Connection, now_ms: int, keep: int = KEPT_SCORES, keep_bans: int = KEPT_BANS) -> int:
    """Forget all but the ``keep`` newest scores without a ban in force, and the ``keep_bans`` newest with one.

    Returns how many went.
    """
    banned = scores.c.banned_until.is_not(None) & (scores.c.banned_until > now_ms)
    gone = 0
    for kind, kept in ((~banned, keep), (banned, keep_bans)):
        going = select(scores.c.peer).where(kind).order_by(scores.c.updated.desc(), scores.c.peer).offset(kept)
        gone += connection.execute(delete(scores).where(scores.c.peer.in_(going))).rowcount
    return gone
