"""Publishing: what is signed, what is sent, and which repositories are refused before anything is."""

import asyncio
from pathlib import Path

import pytest

from guts.errors import ExitStatus
from guts.git.command import Git
from guts.git.limits import DEFAULT_LIMITS
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.keystore import KeyFile, KeyKind, write_key_file
from tests.support.repositories import git
from tests.support.scripted_control import ScriptedControl
from tests.unit.cli.conftest import Guts


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with two commits and a tag, in a folder whose name is no name for a repository."""
    path = tmp_path / ".My Tool!.git"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        (path / name).write_text(name)
        git(path, "add", ".")
        git(path, "commit", "-q", "-m", name)
    git(path, "tag", "v1")
    return path


def objects_in(pack: bytes, tmp_path: Path) -> int:
    """Return the number of objects of a complete pack, checked by git."""
    assert pack[:4] == b"PACK"
    scratch = tmp_path / "scratch.git"
    if not scratch.exists():
        git(tmp_path, "init", "-q", "--bare", str(scratch))
    asyncio.run(Git(DEFAULT_LIMITS).run(["index-pack", "--stdin", "--fix-thin"], data=pack, cwd=scratch))
    return int.from_bytes(pack[8:12], "big")


def test_first_publication_makes_the_identity_and_signs_the_refs(
    guts: Guts, control: ScriptedControl, work: Path, tmp_path: Path
) -> None:
    ran = guts("publish", work, "--description", "A tool", "--json")

    assert ran.status == 0, ran.err
    assert isinstance(ran.json, dict)
    repository = RepositoryId.parse(ran.json["repository"])
    record, chain = control.records[repository], control.chains[repository]
    tip = git(work, "rev-parse", "HEAD")
    assert {name: str(oid) for name, oid in record.entries.live().items()} == {
        "refs/heads/main": tip,
        "refs/tags/v1": tip,
    }
    assert (chain.current.name, chain.current.description) == ("My-Tool-", "A tool")
    assert ran.json["url"] == f"guts://{repository}/My-Tool-"
    assert ran.json["created"]
    assert objects_in(control.pack, tmp_path) == 6
    assert git(work, "config", "guts.repository") == str(repository)
    assert git(work, "remote", "get-url", "guts") == f"guts://{repository}/My-Tool-"
    assert "made your author key auth1" in ran.err


def test_publication_after_new_commits_sends_only_what_is_new(
    guts: Guts, control: ScriptedControl, work: Path, tmp_path: Path
) -> None:
    first = guts("publish", work, "--json").json
    (work / "three").write_text("three")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "three")
    ran = guts("publish", work, "--json")

    assert isinstance(first, dict)
    assert isinstance(ran.json, dict)
    assert ran.json["repository"] == first["repository"]
    assert not ran.json["created"]
    assert int(ran.json["seq"]) > int(first["seq"])
    assert int.from_bytes(control.pack[8:12], "big") == 3
    record = control.records[RepositoryId.parse(first["repository"])]
    assert str(record.entries.live()["refs/heads/main"]) == git(work, "rev-parse", "HEAD")
    assert "made your author key" not in ran.err


def test_publication_of_nothing_new_signs_nothing(guts: Guts, control: ScriptedControl, work: Path) -> None:
    guts("publish", work)
    before = dict(control.records)
    ran = guts("publish", work)

    assert ran.status == 0
    assert ran.out.startswith("unchanged repo1")
    assert control.records == before
    assert control.waiting == {}


def test_name_of_a_published_repository_stays(guts: Guts, control: ScriptedControl, work: Path) -> None:
    guts("publish", work, "--name", "first")
    ran = guts("publish", work, "--name", "second")

    assert ran.out.endswith("/first\n")
    assert ran.err.startswith("hint: name and description stay; guts identity propose --name NAME repo1")


def test_node_that_wants_other_refs_signed_gets_no_signature(guts: Guts, control: ScriptedControl, work: Path) -> None:
    control.lie = {"refs/heads/main": git(work, "rev-parse", "HEAD~1")}
    ran = guts("publish", work, "--json")

    assert ran.status == ExitStatus.INTEGRITY
    assert '"WRONG_BODY"' in ran.err
    assert control.records == {}
    assert len(control.waiting) == 1
    assert git(work, "remote") == ""


def test_node_that_slips_a_ref_in_gets_no_signature(guts: Guts, control: ScriptedControl, work: Path) -> None:
    control.lie = {"refs/heads/backdoor": git(work, "rev-parse", "HEAD")}

    assert guts("publish", work).status == ExitStatus.INTEGRITY
    assert control.records == {}


def test_dot_names_the_repository_published_here(
    guts: Guts, control: ScriptedControl, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    assert guts("inspect", ".", "--json").error["code"] == "NOT_PUBLISHED"
    guts("publish")
    shown = guts("inspect", ".").out
    assert git(work, "config", "guts.repository") in shown
    assert "refs/heads/main" in shown


def test_published_repository_is_listed(guts: Guts, control: ScriptedControl, work: Path) -> None:
    guts("publish", work, "--name", "tool")
    repository = git(work, "config", "guts.repository")

    headings, row = guts("ls").out.splitlines()
    assert headings.split() == ["ID", "NAME", "STATE", "REFS", "SIZE", "REPLICAS", "SYNCED"]
    assert row.split() == [f"{repository[:12]}…", "tool", "seeding", "2", "3.0", "MiB", "2", "never"]
    assert "1 provider;" in guts("dht", "find-repo", repository).out


def test_repository_that_the_node_lost_is_named(guts: Guts, control: ScriptedControl, work: Path) -> None:
    guts("publish", work)
    control.chains.clear()
    ran = guts("publish", work, "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.NOT_FOUND, "NOT_FOUND")
    assert ran.error["hint"] == "guts seed it first"


def test_locked_key_without_a_terminal_changes_nothing(
    guts: Guts, control: ScriptedControl, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key_file(guts.paths.author_key, KeyFile.of(KeyKind.AUTHOR, SigningKey(bytes(32)), "secret"))
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        ran = guts("publish", work, "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.REFUSED, "KEY_LOCKED")
    assert "GUTS_PASSPHRASE_FILE" in str(ran.error["hint"])
    assert control.chains == {}


def test_node_that_is_down_is_told_before_a_key_is_made(guts: Guts, work: Path) -> None:
    assert guts("publish", work).status == ExitStatus.NODE_DOWN
    assert not guts.paths.author_key.exists()


def test_name_that_no_url_can_carry_is_refused(guts: Guts, control: ScriptedControl, work: Path) -> None:
    ran = guts("publish", work, "--name", "a b")
    assert (ran.status, control.chains) == (ExitStatus.USAGE, {})
    assert "'a b'" in ran.err


def unborn(tmp_path: Path, work: Path) -> Path:
    git(work, "checkout", "-q", "--orphan", "new")
    return work


def detached(tmp_path: Path, work: Path) -> Path:
    git(work, "checkout", "-q", "--detach")
    return work


def shallow(tmp_path: Path, work: Path) -> Path:
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{work}", "shallow")
    return tmp_path / "shallow"


def partial(tmp_path: Path, work: Path) -> Path:
    git(work, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{work}", "partial")
    return tmp_path / "partial"


def sha256(tmp_path: Path, work: Path) -> Path:
    path = tmp_path / "sha256"
    path.mkdir()
    git(path, "init", "-q", "--object-format=sha256")
    git(path, "commit", "-q", "--allow-empty", "-m", "Start")
    return path


def plain(tmp_path: Path, work: Path) -> Path:
    path = tmp_path / "plain"
    path.mkdir()
    return path


def missing(tmp_path: Path, work: Path) -> Path:
    return tmp_path / "missing"


@pytest.mark.parametrize(
    ("make", "code", "hint"),
    [
        (plain, "NOT_A_GIT_DIRECTORY", "git init"),
        (missing, "NOT_A_GIT_DIRECTORY", ""),
        (unborn, "UNBORN_BRANCH", "git switch"),
        (detached, "DETACHED_HEAD", "git switch"),
        (shallow, "SHALLOW_REPOSITORY", "git fetch --unshallow"),
        (partial, "PARTIAL_CLONE", "git fetch --refetch"),
        (sha256, "SHA256_REPOSITORY", "sha1"),
    ],
)
def test_repository_that_cannot_be_published_is_refused_with_the_command_that_helps(
    guts: Guts, control: ScriptedControl, work: Path, tmp_path: Path, make: object, code: str, hint: str
) -> None:
    assert callable(make)
    ran = guts("publish", make(tmp_path, work), "--json")

    assert ran.status == ExitStatus.USAGE
    assert ran.error["code"] == code
    assert hint in str(ran.error["hint"] or "")
    assert control.chains == {}
    assert not guts.paths.author_key.exists()
