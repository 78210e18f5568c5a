"""News on a small network; ``make sim NODES=1000 SCENARIO=news`` is the large one."""

from tests.simulation.scenarios.listed import SCENARIOS

SEED = 7


def test_news_reaches_every_subscriber_fast_and_once() -> None:
    SCENARIOS["news"].run(40, SEED, pushes=3)
