"""How long a signed tip takes from its publisher to a connected replica.

    python -m tests.benchmarks.arrival [runs]

From the moment at which the signature is sent to the publisher's node (``commit``) until the replica's
``packed-refs`` shows the tip: checks, commit and fsync on both nodes, the news, and the fetch. The replica's file
is looked at every 2 ms. Processor time is that of the replica and its git children, the listing of objects and
whatever else it does until it rests among it; the system counts it in steps of 10 ms, so that the mean says more.
"""

import base64
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from guts.cli.answer import Answer
from guts.cli.local_cluster import Member
from guts.config import Paths
from guts.identity import domain
from guts.keystore import KeyKind, load_key, passphrase_source
from guts.trust.signed_refs import KIND
from tests.benchmarks import network
from tests.benchmarks.figure import Figure, show
from tests.support.repositories import ENVIRONMENT, git, make_repository

RUNS = 15
OBJECTS = 2_000
POLL_SECONDS = 0.002
LIMIT_SECONDS = 30.0
DOOR, PUBLISHER, REPLICA = 1, 2, 3


def new_tip(source: Path, number: int) -> str:
    """Commit a file on ``main`` of a bare repository and return the commit."""
    blob = git(source, "hash-object", "-w", "--stdin", data=f"news {number}\n".encode())
    tree = git(source, "mktree", data=f"100644 blob {blob}\tnews-{number}\n".encode())
    tip = git(source, "commit-tree", tree, "-p", "main", "-m", f"News {number}")
    git(source, "update-ref", "refs/heads/main", tip)
    return tip


def prepared(member: Member, source: Path, repository: str) -> tuple[str, dict[str, object]]:
    """Hand refs and new objects to the node, as ``guts publish`` does; return path and body of the commit."""
    client = network.control(member)
    environ = member.environ(os.environ)
    key = load_key(Paths.from_environ(environ).author_key, KeyKind.AUTHOR, passphrase_source(environ))
    tips = Answer.of(client.get(f"/v1/repositories/{repository}/publication")).texts("tips")
    lines = git(source, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    refs = {line[41:]: line[:40] for line in lines}
    revisions = "\n".join([*refs.values(), "--not", *tips, ""]).encode()
    pack = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "--thin", "-q"],
        cwd=source,
        env=ENVIRONMENT,
        input=revisions,
        capture_output=True,
        check=True,
    ).stdout
    header: dict[str, object] = {
        "genesis": None,
        "repository": repository,
        "author": str(key.author_id),
        "refs": refs,
        "head": "refs/heads/main",
        "force": [],
    }
    answer = Answer.of(client.upload("/v1/publications", header, [pack], LIMIT_SECONDS))
    signature = key.sign(domain(KIND), base64.b64decode(answer.text("body")))
    return f"/v1/publications/{answer.text('session')}/commit", {"signature": signature.hex()}


def wait_for(tip: str, packed_refs: Path) -> None:
    """Return as soon as the file shows ``main`` at ``tip``."""
    line = f"{tip} refs/heads/main\n"
    deadline = time.monotonic() + LIMIT_SECONDS
    while line not in packed_refs.read_text():
        assert time.monotonic() < deadline, "the tip arrives"
        time.sleep(POLL_SECONDS)


def measure(runs: int = RUNS) -> list[Figure]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder, network.cluster(REPLICA) as cluster:
        source = make_repository(Path(folder) / "source.git", OBJECTS, seed=2)
        cluster.start()
        publisher, replica = cluster.member(PUBLISHER), cluster.member(REPLICA)
        repository = network.guts(publisher, "publish", str(source)).text("repository")
        network.guts(replica, "seed", repository, "--from", publisher.address)
        path = Path(network.guts(replica, "inspect", repository).text("path"))
        network.wait_quiet(network.pid_of(replica))
        times: list[float] = []
        used: list[float] = []
        spent: list[float] = []
        for number in range(runs):
            tip = new_tip(source, number)
            commit, body = prepared(publisher, source, repository)
            before = network.processor_seconds(network.pid_of(replica))
            publishers = network.processor_seconds(network.pid_of(publisher))
            start = time.perf_counter()
            network.control(publisher).send("POST", commit, body)
            wait_for(tip, path / "packed-refs")
            times.append((time.perf_counter() - start) * 1000)
            network.wait_quiet(network.pid_of(replica))
            used.append((network.processor_seconds(network.pid_of(replica)) - before) * 1000)
            network.wait_quiet(network.pid_of(publisher))
            spent.append((network.processor_seconds(network.pid_of(publisher)) - publishers) * 1000)
    return [
        Figure("signed tip to replica", "ms", times, 300, "at most", 0),
        Figure("the same: processor time of the replica", "ms", used, 30, "at most", 0),
        Figure("the mean of it", "ms", [sum(used) / runs], 30, "at most", 1),
        Figure("processor time of the publisher's node, mean", "ms", [sum(spent) / runs], 40, "at most", 1),
    ]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
