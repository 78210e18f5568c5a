"""A token bucket per source, so that one sender can't spend this node's signatures for everyone."""

from collections import OrderedDict
from typing import Final

RATE_PER_SECOND: Final = 50.0
BURST: Final = 200.0
"""Generous to networks behind one NAT, and yet a hundredth of what one core signs."""

MAX_SOURCES: Final = 10_000
"""Sources remembered, about 2 MB; the one silent longest is forgotten first."""


class RateLimiter:
    """Token buckets that start full; time is given in monotonic seconds."""

    def __init__(self, rate: float = RATE_PER_SECOND, burst: float = BURST, max_sources: int = MAX_SOURCES) -> None:
        self._rate = rate
        self._burst = burst
        self._max_sources = max_sources
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def allow(self, source: bytes, now: float) -> bool:
        """Take one token of ``source``; ``False`` when it has none left."""
        level, since = self._buckets.pop(source, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - since) * self._rate)
        allowed = level >= 1.0
        self._buckets[source] = (level - 1.0 if allowed else level, now)
        if len(self._buckets) > self._max_sources:
            self._buckets.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)
