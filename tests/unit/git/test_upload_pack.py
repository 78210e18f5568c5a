"""git's own servers over a repository of the node: one request, one child, one answer."""

import asyncio
import os
from pathlib import Path

import pytest

from guts.git.command import Git, GitFailed
from guts.git.git_requests import ArchiveRequest, FetchRequest
from guts.git.pkt_line import Mark, encode
from guts.git.repository import BareRepository
from guts.git.upload_pack import MAX_TREE_DEPTH, upload_archive, upload_pack
from tests.support.fetch_requests import Response, done, fetch_request, response
from tests.unit.git.conftest import Made


async def fetched(repository: BareRepository, request: bytes) -> bytes:
    async with upload_pack(repository, FetchRequest.parse(request)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def archived(repository: BareRepository, *arguments: str) -> bytes:
    request = b"".join(encode(f"argument {argument}\n".encode()) for argument in arguments) + Mark.FLUSH.value
    async with upload_archive(repository, ArchiveRequest.parse(request)) as chunks:
        return b"".join([chunk async for chunk in chunks])


def objects(answer: Response) -> int:
    return int.from_bytes(answer.pack[8:12], "big")


async def test_clone_has_the_same_objects_as_the_pack_of_pack_objects(made: Made) -> None:
    repository = BareRepository(made.path, Git())
    answer = response(await fetched(repository, done(*made.tips)))
    assert answer.whole
    assert objects(answer) == int.from_bytes(made.pack[8:12], "big")
    assert b"Counting objects" in answer.progress


async def test_what_the_client_has_is_left_out(made: Made) -> None:
    repository = BareRepository(made.path, Git())
    tip = made.refs["refs/heads/main"]
    assert objects(response(await fetched(repository, done(tip, haves=(tip,))))) == 0


@pytest.mark.parametrize("more", [0, 1])
async def test_tree_filter_goes_so_deep_and_no_deeper(made: Made, more: int) -> None:
    repository = BareRepository(made.path, Git())
    request = fetch_request(f"want {made.refs['refs/heads/main']}", f"filter tree:{MAX_TREE_DEPTH + more}", "done")
    if not more:
        assert objects(response(await fetched(repository, request))) > 0
    else:
        with pytest.raises(GitFailed, match="max depth"):
            await fetched(repository, request)


async def test_archive_of_a_ref_is_given_and_of_an_id_is_not(made: Made) -> None:
    repository = BareRepository(made.path, Git())
    assert (await archived(repository, "--format=tar", "main")).startswith(b"0008ACK\n0000")
    with pytest.raises(GitFailed):
        await archived(repository, "--format=tar", str(made.refs["refs/heads/main"]))


async def test_folder_with_another_owner_is_served(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "git"
    other.write_text('#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec git "$@"\n')
    other.chmod(0o700)
    repository = BareRepository(made.path, Git(executable=str(other)))
    assert response(await fetched(repository, done(*made.tips))).whole
    assert (await archived(repository, "main")).startswith(b"0008ACK\n0000")


async def test_whoever_stops_reading_leaves_no_child(made: Made) -> None:
    repository = BareRepository(made.path, Git())
    before = _children()
    async with upload_pack(repository, FetchRequest.parse(done(*made.tips))) as chunks:
        assert await anext(chunks)
        assert _children() - before
    await asyncio.sleep(0)
    assert _children() <= before


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
