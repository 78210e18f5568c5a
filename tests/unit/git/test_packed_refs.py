"""The projection of refs, against git itself."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from guts.errors import DiskFull
from guts.git import packed_refs
from guts.git.ancestry import NotHeld
from guts.git.packed_refs import DamagedRefs, PackedRef
from guts.git.repository import BareRepository, clean_up
from guts.ids import ObjectId
from tests.support.packs import chunks
from tests.support.repositories import git
from tests.unit.git.conftest import Made


async def filled(repository: BareRepository, made: Made) -> BareRepository:
    async with repository.quarantine() as quarantine:
        await quarantine.index(chunks(made.pack))
        await quarantine.check(made.tips)
        await quarantine.migrate()
    return repository


async def test_writes_what_git_writes_and_reads(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    rng = random.Random(3)
    letters = "abcXYZ-_.%+\u00e9\u2026\u6f22"
    refs = dict(made.refs)
    for _ in range(200):
        refs[f"refs/heads/b{rng.randrange(10**6)}"] = made.refs["refs/heads/main"]
        name = "r" + "".join(rng.choices(letters, k=12)).replace("..", "x").rstrip(".")
        refs[f"refs/{rng.choice(['tags', 'notes', 'guts/conflict'])}/{name}"] = rng.choice([*made.tips])
    refs = {name: target for name, target in refs.items() if not name.endswith(".lock")}
    await repository.project(refs, "refs/heads/main")
    assert (await repository.refs()) == (refs, "refs/heads/main")
    ours = (repository.path / "packed-refs").read_bytes()
    listing = git(repository.path, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    assert {line[41:]: line[:40] for line in listing} == {name: str(target) for name, target in refs.items()}
    assert f"{made.refs['refs/heads/main']} refs/tags/v2^{{}}" in git(repository.path, "show-ref", "-d")
    git(repository.path, "update-ref", "refs/heads/loose", str(made.refs["refs/heads/main"]))
    git(repository.path, "pack-refs", "--all")
    git(repository.path, "update-ref", "-d", "refs/heads/loose")
    git(repository.path, "pack-refs", "--all")
    assert (repository.path / "packed-refs").read_bytes() == ours
    await repository.fsck()


async def test_projection_replaces_all_refs(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    await repository.project(made.refs, "refs/heads/main")
    with pytest.raises(NotHeld):
        await repository.project({"refs/heads/main": ObjectId(bytes(20))}, "refs/heads/main")
    assert await repository.refs() == (made.refs, "refs/heads/main")
    only = {"refs/heads/only": made.refs["refs/heads/main"]}
    await repository.project(only, "refs/heads/only")
    assert git(repository.path, "for-each-ref", "--format=%(refname)") == "refs/heads/only"
    assert git(repository.path, "symbolic-ref", "HEAD") == "refs/heads/only"
    await repository.project({}, "refs/heads/main")
    assert await repository.refs() == ({}, "refs/heads/main")


async def test_projection_asks_only_about_what_is_new(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    await repository.project(made.refs, "refs/heads/main")
    ours, main = (repository.path / "packed-refs").read_bytes(), made.refs["refs/heads/main"]
    for commits in (set(), {main}):
        await repository.project({"refs/heads/main": main}, "refs/heads/main", commits)
        # Tags are new again: git says what they point at.
        await repository.project(made.refs, "refs/heads/main", commits)
        assert (repository.path / "packed-refs").read_bytes() == ours
    with pytest.raises(NotHeld):
        await repository.project({"refs/heads/main": ObjectId(bytes(20))}, "refs/heads/main", {main})
    only = {"refs/heads/main": main}
    for name in ("packed-refs", "HEAD"):
        (repository.path / name).write_bytes(b"damaged")
        await repository.project(only, "refs/heads/main", {main})
        assert await repository.refs() == (only, "refs/heads/main")
    (repository.path / "HEAD").unlink()
    await repository.project(only, "refs/heads/main", {main})
    shutil.rmtree(repository.path / "objects" / "pack")
    await repository.project(only, "refs/heads/main", {main})
    with pytest.raises(NotHeld):
        await repository.project(only, "refs/heads/main")


async def test_failing_disk_leaves_the_old_refs(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(repository, made)
    await repository.project(made.refs, "refs/heads/main")

    room = iter([tempfile.mkstemp])

    def mkstemp(prefix: str, dir: Path) -> tuple[int, str]:
        if (really := next(room, None)) is None:
            raise OSError(28, "No space left on device")
        return really(prefix=prefix, dir=dir)

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkstemp", mkstemp)
        with pytest.raises(DiskFull):
            await repository.project({}, "refs/heads/other")
    assert next(room, None) is None, "there was room for HEAD"
    assert await repository.refs() == (made.refs, "refs/heads/main")
    assert clean_up(repository.path) == []


async def test_refs_are_shown_at_once_and_durable_when_they_are_synced(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(repository, made)
    synced: list[str] = []
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await repository.project(made.refs, "refs/heads/main")
    assert await repository.refs() == (made.refs, "refs/heads/main")
    assert synced == []
    await repository.sync_refs()
    assert synced == [f"{repository.path}/packed-refs", str(repository.path)]
    synced.clear()
    await repository.project(made.refs, "refs/heads/other")
    assert len(synced) == 3, "no power cut leaves a HEAD that is none, as no git child works there"


async def test_head_is_written_where_it_is_another(repository: BareRepository, made: Made) -> None:
    await filled(repository, made)
    await repository.project(made.refs, "refs/heads/main")
    head = repository.path / "HEAD"
    before = head.stat().st_ino, (repository.path / "packed-refs").stat().st_ino
    await repository.project(made.refs, "refs/heads/main")
    assert head.stat().st_ino == before[0]
    assert (repository.path / "packed-refs").stat().st_ino != before[1]
    await repository.project(made.refs, "refs/heads/other")
    assert head.read_text() == "ref: refs/heads/other\n"
    head.write_text("damaged")
    await repository.project(made.refs, "refs/heads/other", set(made.refs.values()))
    assert head.read_text() == "ref: refs/heads/other\n"


@pytest.mark.parametrize("name", ["heads/x", "refs/heads/a b", "refs/heads/a\nb", "refs/heads/\x7f", ""])
def test_refuses_names_that_break_the_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name of a ref"):
        packed_refs.encode({name: PackedRef(ObjectId(bytes(20)))})
    with pytest.raises(ValueError, match="not the name of a ref"):
        packed_refs.write(tmp_path, {}, name)


def test_damage_is_seen() -> None:
    good = packed_refs.encode({f"refs/heads/{n}": PackedRef(ObjectId(bytes(20))) for n in "abc"})
    lines = good.splitlines(keepends=True)
    swapped = b"".join([lines[0], lines[2], lines[1]])
    for data in (b"", good[1:], good[:-1], good + b"x", swapped, good.replace(b"heads/b", b"heads/\xff")):
        with pytest.raises(DamagedRefs):
            packed_refs.decode(data)
