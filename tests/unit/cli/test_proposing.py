"""Proposals that can't stand: refused before anything is written, signed or applied, and in words that help."""

import errno
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from guts.cli.proposal import BadProposal, Proposal, changes
from guts.cli.proposing import changed_rules
from guts.cli.signed_documents import AlreadySigned, note_signature
from guts.errors import ExitStatus
from guts.ids import AuthorId, RepositoryId
from guts.keystore import KeyFile, KeyKind, write_key_file
from guts.records import MAX_SEQ
from guts.trust.acceptance import MAX_AHEAD_MS
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import AuthorPoint, RefRule
from tests.support.proposals import sign_elsewhere
from tests.support.scripted_control import ScriptedControl, serving
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, BOB, CAROL, MAIN, NOW, chain, oid, publish

UTC_TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(\d+[dhms][^)]* ago\)"


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (("--add", ALICE.author_id), f"{ALICE.author_id} is a maintainer already", "guts maintainers ls repo1"),
        (("--remove", BOB.author_id), f"{BOB.author_id} is not a maintainer", "guts maintainers ls repo1"),
        (("--remove", ALICE.author_id), "the last maintainer can't be removed", "--add auth1…"),
        (("--threshold", "2"), "--threshold 2: there would be 1 maintainer", "more than half are 1"),
        (
            ("--threshold", "5", "--add", BOB.author_id),
            "--threshold 5: there would be 2 maintainers",
            "more than half are 2",
        ),
    ],
)
def test_refusal_says_what_is_wrong_with_the_option(
    guts: Guts,
    control: ScriptedControl,
    repository: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
    hint: str,
) -> None:
    ran = guts("identity", "propose", *arguments, repository, tmp_path / "file", "--json")
    assert (ran.status, ran.error["message"]) == (ExitStatus.USAGE, says)
    assert hint in str(ran.error["hint"])


def test_repeated_option_counts_once(guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path) -> None:
    twice = ("--add", BOB.author_id, "--add", BOB.author_id, "--remove", ALICE.author_id, "--remove", ALICE.author_id)
    assert guts("identity", "propose", *twice, repository, tmp_path / "file").status == 0
    assert Proposal.read(tmp_path / "file").document.maintainers == (BOB.author_id,)


