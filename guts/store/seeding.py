"""The operator's choices: why repositories are seeded, what is to be removed, who is followed, what is blocked.

Of what is seeded by an explicit wish there is no row: that is how repositories came before there were other reasons,
and how they come back where the database is lost. Times are Unix milliseconds.
"""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection, bindparam, delete, select, update

from guts.ids import AuthorId, RepositoryId
from guts.store.dialect import insert_or_ignore, insert_or_update
from guts.store.schema import REPOSITORY, blocks, followed_authors, of, repositories, seeding

EXPLICIT: Final = "explicit"
DECLINED: Final = "declined"
"""The operator does not want it: no policy brings it back."""

DROPPED: Final = "dropped"
"""It is not seeded any more, and may come back by any policy."""

DROPPED_EXPLICIT: Final = "dropped-explicit"
"""As ``DROPPED``, of what was seeded by an explicit wish, which stands again once nothing is in its way."""

_REPOSITORY: Final = "repository"
_AUTHOR: Final = "author"

_DELETE: Final = delete(seeding).where(seeding.c.repository == REPOSITORY)
_SELECT_REMOVAL: Final = select(seeding.c.remove_at).where(
    seeding.c.repository == REPOSITORY, seeding.c.reason == bindparam("of_reason")
)


@final
@dataclass(frozen=True, slots=True)
class StoredSeeding:
    """What is known of one repository, held or not.

    Attributes:
        reason: see ``SeedingColumns``.
        remove_at: when it is to be removed from the disk, or ``None``.
    """

    repository: RepositoryId
    reason: str
    since: int
    remove_at: int | None


def keep(connection: Connection, repository: RepositoryId, reason: str, now_ms: int) -> None:
    """Note why ``repository`` is seeded; it is not to be removed any more."""
    if reason == EXPLICIT:
        connection.execute(_DELETE, of(repository))
        return
    row = {"repository": repository, "reason": reason, "since": now_ms, "remove_at": None}
    known = connection.execute(_SELECT_REMOVAL, {**of(repository), "of_reason": reason}).one_or_none()
    if known is None or known.remove_at is not None:
        insert_or_update(connection, seeding, [row])


def drop(
    connection: Connection, repository: RepositoryId, reason: str, now_ms: int, remove_at: int | None
) -> int | None:
    """Note that ``repository`` is not seeded any more; return when it is to be removed: an earlier time stays.

    Args:
        reason: ``DECLINED`` or ``DROPPED``; what was declined stays so, and an explicit wish is remembered.
        remove_at: ``None``: not by this.
    """
    row = connection.execute(select(seeding).where(seeding.c.repository == repository)).one_or_none()
    if row is not None and row.reason in (DECLINED, DROPPED, DROPPED_EXPLICIT):
        times = [time for time in (row.remove_at, remove_at) if time is not None]
        reason = DECLINED if DECLINED in (row.reason, reason) else row.reason
        remove_at = min(times, default=None)
    elif row is None and reason == DROPPED and remove_at is not None:
        reason = DROPPED_EXPLICIT
    new = {"repository": repository, "reason": reason, "since": now_ms, "remove_at": remove_at}
    insert_or_update(connection, seeding, [new])
    connection.execute(update(repositories).where(repositories.c.id == repository).values(seeding=False))
    return remove_at


def load_dropped(connection: Connection) -> dict[RepositoryId, bool]:
    """Return what is here still and may come back, and whether it was seeded by an explicit wish."""
    rows = connection.execute(
        select(seeding.c.repository, seeding.c.reason)
        .join(repositories, repositories.c.id == seeding.c.repository)
        .where(seeding.c.reason.in_((DROPPED, DROPPED_EXPLICIT)))
        .order_by(seeding.c.repository)
    )
    return {RepositoryId(row.repository): row.reason == DROPPED_EXPLICIT for row in rows}


def load(connection: Connection) -> list[StoredSeeding]:
    """Return what is known, in order of the repositories' ids."""
    rows = connection.execute(select(seeding).order_by(seeding.c.repository))
    return [StoredSeeding(RepositoryId(row.repository), row.reason, row.since, row.remove_at) for row in rows]


def is_to_be_removed(connection: Connection, repository: RepositoryId) -> bool:
    """Tell whether ``repository`` is to be removed at some time, and is not seeded again."""
    row = connection.execute(
        select(seeding.c.remove_at).where(seeding.c.repository == repository, seeding.c.remove_at.is_not(None))
    ).one_or_none()
    return row is not None


def removed(connection: Connection, repository: RepositoryId) -> None:
    """Forget ``repository`` with all that belongs to it, but that it was declined."""
    connection.execute(delete(repositories).where(repositories.c.id == repository))
    mine = seeding.c.repository == repository
    connection.execute(delete(seeding).where(mine, seeding.c.reason != DECLINED))
    connection.execute(update(seeding).where(mine).values(remove_at=None))


def follow(connection: Connection, author: AuthorId, now_ms: int) -> bool:
    """Follow ``author``; tell whether that is new."""
    new = author not in load_followed(connection)
    insert_or_ignore(connection, followed_authors, [{"author": author, "since": now_ms}])
    return new


def unfollow(connection: Connection, author: AuthorId) -> bool:
    """Follow ``author`` no longer; tell whether that was so before."""
    return connection.execute(delete(followed_authors).where(followed_authors.c.author == author)).rowcount == 1


def load_followed(connection: Connection) -> dict[AuthorId, int]:
    """Return who is followed, and since when."""
    rows = connection.execute(select(followed_authors).order_by(followed_authors.c.since, followed_authors.c.author))
    return {AuthorId(row.author): row.since for row in rows}


def block(connection: Connection, who: RepositoryId | AuthorId, now_ms: int) -> bool:
    """Put ``who`` on the block list; tell whether that is new."""
    new = who not in load_blocked(connection)
    insert_or_ignore(connection, blocks, [{"kind": _kind(who), "id": who, "since": now_ms}])
    return new


def unblock(connection: Connection, who: RepositoryId | AuthorId) -> bool:
    """Take ``who`` off the block list; tell whether it was on it."""
    mine = (blocks.c.kind == _kind(who)) & (blocks.c.id == who)
    return connection.execute(delete(blocks).where(mine)).rowcount == 1


def load_blocked(connection: Connection) -> dict[RepositoryId | AuthorId, int]:
    """Return what is blocked, and since when."""
    rows = connection.execute(select(blocks).order_by(blocks.c.since, blocks.c.id))
    return {(RepositoryId(row.id) if row.kind == _REPOSITORY else AuthorId(row.id)): row.since for row in rows}


def _kind(who: RepositoryId | AuthorId) -> str:
    return _REPOSITORY if isinstance(who, RepositoryId) else _AUTHOR
