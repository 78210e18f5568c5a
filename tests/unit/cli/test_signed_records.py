"""What was published is gone on from: a node that withholds it gets no second record over its predecessor."""

import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from guts.cli.signed_records import DamagedNote, LastRecord, RecordMissing, check_previous, last_published
from guts.cli.signed_records import note_published as note
from guts.ids import RepositoryId
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedRefs
from tests.support.repositories import git
from tests.support.scripted_control import ScriptedControl
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, BOB, MAIN, NOW, chain, oid, publish

TWO = chain(ALICE, BOB, threshold=1)
FIRST = publish(TWO, ALICE, None, {MAIN: oid(1)}, now=NOW)
SECOND = publish(TWO, ALICE, FIRST, {MAIN: oid(2)}, now=NOW + 10)
OTHER = publish(TWO, ALICE, FIRST, {MAIN: oid(3)}, now=NOW + 10)
THIRD = publish(TWO, ALICE, SECOND, {MAIN: oid(4)}, now=NOW + 20)


def refused(key: Path, identity: IdentityChain, records: Iterable[SignedRefs | None]) -> list[SignedRefs | None]:
    """Return those of ``records`` after which nothing is signed."""
    found = []
    for record in records:
        try:
            check_previous(key, identity, ALICE.author_id, record)
        except RecordMissing:
            found.append(record)
    return found


def test_author_goes_on_from_what_was_published_or_from_something_newer(tmp_path: Path) -> None:
    key = tmp_path / "author.key"
    assert refused(key, TWO, [None, FIRST, SECOND]) == []
    note(key, FIRST.header)
    assert refused(key, TWO, [None, FIRST, SECOND, OTHER, THIRD]) == [None]
    note(key, SECOND.header)
    assert refused(key, TWO, [None, FIRST, SECOND, OTHER, THIRD]) == [None, FIRST, OTHER]
    # Another author, and another repository, have notes of their own.
    check_previous(key, TWO, BOB.author_id, None)
    check_previous(key, chain(ALICE), ALICE.author_id, None)


def test_author_goes_back_where_the_maintainers_have_said_so_since(tmp_path: Path) -> None:
    key = tmp_path / "author.key"
    note(key, SECOND.header)
    for record in (FIRST, OTHER):
        there = AuthorPoint(ALICE.author_id, record.seq, record.hash)
        document = TWO.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(there,))
        assert refused(key, TWO.extend(document.sign(BOB)), [record]) == []
    same = AuthorPoint(ALICE.author_id, SECOND.seq, SECOND.hash)
    kept = TWO.extend(TWO.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(same,)).sign(BOB))
    assert refused(key, kept, [FIRST, SECOND]) == [FIRST]
    older = AuthorPoint(ALICE.author_id, FIRST.seq, FIRST.hash)
    document = kept.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(older,))
    assert refused(key, kept.extend(document.sign(BOB)), [FIRST]) == []
    # What was signed under that document is gone on from again.
    back = TWO.extend(TWO.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(older,)).sign(BOB))
    again = publish(back, ALICE, FIRST, {MAIN: oid(5)}, now=NOW + 30)
    note(key, again.header)
    assert refused(key, back, [FIRST, again]) == [FIRST]


def test_note_is_private_and_one_that_is_damaged_is_told(tmp_path: Path) -> None:
    key = tmp_path / "author.key"
    note(key, FIRST.header)
    note(key, SECOND.header)
    (file,) = (tmp_path / "published").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    last = LastRecord(SECOND.seq, SECOND.hash, 0)
    assert last_published(key, TWO.repository, ALICE.author_id) == last
    for damaged in (b"", b"\xff", b"[]", b'{"seq": 1, "hash": "xx", "epoch": 0}', b"[" * 100_000):
        file.write_bytes(damaged)
        with pytest.raises(DamagedNote):
            check_previous(key, TWO, ALICE.author_id, THIRD)


def test_node_that_withholds_what_was_published_gets_no_signature(
    guts: Guts, control: ScriptedControl, repository: str, work: Path
) -> None:
    identifier = RepositoryId.parse(repository)
    first = control.records[identifier]
    git(work, "commit", "-q", "--allow-empty", "-m", "two")
    assert guts("publish", work).status == 0
    second = control.records[identifier]
    control.records[identifier] = first
    git(work, "commit", "-q", "--allow-empty", "-m", "three")
    ran = guts("publish", work, "--json")
    assert ran.error["code"] == "RECORD_MISSING"
    assert control.records[identifier] == first
    control.records[identifier] = second
    assert guts("publish", work).status == 0
