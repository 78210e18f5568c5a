"""Every figure of docs/benchmarks.md in one table: ``make bench``.

The exit status says nothing about the figures: a busy machine is no fault of the code.
"""

import os
import time

from tests.benchmarks import (
    arrival,
    bulk_stream,
    handshake,
    handshake_flood,
    idle_peers,
    maintainers,
    plain_git,
    receipts,
    reconnect,
    recovery,
    replication,
    startup,
)
from tests.benchmarks.figure import Figure, show


def main() -> None:
    """Run all benchmarks, the short ones first."""
    begun = time.monotonic()
    figures: list[Figure] = []
    for benchmark in (
        handshake,
        startup,
        maintainers,
        recovery,
        bulk_stream,
        handshake_flood,
        idle_peers,
        reconnect,
        arrival,
        receipts,
        replication,
        plain_git,
    ):
        print(f"==> {benchmark.__name__} (load {os.getloadavg()[0]:.1f})", flush=True)
        figures += benchmark.measure()
    show(figures)
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
