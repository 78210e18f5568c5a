"""A network of five nodes, and homes from which git is run."""

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from guts.cli.local_cluster import LocalCluster
from guts.config import Paths
from tests.e2e.conftest import Guts, Ran, commit
from tests.support.repositories import git as plain_git

DOOR, *REPLICAS = 1, 2, 3
USER: Final = 4
BYSTANDER: Final = 5
GIT_TIMEOUT: Final = 300.0
BIG_BYTES: Final = 100 << 20
SETTLE_TIMEOUT: Final = 60.0

HOLDER, THROUGH, ALONE = "node-that-holds-it", "node-that-does-not", "no-node"


@dataclass(frozen=True)
class Home:
    """A home, with or without a running node, from which commands of git and Guts are given."""

    path: Path
    scratch: Path
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def at(cls, path: Path, scratch: Path) -> "Home":
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUTS_", "GIT_"))}
        person = scratch / "person"
        person.mkdir(exist_ok=True)
        (person / "gitconfig").write_text(
            "[user]\n\tname = A\n\temail = a@example.org\n[init]\n\tdefaultBranch = main\n"
            '[protocol "guts"]\n\tallow = always\n[advice]\n\tdetachedHead = false\n'
        )
        commands = Path(sys.executable).parent
        return cls(
            path,
            scratch,
            {
                **kept,
                "PATH": f"{commands}{os.pathsep}{kept['PATH']}",
                "HOME": str(person),
                "GUTS_HOME": str(path),
                "GIT_CONFIG_GLOBAL": str(person / "gitconfig"),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_TERMINAL_PROMPT": "0",
                "LC_ALL": "C",
            },
        )

    @property
    def guts(self) -> Guts:
        return Guts(self.path)

    def git(self, where: Path, *arguments: object, **environ: str) -> Ran:
        """Run git in ``where``, which may fail."""
        done = subprocess.run(
            ["git", *map(str, arguments)],
            cwd=where,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_TIMEOUT,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, where: Path, *arguments: object, **environ: str) -> Ran:
        """Run git in ``where``; it does not fail."""
        ran = self.git(where, *arguments, **environ)
        assert ran.status == 0, f"git {' '.join(map(str, arguments))}\n{ran.err}"
        return ran


class Network:
    """The nodes: a door, two replicas that follow what is published, a user's, and one that holds nothing."""

    def __init__(self, cluster: LocalCluster, scratch: Path) -> None:
        self.cluster = cluster
        self._scratch = scratch
        self._numbers = itertools.count()

    def home(self, index: int) -> Home:
        return Home.at(self.cluster.member(index).home, self._scratch)

    def lone_home(self) -> Home:
        """A home of the same network, of which no node runs."""
        path = self._scratch / f"home{next(self._numbers)}"
        path.mkdir()
        text = (self.cluster.member(USER).home / "config.toml").read_text()
        lines = [line for line in text.splitlines() if not line.startswith(("listen_addr", "advertise"))]
        (path / "config.toml").write_text("\n".join([*lines, 'listen_addr = "127.0.0.1:0"', ""]))
        return Home.at(path, self._scratch)

    def reader(self, through: str) -> Home:
        """A home from which what the user has published is read, in one of three ways."""
        return {HOLDER: lambda: self.home(REPLICAS[0]), THROUGH: lambda: self.home(BYSTANDER), ALONE: self.lone_home}[
            through
        ]()

    def folder(self, index: int, repository: str) -> Path:
        return self.cluster.member(index).home / "data" / "repos" / f"{repository}.git"


@dataclass(frozen=True)
class Published:
    """A repository that has been published from ``work``, whose remote is called ``guts``."""

    network: Network
    author: Home
    work: Path
    repository: str

    @property
    def url(self) -> str:
        return f"guts://{self.repository}/tool"

    def replicas(self) -> list[Path]:
        return [self.network.folder(index, self.repository) for index in REPLICAS]

    def settle(self, expected: Mapping[str, str] | None = None) -> dict[str, str]:
        """Wait until both replicas have the refs of the author's copy (or ``expected``); return them.

        Then ``git fsck --full`` on all of them.
        """
        wanted = dict(expected) if expected is not None else refs_of(self.work)
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while any((shown := refs_of(folder)) != wanted for folder in self.replicas()):
            assert time.monotonic() < deadline, (shown, wanted)
            for index in REPLICAS:
                self.network.home(index).guts("sync", self.repository, "--timeout", "5")
        for folder in self.replicas():
            fsck(folder)
        fsck(self.work)
        return wanted


