"""``guts identity`` and ``guts maintainers``: proposals go from hand to hand, and nobody signs what does not fit."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from guts.cli import proposal as proposals
from guts.cli.proposal import BadProposal, Proposal
from guts.errors import ExitStatus
from guts.ids import AuthorId, RepositoryId
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import MAX_MAINTAINERS
from tests.support.proposals import sign_elsewhere
from tests.support.scripted_control import ScriptedControl
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, BOB, CAROL, EVE, NOW, chain

TWO = chain(ALICE, BOB, threshold=1)


def test_added_maintainer_is_in_when_all_have_signed(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    file = tmp_path / "add"
    proposed = guts("identity", "propose", "--add", BOB.author_id, repository, file)
    assert f"adds {BOB.author_id}" in proposed.out
    assert "threshold: 1 -> 2" in proposed.out
    assert "one lost key" in proposed.err
    assert guts("identity", "apply", file, "--json").error["code"] == "BAD_PROPOSAL"
    signed = guts("identity", "sign", file)
    assert f"adds {BOB.author_id}" in signed.err
    assert f"still to sign: {BOB.author_id}, which is added" in signed.out
    assert guts("identity", "apply", file, "--json").error["code"] == "BAD_PROPOSAL"
    sign_elsewhere(file, BOB)
    assert guts("identity", "apply", file).out == f"applied: {repository} is at epoch 1\n"
    assert guts("identity", "apply", file).out.startswith("unchanged")

    listed = guts("maintainers", "ls", repository)
    assert [line.split() for line in listed.out.splitlines()[1:]] == [
        [str(ALICE.author_id), "1m", "5s", "ago", "you"],
        [str(BOB.author_id), "never"],
    ]
    shown = guts("identity", "show", repository, "--json").json
    assert isinstance(shown, dict)
    assert shown["documents"][1]["changes"] == [f"adds {BOB.author_id}", "threshold: 1 -> 2"]
    assert f"adds {BOB.author_id}" in guts("identity", "show", repository).out


def test_reaffirmation_names_the_record_that_counts_or_one_of_the_two_that_do_not(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    record = control.records[RepositoryId.parse(repository)]
    sides = [{"seq": record.seq + 1 + n, "hash": f"{n + 1:02x}" * 32, "signed_ms": NOW} for n in range(2)]
    control.splits = [{"author": str(ALICE.author_id), "seq": record.seq + 1, "records": sides}]
    option: tuple[str, ...]
    for name, option, seq, digest in (
        ("counts", (), record.seq, record.hash),
        ("one", ("--record", "0101"), record.seq + 1, b"\x01" * 32),
        ("other", ("--record", "02" * 32), record.seq + 2, b"\x02" * 32),
        ("shortened", ("--record", "020202020202…"), record.seq + 2, b"\x02" * 32),
    ):
        file = tmp_path / name
        reaffirmed = guts("identity", "reaffirm", *option, ALICE.author_id, repository, file)
        assert reaffirmed.status == 0
        assert "is not suspended" not in reaffirmed.err
        (point,) = Proposal.read(file).document.reaffirmed
        assert (point.author, point.seq, point.hash) == (ALICE.author_id, seq, digest)
    for option in (("--record", "0"), ("--record", "ff")):
        refused = guts("identity", "reaffirm", *option, ALICE.author_id, repository, tmp_path / "none", "--json")
        assert refused.error["code"] == "BAD_PROPOSAL"
    stranger = guts("identity", "reaffirm", BOB.author_id, repository, tmp_path / "none", "--json")
    assert stranger.error["code"] == "BAD_PROPOSAL"

    helps = f"guts identity reaffirm {ALICE.author_id} {repository} FILE"
    listed = guts("maintainers", "ls", repository)
    assert "you, SUSPENDED: two histories" in listed.out
    assert helps in listed.err
    value = guts("maintainers", "ls", repository, "--json").json
    assert isinstance(value, dict)
    assert [entry["suspended"] for entry in value["maintainers"]] == [True]
    shown = guts("inspect", repository).out
    assert all(str(side["hash"])[:12] in shown for side in sides)
    assert helps in shown


def test_two_documents_of_one_epoch_are_shown_with_what_helps(
    guts: Guts, control: ScriptedControl, repository: str
) -> None:
    assert "FORKED" not in guts("identity", "show", repository).out
    control.fork = {"epoch": 1, "followed": "ab" * 32, "other": "cd" * 32}
    for words in (("identity", "show"), ("inspect",)):
        shown = guts(*words, repository).out
        assert "two documents of epoch 1" in shown
        assert "abababababab is followed here, cdcdcdcdcdcd elsewhere" in shown
        assert "Ask them which one counts" in shown
    value = guts("identity", "show", repository, "--json").json
    assert isinstance(value, dict)
    assert value["fork"] == control.fork


def test_removal_freezes_what_the_maintainer_signed_last(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    file = tmp_path / "swap"
    arguments = ("--add", BOB.author_id, "--remove", ALICE.author_id, repository, file)
    assert guts("identity", "propose", *arguments).status == 0
    record = control.records[RepositoryId.parse(repository)]
    (point,) = Proposal.read(file).document.removed
    assert (point.author, point.seq, point.hash) == (ALICE.author_id, record.seq, record.hash)


def test_reaffirmed_record_is_the_one_that_the_node_holds(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path
) -> None:
    file = tmp_path / "reaffirm"
    ran = guts("identity", "reaffirm", ALICE.author_id, repository, file)
    record = control.records[RepositoryId.parse(repository)]
    signed = f"{datetime.fromtimestamp(record.seq // 1000, UTC):%Y-%m-%d %H:%M:%S}"
    begins = f"reaffirms {ALICE.author_id}, who goes on from its record {record.hash.hex()[:12]}… of {signed}"
    assert begins in ran.out
    assert "is not suspended" in ran.err
    assert guts("identity", "sign", file).status == 0
    assert guts("identity", "apply", file).status == 0
    stranger = guts("identity", "reaffirm", BOB.author_id, repository, tmp_path / "other", "--json")
    assert stranger.error["code"] == "BAD_PROPOSAL"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--threshold", "2"),
        ("--name", "not a name"),
        ("--remove", ALICE.author_id),
        ("--remove", BOB.author_id),
        ("--add", ALICE.author_id),
        [item for number in range(MAX_MAINTAINERS) for item in ("--add", AuthorId(bytes([number]) * 32))],
    ],
)
def test_impossible_document_is_not_proposed(
    guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ran = guts("identity", "propose", *arguments, repository, tmp_path / "file", "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "BAD_PROPOSAL")
    assert not (tmp_path / "file").exists()


def test_proposal_is_never_overwritten(guts: Guts, control: ScriptedControl, repository: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert guts("identity", "propose", "--name", "one", repository, file).status == 0
    before = file.read_bytes()
    ran = guts("identity", "propose", "--name", "two", repository, file, "--json")
    assert ran.error["code"] == "BAD_PROPOSAL"
    assert file.read_bytes() == before


def proposal(threshold: int | None = None) -> Proposal:
    document = TWO.successor(
        created_ms=NOW,
        nonce=bytes(16),
        maintainers=(ALICE.author_id, BOB.author_id, CAROL.author_id),
        threshold=threshold,
    )
    return Proposal(TWO, document, {})


def test_complete_proposal_extends_the_chain() -> None:
    complete = proposal().signed(CAROL).signed(BOB)
    assert complete.missing() == []
    assert TWO.extend(complete.encode()).current.maintainers[2] == CAROL.author_id
    assert proposal().signed(CAROL).missing() == [f"1 of {ALICE.author_id}, {BOB.author_id}"]
    assert proposal().signed(BOB).missing() == [f"{CAROL.author_id}, which is added"]


def test_stranger_does_not_sign() -> None:
    with pytest.raises(BadProposal, match="neither"):
        proposal().signed(EVE)


def other_chain(value: dict[str, object]) -> None:
    value["chain"] = [base64.b64encode(chain(ALICE, BOB, name="other").documents[0]).decode()]


def forged(value: dict[str, object]) -> None:
    value["signatures"] = {str(BOB.author_id): "00" * 64}


def no_hex(value: dict[str, object]) -> None:
    value["signatures"] = {str(BOB.author_id): "zz"}


def no_id(value: dict[str, object]) -> None:
    value["signatures"] = {"bob": "00" * 64}


def no_chain(value: dict[str, object]) -> None:
    value["chain"] = []


def no_base64(value: dict[str, object]) -> None:
    value["body"] = "%%%"


def no_body(value: dict[str, object]) -> None:
    value["body"] = ""


def later_form(value: dict[str, object]) -> None:
    value["format"] = "guts identity proposal 2"


def nothing(value: dict[str, object]) -> None:
    value.clear()


@pytest.mark.parametrize(
    "damage", [other_chain, forged, no_hex, no_id, no_chain, no_base64, no_body, later_form, nothing]
)
def test_damaged_proposal_is_refused(tmp_path: Path, damage: Callable[[dict[str, object]], None]) -> None:
    file = tmp_path / "file"
    proposal().signed(ALICE).create(file)
    assert Proposal.read(file).signatures.keys() == {ALICE.author_id}
    value = json.loads(file.read_text())
    damage(value)
    file.write_text(json.dumps(value))
    with pytest.raises(BadProposal):
        Proposal.read(file)


@pytest.mark.parametrize("text", ["", "[", "[]", "[" * 100_000, "\0", '{"format": 1}'])
def test_file_that_is_no_proposal_is_refused(text: str) -> None:
    with pytest.raises(BadProposal):
        Proposal.parse(text, "file")


def test_proposal_up_to_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    proposal().create(file)
    monkeypatch.setattr(proposals, "MAX_FILE_BYTES", file.stat().st_size)
    assert Proposal.read(file) == proposal()
    monkeypatch.setattr(proposals, "MAX_FILE_BYTES", file.stat().st_size - 1)
    with pytest.raises(BadProposal, match="larger"):
        Proposal.read(file)


def test_chain_of_a_proposal_is_checked(tmp_path: Path) -> None:
    assert isinstance(Proposal.parse(_text(tmp_path), "file").chain, IdentityChain)
    broken = json.loads(_text(tmp_path))
    broken["chain"][0] = base64.b64encode(base64.b64decode(broken["chain"][0])[:-1] + b"\0").decode()
    with pytest.raises(BadProposal, match="damaged"):
        Proposal.parse(json.dumps(broken), "file")


def _text(tmp_path: Path) -> str:
    file = tmp_path / "file"
    file.unlink(missing_ok=True)
    proposal().create(file)
    return file.read_text()
