"""Real nodes for benchmarks, each a ``guts node run`` of its own, and what the kernel knows of a process."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from guts.cli.answer import Answer
from guts.cli.client import ControlClient
from guts.cli.local_cluster import LocalCluster, Member
from guts.config import Config, Paths

COMMAND_TIMEOUT = 1800.0
QUIET_SECONDS = 0.5
QUIET_LIMIT = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def cluster(count: int) -> Iterator[LocalCluster]:
    """A network of ``count`` nodes, none started (1 is the door); all are stopped and gone at the end."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as folder:
        made = LocalCluster.create(Path(folder) / "cluster", count)
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def crowded(peers: int) -> Iterator[tuple[LocalCluster, str, str]]:
    """One node (1), not started, with room for ``peers``; its address, and the name of its network."""
    with cluster(2) as made:
        door, port = made.member(1), low_port()
        path = door.home / "config.toml"
        text = path.read_text().replace("[network]\n", f"[network]\nmax_connections = {peers + 100}\n", 1)
        path.write_text(text.replace(f':{door.port}"', f':{port}"'))
        name = Config.load({}, door.environ({})).network.network_name
        yield made, f"{door.node_id}@127.0.0.1:{port}", name


def low_port() -> int:
    """Return a free port that no dial takes as its own end's, as one of those that the system gives may be."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def guts(member: Member, *arguments: str) -> Answer:
    """Run a command that speaks to ``member``, and return its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "guts", *arguments, "--json"],
        env=member.environ(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=COMMAND_TIMEOUT,
    )
    return Answer.of(json.loads(done.stdout))


def control(member: Member) -> ControlClient:
    """Return a client of the control socket of ``member``."""
    return ControlClient(Paths.from_environ(member.environ({})).control_socket)


def pid_of(member: Member) -> int:
    """Return the process id of a running node."""
    assert member.process is not None, "it was started"
    return member.process.pid


def processor_seconds(pid: int) -> float:
    """Return what a process and those children of it that have ended have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def wait_quiet(pid: int) -> None:
    """Return when the process has done (nearly) nothing for ``QUIET_SECONDS``: it is idle."""
    deadline = time.monotonic() + QUIET_LIMIT
    before = processor_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        now = processor_seconds(pid)
        if now - before <= 1 / _TICKS:
            return
        before = now
    raise AssertionError(f"process {pid} is not idle after {QUIET_LIMIT:.0f} s")


def memory(pid: int, name: str) -> float:
    """Return a size in MiB from ``/proc/<pid>/status``: ``VmRSS`` (now) or ``VmHWM`` (the highest so far)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {name} for process {pid}")


def forget_peak(pid: int) -> None:
    """Let ``VmHWM`` begin anew at what the process has now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
