"""Brings a database to the schema of this version, or says why not.

The revisions are alembic scripts: in ``migrations/`` of a checkout, in ``guts/_migrations`` of an installed
wheel. All that are due run in one transaction.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import alembic.command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

import guts
from guts.crash import crash_point
from guts.errors import ExitStatus, StorageFault, UsageError
from guts.store import dialect

BACKUP_SUFFIX: Final = ".before-"


class SchemaNewer(UsageError):
    """The database was written by a later version of Guts."""

    code: ClassVar[str] = "SCHEMA_NEWER"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the database has schema revision {found}; this version of Guts knows revisions up to {known}",
            hint=f"install the newer Guts again, or put back the copy *{BACKUP_SUFFIX}… made by its upgrade",
        )
        self.found = found
        self.known = known


class BackupFailed(StorageFault):
    """No copy of the database could be made, so it was not migrated either."""

    code: ClassVar[str] = "BACKUP_FAILED"


class MigrationsMissing(StorageFault):
    """The installation is incomplete: the migration scripts are not where they belong."""

    code: ClassVar[str] = "MIGRATIONS_MISSING"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED


@dataclass(frozen=True, slots=True)
class Migrated:
    """What ``migrate`` did.

    Attributes:
        before: the revision that was found, ``None`` in a new database.
        after: the revision that it has now.
        backup: the copy that was made first.
    """

    before: str | None
    after: str
    backup: Path | None


def scripts_directory() -> Path:
    """Return where the migration scripts are.

    Raises:
        MigrationsMissing: neither in the installed package nor beside it.
    """
    package = Path(guts.__file__).parent
    for candidate in (package / "_migrations", package.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise MigrationsMissing(f"no migration scripts beside {package}", hint="install Guts again")


def migrate(writer: Engine, *, scripts: Path | None = None) -> Migrated:
    """Bring the database behind ``writer`` to the newest revision.

    Args:
        scripts: the folder of the scripts, by default this version's own.

    Raises:
        SchemaNewer: the database has a revision that the scripts don't; nothing was changed.
        BackupFailed: a migration is due, and no copy could be made first; nothing was changed.
        sqlalchemy.exc.SQLAlchemyError: the database can't be used; nothing was changed.
    """
    config = Config(attributes={})
    config.set_main_option("script_location", str(scripts or scripts_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    directory = ScriptDirectory.from_config(config)
    head = directory.get_current_head()
    assert head is not None, "there is at least one revision"
    with writer.begin() as connection:
        before = _current(connection)
        if before == head:
            return Migrated(before, head, None)
        known = {script.revision for script in directory.walk_revisions()}
        if before is not None and before not in known:
            raise SchemaNewer(before, head)
        # The write lock is held: what is copied is what is migrated.
        backup = _copy(writer, head) if before is not None else None
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, head)
        crash_point("schema-migrated")
    crash_point("schema-committed")
    return Migrated(before, head, backup)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _copy(writer: Engine, head: str) -> Path | None:
    path = dialect.sqlite_path(writer.url)
    if path is None:
        return None
    target = path.with_name(f"{path.name}{BACKUP_SUFFIX}{head}")
    try:
        dialect.backup(path, target)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"no copy of {path} could be made before its upgrade: {error}") from error
    return target
