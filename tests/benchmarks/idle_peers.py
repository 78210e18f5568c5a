"""What a node's idle peers cost: memory above a node that has none, and processor time.

    python -m tests.benchmarks.idle_peers [peers] [seconds]

One ``guts node run`` and, in another process, so many peers that are authenticated and do nothing but ping each other
every 30 s. Memory is resident memory when all are there, less that of the idle node before; processor time is that of
the node, for the given time after it has become quiet.
"""

import sys
import time

from tests.benchmarks import crowd, network
from tests.benchmarks.figure import Figure, show

PEERS = 1000
SECONDS = 60.0
"""Two rounds of pings."""

DOOR = 1


def measure(peers: int = PEERS, seconds: float = SECONDS) -> list[Figure]:
    """Run everything; return the figures."""
    with network.crowded(peers) as (cluster, address, name):
        cluster.start(DOOR)
        pid = network.pid_of(cluster.member(DOOR))
        network.wait_quiet(pid)
        idle = network.memory(pid, "VmRSS")
        with crowd.gathered(address.partition("@")[2], name, peers):
            time.sleep(2.0)
            memory = network.memory(pid, "VmRSS") - idle
            used, begun = network.processor_seconds(pid), time.monotonic()
            time.sleep(seconds)
            share = (network.processor_seconds(pid) - used) / (time.monotonic() - begun)
    return [
        Figure(f"{peers:,} idle peers, memory above an idle node", "MiB", [memory], 60, "at most", 1),
        Figure("the same, processor time", "% of a core", [100 * share], 3, "at most", 1),
    ]


def main() -> None:
    """Run from the command line."""
    peers, seconds = [*sys.argv[1:], *map(str, (PEERS, SECONDS)[len(sys.argv) - 1 :])]
    show(measure(int(peers), float(seconds)))


if __name__ == "__main__":
    main()
