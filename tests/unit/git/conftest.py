"""A source repository of about 1,000 objects, its tips and its pack; and an empty repository of a node."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.support.repositories import git, make_repository


@dataclass(frozen=True)
class Made:
    """A repository made by git."""

    path: Path
    refs: dict[str, ObjectId]
    pack: bytes

    @property
    def tips(self) -> set[ObjectId]:
        """What its refs point at."""
        return set(self.refs.values())


def read_refs(path: Path) -> dict[str, ObjectId]:
    """Return the refs as git lists them."""
    lines = git(path, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    return {line[41:]: ObjectId(bytes.fromhex(line[:40])) for line in lines}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    import subprocess

    path = make_repository(tmp_path_factory.mktemp("made") / "source.git", 1_000, seed=7)
    git(path, "tag", "-a", "-m", "one", "v1", "main")
    git(path, "tag", "-a", "-m", "two", "v2", "v1")
    refs = read_refs(path)
    revisions = "".join(f"{id_}\n" for id_ in refs.values()).encode()
    data = subprocess.run(
        ["git", "pack-objects", "--revs", "--stdout", "-q"], cwd=path, input=revisions, capture_output=True, check=True
    ).stdout
    return Made(path, refs, data)


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[BareRepository]:
    """An empty repository; afterwards no quarantine may be left in it."""
    repository = await BareRepository.create(tmp_path / "replica.git")
    yield repository
    leftovers = [path.name for path in (repository.path / "objects").iterdir() if path.name not in ("info", "pack")]
    assert leftovers == []
