"""Repositories: what was accepted, committed in one step, and read back at start or on demand.

``commit`` is the commit point of the whole node (ARCHITECTURE.md): before it the objects are in place and
nothing speaks of them, after it the state is accepted, whatever happens to the projection into git's
``packed-refs``. Each commit raises the repository's *generation*; ``mark_projected``
names the generation it wrote, so that a projection that was overtaken is never taken for the newest.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, Row, bindparam, delete, select, update

from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.store import history
from guts.store import seeding as seeding_table
from guts.store.accepted import (
    AcceptedState,
    Conflict,
    IdentityDocument,
    NewSignedRefs,
    NotHeld,
    RepositorySummary,
    SignedRefs,
    StoredRepository,
)
from guts.store.history import Equivocation, IdentityFork
from guts.store.schema import (
    AUTHOR,
    REPOSITORY,
    canonical_refs,
    equivocations,
    identity_documents,
    identity_forks,
    of,
    repositories,
    signed_refs,
)
from guts.store.seeding import EXPLICIT

_HERE: Final = repositories.c.id == REPOSITORY
_THEIRS: Final = signed_refs.c.repository == REPOSITORY
_MINE: Final = _THEIRS & (signed_refs.c.author == AUTHOR)

_SELECT_SUMMARY: Final = select(repositories).where(_HERE)
_SELECT_PLACE: Final = select(repositories.c.epoch, repositories.c.generation).where(_HERE)
_SELECT_GENERATION: Final = select(repositories.c.generation).where(_HERE)
_UPDATE_REPOSITORY: Final = update(repositories).where(_HERE)
_MARK_PROJECTED: Final = (
    update(repositories).where(_HERE, repositories.c.generation == bindparam("of_generation")).values(projected=True)
)
_DELETE_REPOSITORY: Final = delete(repositories).where(_HERE)
_SELECT_AUTHORS: Final = select(signed_refs.c.author, signed_refs.c.seq, signed_refs.c.hash).where(_THEIRS)
_SELECT_NEWEST: Final = select(
    signed_refs.c.author, signed_refs.c.seq, signed_refs.c.hash, signed_refs.c.header, signed_refs.c.entries
)
_SELECT_ALL_NEWEST: Final = _SELECT_NEWEST.where(_THEIRS).order_by(signed_refs.c.author)
_SELECT_NEWEST_OF: Final = _SELECT_NEWEST.where(_MINE)
_SELECT_NEWEST_HEADER: Final = select(signed_refs.c.seq, signed_refs.c.hash, signed_refs.c.header).where(_MINE)
_INSERT_NEWEST: Final = signed_refs.insert()
_DELETE_NEWEST: Final = delete(signed_refs).where(_MINE)
_SELECT_DOCUMENTS: Final = (
    select(identity_documents.c.epoch, identity_documents.c.hash, identity_documents.c.encoded)
    .where(identity_documents.c.repository == REPOSITORY, identity_documents.c.epoch >= bindparam("from_epoch"))
    .order_by(identity_documents.c.epoch)
)
_SELECT_CANONICAL: Final = select(canonical_refs.c.ref, canonical_refs.c.oid).where(
    canonical_refs.c.repository == REPOSITORY
)
_INSERT_CANONICAL: Final = canonical_refs.insert()
_DELETE_CANONICAL: Final = delete(canonical_refs).where(canonical_refs.c.repository == REPOSITORY)


def commit(connection: Connection, state: AcceptedState) -> int:
    """Commit ``state`` and return the repository's new generation; its projection is then due.

    Raises:
        Conflict: an author's record, the identity chain, or any of it, is no longer what ``state`` was checked against.
    """
    generation = _commit_identity(connection, state)
    if state.seeding:
        seeding_table.keep(connection, state.repository, state.reason, state.now_ms)
    for new in state.signed_refs:
        _replace_signed_refs(connection, state.repository, new)
    history.replace_proofs(connection, state.repository, state.equivocations)
    if state.fork is not None:
        history.keep_fork(connection, state.repository, state.fork)
    connection.execute(_DELETE_CANONICAL, of(state.repository))
    if state.canonical:
        key = {"repository": state.repository}
        connection.execute(_INSERT_CANONICAL, [{**key, "ref": ref, "oid": oid} for ref, oid in state.canonical.items()])
    return generation


def committed(connection: Connection, state: AcceptedState) -> RepositorySummary:
    """Commit ``state`` and return what stays in memory of its repository. Raises: as ``commit``."""
    commit(connection, state)
    return load_summary(connection, state.repository)


def _commit_identity(connection: Connection, state: AcceptedState) -> int:
    row = connection.execute(_SELECT_PLACE, of(state.repository)).one_or_none()
    if state.generation is not None and state.generation != (0 if row is None else row.generation):
        raise Conflict("something else was committed meanwhile")
    expected = 0 if row is None else row.epoch + 1
    for document in state.documents:
        if document.epoch != expected:
            raise Conflict(f"identity document {document.epoch} came where {expected} was next")
        expected += 1
    values: dict[str, object] = {
        "name": state.name,
        "description": state.description,
        "head": state.head,
        "seeding": state.seeding,
        "generation": 1 if row is None else row.generation + 1,
        "projected": False,
        "updated": state.now_ms,
        "size": state.size,
    }
    if state.documents:
        values["epoch"] = state.documents[-1].epoch
        values["identity_hash"] = state.documents[-1].hash
    elif row is None:
        raise Conflict("the repository is no longer held here")
    if row is None:
        connection.execute(repositories.insert().values(id=state.repository, created=state.now_ms, **values))
    else:
        connection.execute(_UPDATE_REPOSITORY, {**of(state.repository), **values})
    if state.documents:
        connection.execute(
            identity_documents.insert(),
            [
                {"repository": state.repository, "epoch": d.epoch, "hash": d.hash, "encoded": d.encoded}
                for d in state.documents
            ],
        )
    return 1 if row is None else int(row.generation) + 1


def _replace_signed_refs(connection: Connection, repository: RepositoryId, new: NewSignedRefs) -> None:
    record, author = new.record, new.author
    row = connection.execute(_SELECT_NEWEST_HEADER, of(repository, author)).one_or_none()
    newest = None if row is None else (int(row.seq), bytes(row.hash))
    if newest != new.previous:
        raise Conflict(f"the newest record of {author.short}… is no longer the one this was checked against")
    kept = [history.KeptRecord(header) for header in new.bridging]
    if row is not None:
        base = b"" if record is None else record.hash
        kept.append(history.KeptRecord(history.Header(author, row.seq, row.hash, row.header), base, new.delta))
        connection.execute(_DELETE_NEWEST, of(repository, author))
    if record is not None:
        values = {"seq": record.seq, "hash": record.hash, "header": record.header, "entries": record.entries}
        connection.execute(_INSERT_NEWEST, {"repository": repository, "author": author, **values})
    history.keep(connection, repository, author, kept, None if record is None else record.hash)


def mark_projected(connection: Connection, repository: RepositoryId, generation: int) -> bool:
    """Note that git's refs show ``generation``; return whether that is still the newest one."""
    result = connection.execute(_MARK_PROJECTED, {**of(repository), "of_generation": generation})
    return result.rowcount == 1


