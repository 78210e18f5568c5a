"""Nodes come and go, on a small network; ``make sim SCENARIO=leave`` and ``churn`` are the large ones."""

from tests.simulation.scenarios.listed import SCENARIOS

SEED = 7


def test_those_that_stay_hear_all_the_news_when_a_fifth_is_gone_at_once() -> None:
    SCENARIOS["leave"].run(40, SEED, minutes=1)


def test_those_that_stay_hear_all_the_news_while_a_tenth_changes_each_minute() -> None:
    SCENARIOS["churn"].run(24, SEED, minutes=4)
