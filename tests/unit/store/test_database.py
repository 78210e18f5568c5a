"""Transactions, threads, waiting, closing and damage, on real files."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError

from guts.errors import DiskFull, StorageFault
from guts.store import repositories
from guts.store.accepted import Conflict
from guts.store.database import MAX_PENDING, Database, DatabaseClosed
from guts.store.dialect import BadDatabaseUrl, DatabaseDamaged, DatabaseFailed
from guts.store.schema import dht_contacts
from tests.unit.store.states import ALICE, REPOSITORY, first_state, new, state


def add_contact(connection: Connection, number: int) -> None:
    connection.execute(
        insert(dht_contacts).values(peer=number.to_bytes(32, "big"), ip="127.0.0.1", port=1, last_seen=number)
    )


def contacts(connection: Connection) -> list[int]:
    return list(connection.scalars(select(dht_contacts.c.last_seen).order_by(dht_contacts.c.last_seen)))


async def test_restart_keeps_everything(where: str) -> None:
    database = await Database.open(where)
    await database.write(repositories.commit, first_state())
    before = await database.read(repositories.load, REPOSITORY)
    await database.close()

    again = await Database.open(where)
    assert await again.read(repositories.load, REPOSITORY) == before
    assert again.migrated.backup is None
    await again.close()


async def test_settings_of_durability_hold_on_every_connection(sqlite_database: Database) -> None:
    def settings(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert await sqlite_database.write(settings) == ["wal", 2, 1, 5_000, 0]
    assert await sqlite_database.read(settings) == ["wal", 2, 1, 5_000, 1]


async def test_failed_write_leaves_nothing(database: Database) -> None:
    def two(connection: Connection) -> None:
        add_contact(connection, 1)
        add_contact(connection, 1)

    with pytest.raises(DatabaseFailed) as caught:
        await database.write(two)
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert await database.read(contacts) == []


async def test_full_disk_undoes_the_write_and_the_next_one_works(sqlite_database: Database) -> None:
    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill(connection: Connection) -> None:
        limit(connection, connection.exec_driver_sql("PRAGMA page_count").scalar_one() + 2)
        for number in range(10_000):
            add_contact(connection, number)

    with pytest.raises(DiskFull, match="full"):
        await sqlite_database.write(fill)
    assert await sqlite_database.read(contacts) == []
    await sqlite_database.write(limit, 2**30)
    await sqlite_database.write(add_contact, 1)
    assert await sqlite_database.read(contacts) == [1]


async def test_callers_own_error_undoes_the_write_and_arrives_unchanged(database: Database) -> None:
    def fails(connection: Connection) -> None:
        add_contact(connection, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.write(fails)
    assert await database.read(contacts) == []


async def test_reader_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseFailed, match=r"read-?only"):
        await database.read(add_contact, 1)


async def test_concurrent_writers_queue_in_order_of_their_calls(database: Database) -> None:
    order: list[int] = []

    def job(connection: Connection, number: int) -> None:
        order.append(number)
        add_contact(connection, number)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(database.write(job, number))
    assert order == list(range(100))
    assert await database.read(contacts) == list(range(100))


async def test_reader_sees_committed_states_only(database: Database) -> None:
    written, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        add_contact(connection, 1)
        written.set()
        assert go_on.wait(10)

    task = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(written.wait, 10)
    assert await database.read(contacts) == []
    go_on.set()
    await task
    assert await database.read(contacts) == [1]


async def test_reader_keeps_one_state_while_a_write_commits(database: Database) -> None:
    looked, go_on = threading.Event(), threading.Event()

    def twice(connection: Connection) -> tuple[list[int], list[int]]:
        first = contacts(connection)
        looked.set()
        assert go_on.wait(10)
        return first, contacts(connection)

    task = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(looked.wait, 10)
    await database.write(add_contact, 1)
    go_on.set()
    assert await task == ([], [])


async def test_writes_past_the_bound_wait_outside_the_queue(database: Database) -> None:
    go_on = threading.Event()

    def slow(_connection: Connection) -> None:
        assert go_on.wait(10)

    async with asyncio.TaskGroup() as group:
        group.create_task(database.write(slow))
        for number in range(1, MAX_PENDING):
            group.create_task(database.write(add_contact, number))
        await asyncio.sleep(0)
        assert database._write_room.locked()
        last = group.create_task(database.write(add_contact, MAX_PENDING))
        await asyncio.sleep(0)
        assert database._write_thread._work_queue.qsize() <= MAX_PENDING
        assert not last.done()
        go_on.set()
    assert await database.read(contacts) == list(range(1, MAX_PENDING + 1))


async def test_write_that_is_cancelled_while_it_waits_does_not_happen(database: Database) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(_connection: Connection) -> None:
        began.set()
        assert go_on.wait(10)

    running = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(began.wait, 10)
    waiting = asyncio.create_task(database.write(add_contact, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await running
    assert await database.read(contacts) == []


async def test_close_finishes_what_waits_and_refuses_what_comes(where: str, tmp_path: Path) -> None:
    database = await Database.open(where)
    tasks = [asyncio.create_task(database.write(add_contact, number)) for number in range(20)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*tasks)
    with pytest.raises(DatabaseClosed):
        await database.write(add_contact, 99)
    await database.close()

    again = await Database.open(where)
    assert await again.read(contacts) == list(range(20))
    await again.close()
    assert {path.name for path in tmp_path.iterdir()} <= {"guts.db"}, "the WAL is folded back"


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


async def test_lock_of_another_process_is_waited_for(sqlite_database: Database, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "guts.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        task = asyncio.create_task(sqlite_database.write(add_contact, 1))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done, "the write waits"
        holder.stdin.write("\n")
        holder.stdin.flush()
        await task
    assert await sqlite_database.read(contacts) == [1]


async def test_write_holds_the_lock_from_its_start(sqlite_database: Database, tmp_path: Path) -> None:
    def other_writer(_connection: Connection) -> None:
        with closing(sqlite3.connect(tmp_path / "guts.db", timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseFailed, match="locked"):
        await sqlite_database.write(other_writer)
    await sqlite_database.read(other_writer)


async def test_process_killed_in_a_write_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "guts.db"
    database = await Database.open(path)
    await database.write(add_contact, 1)
    await database.close()
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sqlite3, sys\n"
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN IMMEDIATE')\n"
            "connection.execute('DELETE FROM dht_contacts')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n",
            str(path),
        ],
        check=False,
    )
    assert killed.returncode == -9
    again = await Database.open(path)
    assert await again.read(contacts) == [1]
    await again.close()


async def test_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "guts.db"
    path.write_bytes(b"not a database at all " * 400)
    with pytest.raises(DatabaseDamaged, match="not a database") as caught:
        await Database.open(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint is not None
    assert path.read_bytes() == b"not a database at all " * 400


async def test_damage_inside_the_file_is_told_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "guts.db"
    database = await Database.open(path)
    for number in range(300):
        await database.write(add_contact, number)
    await database.close()
    raw = bytearray(path.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    raw[page:] = b"\xff" * (len(raw) - page)
    path.write_bytes(raw)
    with pytest.raises(DatabaseDamaged, match="damaged"):
        await (await Database.open(path)).read(contacts)


@pytest.mark.parametrize("missing", [1, 12, 4_095, 4_096, 40_000])
async def test_file_without_its_end_is_damaged(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "guts.db"
    database = await Database.open(path)
    for number in range(300):
        await database.write(add_contact, number)
    await database.close()
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DatabaseDamaged):
        await Database.open(path)


async def test_file_whose_end_is_in_the_wal_is_whole(tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "guts.db"
    copy.parent.mkdir()
    database = await Database.open(tmp_path / "guts.db")
    for number in range(300):
        await database.write(add_contact, number)
    # As after SIGKILL: nothing was folded back.
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"guts.db{suffix}", copy.with_name(f"guts.db{suffix}"))
    await database.close()
    size = copy.stat().st_size
    opened = await Database.open(copy)
    assert len(await opened.read(contacts)) == 300
    await opened.close()
    assert copy.stat().st_size > size


async def test_folder_that_is_not_there_is_a_storage_fault(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="unable to open database file"):
        await Database.open(tmp_path / "missing" / "guts.db")


@pytest.mark.parametrize(
    "url", ["mysql://host/guts", "postgresql+psycopg2://host/guts", "sqlite://", "sqlite:///:memory:", "http ://"]
)
async def test_url_of_no_usable_database_is_refused(url: str) -> None:
    with pytest.raises(BadDatabaseUrl):
        await Database.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:sesame@127.0.0.1:port/db",
        "postgresql://u:sesame@ame/x@127.0.0.1:1/db",
        "postgresql://u:sesame@ame@127.0.0.1:1/db",
        "postgresql://u:sesame%00@127.0.0.1:1/db",
    ],
)
async def test_url_that_is_misread_is_refused_without_a_piece_of_its_password(url: str) -> None:
    with pytest.raises(BadDatabaseUrl) as caught:
        await Database.open(url)
    assert "ame" not in str(caught.value).replace("name", "")


async def test_driver_that_is_not_installed_is_named_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadDatabaseUrl, match="psycopg") as caught:
        await Database.open("postgresql://guts:secret@localhost/guts")
    assert caught.value.hint is not None
    assert "guts-node[postgres]" in caught.value.hint
    assert "secret" not in str(caught.value)


async def test_url_of_a_sqlite_file_is_that_file(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path}/guts.db")
    await database.write(add_contact, 7)
    await database.close()
    again = await Database.open(tmp_path / "guts.db")
    assert await again.read(contacts) == [7]
    await again.close()


async def test_of_two_racing_commits_exactly_one_wins(database: Database) -> None:
    await database.write(repositories.commit, first_state())
    rivals = [state(new(ALICE, seq, 10)) for seq in (11, 12)]
    outcomes = await asyncio.gather(
        *(database.write(repositories.commit, rival) for rival in rivals), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [int, Conflict]


async def test_text_is_utf8_and_survives(database: Database) -> None:
    def echo(connection: Connection) -> object:
        return connection.execute(text("SELECT :word"), {"word": "Größe"}).scalar_one()

    assert await database.read(echo) == "Größe"
