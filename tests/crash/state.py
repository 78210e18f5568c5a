"""What a node has on its disk, read without its help, and what must hold of it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from guts.config import Paths
from guts.git import packed_refs
from guts.ids import AuthorId, RepositoryId
from guts.trust.signed_refs import SignedRefs
from tests.support.nodes import no_leftovers
from tests.support.repositories import git


@dataclass(frozen=True, slots=True)
class State:
    """One repository at one node.

    Attributes:
        seq: of the one maintainer's newest record.
        refs: canonical refs, hexadecimal ids by name.
    """

    seq: int
    refs: dict[str, str]
    seeding: bool


def states(paths: Paths) -> dict[RepositoryId, State]:
    """Return the state of every repository, after checking that it is no mixture of two.

    The node runs, and does nothing.

    Raises:
        AssertionError: something does not fit.
    """
    found = {}
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as database:
        database.execute("BEGIN")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        for id_, head, seeding, projected in database.execute("SELECT id, head, seeding, projected FROM repositories"):
            repository = RepositoryId(id_)
            assert projected, f"{repository.short} is still to be projected"
            rows = database.execute("SELECT ref, oid FROM canonical_refs WHERE repository = ?", (id_,))
            refs = {ref: oid.hex() for ref, oid in rows}
            record = _record(database, repository)
            assert {name: str(oid) for name, oid in record.entries.live().items()} == refs, "SQL and the signed record"
            _check_repository(paths.repositories / f"{repository}.git", refs, head)
            found[repository] = State(record.seq, refs, bool(seeding))
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


def _check_repository(path: Path, refs: dict[str, str], head: str) -> None:
    packed, pointed = packed_refs.read(path)
    assert {name: str(ref.target) for name, ref in packed.items()} == refs, "SQL and packed-refs"
    assert pointed == head, "SQL and HEAD"
    assert not [loose for loose in (path / "refs").rglob("*") if loose.is_file()]
    git(path, "fsck", "--full", "--strict", "--no-dangling")
    assert no_leftovers(path), "quarantines, locks and temporary files are gone"
    packs = path / "objects" / "pack"
    assert {pack.stem for pack in packs.glob("*.pack")} == {index.stem for index in packs.glob("*.idx")}
