"""The database file is damaged, cut short or gone: the node makes a new one from its repositories."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guts.config import Paths
from tests.crash.state import states
from tests.e2e.conftest import Guts, commit
from tests.support.repositories import git

GARBAGE = b"not a database, "


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + GARBAGE * ((len(data) - 4096) // len(GARBAGE)))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def fill(path: Path) -> None:
    path.write_bytes(GARBAGE * 1_000)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("harm", "kept"), [(damage, 1), (cut, 1), (fill, 1), (remove, 0), (empty, 0)])
def test_node_rebuilds_its_database_from_its_repositories(
    alone: Guts, work: Path, harm: Callable[[Path], None], kept: int
) -> None:
    paths = Paths.from_environ(alone.environ)
    alone("node", "start")
    identity = alone("node", "status", "--json").json["id"]
    repository = str(alone("publish", work, "--json").json["repository"])
    other = work.parent / "other"
    git(work.parent, "clone", "-q", str(work), str(other))
    unseeded = str(alone("publish", other, "--json").json["repository"])
    assert alone("unseed", unseeded).status == 0
    alone("node", "stop")
    before = states(paths)
    harm(paths.database)
    harmed = paths.database.read_bytes() if paths.database.exists() else b""

    assert alone("node", "start", "--json").json["id"] == identity
    assert states(paths) == before
    aside = list(paths.data.glob("guts.db.damaged-*[0-9]"))
    assert [path.read_bytes() for path in aside] == [harmed] * kept
    log = paths.log_file.read_text()
    assert ("set aside as" in log) == bool(kept)
    assert "taken in from their folders: 2" in log
    assert " ERROR " not in log

    commit(work, "after")
    again = alone("publish", work, "--json").json
    assert (again["repository"], again["unchanged"]) == (repository, False)
    assert alone("seed", unseeded).status == 0
    alone("node", "stop")
    alone("node", "start")
    assert {str(id_): state.seeding for id_, state in states(paths).items()} == {repository: True, unseeded: True}
    assert "taken in" not in paths.log_file.read_text()[len(log) :]


def test_repository_without_its_objects_is_left_as_it_is(alone: Guts, work: Path) -> None:
    paths = Paths.from_environ(alone.environ)
    alone("node", "start")
    repository = alone("publish", work, "--json").json["repository"]
    alone("node", "stop")
    bare = paths.repositories / f"{repository}.git"
    for pack in (bare / "objects" / "pack").iterdir():
        pack.unlink()
    paths.database.unlink()

    assert alone("node", "start").status == 0
    assert alone("ls", "--json").out.strip() == "[]"
    assert f"{bare} is left as it is" in paths.log_file.read_text()
    assert list((bare / "guts" / "refs").iterdir())


def test_record_that_was_tampered_with_is_not_accepted_again(alone: Guts, work: Path) -> None:
    paths = Paths.from_environ(alone.environ)
    alone("node", "start")
    repository = alone("publish", work, "--json").json["repository"]
    alone("node", "stop")
    (record,) = (paths.repositories / f"{repository}.git" / "guts" / "refs").iterdir()
    data = record.read_bytes()
    record.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    paths.database.unlink()

    assert alone("node", "start").status == 0
    assert alone("ls", "--json").out.strip() == "[]"
    assert record.read_bytes() != data
