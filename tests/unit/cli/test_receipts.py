"""``guts receipts``: what is listed, what --verify names, with and without a node; what is kept of a publication."""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.cli.answer import Answer, BadAnswer
from guts.cli.kept_receipts import FOLDER, KEPT_RECORDS, all_kept, keep_receipts, read_kept
from guts.errors import ExitStatus
from guts.ids import RepositoryId
from guts.records import CommitReceipt, Signed
from tests.support.peers import KEYS, WALL
from tests.support.repositories import git
from tests.support.scripted_control import NOW_MS, ScriptedControl, serving
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, BOB, MAIN, chain, oid, publish

CHAIN = chain(ALICE)
CHAIN_OF_BOB = chain(BOB)
ID = CHAIN.repository
RECORD = publish(CHAIN, ALICE, None, {MAIN: oid(1)})
NEXT = publish(CHAIN, ALICE, RECORD, {MAIN: oid(2)})


def receipt(number: int, seq: int | None = None, digest: bytes | None = None) -> CommitReceipt:
    seq, digest = RECORD.seq if seq is None else seq, RECORD.hash if digest is None else digest
    return CommitReceipt.sign(KEYS[number], ID, ALICE.author_id, seq, digest, WALL + number)


def forged() -> bytes:
    """Return a receipt in the name of node 1 that node 2 signed."""
    body = Signed.decode(receipt(1).encoded, 300).body
    (_, signature), *_ = Signed.sign("receipt", body, KEYS[2]).signatures
    return Signed(body, ((KEYS[1].public, signature),)).encode()


def told(*receipts: bytes, record: bytes = RECORD.header_bytes, seq: int = RECORD.seq) -> Answer:
    """Return what a node would answer that had these."""
    of_record = {"author": str(ALICE.author_id), "seq": seq, "hash": RECORD.hash.hex()}
    return Answer(
        {
            "repository": str(ID),
            "records": [{**of_record, "header": base64.b64encode(record).decode()}],
            "receipts": [{**of_record, "receipt": base64.b64encode(encoded).decode()} for encoded in receipts],
        }
    )


