"""Everything in which SQLite and PostgreSQL differ; with ``lease``, the only module that names either.

SQLite: the driver's own transaction control is off (it would begin too late, and never before a read), so
that a writer takes the write lock with ``BEGIN IMMEDIATE`` at its start and a reader has one snapshot.

PostgreSQL 14 or newer, through psycopg 3: the write lock is a row (``guts.store.lease``); readers are REPEATABLE READ.
"""

import contextlib
import functools
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, QueuePool

from guts.crash import crash_point
from guts.errors import DiskFull, StorageFault, UsageError

if TYPE_CHECKING:  # a fifth of what SQLAlchemy takes to import, and few nodes have such a database
    from sqlalchemy.dialects import postgresql

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for another process's lock: longer than any transaction of ours."""

READERS: Final = 4
"""Reader threads, each with a connection of its own."""

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"

DRIVER_ERRORS: Final = (SQLAlchemyError, sqlite3.Error)
"""What using a database raises: a driver's own errors come unwrapped while a connection is being set up."""

DRIVER: Final = "psycopg"
"""The only PostgreSQL driver: its way of losing a connection is the one that is known here."""

_CONNECTION_SETTINGS: Final[dict[str, object]] = {
    "connect_timeout": 5,
    # A server that vanished without a word is noticed in half a minute, not in the two hours of the kernel.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # The same at the server, so that it lets go of a vanished node's locks; a commit is on the disk when it is
    # answered, whatever the server's default; no session is ended for being idle; nobody waits for a lock for ever.
    "options": (
        "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
        "-c synchronous_commit=on -c idle_session_timeout=0 -c lock_timeout=5s"
    ),
}
"""libpq's parameters; the URL overrides each."""

_LOST: Final = ("57P01", "57P02", "57P03", "57P05")
"""SQLSTATEs of a server that shuts down, crashed, is starting, or ended an idle session (class 08: the connection)."""

_DISK_FULL: Final = "53100"
"""PostgreSQL's SQLSTATE for it."""

_SECRETS: Final = ("password", "sslpassword")
"""libpq's parameters that nobody else is to see."""

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class BadDatabaseUrl(UsageError):
    """The config names a database that Guts can't use."""

    code = "BAD_DATABASE_URL"


class DatabaseFailed(StorageFault):
    """A statement failed; its whole transaction was undone."""

    code = "DATABASE_FAILED"


class DatabaseDamaged(StorageFault):
    """The database file is not a database, or not a whole one."""

    code = "DATABASE_DAMAGED"


