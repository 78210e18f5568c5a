"""What a start does with folders that the database does not know."""

from pathlib import Path

import pytest

from guts.git.command import Git
from guts.git.files import DiskFault
from guts.node.recovery import SETTLED_AT_A_TIME, recover
from guts.node.repositories import Repositories
from guts.store.database import Database


async def test_what_fetches_began_is_removed_however_much_it_is(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "guts.db")
    root = tmp_path / "repos"
    for number in range(3 * SETTLED_AT_A_TIME + 1):
        (root / f"begun{number}.git" / "objects").mkdir(parents=True)
    assert await recover(Repositories(root, database, Git()), 0) == {}
    assert list(root.iterdir()) == []
    await database.close()


async def test_one_that_can_not_be_removed_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "guts.db")
    root = tmp_path / "repos"
    root.mkdir()
    (root / "a-file.git").write_text("no folder")
    with pytest.raises(DiskFault):
        await recover(Repositories(root, database, Git()), 0)
    await database.close()