@pytest.fixture
def alone(guts: Guts, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository that was pushed; no node runs."""
    git(work, "remote", "add", "origin", f"guts://{ID}/tool")
    monkeypatch.chdir(work)
    return work


@contextlib.contextmanager
def node(guts: Guts, *replicas: int) -> Iterator[ScriptedControl]:
    control = ScriptedControl()
    control.chains[ID], control.records[ID] = CHAIN, RECORD
    control.replicas = [KEYS[number] for number in replicas]
    with serving(control, guts.paths.control_socket):
        yield control


def test_receipts_that_the_node_knows_are_listed_and_checked(guts: Guts) -> None:
    with node(guts, 1, 2):
        ran = guts("receipts", ID)
        checked = guts("receipts", ID, "--verify")
        as_json = guts("receipts", ID, "--verify", "--json").json
    assert ran.status == checked.status == 0
    assert ran.out.splitlines()[0].split() == ["RECORD", "AUTHOR", "REPLICA", "CONFIRMED"]
    for number, line in zip((1, 2), checked.out.splitlines()[1:], strict=True):
        assert line.startswith(RECORD.hash.hex()[:12])
        assert f" {KEYS[number].peer_id.short}… " in line
        assert line.endswith("  ok")
    assert isinstance(as_json, dict)
    assert as_json["known"] == 2
    assert as_json["receipts"][0] == {
        "repository": str(ID),
        "peer": str(KEYS[1].peer_id),
        "author": str(ALICE.author_id),
        "seq": RECORD.seq,
        "hash": RECORD.hash.hex(),
        "signed_ms": NOW_MS,
        "newest": True,
        "receipt": as_json["receipts"][0]["receipt"],
        "valid": True,
        "checked": "ok",
    }


def test_only_receipts_for_the_author_that_was_asked_for(guts: Guts) -> None:
    with node(guts, 1):
        assert len(guts("receipts", ID, "--author", ALICE.author_id).out.splitlines()) == 2
        ran = guts("receipts", ID, "--author", BOB.author_id)
        wrong = guts("receipts", ID, "--author", KEYS[1].peer_id)
    assert (ran.status, ran.out) == (0, "")
    assert "no receipts yet" in ran.err
    assert wrong.status == ExitStatus.USAGE
    assert "is a node id" in wrong.err


def test_kept_receipts_are_checked_with_the_node_down(guts: Guts, alone: Path) -> None:
    keep_receipts(alone / ".git", told(receipt(1).encoded, receipt(2).encoded), ID, ALICE.author_id)
    ran = guts("receipts", "--verify")
    assert ran.status == 0
    assert [line.endswith("  ok") for line in ran.out.splitlines()] == [False, True, True]
    assert "these are from your own pushes; the node says nothing: no node answers" in ran.err
    assert guts("receipts", ID, "--verify").out == ran.out


def test_receipts_of_node_and_pushes_are_one_list(guts: Guts, alone: Path) -> None:
    keep_receipts(alone / ".git", told(receipt(3).encoded), ID, ALICE.author_id)
    with node(guts, 1):
        ran = guts("receipts", "--verify")
    assert ran.status == 0
    assert len(ran.out.splitlines()) == 3
    assert ran.err == ""


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        (forged(), "FORGED: a signature on this receipt record is not valid"),
        (receipt(1, digest=b"x" * 32).encoded, f"FORGED: names another record than {RECORD.hash.hex()[:12]}"),
        (receipt(1, seq=RECORD.seq + 1).encoded, f"FORGED: names another record than {RECORD.hash.hex()[:12]}"),
    ],
    ids=["signature", "hash", "seq"],
)
def test_forged_receipt_is_named(guts: Guts, alone: Path, encoded: bytes, says: str) -> None:
    keep_receipts(alone / ".git", told(encoded, receipt(2).encoded), ID, ALICE.author_id)
    ran = guts("receipts", "--verify")
    assert ran.status == ExitStatus.INTEGRITY
    (line,) = [line for line in ran.out.splitlines() if "FORGED" in line]
    assert KEYS[1].peer_id.short in line
    assert says in line
    value = guts("receipts", "--verify", "--json").json
    assert isinstance(value, dict)
    assert sorted(row["valid"] for row in value["receipts"]) == [False, True]
    # It is a question of its own: who lists does not check.
    assert guts("receipts").status == 0


@pytest.mark.parametrize("damage", ["{", "[]", '{"header": "!", "receipts": []}', "\udcff"])
def test_damaged_file_is_named(guts: Guts, alone: Path, damage: str) -> None:
    keep_receipts(alone / ".git", told(receipt(1).encoded), ID, ALICE.author_id)
    (file,) = (alone / ".git" / FOLDER).iterdir()
    file.write_bytes(damage.encode(errors="surrogateescape"))
    ran = guts("receipts", "--verify")
    assert ran.status == ExitStatus.INTEGRITY
    assert f"error: {file}: the record in it is damaged" in ran.err
    assert guts("receipts").status == 0


def test_record_that_its_author_did_not_sign_is_named(guts: Guts, alone: Path) -> None:
    body = Signed.decode(RECORD.header_bytes, 2000).body
    by_bob = Signed.sign("refs", body, BOB).encode()
    keep_receipts(alone / ".git", told(receipt(1).encoded, record=by_bob), ID, ALICE.author_id)
    ran = guts("receipts", "--verify")
    assert ran.status == ExitStatus.INTEGRITY
    assert "not signed by its author" in ran.err


def test_receipt_that_can_not_be_read_is_named(guts: Guts, alone: Path) -> None:
    keep_receipts(alone / ".git", told(b"receipt", receipt(1).encoded), ID, ALICE.author_id)
    ran = guts("receipts", "--verify")
    assert ran.status == ExitStatus.INTEGRITY
    assert "a receipt that can't be read" in ran.err
    assert len(ran.out.splitlines()) == 2


def test_receipt_for_an_older_record_is_no_forgery(guts: Guts, alone: Path) -> None:
    keep_receipts(alone / ".git", told(receipt(1).encoded), ID, ALICE.author_id)
    with node(guts) as control:
        control.records[ID] = NEXT
        control.replicas = [KEYS[2]]
        ran = guts("receipts", "--verify")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()[1:]] == [NEXT.hash.hex()[:12], RECORD.hash.hex()[:12]]


def test_nothing_known_says_what_comes_next(guts: Guts, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = guts("receipts", work)
    assert ran.status == ExitStatus.NOT_FOUND
    assert "was never published" in ran.err
    assert guts("receipts", work.parent).status == ExitStatus.USAGE
    assert guts("receipts", ID).status == ExitStatus.NODE_DOWN
    monkeypatch.chdir(work)
    assert guts("receipts", ID).status == ExitStatus.NODE_DOWN
    with node(guts):
        assert "no receipts yet" in guts("receipts", ID).err
        assert guts("receipts", RepositoryId(bytes(32))).status == ExitStatus.NOT_FOUND


def test_receipts_come_together_and_the_newest_records_stay(tmp_path: Path) -> None:
    keep_receipts(tmp_path, told(receipt(1).encoded), ID, ALICE.author_id)
    keep_receipts(tmp_path, told(receipt(2).encoded, receipt(1).encoded), ID, ALICE.author_id)
    (kept,) = all_kept(tmp_path)
    assert kept.header == RECORD.header_bytes
    assert kept.receipts == (receipt(1).encoded, receipt(2).encoded)
    for more in range(1, KEPT_RECORDS + 1):
        keep_receipts(tmp_path, told(receipt(1).encoded, seq=RECORD.seq + more), ID, ALICE.author_id)
        assert len(all_kept(tmp_path)) == min(more + 1, KEPT_RECORDS)
    assert not kept.file.exists()
    assert read_kept(kept.file).header == b""


def test_only_receipts_for_records_that_the_node_holds_are_kept(tmp_path: Path) -> None:
    answer = told(receipt(1).encoded, seq=7)
    other = dict(answer.json) | {"records": told(seq=8).json["records"]}
    keep_receipts(tmp_path, Answer(other), ID, ALICE.author_id)
    assert all_kept(tmp_path) == []
    with pytest.raises(BadAnswer):
        keep_receipts(tmp_path, Answer({}), ID, ALICE.author_id)


@pytest.mark.parametrize(
    ("repository", "author", "seq"),
    [
        ("../../refs/evil", str(ALICE.author_id), 1),
        ("/tmp/evil", str(ALICE.author_id), 1),
        ("*", "*", 1),
        (str(ID), "*", 1),
        (str(ID), "../../../config", 1),
        (str(ID), str(BOB.author_id), 1),
        (str(CHAIN_OF_BOB.repository), str(ALICE.author_id), 1),
        (str(ID), str(ALICE.author_id), -1),
        (str(ID), str(ALICE.author_id), 2**63),
    ],
)
def test_node_names_no_file(tmp_path: Path, repository: str, author: str, seq: int) -> None:
    git_dir = tmp_path / "a" / "b" / ".git"
    folder = git_dir / FOLDER
    folder.mkdir(parents=True)
    (git_dir / "refs").mkdir()
    for number in range(KEPT_RECORDS + 8):
        (folder / f"{CHAIN_OF_BOB.repository}-{BOB.author_id}-{number:019d}.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    row: dict[str, object] = {"author": author, "seq": seq, "hash": "h"}
    answer = Answer(
        {"repository": repository, "records": [{**row, "header": "eA=="}], "receipts": [{**row, "receipt": "eA=="}]}
    )
    with pytest.raises(BadAnswer):
        keep_receipts(git_dir, answer, ID, ALICE.author_id)
    assert sorted(tmp_path.rglob("*")) == before
    for more in range(KEPT_RECORDS + 1):
        keep_receipts(git_dir, told(receipt(1).encoded, seq=RECORD.seq + more), ID, ALICE.author_id)
    assert len(all_kept(git_dir)) == KEPT_RECORDS + 8 + KEPT_RECORDS


def test_work_trees_share_what_is_kept(work: Path) -> None:
    git(work, "worktree", "add", "-q", str(work.parent / "tree"))
    keep_receipts(work / ".git" / "worktrees" / "tree", told(receipt(1).encoded), ID, ALICE.author_id)
    (kept,) = all_kept(work / ".git")
    assert kept.file.parent.resolve() == (work / ".git" / FOLDER).resolve()


def test_publication_waits_for_replicas_and_keeps_their_receipts(
    guts: Guts, control: ScriptedControl, repository: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(call[0] == "receipts" for call in control.calls)
    control.replicas = [KEYS[1], KEYS[2]]
    git(work, "commit", "-q", "--allow-empty", "-m", "two")
    ran = guts("publish", work, "--replicas", "3")
    assert ran.status == 0
    shown = ", ".join(f"{str(KEYS[number].peer_id)[:12]}…" for number in (1, 2))
    assert f"2/3 replicas hold it ({shown})" in ran.out
    assert "no other node" not in ran.out
    id_ = RepositoryId.parse(repository)
    seq = control.records[id_].seq
    assert control.calls[-1] == ("receipts", id_, ALICE.author_id, seq, 3, 20.0)
    (kept,) = all_kept(work / ".git")
    assert len(kept.receipts) == 2
    assert guts("receipts", work, "--verify").status == 0
    git(work, "commit", "-q", "--allow-empty", "-m", "three")
    value = guts("publish", work, "--replicas", "2", "--json").json
    assert isinstance(value, dict)
    assert value["replicas"] == [str(KEYS[number].peer_id) for number in (1, 2)]
    assert json.loads(kept.file.read_text())["receipts"]
    git(work, "commit", "-q", "--allow-empty", "-m", "four")
    control.replicas = [KEYS[1]]
    out = guts("publish", work, "--replicas", "1").out
    assert f"1/1 replica holds it ({str(KEYS[1].peer_id)[:12]}…)" in out
    assert "no other node" not in out
