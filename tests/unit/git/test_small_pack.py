"""A small pack is read as git reads it, or not at all; what its objects name is told with its kind."""

import struct
from hashlib import sha1
from pathlib import Path

import pytest

from guts.git import small_pack
from guts.git.objects import Content
from guts.git.pack_index import KINDS, MAX_IDS, kinds_among
from guts.git.repository import BareRepository
from guts.git.small_pack import follow, parents, read_pack
from guts.ids import ObjectId
from tests.support import packs
from tests.support.packs import BLOB, COMMIT, REF_DELTA, TREE, object_id
from tests.support.repositories import git
from tests.unit.git.conftest import Made

MIB = 1 << 20
PLENTY = 1_000_000


def indexed(folder: Path, data: bytes) -> Path:
    """Return the pack that git made of ``data``, without its suffix."""
    git(folder, "index-pack", "--stdin", str(folder / "made.pack"), data=data)
    return folder / "made"


def content(kind: int, data: bytes) -> Content:
    return Content(str(object_id(kind, data)), KINDS[kind], data)


@pytest.fixture
def folder(repository: BareRepository, tmp_path: Path) -> Path:
    """Where git knows a repository, of ids of 20 bytes."""
    return repository.path


@pytest.mark.parametrize("option", ["--delta-base-offset", "--no-reuse-delta"])
def test_reads_what_git_reads(folder: Path, made: Made, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With deltas that name their base by offset, and by id."""
    monkeypatch.setattr(small_pack, "DELTA_BYTES", PLENTY)
    revisions = "".join(f"{id_}\n" for id_ in made.refs.values()).encode()
    name = git(made.path, "pack-objects", "--revs", "-q", option, str(folder / "made"), data=revisions)
    stem = folder / f"made-{name}"
    kinds = git(made.path, "verify-pack", "-v", str(stem.with_suffix(".idx")))
    assert "chain length = 1" in kinds
    found = read_pack(stem, 100 * MIB, PLENTY)
    assert found is not None
    assert len(found) == struct.unpack_from(">I", stem.with_suffix(".pack").read_bytes(), 8)[0]
    for one in found:
        assert sha1(b"%s %d\0" % (one.kind, len(one.data)) + one.data).hexdigest() == one.id
    main = made.refs["refs/heads/main"]
    before = git(made.path, "rev-parse", "main^@").split()
    assert [str(parent) for parent in parents(found)[main]] == before
    links = follow(found, made.tips, ())
    assert links is not None
    assert not links.outside
    assert {str(id_) for id_ in links.reached} == {one.id for one in found}


def test_reads_no_more_than_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, made = b"x" * 100, b"x" * 300
    delta = packs.varint(100) + packs.varint(300) + b"\x90\x64" * 3
    stem = indexed(
        folder, packs.sealed([packs.entry(BLOB, base), packs.entry(REF_DELTA, delta, object_id(BLOB, base))])
    )
    found = read_pack(stem, 400, 2)
    assert found is not None
    assert {one.data for one in found} == {base, made}
    assert read_pack(stem, 399, 2) is None
    assert read_pack(stem, 400, 1) is None
    monkeypatch.setattr(small_pack, "DELTA_BYTES", len(delta))
    assert read_pack(stem, 400, 2) == found
    monkeypatch.setattr(small_pack, "DELTA_BYTES", len(delta) - 1)
    assert read_pack(stem, 400, 2) is None


def test_reads_nothing_of_what_is_damaged(folder: Path, made: Made) -> None:
    """Nobody may have damaged what git has just written; whatever it is, it ends in a word of git's."""
    objects = [(BLOB, b"hello\n"), (TREE, packs.tree(("100644", b"file", object_id(BLOB, b"hello\n"))))]
    stem = indexed(folder, packs.pack(objects))
    for suffix in (".pack", ".idx"):
        path = stem.with_suffix(suffix)
        path.chmod(0o600)
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
            found = read_pack(stem, MIB, 100)
            assert found is None or len(found) == len(objects)
            path.write_bytes(whole[:at])
            found = read_pack(stem, MIB, 100)
            assert found is None or len(found) == len(objects)
        path.write_bytes(whole)


def test_tells_what_is_named_outside_and_of_which_kind() -> None:
    tree, blob, parent = (ObjectId(bytes([number]) * 20) for number in (1, 2, 3))
    module = ObjectId(bytes([4]) * 20)
    root = packs.tree(("40000", b"a", tree), ("100644", b"b", blob), ("160000", b"c", module))
    top = packs.commit(object_id(TREE, root), parent)
    few, tip = [content(COMMIT, top), content(TREE, root)], object_id(COMMIT, top)
    links = follow(few, [tip], ())
    assert links is not None
    assert links.outside == {tree: b"tree", blob: b"blob", parent: b"commit"}
    vouched = follow(few, [tip], [object_id(TREE, root)])
    assert vouched is not None
    assert vouched.outside == {parent: b"commit"}
    alone = follow([], [tip], ())
    assert alone is not None
    assert alone.outside == {tip: None}
    both = packs.tree(("40000", b"a", tree), ("100644", b"b", tree))
    assert follow([content(TREE, both)], [object_id(TREE, both)], ()) is None
    inside = packs.commit(object_id(COMMIT, top))
    assert follow([*few, content(COMMIT, inside)], [object_id(COMMIT, inside)], ()) is None


@pytest.mark.parametrize("padding", [60, 61, 62, 63, 70])
async def test_says_nothing_of_a_pack_with_a_size_that_git_cannot_read(
    repository: BareRepository, padding: int
) -> None:
    """index-pack takes it; who looks for what is behind the size does not find it."""
    base, made = b"x" * 100, b"x" * 300
    delta = packs.varint(100) + packs.varint(300) + b"\x90\x64" * 3
    entries = [packs.entry(BLOB, base), packs.entry(REF_DELTA, delta, object_id(BLOB, base), padding)]
    stem = indexed(repository.path, packs.sealed(entries))
    assert read_pack(stem, MIB, 100) is None
    for suffix in (".pack", ".idx"):
        stem.with_suffix(suffix).rename(repository.path / "objects" / "pack" / f"pack-made{suffix}")
    objects = repository.path / "objects"
    assert kinds_among(objects, [object_id(BLOB, base)]) == {object_id(BLOB, base): b"blob"}
    assert kinds_among(objects, [object_id(BLOB, made)]) is None


async def test_kinds_are_those_that_git_tells(repository: BareRepository, made: Made) -> None:
    git(repository.path, "index-pack", "--stdin", data=made.pack)
    objects = [info async for info in repository.objects()]
    for start in range(0, len(objects), MAX_IDS):
        some = objects[start : start + MAX_IDS]
        asked = [info.id for info in some] + ([ObjectId(b"\1" * 20)] if len(some) < MAX_IDS else [])
        assert kinds_among(repository.path / "objects", asked) == {info.id: info.kind.encode() for info in some}
    assert kinds_among(repository.path / "objects", [info.id for info in objects[:1]] * (MAX_IDS + 1)) is None
