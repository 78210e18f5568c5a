"""The tables, as SQLAlchemy Core. ``migrations/versions`` must build exactly these (a test compares them).

Ids, keys and hashes are raw bytes, times are Unix milliseconds, sizes are bytes. Only ``objects`` refers to a
repository by its row number: with 32 bytes more per row the largest table would be twice its size.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Named,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    TypedColumns,
    bindparam,
)

from guts.ids import AuthorId, RepositoryId

REVISION: Final = "0006"
"""The revision that builds these tables."""

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

REPOSITORY: Final[BindParameter[bytes]] = bindparam("of_repository")
"""In a statement that is made once for all repositories: the one that ``of`` names. What a commit asks is made so, as
making a statement takes several times as long as running it."""

AUTHOR: Final[BindParameter[bytes]] = bindparam("of_author")
"""As ``REPOSITORY``, of an author."""


def of(repository: RepositoryId, author: AuthorId | None = None) -> dict[str, Any]:
    """Return what ``REPOSITORY`` and ``AUTHOR`` stand for in one run of a statement."""
    return {REPOSITORY.key: repository} if author is None else {REPOSITORY.key: repository, AUTHOR.key: author}


_ROW_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the type is spelled INTEGER."""


class PeerColumns(TypedColumns):
    """Nodes that were met."""

    id: Named[bytes] = Column(LargeBinary, primary_key=True)
    last_seen: Named[int] = Column(BigInteger, index=True)
    capabilities: Named[str] = Column(Text)
    record: Named[bytes | None] = Column(LargeBinary)


peers: Final = Table("peers", metadata, PeerColumns)


class AddressColumns(TypedColumns):
    """Where peers were said, or found, to be."""

    peer: Named[bytes] = Column(LargeBinary, ForeignKey("peers.id", ondelete="CASCADE"))
    ip: Named[str] = Column(Text)
    port: Named[int] = Column(Integer)
    transport: Named[str] = Column(Text)
    last_good: Named[int | None] = Column(BigInteger, index=True)
    failures: Named[int] = Column(Integer)


addresses: Final = Table("addresses", metadata, AddressColumns, PrimaryKeyConstraint("peer", "ip", "port", "transport"))


class ScoreColumns(TypedColumns):
    """The current fault value of a peer; outlives its row in ``peers``, as a ban must.

    ``ran``, ``barred_until`` and ``repeats_until`` are milliseconds of the node's running time; ``updated`` is what the
    clock said, for people. ``banned``: what ends at ``barred_until`` is a ban, not only a shut-out.
    """

    peer: Named[bytes] = Column(LargeBinary, primary_key=True)
    value: Named[float] = Column(Float(53))
    updated: Named[int] = Column(BigInteger, index=True)
    ran: Named[int] = Column(BigInteger)
    barred_until: Named[int | None] = Column(BigInteger)
    banned: Named[bool] = Column(Boolean)
    shut_outs: Named[int] = Column(Integer)
    bans: Named[int] = Column(Integer)
    repeats_until: Named[int] = Column(BigInteger)


scores: Final = Table("scores", metadata, ScoreColumns)


class LedgerColumns(TypedColumns):
    """Why a score is what it is: one row per change, with what it came to and how long it bars the peer (ms)."""

    number: Named[int] = Column(_ROW_NUMBER, primary_key=True, autoincrement=True)
    peer: Named[bytes] = Column(LargeBinary, ForeignKey("scores.peer", ondelete="CASCADE"), index=True)
    at: Named[int] = Column(BigInteger)
    ran: Named[int] = Column(BigInteger)
    change: Named[float] = Column(Float(53))
    total: Named[float] = Column(Float(53))
    reason: Named[str] = Column(Text)
    barred_ms: Named[int] = Column(BigInteger)


score_ledger: Final = Table("score_ledger", metadata, LedgerColumns)


class BanColumns(TypedColumns):
    """Bans by the operator, of a peer's id or of a network; ``until`` is of the running time, NULL: for good."""

    subject: Named[str] = Column(Text, primary_key=True)
    until: Named[int | None] = Column(BigInteger)
    made: Named[int] = Column(BigInteger)
    reason: Named[str] = Column(Text)