def mark_unprojected(connection: Connection, repository: RepositoryId) -> None:
    """Note that git's refs have to be written again."""
    connection.execute(_UPDATE_REPOSITORY, {**of(repository), "projected": False})


def set_seeding(
    connection: Connection, repository: RepositoryId, *, seeding: bool, reason: str = EXPLICIT, now_ms: int = 0
) -> None:
    """Follow ``repository`` from now on, for ``reason``, or no longer. Raises: ``NotHeld``."""
    if seeding:
        seeding_table.keep(connection, repository, reason, now_ms)
    result = connection.execute(_UPDATE_REPOSITORY, {**of(repository), "seeding": seeding})
    if result.rowcount == 0:
        raise NotHeld(f"{repository.short}… is not held here")


def remove(connection: Connection, repository: RepositoryId) -> bool:
    """Forget the repository with all that belongs to it; return whether it was there."""
    return connection.execute(_DELETE_REPOSITORY, of(repository)).rowcount == 1


def load_summaries(connection: Connection) -> list[RepositorySummary]:
    """Return a summary of every repository, in order of name and id."""
    authors: dict[bytes, dict[AuthorId, tuple[int, bytes]]] = {}
    for repository, author, seq, digest in connection.execute(
        select(signed_refs.c.repository, signed_refs.c.author, signed_refs.c.seq, signed_refs.c.hash)
    ):
        authors.setdefault(repository, {})[AuthorId(author)] = (seq, digest)
    splits: dict[bytes, dict[AuthorId, int]] = {}
    for repository, author, split in connection.execute(
        select(equivocations.c.repository, equivocations.c.author, equivocations.c.split)
    ):
        splits.setdefault(repository, {})[AuthorId(author)] = split
    rows = connection.execute(select(repositories).order_by(repositories.c.name, repositories.c.id))
    forks = {row.repository: row.epoch for row in connection.execute(select(identity_forks))}
    return [_summary(row, authors.get(row.id, {}), splits.get(row.id, {}), forks.get(row.id, 0)) for row in rows]


