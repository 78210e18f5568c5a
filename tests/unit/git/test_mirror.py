"""What a clone has of its remote, and what a stranger's mirror shows: real git, and servers that are no git at all."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.git import mirror as module
from guts.git.mirror import (
    Clone,
    MirrorFailed,
    NoSuchRemote,
    Refs,
    Refspec,
    Remote,
    ancestors,
    list_mirror,
    view_of_clone,
    view_of_mirror,
)
from guts.git.source import NotAGitDirectory, UnsupportedObjectFormat
from guts.ids import ObjectId
from tests.support.repositories import git

SIGNED = ("refs/heads/", "refs/tags/", "refs/notes/", "refs/guts/conflict/")
ONE, TWO = ObjectId(bytes([1]) * 20), ObjectId(bytes([2]) * 20)


@pytest.mark.parametrize(
    ("refspec", "here", "there"),
    [
        ("+refs/heads/*:refs/remotes/origin/*", "refs/remotes/origin/a/b", "refs/heads/a/b"),
        ("+refs/heads/*:refs/remotes/origin/*", "refs/remotes/other/a", None),
        ("refs/heads/*:refs/remotes/origin/*", "refs/heads/a", None),
        ("+refs/*:refs/*", "refs/notes/commits", "refs/notes/commits"),
        ("+refs/heads/main:refs/remotes/origin/main", "refs/remotes/origin/main", "refs/heads/main"),
        ("+refs/heads/main:refs/remotes/origin/main", "refs/remotes/origin/main2", None),
        ("+refs/heads/a*z:refs/remotes/origin/a*z", "refs/remotes/origin/abcz", "refs/heads/abcz"),
        ("+refs/heads/a*az:refs/remotes/origin/a*az", "refs/remotes/origin/az", None),
        ("refs/heads/main", "refs/heads/main", None),
        ("^refs/heads/wip/*", "refs/heads/wip/a", None),
    ],
)
def test_refspec_tells_where_a_ref_came_from(refspec: str, here: str, there: str | None) -> None:
    assert Refspec.parse(refspec).fetched_from(here) == there


def test_remote_expects_what_its_refspecs_cover() -> None:
    specs = tuple(map(Refspec.parse, ("+refs/heads/*:refs/remotes/o/*", "^refs/heads/wip/*")))
    remote = Remote("o", "url", specs, all_tags=True)
    assert remote.expects("refs/heads/main")
    assert not remote.expects("refs/heads/wip/a")
    assert remote.expects("refs/tags/v1")
    assert not Remote("o", "url", specs, all_tags=False).expects("refs/tags/v1")
    assert not remote.expects("refs/notes/commits")


def test_view_of_a_clone_is_in_the_remotes_names() -> None:
    refs = Refs(
        {
            "refs/heads/main": TWO,
            "refs/remotes/origin/main": ONE,
            "refs/remotes/other/main": TWO,
            "refs/tags/v1": ONE,
            "refs/notes/commits": TWO,
            "refs/stash": TWO,
        },
        {"HEAD": "refs/heads/mine", "refs/remotes/origin/HEAD": "refs/remotes/origin/main"},
    )
    remote = Remote("origin", "url", (Refspec.parse("+refs/heads/*:refs/remotes/origin/*"),), all_tags=True)
    view = view_of_clone(refs, remote, SIGNED)
    assert view.there == {"refs/heads/main": ONE, "refs/tags/v1": ONE}
    assert view.head == "refs/heads/main"
    assert view.own == {"refs/heads/main": TWO, "refs/notes/commits": TWO}


def test_view_of_a_mirror_clone_has_all_of_it() -> None:
    refs = Refs({"refs/heads/main": ONE, "refs/pull/1/head": TWO, "refs/notes/n": TWO}, {"HEAD": "refs/heads/main"})
    view = view_of_clone(refs, Remote("origin", "url", (Refspec.parse("+refs/*:refs/*"),), all_tags=True), SIGNED)
    assert view == view_of_mirror(refs, SIGNED)
    assert (view.there, view.head) == ({"refs/heads/main": ONE, "refs/notes/n": TWO}, "refs/heads/main")
    assert (view.own, view.elsewhere) == ({}, 1)


async def test_clone_tells_its_remotes_and_refs(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    clone = await Clone.open(tmp_path)
    assert (clone.bare, clone.remote(), clone.repository) == (False, None, None)
    assert (await clone.refs()).symbolic == {"HEAD": "refs/heads/main"}
    git(tmp_path, "remote", "add", "up", "https://example.invalid/up")
    git(tmp_path, "config", "guts.repository", "repo1x")
    git(tmp_path, "config", "remote.up.tagOpt", "--no-tags")
    clone = await Clone.open(tmp_path)
    remote = clone.remote()
    assert remote is not None
    assert (remote.name, remote.all_tags, clone.repository) == ("up", False, "repo1x")
    git(tmp_path, "remote", "add", "down", "https://example.invalid/down")
    with pytest.raises(NoSuchRemote, match="which remote"):
        (await Clone.open(tmp_path)).remote()
    git(tmp_path, "remote", "add", "origin", "https://example.invalid/origin")
    git(tmp_path, "switch", "-q", "--detach")
    clone = await Clone.open(tmp_path)
    chosen = clone.remote()
    assert chosen is not None
    assert chosen.name == "origin"
    assert (await clone.refs()).symbolic == {}
    with pytest.raises(NoSuchRemote, match="no remote 'x'"):
        clone.remote("x")


async def test_symbolic_refs_are_refs_too(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    for name in ("refs/heads/evil", "refs/tags/v9", "refs/remotes/origin/HEAD"):
        git(tmp_path, "symbolic-ref", name, "refs/heads/main")
    refs = await (await Clone.open(tmp_path)).refs()
    assert set(refs.oids) == {"refs/heads/main", "refs/heads/evil", "refs/tags/v9"}
    assert refs.oids == {name: ObjectId(bytes.fromhex(git(tmp_path, "rev-parse", name))) for name in refs.oids}
    assert set(view_of_mirror(refs, SIGNED).there) == set(refs.oids)


async def test_head_on_no_branch_is_told_and_who_made_what_it_is_at(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "origin")
    origin, work = tmp_path / "origin", tmp_path / "work"
    git(origin, "commit", "-q", "--allow-empty", "-m", "one")
    one = ObjectId(bytes.fromhex(git(origin, "rev-parse", "main")))
    refs = await list_mirror(str(origin), 10)
    assert (refs.head, view_of_mirror(refs, SIGNED).head_oid) == (one, one)
    git(origin, "switch", "-q", "--detach")
    git(origin, "commit", "-q", "--allow-empty", "-m", "evil")
    evil = ObjectId(bytes.fromhex(git(origin, "rev-parse", "HEAD")))
    for refs in (await list_mirror(str(origin), 10), await (await Clone.open(origin)).refs()):
        view = view_of_mirror(refs, SIGNED)
        assert (view.head, view.head_oid, view.detached) == (None, evil, None)

    async def seen() -> tuple[ObjectId | None, bool]:
        clone = await Clone.open(work)
        remote = clone.remote()
        assert remote is not None
        view = view_of_clone(await clone.refs(), remote, SIGNED)
        assert view.head_oid is None
        return view.detached, view.made_here

    git(tmp_path, "-c", "advice.detachedHead=false", "clone", "-q", str(origin), str(work))
    assert await seen() == (evil, False)
    git(work, "commit", "-q", "--allow-empty", "-m", "mine")
    assert await seen() == (ObjectId(bytes.fromhex(git(work, "rev-parse", "HEAD"))), True)
    git(work, "switch", "-q", "--detach", "HEAD~1")
    assert await seen() == (evil, False)
    git(work, "switch", "-q", "main")
    assert (await seen())[0] is None
    git(work, "symbolic-ref", "HEAD", "refs/remotes/origin/main")
    assert await seen() == (one, False)
    git(work, "symbolic-ref", "HEAD", "refs/heads/unborn")
    assert (await seen())[0] is None


async def test_what_disguises_objects_is_told_and_believed_by_nobody(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "remote", "add", "origin", "https://example.invalid/origin")
    for name in ("one", "two"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", name)
    one, two = (ObjectId(bytes.fromhex(git(tmp_path, "rev-parse", name))) for name in ("main~1", "main"))
    apart = ObjectId(bytes.fromhex(git(tmp_path, "commit-tree", "main^{tree}", "-m", "apart")))
    clone = await Clone.open(tmp_path)
    assert (await clone.refs()).disguises == {}
    assert await ancestors(tmp_path, [(one, apart)]) == set()

    for how in ("replace", "grafts"):
        if how == "replace":
            git(tmp_path, "replace", str(apart), str(two))
            disguises: dict[str, ObjectId | None] = {f"refs/replace/{apart}": two}
        else:
            git(tmp_path, "replace", "-d", str(apart))
            (tmp_path / ".git/info/grafts").write_text(f"{apart} {two}\n")
            disguises = {"info/grafts": None}
        assert git(tmp_path, "rev-list", str(apart)).split()[-1] == str(one)  # it works
        refs, remote = await clone.refs(), clone.remote()
        assert remote is not None
        for view in (view_of_clone(refs, remote, SIGNED), view_of_mirror(refs, SIGNED)):
            assert (view.disguises, view.elsewhere) == (disguises, 0)
        assert await ancestors(tmp_path, [(one, apart)]) == set()


async def test_what_is_no_clone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAGitDirectory):
        await Clone.open(tmp_path)
    git(tmp_path, "init", "-q", "--object-format=sha256")
    with pytest.raises(UnsupportedObjectFormat):
        await Clone.open(tmp_path)


async def test_ancestors_that_are_not_there_are_not_known(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", name)
    new, old = (ObjectId(bytes.fromhex(git(tmp_path, "rev-parse", ref))) for ref in ("main", "main~1"))
    assert await ancestors(tmp_path, [(old, new), (new, old), (ONE, new), (old, TWO)]) == {(old, new)}
    assert await ancestors(tmp_path, [(ONE, TWO)]) == set()


async def test_ancestors_in_a_partial_clone_fetch_nothing(tmp_path: Path) -> None:
    source, clone = tmp_path / "source", tmp_path / "clone"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    git(source, "config", "uploadpack.allowFilter", "true")
    git(source, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(source, "commit", "-q", "--allow-empty", "-m", "one")
    git(tmp_path, "clone", "-q", "--filter=tree:0", "--no-checkout", f"file://{source}", str(clone))
    old = ObjectId(bytes.fromhex(git(source, "rev-parse", "main")))
    git(source, "commit", "-q", "--allow-empty", "-m", "two")
    new = ObjectId(bytes.fromhex(git(source, "rev-parse", "main")))
    assert await ancestors(clone, [(old, new)]) == set()


async def test_mirror_shows_refs_head_and_no_peeled_tags(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    git(tmp_path, "tag", "-a", "v1", "-m", "One")
    refs = await list_mirror(str(tmp_path), 10)
    assert {name: str(oid) for name, oid in refs.oids.items()} == {
        "refs/heads/main": git(tmp_path, "rev-parse", "main"),
        "refs/tags/v1": git(tmp_path, "rev-parse", "v1"),
    }
    assert refs.symbolic == {"HEAD": "refs/heads/main"}


@pytest.mark.parametrize("url", ["ext::touch {here}/ran", "fd::0", "--upload-pack=touch {here}/ran", "x::y"])
async def test_mirror_runs_no_program_of_its_choice(tmp_path: Path, url: str) -> None:
    with pytest.raises(MirrorFailed):
        await list_mirror(url.format(here=tmp_path), 10)
    assert list(tmp_path.iterdir()) == []


async def test_mirror_with_other_objects_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", "--object-format=sha256")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    with pytest.raises(MirrorFailed, match="other objects than SHA-1"):
        await list_mirror(str(tmp_path), 10)


async def test_mirror_that_lists_too_much_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    listing = len(f"ref: refs/heads/main\tHEAD\n{ONE}\tHEAD\n{ONE}\trefs/heads/main\n")
    monkeypatch.setattr(module, "MAX_LISTING_BYTES", listing)
    assert len((await list_mirror(str(tmp_path), 10)).oids) == 1
    monkeypatch.setattr(module, "MAX_LISTING_BYTES", listing - 1)
    with pytest.raises(MirrorFailed, match="lists more than"):
        await list_mirror(str(tmp_path), 10)


@contextlib.contextmanager
def answering(data: bytes | None) -> Iterator[str]:
    """Be a server for one connection, which sends ``data``, or nothing, and stays."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                connection.recv(1024)
                if data is not None:
                    connection.sendall(data)
                while connection.recv(1024):  # who closes first kills git by SIGPIPE
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"git://127.0.0.1:{listener.getsockname()[1]}/tool.git"
        finally:
            thread.join()


