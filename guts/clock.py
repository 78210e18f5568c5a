"""Time as a value: read once per event at the edge, handed inwards."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Now:
    """One reading of both clocks.

    Attributes:
        mono: monotonic seconds, for timers and deadlines; never compared across processes.
        wall: Unix time in milliseconds, for signed timestamps and expiries; may jump.
    """

    mono: float
    wall: int
