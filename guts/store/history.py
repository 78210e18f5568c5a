"""Records of authors that do not count now, as headers and reverse deltas; and proofs of equivocation.

A record that a newer one replaces is kept as a delta to it (``guts.trust.deltas`` makes them; here they are bytes).
The newest record is whole, so that an older one is made by a chain of deltas from there. A record that counts again
leaves the chain: it is whole then, and the one that it replaces is a delta to it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection, bindparam, delete, func, select, update

from guts.ids import AuthorId, RepositoryId
from guts.store.dialect import insert_or_ignore, insert_or_update
from guts.store.schema import AUTHOR, REPOSITORY, equivocations, identity_forks, kept_records, of

KEPT_RECORDS: Final = 1_000
"""Headers kept per author, so that a replica that missed as many can still check the chain."""

KEPT_BYTES: Final = 64 * 1024 * 1024
"""Deltas kept per author; older records are headers only. A push that moves a few refs takes some hundred bytes; who
changes 5,000 at a time fills no disk of others."""

_MINE: Final = (kept_records.c.repository == REPOSITORY) & (kept_records.c.author == AUTHOR)
_THIS: Final = _MINE & (kept_records.c.hash == bindparam("of_hash"))
_SIZE: Final = func.coalesce(func.length(kept_records.c.delta), 0)
_HEADER: Final = (kept_records.c.seq, kept_records.c.hash, kept_records.c.header)
_OLDEST_FIRST: Final = (kept_records.c.seq, kept_records.c.hash)

_DELETE_RECORD: Final = delete(kept_records).where(_THIS)
_SELECT_TOTALS: Final = select(func.count().label("records"), func.sum(_SIZE).label("bytes")).where(_MINE)
_SELECT_HEADERS: Final = (
    select(*_HEADER).where(_MINE, kept_records.c.seq > bindparam("above_seq")).order_by(*_OLDEST_FIRST)
)
_SELECT_HEADER: Final = select(*_HEADER).where(_THIS)
_SELECT_KEPT: Final = select(*_HEADER, kept_records.c.base).where(_MINE).order_by(*_OLDEST_FIRST)
_SELECT_DELTA: Final = select(kept_records.c.base, kept_records.c.delta).where(_THIS)
_SELECT_PROOFS: Final = (
    select(equivocations.c.author, equivocations.c.split, equivocations.c.encoded)
    .where(equivocations.c.repository == REPOSITORY)
    .order_by(equivocations.c.author)
)
_INSERT_PROOFS: Final = equivocations.insert()
_DELETE_PROOFS: Final = delete(equivocations).where(equivocations.c.repository == REPOSITORY)
_SELECT_FORK: Final = select(identity_forks.c.epoch, identity_forks.c.encoded).where(
    identity_forks.c.repository == REPOSITORY
)


@final
@dataclass(frozen=True, slots=True)
class Header:
    """An accepted header of an author, without its entries.

    Attributes:
        hash: its 32-byte record hash.
        encoded: the signed bytes.
    """

    author: AuthorId
    seq: int
    hash: bytes
    encoded: bytes


@final
@dataclass(frozen=True, slots=True)
class KeptRecord:
    """A header, perhaps with its entries.

    Attributes:
        base: hash of the record that ``delta`` applies to; empty: to nothing; ``None``: the entries are not kept.
        delta: makes the entries.
    """

    header: Header
    base: bytes | None = None
    delta: bytes | None = None


@final
@dataclass(frozen=True, slots=True)
class Equivocation:
    """Proof that an author signed two histories.

    Attributes:
        split: records of the author from this seq on are on one of several branches.
        encoded: the proof.
    """

    author: AuthorId
    split: int
    encoded: bytes


@final
@dataclass(frozen=True, slots=True)
class IdentityFork:
    """A second valid identity document of an epoch.

    Attributes:
        epoch: ≥ 1; all repositories of one id have one genesis.
        encoded: the signed document.
    """

    epoch: int
    encoded: bytes


def keep(
    connection: Connection,
    repository: RepositoryId,
    author: AuthorId,
    records: Sequence[KeptRecord],
    newest: bytes | None,
) -> None:
    """Keep ``records``, but for that of hash ``newest``, which is whole elsewhere; forget what is too much."""
    key = {"repository": repository, "author": author}
    rows = [
        {
            **key,
            "seq": record.header.seq,
            "hash": record.header.hash,
            "header": record.header.encoded,
            "base": record.base,
            "delta": record.delta,
        }
        for record in records
    ]
    # A bridging header says less than what is kept of that record already; a record that was whole says all.
    insert_or_ignore(connection, kept_records, [row for row in rows if row["base"] is None])
    insert_or_update(connection, kept_records, [row for row in rows if row["base"] is not None])
    if newest is not None:
        connection.execute(_DELETE_RECORD, {**of(repository, author), "of_hash": newest})
    _prune(connection, repository, author)


def _prune(connection: Connection, repository: RepositoryId, author: AuthorId) -> None:
    kept = connection.execute(_SELECT_TOTALS, of(repository, author)).one()
    if kept.records <= KEPT_RECORDS and (kept.bytes or 0) <= KEPT_BYTES:
        return
    mine = (kept_records.c.repository == repository) & (kept_records.c.author == author)
    total = 0
    for place, row in enumerate(
        connection.execute(
            select(kept_records.c.seq, kept_records.c.hash, _SIZE.label("size"))
            .where(mine)
            .order_by(kept_records.c.seq.desc(), kept_records.c.hash)
        ).all()
    ):
        total += int(row.size)
        too_many, too_large = place >= KEPT_RECORDS, row.size and total > KEPT_BYTES
        if not too_many and not too_large:
            # Most rows stay: an expression for each of a thousand would take longer than the whole commit.
            continue
        this = mine & (kept_records.c.seq == row.seq) & (kept_records.c.hash == row.hash)
        if too_many:
            connection.execute(delete(kept_records).where(this))
        else:
            connection.execute(update(kept_records).where(this).values(base=None, delta=None))


def replace_proofs(connection: Connection, repository: RepositoryId, proofs: Iterable[Equivocation]) -> None:
    """Keep ``proofs``, and no others."""
    connection.execute(_DELETE_PROOFS, of(repository))
    rows = [
        {"repository": repository, "author": proof.author, "split": proof.split, "encoded": proof.encoded}
        for proof in proofs
    ]
    if rows:
        connection.execute(_INSERT_PROOFS, rows)


def keep_fork(connection: Connection, repository: RepositoryId, fork: IdentityFork) -> None:
    """Keep ``fork``, unless another one is kept already."""
    row = {"repository": repository, "epoch": fork.epoch, "encoded": fork.encoded}
    insert_or_ignore(connection, identity_forks, [row])


def load_fork(connection: Connection, repository: RepositoryId) -> IdentityFork | None:
    """Return the second document that is kept, if one is."""
    row = connection.execute(_SELECT_FORK, of(repository)).one_or_none()
    return None if row is None else IdentityFork(*row)


def load_headers(
    connection: Connection, repository: RepositoryId, author: AuthorId, *, above_seq: int = -1
) -> tuple[Header, ...]:
    """Return the kept headers of ``author`` with a seq above ``above_seq``, oldest first."""
    rows = connection.execute(_SELECT_HEADERS, {**of(repository, author), "above_seq": above_seq})
    return tuple(Header(author, *row) for row in rows)


def load_header(connection: Connection, repository: RepositoryId, author: AuthorId, record: bytes) -> Header | None:
    """Return the kept header with this hash; ``None`` where there is none."""
    row = connection.execute(_SELECT_HEADER, {**of(repository, author), "of_hash": record}).one_or_none()
    return None if row is None else Header(author, *row)


def load_kept(connection: Connection, repository: RepositoryId, author: AuthorId) -> tuple[KeptRecord, ...]:
    """Return what is kept of ``author``, oldest first; deltas are left out, ``base`` tells whether there is one."""
    rows = connection.execute(_SELECT_KEPT, of(repository, author))
    return tuple(KeptRecord(Header(author, seq, digest, header), base) for seq, digest, header, base in rows)


def load_delta(
    connection: Connection, repository: RepositoryId, author: AuthorId, record: bytes
) -> tuple[bytes, bytes] | None:
    """Return (base, delta) of the record with this hash; ``None`` where its entries are not kept."""
    row = connection.execute(_SELECT_DELTA, {**of(repository, author), "of_hash": record}).one_or_none()
    return None if row is None or row.base is None or row.delta is None else (row.base, row.delta)


def load_proofs(connection: Connection, repository: RepositoryId) -> tuple[Equivocation, ...]:
    """Return the proofs about authors of ``repository``, by author."""
    rows = connection.execute(_SELECT_PROOFS, of(repository))
    return tuple(Equivocation(AuthorId(author), split, encoded) for author, split, encoded in rows)
