"""A real database file for every test, and states to commit."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from guts.store.database import Database


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An open, empty database."""
    opened = await Database.open(tmp_path / "guts.db")
    yield opened
    await opened.close()
