"""How long a replication between two real nodes takes, against ``git clone --bare git://`` with fsck.

    python -m tests.benchmarks.replication [--objects N] [--runs N] [--repository PATH]

One node publishes; a fresh node per run is told to seed the repository from there, and the time counts from that
request until the node answers that everything is checked and committed. Object metadata, which nodes write
afterwards, is not counted, but each run waits until the nodes are idle again. Runs alternate with git's own clone,
whose server reads the very same repository folder. Memory is that of both node processes, without their git
children: the highest between the idle moment before anything was published and the idle moment after the run.
"""

import argparse
import contextlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from guts.cli.answer import Answer
from guts.cli.local_cluster import LocalCluster, Member
from tests.benchmarks import network
from tests.benchmarks.figure import Figure, ratios, show
from tests.support.repositories import ENVIRONMENT, git, make_repository

OBJECTS = 132_000
RUNS = 5
DOOR, PUBLISHER, FIRST_REPLICA = 1, 2, 3
SEED_TIMEOUT = 600.0
LISTED_POLL_SECONDS = 0.5


@contextlib.contextmanager
def daemon(base: Path, name: str) -> Iterator[tuple[str, int]]:
    """Serve the repository ``name`` in ``base`` over git:// on a free loopback port; its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={base}"],
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"git://127.0.0.1:{port}/{name}"
        while subprocess.run(["git", "ls-remote", url], capture_output=True, check=False).returncode:
            assert process.poll() is None, "the daemon runs"
            time.sleep(0.05)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def clone(url: str) -> tuple[float, float]:
    """Return the seconds of git's own clone, by the clock and of processor time, without its server's."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            ["git", "-c", "transfer.fsckObjects=true", "clone", "-q", "--bare", url, f"{folder}/clone.git"],
            env=ENVIRONMENT,
            check=True,
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Replication:
    """Two nodes, the repository that travels between them, and the figures of every run."""

    def __init__(self, cluster: LocalCluster, source: Path) -> None:
        self._cluster = cluster
        self.replicating: list[float] = []
        self.cloning: list[float] = []
        self.processor: list[float] = []
        self.clone_processor: list[float] = []
        self.publisher_growth: list[float] = []
        self.replica_growth: list[float] = []
        cluster.start(DOOR, PUBLISHER)
        self._publisher = network.pid_of(cluster.member(PUBLISHER))
        network.wait_quiet(self._publisher)
        self._idle = network.memory(self._publisher, "VmRSS")
        network.forget_peak(self._publisher)
        published = network.guts(cluster.member(PUBLISHER), "publish", str(source))
        self.publishing = published.seconds("seconds")
        self._repository = published.text("repository")
        inspected = network.guts(cluster.member(PUBLISHER), "inspect", self._repository)
        self.path = Path(inspected.text("path"))
        self.bytes = inspected.number("size_bytes")
        counted = dict(line.split(": ") for line in git(self.path, "count-objects", "-v").splitlines())
        self.objects = int(counted["in-pack"])
        self._wait_listed(cluster.member(PUBLISHER))

    def run(self, index: int, url: str, server: int) -> None:
        """Clone once, replicate once."""
        before = network.processor_seconds(server)
        seconds, processor = clone(url)
        self.cloning.append(seconds)
        self.clone_processor.append(processor + network.processor_seconds(server) - before)
        self._cluster.start(index)
        member = self._cluster.member(index)
        replica = network.pid_of(member)
        network.wait_quiet(replica)
        idle = network.memory(replica, "VmRSS")
        network.forget_peak(replica)
        pids = (self._publisher, replica)
        used = sum(map(network.processor_seconds, pids))
        start = time.perf_counter()
        answer = network.control(member).send(
            "PUT",
            f"/v1/repositories/{self._repository}/seeding",
            {"hints": [self._cluster.member(PUBLISHER).address], "timeout": SEED_TIMEOUT},
            SEED_TIMEOUT,
        )
        self.replicating.append(time.perf_counter() - start)
        self.processor.append(sum(map(network.processor_seconds, pids)) - used)
        assert Answer.of(answer).seconds("seconds") > 0
        self._wait_listed(member)
        self.publisher_growth.append(network.memory(self._publisher, "VmHWM") - self._idle)
        self.replica_growth.append(network.memory(replica, "VmHWM") - idle)
        self._check(member.home)
        self._cluster.stop(index)
        shutil.rmtree(member.home)

    def _wait_listed(self, member: Member) -> None:
        """Return when the node has written the metadata of every object, and is idle."""
        deadline = time.monotonic() + SEED_TIMEOUT
        while True:
            inspected = Answer.of(network.control(member).get(f"/v1/repositories/{self._repository}"))
            counts = inspected.object("objects").json.values()
            if sum(count for count in counts if isinstance(count, int)) == self.objects:
                break
            assert time.monotonic() < deadline, "the node writes the metadata"
            time.sleep(LISTED_POLL_SECONDS)
        network.wait_quiet(network.pid_of(member))

    def _check(self, home: Path) -> None:
        (copy,) = home.rglob(self.path.name)
        want, have = (git(path, "for-each-ref") for path in (self.path, copy))
        assert want == have, "the replica has the publisher's refs"

    def figures(self) -> list[Figure]:
        """Return what was measured."""
        return [
            Figure("replication / git clone", "x", ratios(self.replicating, self.cloning), 1.5, "at most"),
            Figure("replica's memory over idle", "MiB", self.replica_growth, 60, "at most", 0),
            Figure("publisher's memory over idle", "MiB", self.publisher_growth, 60, "at most", 0),
        ]

    def print_seconds(self) -> None:
        """Print what the ratios are made of."""
        print(f"replication: {self.objects} objects, {self.bytes / 1e6:.0f} MB; publish took {self.publishing:.1f} s")
        rows: Sequence[tuple[str, Sequence[float]]] = (
            ("two nodes", self.replicating),
            ("git clone --bare", self.cloning),
            ("processor, two nodes", self.processor),
            ("processor, git clone", self.clone_processor),
        )
        for name, values in rows:
            print(f"  {name:22} {statistics.median(values):6.2f} s  " + " ".join(f"{value:.2f}" for value in values))


def measure(objects: int = OBJECTS, runs: int = RUNS, repository: Path | None = None) -> list[Figure]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder:
        source = Path(folder) / "source.git"
        if repository is None:
            make_repository(source, objects, seed=1)
            git(source, "repack", "-adq")
        else:
            git(Path(folder), "clone", "-q", "--no-local", "--mirror", str(repository.absolute()), str(source))
        with network.cluster(FIRST_REPLICA + runs - 1) as cluster:
            replication = Replication(cluster, source)
            with daemon(replication.path.parent, replication.path.name) as (url, server):
                for index in range(FIRST_REPLICA, FIRST_REPLICA + runs):
                    replication.run(index, url, server)
            replication.print_seconds()
            return replication.figures()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--repository", type=Path)
    arguments = parser.parse_args()
    show(measure(arguments.objects, arguments.runs, arguments.repository))


if __name__ == "__main__":
    main()
