"""What plain git takes with a Guts remote, against ``git://``, ``ssh://`` and a repository next door.

    python -m tests.benchmarks.plain_git [--objects N] [--runs N] [--repository PATH]

All runs alternate, and all servers give out the very same repository folder:

- clones of a large repository: through a running node that holds it; through one that does not, from a replica over an
  encrypted connection; from ``git daemon``; over ssh from an ``sshd`` on loopback, started for this.
- ``git ls-remote`` of it, with the same two nodes.
- a clone of a small repository with no node running: the client starts, joins the DHT, finds it, fetches it.
- a push of one commit, with receipts of three replicas, against a push to a local bare repository by path.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from guts.cli.local_cluster import LocalCluster, Member
from tests.benchmarks import network
from tests.benchmarks.figure import Figure, ratios, show
from tests.benchmarks.replication import daemon
from tests.support.repositories import ENVIRONMENT, git, make_repository

OBJECTS = 132_000
SMALL = 300
RUNS = 5
QUICK_RUNS = 15
DOOR, *REPLICAS = 1, 2, 3, 4
PUBLISHER, BYSTANDER = 5, 6
START_TIMEOUT = 10.0
SSHD = "/usr/sbin/sshd"


def environment(home: Path, folder: Path) -> dict[str, str]:
    """Return the environment of git in the home of a node."""
    commands = Path(sys.executable).parent
    path = f"{commands}{os.pathsep}{ENVIRONMENT['PATH']}"
    return {**ENVIRONMENT, "PATH": path, "HOME": str(folder), "GUTS_HOME": str(home)}


def timed(arguments: Sequence[object], environ: Mapping[str, str], cwd: Path | None = None) -> float:
    """Run a command and return the seconds that it takes."""
    start = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in arguments], env=dict(environ), cwd=cwd, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    return seconds


def clone(url: str, environ: Mapping[str, str]) -> float:
    """Return the seconds of a bare clone; what it made is removed."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder:
        return timed(["git", "clone", "-q", "--bare", url, f"{folder}/clone.git"], environ)


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run an ssh server of our own on a free loopback port; yield its URL's beginning and what git needs to use it."""
    folder.mkdir(mode=0o700)
    for name in ("host", "person"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "person.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up its privileges; Debian's service makes it
    process = subprocess.Popen([SSHD, "-D", "-f", folder / "config", "-E", folder / "log"], start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "sshd listens"
            time.sleep(0.05)
        trusting = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        options = f"-F /dev/null -o IdentitiesOnly=yes {trusting}"
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        command = {"GIT_SSH_COMMAND": f"ssh -i {folder / 'person'} {options}"}
        yield f"ssh://{user}@127.0.0.1:{port}", command
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class PlainGit:
    """A network of six nodes, with a large and a small repository on four of them."""

    def __init__(self, cluster: LocalCluster, folder: Path, large: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        cluster.start()
        self.large = network.guts(cluster.member(PUBLISHER), "publish", str(large)).text("repository")
        self._source = make_repository(folder / "small", SMALL, seed=2, bare=False)
        self.small = network.guts(cluster.member(PUBLISHER), "publish", str(self._source)).text("repository")
        for index in REPLICAS:
            for repository in (self.large, self.small):
                network.guts(cluster.member(index), "seed", repository)
            network.wait_quiet(network.pid_of(cluster.member(index)))
        self.holder = self._environ(cluster.member(REPLICAS[0]))
        self.bystander = self._environ(cluster.member(BYSTANDER))
        self.publisher = self._environ(cluster.member(PUBLISHER))
        inspected = network.guts(cluster.member(REPLICAS[0]), "inspect", self.large)
        self.path = Path(inspected.text("path"))
        self.objects = dict(line.split(": ") for line in git(self.path, "count-objects", "-v").splitlines())["in-pack"]

    def _environ(self, member: Member) -> dict[str, str]:
        return environment(member.home, self._folder)

    def clones(self, runs: int) -> list[Figure]:
        """Clone the large repository in four ways, in turns; the same for ``ls-remote``."""
        taken: dict[str, list[float]] = {name: [] for name in ("held", "through", "git", "ssh")}
        listed: dict[str, list[float]] = {name: [] for name in ("held", "through", "git")}
        url = f"guts://{self.large}/large"
        with daemon(self.path.parent, self.path.name) as (git_url, _), sshd(self._folder / "ssh") as (ssh, command):
            ways: dict[str, tuple[str, Mapping[str, str]]] = {
                "held": (url, self.holder),
                "through": (url, self.bystander),
                "git": (git_url, ENVIRONMENT),
                "ssh": (f"{ssh}{self.path}", {**ENVIRONMENT, **command}),
            }
            for _ in range(runs):
                for name, (where, environ) in ways.items():
                    taken[name].append(clone(where, environ))
            for _ in range(QUICK_RUNS):
                for name, seconds in listed.items():
                    where, environ = ways[name]
                    seconds.append(timed(["git", "ls-remote", where], environ))
        for name, seconds in taken.items():
            print(f"  clone, {name}: {' '.join(f'{value:.2f}' for value in seconds)} s")
        for name, seconds in listed.items():
            print(f"  ls-remote, {name}: {' '.join(f'{value * 1000:.0f}' for value in seconds)} ms")
        return [
            Figure("clone, node holds it / git://", "x", ratios(taken["held"], taken["git"]), 1.1, "at most"),
            Figure("clone, from a replica / git://", "x", ratios(taken["through"], taken["git"]), 1.1, "at most"),
            Figure("clone, node holds it / ssh://", "x", ratios(taken["held"], taken["ssh"]), 1.0, "at most"),
            Figure("clone, from a replica / ssh://", "x", ratios(taken["through"], taken["ssh"]), 1.0, "at most"),
            _above("ls-remote, node holds it, above git://", listed["held"], listed["git"], 80),
            _above("ls-remote, from replicas, above git://", listed["through"], listed["git"], 80),
        ]

    def ephemeral(self, runs: int) -> Figure:
        """Clone the small repository with no node running, each time as somebody who was never here."""
        taken = []
        door = self._cluster.member(DOOR)
        config = (self._cluster.member(BYSTANDER).home / "config.toml").read_text()
        settings = [line for line in config.splitlines() if not line.startswith(("listen_addr", "advertise"))]
        assert door.address in config
        for number in range(runs):
            home = self._folder / f"stranger{number}"
            home.mkdir()
            (home / "config.toml").write_text("\n".join([*settings, ""]))
            taken.append(clone(f"guts://{self.small}/small", environment(home, self._folder)))
        return Figure("clone of a small repository, no node", "s", taken, 2.0, "at most")

    def pushes(self, runs: int) -> Figure:
        """Push a commit with three receipts, and the same commit to a repository next door, in turns."""
        local = self._folder / "local.git"
        git(self._folder, "clone", "-q", "--bare", str(self._source), str(local))
        ours, theirs = [], []
        for number in range(runs):
            (self._source / "news").write_text(f"{number}\n")
            git(self._source, "add", "news")
            git(self._source, "commit", "-q", "-m", f"news {number}")
            theirs.append(timed(["git", "push", "-q", local, "main"], ENVIRONMENT, self._source))
            push = ["git", "push", "-q", "-o", "guts.replicas=3", "-o", "guts.strict", "guts", "main"]
            ours.append(timed(push, self.publisher, self._source))
        return _above("push with 3 receipts, above a local push", ours, theirs, 400)


def _above(name: str, ours: Sequence[float], theirs: Sequence[float], wanted: float) -> Figure:
    """Return a figure of by how many milliseconds ``ours`` is above ``theirs``, pair by pair."""
    more = [(mine - other) * 1000 for mine, other in zip(ours, theirs, strict=True)]
    return Figure(name, "ms", more, wanted, "at most", 0)


def measure(objects: int = OBJECTS, runs: int = RUNS, repository: Path | None = None) -> list[Figure]:
    """Return all figures of this page."""
    with network.cluster(BYSTANDER) as cluster, tempfile.TemporaryDirectory(prefix="guts-bench-") as name:
        folder = Path(name)
        large = repository or make_repository(folder / "large", objects, seed=1)
        bench = PlainGit(cluster, folder, large.absolute())
        print(f"  {bench.objects} objects")
        return [*bench.clones(runs), bench.ephemeral(max(runs, 5)), bench.pushes(QUICK_RUNS)]


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
