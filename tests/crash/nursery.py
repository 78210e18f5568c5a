"""Processes of Guts without the second that their imports take: forked from one that has imported everything.

A campaign starts thousands of nodes and commands. Each is a process of its own, in a session of its own, with the
environment and the arguments of ``python -m guts``, and reads its crash point as that does (``guts.crash``, run anew
in the child). What ends is told at once, so that nobody polls. When the driver goes away, whatever still runs is
killed.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parents[2]
MAX_REQUEST_BYTES: Final = 1 << 20
EVERYTHING: Final = (
    "guts.app", "guts.cli.daemon", "guts.cli.identity", "guts.cli.node", "guts.cli.proposal", "guts.cli.publish",
    "guts.cli.repositories", "guts.cli.root", "guts.cli.signing", "guts.git.source", "guts.keystore",
)  # fmt: skip
"""What a node and the commands of the rounds import, some of it late."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that was started.

    Attributes:
        out: what it writes to its standard output.
    """

    pid: int
    out: IO[bytes]


class Nursery:
    """Starts processes and knows when they end. For one thread."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()]
            )
        self._received = b""
        self._ended: dict[int, int] = {}
        self._started: list[int] = []

    def close(self) -> None:
        """Kill what still runs."""
        self._control.close()
        self._process.wait()

    def start(
        self, arguments: Sequence[str], environ: Mapping[str, str], errors: IO[bytes], *, fresh: bool = False
    ) -> Child:
        """Start ``guts`` with ``arguments``.

        Args:
            errors: where its standard error goes.
            fresh: by a new interpreter, which imports everything itself.
        """
        reading, writing = os.pipe()
        request = json.dumps({"arguments": list(arguments), "environ": dict(environ), "fresh": fresh}).encode() + b"\n"
        assert len(request) <= MAX_REQUEST_BYTES
        sent = socket.send_fds(self._control, [request], [writing, errors.fileno()])
        self._control.sendall(request[sent:])
        os.close(writing)
        while not self._started:
            self._receive(None)
        return Child(self._started.pop(), os.fdopen(reading, "rb"))

    def wait(self, child: Child, timeout: float) -> int | None:
        """Return the exit status of ``child`` (negative: a signal), or ``None`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while child.pid not in self._ended and (left := deadline - time.monotonic()) >= 0:
            self._receive(left)
        return self._ended.get(child.pid)

    def _receive(self, timeout: float | None) -> None:
        if not select.select([self._control], [], [], timeout)[0]:
            return
        data = self._control.recv(65_536)
        assert data, "the nursery ended"
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            match json.loads(line):
                case [int(pid)]:
                    # An earlier process may have had the number.
                    self._ended.pop(pid, None)
                    self._started.append(pid)
                case [int(pid), int(status)]:
                    self._ended[pid] = status


def _serve(control: socket.socket) -> None:
    """Fork on request until the other side is closed."""
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    alive: set[int] = set()
    while True:
        readable, _, _ = select.select([control.fileno(), waking], [], [])
        if waking in readable:
            os.read(waking, 65_536)
        while alive and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            alive.discard(ended[0])
            control.sendall(json.dumps([ended[0], os.waitstatus_to_exitcode(ended[1])]).encode() + b"\n")
        if control.fileno() in readable:
            request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
            if not request:
                break
            while not request.endswith(b"\n"):
                request += control.recv(MAX_REQUEST_BYTES)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for descriptor in (control.detach(), waking, woken):
                    os.close(descriptor)
                _become(json.loads(request), *descriptors)
            alive.add(pid)
            for descriptor in descriptors:
                os.close(descriptor)
            control.sendall(json.dumps([pid]).encode() + b"\n")
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _become(request: Mapping[str, object], out: int, errors: int) -> None:
    """Be the ``guts`` of ``request``, and end."""
    status = 1
    try:
        arguments, environ = request["arguments"], request["environ"]
        assert isinstance(arguments, list)
        assert isinstance(environ, dict)
        os.setsid()
        with open(os.devnull, "rb") as nothing:
            for target, source in enumerate((nothing.fileno(), out, errors)):
                os.dup2(source, target)
        os.close(out)
        os.close(errors)
        if request["fresh"]:
            os.execve(sys.executable, [sys.executable, "-m", "guts", *arguments], environ)
        os.environ.clear()
        os.environ.update(environ)
        importlib.reload(sys.modules["guts.crash"])
        sys.argv = ["guts", *arguments]
        status = sys.modules["guts.cli"].main()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 (as the interpreter's own end of a process)
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Be the nursery of the socket whose descriptor is the argument."""
    for name in EVERYTHING:
        importlib.import_module(name)
    assert threading.active_count() == 1, "only one thread is forked"
    gc.collect()
    gc.freeze()
    # A Ctrl-C is for the driver, which closes the socket then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        _serve(control)


if __name__ == "__main__":
    main()