bans: Final = Table("bans", metadata, BanColumns)


class RunningTimeColumns(TypedColumns):
    """For how long this node has run, all its runs together, in ms: one row, number 1.

    ``boot`` names the start of the machine in which that was written, at ``since_boot`` ms of it.
    """

    id: Named[int] = Column(SmallInteger, primary_key=True, autoincrement=False)
    ran: Named[int] = Column(BigInteger)
    boot: Named[str] = Column(Text)
    since_boot: Named[int] = Column(BigInteger)


running_time: Final = Table("running_time", metadata, RunningTimeColumns)


class RepositoryColumns(TypedColumns):
    """Repositories that are held here."""

    number: Named[int] = Column(_ROW_NUMBER, primary_key=True, autoincrement=True)
    id: Named[bytes] = Column(LargeBinary, unique=True)
    name: Named[str] = Column(Text)
    description: Named[str] = Column(Text)
    epoch: Named[int] = Column(BigInteger)
    identity_hash: Named[bytes] = Column(LargeBinary)
    head: Named[str | None] = Column(Text)
    seeding: Named[bool] = Column(Boolean)
    generation: Named[int] = Column(BigInteger)
    projected: Named[bool] = Column(Boolean, index=True)
    created: Named[int] = Column(BigInteger)
    updated: Named[int] = Column(BigInteger)
    size: Named[int] = Column(BigInteger)


repositories: Final = Table("repositories", metadata, RepositoryColumns)


class IdentityDocumentColumns(TypedColumns):
    """The identity chain of each repository."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    epoch: Named[int] = Column(BigInteger)
    hash: Named[bytes] = Column(LargeBinary)
    encoded: Named[bytes] = Column(LargeBinary)


identity_documents: Final = Table(
    "identity_documents", metadata, IdentityDocumentColumns, PrimaryKeyConstraint("repository", "epoch")
)


class SignedRefsColumns(TypedColumns):
    """The newest record of each author that counts."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    author: Named[bytes] = Column(LargeBinary)
    seq: Named[int] = Column(BigInteger)
    hash: Named[bytes] = Column(LargeBinary)
    header: Named[bytes] = Column(LargeBinary)
    entries: Named[bytes] = Column(LargeBinary)


signed_refs: Final = Table("signed_refs", metadata, SignedRefsColumns, PrimaryKeyConstraint("repository", "author"))


class KeptRecordColumns(TypedColumns):
    """Headers of authors that do not count now: they prove a chain, bridge gaps of others, and may count again.

    Where the entries are kept too, ``delta`` makes them of those of the record ``base`` (empty: of nothing).
    """

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    author: Named[bytes] = Column(LargeBinary)
    seq: Named[int] = Column(BigInteger)
    hash: Named[bytes] = Column(LargeBinary)
    header: Named[bytes] = Column(LargeBinary)
    base: Named[bytes | None] = Column(LargeBinary)
    delta: Named[bytes | None] = Column(LargeBinary)


kept_records: Final = Table(
    "kept_records", metadata, KeptRecordColumns, PrimaryKeyConstraint("repository", "author", "seq", "hash")
)


class EquivocationColumns(TypedColumns):
    """Proof that an author signed two histories: one for each author, of the earliest split."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    author: Named[bytes] = Column(LargeBinary)
    split: Named[int] = Column(BigInteger)
    encoded: Named[bytes] = Column(LargeBinary)


equivocations: Final = Table(
    "equivocations", metadata, EquivocationColumns, PrimaryKeyConstraint("repository", "author")
)


class IdentityForkColumns(TypedColumns):
    """A second valid document of one epoch of a repository's identity, which the chain held here does not have."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True)
    epoch: Named[int] = Column(BigInteger)
    encoded: Named[bytes] = Column(LargeBinary)


identity_forks: Final = Table("identity_forks", metadata, IdentityForkColumns)


