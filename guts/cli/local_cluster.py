"""A network of nodes on this machine: plain processes on loopback, one folder for all that they keep.

``cluster.json`` in the folder says which nodes there are, at which ports, and which process each one was when it
was last started. Node 1 is the door (role ``bootstrap``: it holds no repository); the others know its address
and key, and nothing of each other. A network name of its own keeps a cluster apart from every other one. Ports are
chosen free once and stay, so that a node that was killed comes back where it was; a port that another program has
taken meanwhile is replaced, in the settings of every node.

A node may also be started by hand, in its home: its process is then the one that holds the lock of its data folder.
Only processes that the cluster started, or that hold such a lock, are ever signalled (``processes``).
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from guts.api.errors import ReportedError
from guts.cli import daemon
from guts.cli.answer import Answer, BadAnswer, answers
from guts.cli.ports import HOST, free_ports
from guts.cli.processes import Process
from guts.config import Paths
from guts.errors import ExitStatus, GutsError, UsageError
from guts.identity import SigningKey
from guts.keystore import KeyFile, KeyKind, write_key_file
from guts.net.listener import PortBusy
from guts.node.lock import DataDirectoryLock, holder

MIN_NODES: Final = 2
"""A door and somebody who comes through it."""

MAX_NODES: Final = 64
"""Each node is a Python process of some 80 MiB."""

BOOTSTRAP: Final = 1
KILL_TIMEOUT: Final = 10.0
START_ATTEMPTS: Final = 5
"""Each with another port: who takes five in a row does so on purpose."""

_STATE_FILE: Final = "cluster.json"


class NoCluster(UsageError):
    """There is no cluster in the folder."""

    code: ClassVar[str] = "NO_CLUSTER"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


class NoSuchNode(UsageError):
    """The cluster has no node of that number."""

    code: ClassVar[str] = "NO_SUCH_NODE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


class BadCluster(UsageError):
    """The folder, or the number of nodes, is not one for a cluster."""

    code: ClassVar[str] = "BAD_CLUSTER"


class ClusterFailed(GutsError):
    """A process of the cluster can't be ended, or a node finds no port."""

    code: ClassVar[str] = "CLUSTER_FAILED"


