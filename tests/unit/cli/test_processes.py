"""Processes are told apart by when they started, and one that ended is gone even if nobody reaped it."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

from guts.cli.processes import Process

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


def test_process_is_known_by_pid_and_start() -> None:
    ours = Process.of(os.getpid())
    assert ours is not None
    assert ours.alive
    assert Process.of(os.getpid()) == ours
    assert not replace(ours, started="another time").alive


def test_process_that_was_not_started_by_us_is_not_signalled() -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as child:
        process = Process.of(child.pid)
        assert process is not None
        assert not replace(process, started="another time").signal(signal.SIGKILL)
        assert child.poll() is None
        assert process.signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    assert not process.signal(signal.SIGKILL)
    assert Process.of(child.pid) is None


def test_process_that_nobody_reaped_is_gone() -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as child:
        process = Process.of(child.pid)
        assert process is not None
        assert not process.wait_gone(0)
        child.kill()
        assert process.wait_gone(10)
