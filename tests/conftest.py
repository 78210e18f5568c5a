"""What all families of tests may ask for; and how long each family took, at the end of a run."""

import signal
from collections import defaultdict
from pathlib import PurePosixPath

import pytest

from tests.support.postgres import cutter, postgres_database, postgres_server

__all__ = ["cutter", "postgres_database", "postgres_server"]

# A shell has what it runs in the background ignore SIGINT, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell tests and seconds by family, the folders of docs/testing.md."""
    tests: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    for outcomes in terminalreporter.stats.values():
        for report in outcomes:
            if isinstance(report, pytest.TestReport):
                family = PurePosixPath(report.nodeid).parts[1].partition("::")[0]
                tests[family] += report.when == "call"
                seconds[family] += report.duration
    if len(seconds) > 1:
        terminalreporter.section("families")
        for family in sorted(seconds, key=seconds.__getitem__, reverse=True):
            terminalreporter.write_line(f"{seconds[family]:7.1f} s  {tests[family]:5} tests  {family}")
