"""Fixtures of the tests over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.held_states import states_are_those_of_the_database
from tests.support.nodes import World

__all__ = ["states_are_those_of_the_database", "world"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Nodes that are stopped when the test ends; a node that ended in an error fails the test."""
    world = World(tmp_path)
    yield world
    await world.close()
