"""Bulk bytes into a child: all of them arrive; a child that ends, or is ended, never leaves a write behind."""

import asyncio
import hashlib
import threading
from pathlib import Path

import pytest

from guts.git.command import Git
from guts.git.feeder import feeding
from tests.unit.git.test_command import script

CHUNK = bytes(range(256)) * 1_024


def feeders() -> int:
    return sum(thread.name.startswith("git-feeder") for thread in threading.enumerate())


async def test_child_gets_every_byte(tmp_path: Path) -> None:
    git = Git(executable=script(tmp_path / "git", "sha1sum"))
    async with feeding() as feeder, git.start(["x"], stdin=feeder.stdin) as child:
        feeder.started()
        for _ in range(20):
            assert await feeder.feed(CHUNK)
        feeder.close()
        printed = await child.stdout.read()
        await child.finish()
    assert printed.split()[0].decode() == hashlib.sha1(CHUNK * 20).hexdigest()


async def test_says_that_nobody_reads(tmp_path: Path) -> None:
    git = Git(executable=script(tmp_path / "git", "exec true"))
    async with feeding() as feeder, git.start(["x"], stdin=feeder.stdin) as child:
        feeder.started()
        await child.finish()
        assert not await feeder.feed(CHUNK)


async def test_cancelled_write_ends_with_the_child(tmp_path: Path) -> None:
    git = Git(executable=script(tmp_path / "git", "exec sleep 600"))
    blocked = asyncio.Event()

    async def work() -> None:
        async with feeding() as feeder, git.start(["x"], stdin=feeder.stdin):
            feeder.started()
            blocked.set()
            await feeder.feed(CHUNK * 8)  # twice what the pipe holds

    task = asyncio.create_task(work())
    await blocked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert feeders() == 0
