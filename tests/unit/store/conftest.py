"""A real database for every test: a SQLite file, and again a database of a PostgreSQL server (marked ``postgres``)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from guts.store.database import Database
from tests.support.postgres import Server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is to be opened."""
    if request.param == "sqlite":
        return str(tmp_path / "guts.db")
    server: Server = request.getfixturevalue("postgres_server")
    return server.url(request.getfixturevalue("postgres_database"))


@pytest_asyncio.fixture
async def database(where: str) -> AsyncIterator[Database]:
    """An open, empty database, of each kind."""
    opened = await Database.open(where)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open, empty SQLite database, ``guts.db`` in the test's folder."""
    opened = await Database.open(tmp_path / "guts.db")
    yield opened
    await opened.close()
