"""Twenty nodes on a WAN, each a ``guts node run`` of its own in a network namespace of its own."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from guts.cli import daemon
from guts.cli.answer import Answer
from guts.cli.local_cluster import Member
from guts.config import Paths
from guts.identity import SigningKey
from guts.keystore import KeyFile, KeyKind, write_key_file
from tests.benchmarks import network
from tests.support.repositories import git
from tests.support.wan import Wan

NODES: Final = 20
DOOR: Final = 0
"""It holds no repository."""

PORT: Final = 9000
"""Each node has a namespace of its own, and so all ports."""

KEEPALIVE: Final = "5s"
"""So that connections which a partition has cut are given up after 15 s, and not after 90."""

START_TIMEOUT: Final = 120.0
SETTLE_TIMEOUT: Final = 120.0
POLL_SECONDS: Final = 0.02


def eventually(holds: Callable[[], bool], what: str, timeout: float = SETTLE_TIMEOUT) -> float:
    """Wait until ``holds``; return how many seconds that took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout, what
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


class WanNetwork:
    """The nodes, by number; 0 is the door."""

    def __init__(self, wan: Wan, folder: Path, count: int = NODES) -> None:
        self.wan = wan
        self.members = [self._make(folder / f"node{number}", number) for number in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def replicas(self) -> range:
        """The numbers of those that hold repositories."""
        return range(1, len(self.members))

    def _make(self, home: Path, number: int) -> Member:
        key = SigningKey.generate()
        write_key_file(Paths.from_environ({"GUTS_HOME": str(home)}).node_key, KeyFile.of(KeyKind.NODE, key, None))
        return Member(number, str(key.peer_id), home, PORT)

    def address(self, number: int) -> str:
        """Return where the others dial a node."""
        return f"{self.members[number].node_id}@{self.wan.addresses[number]}:{PORT}"

    def start(self) -> None:
        """Start every node, the door first; all answer then."""
        for number, member in enumerate(self.members):
            where = f"{self.wan.addresses[number]}:{PORT}"
            lines = [
                "[network]",
                f'listen_addr = "{where}"',
                f'advertise = ["{where}"]',
                'network_name = "wan"',
                f'keepalive_interval = "{KEEPALIVE}"',
                'role = "bootstrap"' if number == DOOR else f'bootstrap_nodes = ["{self.address(DOOR)}"]',
            ]
            (member.home / "config.toml").write_text("\n".join([*lines, ""]))
        for number, member in enumerate(self.members):
            command = [sys.executable, "-m", "guts", "node", "run", "--json"]
            environ = member.environ(os.environ)
            self.processes.append(self.wan.start(number, command, environ, member.home / "log"))
            if number == DOOR:
                self._await(number)
        for number in self.replicas:
            self._await(number)

    def _await(self, number: int) -> None:
        paths = Paths.from_environ(self.members[number].environ({}))

        def answers() -> bool:
            log = self.members[number].home / "log"
            assert self.processes[number].poll() is None, log.read_text()
            return daemon.running(paths) is not None

        eventually(answers, f"node {number} does not answer", START_TIMEOUT)

    def guts(self, number: int, *arguments: str) -> Answer:
        """Run a command that speaks to a node, and return its JSON."""
        return network.guts(self.members[number], *arguments)

    def seed(self, repository: str, numbers: Iterable[int]) -> None:
        """Let nodes follow a repository, which they find in the DHT; return when all hold it."""

        def ask(number: int) -> None:
            path = f"/v1/repositories/{repository}/seeding"
            network.control(self.members[number]).send("PUT", path, {"hints": [], "timeout": SETTLE_TIMEOUT})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, numbers))

    def bare(self, number: int, repository: str) -> Path:
        """Return the folder of a node's copy of a repository."""
        return self.members[number].home / "data" / "repos" / f"{repository}.git"

    def refs(self, number: int, repository: str) -> str:
        """Return what git shows of a node's copy: its files of refs, byte for byte."""
        bare = self.bare(number, repository)
        return (bare / "HEAD").read_text() + (bare / "packed-refs").read_text()

    def await_line(self, repository: str, numbers: Iterable[int], line: str) -> None:
        """Wait until nodes show a line of ``packed-refs``."""
        for number in numbers:
            eventually(
                functools.partial(self._shows, number, repository, f"{line}\n"),
                f"node {number} does not show {line}",
            )

    def _shows(self, number: int, repository: str, line: str) -> bool:
        return line in self.refs(number, repository)

    def epoch(self, number: int, repository: str) -> int:
        """Return the epoch of the identity that a node knows of a repository."""
        return Answer.of(network.control(self.members[number]).get(f"/v1/repositories/{repository}")).number("epoch")

    def agree(self, repository: str, numbers: Iterable[int]) -> bool:
        """Tell whether nodes show the same refs of a repository."""
        return len({self.refs(number, repository) for number in numbers}) == 1

    def shown_at(self, number: int, repository: str) -> float:
        """Return when a node's file of refs got its place (Unix seconds): renaming sets its change time."""
        return (self.bare(number, repository) / "packed-refs").stat().st_ctime_ns / 1e9

    def processor_seconds(self) -> float:
        """Return what all nodes and those children of theirs that have ended have used."""
        return sum(network.processor_seconds(process.pid) for process in self.processes)

    def wait_quiet(self, share: float = 0.25, seconds: float = 0.5) -> float:
        """Wait until all nodes together use less than ``share`` of a core; return what they have used until then."""
        used = self.processor_seconds()
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while True:
            time.sleep(seconds)
            now = self.processor_seconds()
            if now - used < share * seconds:
                return now
            assert time.monotonic() < deadline, "the nodes never rest"
            used = now


def has(bare: Path, oid: str) -> bool:
    """Tell whether a repository has an object."""
    return git(bare, "cat-file", "-t", oid) == "commit"
