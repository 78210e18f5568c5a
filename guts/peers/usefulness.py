"""``Usefulness``: how well a peer has served of late. It only says whom to ask first; it never punishes.

Trouble that networks make by themselves (silence, slowness, a lost connection) costs no fault, and shows here.
"""

from dataclasses import dataclass
from typing import Final

WEIGHT: Final = 0.2
"""Of the newest transfer in the average: the last ten make nine tenths of it."""

UNKNOWN_RATE: Final = float(256 << 10)
"""Bytes per second, of whoever has sent no pack yet: a slow home line, so that new peers are tried, after fast ones."""

MIN_MEASURED_BYTES: Final = 64 << 10
"""A smaller pack measures the way there and back, not the line."""

MAX_RATE: Final = float(1 << 30)


@dataclass(slots=True)
class Usefulness:
    """Averages over transfers, the newest counting the most.

    Attributes:
        success: share of transfers that ended well, 0 to 1.
        rate: bytes per second.
        asked: there was a transfer; before, ``success`` is what is hoped for.
        measured: there was one by which ``rate`` could be told.
    """

    success: float = 1.0
    rate: float = UNKNOWN_RATE
    asked: bool = False
    measured: bool = False

    @property
    def value(self) -> float:
        """What may be expected of one request, in bytes per second."""
        return self.success * self.rate

    def served(self, pack_bytes: int, seconds: float) -> None:
        """Count a transfer that ended well, with a pack of ``pack_bytes`` that took ``seconds``."""
        self.asked = True
        self.success += WEIGHT * (1.0 - self.success)
        if pack_bytes >= MIN_MEASURED_BYTES:
            rate = min(pack_bytes / seconds, MAX_RATE) if seconds > 0 else MAX_RATE
            self.measured = True
            self.rate += WEIGHT * (rate - self.rate)

    def failed(self) -> None:
        """Count one that did not, for whatever reason on the peer's side or between."""
        self.asked = True
        self.success -= WEIGHT * self.success
