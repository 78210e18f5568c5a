"""Waiting times between attempts: exponential, with full jitter."""

import random
from dataclasses import dataclass

BASE_DELAY: float = 2.0
"""Seconds: the longest first wait."""

MAX_DELAY: float = 3600.0
"""Seconds: nobody is given up for good, and nobody is bothered more often than hourly in the long run."""

MAX_DELAY_FOR_HOLDER: float = 30.0
"""Seconds, for a door, and for a peer that was reached and holds what we follow: they are worth more knocking."""


@dataclass(slots=True)
class Backoff:
    """The attempts at one target so far.

    Attributes:
        failures: in a row.
        not_before: monotonic seconds; no attempt is due earlier.
    """

    failures: int = 0
    not_before: float = 0.0

    def failed(self, now: float, rng: random.Random, cap: float = MAX_DELAY) -> None:
        """Count a failure at ``now``; the next attempt is due after a wait drawn from [0, min(cap, 2 s · 2ⁿ)]."""
        longest = min(cap, BASE_DELAY * 2.0 ** min(self.failures, 16))
        self.failures += 1
        self.not_before = now + rng.uniform(0.0, longest)

    def spread(self, now: float, rng: random.Random, window: float) -> None:
        """Let the next attempt be due at any moment of the next ``window`` seconds; that is no failure."""
        self.not_before = now + rng.uniform(0.0, window)

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self.not_before = 0.0