def test_default_branch_that_nobody_published_is_warned_of(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    arguments = ("--default-branch", "later", "--description", 'a "b"', repository, tmp_path / "file")
    ran = guts("identity", "propose", *arguments)
    assert "warning: no branch 'later' is published" in ran.err
    assert 'default branch: "main" -> "later"' in ran.out
    assert 'description: "" -> "a \\"b\\""' in ran.out
    named = guts("identity", "propose", "--default-branch", "main", "--name", "other", repository, tmp_path / "other")
    assert named.status == 0
    assert "warning" not in named.err
    assert "guts publish --head" in guts("identity", "propose", "--help").out.replace("\n", "")


def test_refs_are_protected_and_freed_again(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    protecting = ("--protect", "main", "--protect", "refs/tags/v*")
    ran = guts("identity", "propose", *protecting, repository, tmp_path / "file")
    assert ran.out.splitlines()[1:3] == ['protects "main"', 'protects "refs/tags/v*"']
    document = Proposal.read(tmp_path / "file").document
    assert document.rules == (RefRule("main", 1), RefRule("refs/tags/v*", 1))
    ruled = chain(ALICE).successor(created_ms=NOW, nonce=bytes(16), rules=document.rules)
    after = IdentityChain.from_documents([*chain(ALICE).documents, ruled.sign(ALICE)])
    assert changed_rules(after, (), ("main",)) == (RefRule("refs/tags/v*", 1),)
    assert changed_rules(after, ("a",), ()) == (RefRule("a", 1), *document.rules)
    assert changed_rules(after, (), ()) is None
    freed = after.successor(created_ms=NOW, nonce=bytes(16), rules=())
    assert changes(after.current, freed) == ['no longer protects "main"', 'no longer protects "refs/tags/v*"']
    for protected, unprotected, says in (
        (("main",), (), "'main' is protected already"),
        ((), ("dev",), "no rule protects 'dev'"),
        (("refs/guts/x",), (), "'refs/guts/x' matches no ref"),
        (("a\nb",), (), "not a pattern of refs"),
    ):
        with pytest.raises(BadProposal, match=says):
            changed_rules(after, protected, unprotected)


def test_records_are_told_by_time() -> None:
    two = chain(ALICE, BOB, CAROL)
    points = (AuthorPoint(BOB.author_id, NOW, b"\x01" * 32), AuthorPoint(CAROL.author_id, 0, b""))
    document = two.successor(created_ms=NOW, nonce=bytes(16), maintainers=(ALICE.author_id,), removed=points)
    lines = changes(two.current, document)
    assert f"removes {CAROL.author_id}: none of its records counts" in lines
    removed = next(line for line in lines if line.startswith(f"removes {BOB.author_id}"))
    assert re.search(r"its record 010101010101… of 2027-01-15 08:00:00 UTC \(.*\) is the last that counts$", removed)
    far = AuthorPoint(BOB.author_id, MAX_SEQ, b"\x01" * 32)
    reaffirmed = two.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(far,))
    assert "after the year 9999" in changes(two.current, reaffirmed)[0]
    ordered = two.successor(
        created_ms=NOW, nonce=bytes(16), maintainers=(BOB.author_id, ALICE.author_id, CAROL.author_id), threshold=2
    )
    short = ", ".join(f"{author.author_id.short}…" for author in (BOB, ALICE, CAROL))
    assert changes(two.current, ordered) == [f"another order of precedence: {short}"]


def test_rules_are_quoted_and_their_end_is_told() -> None:
    none = chain(ALICE)
    rules = (RefRule("refs/heads/a", 1), RefRule("refs/tags/ needs 1, x", 2))
    document = none.successor(created_ms=NOW, nonce=bytes(16), rules=rules)
    assert changes(none.current, document) == [
        'protects "refs/heads/a"',
        'protects "refs/tags/ needs 1, x" (2 endorsements, which nothing counts yet)',
    ]
    some = none.extend(document.sign(ALICE))
    assert changes(some.current, some.successor(created_ms=NOW, nonce=bytes(16), rules=())) == [
        'no longer protects "refs/heads/a"',
        'no longer protects "refs/tags/ needs 1, x" (2 endorsements, which nothing counts yet)',
    ]


@pytest.mark.parametrize("kind", ["removed", "reaffirmed"])
def test_record_of_the_future_is_nothing_to_go_on_from(guts: Guts, tmp_path: Path, kind: str) -> None:
    two = chain(ALICE, BOB, threshold=1)
    known = publish(two, BOB, None, {MAIN: oid(1)})
    point = AuthorPoint(BOB.author_id, known.seq, known.hash)
    if kind == "removed":
        maintainers = (ALICE.author_id,)
        document = two.successor(created_ms=NOW, nonce=bytes(16), maintainers=maintainers, removed=(point,))
    else:
        document = two.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,))
    proposal = Proposal(two, document, {})
    proposal.check_points(known.seq - MAX_AHEAD_MS)
    with pytest.raises(BadProposal, match=f"{BOB.author_id}: its record .* is more than 10 minutes in the future"):
        proposal.check_points(known.seq - MAX_AHEAD_MS - 1)

    write_key_file(guts.paths.author_key, KeyFile.of(KeyKind.AUTHOR, ALICE, None))
    far = AuthorPoint(BOB.author_id, MAX_SEQ, known.hash)
    file = tmp_path / "far"
    changed = replace(document, removed=(far,)) if kind == "removed" else replace(document, reaffirmed=(far,))
    Proposal(two, changed, {}).create(file)
    refused = guts("identity", "sign", file, "--json")
    assert refused.error["code"] == "BAD_PROPOSAL"
    assert "in the future" in str(refused.error["message"])
    assert Proposal.read(file).signatures == {}


