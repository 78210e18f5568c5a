"""Processes that a command starts, waits for and ends.

A process id alone can be taken over by a stranger; with the time at which the process started it can't. A
process is never signalled without comparing both.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POLL_INTERVAL: Final = 0.02
"""Seconds between looks at a process that is not a child: there is no portable way to wait for one."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when it was started.

    Attributes:
        started: the operating system's word for when it started; compared, never read.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the process that has ``pid`` now, or ``None`` where there is none."""
        started = _started(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; one that ended and was not reaped does not."""
        return _started(self.pid) == self.started

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; tell whether the process was still there."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait_gone(self, timeout: float) -> bool:
        """Wait for the end of the process; tell whether it came within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True


def _started(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # proc(5): the command's name, in parentheses, may hold anything; state is the first field after it,
        # starttime the twentieth.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()