class ReceiptColumns(TypedColumns):
    """Other nodes' signed word that they committed a record: of each node and author the newest."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    author: Named[bytes] = Column(LargeBinary)
    peer: Named[bytes] = Column(LargeBinary)
    seq: Named[int] = Column(BigInteger)
    hash: Named[bytes] = Column(LargeBinary)
    time: Named[int] = Column(BigInteger)
    encoded: Named[bytes] = Column(LargeBinary)


receipts: Final = Table("receipts", metadata, ReceiptColumns, PrimaryKeyConstraint("repository", "author", "peer"))


class SeedingColumns(TypedColumns):
    """Why repositories are seeded, where that is not by an explicit wish, or are not; and when they are to be removed.

    ``reason``: ``owner``, ``topic``, or as in ``guts.store.seeding``: unseeded by the operator, or to be
    removed. A row outlives its repository: what was declined stays away.
    """

    repository: Named[bytes] = Column(LargeBinary, primary_key=True)
    reason: Named[str] = Column(Text)
    since: Named[int] = Column(BigInteger)
    remove_at: Named[int | None] = Column(BigInteger)


seeding: Final = Table("seeding", metadata, SeedingColumns)


class FollowedAuthorColumns(TypedColumns):
    """Authors whose repositories are seeded."""

    author: Named[bytes] = Column(LargeBinary, primary_key=True)
    since: Named[int] = Column(BigInteger)


followed_authors: Final = Table("followed_authors", metadata, FollowedAuthorColumns)


class BlockColumns(TypedColumns):
    """What is never taken: ``kind`` is ``repository`` or ``author``."""

    kind: Named[str] = Column(Text)
    id: Named[bytes] = Column(LargeBinary)
    since: Named[int] = Column(BigInteger)


blocks: Final = Table("blocks", metadata, BlockColumns, PrimaryKeyConstraint("kind", "id"))


class CanonicalRefColumns(TypedColumns):
    """What the maintainers' records add up to; git's ``packed-refs`` is its projection."""

    repository: Named[bytes] = Column(LargeBinary, ForeignKey("repositories.id", ondelete="CASCADE"))
    ref: Named[str] = Column(Text)
    oid: Named[bytes] = Column(LargeBinary)


canonical_refs: Final = Table(
    "canonical_refs", metadata, CanonicalRefColumns, PrimaryKeyConstraint("repository", "ref")
)


class ObjectColumns(TypedColumns):
    """Metadata of every git object: type (1 commit, 2 tree, 3 blob, 4 tag, as in packs) and size."""

    repository: Named[int] = Column(_ROW_NUMBER, ForeignKey("repositories.number", ondelete="CASCADE"))
    id: Named[bytes] = Column(LargeBinary)
    type: Named[int] = Column(SmallInteger)
    size: Named[int] = Column(BigInteger)


objects: Final = Table(
    "objects",
    metadata,
    ObjectColumns,
    PrimaryKeyConstraint("repository", "id"),
    CheckConstraint("type BETWEEN 1 AND 4", name="type"),
    # The primary key is nearly the whole row: no second copy of it.
    sqlite_with_rowid=False,
)


class ListedPackColumns(TypedColumns):
    """Packs whose objects are all in ``objects``."""

    repository: Named[int] = Column(_ROW_NUMBER, ForeignKey("repositories.number", ondelete="CASCADE"))
    pack: Named[str] = Column(Text)


listed_packs: Final = Table("listed_packs", metadata, ListedPackColumns, PrimaryKeyConstraint("repository", "pack"))


class ProviderRecordColumns(TypedColumns):
    """Signed records that this node holds for the DHT."""

    key: Named[bytes] = Column(LargeBinary)
    publisher: Named[bytes] = Column(LargeBinary)
    seq: Named[int] = Column(BigInteger)
    expires: Named[int] = Column(BigInteger)
    encoded: Named[bytes] = Column(LargeBinary)
    source: Named[str] = Column(Text)


provider_records: Final = Table(
    "provider_records",
    metadata,
    ProviderRecordColumns,
    PrimaryKeyConstraint("key", "publisher"),
    Index("ix_provider_records_expires", "expires"),
)


class ContactColumns(TypedColumns):
    """The routing table as it was when it was last written: nodes that had proven themselves."""

    peer: Named[bytes] = Column(LargeBinary, primary_key=True)
    ip: Named[str] = Column(Text)
    port: Named[int] = Column(Integer)
    last_seen: Named[int] = Column(BigInteger)


dht_contacts: Final = Table("dht_contacts", metadata, ContactColumns)
