"""A node's bare repository."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from guts.git.ancestry import NotHeld
from guts.git.command import Git, GitFailed
from guts.git.limits import DEFAULT_LIMITS
from guts.git.repository import BareRepository, NotARepository, clean_up
from guts.ids import AuthorId, ObjectId
from tests.support.repositories import git
from tests.unit.git.conftest import Made
from tests.unit.git.test_packed_refs import filled

ABSENT = ObjectId(b"\1" * 20)


async def test_is_made_once_or_again_and_opened(tmp_path: Path) -> None:
    with pytest.raises(NotARepository):
        await BareRepository.open(tmp_path / "r.git")
    await BareRepository.create(tmp_path / "r.git")
    await BareRepository.create(tmp_path / "r.git")
    repository = await BareRepository.open(tmp_path / "r.git")
    assert git(repository.path, "config", "gc.auto") == "0"
    await repository.delete()
    with pytest.raises(NotARepository):
        await BareRepository.open(tmp_path / "r.git")


async def test_new_repository_and_its_first_pack_are_there_by_name_after_a_power_cut(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder on the way to a pack is synced in the folder above it."""
    sync, synced = os.fsync, set()

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    repository = await BareRepository.create(tmp_path / "repositories" / "r.git")
    await filled(repository, made)
    (pack,) = (repository.path / "objects" / "pack").glob("*.pack")
    for path in (
        repository.path / "HEAD",
        pack,
        *(parent for parent in pack.parents if parent.is_relative_to(repository.path.parent)),
    ):
        assert path.stat().st_ino in synced, path


async def test_repository_whose_head_is_none_is_completed(tmp_path: Path, made: Made) -> None:
    """``git init`` would leave it as it is, and git works in no repository without a HEAD."""
    repository = await BareRepository.create(tmp_path / "r.git")
    (repository.path / "HEAD").write_bytes(b"")
    repository = await BareRepository.create(tmp_path / "r.git")
    await filled(repository, made)
    await repository.project(made.refs, "refs/heads/main")
    assert await repository.refs() == (made.refs, "refs/heads/main")


async def test_knows_what_it_holds(repository: BareRepository, made: Made) -> None:
    assert await repository.has([]) == set()
    assert await repository.has(made.tips) == set()
    await filled(repository, made)
    assert await repository.has([*made.tips, ABSENT]) == made.tips
    infos = {info.id: info async for info in repository.objects()}
    assert {infos[made.refs["refs/tags/v1"]].kind, infos[made.refs["refs/heads/main"]].kind} == {"tag", "commit"}
    assert infos[made.refs["refs/tags/v1"]].size == int(git(made.path, "cat-file", "-s", "v1"))
    assert repository.size() > len(made.pack)


@pytest.mark.parametrize("count", [150, 10_000])
async def test_lists_every_object_once(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("guts.git.repository._LISTED_IDS", count)
    await filled(repository, made)
    every = set(git(repository.path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split())
    listed = [str(info.id) async for info in repository.objects()]
    assert len(listed) == len(every)
    assert set(listed) == every


async def test_answers_a_full_batch_of_ids_and_not_one_more(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    limits = replace(DEFAULT_LIMITS, batch_ids=20_000)
    asked = [ObjectId(number.to_bytes(20, "big")) for number in range(19_999)] + [made.refs["refs/heads/main"]]
    limited = BareRepository(repository.path, Git(limits))
    assert [info.id for info in await limited.inspect(asked)] == [made.refs["refs/heads/main"]]
    with pytest.raises(ValueError, match="20001 ids"):
        await limited.inspect([*asked, ABSENT])
    # Who only wants to know what is held may ask for any number.
    assert await limited.has([ABSENT, *asked, *made.tips]) == made.tips


async def test_gives_only_what_it_holds(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    with pytest.raises(NotHeld) as caught:
        async with repository.pack([*made.tips, ABSENT]):
            raise AssertionError("entered")
    assert caught.value.missing == {ABSENT}
    async with repository.pack(made.tips, [*made.tips, ABSENT]) as pack:
        assert len(b"".join([chunk async for chunk in pack])) == 12 + 20, "nothing is new to who has all"


async def test_knows_ancestors(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    main, tag = made.refs["refs/heads/main"], made.refs["refs/tags/v2"]
    old = ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main~5")))
    tree = ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main^{tree}")))
    pairs = [(old, main), (main, old), (main, main), (old, tag), (tag, old), (tag, main), (tree, tree), (tree, main)]
    assert await repository.are_ancestors(pairs) == [True, False, True, True, False, True, True, False]
    assert await repository.is_ancestor(old, main)
    with pytest.raises(NotHeld):
        await repository.is_ancestor(ABSENT, main)


async def test_removes_leftovers_and_says_so(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    (pack,) = (repository.path / "objects" / "pack").glob("*.pack")
    leftovers = {
        "objects/incoming-x/pack/tmp_pack_1",
        "objects/tmp_objdir-incoming-y/z",
        "objects/pack/tmp_idx_2",
        "packed-refs.lock",
        "tmp_guts_3",
        "guts/refs/tmp_guts_4",
        "objects/pack/pack-" + "0" * 40 + ".pack",
    }
    for name in leftovers:
        (repository.path / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / name).write_bytes(b"x")
    removed = set(clean_up(repository.path))
    assert removed == {
        "objects/incoming-x",
        "objects/tmp_objdir-incoming-y",
        *(name for name in leftovers if "incoming" not in name),
    }
    assert pack.exists()
    assert clean_up(repository.path) == []
    # Its pack may come back.
    (pack.parent / ("pack-" + "1" * 40 + ".idx")).write_bytes(b"x")
    assert clean_up(repository.path) == []
    assert await repository.packs() == [pack.stem.removeprefix("pack-")]
    with pytest.raises(NotARepository):
        clean_up(repository.path / "objects")
    await repository.project(made.refs, "refs/heads/main")
    await repository.fsck()


async def test_fsck_sees_damage(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    (pack,) = (repository.path / "objects" / "pack").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    with pytest.raises(GitFailed):
        await repository.fsck()


async def test_keeps_records(repository: BareRepository) -> None:
    author = AuthorId(bytes(range(32)))
    records = repository.records
    assert (await records.identities(), await records.refs(), await records.seeding()) == ([], {}, True)
    documents = {10: b"ten", 9: b"nine"}
    refs = {author: (b"header", b"entries")}
    await records.keep(identities=documents, proofs={author: b"proof"}, fork=b"fork", refs=refs, seeding=True)
    assert await records.proofs() == [b"proof"]
    refs = {author: (b"newer", b"entries")}
    await records.keep(identities={}, proofs={}, fork=None, refs=refs, seeding=False)
    assert await records.proofs() == []
    assert await records.fork() == [b"fork"]
    (records.path / "refs" / "stray").write_bytes(b"x")
    again = await BareRepository.open(repository.path)
    assert await again.records.identities() == [b"nine", b"ten"]
    assert await again.records.refs() == {author: (b"newer", b"entries")}
    assert not await again.records.seeding()
