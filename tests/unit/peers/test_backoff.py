"""Waiting times grow, have full jitter and a cap."""

import random

from guts.peers.backoff import MAX_DELAY, MAX_DELAY_FOR_HOLDER, Backoff


class Longest(random.Random):
    """Always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_longest_wait_doubles_to_the_cap() -> None:
    backoff = Backoff()
    waits = []
    for _ in range(14):
        backoff.failed(0.0, Longest())
        waits.append(backoff.not_before)
    assert waits == [
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
        1024.0,
        2048.0,
        MAX_DELAY,
        MAX_DELAY,
        MAX_DELAY,
    ]
    backoff.succeeded()
    assert backoff == Backoff(0, 0.0)


def test_jitter_is_full() -> None:
    rng = random.Random(7)
    waits = []
    for _ in range(1000):
        backoff = Backoff(failures=4)
        backoff.failed(100.0, rng)
        waits.append(backoff.not_before - 100.0)
    assert min(waits) < 1.0
    assert max(waits) > 31.0
    assert all(0.0 <= wait <= 32.0 for wait in waits)


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(failures=100_000)
    backoff.failed(0.0, Longest(), MAX_DELAY_FOR_HOLDER)
    assert backoff.not_before == MAX_DELAY_FOR_HOLDER


def test_spread_waits_lie_anywhere_in_the_window_and_are_no_failures() -> None:
    rng = random.Random(7)
    waits = []
    for _ in range(1000):
        backoff = Backoff(failures=4)
        backoff.spread(100.0, rng, 60.0)
        waits.append(backoff.not_before - 100.0)
        assert backoff.failures == 4
    assert min(waits) < 2.0
    assert max(waits) > 58.0
    assert all(0.0 <= wait <= 60.0 for wait in waits)
