"""First use is remembered: real identity documents and records, shown in an order that an honest node would not."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from guts.cli.answer import Answer, BadAnswer
from guts.cli.known_repositories import (
    MAX_HEADS,
    Known,
    NotKnown,
    OwnerChanged,
    RolledBack,
    all_known,
    known_one,
    lacks_own_push,
)
from guts.cli.known_repositories import remember as remember_in
from guts.config import Paths
from guts.errors import ExitStatus
from guts.identity import SigningKey
from guts.keystore import KeyFile, KeyKind, write_key_file
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedRefs
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, BOB, CAROL, EVE, MAIN, NOW, chain, oid, publish

ONE = chain(ALICE)
TWO = chain(ALICE, BOB)
FIRST = publish(ONE, ALICE, None, {MAIN: oid(1)})
SECOND = publish(ONE, ALICE, FIRST, {MAIN: oid(2)}, now=NOW + 1)
OTHER_SECOND = publish(ONE, ALICE, FIRST, {MAIN: oid(3)}, now=NOW + 1)


def answer(identity: IdentityChain, *signed: SignedRefs, proofs: Iterable[EquivocationProof] = ()) -> Answer:
    """Return what a node that holds these says at ``GET /v1/repositories/{id}/refs``."""
    return Answer(
        {
            "repository": str(identity.repository),
            "name": identity.current.name,
            "epoch": identity.epoch,
            "identity_hash": identity.hash.hex(),
            "maintainers": [str(author) for author in identity.current.maintainers],
            "documents": [base64.b64encode(document).decode() for document in identity.documents],
            "heads": [
                {"author": str(record.author), "seq": record.seq, "hash": record.hash.hex()} for record in signed
            ],
            "proofs": [base64.b64encode(proof.encode()).decode() for proof in proofs],
        }
    )


def successor(identity: IdentityChain, *signers: SigningKey, **changes: object) -> IdentityChain:
    document = identity.successor(created_ms=NOW, nonce=bytes(16), **changes)  # type: ignore[arg-type]
    return identity.extend(document.sign(*signers))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environ({"GUTS_HOME": str(tmp_path / "home")})


def note(paths: Paths, identity: IdentityChain = ONE) -> Path:
    return paths.data / "known" / str(identity.repository)


def test_first_time_is_told_and_remembered(paths: Paths) -> None:
    (line,) = remember_in(paths, answer(ONE, FIRST))

    assert line == f"{str(ONE.repository)[:12]}… is new here: maintainers {ALICE.author_id} (remembered)"
    known = known_one(paths, ONE.repository)
    assert (known.epoch, known.identity_hash, known.maintainers) == (0, ONE.hash.hex(), [str(ALICE.author_id)])
    assert known.heads == {str(ALICE.author_id): (FIRST.seq, FIRST.hash.hex())}
    assert note(paths).stat().st_mode & 0o777 == 0o600
    assert note(paths).parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in note(paths).parent.iterdir()] == [str(ONE.repository)]


def test_same_again_and_newer_records_are_no_news(paths: Paths) -> None:
    remember_in(paths, answer(ONE, FIRST))
    before = note(paths).stat()
    assert remember_in(paths, answer(ONE, FIRST)) == []
    assert note(paths).stat() == before
    assert remember_in(paths, answer(ONE, SECOND)) == []
    assert known_one(paths, ONE.repository).heads == {str(ALICE.author_id): (SECOND.seq, SECOND.hash.hex())}


def test_record_that_went_back_is_loud(paths: Paths) -> None:
    remember_in(paths, answer(ONE, SECOND))
    before = note(paths).read_bytes()
    with pytest.raises(RolledBack) as caught:
        remember_in(paths, answer(ONE, FIRST))

    error = caught.value
    assert (error.code, error.exit_status) == ("ROLLED_BACK", ExitStatus.INTEGRITY)
    text = str(error).splitlines()
    assert text[0] == f"{ONE.repository} is shown in an older state than was seen here before"
    assert text[1] == text[3] == "@" * 60
    assert "WARNING: THIS REPOSITORY HAS GONE BACK IN TIME!" in text[2]
    assert f"{ALICE.author_id} had signed seq {SECOND.seq}, and is shown at seq {FIRST.seq}." in text
    assert (error.hint or "").endswith(f"guts known forget {ONE.repository}")
    assert note(paths).read_bytes() == before


def test_own_push_that_nobody_has_yet_is_told_from_other_records_that_went_back(paths: Paths) -> None:
    remember_in(paths, answer(ONE, SECOND))
    with pytest.raises(RolledBack) as older:
        remember_in(paths, answer(ONE, FIRST))
    with pytest.raises(RolledBack) as another:
        remember_in(paths, answer(ONE, OTHER_SECOND))
    assert not lacks_own_push(paths, older.value)
    write_key_file(paths.author_key, KeyFile.of(KeyKind.AUTHOR, ALICE, None))
    assert lacks_own_push(paths, older.value)
    assert not lacks_own_push(paths, another.value)
    paths.author_key.unlink()
    write_key_file(paths.author_key, KeyFile.of(KeyKind.AUTHOR, BOB, None))
    assert not lacks_own_push(paths, older.value)


def test_other_record_of_the_same_seq_is_loud(paths: Paths) -> None:
    assert SECOND.seq == OTHER_SECOND.seq
    remember_in(paths, answer(ONE, SECOND))
    with pytest.raises(RolledBack, match="is shown with another one of that seq"):
        remember_in(paths, answer(ONE, OTHER_SECOND))


def test_record_that_is_not_shown_any_more_is_loud(paths: Paths) -> None:
    bobs = publish(TWO, BOB, None, {MAIN: oid(5)})
    alices = publish(TWO, ALICE, None, {MAIN: oid(6)})
    remember_in(paths, answer(TWO, alices, bobs))
    with pytest.raises(RolledBack, match=f"{BOB.author_id} had signed seq .*, and is not shown at all"):
        remember_in(paths, answer(TWO, alices))


def test_change_of_maintainers_that_was_signed_is_one_line(paths: Paths) -> None:
    remember_in(paths, answer(ONE, FIRST))
    after = successor(ONE, ALICE, BOB, maintainers=(BOB.author_id, ALICE.author_id))
    (line,) = remember_in(paths, answer(after, FIRST))

    assert line == (
        f"maintainers of {str(ONE.repository)[:12]}… changed: +{BOB.author_id} (epoch 1, signed as it has to be)"
    )
    assert known_one(paths, ONE.repository).maintainers == [str(BOB.author_id), str(ALICE.author_id)]
    assert remember_in(paths, answer(after, FIRST)) == []

    gone = successor(
        after,
        ALICE,
        BOB,
        maintainers=(BOB.author_id,),
        removed=(AuthorPoint(ALICE.author_id, FIRST.seq, FIRST.hash),),
    )
    (line,) = remember_in(paths, answer(gone, FIRST))
    assert f"changed: -{ALICE.author_id} (epoch 2" in line


def test_change_of_identity_that_keeps_the_maintainers_is_no_news(paths: Paths) -> None:
    remember_in(paths, answer(ONE, FIRST))
    assert remember_in(paths, answer(successor(ONE, ALICE, description="Another."), FIRST)) == []
    assert known_one(paths, ONE.repository).epoch == 1


def test_identity_that_went_back_is_loud(paths: Paths) -> None:
    remember_in(paths, answer(successor(ONE, ALICE, description="Another."), FIRST))
    with pytest.raises(RolledBack, match="was at epoch 1, and is shown at 0"):
        remember_in(paths, answer(ONE, FIRST))


@pytest.mark.parametrize("longer", [False, True])
def test_other_branch_of_the_identity_is_loud(paths: Paths, longer: bool) -> None:
    remember_in(paths, answer(successor(ONE, ALICE, description="Ours."), FIRST))
    other = successor(ONE, ALICE, EVE, maintainers=(ALICE.author_id, EVE.author_id))
    if longer:
        removed = (AuthorPoint(ALICE.author_id, 0, b""),)
        other = successor(other, ALICE, EVE, maintainers=(EVE.author_id,), removed=removed)
    before = note(paths).read_bytes()
    with pytest.raises(OwnerChanged) as caught:
        remember_in(paths, answer(other))

    error = caught.value
    assert (error.code, error.exit_status) == ("OWNER_CHANGED", ExitStatus.INTEGRITY)
    assert "WARNING: THIS REPOSITORY HAS CHANGED HANDS!" in str(error)
    assert f"Maintainers remembered here: {ALICE.author_id}\n" in str(error)
    assert str(EVE.author_id) in str(error)
    assert f"guts known forget {ONE.repository}" in (error.hint or "")
    assert note(paths).read_bytes() == before


def test_identity_whose_documents_do_not_bear_it_out_is_refused(paths: Paths) -> None:
    mallory = chain(EVE)
    lies = {**answer(mallory).json, "repository": str(ONE.repository)}
    with pytest.raises(BadAnswer, match="not those it speaks of"):
        remember_in(paths, Answer(lies))
    unsigned = {**answer(ONE, FIRST).json, "documents": [base64.b64encode(b"\x90").decode()]}
    with pytest.raises(BadAnswer, match="no valid identity documents"):
        remember_in(paths, Answer(unsigned))
    assert not note(paths).exists()

    remember_in(paths, answer(ONE, FIRST))
    after = successor(ONE, ALICE, description="Another.")
    with pytest.raises(BadAnswer):
        remember_in(paths, Answer({**answer(after, FIRST).json, "documents": answer(ONE).json["documents"]}))
    assert known_one(paths, ONE.repository).epoch == 0


def test_record_that_the_maintainers_took_back_may_go(paths: Paths) -> None:
    firsts = publish(TWO, BOB, None, {MAIN: oid(5)})
    seconds = publish(TWO, BOB, firsts, {MAIN: oid(6)}, now=NOW + 1)
    remember_in(paths, answer(TWO, seconds))
    cut = successor(
        TWO,
        ALICE,
        BOB,
        maintainers=(ALICE.author_id,),
        removed=(AuthorPoint(BOB.author_id, firsts.seq, firsts.hash),),
    )
    (line,) = remember_in(paths, answer(cut, firsts))
    assert f"-{BOB.author_id}" in line
    # And no further.
    with pytest.raises(RolledBack):
        remember_in(paths, answer(cut))


def test_record_below_what_the_maintainers_took_back_may_not_go(paths: Paths) -> None:
    firsts = publish(TWO, BOB, None, {MAIN: oid(5)})
    seconds = publish(TWO, BOB, firsts, {MAIN: oid(6)}, now=NOW + 1)
    thirds = publish(TWO, BOB, seconds, {MAIN: oid(7)}, now=NOW + 2)
    remember_in(paths, answer(TWO, thirds))
    cut = successor(TWO, ALICE, BOB, reaffirmed=(AuthorPoint(BOB.author_id, seconds.seq, seconds.hash),))
    with pytest.raises(RolledBack):
        remember_in(paths, answer(cut, firsts))
    assert remember_in(paths, answer(cut, seconds)) == []


def test_record_after_a_proven_split_may_go(paths: Paths) -> None:
    proof = EquivocationProof.of(SECOND.signed_header, OTHER_SECOND.signed_header, None)
    remember_in(paths, answer(ONE, SECOND))
    with pytest.raises(RolledBack):  # what is shown is itself one of the two
        remember_in(paths, answer(ONE, OTHER_SECOND, proofs=[proof]))
    (line,) = remember_in(paths, answer(ONE, FIRST, proofs=[proof]))
    assert line.startswith(f"{ALICE.author_id} signed two histories of {str(ONE.repository)[:12]}…: seq {SECOND.seq}, ")
    assert remember_in(paths, answer(ONE, FIRST, proofs=[proof])) == []
    with pytest.raises(RolledBack):
        remember_in(paths, answer(ONE, proofs=[proof]))


def test_proof_excuses_nothing_older_than_the_last_record_before_the_split(paths: Paths) -> None:
    records: list[SignedRefs] = []
    for number in range(6):
        before = records[-1] if records else None
        records.append(publish(ONE, ALICE, before, {MAIN: oid(number + 1)}, now=NOW + number))
    other = publish(ONE, ALICE, records[4], {MAIN: oid(99)}, now=NOW + 5)
    proof = EquivocationProof.of(records[5].signed_header, other.signed_header, None)
    last = publish(ONE, ALICE, other, {MAIN: oid(98)}, now=NOW + 6)
    for newest in (records[5], last):
        remember_in(paths, answer(ONE, newest))
        for shown in (*([record] for record in records[:4]), []):
            with pytest.raises(RolledBack):
                remember_in(paths, answer(ONE, *shown, proofs=[proof]))
            assert known_one(paths, ONE.repository).heads == {str(ALICE.author_id): (newest.seq, newest.hash.hex())}
        assert len(remember_in(paths, answer(ONE, records[4], proofs=[proof]))) == 1
        for record in records[:4]:
            with pytest.raises(RolledBack):
                remember_in(paths, answer(ONE, record, proofs=[proof]))

    # Another proof, of an earlier split, excuses nothing below where the first one led, also by way of newer records.
    earlier = publish(ONE, ALICE, records[1], {MAIN: oid(97)}, now=NOW + 2)
    assert earlier.seq == records[2].seq
    second = EquivocationProof.of(records[2].signed_header, earlier.signed_header, None)
    for newest in (records[4], last):
        remember_in(paths, answer(ONE, newest))
        with pytest.raises(RolledBack):
            remember_in(paths, answer(ONE, records[1], proofs=[second, proof]))


def test_author_may_vanish_only_where_nothing_was_before_the_split(paths: Paths) -> None:
    other_first = publish(ONE, ALICE, None, {MAIN: oid(9)})
    proof = EquivocationProof.of(FIRST.signed_header, other_first.signed_header, None)
    remember_in(paths, answer(ONE, FIRST))
    assert len(remember_in(paths, answer(ONE, proofs=[proof]))) == 1


def test_settled_proof_excuses_nothing(paths: Paths) -> None:
    proof = EquivocationProof.of(SECOND.signed_header, OTHER_SECOND.signed_header, None)
    settled = successor(ONE, ALICE, reaffirmed=(AuthorPoint(ALICE.author_id, SECOND.seq, SECOND.hash),))
    third = publish(settled, ALICE, SECOND, {MAIN: oid(4)}, now=NOW + 3)
    remember_in(paths, answer(settled, third))
    with pytest.raises(RolledBack):
        remember_in(paths, answer(settled, FIRST, proofs=[proof]))


def test_proof_about_somebody_else_excuses_nobody(paths: Paths) -> None:
    firsts = [publish(TWO, BOB, None, {MAIN: oid(number)}) for number in (1, 2)]
    proof = EquivocationProof.of(firsts[0].signed_header, firsts[1].signed_header, None)
    elsewhere = EquivocationProof.of(SECOND.signed_header, OTHER_SECOND.signed_header, None)
    alices = publish(TWO, ALICE, None, {MAIN: oid(6)})
    later = publish(TWO, ALICE, alices, {MAIN: oid(7)}, now=NOW + 1)
    remember_in(paths, answer(TWO, later))
    with pytest.raises(RolledBack):
        remember_in(paths, answer(TWO, alices, proofs=[proof, elsewhere]))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version": 2}', b"[" * 100_000, b"\xff"])
def test_damaged_note_is_told_and_made_anew(paths: Paths, data: bytes) -> None:
    remember_in(paths, answer(ONE, SECOND))
    note(paths).write_bytes(data)
    damaged, new = remember_in(paths, answer(ONE, FIRST))

    assert "is damaged, and forgotten" in damaged
    assert "is new here" in new
    assert known_one(paths, ONE.repository).heads == {str(ALICE.author_id): (FIRST.seq, FIRST.hash.hex())}


def test_note_of_another_repository_counts_as_damaged(paths: Paths) -> None:
    remember_in(paths, answer(ONE, SECOND))
    os.rename(note(paths), note(paths, TWO))
    assert "damaged" in remember_in(paths, answer(TWO))[0]


def test_disk_that_takes_nothing_stops_no_fetch(paths: Paths) -> None:
    paths.data.parent.mkdir()
    paths.data.write_text("in the way")
    lines = remember_in(paths, answer(ONE, FIRST))
    assert any("can't be remembered" in line for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="a mount namespace is Linux's")
def test_read_only_file_system_stops_no_fetch_and_still_tells_what_went_back(paths: Paths, tmp_path: Path) -> None:
    remember_in(paths, answer(ONE, FIRST))
    for name, told in (("newer", SECOND), ("older", FIRST)):
        (tmp_path / name).write_text(json.dumps(dict(answer(ONE, told).json)))
    code = (
        "import json, sys; from guts.cli.answer import Answer; from guts.config import Paths; "
        "from guts.cli.known_repositories import remember; "
        "paths = Paths.from_environ({'GUTS_HOME': sys.argv[1]}); "
        "print(*remember(paths, Answer(json.load(open(sys.argv[2])))), sep='\\n')"
    )
    home = paths.data.parent
    script = f'mount --bind "{home}" "{home}" && mount -o remount,ro,bind "{home}" && exec "$@"'
    isolated = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        script,
        "sh",
        sys.executable,
        "-c",
        code,
    ]

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [*isolated, str(home), str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    ran = run("newer")
    if "unshare:" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(f"no mount namespace here: {ran.stderr.strip()}")
    assert (ran.returncode, ran.stderr) == (0, "")
    (line,) = ran.stdout.splitlines()
    assert "can't be remembered: Read-only file system" in line

    remember_in(paths, answer(ONE, SECOND))
    assert "RolledBack" in run("older").stderr


def test_two_at_once_take_nothing_from_each_other(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    alices = publish(TWO, ALICE, None, {MAIN: oid(6)})
    bobs = publish(TWO, BOB, None, {MAIN: oid(5)})
    remember_in(paths, answer(TWO, alices))
    from guts.cli import known_repositories

    locked = known_repositories._locked

    def slow(folder: Path) -> object:
        monkeypatch.setattr(known_repositories, "_locked", locked)
        assert remember_in(paths, answer(TWO, alices, bobs)) == []
        return locked(folder)

    monkeypatch.setattr(known_repositories, "_locked", slow)
    newer = publish(TWO, ALICE, alices, {MAIN: oid(7)}, now=NOW + 1)
    assert remember_in(paths, answer(TWO, newer)) == []
    assert known_one(paths, TWO.repository).heads == {
        str(ALICE.author_id): (newer.seq, newer.hash.hex()),
        str(BOB.author_id): (bobs.seq, bobs.hash.hex()),
    }


@pytest.mark.parametrize("count", [MAX_HEADS, MAX_HEADS + 1])
def test_heads_of_the_256_who_signed_last_are_kept(count: int) -> None:
    heads = [{"author": f"auth{number}", "seq": number, "hash": "00"} for number in range(1, count + 1)]
    shown = Known.shown(Answer({**answer(ONE).json, "heads": heads}), NOW)
    assert len(shown.heads) == MAX_HEADS
    assert f"auth{count}" in shown.heads
    assert ("auth1" in shown.heads) == (count == MAX_HEADS)


def test_nothing_new_costs_no_cryptography(paths: Paths, tmp_path: Path) -> None:
    remember_in(paths, answer(ONE, FIRST))
    (tmp_path / "same").write_text(json.dumps(dict(answer(ONE, FIRST).json)))
    (tmp_path / "newer").write_text(json.dumps(dict(answer(ONE, SECOND).json)))
    code = (
        "import json, sys; from guts.cli.answer import Answer; from guts.config import Paths; "
        "from guts.cli.known_repositories import remember; "
        "assert remember(Paths.from_environ({'GUTS_HOME': sys.argv[1]}), Answer(json.load(open(sys.argv[2])))) == []; "
        "print(*sys.modules)"
    )
    for name in ("same", "newer"):
        command = [sys.executable, "-c", code, str(paths.data.parent), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not {"nacl", "msgpack", "click", "asyncio", "aiohttp"} & set(done.stdout.split()), name


def test_known_commands_show_and_forget(guts: Guts) -> None:
    assert guts("known", "ls").err == "none yet; git clone guts://repo1… remembers the first\n"
    remember_in(guts.paths, answer(ONE, FIRST))
    remember_in(guts.paths, answer(TWO))

    ids = {one.repository for one in all_known(guts.paths)}
    assert ids == {str(ONE.repository), str(TWO.repository)}
    assert f"{str(ONE.repository)[:12]}…  example  0      {str(ALICE.author_id)[:12]}…" in guts("known", "ls").out
    shown = guts("known", "show", ONE.repository)
    assert f"records      {ALICE.author_id}  seq {FIRST.seq}  {FIRST.hash.hex()[:12]}…" in shown.out
    as_json = guts("known", "show", f"guts://{ONE.repository}/tool", "--json").json
    assert as_json == known_one(guts.paths, ONE.repository).json

    assert guts("known", "forget", ONE.repository).out == f"forgot {ONE.repository}\n"
    assert "nothing to do" in guts("known", "forget", ONE.repository).out
    ran = guts("known", "show", ONE.repository, "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.NOT_FOUND, "NOT_KNOWN")
    with pytest.raises(NotKnown):
        known_one(guts.paths, ONE.repository)
    assert "is new here" in remember_in(guts.paths, answer(ONE, FIRST))[0]


def test_many_maintainers_are_counted(paths: Paths) -> None:
    (line,) = remember_in(paths, answer(chain(ALICE, BOB, CAROL, EVE)))
    assert f"{CAROL.author_id} and 1 more (remembered)" in line
