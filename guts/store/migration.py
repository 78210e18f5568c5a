"""Brings a database to the schema of this version, or says why not.

The revisions are alembic scripts: in ``migrations/`` of a checkout, in ``guts/_migrations`` of an installed
wheel. All that are due run in one transaction.

A new SQLite database is made at once, with the statements that the revisions come to. So alembic, which takes longer
to import than a client takes to start, is imported where an older database is brought up to date.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from sqlalchemy import Column, Connection, Engine, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

import guts
from guts.crash import crash_point
from guts.errors import ExitStatus, StorageFault, UsageError
from guts.store import dialect
from guts.store.schema import REVISION, metadata

BACKUP_SUFFIX: Final = ".before-"

_VERSION: Final = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""As alembic makes it."""


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
    scripts = scripts or scripts_directory()
    head = newest(scripts)
    with writer.begin() as connection:
        before = _current(connection)
        if before == head:
            return Migrated(before, head, None)
        backup = None
        if before is None and head == REVISION and dialect.sqlite_path(writer.url) is not None:
            metadata.create_all(connection, checkfirst=False)
            _VERSION.create(connection)
            connection.execute(_VERSION.insert().values(version_num=head))
        else:
            backup = _upgrade(writer, connection, before, head, scripts)
        crash_point("schema-migrated")
    crash_point("schema-committed")
    return Migrated(before, head, backup)


def newest(scripts: Path) -> str:
    """Return the newest revision in a folder of scripts, each of which is named for its revision."""
    return max(path.name.partition("_")[0] for path in (scripts / "versions").glob("[0-9]*_*.py"))


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.scalar(select(_VERSION.c.version_num))


def _upgrade(writer: Engine, connection: Connection, before: str | None, head: str, scripts: Path) -> Path | None:
    """Run the revisions after ``before``; return the copy that was made first, if one was."""
    import alembic.command  # noqa: PLC0415 (see the module's docstring)
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise SchemaNewer(before, head)
    # The write lock is held: what is copied is what is migrated.
    backup = _copy(writer, head) if before is not None else None
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, head)
    return backup


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
