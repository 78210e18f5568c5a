"""What is told in short a little later."""

import math
import random

from guts.gossip.envelope import brief
from guts.gossip.untold import TELL_WITHIN, Untold
from tests.unit.gossip.test_protocol import COMMIT


def test_each_is_due_once_and_within_the_time() -> None:
    untold = Untold(random.Random(1))
    assert untold.deadline() == math.inf
    for _ in range(200):
        untold.add(COMMIT, 10.0)
    assert 10.0 <= untold.deadline() < 10.0 + TELL_WITHIN / 20
    assert untold.due(untold.deadline() - 0.001) == []
    early = untold.due(10.0 + TELL_WITHIN / 2)
    assert 50 < len(early) < 150
    assert len(early) + len(untold.due(10.0 + TELL_WITHIN)) == 200
    assert untold.due(math.inf) == []


def test_same_news_of_one_moment_have_an_order() -> None:
    class Still(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    untold = Untold(Still())
    untold.add(COMMIT, 0.0)
    untold.add(COMMIT, 0.0)
    assert untold.due(TELL_WITHIN) == [brief(COMMIT)] * 2, "what is told in short needs no record"
