"""Honest peers on bad links, for a little while; ``make sim SCENARIO=honest`` is a thousand of them for a day."""

from tests.simulation.scenarios.listed import SCENARIOS


def test_s1_nobody_is_grey_for_a_bad_link() -> None:
    SCENARIOS["honest"].run(21, 7, hours=0.2)
