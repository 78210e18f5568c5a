"""git's own protocol: what a node answers from its repositories, and what it fetches from others."""

import asyncio
import os
import random
import subprocess
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest

from guts.errors import GutsError
from guts.git.git_requests import BadGitRequest, UnsupportedGitRequest
from guts.git.pkt_line import Mark, encode
from guts.ids import ObjectId, RepositoryId
from guts.limits import DEFAULTS
from guts.node.git_answers import GitAnswer
from guts.sync.goal import NoProviders
from tests.support.fetch_requests import done, fetch_request, response
from tests.support.nodes import SOON, Maintainer, RunningNode, World
from tests.support.repositories import ENVIRONMENT, git

MAX_GIT_PER_PEER = int(DEFAULTS["git_per_peer"])


async def fetched(node: RunningNode, repository: RepositoryId, request: bytes) -> bytes:
    async with node.node.control.upload_pack(repository, request, (), 5.0) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


async def archived(node: RunningNode, repository: RepositoryId, *arguments: str) -> bytes:
    request = b"".join(encode(f"argument {argument}\n".encode()) for argument in arguments) + Mark.FLUSH.value
    async with node.node.control.upload_archive(repository, request, (), 5.0) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


def unpacked(path: Path, pack: bytes) -> Path:
    """Return a new bare repository at ``path`` with the objects of ``pack``."""
    git(path.parent, "init", "-q", "--bare", path.name)
    command = ["git", "index-pack", "--stdin", "--fix-thin", "--strict"]
    subprocess.run(command, cwd=path, env=ENVIRONMENT, input=pack, check=True, capture_output=True)
    return path


async def test_held_repository_is_fetched(world: World, tmp_path: Path) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    answer = response(await fetched(node, maintainer.repository, done(maintainer.tip())))
    clone = await asyncio.to_thread(unpacked, tmp_path / "clone.git", answer.pack)
    assert git(clone, "log", "--format=%s", str(maintainer.tip())) == "first"


async def test_blob_is_fetched_by_its_id_and_a_negotiation_ends_without_a_pack(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    blob = maintainer.tip("HEAD:first")
    answer = response(await fetched(node, maintainer.repository, done(blob)))
    assert answer.pack[:12] == b"PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big")
    unknown = ObjectId(b"\x11" * 20)
    asked = fetch_request(f"want {blob}", f"have {unknown}")
    assert (
        await fetched(node, maintainer.repository, asked) == encode(b"acknowledgments\n") + encode(b"NAK\n") + b"0000"
    )


async def test_held_repository_is_archived(world: World, tmp_path: Path) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    answer = await archived(node, maintainer.repository, "--format=tar", "--prefix=x/", "HEAD")
    assert answer.startswith(b"0008ACK\n0000")
    assert b"x/first" in answer


@pytest.mark.parametrize("argument", ["--output=FILE", "--add-file=/etc/passwd", "--exec=touch FILE", "--remote=."])
async def test_archive_neither_writes_nor_reads_files_nor_runs_programs(
    world: World, tmp_path: Path, argument: str
) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    await maintainer.publish(node)
    arguments = (argument.replace("FILE", str(tmp_path / "made")), "HEAD")
    with pytest.raises(GutsError, match="upload-archive"):
        await archived(node, maintainer.repository, *arguments)
    assert not (tmp_path / "made").exists()


async def test_repository_that_nobody_has_and_a_request_that_is_none_are_refused(world: World) -> None:
    node, maintainer = await world.node("node"), world.maintainer()
    with pytest.raises(NoProviders):
        await fetched(node, maintainer.repository, done(maintainer.tip()))
    await maintainer.publish(node)
    with pytest.raises(BadGitRequest):
        await fetched(node, maintainer.repository, b"")
    with pytest.raises(UnsupportedGitRequest):
        await fetched(node, maintainer.repository, encode(b"command=ls-refs\n") + Mark.FLUSH.value)
    with pytest.raises(NoProviders):
        await archived(node, world.maintainer("other").repository, "HEAD")


async def test_repository_that_is_not_held_is_fetched_from_who_holds_it(world: World, tmp_path: Path) -> None:
    holder, maintainer = await world.node("holder"), world.maintainer()
    await maintainer.publish(holder)
    reader = await world.node("reader", doors=(holder.hint,))
    async with reader.node.control.upload_pack(maintainer.repository, done(maintainer.tip()), (), SOON) as answer:
        found = response(b"".join([chunk async for chunk in answer.chunks]))
        assert answer.notes == []
    clone = await asyncio.to_thread(unpacked, tmp_path / "clone.git", found.pack)
    assert git(clone, "log", "--format=%s", str(maintainer.tip())) == "first"
    assert not reader.bare(maintainer.repository).exists()


async def large(world: World, holder: RunningNode) -> Maintainer:
    """Return a maintainer whose repository takes more than what waits on the way when nobody reads."""
    maintainer = world.maintainer("large")
    maintainer.commit("large", random.Random(7).randbytes(8 << 20))
    await maintainer.publish(holder)
    return maintainer


async def test_one_more_fetch_than_a_holder_answers_waits_for_its_turn(world: World) -> None:
    holder = await world.node("holder")
    maintainer = await large(world, holder)
    reader = await world.node("reader", doors=(holder.hint,))
    request = done(maintainer.tip())

    def fetch() -> AbstractAsyncContextManager[GitAnswer]:
        return reader.node.control.upload_pack(maintainer.repository, request, (), SOON)

    async with AsyncExitStack() as stack:
        for _ in range(MAX_GIT_PER_PEER):
            answer = await stack.enter_async_context(fetch())
            assert await anext(answer.chunks)
        waiting = asyncio.create_task(fetched(reader, maintainer.repository, request))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await stack.aclose()
        assert response(await waiting).whole


async def test_holder_that_stops_in_the_middle_leaves_no_child_and_git_an_error(world: World) -> None:
    before = children()
    holder = await world.node("holder")
    maintainer = await large(world, holder)
    reader = await world.node("reader", doors=(holder.hint,))
    async with reader.node.control.upload_pack(maintainer.repository, done(maintainer.tip()), (), SOON) as answer:
        begun = b""
        while b"PACK" not in begun:
            begun += await anext(answer.chunks)
        assert await holder.stop() < 5
        rest = b"".join([chunk async for chunk in answer.chunks])
    assert b"in the middle of the pack" in rest[-300:]
    assert children() <= before


def children() -> set[str]:
    """Return the children of this process; other tests may have left some that have ended."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