@dataclass(frozen=True, slots=True)
class Member:
    """One node: its number (1 is the door), id, home, port, and the process that was last started for it."""

    index: int
    node_id: str
    home: Path
    port: int
    started: Process | None = None

    @property
    def process(self) -> Process | None:
        """The process that it is now, whoever started it; ``None`` where it is down."""
        if self.started is not None and self.started.alive:
            return self.started
        data = Paths.from_environ(self.environ({})).data
        pid = holder(data)
        process = None if pid is None else Process.of(pid)
        # Looked at again: a number that was taken over meanwhile would be a stranger's.
        return process if holder(data) == pid else None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None

    @property
    def address(self) -> str:
        """Its bootstrap address."""
        return f"{self.node_id}@{HOST}:{self.port}"

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return ``environ`` for commands that should speak to this node, and for the node itself."""
        clean = {name: value for name, value in environ.items() if not _is_setting(name)}
        return {**clean, "GUTS_HOME": str(self.home)}

    def to_json(self) -> dict[str, object]:
        """Return what ``cluster.json`` keeps."""
        process = [self.started.pid, self.started.started] if self.started else None
        return {"index": self.index, "id": self.node_id, "port": self.port, "process": process}


def _is_setting(name: str) -> bool:
    # Settings in the caller's environment are for the caller's node, not for every node of a cluster.
    return name.startswith("GUTS_") and ("__" in name or name in ("GUTS_HOME", "GUTS_CONFIG"))


class LocalCluster:
    """The cluster in one folder. Obtained from ``create`` or ``load``."""

    def __init__(self, folder: Path, members: list[Member]) -> None:
        self.folder = folder
        self._members = {member.index: member for member in members}

    @classmethod
    def create(cls, folder: Path, count: int) -> "LocalCluster":
        """Make homes, keys and config files for ``count`` nodes; none is started.

        Raises: ``BadCluster``: an impossible number, or a folder that holds something else.
        """
        if not MIN_NODES <= count <= MAX_NODES:
            raise BadCluster(f"a cluster has {MIN_NODES} to {MAX_NODES} nodes, not {count}")
        if folder.exists() and any(folder.iterdir()):
            raise BadCluster(f"{folder} is not empty", hint="choose another one with --dir")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        network = f"cluster-{os.urandom(8).hex()}"
        members: list[Member] = []
        for index, port in enumerate(free_ports(count), 1):
            home = folder / f"node{index}"
            key = SigningKey.generate()
            write_key_file(Paths.from_environ({"GUTS_HOME": str(home)}).node_key, KeyFile.of(KeyKind.NODE, key, None))
            member = Member(index, str(key.peer_id), home, port)
            door = members[0] if members else None
            (home / "config.toml").write_text(_config_text(member, network, door))
            members.append(member)
        cluster = cls(folder, members)
        cluster._save()
        return cluster

    @classmethod
    def load(cls, folder: Path) -> "LocalCluster":
        """Return the cluster in ``folder``. Raises: ``NoCluster``."""
        try:
            state = json.loads((folder / _STATE_FILE).read_text())
            members = [_member(folder, entry) for entry in answers(state)]
        except FileNotFoundError:
            raise NoCluster(f"there is no cluster in {folder}", hint="guts cluster up 4") from None
        except (ValueError, BadAnswer):
            raise BadCluster(f"{folder / _STATE_FILE} is damaged", hint=f"remove {folder}") from None
        return cls(folder, members)

    @property
    def members(self) -> list[Member]:
        """The nodes, by number."""
        return [self._members[index] for index in sorted(self._members)]

    def member(self, index: int) -> Member:
        """Return one node. Raises: ``NoSuchNode``."""
        if index not in self._members:
            raise NoSuchNode(
                f"there is no node {index}; the cluster has 1 to {len(self._members)}", hint="guts cluster ls"
            )
        return self._members[index]

    def start(self, *indexes: int) -> dict[int, Answer]:
        """Start nodes (all that are down where none is named), the door first; return the status of each.

        One whose port another program has taken gets another.

        Raises:
            ClusterFailed: a node finds no port.
            GutsError: as ``daemon.wait_ready``, after the nodes that did start were noted.
        """
        wanted = [self.member(index) for index in indexes] or self.members
        down = [member.index for member in wanted if not member.running]
        statuses: dict[int, Answer] = {}
        for group in ([index for index in down if index == BOOTSTRAP], [index for index in down if index != BOOTSTRAP]):
            statuses |= self._start(group)
        return statuses

    def _start(self, indexes: list[int]) -> dict[int, Answer]:
        statuses: dict[int, Answer] = {}
        for attempt in range(START_ATTEMPTS):
            if attempt:
                self._move([index for index in indexes if index not in statuses])
            spawned = {}
            try:
                for index in indexes:
                    if index not in statuses:
                        node = spawned[index] = daemon.spawn(self.member(index).environ(os.environ))
                        self._members[index] = replace(self.member(index), started=Process.of(node.pid))
            finally:  # whoever interrupts this still finds what was started
                self._save()
            for index, node in spawned.items():
                try:
                    statuses[index] = daemon.wait_ready(node)
                except ReportedError as error:
                    if error.told.code != PortBusy.code:
                        raise
            if len(statuses) == len(indexes):
                return statuses
        lost = ", ".join(str(index) for index in indexes if index not in statuses)
        raise ClusterFailed(
            f"node {lost} found its port taken {START_ATTEMPTS} times, at another port each time",
            hint="guts cluster down --wipe, then guts cluster up",
        )

    def _move(self, indexes: list[int]) -> None:
        """Give nodes that are down other ports, and write those into the settings of all."""
        ports = free_ports(len(indexes), {member.port for member in self.members})
        for index, port in zip(indexes, ports, strict=True):
            old = re.escape(f"{HOST}:{self.member(index).port}")
            for member in self.members:
                config = Paths.from_environ(member.environ({})).config_file
                config.write_text(re.sub(rf"{old}(?!\d)", f"{HOST}:{port}", config.read_text()))
            self._members[index] = replace(self.member(index), port=port)
        self._save()

    def kill(self, index: int) -> bool:
        """End one node at once, as a crash would; tell whether it ran.

        Raises: ``ClusterFailed``: it does not go away.
        """
        process = self.member(index).process
        if process is None or not process.signal(signal.SIGKILL):
            return False
        if not process.wait_gone(KILL_TIMEOUT):
            raise ClusterFailed(f"node {index} (pid {process.pid}) does not end")
        return True

    def stop(self, *indexes: int) -> int:
        """Stop nodes (all where none is named) as ``guts node stop`` does; return how many ran."""
        members = [self.member(index) for index in indexes] or self.members
        processes = [member.process for member in members if member.process]
        asked = [process for process in processes if process.signal(signal.SIGTERM)]
        for process in asked:
            if not process.wait_gone(daemon.STOP_TIMEOUT):
                process.signal(signal.SIGKILL)
                if not process.wait_gone(KILL_TIMEOUT):
                    raise ClusterFailed(f"the process {process.pid} does not end")
        return len(asked)

    def wipe(self) -> None:
        """Remove the folder with everything in it.

        Raises: ``AlreadyRunning``: a node runs, and nothing is removed.
        """
        with ExitStack() as locked:
            for member in self.members:
                lock = DataDirectoryLock.acquire(Paths.from_environ(member.environ({})).data)
                locked.callback(lock.release)
            shutil.rmtree(self.folder)

    def _save(self) -> None:
        temporary = self.folder / f"{_STATE_FILE}.new"
        temporary.write_text(json.dumps([member.to_json() for member in self.members], indent=1))
        temporary.replace(self.folder / _STATE_FILE)


def _member(folder: Path, entry: Answer) -> Member:
    process: Process | None = None
    match entry.json.get("process"):
        case [int(pid), str(started)]:
            process = Process(pid, started)
    index = entry.number("index")
    return Member(index, entry.text("id"), folder / f"node{index}", entry.number("port"), process)


def _config_text(member: Member, network: str, door: Member | None) -> str:
    lines = [
        "# Made by `guts cluster up`.",
        "[network]",
        f'listen_addr = "{HOST}:{member.port}"',
        f'advertise = ["{HOST}:{member.port}"]',
        f'network_name = "{network}"',
    ]
    lines.append(f'bootstrap_nodes = ["{door.address}"]' if door else 'role = "bootstrap"')
    return "\n".join(lines) + "\n"
