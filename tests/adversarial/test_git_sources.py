"""Holders that answer git's own protocol as no honest one does: git gets the truth from another, or an error."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from guts.api.server import control_server
from guts.git.pkt_line import encode, on_band
from guts.net.stream import Stream
from guts.node.limits import Patience
from guts.wire.messages import EncodedRefs, Error, ErrorCode, GitService, RefsAnswer, RefsStatus, ResetCode
from tests.support.bad_peer import BadHolder, BadPeer, Offer, pack_of
from tests.support.nodes import SOON, Maintainer, RunningNode, World, eventually
from tests.support.repositories import ENVIRONMENT, git

FLUSH = b"0000"
PACKFILE = encode(b"packfile\n")
IMPATIENT = Patience(first_byte=1.0, stall=1.0, preparing=2.0)

Lie = Callable[[Stream, Maintainer], Awaitable[None]]


class LyingHolder(BadHolder):
    """Tells the refs that are true, and answers git with ``lie``."""

    def __init__(self, offer: Offer, maintainer: Maintainer, lie: Lie) -> None:
        super().__init__(offer)
        self.maintainer = maintainer
        self.lie = lie
        self.served = 0
        self.busy = 0
        """Requests that it puts off."""

    async def answer_git(self, peer: BadPeer, message: GitService) -> None:
        stream = peer.connection.stream(message.stream)
        self.served += 1
        if self.served <= self.busy:
            peer.send(Error(message.request, ErrorCode.BUSY, "busy", 5))
            stream.reset(ResetCode.LIMIT)
            return
        while await stream.read(65_536):
            pass
        await self.lie(stream, self.maintainer)


@dataclass
class Scene:
    """A reader that holds nothing, and a liar that it knows and asks first; perhaps an honest holder too."""

    reader: RunningNode
    liar: LyingHolder
    maintainer: Maintainer
    home: Path

    async def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run git with the helper of this installation, against the reader's control socket."""
        environ = {
            **ENVIRONMENT,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GUTS_HOME": str(self.reader.home),
            "GIT_ALLOW_PROTOCOL": "guts",
        }
        command = ["git", *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, cwd=self.home, env=environ, capture_output=True, text=True, check=False
        )

    async def clone(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Clone into ``clone``."""
        return await self.git("clone", *options, f"guts://{self.maintainer.repository}", "clone")


@contextlib.asynccontextmanager
async def scene(world: World, lie: Lie, *, honest: bool = True, patience: Patience = IMPATIENT) -> AsyncIterator[Scene]:
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    maintainer.commit("second")
    await maintainer.publish(publisher)
    stored = await publisher.node.repositories.stored(maintainer.repository)
    assert stored is not None
    records = tuple(EncodedRefs(refs.header, refs.entries) for refs in stored.signed_refs)
    offer = Offer(RefsAnswer(maintainer.repository, RefsStatus.HELD, (maintainer.genesis,), (), records), b"")
    reader = await world.node("reader", patience=patience)
    home = world.root / "person"
    home.mkdir()
    async with (
        LyingHolder(offer, maintainer, lie).listening() as liar,
        control_server(reader.node.control, reader.config.paths.control_socket),
    ):
        assert isinstance(liar, LyingHolder)
        for holder in [liar.hint, *([publisher.hint] if honest else [])]:
            await reader.node.control.connect(holder, SOON)
            assert holder.peer is not None
            # Of two that are as new, whoever was known first is asked first.
            reader.node.control._service.peers.state(holder.peer).holds(maintainer.repository)
        yield Scene(reader, liar, maintainer, home)


async def refuses(stream: Stream, _: Maintainer) -> None:
    stream.reset(ResetCode.REFUSED)


async def is_stale(stream: Stream, maintainer: Maintainer) -> None:
    await stream.write(encode(f"ERR upload-pack: not our ref {maintainer.tip()}".encode()))
    await stream.end()


async def says_nothing(stream: Stream, _: Maintainer) -> None:
    await eventually(lambda: stream.done)


async def hangs_up(stream: Stream, _: Maintainer) -> None:
    await stream.end()


async def talks_garbage(stream: Stream, _: Maintainer) -> None:
    await stream.write(b"\x1b[2J" * 1000)
    await stream.end()


async def cuts_history_off(stream: Stream, maintainer: Maintainer) -> None:
    shallow = encode(b"shallow-info\n") + encode(f"shallow {maintainer.tip()}".encode()) + b"0001"
    pack = pack_of(maintainer.path, maintainer.tip(), without=(maintainer.tip("HEAD~1"),))
    await stream.write(shallow + PACKFILE + b"".join(on_band(1, pack)) + FLUSH)
    await stream.end()


async def gives_an_empty_pack(stream: Stream, maintainer: Maintainer) -> None:
    empty = pack_of(maintainer.path, maintainer.tip(), without=(maintainer.tip(),))
    await stream.write(PACKFILE + b"".join(on_band(1, empty)) + FLUSH)
    await stream.end()


async def sends_elsewhere(stream: Stream, _: Maintainer) -> None:
    await stream.write(encode(b"packfile-uris\n") + encode(b"1" * 40 + b" http://127.0.0.1:9/") + b"0001")
    await stream.end()


@pytest.mark.parametrize(
    ("lie", "why", "fault"),
    [
        (refuses, "it does not answer such a request", None),
        (is_stale, "upload-pack: not our ref", None),
        (says_nothing, "nothing came for 1 s", None),
        (hangs_up, "it ended in the middle", None),
        (talks_garbage, "is not the length of a packet", "BAD_PKT_LINE"),
        (cuts_history_off, "it says that its history is cut off", "BAD_GIT_ANSWER"),
        (gives_an_empty_pack, "it gives none of the objects", "BAD_GIT_ANSWER"),
        (sends_elsewhere, "a section 'packfile-uris'", "BAD_GIT_ANSWER"),
    ],
)
async def test_git_clones_from_the_next_holder(world: World, lie: Lie, why: str, fault: str | None) -> None:
    async with scene(world, lie) as stage:
        cloned = await stage.clone()
        assert cloned.returncode == 0, cloned.stderr
        assert stage.liar.served == 1
        [line] = [line for line in cloned.stderr.splitlines() if "going on with" in line]
        assert line.startswith(f"guts: {stage.liar.key.peer_id.short} failed (")
        assert why in line
        clone = stage.home / "clone"
        assert git(clone, "log", "--format=%s") == "second\nfirst"
        git(clone, "fsck", "--full", "--strict")
        assert not (clone / ".git" / "shallow").exists()
        assert "\x1b" not in cloned.stderr
        assert await stage.reader.reasons(stage.liar.key.peer_id) == ([fault] if fault else [])


async def prepares_for_ever(stream: Stream, _: Maintainer) -> None:
    await stream.write(PACKFILE)
    while True:
        await stream.write(b"".join(on_band(2, b"Counting objects: \x1b[31m1%\r")) * 50)
        await asyncio.sleep(0.1)


async def dies_while_it_prepares(stream: Stream, _: Maintainer) -> None:
    await stream.write(PACKFILE + b"".join(on_band(2, b"Counting objects: 1%\r")))
    await asyncio.sleep(0.2)
    stream.reset(ResetCode.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("lie", "why"), [(prepares_for_ever, "its pack does not begin"), (dies_while_it_prepares, "it broke off")]
)
async def test_git_goes_on_with_the_next_holder_in_the_middle_of_the_progress(world: World, lie: Lie, why: str) -> None:
    async with scene(world, lie) as stage:
        cloned = await stage.clone("--progress")
        assert cloned.returncode == 0, cloned.stderr
        assert f"remote: guts: {stage.liar.key.peer_id.short} failed ({why}); going on with" in cloned.stderr
        assert "\x1b" not in cloned.stderr
        assert git(stage.home / "clone", "log", "--format=%s") == "second\nfirst"


async def gives_another_pack(stream: Stream, maintainer: Maintainer) -> None:
    other = maintainer.path.parent / "other"
    if not other.exists():
        other.mkdir()
        git(other, "init", "-q")
        git(other, "commit", "-q", "--allow-empty", "-m", "evil")
    pack = subprocess.run(
        ["git", "pack-objects", "--all", "--stdout", "-q"],
        cwd=other, env=ENVIRONMENT, check=True, capture_output=True, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip
    await stream.write(PACKFILE + b"".join(on_band(1, pack)) + FLUSH)
    await stream.end()


async def leaves_the_first_commit_out(stream: Stream, maintainer: Maintainer) -> None:
    pack = pack_of(maintainer.path, maintainer.tip(), without=(maintainer.tip("HEAD~1"),))
    await stream.write(PACKFILE + b"".join(on_band(1, pack)) + FLUSH)
    await stream.end()


async def damages_the_pack(stream: Stream, maintainer: Maintainer) -> None:
    pack = bytearray(pack_of(maintainer.path, maintainer.tip()))
    pack[len(pack) // 2] ^= 1
    await stream.write(PACKFILE + b"".join(on_band(1, bytes(pack))) + FLUSH)
    await stream.end()


@pytest.mark.parametrize("lie", [gives_another_pack, leaves_the_first_commit_out, damages_the_pack])
async def test_wrong_pack_makes_the_clone_fail_and_the_next_clone_goes_elsewhere(world: World, lie: Lie) -> None:
    async with scene(world, lie) as stage:
        cloned = await stage.clone()
        assert cloned.returncode == 128, cloned.stderr
        assert "fatal:" in cloned.stderr
        assert not (stage.home / "clone").exists()
        cloned = await stage.clone()
        assert cloned.returncode == 0, cloned.stderr
        assert stage.liar.served == 1
        assert git(stage.home / "clone", "log", "--format=%s") == "second\nfirst"


@pytest.mark.parametrize("lie", [gives_another_pack, leaves_the_first_commit_out, damages_the_pack])
async def test_wrong_pack_makes_the_fetch_fail_and_moves_no_ref(world: World, lie: Lie) -> None:
    async with scene(world, lie) as stage:
        target = stage.home / "target"
        target.mkdir()
        git(target, "init", "-q", "-b", "main")
        url = f"guts://{stage.maintainer.repository}"
        fetched = await stage.git("-C", "target", "fetch", url, "refs/heads/main:refs/remotes/origin/main")
        assert fetched.returncode != 0
        assert git(target, "for-each-ref") == ""


async def breaks_off_in_the_pack(stream: Stream, maintainer: Maintainer) -> None:
    pack = pack_of(maintainer.path, maintainer.tip())
    await stream.write(PACKFILE + b"".join(on_band(1, pack[:-30])))
    await asyncio.sleep(0.2)
    stream.reset(ResetCode.INTERNAL_ERROR)


async def stalls_in_the_pack(stream: Stream, maintainer: Maintainer) -> None:
    pack = pack_of(maintainer.path, maintainer.tip())
    await stream.write(PACKFILE + b"".join(on_band(1, pack[:-30])))
    await eventually(lambda: stream.done)


async def ends_in_the_pack(stream: Stream, maintainer: Maintainer) -> None:
    pack = pack_of(maintainer.path, maintainer.tip())
    await stream.write(PACKFILE + b"".join(on_band(1, pack[:-30])))
    await stream.end()


@pytest.mark.parametrize("lie", [breaks_off_in_the_pack, stalls_in_the_pack, ends_in_the_pack])
async def test_pack_that_breaks_off_is_an_error_that_names_the_holder(world: World, lie: Lie) -> None:
    async with scene(world, lie) as stage:
        cloned = await stage.clone()
        assert cloned.returncode == 128, cloned.stderr
        name = stage.liar.key.peer_id.short
        assert f"guts: {name} broke off in the middle of the pack" in cloned.stderr
        assert not (stage.home / "clone").exists()


async def test_clone_fails_with_every_reason_where_no_holder_answers(world: World) -> None:
    async with scene(world, is_stale, honest=False) as stage:
        cloned = await stage.clone()
        assert cloned.returncode == 128
        assert f"{stage.liar.key.peer_id.short}: upload-pack: not our ref" in cloned.stderr
        assert not (stage.home / "clone").exists()


async def gives_what_is_wanted(stream: Stream, maintainer: Maintainer) -> None:
    pack = pack_of(maintainer.path, maintainer.tip())
    await stream.write(PACKFILE + b"".join(on_band(1, pack)) + FLUSH)
    await stream.end()


async def test_busy_holder_is_asked_again(world: World) -> None:
    async with scene(world, gives_what_is_wanted, honest=False) as stage:
        stage.liar.busy = 1
        cloned = await stage.clone()
        assert cloned.returncode == 0, cloned.stderr
        assert stage.liar.served == 2
        await eventually(lambda: not stage.liar.peers[0].connection._streams)
