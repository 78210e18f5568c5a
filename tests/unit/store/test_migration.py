"""From nothing, from an older schema, from a newer one; and the copy that is made first."""

import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from guts.errors import ExitStatus
from guts.ids import PeerId
from guts.store import dialect, history, lease, repositories, scores
from guts.store.database import Database
from guts.store.dialect import DatabaseFailed
from guts.store.migration import BackupFailed, Migrated, SchemaNewer, migrate, newest, scripts_directory
from guts.store.schema import REVISION, metadata
from tests.support.postgres import Server
from tests.unit.store.states import ALICE, REPOSITORY, first_state

ROOT = Path(__file__).parents[3]

LATER = '''"""A later revision."""

from alembic import op
import sqlalchemy as sa

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
    {more}
'''


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """The scripts of a later version, which has one revision more."""
    scripts = tmp_path / "later"
    shutil.copytree(scripts_directory(), scripts)
    (scripts / "versions" / "0007_later.py").write_text(LATER.format(more=""))
    return scripts


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.execute(sql))


async def test_new_database_has_exactly_the_schema_of_the_code(database: Database) -> None:
    def ours(name: str | None, _kind: str, _parents: object) -> bool:
        return name != lease.TABLE

    def difference(connection: Connection) -> Sequence[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": ours})
        differences: Sequence[object] = compare_metadata(context, metadata)
        return differences

    assert await database.read(difference) == []
    assert (database.migrated.before, database.migrated.backup) == (None, None)


def test_new_database_is_made_as_the_revisions_make_it(tmp_path: Path) -> None:
    """Byte for byte: SQLite keeps the statements."""
    by_revisions, at_once = tmp_path / "revisions.db", tmp_path / "new.db"
    config = Config(attributes={})
    config.set_main_option("script_location", str(scripts_directory()))
    assert newest(scripts_directory()) == REVISION == ScriptDirectory.from_config(config).get_current_head()
    writer = dialect.create_writer(dialect.parse_url(by_revisions))
    with writer.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    writer.dispose()
    writer = dialect.create_writer(dialect.parse_url(at_once))
    assert migrate(writer) == Migrated(None, REVISION, None)
    writer.dispose()
    statements = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    assert query(at_once, statements) == query(by_revisions, statements)
    assert query(at_once, "SELECT * FROM alembic_version") == query(by_revisions, "SELECT * FROM alembic_version")


def test_start_without_a_migration_does_not_import_what_migrates(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from guts.store.database import Database\n"
        "async def main():\n"
        "    for again in range(2):\n"
        "        await (await Database.open(sys.argv[1])).close()\n"
        "asyncio.run(main())\n"
        "print([name for name in ('alembic', 'sqlalchemy.dialects.postgresql') if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "guts.db"], check=True, capture_output=True, text=True
    )
    assert ran.stdout == "[]\n"


async def test_older_database_is_copied_with_its_wal_and_then_migrated(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "guts.db"
    old = await Database.open(path)
    await old.write(repositories.commit, first_state())
    # As after a crash: the newest rows are in the WAL only. A file copy would miss them.
    crashed = tmp_path / "crashed.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    await old.close()
    shutil.copy(crashed, tmp_path / "file-copy.db")
    assert query(tmp_path / "file-copy.db", "SELECT name FROM sqlite_master WHERE name='repositories'") == []

    new = await Database.open(crashed, scripts=later)
    assert (new.migrated.before, new.migrated.after) == ("0006", "0007")
    assert new.migrated.backup == tmp_path / "crashed.db.before-0007"
    assert (await new.read(repositories.load_summary, REPOSITORY)).generation == 1
    await new.close()
    assert query(crashed, "SELECT version_num FROM alembic_version") == [("0007",)]
    assert query(crashed, "SELECT * FROM later") == []

    back = tmp_path / "crashed.db.before-0007"
    assert query(back, "SELECT version_num FROM alembic_version") == [("0006",)]
    restored = await Database.open(back)
    assert (await restored.read(repositories.load, REPOSITORY)).signed_refs == (first_state().signed_refs[0].record,)
    await restored.close()


async def test_headers_of_the_first_schema_are_kept(tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(scripts_directory(), first)
    for script in (first / "versions").glob("000[2-9]_*.py"):
        script.unlink()
    await (await Database.open(tmp_path / "guts.db", scripts=first)).close()
    with closing(sqlite3.connect(tmp_path / "guts.db")) as connection, connection:
        values = (bytes(REPOSITORY), "guts", "", 0, b"i", None, True, 1, True, 0, 0, 0)
        columns = "id, name, description, epoch, identity_hash, head, seeding, generation, projected, created, updated"
        marks = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO repositories ({columns}, size) VALUES ({marks})", values)
        kept = (bytes(REPOSITORY), bytes(ALICE), 7, b"hash", b"header")
        connection.execute("INSERT INTO kept_headers VALUES (?, ?, ?, ?, ?)", kept)
    database = await Database.open(tmp_path / "guts.db")
    rows = await database.read(history.load_kept, REPOSITORY, ALICE)
    assert rows == (history.KeptRecord(history.Header(ALICE, 7, b"hash", b"header")),)
    await database.close()


async def test_scores_of_the_first_schema_are_kept_and_their_bans_begin_anew(tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(scripts_directory(), older)
    for script in (older / "versions").glob("000[5-9]_*.py"):
        script.unlink()
    await (await Database.open(tmp_path / "guts.db", scripts=older)).close()
    day = 24 * 3_600_000
    with closing(sqlite3.connect(tmp_path / "guts.db")) as connection, connection:
        rows = [(b"A" * 32, 100.0, 5_000, 5_000 + day), (b"B" * 32, 25.0, 6_000, None), (b"C" * 32, 5.0, 9, 7)]
        connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO score_ledger VALUES (1, ?, 5000, 100.0, 'BAD')", (b"A" * 32,))
    database = await Database.open(tmp_path / "guts.db")
    assert await database.read(scores.load_scores) == [
        scores.StoredScore(PeerId(b"A" * 32), 100.0, 5_000, 0, day, True),
        scores.StoredScore(PeerId(b"B" * 32), 25.0, 6_000),
        scores.StoredScore(PeerId(b"C" * 32), 5.0, 9),
    ]
    assert await database.read(scores.load_ledger, PeerId(b"A" * 32)) == [
        scores.ScoreChange(5_000, 0, 100.0, 100.0, "BEFORE_UPGRADE", day)
    ]
    await database.close()


async def test_copy_of_a_database_in_use_is_complete(sqlite_database: Database, tmp_path: Path) -> None:
    await sqlite_database.write(repositories.commit, first_state())
    dialect.backup(tmp_path / "guts.db", tmp_path / "copy.db")
    shutil.copy(tmp_path / "guts.db", tmp_path / "file-copy.db")
    assert query(tmp_path / "copy.db", "SELECT name FROM repositories") == [("guts",)]
    assert query(tmp_path / "file-copy.db", "SELECT name FROM sqlite_master WHERE name='repositories'") == []
    assert not (tmp_path / "copy.db.partial").exists()


async def test_failing_migration_changes_nothing_and_leaves_the_copy(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "guts.db"
    old = await Database.open(path)
    await old.write(repositories.commit, first_state())
    await old.close()
    broken = LATER.format(more='op.execute("INSERT INTO nowhere VALUES (1)")')
    (later / "versions" / "0007_later.py").write_text(broken)
    with pytest.raises(DatabaseFailed, match="nowhere"):
        await Database.open(path, scripts=later)
    assert query(path, "SELECT name FROM sqlite_master WHERE name='later'") == []
    again = await Database.open(path)
    assert (await again.read(repositories.load_summary, REPOSITORY)).generation == 1
    await again.close()
    assert (tmp_path / "guts.db.before-0007").exists()


async def test_without_a_copy_nothing_is_migrated(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "guts.db"
    await (await Database.open(path)).close()
    (tmp_path / "guts.db.before-0007").mkdir()
    with pytest.raises(BackupFailed, match="no copy"):
        await Database.open(path, scripts=later)
    assert query(path, "SELECT version_num FROM alembic_version") == [("0006",)]


async def test_newer_database_is_refused_and_not_touched(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "guts.db"
    new = await Database.open(path, scripts=later)
    await new.write(repositories.commit, first_state())
    await new.close()
    before = path.read_bytes()
    with pytest.raises(SchemaNewer) as caught:
        await Database.open(path)
    assert caught.value.code == "SCHEMA_NEWER"
    assert caught.value.exit_status == ExitStatus.USAGE
    assert (caught.value.found, caught.value.known) == ("0007", "0006")
    assert "0007" in str(caught.value)
    assert "0006" in str(caught.value)
    assert caught.value.hint is not None
    assert path.read_bytes() == before


@pytest.mark.postgres
async def test_server_is_migrated_in_one_transaction_and_a_newer_one_refused(
    postgres_server: Server, postgres_database: str, later: Path
) -> None:
    url = postgres_server.url(postgres_database)

    def revision() -> list[tuple[object, ...]]:
        return postgres_server.execute(
            "SELECT version_num, to_regclass('later') FROM alembic_version", postgres_database
        )

    old = await Database.open(url)
    await old.write(repositories.commit, first_state())
    await old.close()
    whole = (later / "versions" / "0007_later.py").read_text()
    broken = LATER.format(more='op.execute("INSERT INTO nowhere VALUES (1)")')
    (later / "versions" / "0007_later.py").write_text(broken)
    with pytest.raises(DatabaseFailed, match="nowhere"):
        await Database.open(url, scripts=later)
    assert revision() == [("0006", None)]

    (later / "versions" / "0007_later.py").write_text(whole)
    new = await Database.open(url, scripts=later)
    assert (new.migrated.before, new.migrated.after, new.migrated.backup) == ("0006", "0007", None)
    assert (await new.read(repositories.load_summary, REPOSITORY)).generation == 1
    await new.close()
    with pytest.raises(SchemaNewer):
        await Database.open(url)
    assert revision() == [("0007", "later")]


def test_alembic_migrates_from_the_command_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/guts.db"
    alembic = [sys.executable, "-m", "alembic", "-x", f"url={url}"]
    subprocess.run([*alembic, "upgrade", "head"], cwd=ROOT, check=True, capture_output=True)
    assert query(tmp_path / "guts.db", "SELECT version_num FROM alembic_version") == [("0006",)]
    check = subprocess.run([*alembic, "check"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "No new upgrade operations" in check.stdout


def test_wheel_carries_the_migrations_and_uses_them(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    program = (
        "import asyncio, sys\n"
        "from guts.store.database import Database\n"
        "from guts.store.migration import scripts_directory\n"
        "async def main():\n"
        "    database = await Database.open(sys.argv[1])\n"
        "    print(database.migrated.after, scripts_directory())\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "guts.db")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == ["0006", str(tmp_path / "installed" / "guts" / "_migrations")]
