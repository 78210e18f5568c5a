"""What a peer can bring a machine to: a full disk, no processes left, words of git's for a terminal."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from guts.errors import DiskFull
from guts.git.command import CannotStart, Git, GitFailed
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from guts.keystore import load_or_create_node_key
from tests.support.nodes import config_of


async def test_disk_that_fills_during_the_checks_is_a_storage_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lists of the checks are files too: an error of theirs that is no fault of ours by type ends the node."""

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    repository = await BareRepository.create(tmp_path / "r.git")
    async with repository.quarantine() as quarantine:
        monkeypatch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(DiskFull):
            await quarantine.check({ObjectId(bytes(20))})


async def test_machine_that_starts_no_process_is_a_storage_fault(tmp_path: Path) -> None:
    program = tmp_path / "git"
    program.write_bytes(b"")
    with pytest.raises(CannotStart):
        await Git(executable=str(program)).check_version()


async def test_what_git_says_of_hostile_objects_moves_no_terminal(tmp_path: Path) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nprintf 'bad \\033]0;x\\007 \\302\\233 \\342\\200\\256 \\r name' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(GitFailed) as failed:
        await Git(executable=str(program)).run(["fsck"])
    assert "bad ?]0;x? ? ? ? name" in failed.value.stderr


def test_folder_of_the_database_is_closed_to_others(tmp_path: Path) -> None:
    """The key is the first file in it, so the key's folder was what made the data folder, open to read for all."""
    config = config_of(tmp_path / "home")
    load_or_create_node_key(config.network.keypair)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "home").rglob("*") if path.is_dir()}
    assert set(modes.values()) == {0o700}, modes
