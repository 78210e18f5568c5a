"""States in memory, where a commit or a removal comes in between: what the database says counts."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guts.node.acceptance import Held
from guts.store import repositories as table
from guts.store.accepted import StoredRepository
from guts.store.database import Database
from guts.store.transactions import CommitUnknown
from tests.support.nodes import World, eventually

WAIT_SECONDS = 60.0


@pytest.fixture
def slowly_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Let a state that was read be decoded later: the first event is set then, and the second lets it go on."""
    begun, goes = threading.Event(), threading.Event()
    of: Callable[[StoredRepository], Held] = Held.of

    def slow(stored: StoredRepository) -> Held:
        begun.set()
        goes.wait(WAIT_SECONDS)
        return of(stored)

    monkeypatch.setattr(Held, "of", slow)
    yield begun, goes
    goes.set()


async def test_repository_that_is_removed_while_it_is_read_can_come_back(
    world: World, slowly_read: tuple[threading.Event, threading.Event]
) -> None:
    begun, goes = slowly_read
    publisher, replica = await world.node("publisher"), await world.node("replica")
    maintainer = world.maintainer()
    goes.set()
    await maintainer.publish(publisher)
    await replica.seed(maintainer.repository, publisher.hint)
    repositories = replica.node.repositories
    # As if others had taken its place.
    repositories._states.take(maintainer.repository)
    begun.clear()
    goes.clear()
    reading = asyncio.create_task(repositories.held(maintainer.repository))
    await eventually(begun.is_set)
    await replica.node.control.seeding.unseed(maintainer.repository, at_once=True)
    goes.set()
    assert await reading is not None
    assert await repositories.held(maintainer.repository) is None
    await asyncio.wait_for(replica.seed(maintainer.repository, publisher.hint), WAIT_SECONDS)
    assert await repositories.stored(maintainer.repository) is not None


async def test_commit_of_which_nothing_is_known_leaves_no_older_state(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node("node")
    maintainer = world.maintainer()
    await maintainer.publish(node)
    repositories, write = node.node.repositories, Database.write

    async def lost(self: Database, function: Callable[..., object], /, *args: Any) -> object:
        if function is table.committed:
            assert await repositories.held(maintainer.repository) is not None
            await write(self, function, *args)
            raise CommitUnknown("the server went away in the middle of COMMIT")
        return await write(self, function, *args)

    maintainer.commit("second")
    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", lost)
        with pytest.raises(CommitUnknown):
            await maintainer.publish(node)
    held, stored = await repositories.held(maintainer.repository), await repositories.stored(maintainer.repository)
    assert held is not None
    assert stored is not None
    assert held.generation == stored.summary.generation == 2
    maintainer.commit("third")
    await maintainer.publish(node)
