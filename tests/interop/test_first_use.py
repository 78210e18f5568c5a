"""First use is remembered: what stock git shows of it, and that nothing of an older state gets through."""

import json
from pathlib import Path

import pytest

from guts.config import Paths
from tests.interop.conftest import Home, Published

pytestmark = pytest.mark.interop


def note_of(home: Home, repository: str) -> Path:
    return Paths.from_environ(home.environ).data / "known" / repository


def test_git_tells_the_maintainers_of_a_new_repository_once(library: Published, tmp_path: Path) -> None:
    stranger = library.network.lone_home()
    first = stranger.ok(tmp_path, "clone", library.url, "copy")
    assert f"guts: {library.repository[:12]}… is new here: maintainers auth1" in first.err
    assert "is new here" not in stranger.ok(tmp_path / "copy", "fetch").err
    assert library.repository in stranger.guts("known", "ls", "--json").out


def test_git_gets_nothing_of_a_state_older_than_was_seen(library: Published, tmp_path: Path) -> None:
    stranger = library.network.lone_home()
    stranger.ok(tmp_path, "clone", library.url, "copy")
    note = note_of(stranger, library.repository)
    seen = json.loads(note.read_text())
    seen["heads"][0]["seq"] += 1  # as if something newer had been fetched yesterday
    note.write_text(json.dumps(seen))

    ran = stranger.git(tmp_path / "copy", "fetch")
    assert ran.status == 128
    assert f"fatal: remote error: {library.repository} is shown in an older state than was seen here before" in ran.err
    assert "WARNING: THIS REPOSITORY HAS GONE BACK IN TIME!" in ran.err
    again = stranger.git(tmp_path, "clone", library.url, "again")
    assert again.status == 128
    assert not (tmp_path / "again").exists()

    hint = next(line for line in again.err.splitlines() if line.startswith("hint: "))
    command = hint.partition("guts known forget ")[2]
    assert stranger.guts("known", "forget", command).status == 0
    assert "is new here" in stranger.ok(tmp_path / "copy", "fetch").err
