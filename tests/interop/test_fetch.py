"""What stock git reads: every way to clone, fetch and look."""

import tarfile
from pathlib import Path

import pytest

from tests.e2e.conftest import commit
from tests.interop.conftest import Home, Network, Published, fsck, publish, refs_of, tracked
from tests.support.repositories import git

pytestmark = pytest.mark.interop


def test_clone_is_complete(reader: Home, library: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", library.url)
    clone = tmp_path / "tool"
    expected = refs_of(library.work)
    del expected["refs/notes/commits"]
    assert tracked(clone) == expected
    assert git(clone, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "config", "remote.origin.url") == library.url
    fsck(clone)
    library.settle()


def test_clone_shows_gits_own_progress(reader: Home, library: Published, tmp_path: Path) -> None:
    shown = reader.ok(tmp_path, "clone", "--progress", library.url).err
    assert "remote: Enumerating objects" in shown
    assert "Receiving objects: 100%" in shown


def test_bare_and_mirror_clones_have_every_ref(reader: Home, library: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", "-q", "--bare", library.url, "bare")
    expected = refs_of(library.work)
    assert refs_of(tmp_path / "bare") == {name: oid for name, oid in expected.items() if "notes" not in name}
    reader.ok(tmp_path, "clone", "-q", "--mirror", library.url, "mirror")
    assert refs_of(tmp_path / "mirror") == expected
    fsck(tmp_path / "mirror")


def test_shallow_clone_is_deepened_and_unshallowed(reader: Home, library: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", "-q", "--depth", 1, library.url)
    clone = tmp_path / "tool"
    assert git(clone, "rev-list", "--count", "main") == "1"
    reader.ok(clone, "fetch", "-q", "--deepen", 1)
    assert git(clone, "rev-list", "--count", "main") == "3"
    reader.ok(clone, "fetch", "-q", "--unshallow")
    assert git(clone, "rev-parse", "--is-shallow-repository") == "false"
    assert git(clone, "rev-list", "--count", "main") == git(library.work, "rev-list", "--count", "main")
    fsck(clone)


def test_shallow_since_and_single_branch(reader: Home, library: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", "-q", "--shallow-since", "2001-01-01", library.url, "since")
    assert git(tmp_path / "since", "rev-list", "--count", "main") == git(library.work, "rev-list", "--count", "main")
    reader.ok(tmp_path, "clone", "-q", "--single-branch", "--branch", "topic/side", "--no-tags", library.url, "single")
    assert list(tracked(tmp_path / "single")) == ["refs/heads/topic/side"]
    fsck(tmp_path / "single")


def test_blobless_clone_gets_blobs_when_they_are_needed(reader: Home, library: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", "-q", "--filter=blob:none", "--no-checkout", library.url)
    clone = tmp_path / "tool"
    absent = git(clone, "rev-list", "--objects", "--all", "--missing=print")
    assert "?" in absent
    reader.ok(clone, "checkout", "-q", "main")
    assert (clone / "side").read_text() == "side"
    reader.ok(clone, "log", "-p", "--all")
    assert "?" not in git(clone, "rev-list", "--objects", "main", "--missing=print")


def test_fetch_brings_what_is_new(network: Network, tmp_path: Path, mine: Published) -> None:
    reader = network.lone_home()
    reader.ok(tmp_path, "clone", "-q", mine.url, "clone")
    tip = commit(mine.work, "later")
    git(mine.work, "tag", "-a", "-m", "two", "v2")
    git(mine.work, "branch", "fresh")
    mine.author.ok(mine.work, "push", "-q", "guts", "main", "fresh", "v2")
    mine.settle()
    clone = tmp_path / "clone"
    reader.ok(clone, "fetch", "-q")
    assert git(clone, "rev-parse", "origin/main", "origin/fresh") == f"{tip}\n{tip}"
    # Nobody asked for the tag: git follows it because it knows what it points at.
    assert git(clone, "rev-parse", "v2^{}") == tip
    reader.ok(clone, "pull", "-q", "--ff-only")
    fsck(clone)


def test_ls_remote_works_outside_a_repository(reader: Home, library: Published, tmp_path: Path) -> None:
    shown = reader.ok(tmp_path, "ls-remote", library.url).out.splitlines()
    listed = {name: oid for oid, name in (line.split("\t") for line in shown)}
    refs = refs_of(library.work)
    peeled = {"refs/tags/v1^{}": git(library.work, "rev-parse", "v1^{}")}
    assert listed == {**refs, **peeled, "HEAD": refs["refs/heads/main"]}
    symref = reader.ok(tmp_path, "ls-remote", "--symref", library.url, "HEAD").out
    assert symref.startswith("ref: refs/heads/main\tHEAD\n")


def test_archive_of_a_remote(reader: Home, library: Published, tmp_path: Path) -> None:
    assert "tar" in reader.ok(tmp_path, "archive", f"--remote={library.url}", "--list").out.split()
    reader.ok(tmp_path, "archive", f"--remote={library.url}", "-o", "tool.tar", "main")
    with tarfile.open(tmp_path / "tool.tar") as archive:
        assert sorted(archive.getnames()) == ["one", "side", "three", "two"]


def test_submodules_come_along(reader: Home, network: Network, library: Published, tmp_path: Path) -> None:
    work = tmp_path / "super"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    author = network.home(4)
    author.ok(work, "submodule", "--quiet", "add", library.url, "lib")
    author.ok(work, "commit", "-q", "-m", "with a submodule")
    outer = publish(network, work)
    reader.ok(tmp_path, "clone", "-q", "--recurse-submodules", f"guts://{outer.repository}/outer")
    assert (tmp_path / "outer" / "lib" / "side").read_text() == "side"
    outer.settle()


def test_empty_repository_can_be_cloned_and_filled(network: Network, reader: Home, tmp_path: Path) -> None:
    work = tmp_path / "empty"
    work.mkdir()
    git(work, "init", "-q", "-b", "trunk")
    author = network.home(4)
    empty = publish(network, work)
    shown = reader.ok(tmp_path, "clone", f"guts://{empty.repository}/copy").err
    assert "appear to have cloned an empty repository" in shown
    assert git(tmp_path / "copy", "symbolic-ref", "HEAD") == "refs/heads/trunk"
    commit(work, "first")
    author.ok(work, "push", "-q", "guts", "trunk")
    empty.settle()
    reader.ok(tmp_path / "copy", "pull", "-q")
    assert (tmp_path / "copy" / "first").exists()


def test_five_thousand_refs(reader: Home, network: Network, many: Published, tmp_path: Path) -> None:
    shown = reader.ok(tmp_path, "ls-remote", "--heads", many.url).out.splitlines()
    assert len(shown) == 5000
    reader.ok(tmp_path, "clone", "-q", many.url)
    assert tracked(tmp_path / "tool") == refs_of(many.work)
    fsck(tmp_path / "tool")


def test_blob_of_a_hundred_mebibytes(reader: Home, big: Published, tmp_path: Path) -> None:
    reader.ok(tmp_path, "clone", "-q", big.url)
    assert tracked(tmp_path / "tool") == refs_of(big.work)
    fsck(tmp_path / "tool")