async def test_mirror_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with answering(None) as url:
        begun = time.monotonic()
        with pytest.raises(MirrorFailed, match=r"did not tell its refs within 1 s"):
            await list_mirror(url, 1)
        assert time.monotonic() - begun < 5
        assert len(asyncio.all_tasks()) == 1


async def test_mirror_that_talks_nonsense_fails_in_one_line() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n\x1b[2J") as url, pytest.raises(MirrorFailed) as caught:
        await list_mirror(url, 10)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def advertised(*refs: tuple[ObjectId, str]) -> bytes:
    """Return what a git server says first that has ``refs``; names may be repeated."""
    lines = [f"{oid} {name}" for oid, name in refs]
    lines[0] += "\0 agent=x"
    return b"".join(b"%04x%b\n" % (len(line) + 5, line.encode()) for line in lines) + b"0000"


@pytest.mark.parametrize(
    "data",
    [
        advertised((ONE, "HEAD"), (ONE, "refs/heads/main"), (TWO, "refs/heads/main")),
        advertised((ONE, "HEAD"), (TWO, "HEAD"), (ONE, "refs/heads/main")),
    ],
    ids=["branch", "HEAD"],
)
async def test_mirror_that_lists_a_name_twice_is_refused(data: bytes) -> None:
    with answering(data) as url, pytest.raises(MirrorFailed, match=r"lists (refs/heads/main|HEAD) twice"):
        await list_mirror(url, 10)


async def test_name_that_is_repeated_with_one_value_counts_once() -> None:
    with answering(advertised((ONE, "refs/heads/main"), (ONE, "refs/heads/main"))) as url:
        assert (await list_mirror(url, 10)).oids == {"refs/heads/main": ONE}


async def test_names_that_move_a_terminal_come_as_they_are_and_are_not_signed() -> None:
    name = b"refs/heads/\x1b[31mred\xff"
    line = b"%b %b\0 agent=x\n" % (b"1" * 40, name)
    packet = b"%04x%b0000" % (len(line) + 4, line)
    with answering(packet) as url:
        refs = await list_mirror(url, 10)
    assert set(refs.oids) == {name.decode(errors="surrogateescape")}
