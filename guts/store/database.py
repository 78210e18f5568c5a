"""The database as the node sees it: one writer thread, a few readers, and ``await``."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Concatenate, Final, ParamSpec, Self, TypeVar, final

from sqlalchemy import URL, Connection, Engine

from guts.crash import crash_point
from guts.errors import StorageFault
from guts.store import dialect, transactions
from guts.store.lease import DatabaseTaken, Lease
from guts.store.migration import Migrated, migrate
from guts.store.transactions import PATIENCE, Outage

P = ParamSpec("P")
T = TypeVar("T")

MAX_PENDING: Final = 64
"""Writes, and reads, under way at a time; the next caller waits for room. Each may hold records of 4 MiB."""


class DatabaseClosed(StorageFault):
    """The database was closed; the node is stopping."""

    code: ClassVar[str] = "DATABASE_CLOSED"


@final
class Database:
    """An open database. Made by ``open``; all methods are for one event loop.

    Attributes:
        migrated: what ``open`` had to do to the schema.
    """

    def __init__(
        self, writer: Engine, readers: Engine, migrated: Migrated, lease: Lease | None, patience: float
    ) -> None:
        self.migrated = migrated
        self._lease = lease
        self._stopping = threading.Event()
        self._outage = Outage(self._stopping, patience)
        self._writer = writer
        self._readers = readers
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="guts-store-writer")
        self._read_threads = ThreadPoolExecutor(dialect.READERS, thread_name_prefix="guts-store-reader")
        self._write_room = asyncio.Semaphore(MAX_PENDING)
        self._read_room = asyncio.Semaphore(MAX_PENDING)
        self._closed = False

    @classmethod
    async def open(cls, where: str | Path, *, scripts: Path | None = None, patience: float = PATIENCE) -> Self:
        """Return the database at ``where`` (a file's path or a URL), created or migrated as needed.

        Args:
            scripts: the folder of the migration scripts, by default this version's own.
            patience: seconds for which a server that went away later is called again.

        Raises:
            guts.store.lease.DatabaseInUse: another node uses it.
            guts.store.migration.SchemaNewer: a later version of Guts wrote it.
            guts.store.dialect.BadDatabaseUrl: ``where`` names no usable database.
            guts.store.dialect.DatabaseDamaged: the file is not a whole database.
            StorageFault: it can't be opened, copied or migrated.
        """
        url = dialect.parse_url(where)
        return cls(*await asyncio.to_thread(_open, url, scripts), patience)

    async def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(connection, …)``, run in one transaction that is committed when this returns.

        Where a server goes away before the commit, ``function`` is run again: it must find its arguments unchanged.

        Raises:
            guts.store.transactions.CommitUnknown: it may have been committed all the same.
            StorageFault: nothing was committed. So for whatever else ``function`` raises.
        """

        def statements(connection: Connection) -> T:
            result = function(connection, *args, **kwargs)
            crash_point("transaction-written")
            return result

        def job() -> T:
            with _faults(self._writer.url):
                return transactions.write(self._writer, self._lease, self._outage, statements)

        async with self._write_room:
            result = await self._run(self._write_thread, job)
        crash_point("transaction-committed")
        return result

    async def read(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(connection, …)``, run on one committed state; it can't write, and may be run again.

        Raises:
            StorageFault: a statement failed.
        """

        def job() -> T:
            with _faults(self._readers.url):
                return transactions.read(
                    self._readers, self._outage, lambda connection: function(connection, *args, **kwargs)
                )

        async with self._read_room:
            if self._lease is not None and self._lease.taken:
                raise DatabaseTaken("another node has taken the database over: what it says is not this node's")
            return await self._run(self._read_threads, job)

    async def close(self) -> None:
        """Finish what was begun or is waiting, then close every connection. May be called again."""
        self._closed = True
        # A server that is away now is not waited for.
        self._stopping.set()
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._readers.dispose()
        # Last, so that SQLite folds the WAL back into the database file.
        self._writer.dispose()
        if self._lease is not None:
            self._lease.release()

    async def _run(self, executor: Executor, job: Callable[[], T]) -> T:
        if self._closed:
            raise DatabaseClosed("the database is closed")
        return await asyncio.get_running_loop().run_in_executor(executor, job)


@contextlib.contextmanager
def _faults(url: URL) -> Iterator[None]:
    try:
        yield
    except dialect.DRIVER_ERRORS as error:
        raise dialect.fault(error, url) from error


def _open(url: URL, scripts: Path | None) -> tuple[Engine, Engine, Migrated, Lease | None]:
    with contextlib.ExitStack() as undo, _faults(url):
        lease: Lease | None = None
        if dialect.is_server(url):
            lease = Lease.acquire(url)
            undo.callback(lease.release)
        writer = dialect.create_writer(url)
        undo.callback(writer.dispose)
        dialect.check(writer)
        migrated = migrate(writer, scripts=scripts)
        undo.pop_all()
    return writer, dialect.create_readers(url), migrated, lease
