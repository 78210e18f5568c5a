"""Packs that several ask for are made once, and are kept within bounds of bytes and of time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from guts.git.ancestry import NotHeld
from guts.git.repository import BareRepository
from guts.ids import ObjectId, RepositoryId
from guts.node import shared_packs
from guts.node.shared_packs import KEPT_SECONDS, MAX_PACK_BYTES, SharedPacks
from tests.support import packs
from tests.support.nodes import eventually
from tests.support.packs import BLOB, COMMIT, TREE, object_id
from tests.support.repositories import git

REPOSITORY = RepositoryId(bytes(RepositoryId.LENGTH))
OTHER = RepositoryId(b"\1" * RepositoryId.LENGTH)


class Listened(BareRepository):
    """A repository that notes what packs are made."""

    made = 0

    def pack(self, wants: Collection[ObjectId], haves: Collection[ObjectId] = ()):  # type: ignore[no-untyped-def]
        self.made += 1
        return super().pack(wants, haves)


@pytest.fixture
async def bare(tmp_path: Path) -> Listened:
    return await Listened.create(tmp_path / "served.git")


def add(bare: BareRepository, text: bytes) -> ObjectId:
    """Put a commit of one file into ``bare`` and return it."""
    root = packs.tree(("100644", b"file", object_id(BLOB, text)))
    top = packs.commit(object_id(TREE, root))
    git(bare.path, "index-pack", "--stdin", data=packs.pack([(BLOB, text), (TREE, root), (COMMIT, top)]))
    return object_id(COMMIT, top)


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def ask(
    shared: SharedPacks, bare: BareRepository, *wants: ObjectId, repository: RepositoryId = REPOSITORY
) -> bytes:
    async with shared.pack(repository, bare, wants, []) as chunks:
        return await read(chunks)


async def test_pack_is_made_once_for_all_who_ask_alike(bare: Listened) -> None:
    now = 0.0
    shared = SharedPacks(lambda: now)
    one, two = add(bare, b"one\n"), add(bare, b"two\n")
    first, *others = await asyncio.gather(*(ask(shared, bare, one, two) for _ in range(5)), ask(shared, bare, two, one))
    assert first.startswith(b"PACK")
    assert set(others) == {first}
    assert bare.made == 1
    assert await ask(shared, bare, one) != first
    await ask(shared, bare, one, two, repository=OTHER)
    async with shared.pack(REPOSITORY, bare, [one], [two]) as chunks:
        await read(chunks)
    assert bare.made == 4, "for other wants, another repository, other haves"
    now = KEPT_SECONDS - 0.1
    await ask(shared, bare, one, two)
    assert bare.made == 4
    now = KEPT_SECONDS
    assert await ask(shared, bare, one, two) == first
    assert bare.made == 5, "it is not kept for ever"


@pytest.mark.parametrize("limit", ["MAX_PACK_BYTES", "MAX_KEPT_BYTES"])
async def test_pack_is_kept_up_to_a_length(bare: Listened, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    one = add(bare, b"one\n")
    length = len(await ask(SharedPacks(lambda: 0.0), bare, one))
    for value, made in ((length, 1), (length - 1, 3)):
        monkeypatch.setattr(shared_packs, limit, value)
        bare.made, shared = 0, SharedPacks(lambda: 0.0)
        found = [await ask(shared, bare, one) for _ in range(3)]
        assert {len(data) for data in found} == {length}
        assert bare.made == made


async def test_oldest_pack_makes_room(bare: Listened, monkeypatch: pytest.MonkeyPatch) -> None:
    tips = [add(bare, b"%d\n" % number) for number in range(3)]
    shared = SharedPacks(lambda: 0.0)
    monkeypatch.setattr(shared_packs, "MAX_KEPT_BYTES", 2 * len(await ask(SharedPacks(lambda: 0.0), bare, tips[0])) + 1)
    bare.made = 0
    for tip in (*tips, tips[2], tips[1]):
        await ask(shared, bare, tip)
    assert bare.made == 3
    await ask(shared, bare, tips[0])
    assert bare.made == 4


async def test_who_waited_in_vain_is_told_why(bare: Listened) -> None:
    shared = SharedPacks(lambda: 0.0)
    absent = ObjectId(b"\1" * 20)
    found = await asyncio.gather(*(ask(shared, bare, absent) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [NotHeld] * 3


async def test_slow_reader_of_a_long_pack_holds_up_nobody(bare: Listened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_packs, "MAX_PACK_BYTES", 10)
    shared = SharedPacks(lambda: 0.0)
    one = add(bare, b"one\n")
    async with shared.pack(REPOSITORY, bare, [one], []) as slow:
        async with asyncio.timeout(20):
            whole = await ask(shared, bare, one)
        assert await read(slow) == whole


async def test_nothing_is_kept_of_a_repository_that_was_removed(bare: Listened) -> None:
    shared = SharedPacks(lambda: 0.0)
    one = add(bare, b"one\n")
    length = len(await ask(shared, bare, one))
    await ask(shared, bare, one, repository=OTHER)
    assert shared.kept_bytes == 2 * length
    shared.forget(REPOSITORY)
    assert shared.kept_bytes == length
    await ask(shared, bare, one, repository=OTHER)
    assert bare.made == 2
    await ask(shared, bare, one)
    assert bare.made == 3, "it is the repository's no more"


async def test_pack_goes_in_time_though_nobody_asks_again(bare: Listened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_packs, "KEPT_SECONDS", 0.05)
    shared = SharedPacks(time.monotonic)
    for text in (b"one\n", b"two\n"):
        await ask(shared, bare, add(bare, text))
        assert shared.kept_bytes > 0
    await eventually(lambda: not shared.kept_bytes)
    await ask(shared, bare, add(bare, b"three\n"))
    await eventually(lambda: not shared.kept_bytes)


class Counting(Listened):
    """A repository whose packs are large, and take long to count: each until ``counted``."""

    both: asyncio.Event
    counted: asyncio.Event

    def pack(self, wants: Collection[ObjectId], haves: Collection[ObjectId] = ()):  # type: ignore[no-untyped-def]
        self.made += 1
        if self.made == 2:
            self.both.set()

        @contextlib.asynccontextmanager
        async def large() -> AsyncIterator[AsyncIterator[bytes]]:
            async def chunks() -> AsyncIterator[bytes]:
                await self.counted.wait()
                yield bytes(MAX_PACK_BYTES + 1)

            yield chunks()

        return large()


async def test_who_asks_alike_for_a_large_pack_waits_for_the_counting_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_packs, "SHARED_SECONDS", 0.01)
    bare = await Counting.create(tmp_path / "large.git")
    bare.both, bare.counted = asyncio.Event(), asyncio.Event()
    shared = SharedPacks(lambda: 0.0)
    asking = asyncio.gather(*(ask(shared, bare, ObjectId(bytes(20))) for _ in range(2)))
    async with asyncio.timeout(20):
        await bare.both.wait()
    bare.counted.set()
    assert [len(data) for data in await asking] == [MAX_PACK_BYTES + 1] * 2
    assert shared.kept_bytes == 0