def refs_of(folder: Path) -> dict[str, str]:
    """Return branches, tags and notes of a repository, by git's own word."""
    shown = plain_git(
        folder, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags", "refs/notes"
    )
    return dict(line.split(" ") for line in shown.splitlines())


def tracked(clone: Path, remote: str = "origin") -> dict[str, str]:
    """Return what a clone knows of its remote's branches, by their names there, and its tags."""
    branches = plain_git(clone, "for-each-ref", "--format=%(refname) %(objectname)", f"refs/remotes/{remote}")
    prefix = f"refs/remotes/{remote}/"
    found = dict(line.split(" ") for line in branches.splitlines())
    heads = {f"refs/heads/{name.removeprefix(prefix)}": oid for name, oid in found.items() if name != f"{prefix}HEAD"}
    tags = plain_git(clone, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags")
    return heads | dict(line.split(" ") for line in tags.splitlines())


def fsck(folder: Path) -> None:
    plain_git(folder, "fsck", "--full", "--strict", "--no-dangling", "--no-progress")


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    scratch = tmp_path_factory.mktemp("interop")
    cluster = LocalCluster.create(scratch / "cluster", 5)
    try:
        cluster.start()
        yield Network(cluster, scratch)
    finally:
        cluster.stop()
    assert not any(member.running for member in cluster.members)


def make_work(path: Path) -> Path:
    """Make a repository with two branches, a merge, an annotated tag, a plain one, and a note."""
    path.mkdir(parents=True)
    plain_git(path, "init", "-q", "-b", "main")
    for name in ("one", "two", "three"):
        commit(path, name)
    plain_git(path, "switch", "-q", "-c", "topic/side", "HEAD~1")
    commit(path, "side")
    plain_git(path, "switch", "-q", "main")
    plain_git(path, "merge", "-q", "-m", "merge", "topic/side")
    plain_git(path, "tag", "light", "HEAD~1")
    plain_git(path, "tag", "-a", "-m", "annotated", "v1")
    plain_git(path, "notes", "add", "-m", "a note")
    return path


def publish(network: Network, work: Path) -> Published:
    """Publish ``work`` from the user's home, and have both replicas follow it."""
    author = network.home(USER)
    repository = str(author.guts("publish", work, "--json").json["repository"])
    for index in REPLICAS:
        seeded = network.home(index).guts("seed", repository)
        assert seeded.status == 0, seeded.err
    return Published(network, author, work, repository)


@pytest.fixture(scope="session")
def library(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A repository that nobody changes."""
    work = make_work(tmp_path_factory.mktemp("library") / "tool")
    return publish(network, work)


@pytest.fixture(params=[HOLDER, THROUGH, ALONE])
def reader(request: pytest.FixtureRequest, network: Network) -> Home:
    """Who reads: through each kind of node, and with none."""
    return network.reader(request.param)


@pytest.fixture(params=[HOLDER, ALONE])
def mine(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Published:
    """A repository of its own for a test that pushes: with the author's node running, and from a second home with none.

    The second home has the author's key, and nothing else to begin with.
    """
    published = publish(network, make_work(tmp_path / "tool"))
    if request.param == HOLDER:
        return published
    second = network.lone_home()
    keys = [Paths.from_environ(home.environ).author_key for home in (second, published.author)]
    keys[0].parent.mkdir(mode=0o700, parents=True)
    shutil.copy(keys[1], keys[0])
    return replace(published, author=second)


@pytest.fixture(scope="session", autouse=True)
def stock_git() -> None:
    assert shutil.which("git"), "git"


@pytest.fixture(scope="session")
def many(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """5,000 branches, as many refs as a record holds."""
    work = tmp_path_factory.mktemp("many") / "tool"
    work.mkdir()
    plain_git(work, "init", "-q", "-b", "b0000")
    tip = commit(work, "one")
    lines = "".join(f"create refs/heads/b{number:04} {tip}\n" for number in range(1, 5000))
    plain_git(work, "update-ref", "--stdin", data=lines.encode())
    return publish(network, work)


@pytest.fixture(scope="session")
def big(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One blob of 100 MiB that does not compress."""
    work = tmp_path_factory.mktemp("big") / "tool"
    work.mkdir()
    plain_git(work, "init", "-q", "-b", "main")
    (work / "blob").write_bytes(random.Random(4).randbytes(BIG_BYTES))
    plain_git(work, "add", "blob")
    plain_git(work, "commit", "-q", "-m", "big")
    return publish(network, work)
