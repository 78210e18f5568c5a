"""What a node has on its disk, read without its help, and what must hold of it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from guts.config import Paths
from guts.git import packed_refs
from guts.ids import AuthorId, RepositoryId
from guts.trust.canonical_refs import canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from tests.support.nodes import no_leftovers
from tests.support.repositories import git


@dataclass(frozen=True, slots=True)
class State:
    """One repository at one node.

    Attributes:
        identity: hash of the newest identity document, hexadecimal.
        seq: of the newest record; one author has one.
        refs: canonical refs, hexadecimal ids by name.
    """

    identity: str
    seq: int
    refs: dict[str, str]
    seeding: bool


class Unsettled(AssertionError):
    """What is shown is not noted as durable yet: a commit of a moment ago, or of before the start."""


def states(paths: Paths, *, settled: bool = False) -> dict[RepositoryId, State]:
    """Return the state of every repository, after checking that it is no mixture of two.

    The node runs, and does nothing.

    Args:
        settled: what git's refs show has to be noted as durable, too.

    Raises:
        Unsettled: it is not yet.
        AssertionError: something does not fit.
    """
    found = {}
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as database:
        database.execute("BEGIN")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        query = "SELECT id, epoch, identity_hash, head, seeding, projected FROM repositories"
        for id_, epoch, identity, head, seeding, projected in database.execute(query):
            repository = RepositoryId(id_)
            if settled and not projected:
                raise Unsettled(f"{repository.short} is still to be projected")
            rows = database.execute("SELECT ref, oid FROM canonical_refs WHERE repository = ?", (id_,))
            refs = {ref: oid.hex() for ref, oid in rows}
            record = _record(database, repository)
            assert {name: str(oid) for name, oid in record.entries.live().items()} == refs, "SQL and the signed record"
            path = paths.repositories / f"{repository}.git"
            chain = _chain(database, repository, path / "guts" / "identity")
            assert (chain.epoch, chain.hash) == (epoch, identity), "the identity and its documents"
            shown = canonical_refs(chain, {record.author: record}, frozenset())
            assert ({name: str(oid) for name, oid in shown.refs.items()}, shown.head) == (refs, head), "SQL and trust"
            _check_repository(path, refs, head)
            found[repository] = State(identity.hex(), record.seq, refs, bool(seeding))
    on_disk = {path.name for path in paths.repositories.iterdir()}
    assert on_disk == {f"{repository}.git" for repository in found}, "repositories on the disk and in SQL"
    assert not list(paths.data.glob("*.partial"))
    return found


def _record(database: sqlite3.Connection, repository: RepositoryId) -> SignedRefs:
    query = "SELECT author, header, entries FROM signed_refs WHERE repository = ?"
    ((author, header, entries),) = database.execute(query, (repository,))
    record = SignedRefs.decode(header, entries)
    assert record.author == AuthorId(author)
    assert record.header.repository == repository
    return record


def _chain(database: sqlite3.Connection, repository: RepositoryId, folder: Path) -> IdentityChain:
    query = "SELECT encoded FROM identity_documents WHERE repository = ? ORDER BY epoch"
    documents = [encoded for (encoded,) in database.execute(query, (repository,))]
    chain = IdentityChain.from_documents(documents)
    assert chain.repository == repository
    # A document is written here first: one that was not committed then may stay, and is signed all the same.
    kept = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert kept[: len(documents)] == documents, "SQL and the folder's identity documents"
    for more in kept[len(documents) :]:
        chain.extend(more)
    return chain


def _check_repository(path: Path, refs: dict[str, str], head: str) -> None:
    packed, pointed = packed_refs.read(path)
    assert {name: str(ref.target) for name, ref in packed.items()} == refs, "SQL and packed-refs"
    assert pointed == head, "SQL and HEAD"
    assert not [loose for loose in (path / "refs").rglob("*") if loose.is_file()]
    git(path, "fsck", "--full", "--strict", "--no-dangling")
    assert no_leftovers(path), "quarantines, locks and temporary files are gone"
    packs = path / "objects" / "pack"
    assert {pack.stem for pack in packs.glob("*.pack")} == {index.stem for index in packs.glob("*.idx")}
