"""What can be published, and what is said where it can't."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from guts.errors import UsageError
from guts.git.repository import BareRepository
from guts.git.source import (
    AmbiguousRepository,
    CloneFailed,
    DetachedHead,
    NotAGitDirectory,
    PartialClone,
    ShallowRepository,
    SourceRefs,
    SourceRepository,
    UnbornBranch,
    UnsupportedObjectFormat,
    clone_from,
    git_directory,
    published_as,
)
from guts.ids import RepositoryId
from tests.support.repositories import ENVIRONMENT, git, make_repository


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"):
        monkeypatch.setenv(name, ENVIRONMENT[name])


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "work", 100, seed=5, bare=False)


def absent(base: Path) -> Path:
    return base / "absent"


def plain_directory(base: Path) -> Path:
    (base / "plain").mkdir()
    return base / "plain"


def empty(base: Path) -> Path:
    git(base, "init", "-q", "empty")
    return base / "empty"


def shallow(base: Path) -> Path:
    git(base, "clone", "-q", "--depth=1", f"file://{base}/work", "shallow")
    return base / "shallow"


def partial(base: Path) -> Path:
    git(base / "work", "config", "uploadpack.allowFilter", "true")
    git(base, "clone", "-q", "--filter=blob:none", f"file://{base}/work", "partial")
    return base / "partial"


def sha256(base: Path) -> Path:
    git(base, "init", "-q", "--object-format=sha256", "sha256")
    return base / "sha256"


def detached(base: Path) -> Path:
    git(base / "work", "switch", "-q", "--detach")
    return base / "work"


def orphan(base: Path) -> Path:
    git(base / "work", "switch", "-q", "--orphan", "new")
    return base / "work"


@pytest.mark.parametrize(
    ("make", "fault", "hint"),
    [
        (absent, NotAGitDirectory, None),
        (plain_directory, NotAGitDirectory, "git init"),
        (shallow, ShallowRepository, "git fetch --unshallow"),
        (partial, PartialClone, "git fetch --refetch origin"),
        (sha256, UnsupportedObjectFormat, "sha1"),
        (detached, DetachedHead, "git switch"),
        (orphan, UnbornBranch, "git switch"),
    ],
)
async def test_says_what_can_not_be_published_and_what_helps(
    work: Path, make: Callable[[Path], Path], fault: type[UsageError], hint: str | None
) -> None:
    with pytest.raises(fault) as caught:
        await SourceRepository.open(make(work.parent))
    assert (hint or "") in (caught.value.hint or "")


async def test_empty_repository_offers_its_head_and_nothing_else(work: Path) -> None:
    source = await SourceRepository.open(empty(work.parent))
    git(source.path, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert await source.refs() == SourceRefs({}, "refs/heads/trunk")


async def test_remote_says_which_repository_a_clone_is_of(work: Path) -> None:
    source = await SourceRepository.open(work)
    one, two = (str(RepositoryId(bytes([number]) * 32)) for number in (1, 2))
    await source.add_remote(f"guts://{one}/tool")
    assert git(work, "remote", "get-url", "guts") == f"guts://{one}/tool"
    assert await source.repository() == one
    await source.add_remote(f"guts://{two}/tool")
    assert git(work, "remote", "get-url", "guts") == f"guts://{two}/tool"
    git(work, "remote", "rename", "guts", "origin")
    await source.add_remote(f"guts://{two}")
    assert git(work, "remote") == "origin"
    git(work, "remote", "add", "other", f"guts:{one}")
    with pytest.raises(AmbiguousRepository, match="2 repositories"):
        await source.repository()
    git(work, "config", "guts.repository", two)
    assert await source.repository() == two


@pytest.mark.parametrize("make", [shallow, partial])
async def test_the_hint_helps(work: Path, make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(work.parent)
    with pytest.raises(UsageError) as caught:
        await SourceRepository.open(path)
    assert caught.value.hint is not None
    for command in caught.value.hint.split(" && "):
        git(path, *command.split()[1:])
    source = await SourceRepository.open(path)
    shutil.move(work, tmp_path / "gone")
    async with source.pack((await source.refs()).refs.values()) as pack:
        assert [chunk async for chunk in pack]


async def test_publishes_from_anywhere_inside_and_clones(work: Path, tmp_path: Path) -> None:
    git(work, "tag", "-a", "-m", "x", "v1")
    git(work, "notes", "add", "-m", "n")
    git(work, "update-ref", "refs/remotes/origin/x", "HEAD")
    hook = work / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    source = await SourceRepository.open(work / "src")
    offered = await source.refs()
    assert offered.head == "refs/heads/main"
    assert set(offered.refs) == {"refs/heads/main", "refs/tags/v1", "refs/notes/commits"}
    bare = await BareRepository.create(tmp_path / "bare.git")
    async with source.pack(set(offered.refs.values())) as pack, bare.quarantine() as quarantine:
        await quarantine.index(pack)
        await quarantine.check(set(offered.refs.values()))
        await quarantine.migrate()
    await bare.project(offered.refs, offered.head)
    assert await source.repository() is None
    await source.set_repository("repo1x")
    assert await source.repository() == "repo1x"
    assert not (tmp_path / "hooked").exists()
    await clone_from(bare.path, tmp_path / "clone", "guts://repo1x/name")
    assert git(tmp_path / "clone", "remote", "get-url", "origin") == "guts://repo1x/name"
    assert git(tmp_path / "clone", "rev-parse", "HEAD") == str(offered.refs["refs/heads/main"])
    with pytest.raises(CloneFailed):
        await clone_from(bare.path, tmp_path / "clone", "guts://repo1x")
    with pytest.raises(CloneFailed):
        await clone_from(bare.path, tmp_path / "other", "guts://repo1x", branch="absent")


async def test_git_directory_is_found_from_below_and_shared_by_work_trees(work: Path) -> None:
    (work / "below").mkdir()
    git(work, "worktree", "add", "-q", str(work.parent / "tree"))
    for place in (work, work / "below", work.parent / "tree"):
        found = await git_directory(place)
        assert found.is_absolute()
        assert found.resolve() == (work / ".git").resolve()
    for place in (work.parent, absent(work)):
        with pytest.raises(NotAGitDirectory):
            await git_directory(place)


async def test_what_a_repository_is_in_the_network_is_told_by_its_settings(work: Path) -> None:
    assert await published_as(work) is None
    git(work, "remote", "add", "elsewhere", "https://example.org/tool")
    git(work, "remote", "add", "origin", "guts://one/tool")
    assert await published_as(work) == "guts://one/tool"
    git(work, "remote", "add", "other", "guts://two/tool")
    assert await published_as(work) is None
    git(work, "config", "guts.repository", "three")
    assert await published_as(work) == "three"
