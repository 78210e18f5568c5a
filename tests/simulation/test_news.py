"""News on a small network; ``make sim NODES=1000 SCENARIO=news`` is the large one."""

from tests.simulation.scenarios.listed import SCENARIOS

SEED = 7


def test_news_reaches_every_subscriber_by_gossip_alone() -> None:
    run = SCENARIOS["news"].measure(60, SEED, pushes=3)
    for name in ("no loss", "loss"):
        assert run[f"{name}: committed by gossip alone, share"] >= 0.999
    assert run["half of gossip lost for good: with anti-entropy, share that has the newest"] == 1.0


def test_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    runs = [SCENARIOS["news"].measure(20, seed, pushes=1) for seed in (SEED, SEED, SEED + 1)]
    assert runs[0].digests == runs[1].digests
    assert runs[0].figures == runs[1].figures
    assert runs[0].digests != runs[2].digests
