"""Real processes: commands as a person types them, nodes in the background, nothing left behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from guts.cli.local_cluster import LocalCluster
from tests.support.repositories import git

COMMAND_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """The result of a command that was given ``--json``."""
        assert self.status == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, object]:
        """The error of a command that was given ``--json``."""
        assert self.status != 0, self.out
        error = json.loads(self.err.splitlines()[-1])["error"]
        assert isinstance(error, dict)
        return error


class Guts:
    """Runs ``guts`` in processes of their own, with ``home`` as ``GUTS_HOME``."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GUTS_")}
        self.environ = {**kept, "GUTS_HOME": str(home), **settings}

    def __call__(self, *arguments: object, cwd: Path | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "guts", *map(str, arguments)],
            env=self.environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Guts]:
    """A home without a network, on a free port; its node is stopped at the end."""
    guts = Guts(tmp_path / "home", GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0")
    yield guts
    assert guts("node", "stop").status == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A door (1) and three nodes (2, 3, 4), running; one network for all tests of a module."""
    cluster = LocalCluster.create(tmp_path_factory.mktemp("network") / "cluster", 4)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert not any(member.running for member in cluster.members)


@pytest.fixture
def node(cluster: LocalCluster) -> Callable[[int], Guts]:
    """Commands that speak to a node of the cluster."""
    return lambda index: Guts(cluster.member(index).home)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with two commits and a tag."""
    return two_commits(tmp_path / "tool")


def two_commits(path: Path) -> Path:
    """Make a repository with two commits and a tag, and return its path."""
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        commit(path, name)
    git(path, "tag", "v1")
    return path


def commit(work: Path, name: str) -> str:
    """Commit a file and return the commit's id."""
    (work / name).write_text(name)
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", name)
    return git(work, "rev-parse", "HEAD")
