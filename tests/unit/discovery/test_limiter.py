from guts.discovery.limiter import RateLimiter


def test_a_burst_passes_and_not_one_more() -> None:
    limiter = RateLimiter(rate=10, burst=5)
    assert [limiter.allow(b"a", 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert limiter.allow(b"b", 0.0)


def test_tokens_come_back_at_the_rate() -> None:
    limiter = RateLimiter(rate=10, burst=5)
    for _ in range(5):
        limiter.allow(b"a", 0.0)
    assert not limiter.allow(b"a", 0.09)
    assert limiter.allow(b"a", 0.2)
    assert [limiter.allow(b"a", 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_sources_are_bounded_and_the_silent_one_goes_first() -> None:
    limiter = RateLimiter(rate=1, burst=1, max_sources=3)
    for source in (b"a", b"b", b"c"):
        limiter.allow(source, 0.0)
    limiter.allow(b"a", 0.0)
    limiter.allow(b"d", 0.0)
    assert len(limiter) == 3
    assert not limiter.allow(b"a", 0.0)
    assert limiter.allow(b"b", 0.0)
