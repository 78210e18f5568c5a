"""Processes are forked, told of when they end, and never taken for one that had their number before."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.nursery import Child, Nursery


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """One that is closed at the end."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.mark.parametrize("fresh", [False, True])
def test_child_is_the_command_with_its_own_environment(nursery: Nursery, tmp_path: Path, fresh: bool) -> None:
    with (tmp_path / "errors").open("w+b") as errors:
        environ = {**os.environ, "GUTS_CRASH_AT": "no-such-point"}
        child = nursery.start(["node", "run"], environ, errors, fresh=fresh)
        assert nursery.wait(child, 60) == 1
        assert "GUTS_CRASH_AT=no-such-point: not a crash point" in (tmp_path / "errors").read_text()
        version = nursery.start(["--version"], os.environ, errors, fresh=fresh)
        assert nursery.wait(version, 60) == 0
        assert version.out.read().startswith(b"guts ")
    child.out.close()
    version.out.close()


def test_what_still_runs_is_killed_at_the_end(tmp_path: Path) -> None:
    nursery = Nursery()
    with (tmp_path / "errors").open("wb") as errors:
        environ = {**os.environ, "GUTS_HOME": str(tmp_path), "GUTS_NETWORK__LISTEN_ADDR": "127.0.0.1:0"}
        node = nursery.start(["node", "run", "--json"], environ, errors)
    assert node.out.readline().startswith(b"{")
    assert nursery.wait(node, 0) is None
    nursery.close()
    with node.out:
        assert node.out.read() == b""


def test_process_with_a_number_that_was_used_before_has_not_ended(nursery: Nursery, tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        first = nursery.start(["--version"], os.environ, errors)
        assert nursery.wait(first, 60) == 0
        # As if the kernel had come round: the same number again.
        nursery._received = b"[%d]\n" % first.pid
        second = nursery.start(["--version"], os.environ, errors)
    assert nursery.wait(Child(first.pid, io.BytesIO()), 0) is None
    assert nursery.wait(second, 60) == 0
    first.out.close()
    second.out.close()
