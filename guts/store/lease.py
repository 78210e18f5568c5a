"""The right of one node to write to a PostgreSQL database, and how it knows that it still has it.

Two parts, because each alone has a gap:

- An *advisory lock*, held by a connection that does nothing else. The server frees it when that connection ends,
  so a crashed node leaves nothing behind. But a lock can be lost, and taken by another node, while this one is in
  the middle of a transaction on its other connection.
- A *row* that names the holder of the lock. Every transaction counts itself in that row first, and whoever takes
  the lock writes its own name there. The row's lock makes the two wait for each other: a transaction that began
  under the old name ends before the new holder reads anything, and none begins after.

The count also tells what became of a transaction whose answer to COMMIT was lost: it rises with it, or not at all.

Not for use through a pooler that gives each transaction another session (pgbouncer's transaction mode): such a
session keeps no lock. ``Lease`` is for one thread at a time.
"""

import contextlib
import secrets
import time
from datetime import datetime
from typing import ClassVar, Final, Self, final

from sqlalchemy import URL, BigInteger, Column, Connection, Integer, MetaData, Table, Text, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from guts.errors import StorageFault, UsageError
from guts.store import dialect

TABLE: Final = "guts_lease"

_row: Final = Table(
    TABLE,
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("writes", BigInteger, nullable=False),
)
"""One row. Made here and not by a migration: it must be there before one may run."""

_ROW_ID: Final = 1

_LOCK: Final = int.from_bytes(b"gutsnode")
"""The key of the advisory lock; such locks are counted per database."""

START_WAIT: Final = 2.0
"""Seconds that a start waits for the lock: a server needs a moment to see that a killed node's connection ended."""

_POLL: Final = 0.05


class DatabaseInUse(UsageError):
    """Another node uses the PostgreSQL database; each node needs one of its own."""

    code: ClassVar[str] = "DATABASE_IN_USE"


class DatabaseTaken(StorageFault):
    """Another node has taken the database over while this one had lost it; this one writes no more."""

    code: ClassVar[str] = "DATABASE_TAKEN"


class NotHeldYet(StorageFault):
    """The lock was lost with its connection, and an earlier session still has it; worth another try."""

    code: ClassVar[str] = "DATABASE_FAILED"


@final
class Lease:
    """The lock and the row; made by ``acquire``.

    Attributes:
        taken: another node has the database now; for good.
    """

    def __init__(self, url: URL) -> None:
        self.taken = False
        self._engine = dialect.create_single(url)
        self._holder = secrets.token_hex(16)
        self._connection: Connection | None = None
        self._session: tuple[int, datetime] | None = None

    @classmethod
    def acquire(cls, url: URL) -> Self:
        """Return the lease on the database at ``url``.

        Raises:
            DatabaseInUse: another node has it.
            sqlalchemy.exc.SQLAlchemyError: the database can't be used.
        """
        lease = cls(url)
        try:
            deadline = time.monotonic() + START_WAIT
            while not lease._try_lock():
                if time.monotonic() >= deadline:
                    raise DatabaseInUse(
                        f"another node uses the database {dialect.told(url)}",
                        hint="give each node a database of its own (storage.database_url), or stop the other node",
                    )
                time.sleep(_POLL)
            lease._take_over()
        except BaseException:
            lease.release()
            raise
        return lease

    def hold(self) -> None:
        """Return when the lock is surely held, taken again where its connection was lost.

        Raises:
            DatabaseTaken: another node has it now, or had it meanwhile.
            NotHeldYet: not now; try again.
            sqlalchemy.exc.SQLAlchemyError: the server does not answer; try again.
        """
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
            except SQLAlchemyError:
                self._disconnect()
            else:
                return
        if self.taken:
            raise self._lost_for_good()
        locked = self._try_lock()
        try:
            self._check_holder()
        except BaseException:
            self._disconnect()
            raise
        if not locked:
            self._end_lost_session()
            self._disconnect()
            raise NotHeldYet("the database lock is still held by a session of this node that was lost")
        self._remember_session()

    def enter(self, connection: Connection) -> int:
        """Count the transaction of ``connection``, as its first statement; return its number.

        From here on no other transaction of this or of another node runs until it ends.

        Raises:
            DatabaseTaken: another node has the database.
        """
        mine = _row.c.holder == self._holder
        number: int | None = connection.scalar(
            _row.update().where(mine).values(writes=_row.c.writes + 1).returning(_row.c.writes)
        )
        if number is None:
            raise self._lost_for_good()
        return number

    def committed(self, number: int) -> bool:
        """Tell whether this node's newest transaction, of that ``number``, was committed; to be asked after ``hold``.

        Waits for it where the server has not ended it yet: the row is locked until then.

        Raises:
            DatabaseTaken: nobody can tell any more.
            sqlalchemy.exc.SQLAlchemyError: the server does not answer; try again.
        """
        assert self._connection is not None, "hold comes first"
        mine = _row.c.holder == self._holder
        writes: int | None = self._connection.scalar(select(_row.c.writes).where(mine).with_for_update())
        if writes is None:
            raise self._lost_for_good()
        return writes >= number

    def release(self) -> None:
        """Give the lease back. May be called again."""
        self._disconnect()
        self._engine.dispose()

    def _lost_for_good(self) -> DatabaseTaken:
        self.taken = True
        return DatabaseTaken("another node has taken the database over", hint="stop one of the two nodes")

    def _try_lock(self) -> bool:
        """Ask for the lock, connecting first where there is no connection."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return bool(self._connection.scalar(select(func.pg_try_advisory_lock(_LOCK))))

    def _take_over(self) -> None:
        assert self._connection is not None
        _row.create(self._connection, checkfirst=True)
        row = {"id": _ROW_ID, "holder": self._holder, "writes": 0}
        # Waits for a transaction that the holder before is still in.
        dialect.insert_or_update(self._connection, _row, [row], keep=frozenset({"writes"}))
        self._remember_session()

    def _check_holder(self) -> None:
        assert self._connection is not None
        if self._connection.scalar(select(_row.c.holder)) != self._holder:
            raise self._lost_for_good()

    def _remember_session(self) -> None:
        assert self._connection is not None
        pid, began = self._connection.execute(
            text("SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        ).one()
        self._session = (pid, began)

    def _end_lost_session(self) -> None:
        # The network may have cut it off without the server's knowledge. A pid alone could be another's by now.
        if self._session is None or self._connection is None:
            return
        self._connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = :pid AND backend_start = :began"),
            {"pid": self._session[0], "began": self._session[1]},
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()
