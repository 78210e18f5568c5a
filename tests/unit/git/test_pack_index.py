"""What the indexes of packs say is what git says, and where they can't say it nothing is said."""

import os
from pathlib import Path

import pytest

from guts.git import pack_index
from guts.git.files import DiskFault
from guts.git.pack_index import MAX_IDS, held_among, kinds_among
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.support.repositories import git
from tests.unit.git.conftest import Made
from tests.unit.git.test_packed_refs import filled

ABSENT = ObjectId(b"\1" * 20)


async def every_id(repository: BareRepository) -> list[ObjectId]:
    return [info.id async for info in repository.objects()]


def near(id_: ObjectId, step: int) -> ObjectId:
    return ObjectId(((int.from_bytes(id_, "big") + step) % (1 << 160)).to_bytes(20, "big"))


async def test_finds_every_object_and_no_other(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    objects = repository.path / "objects"
    every = await every_id(repository)
    for start in range(0, len(every), MAX_IDS):
        asked = every[start : start + MAX_IDS]
        assert held_among(objects, asked) == set(asked)
        others = {near(id_, step) for id_ in asked[: MAX_IDS // 2] for step in (-1, 1)}
        assert held_among(objects, others) == set()
    assert held_among(objects, [ObjectId(bytes(20)), ObjectId(b"\xff" * 20), every[0]]) == {every[0]}


async def test_answers_as_many_ids_and_packs_as_it_says(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(repository, made)
    objects = repository.path / "objects"
    ids = [ObjectId(number.to_bytes(20, "big")) for number in range(MAX_IDS + 1)]
    assert held_among(objects, ids[:-1]) == set()
    assert held_among(objects, ids) is None
    monkeypatch.setattr(pack_index, "MAX_PACKS", 1)
    assert held_among(objects, made.tips) == made.tips
    monkeypatch.setattr(pack_index, "MAX_PACKS", 0)
    assert held_among(objects, made.tips) is None
    assert await repository.has(made.tips) == made.tips


async def test_leaves_loose_and_borrowed_objects_to_git(repository: BareRepository, made: Made) -> None:
    loose = ObjectId(bytes.fromhex(git(repository.path, "hash-object", "-w", "--stdin", data=b"loose")))
    assert held_among(repository.path / "objects", [loose]) is None
    assert await repository.has([loose, ABSENT]) == {loose}
    git(repository.path, "prune", "--expire=now")
    assert held_among(repository.path / "objects", [loose]) == set()
    (repository.path / "objects" / "info" / "alternates").write_text(f"{made.path}/objects\n")
    assert held_among(repository.path / "objects", made.tips) is None
    assert await repository.has(made.tips) == made.tips
    (repository.path / "objects" / "info" / "alternates").unlink()


async def test_pack_that_git_would_not_open_holds_nothing(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    objects = repository.path / "objects"
    (index,) = (objects / "pack").glob("*.idx")
    for path in (index, index.with_suffix(".pack")):
        path.chmod(0o600)
        whole = path.read_bytes()
        for damaged in (b"", whole[:-1], whole[: len(whole) // 2], whole[:19]):
            path.write_bytes(damaged)
            assert held_among(objects, made.tips) == set()
            assert await repository.has(made.tips) == {info.id for info in await repository.inspect(list(made.tips))}
        path.unlink()
        assert held_among(objects, made.tips) == set()
        path.write_bytes(whole)
    assert held_among(objects, made.tips) == made.tips


@pytest.mark.parametrize(("more", "stays"), [(0, True), (1, False)])
async def test_index_up_to_a_size_stays_in_memory(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch, more: int, stays: bool
) -> None:
    await filled(repository, made)
    objects = repository.path / "objects"
    (index,) = (objects / "pack").glob("*.idx")
    monkeypatch.setattr(pack_index, "SMALL_INDEX_BYTES", index.stat().st_size - more)
    every = (await every_id(repository))[:MAX_IDS]
    kinds = {info.id: info.kind.encode() for info in await repository.inspect(every)}
    assert kinds_among(objects, every) == kinds
    index.chmod(0o600)
    index.write_bytes(b"")
    assert held_among(objects, every) == (set(every) if stays else set())
    assert kinds_among(objects, every) == (kinds if stays else {})
    pack = index.with_suffix(".pack")
    pack.chmod(0o600)
    os.truncate(pack, pack.stat().st_size - 1)
    assert held_among(objects, every) == set(), "of a pack that was cut off nothing is said to be here"
    index.unlink()
    assert held_among(objects, every) == set()


def test_folder_that_is_gone_is_a_fault_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFault):
        held_among(tmp_path / "gone", [ABSENT])
    assert os.listdir(tmp_path) == []
