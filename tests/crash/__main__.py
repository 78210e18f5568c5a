"""``make crash N=100``: nodes are killed ``N`` times; each time, what is left is looked at."""

import argparse
import collections
import random
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from guts.errors import GutsError
from tests.crash.round import Round
from tests.crash.rounds import KINDS
from tests.crash.world import World

RANDOM_MOMENTS: Final = 0.3
"""Share of the kills that come at a random moment instead of a named point."""

MAX_FAILURES: Final = 5
"""Nodes that did not come back whole, after which there is no need to see more."""

Kill = tuple[type[Round], str | None]


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=None, help="draw the same rounds again")
    parser.add_argument("--kill", type=int, default=None, help="of these the one of this number alone")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}: make crash N={options.count} SEED={seed} runs the same again", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="guts-crash-"))
    campaign = Campaign(folder, seed, options.count)
    campaign.run(options.kill)
    campaign.tell()
    if campaign.failures:
        print(f"what is left of the nodes is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


class Campaign:
    """Kills as drawn from ``seed``.

    Attributes:
        failures: numbers of the kills after which a node was not whole.
        reached: kills by operation and point (empty: a random moment).
        missed: those of them where the operation ended first.
    """

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self.failures: list[int] = []
        self.reached: collections.Counter[tuple[str, str]] = collections.Counter()
        self.missed: collections.Counter[tuple[str, str]] = collections.Counter()
        self._folder = folder
        self._seed = seed
        self._count = count
        self._seconds = 0.0

    def run(self, only: int | None) -> None:
        """Kill, and look; number ``only`` alone where one is given."""
        begun = time.monotonic()
        world = World(self._folder, random.Random(self._seed))
        try:
            for number, (kind, point) in enumerate(plan(random.Random(self._seed), self._count, KINDS), 1):
                if only in (None, number):
                    # Each draws from a seed of its own, so that one can be run again without those before it.
                    world.rng = random.Random(f"{self._seed}/{number}")
                    self._kill(world, number, kind, point)
                if len(self.failures) == MAX_FAILURES:
                    break
        finally:
            world.close()
            self._seconds = time.monotonic() - begun

    def _kill(self, world: World, number: int, kind: type[Round], point: str | None) -> None:
        place = (kind.__name__, (point or "").partition(":")[0])
        told = f"kill {number} of {self._count}: {kind.__name__} at {point or 'a random moment'}"
        try:
            in_time = kind(world).run(point)
        except (AssertionError, GutsError, KeyError, OSError, sqlite3.Error, subprocess.SubprocessError):
            traceback.print_exc(file=sys.stdout)
            self.failures.append(number)
            print(f"{told}: FAILED\nagain: make crash N={self._count} SEED={self._seed} KILL={number}", flush=True)
            return
        finally:
            world.clear()
        self.reached[place] += in_time
        self.missed[place] += not in_time
        print(f"{told}: whole" + ("" if in_time else ", killed when it was done"), flush=True)

    def tell(self) -> None:
        """Print the totals."""
        for kind in sorted({name for name, _ in (*self.reached, *self.missed)}):
            print(f"{kind}: {sum(times for (name, _), times in self.reached.items() if name == kind)}")
            for (name, point), times in sorted(self.reached.items()):
                if name == kind:
                    missed = self.missed[name, point]
                    print(
                        f"  {times:5} {point or 'random moments'}" + (f", {missed} when it was done" if missed else "")
                    )
        total, late, failed = self.reached.total(), self.missed.total(), len(self.failures)
        print(
            f"{total + late + failed} kills in {self._seconds:.0f} s, seed {self._seed}: {total} in the operation, "
            f"{late} when it was done, {failed} failed" + (f": {self.failures}" if failed else "")
        )


def plan(rng: random.Random, count: int, kinds: tuple[type[Round], ...]) -> list[Kill]:
    """Return what is killed, and where; every point of every operation comes once before one comes twice."""
    rounds: list[Kill] = []
    while len(rounds) < count:
        lap: list[Kill] = [
            (kind, f"{point}:{rng.randint(1, kind.repeated.get(point, 1))}") for kind in kinds for point in kind.points
        ]
        moments = int(len(lap) * RANDOM_MOMENTS / (1 - RANDOM_MOMENTS))
        lap += [(rng.choice(kinds), None) for _ in range(moments)]
        rng.shuffle(lap)
        rounds += lap
    return rounds[:count]


if __name__ == "__main__":
    sys.exit(main())
