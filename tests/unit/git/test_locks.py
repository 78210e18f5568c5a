"""Pack lock and commit mutex."""

import asyncio

import pytest

from guts.git.locks import RepositoryLocks


class World:
    """Tasks that note when they got a lock and hold it until told."""

    def __init__(self) -> None:
        self.locks = RepositoryLocks()
        self.log: list[str] = []
        self.release: dict[str, asyncio.Event] = {}

    async def hold(self, name: str) -> None:
        self.release[name] = asyncio.Event()
        async with self.locks.exclusive() if name.startswith("x") else self.locks.shared():
            self.log.append(name)
            await self.release[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_shares_excludes_and_keeps_the_order_of_arrival() -> None:
    world = World()
    async with asyncio.TaskGroup() as group:
        for name in ("s1", "s2", "x1", "s3", "x2"):
            group.create_task(world.hold(name))
            await settle()
        assert world.log == ["s1", "s2"], "s3 waits behind x1"
        for name, expected in (("s1", 2), ("s2", 3), ("x1", 4), ("s3", 5), ("x2", 5)):
            world.release[name].set()
            await settle()
            assert len(world.log) == expected
    assert world.log == ["s1", "s2", "x1", "s3", "x2"]
    assert world.locks.idle


@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_waiter_leaves_no_trace(late: bool) -> None:
    world = World()
    async with world.locks.shared():
        waiting = asyncio.create_task(world.hold("x1"))
        await settle()
        after = asyncio.create_task(world.hold("s1"))
        await settle()
        if not late:
            waiting.cancel()
    if late:  # its turn has just come
        waiting.cancel()
    await settle()
    assert world.log == ["s1"]
    world.release["s1"].set()
    await asyncio.wait({after, waiting})
    assert waiting.cancelled()
    assert world.locks.idle


async def test_waiter_cancelled_just_before_its_turn_is_passed_over() -> None:
    world = World()
    async with world.locks.shared():
        waiting = asyncio.create_task(world.hold("x1"))
        await settle()
        waiting.cancel()
    async with asyncio.timeout(1), world.locks.exclusive():
        pass
    await asyncio.wait({waiting})
    assert world.locks.idle


async def test_one_commit_at_a_time_and_only_while_sharing() -> None:
    locks = RepositoryLocks()
    async with locks.shared() as one, locks.shared() as other:
        async with one.commit():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), other.commit():
                    raise AssertionError("two commits at once")
        async with other.commit():
            pass
    with pytest.raises(AssertionError):
        async with one.commit():
            pass
