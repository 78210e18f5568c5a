"""``make crash N=100``: nodes are killed ``N`` times; the first that does not come back whole ends it."""

import argparse
import collections
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.rounds import KINDS, REPEATED, Round, World

RANDOM_MOMENTS = 0.3
"""Share of the kills that come at a random moment instead of a named point."""


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=None, help="draw the same rounds again")
    parser.add_argument("--only", choices=[kind.__name__ for kind in KINDS], help="this operation alone")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it there")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}: make crash N={options.count} SEED={seed} runs the same again", flush=True)
    kinds = [kind for kind in KINDS if options.only in (None, kind.__name__)]
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        return campaign(options.keep, seed, options.count, kinds)
    with tempfile.TemporaryDirectory(prefix="guts-crash-") as folder:
        return campaign(Path(folder), seed, options.count, kinds)


def campaign(folder: Path, seed: int, count: int, kinds: list[type[Round]]) -> int:
    """Kill ``count`` times; every point of every operation comes once before one comes twice."""
    rng = random.Random(seed)
    begun = time.monotonic()
    places: collections.Counter[str] = collections.Counter()
    world = World(folder, rng)
    try:
        for number, (kind, point) in enumerate(plan(rng, count, kinds), 1):
            told = f"{kind.__name__} at {point or 'a random moment'}"
            round_ = kind(world)
            try:
                places[round_.run(point)] += 1
            except BaseException:
                round_.victim.kill()
                print(f"kill {number} of {count}: {told}: failed", flush=True)
                raise
            print(f"kill {number} of {count}: {told}: whole", flush=True)
    finally:
        world.close()
    missed = sum(times for place, times in places.items() if "not reached" in place)
    print(f"{count} kills, {missed} of them after the operation, in {time.monotonic() - begun:.0f} s: all whole")
    return 0


def plan(rng: random.Random, count: int, kinds: list[type[Round]]) -> list[tuple[type[Round], str | None]]:
    """Return what is killed, and where."""
    rounds: list[tuple[type[Round], str | None]] = []
    while len(rounds) < count:
        lap: list[tuple[type[Round], str | None]] = [
            (kind, f"{point}:{rng.randint(1, REPEATED.get(point, 1))}") for kind in kinds for point in kind.points
        ]
        moments = int(len(lap) * RANDOM_MOMENTS / (1 - RANDOM_MOMENTS))
        lap += [(rng.choice(kinds), None) for _ in range(moments)]
        rng.shuffle(lap)
        rounds += lap
    return rounds[:count]


if __name__ == "__main__":
    sys.exit(main())
