"""One transaction, from its start to a known end, also where the server goes away in the middle.

A transaction that did not come as far as COMMIT left nothing, so it is simply run again. One whose answer to COMMIT
was lost may have been committed: the lease's count says whether it was (``Lease.committed``), and only where it was
not is it run again. So a restart of the server loses nothing and doubles nothing.

SQLite is in this process: nothing is ever lost on the way there, and nothing here runs twice.
"""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import ClassVar, Final, TypeVar, final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from guts.errors import StorageFault
from guts.store import dialect
from guts.store.lease import DatabaseTaken, Lease, NotHeldYet

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE: Final = 20.0
"""Seconds for which a server that is away is called again: longer than a restart, shorter than its callers wait."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0


class CommitUnknown(StorageFault):
    """The database server went away in the middle of a commit and did not come back to say whether it happened."""

    code: ClassVar[str] = "COMMIT_UNKNOWN"


@final
class Outage:
    """The server's absence, if it is absent; one for all threads of a database.

    Whoever meets it tries again for ``patience`` seconds from when it was first met, with jittered and growing pauses.
    After that nobody waits, so that a queue of callers is not as many times as patient.

    Args:
        stopping: when set, nobody waits any more.
    """

    def __init__(self, stopping: threading.Event, patience: float) -> None:
        self._stopping = stopping
        self._patience = patience
        self._since: float | None = None

    def pause(self, error: Exception, tries: int) -> bool:
        """Wait after that many ``tries`` and return True; False at once where it is time to give up."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            cause = error.orig if isinstance(error, DBAPIError) else error
            log.warning("the database went away, trying again: %s", " ".join(str(cause).split()))
        if self._stopping.is_set():
            return False
        if now >= self._since + self._patience:
            # The first failure may only have been that of a connection from before the outage.
            return tries == 0
        pause = min(FIRST_PAUSE * 2 ** min(tries, 10), LONGEST_PAUSE)
        return not self._stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 (only a pause)

    def over(self) -> None:
        """Note that the server answered."""
        if self._since is not None:
            self._since = None
            log.info("the database answers again")


def read(engine: Engine, outage: Outage, work: Callable[[Connection], T]) -> T:
    """Return ``work(connection)``, run on one committed state; again where the server went away.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, sqlite3.Error: a statement failed, or the server stayed away.
    """
    for tries in itertools.count():
        try:
            with engine.begin() as connection:
                result = work(connection)
        except dialect.DRIVER_ERRORS as error:
            if not dialect.is_lost(error) or not outage.pause(error, tries):
                raise
        else:
            outage.over()
            return result
    raise AssertionError("unreachable")


def write(engine: Engine, lease: Lease | None, outage: Outage, work: Callable[[Connection], T]) -> T:
    """Return ``work(connection)``, run in one transaction that is committed, once, when this returns.

    Raises:
        CommitUnknown: it may have been committed.
        DatabaseTaken, NotHeldYet: not this node's to write to; nothing was committed.
        sqlalchemy.exc.SQLAlchemyError, sqlite3.Error: nothing was committed.
    """
    for tries in itertools.count():
        number: int | None = None
        try:
            if lease is not None:
                lease.hold()
            with engine.begin() as connection:
                entered = lease.enter(connection) if lease is not None else None
                outage.over()
                result = work(connection)
                # From here on only COMMIT is left.
                number = entered
        except NotHeldYet as error:
            if not outage.pause(error, tries):
                raise
        except dialect.DRIVER_ERRORS as error:
            if not dialect.is_lost(error):
                raise
            if lease is not None and number is not None:
                if _was_committed(lease, number, outage, error):
                    return result
            elif not outage.pause(error, tries):
                raise
        else:
            return result
    raise AssertionError("unreachable")


def _was_committed(lease: Lease, number: int, outage: Outage, lost: Exception) -> bool:
    """Find out what became of a commit. Raises: ``CommitUnknown``."""
    error = lost
    for tries in itertools.count():
        if not outage.pause(error, tries):
            break
        try:
            lease.hold()
            return lease.committed(number)
        except DatabaseTaken:
            break
        except (NotHeldYet, *dialect.DRIVER_ERRORS) as again:
            error = again
    raise CommitUnknown("the database went away in a commit, and whether it happened is not known") from lost