def test_record_of_the_future_is_not_proposed(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    identifier, file = RepositoryId.parse(repository), tmp_path / "file"
    record = control.records[identifier]
    far = publish(control.chains[identifier], ALICE, record, {MAIN: oid(2)}, now=record.seq + 3_600_000)
    control.records[identifier] = far
    refused = guts("identity", "reaffirm", ALICE.author_id, repository, file)
    assert refused.status == ExitStatus.USAGE
    assert "is more than 10 minutes in the future" in refused.err
    assert not file.exists()


def test_file_of_a_proposal_is_shown_unsigned_and_without_a_node(guts: Guts, tmp_path: Path) -> None:
    two = chain(ALICE, BOB, threshold=1)
    document = two.successor(created_ms=NOW, nonce=bytes(16), name="other")
    file = tmp_path / "rename.json"
    Proposal(two, document, {}).create(file)
    before = file.read_bytes()
    shown = guts("identity", "show", file)
    assert shown.status == 0
    assert shown.out.splitlines() == [
        f"example  {two.repository}, epoch 1:",
        '  name: "example" -> "other"',
        f"still to sign: 1 of {ALICE.author_id}, {BOB.author_id}",
    ]
    step = f"send {file} to 1 of {ALICE.author_id}, {BOB.author_id}; there: guts identity sign rename.json"
    assert shown.err == f"hint: {step}\n"
    assert file.read_bytes() == before
    assert not guts.paths.author_key.exists()

    sign_elsewhere(file, BOB)
    shown = guts("identity", "show", file)
    assert shown.out.splitlines()[-2:] == [f"signed by: {BOB.author_id}", f"complete: guts identity apply {file}"]
    value = guts("identity", "show", file, "--json").json
    assert isinstance(value, dict)
    assert (value["epoch"], value["signed_by"], value["complete"]) == (1, [str(BOB.author_id)], True)


@pytest.mark.parametrize("command", ["sign", "apply"])
def test_file_that_is_missing_or_no_proposal_is_told_apart(guts: Guts, tmp_path: Path, command: str) -> None:
    ran = guts("identity", command, tmp_path / "nofile.json")
    assert ran.status == ExitStatus.USAGE
    assert ran.err.startswith(f"error: there is no file {tmp_path / 'nofile.json'}\nhint: guts identity propose")
    (tmp_path / "text").write_text("Dear Bo,")
    ran = guts("identity", command, tmp_path / "text")
    assert ran.status == ExitStatus.USAGE
    assert ran.err.startswith(f"error: {tmp_path / 'text'} is no proposal\nhint: guts identity propose")


def test_unsigned_proposal_says_who_must_have_it(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    file = tmp_path / "add-bob.json"
    proposed = guts("identity", "propose", "--add", BOB.author_id, repository, file)
    assert proposed.err.endswith(f"hint: guts identity sign {file}\n")
    assert guts("identity", "apply", file, "--json").error["hint"] == f"guts identity sign {file}"
    to_bob = f"send {file} to {BOB.author_id}, which is added; there: guts identity sign add-bob.json"
    assert guts("identity", "sign", file).err.endswith(f"hint: {to_bob}\n")
    refused = guts("identity", "apply", file, "--json")
    assert refused.error["hint"] == to_bob
    assert refused.error["message"] == f"signatures are missing: {BOB.author_id}, which is added"


def test_second_document_of_an_epoch_is_not_signed(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for file in (one, two):
        assert guts("identity", "propose", "--name", file.stem, repository, file).status == 0
    assert guts("identity", "sign", one).status == 0
    assert guts("identity", "sign", one).status == 0  # the same again
    before = two.read_bytes()
    refused = guts("identity", "sign", two, "--json")
    assert (refused.status, refused.error["code"]) == (ExitStatus.REFUSED, "ALREADY_SIGNED")
    digest = Proposal.read(one).document.hash.hex()
    assert f"another document of epoch 1 already ({digest[:12]}…, in {one})" in str(refused.error["message"])
    assert "split the repository" in str(refused.error["message"])
    assert two.read_bytes() == before
    details = refused.error["details"]
    assert isinstance(details, dict)
    note = Path(str(details["note"]))
    assert note.read_text() == f"{digest}\n{one}"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    assert stat.S_IMODE(note.parent.stat().st_mode) == 0o700
    assert list(note.parent.iterdir()) == [note]

    # Once it is applied, what comes next is of another epoch; and what was left behind is late.
    assert guts("identity", "apply", one).status == 0
    late = guts("identity", "sign", two, "--json")
    assert (late.status, late.error["code"]) == (ExitStatus.REFUSED, "ALREADY_APPLIED")
    assert late.error["message"] == "epoch 1 is applied already, by another document"
    assert late.error["hint"] == f"make a new proposal: guts identity propose … {repository} FILE"
    assert "this proposal is applied already" in guts("identity", "sign", one).err
    three = tmp_path / "three.json"
    assert guts("identity", "propose", "--name", "three", repository, three).status == 0
    assert guts("identity", "sign", three).status == 0


def test_notes_alone_refuse_where_no_node_answers_or_knows(
    guts: Guts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_key_file(guts.paths.author_key, KeyFile.of(KeyKind.AUTHOR, ALICE, None))
    known = chain(ALICE)
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for number, file in enumerate(files):
        document = known.successor(created_ms=NOW, nonce=bytes([number]) * 16, name=f"name{number}")
        Proposal(known, document, {}).create(file)
    assert guts("identity", "sign", files[0]).status == 0
    assert guts("identity", "sign", files[1], "--json").error["code"] == "ALREADY_SIGNED"
    with serving(ScriptedControl(), guts.paths.control_socket):
        assert guts("identity", "sign", files[2], "--json").error["code"] == "ALREADY_SIGNED"
        assert guts("identity", "sign", files[0]).status == 0

    # Another key, and another repository, have notes of their own.
    folder = guts.paths.author_key
    note_signature(folder, BOB.author_id, Proposal.read(files[1]).document, files[1])
    other = chain(ALICE, name="other").successor(created_ms=NOW, nonce=bytes(16), name="one")
    note_signature(folder, ALICE.author_id, other, files[1])


def test_note_is_there_before_the_signature_is(guts: Guts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    Proposal(chain(ALICE), chain(ALICE).successor(created_ms=NOW, nonce=bytes(16), name="one"), {}).create(file)
    write_key_file(guts.paths.author_key, KeyFile.of(KeyKind.AUTHOR, ALICE, None))
    noted: list[Path] = []

    def full(_: Proposal, path: Path) -> None:
        noted.extend((guts.paths.author_key.parent / "signed").iterdir())
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Proposal, "rewrite", full)
    assert guts("identity", "sign", file).status == ExitStatus.FAILED
    assert [note.name for note in noted] == [f"{chain(ALICE).repository}-1-{ALICE.author_id}"]


def test_note_that_is_damaged_is_another_document(tmp_path: Path) -> None:
    document = chain(ALICE).successor(created_ms=NOW, nonce=bytes(16), name="one")
    key = tmp_path / "author.key"
    note_signature(key, ALICE.author_id, document, tmp_path / "file")
    note_signature(key, ALICE.author_id, document, tmp_path / "elsewhere")
    (note,) = (tmp_path / "signed").iterdir()
    note.write_bytes(b"\xff")
    with pytest.raises(AlreadySigned):
        note_signature(key, ALICE.author_id, document, tmp_path / "file")
    assert list((tmp_path / "signed").iterdir()) == [note]


def test_proposal_on_another_history_than_the_nodes_is_not_signed(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    identifier = RepositoryId.parse(repository)
    before = control.chains[identifier]
    left, right = (
        before.extend(before.successor(created_ms=NOW, nonce=bytes(16), name=name).sign(ALICE))
        for name in ("left", "right")
    )
    control.chains[identifier] = left
    file = tmp_path / "file"
    Proposal(right, right.successor(created_ms=NOW, nonce=bytes(16), name="more"), {}).create(file)
    refused = guts("identity", "sign", file, "--json")
    assert refused.error["code"] == "BAD_PROPOSAL"
    assert "the identity is split" in str(refused.error["message"])
    assert Proposal.read(file).signatures == {}


@pytest.mark.parametrize("command", ["remove", "reaffirm"])
def test_change_is_not_applied_when_its_maintainer_has_published_since(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path, command: str
) -> None:
    identifier, file = RepositoryId.parse(repository), tmp_path / "file"
    record = control.records[identifier]
    arguments: tuple[object, ...]
    if command == "remove":
        arguments = ("propose", "--add", BOB.author_id, "--remove", ALICE.author_id, repository, file)
    else:
        arguments = ("reaffirm", ALICE.author_id, repository, file)
    assert guts("identity", *arguments).status == 0
    sign_elsewhere(file, ALICE, *([BOB] if command == "remove" else []))
    newer = publish(control.chains[identifier], ALICE, record, {MAIN: oid(2)}, now=record.seq + 60_000)
    control.records[identifier] = newer
    refused = guts("identity", "apply", file, "--json")
    assert (refused.status, refused.error["code"]) == (ExitStatus.REFUSED, "PUBLISHED_SINCE")
    told = rf"{ALICE.author_id} has published since the proposal was made \(its record {newer.hash.hex()[:12]}… of "
    assert re.match(told + UTC_TIME, str(refused.error["message"]))
    assert control.chains[identifier].epoch == 0
    assert guts("identity", "apply", "--anyway", file).out.startswith("applied")
    assert guts("identity", "apply", file).out.startswith("unchanged")


def test_removed_maintainer_is_marked(guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path) -> None:
    file = tmp_path / "swap"
    arguments = ("--add", BOB.author_id, "--remove", ALICE.author_id, repository, file)
    assert guts("identity", "propose", *arguments).status == 0
    sign_elsewhere(file, ALICE, BOB)
    assert guts("identity", "apply", file).status == 0

    listed = guts("maintainers", "ls", repository)
    assert [line.split() for line in listed.out.splitlines()[1:]] == [
        [str(BOB.author_id), "never"],
        [str(ALICE.author_id), "1m", "5s", "ago", "you,", "(removed", "at", "epoch", "1)"],
    ]
    value = guts("maintainers", "ls", repository, "--json").json
    assert isinstance(value, dict)
    assert [(entry["author"], entry["signed_ms"]) for entry in value["maintainers"]] == [(str(BOB.author_id), None)]
    assert [(e["author"], e["removed_at_epoch"]) for e in value["removed"]] == [(str(ALICE.author_id), 1)]
    inspected = guts("inspect", repository).out
    assert re.search(rf"^signed by     {ALICE.author_id.short}…  .*  \(removed at epoch 1\)$", inspected, re.MULTILINE)


def test_maintainers_that_stay_are_not_marked(guts: Guts, control: ScriptedControl, repository: str) -> None:
    value = guts("maintainers", "ls", repository, "--json").json
    assert isinstance(value, dict)
    (entry,) = value["maintainers"]
    assert AuthorId.parse(entry["author"]) == ALICE.author_id
    assert isinstance(entry["signed_ms"], int)
    inspected = guts("inspect", repository).out
    assert "removed" not in inspected
    assert f"folder        /data/repos/{repository}.git" in inspected
    assert re.search(
        rf"^signed by     {ALICE.author_id.short}…  record [0-9a-f]{{12}}…  {UTC_TIME}$", inspected, re.MULTILINE
    )