def parse_url(where: str | Path) -> URL:
    """Return the URL of a file path, of a ``sqlite:///`` URL, or of a ``postgresql://`` URL.

    Raises:
        BadDatabaseUrl: a URL of another database, or none at all; SQLite in memory, which keeps nothing. A password
            is not repeated in it, nor are pieces of one.
    """
    if isinstance(where, Path) or "://" not in where:
        return URL.create(SQLITE, database=str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise BadDatabaseUrl("the database URL can't be read: sqlite:///PATH or postgresql://… is needed") from None
    kind = url.get_backend_name()
    if kind not in (SQLITE, POSTGRESQL):
        raise BadDatabaseUrl(f"{kind!r} is not a database Guts can use: sqlite or postgresql is needed")
    if kind == SQLITE and (url.database or ":memory:") == ":memory:":
        raise BadDatabaseUrl("a database in memory keeps nothing: name a file")
    if kind == POSTGRESQL:
        if url.drivername not in (POSTGRESQL, f"{POSTGRESQL}+{DRIVER}"):
            raise BadDatabaseUrl(f"{url.drivername} is not a driver Guts can use: write {POSTGRESQL}://…")
        if "@" in f"{url.host}{url.database}" or "\0" in f"{url.username}{url.password}{url.host}{url.database}":
            raise BadDatabaseUrl(
                "the database URL has one @ too many, or a NUL",
                hint="in a user name or a password write @ as %40, : as %3A, / as %2F, % as %25",
            )
        url = url.set(drivername=f"{POSTGRESQL}+{DRIVER}")
    return url


def sqlite_path(url: URL) -> Path | None:
    """Return the database file, or ``None`` where the database is a server."""
    return Path(url.database or "") if url.get_backend_name() == SQLITE else None


def told(url: URL) -> str:
    """Return ``url`` without what is secret in it."""
    return url.difference_update_query(_SECRETS).render_as_string(hide_password=True)


def is_server(url: URL) -> bool:
    """Tell whether the database is a server's, which another node could use too."""
    return url.get_backend_name() == POSTGRESQL


def create_writer(url: URL) -> Engine:
    """Return an engine whose transactions take the write lock when they begin."""
    return _create(url, pool_size=1, begin="BEGIN IMMEDIATE", read_only=False)


def create_single(url: URL) -> Engine:
    """Return an engine for a PostgreSQL connection of its own, without transactions."""
    return _create_postgresql(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def create_readers(url: URL) -> Engine:
    """Return an engine whose transactions each see one committed state, and can't write."""
    return _create(url, pool_size=READERS, begin="BEGIN", read_only=True)


def _create(url: URL, *, pool_size: int, begin: str, read_only: bool) -> Engine:
    if is_server(url):
        isolation = "REPEATABLE READ" if read_only else "READ COMMITTED"
        options = {"postgresql_readonly": True} if read_only else {}
        return _create_postgresql(
            url, pool_size=pool_size, max_overflow=0, isolation_level=isolation, execution_options=options
        )
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _create_postgresql(url: URL, **options: Any) -> Engine:
    settings = {name: value for name, value in _CONNECTION_SETTINGS.items() if name not in url.query}
    try:
        return create_engine(url, connect_args=settings, **options)
    except ImportError as error:
        raise BadDatabaseUrl(
            f"PostgreSQL needs the package {DRIVER!r}, which is not installed or lacks libpq",
            hint="install it with Guts: pip install 'guts-node[postgres]'",
        ) from error


def is_lost(error: SQLAlchemyError | sqlite3.Error) -> bool:
    """Tell whether ``error`` says that the server went away, or is not there: another try may find it."""
    if not isinstance(error, OperationalError | InterfaceError | InternalError) or isinstance(
        error.orig, sqlite3.Error
    ):
        return False
    if error.connection_invalidated:
        return True
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith("08") or state in _LOST


def fault(error: SQLAlchemyError | sqlite3.Error, url: URL) -> StorageFault:
    """Return what to raise for ``error``, raised by the library or the driver on the database at ``url``."""
    where = sqlite_path(url) or told(url)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.DatabaseError) and cause.sqlite_errorcode & 0xFF in _DAMAGE:
        return _damaged(where, str(cause))
    said = " ".join(str(cause).split())
    if getattr(cause, "sqlstate", None) == _DISK_FULL or (
        isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode == sqlite3.SQLITE_FULL
    ):
        return DiskFull(f"the database {where} can't grow: {said}")
    return DatabaseFailed(f"the database {where} failed: {said}")


def _damaged(where: Path | str, told: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"the database {where} is damaged: {told}",
        hint="guts node stop, guts node start: the file is set aside and rebuilt from the repositories",
    )


def check(engine: Engine) -> None:
    """Have SQLite look through its whole file; a server looks after its own.

    Reading the file is what it costs (0.3 s for 100 MB); a page that was lost is found now, not in the middle of a
    commit, and not by answering with less than was accepted.

    Raises:
        DatabaseDamaged: the file is not a whole database.
        SQLAlchemyError, sqlite3.Error: so too, or it can't be read at all; ``fault`` tells which.
    """
    if (path := sqlite_path(engine.url)) is None:
        return
    with engine.connect() as connection:
        (told,) = connection.exec_driver_sql("PRAGMA quick_check(1)").one()
    if told != "ok":
        raise _damaged(path, str(told))
    # For SQLite a last page that was cut short goes on in zeros: rows are gone from an index, and nothing tells.
    if not _is_long_enough(engine, path):
        raise _damaged(path, "its end is missing")


def _is_long_enough(engine: Engine, path: Path) -> bool:
    with contextlib.closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        (expected,) = cursor.fetchone() or (0,)
        if path.stat().st_size < expected:
            # What only the WAL has: nobody reads, so that all of it comes into the file now.
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return path.stat().st_size >= int(expected)


def set_aside(path: Path, name: str) -> Path:
    """Rename a SQLite database that nobody uses, with its WAL, and return its new path.

    The database goes first: SQLite drops a WAL that it finds without one.

    Raises:
        OSError: it can't be renamed.
    """
    target = path.with_name(name)
    path.rename(target)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    return target


def backup(source: Path, target: Path) -> None:
    """Copy a SQLite database that may be in use, with what only its WAL has; ``target`` appears whole or not.

    Raises:
        sqlite3.Error, OSError: it could not be copied.
    """
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT)) as reading,
        contextlib.closing(sqlite3.connect(partial)) as writing,
    ):
        reading.backup(writing)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    crash_point("backup-written")
    partial.replace(target)
    crash_point("backup-renamed")


def insert_or_update(
    connection: Connection,
    table: Table[Any],
    rows: list[dict[str, Any]],
    *,
    keep: frozenset[str] = frozenset(),
) -> None:
    """Insert ``rows`` (all with the same columns); where the primary key is taken, update that row instead.

    Args:
        keep: columns that an existing row keeps.
    """
    if not rows:
        return
    connection.execute(_upsert(connection.dialect.name, table, tuple(rows[0]), keep), rows)


def insert_or_ignore(connection: Connection, table: Table[Any], rows: list[dict[str, Any]]) -> None:
    """Insert ``rows``; one whose primary key is taken changes nothing."""
    if rows:
        connection.execute(_insert_new(connection.dialect.name, table), rows)


@functools.cache
def _upsert(
    dialect: str, table: Table[Any], columns: tuple[str, ...], keep: frozenset[str]
) -> "sqlite.Insert | postgresql.Insert":
    key = {column.name for column in table.primary_key}
    changing = [name for name in columns if name not in key and name not in keep]
    insert = _insert(dialect, table)
    if not changing:
        return insert.on_conflict_do_nothing()
    return insert.on_conflict_do_update(
        index_elements=sorted(key), set_={name: insert.excluded[name] for name in changing}
    )


@functools.cache
def _insert_new(dialect: str, table: Table[Any]) -> "sqlite.Insert | postgresql.Insert":
    return _insert(dialect, table).on_conflict_do_nothing()


def _insert(dialect: str, table: Table[Any]) -> "sqlite.Insert | postgresql.Insert":
    if dialect != POSTGRESQL:
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 (as above)

    return postgresql.insert(table)
