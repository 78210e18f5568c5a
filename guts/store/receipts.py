"""Receipts of other nodes: who said that it committed which record, of each node and author the newest one.

What is here says nothing about what is accepted; it tells a publisher how far a record has come.
"""

from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, select

from guts.ids import AuthorId, PeerId, RepositoryId
from guts.store.dialect import insert_or_update
from guts.store.history import Header
from guts.store.schema import AUTHOR, REPOSITORY, of, receipts, repositories, signed_refs

KEPT_RECEIPTS: Final = 64
"""Receipts kept per author of a repository, those for the newest records: node keys cost nothing to make. Of two for
one record the one that came first stays, so that whoever makes more keys pushes out nobody."""

# Made once: a push brings one receipt from every replica.
_MINE: Final = (receipts.c.repository == REPOSITORY) & (receipts.c.author == AUTHOR)
_PEER: Final[BindParameter[bytes]] = bindparam("of_peer")
_SELECT_HELD: Final = select(repositories.c.number).where(repositories.c.id == REPOSITORY)
_SELECT_BEFORE: Final = select(receipts.c.seq).where(_MINE, receipts.c.peer == _PEER)
_COUNT_OTHERS: Final = select(func.count()).where(
    _MINE, receipts.c.peer != _PEER, receipts.c.seq >= bindparam("of_seq")
)
# At most one is too many, and it is not this one.
_DELETE_OLDEST: Final = delete(receipts).where(
    _MINE,
    receipts.c.peer.in_(
        select(receipts.c.peer)
        .where(_MINE, receipts.c.peer != _PEER)
        .order_by(receipts.c.seq.desc(), receipts.c.time, receipts.c.peer)
        .offset(KEPT_RECEIPTS - 1)
    ),
)


@final
@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt whose signature was checked before it came here.

    Attributes:
        seq, hash: of the author's record.
        time_ms: when the peer says that it committed the record; Unix milliseconds.
        encoded: the signed bytes.
    """

    repository: RepositoryId
    author: AuthorId
    peer: PeerId
    seq: int
    hash: bytes
    time_ms: int
    encoded: bytes


def keep(connection: Connection, receipt: StoredReceipt) -> bool:
    """Keep ``receipt`` in the place of an older one of its peer; tell whether it was kept.

    It is not where the repository is gone, where that peer has confirmed as new a record already, and where
    ``KEPT_RECEIPTS`` others have.
    """
    if connection.execute(_SELECT_HELD, of(receipt.repository)).one_or_none() is None:
        return False
    mine = {**of(receipt.repository, receipt.author), "of_peer": receipt.peer}
    before = connection.execute(_SELECT_BEFORE, mine).scalar()
    others = connection.execute(_COUNT_OTHERS, {**mine, "of_seq": receipt.seq}).scalar_one()
    if (before is not None and before >= receipt.seq) or others >= KEPT_RECEIPTS:
        return False
    insert_or_update(
        connection,
        receipts,
        [
            {
                "repository": receipt.repository,
                "author": receipt.author,
                "peer": receipt.peer,
                "seq": receipt.seq,
                "hash": receipt.hash,
                "time": receipt.time_ms,
                "encoded": receipt.encoded,
            }
        ],
    )
    connection.execute(_DELETE_OLDEST, mine)
    return True


def load(connection: Connection, repository: RepositoryId) -> list[StoredReceipt]:
    """Return the receipts about ``repository``, by author, then the newest record first."""
    rows = connection.execute(
        select(
            receipts.c.author,
            receipts.c.peer,
            receipts.c.seq,
            receipts.c.hash,
            receipts.c.time,
            receipts.c.encoded,
        )
        .where(receipts.c.repository == repository)
        .order_by(receipts.c.author, receipts.c.seq.desc(), receipts.c.time, receipts.c.peer)
    )
    return [
        StoredReceipt(repository, AuthorId(author), PeerId(peer), seq, digest, time, encoded)
        for author, peer, seq, digest, time, encoded in rows
    ]


def load_headers(connection: Connection, repository: RepositoryId) -> list[Header]:
    """Return the header of each author's newest record that counts, by author: what receipts are compared with."""
    rows = connection.execute(
        select(signed_refs.c.author, signed_refs.c.seq, signed_refs.c.hash, signed_refs.c.header)
        .where(signed_refs.c.repository == repository)
        .order_by(signed_refs.c.author)
    )
    return [Header(AuthorId(author), seq, digest, header) for author, seq, digest, header in rows]
