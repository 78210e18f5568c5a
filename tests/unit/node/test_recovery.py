"""What a start does with folders that the database does not know."""

import errno
import hashlib
import shutil
from pathlib import Path

import pytest

from guts.git.command import Git
from guts.git.files import DiskFault
from guts.ids import RepositoryId
from guts.node.recovery import SETTLED_AT_A_TIME, recover
from guts.node.repositories import Repositories
from guts.store.database import Database


async def test_what_fetches_began_is_removed_however_much_it_is(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "guts.db")
    root = tmp_path / "repos"
    for number in range(3 * SETTLED_AT_A_TIME + 1):
        (root / f"{identifier(number)}.git" / "objects").mkdir(parents=True)
    assert await recover(Repositories(root, database, Git()), 0) == {}
    assert list(root.iterdir()) == []
    await database.close()


async def test_one_that_can_not_be_removed_is_a_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.open(tmp_path / "guts.db")
    root = tmp_path / "repos"
    (root / f"{identifier(0)}.git").mkdir(parents=True)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DiskFault):
        await recover(Repositories(root, database, Git()), 0)
    await database.close()


async def test_what_is_no_folder_of_a_repository_is_left_alone_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.open(tmp_path / "guts.db")
    root = tmp_path / "repos"
    mine = tmp_path / "mine"
    (mine / "objects").mkdir(parents=True)
    (root / "notes.git" / "objects").mkdir(parents=True)
    (root / "a-file.git").write_text("no folder")
    (root / f"{identifier(0)}.git").write_text("no folder")
    (root / f"{identifier(1)}.git").symlink_to(mine)
    (root / f"{identifier(2)}.git".upper().replace(".GIT", ".git")).mkdir()
    (root / f"{identifier(3)}.git").mkdir()
    before = sorted(path for path in root.iterdir() if path.name != f"{identifier(3)}.git")
    assert await recover(Repositories(root, database, Git()), 0) == {}
    assert sorted(root.iterdir()) == before
    assert (mine / "objects").is_dir()
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "and 2 more; left alone" in told
    await database.close()


def identifier(number: int) -> RepositoryId:
    return RepositoryId(hashlib.sha256(bytes([number])).digest())
