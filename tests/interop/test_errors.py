"""What a person reads when it fails, and what is left then: nothing. git shows our stderr, and exits with 128."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guts.config import Paths
from guts.ids import PeerId, RepositoryId
from tests.e2e.conftest import Guts, commit
from tests.interop.conftest import BIG_BYTES, BYSTANDER, DOOR, Home, Network, Published, refs_of
from tests.support.repositories import git

pytestmark = pytest.mark.interop

GIT_FATAL = 128
UNKNOWN = RepositoryId(b"nobody has ever had this one" + bytes(4))
WAIT_SECONDS = 60.0
SIGNALLED_APART = 0.001


def failed(home: Home, where: Path, *arguments: object) -> list[str]:
    """Return what git printed; it failed, and left no folder behind."""
    before = sorted(where.iterdir())
    ran = home.git(where, *arguments)
    assert ran.status == GIT_FATAL, ran.err
    assert sorted(where.iterdir()) == before
    return ran.err.splitlines()


def test_mistyped_id_is_told_by_its_check_characters(reader: Home, tmp_path: Path) -> None:
    mistyped = f"{str(UNKNOWN)[:20]}{'q' if str(UNKNOWN)[20] != 'q' else 'p'}{str(UNKNOWN)[21:]}"
    lines = failed(reader, tmp_path, "clone", f"guts://{mistyped}")
    assert any(line.startswith("fatal: ") and "check" in line for line in lines), lines


def test_id_of_another_kind_is_named(reader: Home, tmp_path: Path) -> None:
    lines = failed(reader, tmp_path, "clone", f"guts://{PeerId(bytes(32))}")
    assert any("node id" in line and "repository id" in line for line in lines), lines


def test_nobody_has_it(reader: Home, tmp_path: Path) -> None:
    lines = failed(reader, tmp_path, "clone", f"guts://{UNKNOWN}/tool")
    assert any(line.startswith(f"fatal: remote error: no replica of {UNKNOWN} found (asked ") for line in lines), lines
    assert not any("expected flush" in line for line in lines), lines
    assert any(line.startswith("hint: ") for line in lines), lines


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody else takes, and that nothing listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_hint_that_nobody_answers_at_is_named_with_the_reason(reader: Home, tmp_path: Path, closed_port: int) -> None:
    lines = failed(reader, tmp_path, "clone", f"guts://127.0.0.1:{closed_port}/{UNKNOWN}/tool")
    assert any("none served it" in line for line in lines), lines
    assert any(f"127.0.0.1:{closed_port}: " in line for line in lines), lines


def test_dial_hint_is_enough_where_no_door_is_known(network: Network, library: Published, tmp_path: Path) -> None:
    lone = network.lone_home()
    config = lone.path / "config.toml"
    config.write_text("".join(f"{line}\n" for line in config.read_text().splitlines() if "bootstrap" not in line))
    failed(lone, tmp_path, "ls-remote", library.url)
    port = network.cluster.member(2).port
    hinted = f"guts://127.0.0.1:{port}/{library.repository}/tool"
    lone.ok(tmp_path, "clone", "-q", hinted)
    assert git(tmp_path / "tool", "config", "remote.origin.url") == hinted
    assert git(tmp_path / "tool", "rev-parse", "HEAD") == git(library.work, "rev-parse", "main")


def test_a_door_holds_nothing_but_shows_the_way(network: Network, library: Published, tmp_path: Path) -> None:
    network.home(DOOR).ok(tmp_path, "clone", "-q", library.url)
    assert (tmp_path / "tool" / "side").exists()


def test_locked_key_without_a_terminal(mine: Published, tmp_path: Path) -> None:
    kept = tmp_path / "key"
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    key = Paths.from_environ(mine.author.environ).author_key
    exported = Guts(mine.author.path, GUTS_PASSPHRASE_FILE=str(passphrase))("id", "export", kept)
    assert exported.status == 0, exported.err
    plain = key.read_bytes()
    key.write_bytes(kept.read_bytes())
    try:
        commit(mine.work, "locked out")
        ran = mine.author.git(mine.work, "push", "guts", "main")
        assert ran.status != 0
        assert "locked" in ran.err
        assert "GUTS_PASSPHRASE_FILE" in ran.err
        opened = mine.author.git(mine.work, "push", "guts", "main", GUTS_PASSPHRASE_FILE=str(passphrase))
        assert opened.status == 0, opened.err
    finally:
        key.write_bytes(plain)
    mine.settle()


def processes_of(group: int) -> list[str]:
    """Return the command lines of a process group."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[2]) == group:
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, IndexError):
            continue
    return found


def begun(home: Home, where: Path, url: str) -> subprocess.Popen[str]:
    """Begin to clone a large repository, and return when a part of its pack has arrived."""
    process = subprocess.Popen(
        ["git", "clone", "-q", url, "clone"],
        cwd=where,
        env=home.environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + WAIT_SECONDS
    packs = where / "clone" / ".git" / "objects" / "pack"
    while not any(file.stat().st_size > 0 for file in packs.glob("tmp_pack_*")):
        assert process.poll() is None, "it has ended already"
        assert time.monotonic() < deadline, "nothing arrives"
        time.sleep(0.001)
    return process


def gone(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while left := what():
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.parametrize("times", [1, 300])
def test_interrupted_clone_leaves_nothing(reader: Home, big: Published, tmp_path: Path, times: int) -> None:
    """git hands on to its helper what the whole process group had; the helper's order is not disturbed by it."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    home = Home(reader.path, reader.scratch, {**reader.environ, "TMPDIR": str(scratch)})
    process = begun(home, tmp_path, big.url)
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(SIGNALLED_APART)
    _, told = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode != 0
    assert "Traceback" not in told
    gone(lambda: processes_of(process.pid))
    assert not (tmp_path / "clone").exists()
    gone(lambda: list(scratch.iterdir()))


def test_node_that_is_killed_in_the_middle_is_told(network: Network, big: Published, tmp_path: Path) -> None:
    process = begun(network.home(BYSTANDER), tmp_path, big.url)
    network.cluster.kill(BYSTANDER)
    try:
        _, told = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == GIT_FATAL
        assert "the node" in told or "no node answers" in told, told
        assert "Traceback" not in told
        assert not (tmp_path / "clone").exists()
    finally:
        network.cluster.start(BYSTANDER)
    network.home(BYSTANDER).ok(tmp_path, "clone", "-q", big.url)
    assert (tmp_path / "tool" / "blob").stat().st_size == BIG_BYTES


def test_home_that_can_not_be_written_stops_a_push_and_no_fetch(
    network: Network, mine: Published, tmp_path: Path
) -> None:
    lone = network.lone_home()
    config = (lone.path / "config.toml").read_text()
    settings = tmp_path / "config.toml"
    settings.write_text(config)
    unwritable = Home(
        Path("/proc/guts"), lone.scratch, {**lone.environ, "GUTS_HOME": "/proc/guts", "GUTS_CONFIG": str(settings)}
    )
    told = unwritable.ok(tmp_path, "clone", mine.url, "copy").err
    assert told.count("can't be remembered") == 1, told
    commit(tmp_path / "copy", "never sent")
    refused = unwritable.git(tmp_path / "copy", "push", "origin", "main")
    assert refused.status != 0
    assert "Traceback" not in refused.err
    assert "/proc/guts" in refused.err
    mine.settle(refs_of(mine.work))
