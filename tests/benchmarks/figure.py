"""One measured figure: its runs, what is wanted of it, and its line in the table that ``make bench`` prints."""

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """What several runs of one measurement gave.

    Attributes:
        name: what was measured.
        unit: of the values; ``x`` for a ratio.
        values: one for each run, in order.
        target: what the median should be.
        wanted: whether the median should be at most, or at least, the target.
        digits: decimals shown.
    """

    name: str
    unit: str
    values: Sequence[float]
    target: float
    wanted: Literal["at most", "at least"]
    digits: int = 2

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def ok(self) -> bool:
        """Whether the median meets the target."""
        return self.median <= self.target if self.wanted == "at most" else self.median >= self.target

    def row(self) -> tuple[str, ...]:
        """Return the cells of its line in the table."""

        def text(value: float) -> str:
            return f"{value:.{self.digits}f}"

        return (
            self.name,
            f"{text(self.median)} {self.unit}",
            f"{text(min(self.values))}-{text(max(self.values))}",
            str(len(self.values)),
            f"{'<=' if self.wanted == 'at most' else '>='} {self.target:g}",
            "ok" if self.ok else "MISSED",
        )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each pair of runs; those of one pair ran one after the other, under the same load."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def show(figures: Iterable[Figure]) -> None:
    """Print a table of ``figures``."""
    rows = [("FIGURE", "MEDIAN", "SPREAD", "RUNS", "WANTED", ""), *(figure.row() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{os.cpu_count()} processors; load at the end {os.getloadavg()[0]:.1f}", flush=True)
