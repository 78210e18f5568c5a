"""Starting a node in the background and stopping it.

``guts node start`` runs ``guts node run --json`` detached, with its output in the log file, and waits until
the control socket answers. A node that can't start writes its error as JSON as the last line of its log: that
error is what the person sees, not "see the log".
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from guts.api.errors import ErrorObject, ReportedError
from guts.cli.answer import Answer
from guts.cli.client import ControlClient, NodeDown
from guts.cli.processes import POLL_INTERVAL, Process
from guts.config import Paths
from guts.errors import ExitStatus, GutsError

START_TIMEOUT: Final = 60.0
"""Seconds. A start is well under a second; a migration or a recovery takes longer."""

STOP_TIMEOUT: Final = 30.0
"""Seconds: a node drains for at most 20 s."""

MAX_LOG_TAIL_BYTES: Final = 16 << 10


class NodeFailed(GutsError):
    """A node that was just started ended again."""

    code: ClassVar[str] = "NODE_FAILED"


class NodeStuck(GutsError):
    """A node did not start or stop in time."""

    code: ClassVar[str] = "NODE_STUCK"
    exit_status: ClassVar[ExitStatus] = ExitStatus.TIMED_OUT


@dataclass(frozen=True, slots=True)
class Spawned:
    """A node that was started and may not answer yet; ``log_start`` is where its part of the log begins."""

    pid: int
    paths: Paths
    log_start: int

    def ended(self) -> int | None:
        """Return the exit status (negative: a signal) if the node has ended, else ``None``."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def running(paths: Paths) -> Answer | None:
    """Return the status of the node that answers on the control socket, or ``None``."""
    try:
        return Answer.of(ControlClient(paths.control_socket).get("/v1/status"))
    except NodeDown:
        return None


def spawn(environ: Mapping[str, str], flags: Sequence[str] = ()) -> Spawned:
    """Start a node in the background, detached from this terminal."""
    paths = Paths.from_environ(environ)
    paths.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        log_start = os.fstat(descriptor).st_size
        # Not subprocess: this child is meant to outlive us, which subprocess takes for a mistake.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "guts", "node", "run", "--json", *flags],
            dict(environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, descriptor, 1),
                (os.POSIX_SPAWN_DUP2, descriptor, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(descriptor)
    return Spawned(pid, paths, log_start)


def wait_ready(node: Spawned, timeout: float = START_TIMEOUT) -> Answer:
    """Return the status of the node as soon as it answers.

    Raises:
        ReportedError: it ended, and this is the error that it ended with.
        NodeFailed: it ended without saying why.
        NodeStuck: it runs, but does not answer.
    """
    deadline = time.monotonic() + timeout
    while True:
        ended = node.ended()
        if ended is not None:
            raise _why(node, ended)
        status = running(node.paths)
        if status is not None and status.number("pid") == node.pid:
            return status
        if time.monotonic() > deadline:
            os.kill(node.pid, signal.SIGTERM)
            raise NodeStuck(f"the node did not answer within {timeout:.0f} s", hint=f"see {node.paths.log_file}")
        time.sleep(POLL_INTERVAL)


def stop(paths: Paths, timeout: float = STOP_TIMEOUT) -> bool:
    """Stop the node and wait for its end; tell whether there was one.

    Raises: ``NodeStuck``: it is still there after ``timeout`` seconds.
    """
    status = running(paths)
    if status is None:
        return False
    process = Process.of(status.number("pid"))
    # Where it is gone between the two requests, that is what was asked for.
    with contextlib.suppress(NodeDown):
        ControlClient(paths.control_socket).send("POST", "/v1/stop")
    if process is not None and not process.wait_gone(timeout):
        raise NodeStuck(f"the node (pid {process.pid}) still runs after {timeout:.0f} s", hint=f"see {paths.log_file}")
    return True


def _why(node: Spawned, ended: int) -> GutsError:
    lines = _log_since(node.paths.log_file, node.log_start)
    for line in reversed(lines):
        try:
            told = ErrorObject.from_json(json.loads(line))
        except ValueError:
            continue
        if told is not None:
            return ReportedError(told)
    last = f": {lines[-1]}" if lines else ""
    return NodeFailed(f"the node ended with status {ended}{last}", hint=f"see {node.paths.log_file}")


def _log_since(log_file: Path, start: int) -> list[str]:
    with log_file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(start, size - MAX_LOG_TAIL_BYTES))
        return [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
