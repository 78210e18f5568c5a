"""How long a signed tip takes until three replicas have confirmed that they committed it.

    python -m tests.benchmarks.receipts [runs]

From the moment at which the signature is sent to the publisher's node (``commit``) until the node says that it has the
receipts of three: checks, commit and fsync on four nodes, the news, the fetches, and the answers. What comes before, as
in every publication, is told apart: the objects are handed over and checked, and the next record is prepared.
"""

import sys
import tempfile
import time
from pathlib import Path

from guts.cli.answer import Answer
from tests.benchmarks import network
from tests.benchmarks.arrival import OBJECTS, new_tip, prepared
from tests.benchmarks.figure import Figure, show
from tests.support.repositories import make_repository

RUNS = 15
LIMIT_SECONDS = 30
PUBLISHER, REPLICAS = 2, (3, 4, 5)


def measure(runs: int = RUNS) -> list[Figure]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder, network.cluster(max(REPLICAS)) as cluster:
        source = make_repository(Path(folder) / "source.git", OBJECTS, seed=2)
        cluster.start()
        publisher = cluster.member(PUBLISHER)
        client = network.control(publisher)
        published = network.guts(publisher, "publish", str(source))
        repository, author = published.text("repository"), published.text("author")
        for number in REPLICAS:
            network.guts(cluster.member(number), "seed", repository, "--from", publisher.address)
        wait = (
            f"/v1/repositories/{repository}/receipts?author={author}&replicas={len(REPLICAS)}&timeout={LIMIT_SECONDS}"
        )
        preparing, committing, confirming = [], [], []
        for number in range(runs):
            for member in (PUBLISHER, *REPLICAS):
                network.wait_quiet(network.pid_of(cluster.member(member)))
            new_tip(source, number)
            begun = time.perf_counter()
            commit, body = prepared(publisher, source, repository)
            signed = time.perf_counter()
            client.send("POST", commit, body)
            committed = time.perf_counter()
            told = Answer.of(client.get(wait, LIMIT_SECONDS))
            confirmed = time.perf_counter()
            assert len(told.objects("receipts")) == len(REPLICAS), "all replicas confirm"
            preparing.append((signed - begun) * 1000)
            committing.append((committed - signed) * 1000)
            confirming.append((confirmed - signed) * 1000)
    return [
        Figure("publication prepared", "ms", preparing, 200, "at most", 0),
        Figure("signed tip committed", "ms", committing, 150, "at most", 0),
        Figure("signed tip confirmed by 3 replicas", "ms", confirming, 400, "at most", 0),
    ]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
