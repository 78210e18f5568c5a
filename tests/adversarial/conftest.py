"""Fixtures of the tests with hostile peers."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.held_states import states_are_those_of_the_database
from tests.support.nodes import World

__all__ = ["states_are_those_of_the_database", "world"]


@pytest.fixture
async def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    """Nodes that outlive what is done to them, and say nothing about it above DEBUG."""
    world = World(tmp_path)
    with caplog.at_level(logging.DEBUG, "guts"):
        yield world
        died = [node for node in world.nodes if not node.alive and node.wanted]
        await world.close()
    assert not died, "a node has ended"
    loud = [record.getMessage() for record in caplog.get_records("call") if record.levelno > logging.DEBUG]
    assert not loud, "a remote makes a node talk"
