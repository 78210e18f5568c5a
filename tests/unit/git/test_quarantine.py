"""Received packs: what passes, what is refused and as whose fault, and that nothing is left."""

import asyncio
import contextlib
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partialmethod
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from guts.errors import DiskFull, ExitStatus, PeerFault, Severity
from guts.git import inspection
from guts.git.command import Child, Git
from guts.git.faults import (
    CorruptPack,
    ExtraObjects,
    MissingObjects,
    ObjectTooLarge,
    OverLimit,
    RefusedObject,
    TooLarge,
    UnsafeTree,
)
from guts.git.files import DiskFault
from guts.git.limits import DEFAULT_LIMITS, GitLimits
from guts.git.quarantine import Checked, IndexedPack
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from tests.support import packs
from tests.support.packs import BLOB, COMMIT, REF_DELTA, TAG, TREE, chunks, object_id
from tests.support.repositories import git
from tests.unit.git.conftest import Made


@pytest.fixture(autouse=True, params=["read at once", "listed first", "into a whole repository"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to look at a pack: what one refuses, the others do."""
    if request.param == "listed first":
        monkeypatch.setattr(inspection, "SMALL_BYTES", 0)
        monkeypatch.setattr(inspection, "MAX_IDS", 0)
    if request.param == "into a whole repository":
        monkeypatch.setattr(BareRepository, "quarantine", partialmethod(BareRepository.quarantine, is_whole=True))
    return str(request.param)


async def receive(
    repository: BareRepository, data: bytes, tips: set[ObjectId], max_bytes: int | None = None
) -> tuple[IndexedPack, Checked]:
    async with repository.quarantine() as quarantine:
        indexed = await quarantine.index(chunks(data), max_bytes)
        checked = await quarantine.check(tips)
        await quarantine.migrate()
        return indexed, checked


async def held(repository: BareRepository) -> set[ObjectId]:
    return {info.id async for info in repository.objects()}


async def test_takes_in_a_whole_repository(repository: BareRepository, made: Made) -> None:
    indexed, checked = await receive(repository, made.pack, made.tips)
    assert indexed.received_bytes == len(made.pack)
    assert indexed.objects == checked.objects == len(await held(repository))
    await repository.project(made.refs, "refs/heads/main")
    await repository.fsck()
    assert git(repository.path, "show-ref", "-d") == git(made.path, "show-ref", "-d")


def tag_of(target: ObjectId, kind: str) -> bytes:
    return f"object {target}\ntype {kind}\ntag t\ntagger A <a@example.org> 1700000000 +0000\n\nt\n".encode()


@pytest.mark.parametrize("named", ["tree", "commit", "tag"])
@pytest.mark.parametrize("mode", ["100644", "100755", "120000"])
@pytest.mark.parametrize("holds_any", [False, True])
async def test_b4_what_a_tree_names_as_a_file_is_one(
    repository: BareRepository, made: Made, named: str, mode: str, holds_any: bool
) -> None:
    """git takes it for a blob and looks no further: it may lack anything, and is one day named as what it is."""
    if holds_any:
        await receive(repository, made.pack, made.tips)
        await repository.project(made.refs, "refs/heads/main")
    lacking = packs.tree(("100644", b"file", b"\x11" * 20))
    cut = packs.commit(b"\x11" * 20)
    blob = b"tagged\n"
    tag = tag_of(object_id(BLOB, blob), "blob") if named == "tag" else b""
    hidden = {"tree": [(TREE, lacking)], "commit": [(COMMIT, cut)], "tag": [(BLOB, blob), (TAG, tag)]}[named]
    beside = [("100644", b"z", object_id(BLOB, blob))] if named == "tag" else []
    root = packs.tree((mode, b"sneaky", object_id(*hidden[-1])), *beside)
    top = packs.commit(object_id(TREE, root))
    with pytest.raises(UnsafeTree, match="file"):
        await receive(repository, packs.pack([*hidden, (TREE, root), (COMMIT, top)]), {object_id(COMMIT, top)})


@pytest.mark.parametrize("holds_any", [False, True])
async def test_takes_refs_to_whatever_there_is(repository: BareRepository, made: Made, holds_any: bool) -> None:
    if holds_any:
        await receive(repository, made.pack, made.tips)
        await repository.project(made.refs, "refs/heads/main")
    blob, other = b"a ref points here\n", b"a tag points here\n"
    root = packs.tree(("100644", b"file", object_id(BLOB, blob)))
    tag, of_tree = tag_of(object_id(BLOB, other), "blob"), tag_of(object_id(TREE, root), "tree")
    data = packs.pack([(BLOB, blob), (BLOB, other), (TREE, root), (TAG, tag), (TAG, of_tree)])
    tips = {object_id(BLOB, blob), object_id(TREE, root), object_id(TAG, tag), object_id(TAG, of_tree)}
    _, checked = await receive(repository, data, tips)
    assert checked.objects == 5


async def test_takes_a_thin_pack_and_completes_it(repository: BareRepository, made: Made) -> None:
    source = await BareRepository.create(repository.path.parent / "source.git")
    await receive(source, made.pack, made.tips)
    new = made.refs["refs/heads/main"]
    old = ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main~20")))
    async with source.pack([old]) as pack, repository.quarantine() as quarantine:
        await quarantine.index(pack)
        await quarantine.check({old})
        await quarantine.migrate()
    await repository.project({"refs/heads/main": old}, "refs/heads/main")
    async with source.pack([new], [old, ObjectId(bytes(20))]) as pack:
        data = b"".join([chunk async for chunk in pack])
    _, checked = await receive(repository, data, {new})
    (count,) = struct.unpack_from(">I", data, 8)
    assert checked.objects > count, "the pack was thin, and bases were added"
    await repository.project({"refs/heads/main": new}, "refs/heads/main")
    await repository.fsck()
    for trailing in (b"x", b"0" * 41):
        with pytest.raises(CorruptPack):
            await receive(repository, data + trailing, {new})


async def test_checks_links_where_nothing_was_fetched(repository: BareRepository, made: Made) -> None:
    await receive(repository, made.pack, made.tips)
    async with repository.quarantine() as quarantine:
        assert await quarantine.check(made.tips) == Checked(0, 0)
        assert await quarantine.migrate() == []
    async with repository.quarantine() as quarantine:
        with pytest.raises(MissingObjects):
            await quarantine.check({ObjectId(bytes(19) + b"\1")})


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Enter with a list that the subcommands of git children go to."""
    started: list[str] = []
    start = Git.start

    def noted(self: Git, arguments: Sequence[str], **options: Any) -> contextlib.AbstractAsyncContextManager[Child]:
        started.append(arguments[0])
        return start(self, arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Git, "start", noted)
        yield started


async def test_small_push_costs_one_child_or_two(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source = await BareRepository.create(repository.path.parent / "source.git")
    await receive(source, made.pack, made.tips)
    name = "refs/heads/main"
    new, old = made.refs[name], ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main~2")))
    older = ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main~3")))
    async with source.pack([old]) as pack:
        await receive(repository, b"".join([chunk async for chunk in pack]), {old})
    await repository.project({name: old, "refs/heads/old": old}, name)
    async with source.pack([new], [old]) as pack:
        data = b"".join([chunk async for chunk in pack])
    with counted(monkeypatch) as started:
        assert await repository.has({new, old}) == {old}
        async with repository.quarantine() as quarantine:
            await quarantine.index(chunks(data))
            assert quarantine.parents == {}, "not checked yet"
            await quarantine.check({new})
            assert await quarantine.are_ancestors([(old, new)]) == [True]
            parents = quarantine.parents
            await quarantine.migrate()
        before = len(started)
        await repository.project({name: new, "refs/heads/old": old}, name, parents)
    assert started[:1] == ["index-pack"]
    if way != "listed first":
        assert started[1:before] == (["rev-list"] if way == "read at once" else [])
        assert len(started) == before, "nothing to ask for the refs"
    assert await repository.are_ancestors([(older, new), (new, old)], parents) == [True, False]
    await repository.fsck()


async def test_follows_what_is_held_where_the_repository_may_not_be_whole(repository: BareRepository, way: str) -> None:
    """A commit is here whose tree was lost: only who knows that nothing ever was takes its presence for enough."""
    objects, tip = one_file()
    names = tuple((repository.path / "objects" / "pack" / "lost").with_suffix(suffix) for suffix in (".pack", ".idx"))
    git(repository.path, "index-pack", "--stdin", str(names[0]), data=packs.pack(objects[:1]))
    child = packs.commit(object_id(TREE, b""), tip)
    data = packs.pack([(COMMIT, child), (TREE, b"")])
    if way == "into a whole repository":
        await receive(repository, data, {object_id(COMMIT, child)})
    else:
        with pytest.raises(MissingObjects):
            await receive(repository, data, {object_id(COMMIT, child)})


async def test_names_no_object_for_one_of_another_kind(repository: BareRepository, made: Made) -> None:
    await receive(repository, made.pack, made.tips)
    await repository.project(made.refs, "refs/heads/main")
    main = made.refs["refs/heads/main"]
    tree = ObjectId(bytes.fromhex(git(made.path, "rev-parse", "main^{tree}")))
    blob = (BLOB, b"new\n")
    for wrong, also in (
        (packs.commit(main), []),
        (packs.commit(tree, tree), []),
        (packs.commit(object_id(*blob)), [blob]),
    ):
        with pytest.raises(PeerFault):
            await receive(repository, packs.pack([(COMMIT, wrong), *also]), {object_id(COMMIT, wrong)})
    right = packs.commit(tree, main)
    await receive(repository, packs.pack([(COMMIT, right)]), {object_id(COMMIT, right)})


@pytest.mark.parametrize("limit", ["SMALL_BYTES", "MAX_IDS"])
async def test_reads_a_small_pack_at_once_up_to_a_bound(
    repository: BareRepository, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    objects, tip = one_file()
    data = packs.pack(objects)
    bound = max(len(data), sum(len(content) for _, content in objects)) if limit == "SMALL_BYTES" else len(objects)
    for value, parents in ((bound, {tip: ()}), (bound - 1, {})):
        monkeypatch.setattr(inspection, "SMALL_BYTES", 1 << 20)
        monkeypatch.setattr(inspection, "MAX_IDS", 1_000)
        monkeypatch.setattr(inspection, limit, value)
        async with repository.quarantine() as quarantine:
            await quarantine.index(chunks(data))
            checked = await quarantine.check({tip})
            assert (checked.objects, quarantine.parents) == (3, parents)


async def test_takes_objects_it_holds_already_and_an_empty_pack(repository: BareRepository, made: Made) -> None:
    await receive(repository, made.pack, made.tips)
    await receive(repository, made.pack, {made.refs["refs/heads/main"]})
    await receive(repository, packs.sealed([]), made.tips)


async def test_two_fetches_of_the_same_at_once_both_end_well(repository: BareRepository, made: Made) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(receive(repository, made.pack, made.tips))


async def test_accepts_no_pack_with_a_flipped_byte(repository: BareRepository, made: Made) -> None:
    rng = random.Random(11)
    positions = [*range(12), *rng.sample(range(12, len(made.pack)), 28), len(made.pack) - 1]
    for position in positions:
        data = bytearray(made.pack)
        data[position] ^= 1 << rng.randrange(8)
        with pytest.raises(PeerFault):
            await receive(repository, bytes(data), made.tips)
        resealed = bytes(data[:-20]) + sha1(data[:-20]).digest()
        if resealed != made.pack:
            with pytest.raises(PeerFault):
                await receive(repository, resealed, made.tips)
    assert await held(repository) == set()


@pytest.mark.parametrize("length", [0, 4, 11, 12, 31, 32, 500, -20, -1])
async def test_refuses_a_pack_cut_short(repository: BareRepository, made: Made, length: int) -> None:
    with pytest.raises(CorruptPack):
        await receive(repository, made.pack[:length], made.tips)


@pytest.mark.parametrize("trailing", [b"x", b"a" * 40 + b"\n", b"PACK" * 100_000])
async def test_refuses_bytes_after_a_pack(repository: BareRepository, made: Made, trailing: bytes) -> None:
    with pytest.raises(CorruptPack):
        await receive(repository, made.pack + trailing, made.tips)


def one_file(*extra: tuple[int, bytes]) -> tuple[list[tuple[int, bytes]], ObjectId]:
    blob = b"hello\n"
    root = packs.tree(("100644", b"file", object_id(BLOB, blob)))
    top = packs.commit(object_id(TREE, root))
    return [(COMMIT, top), (TREE, root), (BLOB, blob), *extra], object_id(COMMIT, top)


async def test_refuses_missing_and_extra_objects(repository: BareRepository) -> None:
    objects, tip = one_file()
    for absent in range(3):
        with pytest.raises(MissingObjects):
            await receive(repository, packs.pack(objects[:absent] + objects[absent + 1 :]), {tip})
    extra, _ = one_file((BLOB, b"unasked"))
    with pytest.raises(ExtraObjects):
        await receive(repository, packs.pack(extra), {tip})
    await receive(repository, packs.pack(objects), {tip})
    with pytest.raises(ExtraObjects):  # now against what is held
        await receive(repository, packs.pack(extra), {tip})
    with pytest.raises(ExtraObjects):
        await receive(repository, packs.pack([(BLOB, b"unasked")]), set())
    assert len(await held(repository)) == 3


@pytest.mark.parametrize("parent", [b"AB" * 20, b"ab" * 19 + b"aB"])
@pytest.mark.parametrize("also", [0, 1])
async def test_parent_in_upper_case_is_a_parent(repository: BareRepository, parent: bytes, also: int) -> None:
    """git's fsck takes it, and git follows it."""
    objects, tip = one_file()
    before = b"parent %s\n" % str(tip).encode() * also
    child = objects[0][1].replace(b"author ", before + b"parent %s\nauthor " % parent, 1)
    with pytest.raises(MissingObjects):
        await receive(repository, packs.pack([(COMMIT, child), *objects]), {object_id(COMMIT, child)})
    assert await held(repository) == set()
    child = child.replace(parent, str(tip).upper().encode())
    await receive(repository, packs.pack([(COMMIT, child), *objects]), {object_id(COMMIT, child)})


@pytest.mark.parametrize("mode", ["40755", "40644", "440000"])
async def test_directory_of_any_mode_is_a_directory(repository: BareRepository, mode: str) -> None:
    """git's fsck only warns of the mode, and git goes by the type in it."""
    blob = (BLOB, b"x\n")
    for inner, right in ((blob, False), ((TREE, packs.tree(("100644", b"x", object_id(*blob)))), True)):
        root = packs.tree((mode, b"a", object_id(*inner)))
        top = packs.commit(object_id(TREE, root))
        data = packs.pack([(COMMIT, top), (TREE, root), inner, *([blob] if right else [])])
        if right:
            await receive(repository, data, {object_id(COMMIT, top)})
        else:
            with pytest.raises(PeerFault):
                await receive(repository, data, {object_id(COMMIT, top)})


@pytest.mark.parametrize("spoilt", ["commit", "tree", "blob", "delta"])
@pytest.mark.parametrize("padding", [1, 9, 70])
@pytest.mark.parametrize("extra", [0, 1])
async def test_refuses_what_index_pack_takes_and_git_cannot_read(
    repository: BareRepository, spoilt: str, padding: int, extra: int
) -> None:
    """A size of which the last bytes say nothing: whoever serves a pack can write it so. git reads ten of them."""
    blob = b"hello\n" * 20
    delta = packs.varint(len(blob)) + packs.varint(2 * len(blob)) + bytes([0x90, len(blob)]) * 2
    made = object_id(BLOB, 2 * blob)
    root = packs.tree(("100644", b"a", object_id(BLOB, blob)), ("100644", b"b", made))
    top = packs.commit(object_id(TREE, root))
    parts = {
        "commit": (COMMIT, top, b""),
        "tree": (TREE, root, b""),
        "blob": (BLOB, blob, b""),
        "delta": (REF_DELTA, delta, object_id(BLOB, blob)),
    }
    entries = [
        packs.entry(kind, content, base, padding if name == spoilt else 0)
        for name, (kind, content, base) in parts.items()
    ]
    data = packs.sealed([*entries, *[packs.entry(BLOB, b"as many again")] * extra])
    if padding == 1 and not extra:
        await receive(repository, data, {object_id(COMMIT, top)})
        await repository.fsck()
        return
    with pytest.raises(PeerFault):
        await receive(repository, data, {object_id(COMMIT, top)})
    assert await held(repository) == set()


async def test_refuses_one_object_twice(repository: BareRepository) -> None:
    objects, tip = one_file()
    with pytest.raises(CorruptPack):
        await receive(repository, packs.pack([*objects, objects[2]]), {tip})


def limited(repository: BareRepository, limits: GitLimits) -> BareRepository:
    return BareRepository(repository.path, Git(limits))


async def test_keeps_every_limit_of_a_pack(repository: BareRepository) -> None:
    objects, tip = one_file()
    link = packs.tree(("120000", b"l", object_id(BLOB, b"x" * 50)))
    data = packs.pack(objects)
    top = packs.commit(object_id(TREE, link))
    linked = packs.pack([(COMMIT, top), (TREE, link), (BLOB, b"x" * 50)])
    sizes = [len(content) for _, content in objects]
    cases: list[tuple[GitLimits, GitLimits, bytes, ObjectId, type[PeerFault]]] = []
    for name, value in (
        ("pack_bytes", len(data)),
        ("pack_objects", 3),
        ("object_bytes", max(sizes)),
        ("tree_bytes", sizes[1]),
    ):
        fits = replace(DEFAULT_LIMITS, **{name: value})
        cases.append((fits, replace(DEFAULT_LIMITS, **{name: value - 1}), data, tip, TooLarge))
    inflated = replace(DEFAULT_LIMITS, inflate_ratio=0, inflate_allowance_bytes=sum(sizes))
    cases.append((inflated, replace(inflated, inflate_allowance_bytes=sum(sizes) - 1), data, tip, TooLarge))
    target = replace(DEFAULT_LIMITS, symlink_bytes=50)
    cases.append((target, replace(target, symlink_bytes=49), linked, object_id(COMMIT, top), UnsafeTree))
    special = replace(DEFAULT_LIMITS, special_blobs=1)
    cases.append((special, replace(special, special_blobs=0), linked, object_id(COMMIT, top), TooLarge))
    single = {"object_bytes", "tree_bytes", "symlink_bytes"}
    for fits, exceeds, pack, at, fault in cases:
        with pytest.raises(fault) as raised:
            await receive(limited(repository, exceeds), pack, {at})
        is_of_one = any(getattr(fits, name) != getattr(exceeds, name) for name in single)
        assert raised.value.severity is (Severity.FATAL if is_of_one else Severity.NETWORK)
        async with limited(repository, fits).quarantine() as quarantine:
            await quarantine.index(chunks(pack))
            await quarantine.check({at})
    with pytest.raises(TooLarge):
        await receive(repository, data, {tip}, max_bytes=len(data) - 1)
    await receive(repository, data, {tip}, max_bytes=len(data))


@pytest.mark.parametrize("limit", ["pack_objects", "inflate_allowance_bytes", "special_blobs"])
async def test_holder_is_not_to_blame_for_a_repository_that_grew_in_small_packs(
    repository: BareRepository, limit: str
) -> None:
    """Two pushes that are within the limits each are past them for a newcomer, who gets both in one pack."""
    values = {"pack_objects": 3, "inflate_allowance_bytes": 300, "special_blobs": 1}
    limits = replace(DEFAULT_LIMITS, inflate_ratio=0, inflate_allowance_bytes=100_000)
    limits = replace(limits, **{limit: values[limit]})
    newcomer = limited(await BareRepository.create(repository.path.parent / "newcomer.git"), limits)
    parents: tuple[ObjectId, ...] = ()
    for target in (b"a", b"b"):
        root = packs.tree(("120000", b"l", object_id(BLOB, target)))
        top = packs.commit(object_id(TREE, root), *parents)
        pack = packs.pack([(COMMIT, top), (TREE, root), (BLOB, target)])
        parents = (object_id(COMMIT, top),)
        await receive(limited(repository, limits), pack, set(parents))
        await repository.project({"refs/heads/main": parents[0]}, "refs/heads/main")
    async with repository.pack(parents) as chunks_:
        whole = b"".join([chunk async for chunk in chunks_])
    with pytest.raises(OverLimit) as raised:
        await receive(newcomer, whole, set(parents))
    assert raised.value.severity is Severity.NETWORK


async def test_object_that_is_too_large_is_named_with_its_size(repository: BareRepository) -> None:
    big = b"x" * ((1 << 20) + 1)
    link = packs.tree(("100644", b"big", object_id(BLOB, big)), ("100644", b"small", object_id(BLOB, b"x")))
    top = packs.commit(object_id(TREE, link))
    pack = packs.pack([(COMMIT, top), (TREE, link), (BLOB, big), (BLOB, b"x")])
    limits = replace(DEFAULT_LIMITS, object_bytes=1 << 20)
    with pytest.raises(ObjectTooLarge) as raised:
        await receive(limited(repository, limits), pack, {object_id(COMMIT, top)})
    assert raised.value.object_id == object_id(BLOB, big)
    assert str(raised.value) == f"object {object_id(BLOB, big)} has 1048577B; an object may have 1MiB"


async def test_refuses_bombs_quickly(repository: BareRepository) -> None:
    bomb = packs.delta_bomb()
    assert len(bomb) < 70_000
    zeros = packs.pack([(BLOB, bytes(101 << 20))])
    lie = packs.sealed([packs.entry(BLOB, b"x")], count=2**32 - 1)
    tiny = replace(DEFAULT_LIMITS, memory_bytes=512 << 20)
    for data, fault in ((bomb, TooLarge), (zeros, TooLarge), (lie, TooLarge)):
        start = time.monotonic()
        with pytest.raises(fault):
            await receive(limited(repository, tiny), data, set())
        assert time.monotonic() - start < 5


CONTENT = object_id(BLOB, b"x\n")
EMPTY = object_id(TREE, b"")
HOSTILE_NAMES = [
    b".git",
    b"..",
    b".",
    b".GIT",
    b"git~1",
    b".git\xe2\x80\x8c",
    b"a/b",
    b"a\r",
    b"a\nb",
    b"\x1b[2J",
    b"\x7f",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("mode", ["100644", "40000"])
async def test_refuses_hostile_names(repository: BareRepository, name: bytes, mode: str) -> None:
    root = packs.tree((mode, name, CONTENT if mode == "100644" else EMPTY))
    top = packs.commit(object_id(TREE, root))
    inner = (BLOB, b"x\n") if mode == "100644" else (TREE, b"")
    with pytest.raises((RefusedObject, UnsafeTree)):
        await receive(repository, packs.pack([(COMMIT, top), (TREE, root), inner]), {object_id(COMMIT, top)})


@pytest.mark.parametrize(
    ("name", "mode", "blob", "safe"),
    [
        (b"link", "120000", b".git/hooks", False),
        (b"link", "120000", b"a/../.GIT", False),
        (b"link", "120000", b".git", False),
        (b"link", "120000", b"..\\GIT~1\\hooks", False),
        (b"link", "120000", b".g\xe2\x80\x8cit/hooks", False),
        (b"link", "120000", b".git. /x", False),
        (b"link", "120777", b".git/hooks", False),
        (b"link", "120001", b".git", False),
        (b"link", "320000", b".git/hooks", False),
        (b"link", "120777", b"../.github/x", True),
        (b"link", "120000", b"../.github/x", True),
        (b"link", "120000", b"target.git", True),
        (b".gitmodules", "120000", b"x", False),
        (b".gitmodules", "100644", b'[submodule "a"]\n\tpath = "a\r"\n\turl = ./a\n', False),
        (b".gitmodules", "100644", b'[submodule "a"]\n\tpath = a\r', False),
        (b".gitModules", "100644", b'[submodule "a"]\n\tpath = "a\r"\n\turl = ./a\n', False),
        (b".gitmodules", "100644", b'[submodule "a"]\n\tpath = a\n\turl = -u./x\n', False),
        (b".gitmodules", "100644", b'[submodule "../a"]\n\tpath = a\n\turl = ./x\n', False),
        (b".gitmodules", "100644", b'[submodule "a"]\r\n\tpath = a\r\n\turl = ./a\r\n', True),
        ("n\u00e4me \u2026".encode(), "100644", b"x", True),
        (b".gitignore", "100755", b"x", True),
    ],
)
async def test_judges_links_and_modules(
    repository: BareRepository, name: bytes, mode: str, blob: bytes, safe: bool
) -> None:
    root = packs.tree((mode, name, object_id(BLOB, blob)))
    top = packs.commit(object_id(TREE, root))
    tip = object_id(COMMIT, top)
    data = packs.pack([(COMMIT, top), (TREE, root), (BLOB, blob)])
    if safe:
        await receive(repository, data, {tip})
        await repository.fsck()
    else:
        with pytest.raises((RefusedObject, UnsafeTree)):
            await receive(repository, data, {tip})


@pytest.mark.parametrize("url", [b"./fine", b"-u./hostile"])
async def test_judges_modules_that_come_in_a_later_part(repository: BareRepository, url: bytes) -> None:
    text = b'[submodule "a"]\n\tpath = a\n\turl = %s\n' % url
    root = packs.tree(("100644", b".gitmodules", object_id(BLOB, text)))
    top = packs.commit(object_id(TREE, root))
    async with repository.quarantine() as quarantine:
        first = await quarantine.index(chunks(packs.pack([(COMMIT, top), (TREE, root)])))
        assert first.unjudged_modules == (object_id(BLOB, text),)
        with pytest.raises(MissingObjects):
            await quarantine.check({object_id(COMMIT, top)})
        await quarantine.index(chunks(packs.pack([(BLOB, text)])))
        if url.startswith(b"-"):
            with pytest.raises(RefusedObject):
                await quarantine.check({object_id(COMMIT, top)})
        else:
            assert (await quarantine.check({object_id(COMMIT, top)})).objects == 3
            assert len(await quarantine.migrate()) == 2
            await repository.fsck()


async def test_full_disk_is_nobodys_fault_but_ours(repository: BareRepository, made: Made, tmp_path: Path) -> None:
    script = tmp_path / "git"
    script.write_text('#!/bin/sh\necho "fatal: write error: No space left on device" >&2\nexit 128\n')
    script.chmod(0o755)
    with pytest.raises(DiskFull) as caught:
        await receive(BareRepository(repository.path, Git(executable=str(script))), made.pack, made.tips)
    assert (caught.value.exit_status, caught.value.hint is not None) == (ExitStatus.QUOTA, True)


async def test_failing_fsync_leaves_the_repository_as_it_was(
    repository: BareRepository, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(DiskFault):
            await receive(repository, made.pack, made.tips)
    assert await held(repository) == set()
    await receive(repository, made.pack, made.tips)


async def test_lost_connection_passes_through(repository: BareRepository, made: Made) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield made.pack[:5_000]
        raise ConnectionResetError

    async with repository.quarantine() as quarantine:
        with pytest.raises(ConnectionResetError):
            await quarantine.index(broken())


async def test_cancelled_fetch_leaves_no_process_and_no_file(repository: BareRepository, made: Made) -> None:
    started = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield made.pack[:5_000]
        started.set()
        await asyncio.Event().wait()
        yield b""

    async def fetch() -> None:
        async with repository.quarantine() as quarantine:
            await quarantine.index(stalling())

    before = children()
    task = asyncio.create_task(fetch())
    await started.wait()
    assert children() > before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() <= before


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
