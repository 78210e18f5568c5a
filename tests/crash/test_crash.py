"""A few kills of every kind; ``make crash`` does hundreds. And that every crash point is where it should be."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import guts
from guts.crash import POINTS
from tests.crash.__main__ import plan
from tests.crash.round import Round
from tests.crash.rounds import (
    KINDS,
    FirstPublication,
    IdentityArrival,
    IdentityChange,
    Migration,
    Publication,
    Rebuilding,
    Removing,
    Seeding,
)
from tests.crash.world import World

SEED = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nodes to kill, and one that stays."""
    world = World(tmp_path_factory.mktemp("crash"), random.Random(SEED))
    yield world
    world.close()


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        (FirstPublication, "publication-committed"),
        (FirstPublication, "signed-refs-kept"),
        (Publication, "pack-renamed"),
        (Publication, "commit-accepted"),
        (Seeding, "index-renamed"),
        (IdentityChange, "identities-kept"),
        (IdentityArrival, "commit-accepted"),
        (Migration, "schema-migrated"),
        (Rebuilding, "database-set-aside"),
        (Removing, "removal-begun"),
        (Removing, "removal-set-aside"),
        (Removing, "removal-committed"),
    ],
)
def test_node_killed_at_a_crash_point_comes_back_whole(world: World, kind: type[Round], point: str) -> None:
    try:
        assert kind(world).run(point), "the operation passes the point"
    finally:
        world.clear()


def test_every_crash_point_is_in_the_code_and_visited() -> None:
    sources = [path.read_text() for path in Path(guts.__file__).parent.rglob("*.py") if path.name != "crash.py"]
    named = [name for text in sources for call in re.findall(r"crash_point\((.*)\)", text) for name in _names(call)]
    assert sorted(set(named)) == sorted(POINTS)
    assert {point for kind in KINDS for point in kind.points} == POINTS


def test_same_seed_draws_the_same_rounds() -> None:
    first, again = (plan(random.Random(SEED), 250, KINDS) for _ in range(2))
    assert first == again
    assert plan(random.Random(SEED + 1), 250, KINDS) != first
    assert any(point is None for _, point in first)


def _names(call: str) -> list[str]:
    return re.findall(r'"([a-z-]+)"', call)
