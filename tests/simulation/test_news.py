"""News on a small network; ``make sim NODES=1000 SCENARIO=news`` is the large one."""

from tests.simulation.scenarios.listed import SCENARIOS

SEED = 7


def test_news_reaches_every_subscriber_fast_and_once() -> None:
    SCENARIOS["news"].run(60, SEED, pushes=3)


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    runs = [SCENARIOS["news"].measure(20, seed, pushes=1) for seed in (SEED, SEED, SEED + 1)]
    assert runs[0].digests == runs[1].digests
    assert runs[0].figures == runs[1].figures
    assert runs[0].digests != runs[2].digests
