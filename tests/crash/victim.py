"""A node process that is started to be killed."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from guts.config import Paths
from guts.crash import VARIABLE
from tests.crash.nursery import Child, Nursery
from tests.crash.state import State, Unsettled, states
from tests.e2e.conftest import Guts, Ran

START_TIMEOUT: Final = 60.0
COMMAND_TIMEOUT: Final = 120.0
END_TIMEOUT: Final = 60.0
SETTLE_TIMEOUT: Final = 20.0
PAUSE: Final = 0.1
SIGNATURE: Final = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Operation:
    """A command that runs; ``errors`` is its standard error."""

    child: Child
    errors: IO[bytes]


class Victim:
    """The node at ``home``, whose process may end at any moment.

    Attributes:
        address: where it listened when it was ready last; with its id, as a bootstrap address.
        fresh: it is started by a new interpreter, not forked.
    """

    def __init__(self, nursery: Nursery, home: Path, *, fresh: bool = False, **settings: str) -> None:
        self.home = home
        self.fresh = fresh
        self.address = ""
        self._nursery = nursery
        self._environ = Guts(home, GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0", **settings).environ
        self._node: Child | None = None
        self._log_start = 0

    @property
    def paths(self) -> Paths:
        """Its files."""
        return Paths.from_environ(self._environ)

    @property
    def log(self) -> str:
        """What it wrote since it was started last."""
        with self.paths.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def spawn(self, crash_at: str = "") -> None:
        """Start the process; nobody waits until it answers."""
        assert self._node is None
        self.paths.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.paths.log_file.open("ab") as log:
            self._log_start = log.tell()
            environ = {**self._environ, VARIABLE: crash_at}
            self._node = self._nursery.start(["node", "run", "--json"], environ, log, fresh=self.fresh)

    def ready(self) -> bool:
        """Wait until the node answers, or has been killed; tell which.

        Raises:
            AssertionError: it ended in another way, or hangs.
        """
        assert self._node is not None
        assert select.select([self._node.out], [], [], START_TIMEOUT)[0], f"the node does not start:\n{self.log}"
        told = self._node.out.readline()
        if not told:
            assert self.wait_killed(END_TIMEOUT), f"the node does not end:\n{self.log}"
            return False
        status = json.loads(told)
        self.address = f"{status['id']}@{status['listen'][0]}"
        return True

    def killed(self) -> bool:
        """Tell whether SIGKILL ended the process. Raises: ``AssertionError``: something else did."""
        return self.wait_killed(0.0)

    def wait_killed(self, timeout: float) -> bool:
        """Tell whether SIGKILL ended the process within ``timeout`` seconds."""
        if self._node is None:
            return True
        status = self._nursery.wait(self._node, timeout)
        if status is None:
            return False
        self._node.out.close()
        self._node = None
        assert status == -signal.SIGKILL, f"the node ended with status {status}:\n{self.log}"
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
            status = self._nursery.wait(node, END_TIMEOUT)
            node.out.close()
            assert status == 0, f"the node ended with status {status}:\n{self.log}"

    def begin(self, *arguments: object) -> Operation:
        """Start a command that speaks to the node."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in ``end``)
        child = self._nursery.start([str(argument) for argument in arguments], self._environ, errors)
        return Operation(child, errors)

    def end(self, operation: Operation) -> Ran:
        """Wait for the end of a command."""
        with operation.errors, operation.child.out:
            # A result is a line; the pipe has room for it.
            status = self._nursery.wait(operation.child, COMMAND_TIMEOUT)
            assert status is not None, f"a command does not end; the node's log:\n{self.log}"
            operation.errors.seek(0)
            return Ran(status, operation.child.out.read().decode(), operation.errors.read().decode())

    def guts(self, *arguments: object) -> Ran:
        """Run a command that speaks to the node."""
        return self.end(self.begin(*arguments))

    def states(self, *, quiet: bool, settled: bool = False) -> dict[str, State]:
        """Return what it has, by id, after checking that nothing is mixed.

        Args:
            quiet: nobody else speaks to it, so what is there is there at once.
            settled: wait until it is noted that what git's refs show is durable.

        Raises:
            AssertionError: something is mixed, or stays so.
        """
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while True:
            try:
                return {str(repository): state for repository, state in states(self.paths, settled=settled).items()}
            except (AssertionError, FileNotFoundError, subprocess.CalledProcessError) as error:
                if time.monotonic() > deadline or (quiet and not isinstance(error, Unsettled)):
                    raise
                time.sleep(PAUSE)

    def check_log(self) -> None:
        """Raises: ``AssertionError``: since its start it ran into a bug, or has lost something."""
        assert SIGNATURE not in self.log, self.log
        assert " ERROR " not in self.log, self.log
