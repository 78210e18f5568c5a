"""Partitions of a small network; ``make partitions`` has 50 nodes and 500 pushes on each side."""

import pytest

from tests.simulation.scenarios.listed import SCENARIOS


@pytest.mark.parametrize("seed", range(4))
def test_parts_that_are_one_again_show_the_same(seed: int) -> None:
    run = SCENARIOS["partition"].run(20, seed, pushes=15)
    assert run["parts"] == 2 + seed
