"""A repository travels through nodes of which one keeps its tables on a PostgreSQL server; the server restarts."""

import asyncio

import pytest

from guts.node.limits import Patience
from guts.store.lease import DatabaseInUse
from guts.store.transactions import CommitUnknown
from tests.support.nodes import World, eventually
from tests.support.postgres import Cutter, Server
from tests.support.repositories import git

pytestmark = pytest.mark.postgres


async def test_replica_on_postgres_seeds_follows_over_restarts_of_the_server_and_serves_others(
    postgres_server: Server, postgres_database: str, world: World
) -> None:
    url = postgres_server.url(postgres_database)
    publisher = await world.node("publisher")
    replica = await world.node("replica", doors=(publisher.hint,), storage__database_url=url)
    maintainer = world.maintainer()
    repository = maintainer.repository
    await maintainer.publish(publisher)
    await replica.seed(repository)
    await replica.shows_what_it_says(repository)

    for number in range(3):
        maintainer.commit(f"while it restarts {number}")
        stopping = asyncio.create_task(asyncio.to_thread(postgres_server.stop))
        await maintainer.publish(publisher)
        await stopping
        await asyncio.to_thread(postgres_server.start)
    await eventually(lambda: replica.has(repository, maintainer.refs()))
    await replica.shows_what_it_says(repository)

    with pytest.raises(DatabaseInUse):
        await world.node("thief", doors=(publisher.hint,), storage__database_url=url)

    await replica.stop()
    await replica.start()
    await publisher.stop()
    third = await world.node("third", doors=(replica.hint,))
    await third.seed(repository)
    assert await third.canonical(repository) == await replica.canonical(repository) == maintainer.refs()
    assert not replica.config.paths.database.exists(), "nothing is in SQLite"


async def test_publisher_on_postgres_commits_once_what_is_published_while_the_server_restarts(
    postgres_server: Server, postgres_database: str, world: World
) -> None:
    publisher = await world.node("publisher", storage__database_url=postgres_server.url(postgres_database))
    replica = await world.node("replica", doors=(publisher.hint,))
    maintainer = world.maintainer()
    repository = maintainer.repository
    await maintainer.publish(publisher)
    await replica.seed(repository)

    for number in range(3):
        maintainer.commit(f"news {number}")
        restarting = asyncio.create_task(asyncio.to_thread(restart, postgres_server))
        await maintainer.publish(publisher)
        await restarting
    stored = await publisher.node.repositories.stored(repository)
    assert stored is not None
    assert stored.summary.generation == 4
    await publisher.shows_what_it_says(repository)
    await eventually(lambda: replica.has(repository, maintainer.refs()))
    copy = await world.clone(maintainer.url, "copy", (publisher.hint,))
    assert git(copy, "rev-parse", "HEAD") == maintainer.tip().hex()


async def test_publication_of_unknown_outcome_keeps_its_objects_and_can_be_made_again(
    postgres_server: Server, postgres_database: str, cutter: Cutter, world: World
) -> None:
    url = postgres_server.url(postgres_database, cutter.folder)
    publisher = await world.node("publisher", patience=Patience(database=0.3), storage__database_url=url)
    maintainer = world.maintainer()
    cutter.arm("late")
    publishing = asyncio.create_task(maintainer.publish(publisher))
    assert await asyncio.to_thread(cutter.wait_held)
    await asyncio.to_thread(postgres_server.stop)
    cutter.release()
    with pytest.raises(CommitUnknown):
        await publishing
    assert publisher.bare(maintainer.repository).exists(), "what may have been committed is not swept away"

    await asyncio.to_thread(postgres_server.start)
    await maintainer.publish(publisher)
    assert await publisher.canonical(maintainer.repository) == maintainer.refs()
    await publisher.shows_what_it_says(maintainer.repository)


def restart(server: Server) -> None:
    server.stop()
    server.start()
