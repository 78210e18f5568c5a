"""A node process that is started to be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from guts.cli import daemon
from guts.config import Paths
from guts.crash import VARIABLE
from tests.crash.state import State, states
from tests.e2e.conftest import Guts

START_TIMEOUT = 60.0
END_TIMEOUT = 60.0
SETTLE_TIMEOUT = 20.0
POLL = 0.01
SIGNATURE = "Traceback (most recent call last)"


class Victim:
    """The node at ``home``, whose process may end at any moment."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.guts = Guts(home, GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0", **settings)
        self._node: daemon.Spawned | None = None

    @property
    def paths(self) -> Paths:
        """Its files."""
        return Paths.from_environ(self.guts.environ)

    @property
    def log(self) -> str:
        """What it wrote since it was started last."""
        assert self._node is not None
        with self.paths.log_file.open("rb") as log:
            log.seek(self._node.log_start)
            return log.read().decode(errors="replace")

    def spawn(self, crash_at: str = "") -> None:
        """Start the process; nobody waits until it answers."""
        self._node = daemon.spawn({**self.guts.environ, VARIABLE: crash_at})

    def ready(self) -> bool:
        """Wait until the node answers, or has been killed; tell which.

        Raises:
            AssertionError: it ended in another way, or hangs.
        """
        assert self._node is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.killed():
                return False
            status = daemon.running(self.paths)
            if status is not None and status.number("pid") == self._node.pid:
                return True
            time.sleep(POLL)
        raise AssertionError(f"the node does not start:\n{self.log}")

    def killed(self) -> bool:
        """Tell whether SIGKILL ended the process. Raises: ``AssertionError``: something else did."""
        if self._node is None:
            return True
        status = self._node.ended()
        if status is None:
            return False
        assert status == -signal.SIGKILL, f"the node ended with status {status}:\n{self.log}"
        self._node = None
        return True

    def wait_killed(self, timeout: float) -> bool:
        """Tell whether SIGKILL ended the process within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not self.killed():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        return True

    def kill(self) -> None:
        """End the process as a power cut would, if nothing has yet."""
        if not self.killed():
            assert self._node is not None
            os.kill(self._node.pid, signal.SIGKILL)
            assert self.wait_killed(END_TIMEOUT)

    def stop(self) -> None:
        """Stop the node as an operator does."""
        if self._node is not None:
            node, self._node = self._node, None
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.pid, signal.SIGTERM)
            deadline = time.monotonic() + END_TIMEOUT
            while (status := node.ended()) is None:
                assert time.monotonic() < deadline, "the node does not stop"
                time.sleep(POLL)
            assert status == 0, f"the node ended with status {status}"

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command that speaks to the node."""
        return subprocess.Popen(
            [sys.executable, "-m", "guts", *map(str, arguments)],
            env=self.guts.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def states(self, *, quiet: bool) -> dict[str, State]:
        """Return what it has, by id, after checking that nothing is mixed.

        Args:
            quiet: nobody else speaks to it, so what is there is there at once.

        Raises:
            AssertionError: something is mixed, or stays so.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while True:
            try:
                return {str(repository): state for repository, state in states(self.paths).items()}
            except (AssertionError, FileNotFoundError, subprocess.CalledProcessError):
                if quiet or time.monotonic() > deadline:
                    raise
                time.sleep(POLL * 10)

    def check_log(self) -> None:
        """Raises: ``AssertionError``: since its start it ran into a bug, or has lost something."""
        assert SIGNATURE not in self.log, self.log
        assert " ERROR " not in self.log, self.log
