"""Fixtures of the tests over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.nodes import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Nodes that are stopped when the test ends; a node that ended in an error fails the test."""
    world = World(tmp_path)
    yield world
    await world.close()