def load_generation(connection: Connection, repository: RepositoryId) -> int | None:
    """Return how often something was accepted of ``repository``; ``None``: it is not held."""
    generation: int | None = connection.scalar(_SELECT_GENERATION, of(repository))
    return generation


def load_summary(connection: Connection, repository: RepositoryId) -> RepositorySummary:
    """Raises: ``NotHeld``."""
    return _load_summary(
        connection, repository, history.load_proofs(connection, repository), history.load_fork(connection, repository)
    )


def _load_summary(
    connection: Connection, repository: RepositoryId, proofs: Iterable[Equivocation], fork: IdentityFork | None
) -> RepositorySummary:
    row = connection.execute(_SELECT_SUMMARY, of(repository)).one_or_none()
    if row is None:
        raise NotHeld(f"{repository.short}… is not held here")
    authors = connection.execute(_SELECT_AUTHORS, of(repository))
    splits = {proof.author: proof.split for proof in proofs}
    newest = {AuthorId(author): (seq, digest) for author, seq, digest in authors}
    return _summary(row, newest, splits, 0 if fork is None else fork.epoch)


def _summary(
    row: Row[*tuple[object, ...]],
    authors: Mapping[AuthorId, tuple[int, bytes]],
    splits: Mapping[AuthorId, int],
    fork: int,
) -> RepositorySummary:
    return RepositorySummary(
        id=RepositoryId(row.id),
        name=row.name,
        description=row.description,
        epoch=row.epoch,
        identity_hash=row.identity_hash,
        head=row.head,
        seeding=row.seeding,
        generation=row.generation,
        projected=row.projected,
        created=row.created,
        updated=row.updated,
        size=row.size,
        authors=authors,
        splits=splits,
        fork=fork,
    )


def load(connection: Connection, repository: RepositoryId) -> StoredRepository:
    """Return everything that was accepted of ``repository``, as of one moment.

    Raises:
        NotHeld: it is not held here.
    """
    proofs, fork = history.load_proofs(connection, repository), history.load_fork(connection, repository)
    return StoredRepository(
        _load_summary(connection, repository, proofs, fork),
        load_documents(connection, repository),
        load_signed_refs(connection, repository),
        proofs,
        load_canonical(connection, repository),
        fork,
    )


def load_documents(
    connection: Connection, repository: RepositoryId, *, from_epoch: int = 0
) -> tuple[IdentityDocument, ...]:
    """Return the identity documents from ``from_epoch`` on, in order."""
    rows = connection.execute(_SELECT_DOCUMENTS, {**of(repository), "from_epoch": from_epoch})
    return tuple(IdentityDocument(*row) for row in rows)


def load_signed_refs(connection: Connection, repository: RepositoryId) -> tuple[SignedRefs, ...]:
    """Return the newest record that counts of every author, in order of their keys."""
    rows = connection.execute(_SELECT_ALL_NEWEST, of(repository))
    return tuple(
        SignedRefs(AuthorId(author), seq, digest, header, entries) for author, seq, digest, header, entries in rows
    )


def load_signed_refs_of(connection: Connection, repository: RepositoryId, author: AuthorId) -> SignedRefs:
    """Return the newest record that counts of one author. Raises: ``NotHeld``: there is none here."""
    row = connection.execute(_SELECT_NEWEST_OF, of(repository, author)).one_or_none()
    if row is None:
        raise NotHeld(f"{repository.short}… by {author.short}… is not held here")
    return SignedRefs(author, row.seq, row.hash, row.header, row.entries)


def load_canonical(connection: Connection, repository: RepositoryId) -> dict[str, ObjectId]:
    """Return the canonical refs, in byte order of their names, as ``packed-refs`` needs them."""
    rows = connection.execute(_SELECT_CANONICAL, of(repository))
    return {ref: ObjectId(oid) for ref, oid in sorted(rows, key=lambda row: str(row[0]).encode())}
