"""One node per PostgreSQL database, and a server that goes away at the worst moments: a real one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Connection, delete, func, insert, select, text

from guts.errors import ExitStatus, StorageFault
from guts.ids import PeerId
from guts.store import dialect, lease, repositories, scores, transactions
from guts.store.database import Database
from guts.store.dialect import BadDatabaseUrl, DatabaseFailed
from guts.store.lease import DatabaseInUse, DatabaseTaken, Lease, NotHeldYet
from guts.store.schema import dht_contacts, score_ledger
from guts.store.scores import StoredScore
from guts.store.transactions import CommitUnknown
from tests.support.nodes import eventually
from tests.support.postgres import Cutter, Mishap, Server
from tests.unit.store.states import ALICE, REPOSITORY, first_state, new, state

pytestmark = pytest.mark.postgres

PEER = PeerId(b"P" * 32)
LOCK_SESSIONS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"


def add(connection: Connection, number: int) -> None:
    """Write a row which, written twice, is there twice."""
    scores.save_score(connection, StoredScore(PEER, 0, number))
    connection.execute(
        insert(score_ledger).values(peer=PEER, at=number, ran=0, change=0, total=0, reason="X", barred_ms=0)
    )


def added(connection: Connection) -> list[int]:
    return list(connection.scalars(select(score_ledger.c.at).order_by(score_ledger.c.number)))


@contextlib.asynccontextmanager
async def opened(url: str, patience: float = 20.0) -> AsyncIterator[Database]:
    database = await Database.open(url, patience=patience)
    try:
        yield database
    finally:
        await database.close()


def steal(server: Server, name: str) -> None:
    """End the session that holds the lock of the database ``name``, which its node does not know yet."""
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN ({LOCK_SESSIONS}) AS l USING (pid)", name
    )


async def test_second_node_is_refused_until_the_first_has_gone(postgres_server: Server, postgres_database: str) -> None:
    url = postgres_server.url(postgres_database)
    async with opened(url) as first:
        with pytest.raises(DatabaseInUse) as caught:
            await Database.open(url)
        assert (caught.value.code, caught.value.exit_status) == ("DATABASE_IN_USE", ExitStatus.USAGE)
        assert postgres_database in str(caught.value)
        assert caught.value.hint is not None
        await first.write(add, 1)
    async with opened(url) as second:
        assert await second.read(added) == [1]
        await second.write(add, 2)


async def test_two_databases_of_one_server_serve_two_nodes(postgres_server: Server, postgres_database: str) -> None:
    other = postgres_server.create()
    async with opened(postgres_server.url(postgres_database)) as one, opened(postgres_server.url(other)) as two:
        await one.write(add, 1)
        await two.write(add, 2)
        assert (await one.read(added), await two.read(added)) == ([1], [2])
    postgres_server.drop(other)


async def test_lock_that_was_lost_is_held_again_before_anything_is_written(
    postgres_server: Server, postgres_database: str
) -> None:
    held: list[int] = []

    def look(connection: Connection) -> None:
        held.append(len(connection.execute(text(LOCK_SESSIONS)).all()))
        add(connection, len(held))

    async with opened(postgres_server.url(postgres_database)) as database:
        await database.write(look)
        steal(postgres_server, postgres_database)
        assert postgres_server.execute(LOCK_SESSIONS, postgres_database) == []
        await database.write(look)
        assert held == [1, 1]
        assert await database.read(added) == [1, 2]


async def test_node_whose_database_was_taken_writes_and_reads_no_more(
    postgres_server: Server, postgres_database: str
) -> None:
    url = postgres_server.url(postgres_database)
    async with opened(url) as first:
        await first.write(add, 1)
        steal(postgres_server, postgres_database)
        async with opened(url) as second:
            with pytest.raises(DatabaseTaken):
                await first.write(add, 2)
            await second.write(add, 3)
            assert await second.read(added) == [1, 3]
        # The other one is gone again: what it left is still not what this one knows.
        with pytest.raises(DatabaseTaken):
            await first.write(add, 4)
        with pytest.raises(DatabaseTaken):
            await first.read(added)
        assert postgres_server.execute("SELECT at FROM score_ledger ORDER BY number", postgres_database) == [(1,), (3,)]


def test_lock_that_is_lost_after_the_look_at_it_lets_no_transaction_through(
    postgres_server: Server, postgres_database: str
) -> None:
    url = dialect.parse_url(postgres_server.url(postgres_database))
    writer = dialect.create_writer(url)
    first = Lease.acquire(url)
    first.hold()
    steal(postgres_server, postgres_database)
    second = Lease.acquire(url)
    with pytest.raises(DatabaseTaken), writer.begin() as connection:
        first.enter(connection)
    assert first.taken
    with writer.begin() as connection:
        assert second.enter(connection) == 1
    for each in (first, second):
        each.release()
    writer.dispose()


def test_session_that_only_the_server_still_sees_is_ended_and_the_lock_held_again(
    postgres_server: Server, postgres_database: str
) -> None:
    mine = Lease.acquire(dialect.parse_url(postgres_server.url(postgres_database)))
    lost, mine._connection = mine._connection, None
    assert lost is not None
    with pytest.raises(NotHeldYet):
        mine.hold()
    deadline = time.monotonic() + 10
    while postgres_server.execute(LOCK_SESSIONS, postgres_database):
        assert time.monotonic() < deadline
    mine.hold()
    assert len(postgres_server.execute(LOCK_SESSIONS, postgres_database)) == 1
    lost.invalidate()
    lost.close()
    mine.release()


async def test_new_holder_waits_for_the_transaction_that_the_old_one_is_in(
    postgres_server: Server, postgres_database: str
) -> None:
    url = postgres_server.url(postgres_database)
    loop = asyncio.get_running_loop()
    inside, seconds = asyncio.Event(), []

    def slow(connection: Connection) -> None:
        add(connection, 1)
        loop.call_soon_threadsafe(inside.set)
        connection.execute(text("SELECT pg_sleep(0.5)"))

    async with opened(url) as first:
        writing = asyncio.create_task(first.write(slow))
        await inside.wait()
        steal(postgres_server, postgres_database)
        async with opened(url) as second:
            seconds = await second.read(added)
        await writing
        assert seconds == [1], "what was committed under the old name was there before the new one read"


@pytest.mark.parametrize("mishap", ["before", "after", "late"])
async def test_commit_whose_answer_was_lost_happens_exactly_once(
    postgres_server: Server, postgres_database: str, cutter: Cutter, mishap: Mishap
) -> None:
    async with opened(postgres_server.url(postgres_database, cutter.folder)) as database:
        await database.write(repositories.commit, first_state())
        for number in range(5):
            cutter.arm(mishap)
            writing = asyncio.create_task(database.write(add, number))
            if mishap == "late":
                assert await asyncio.to_thread(cutter.wait_held)
                await asyncio.wait([writing], timeout=0.2)
                assert not writing.done(), "whether it was committed is not known yet"
                cutter.release()
            await writing
            assert await database.read(added) == list(range(number + 1))
        cutter.arm("after")
        assert await database.write(repositories.commit, state(new(ALICE, 11, 10))) == 2
        assert (await database.read(repositories.load_summary, REPOSITORY)).generation == 2
        assert cutter.cuts == 6


async def test_restarts_in_the_middle_of_commits_lose_and_double_nothing(
    postgres_server: Server, postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    done: list[int] = []
    restarts = 0
    running = True

    async def writer(database: Database, first: int) -> None:
        number = first
        while running:
            await database.write(add, number)
            done.append(number)
            number += 2

    async def committer(database: Database) -> int:
        seq = 10
        while running:
            assert await database.write(repositories.commit, state(new(ALICE, seq + 1, seq))) == seq - 8
            seq += 1
        return seq

    async with opened(postgres_server.url(postgres_database)) as database:
        await database.write(repositories.commit, first_state())
        tasks = [asyncio.create_task(writer(database, first)) for first in (0, 1)]
        committing = asyncio.create_task(committer(database))
        for mode in ("immediate", "fast", "immediate", "fast", "immediate"):
            before = len(done)
            await eventually(lambda: len(done) >= before + 20)  # noqa: B023 (awaited here)
            await asyncio.to_thread(postgres_server.stop, mode)
            reading = asyncio.create_task(database.read(added))
            await asyncio.to_thread(postgres_server.start)
            restarts += 1
            assert len(await reading) >= before
        running = False
        await asyncio.gather(*tasks)
        seq = await committing
        assert sorted(await database.read(added)) == sorted(done)
        assert len(set(done)) == len(done)
        summary = await database.read(repositories.load_summary, REPOSITORY)
        assert (summary.generation, summary.authors[ALICE][0]) == (seq - 9, seq)
    assert restarts == 5


async def test_server_that_stays_away_is_told_and_the_node_goes_on_when_it_is_back(
    postgres_server: Server, postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(postgres_server.url(postgres_database), patience=0.2) as database:
        await database.write(add, 1)
        postgres_server.stop()
        try:
            with pytest.raises(DatabaseFailed):
                await database.write(add, 2)
            begun = time.monotonic()
            for _ in range(50):
                with pytest.raises(DatabaseFailed):
                    await database.read(added)
            assert time.monotonic() - begun < 50 * 0.2, "patience is for the outage, not for each caller"
        finally:
            postgres_server.start()
        await database.write(add, 3)
        assert await database.read(added) == [1, 3]
    assert [record.levelname for record in caplog.records if record.name == transactions.__name__] == [
        "WARNING",
        "INFO",
    ]


async def test_commit_whose_outcome_nobody_tells_is_not_called_undone(
    postgres_server: Server, postgres_database: str, cutter: Cutter
) -> None:
    async with opened(postgres_server.url(postgres_database, cutter.folder), patience=0.5) as database:
        cutter.arm("late")
        writing = asyncio.create_task(database.write(add, 1))
        assert await asyncio.to_thread(cutter.wait_held)
        postgres_server.stop()
        cutter.release()
        try:
            with pytest.raises(CommitUnknown):
                await writing
        finally:
            postgres_server.start()
        await database.write(add, 2)
        assert (await database.read(added))[-1] == 2


async def test_closing_does_not_wait_for_a_server_that_is_away(postgres_server: Server, postgres_database: str) -> None:
    async with opened(postgres_server.url(postgres_database), patience=600) as database:
        postgres_server.stop()
        try:
            writing = asyncio.create_task(database.write(add, 1))
            await asyncio.wait([writing], timeout=0.1)
            async with asyncio.timeout(10):
                await database.close()
            with pytest.raises(StorageFault):
                await writing
        finally:
            postgres_server.start()


async def test_error_of_a_statement_is_not_taken_for_an_outage(postgres_server: Server, postgres_database: str) -> None:
    runs: list[int] = []

    def twice(connection: Connection) -> None:
        runs.append(1)
        for _ in range(2):
            connection.execute(insert(dht_contacts).values(peer=b"p" * 32, ip="127.0.0.1", port=1, last_seen=1))

    async with opened(postgres_server.url(postgres_database)) as database:
        with pytest.raises(DatabaseFailed, match="duplicate key"):
            await database.write(twice)
        assert runs == [1]
        await database.write(lambda connection: connection.execute(delete(dht_contacts)).rowcount)


async def test_settings_of_durability_hold_whatever_the_database_says(
    postgres_server: Server, postgres_database: str
) -> None:
    postgres_server.execute(f"ALTER DATABASE {postgres_database} SET synchronous_commit = off")

    def settings(connection: Connection) -> list[object]:
        names = ("synchronous_commit", "lock_timeout", "idle_session_timeout", "transaction_read_only")
        return [connection.scalar(select(func.current_setting(name))) for name in names]

    async with opened(postgres_server.url(postgres_database)) as database:
        assert await database.write(settings) == ["on", "5s", "0", "off"]
        assert await database.read(settings) == ["on", "5s", "0", "on"]


async def test_database_that_does_not_exist_is_told(postgres_server: Server) -> None:
    with pytest.raises(DatabaseFailed, match="nowhere") as caught:
        await Database.open(postgres_server.url("nowhere"))
    assert "\n" not in str(caught.value)
    with pytest.raises(BadDatabaseUrl):
        await Database.open("postgresql+asyncpg:///guts")


async def test_lock_is_of_the_database_and_its_row_is_one(postgres_server: Server, postgres_database: str) -> None:
    async with opened(postgres_server.url(postgres_database)) as database:
        before = postgres_server.execute(f"SELECT id, writes FROM {lease.TABLE}", postgres_database)
        await database.write(add, 1)
        after = postgres_server.execute(f"SELECT id, writes FROM {lease.TABLE}", postgres_database)
    assert (before, after) == ([(1, 0)], [(1, 1)])
