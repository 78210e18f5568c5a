"""What it costs that Guts is there: the start of a command, and the memory of an idle node.

    python -m tests.benchmarks.startup [runs]

``guts --help`` against ``python -c pass``, alternating; and the resident memory of a fresh node that has joined a
network and has nothing to do, without its git children (it has none then).
"""

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.benchmarks import network
from tests.benchmarks.figure import Figure, ratios, show

RUNS = 15
NODES = 3
GUTS = Path(sysconfig.get_path("scripts")) / "guts"


def seconds(*command: str) -> float:
    """Return how long a command takes."""
    start = time.perf_counter()
    subprocess.run(command, env=dict(os.environ), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(runs: int = RUNS) -> list[Figure]:
    """Run everything; return the figures."""
    helps: list[float] = []
    nothings: list[float] = []
    for _ in range(runs):
        nothings.append(seconds(sys.executable, "-c", "pass"))
        helps.append(seconds(str(GUTS), "--help"))
    idle = []
    with network.cluster(NODES) as cluster:
        cluster.start()
        for member in cluster.members:
            network.wait_quiet(network.pid_of(member))
            idle.append(network.memory(network.pid_of(member), "VmRSS"))
    return [
        Figure("guts --help / python -c pass", "x", ratios(helps, nothings), 15, "at most", 1),
        Figure("idle node", "MiB", idle, 90, "at most", 0),
    ]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
