"""The database as the node sees it: one writer thread, a few readers, and ``await``."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Concatenate, Final, ParamSpec, Self, TypeVar, final

from sqlalchemy import URL, Connection, Engine

from guts.crash import crash_point
from guts.errors import GutsError, StorageFault
from guts.store import dialect
from guts.store.migration import Migrated, migrate

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

    def __init__(self, writer: Engine, readers: Engine, migrated: Migrated) -> None:
        self.migrated = migrated
        self._writer = writer
        self._readers = readers
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="guts-store-writer")
        self._read_threads = ThreadPoolExecutor(dialect.READERS, thread_name_prefix="guts-store-reader")
        self._write_room = asyncio.Semaphore(MAX_PENDING)
        self._read_room = asyncio.Semaphore(MAX_PENDING)
        self._closed = False

    @classmethod
    async def open(cls, where: str | Path, *, scripts: Path | None = None) -> Self:
        """Return the database at ``where`` (a file's path or a URL), created or migrated as needed.

        Args:
            scripts: the folder of the migration scripts, by default this version's own.

        Raises:
            guts.store.migration.SchemaNewer: a later version of Guts wrote it.
            guts.store.dialect.BadDatabaseUrl: ``where`` names no usable database.
            guts.store.dialect.DatabaseDamaged: the file is not a whole database.
            StorageFault: it can't be opened, copied or migrated.
        """
        url = dialect.parse_url(where)
        return cls(*await asyncio.to_thread(_open, url, scripts))

    async def write(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(connection, …)``, run in one transaction that is committed when this returns.

        Raises:
            StorageFault: nothing was committed. So for whatever else ``function`` raises.
        """

        def statements(connection: Connection) -> T:
            result = function(connection, *args, **kwargs)
            crash_point("transaction-written")
            return result

        async with self._write_room:
            result = await self._run(self._write_thread, self._writer, statements)
        crash_point("transaction-committed")
        return result

    async def read(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``function(connection, …)``, run on one committed state; it can't write.

        Raises:
            StorageFault: a statement failed.
        """
        async with self._read_room:
            return await self._run(self._read_threads, self._readers, function, *args, **kwargs)

    async def close(self) -> None:
        """Finish what was begun or is waiting, then close every connection. May be called again."""
        self._closed = True
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        self._readers.dispose()
        # Last, so that SQLite folds the WAL back into the database file.
        self._writer.dispose()

    async def _run(
        self,
        executor: Executor,
        engine: Engine,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if self._closed:
            raise DatabaseClosed("the database is closed")

        def job() -> T:
            return _transaction(engine, function, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(executor, job)


def _transaction(
    engine: Engine, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    try:
        with engine.begin() as connection:
            return function(connection, *args, **kwargs)
    except dialect.DRIVER_ERRORS as error:
        raise dialect.fault(error, engine.url) from error


def _open(url: URL, scripts: Path | None) -> tuple[Engine, Engine, Migrated]:
    writer = dialect.create_writer(url)
    try:
        dialect.check(writer)
        migrated = migrate(writer, scripts=scripts)
    except dialect.DRIVER_ERRORS as error:
        writer.dispose()
        raise dialect.fault(error, url) from error
    except GutsError:
        writer.dispose()
        raise
    return writer, dialect.create_readers(url), migrated
