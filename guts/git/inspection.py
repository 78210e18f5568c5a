"""The checks of a quarantine, side by side on two processors: our own scan, and the links.

**Scan.** One listing of the quarantine's objects (kind, size) bounds what they inflate to before anything is
inflated, and yields the trees; their contents go through ``guts.git.trees``; the symlinks and ``.gitmodules`` that
they name are read and judged; ``.gitmodules`` that index-pack couldn't judge are given to git's fsck once more.

A small pack is read without a child (``guts.git.small_pack``); one that turns out to have more than ``MAX_IDS``
objects, to inflate to more than ``SMALL_BYTES``, or to break a limit, is listed as any other.

**Links.** One ``rev-list --objects`` from the tips down to what the repository's refs already reach: it ends well
only if every link is present, blobs included. Nothing else may come along, and for that counting is enough: let
R be what rev-list listed and P the pack's objects, both without what the repository held before. Everything in R
is here, so R ⊆ P; then R = P exactly when they are equally many. No set of ids is ever held in memory.

**Kinds.** rev-list takes what a tree names as a file for a blob, and looks no further; where it is a tree or a commit,
it may lack anything. So a second rev-list walks all but blobs, and is to come to as many objects as the pack has that
are none; in a small pack the entries are compared with what they name.

Of a small pack for a repository that is whole, the links are followed here: what passed these checks is there with
all that it reaches, so that what a new object names is complete if it is held at all (and of the right kind: a tree may
name a commit as a file). This only ever finds that all is well. If it does not, git is asked, and says what is wrong.
"""

import asyncio
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import IO, Final, NamedTuple

from guts.git.command import Child, Git, GitFailed
from guts.git.faults import CorruptPack, ExtraObjects, ObjectTooLarge, OverLimit, RefusedObject, TooLarge, UnsafeTree
from guts.git.files import disk_faults
from guts.git.objects import (
    BATCH_ALL,
    BATCH_CONTENTS,
    CHUNK_BYTES,
    Content,
    OversizedObject,
    contents,
    id_lines,
    lines_in_blocks,
)
from guts.git.pack_index import MAX_IDS, held_among, kinds_among
from guts.git.small_pack import follow, misnaming, parents, read_pack
from guts.git.trees import PLAIN_ANSWERS, TreeScan, check_link, check_modules
from guts.ids import ObjectId
from guts.sizes import exact_size, size_text

# Of lines of type, size and id, from git itself: nothing else in them looks like this.
_SIZES: Final = re.compile(rb" (\d+) ")
_TREE_SIZES: Final = re.compile(rb"tree (\d+)")
_TREES: Final = re.compile(rb"tree \d+ ([0-9a-f]{40}\n)")
_IDS: Final = re.compile(rb"[0-9a-f]{40}\n")
_NO_BLOBS: Final = re.compile(rb"(?:tree|commit|tag) \d+ ([0-9a-f]{40}\n)")
# A found object is answered by this line, a missing one by "<id> missing": one "m", which no id contains.
_PRESENT: Final = "x"

_ID_LINE_BYTES: Final = 2 * ObjectId.LENGTH + 1

SMALL_BYTES: Final = 1024 * 1024
"""What is read of a pack's contents, at most, without a child: blobs are read in vain, and held in memory."""

MAX_OUTSIDE: Final = 250
"""What a small pack may name outside of itself; of more, one git child is cheaper to ask."""

_TREE, _BLOB = 2, 3  # types in a pack (gitformat-pack)


class _Counts(NamedTuple):
    objects: int
    inflated: int
    unlinked: int
    misnamed: int


class Inspection:
    """One run of the checks.

    Attributes:
        parents: of the commits in a small pack, once ``run`` has returned; empty for any other.

    Args:
        git: runs git.
        path: the quarantine.
        environment: git sees the quarantine and the repository.
        held_environment: git sees the repository only.
        received_bytes: length of the packs as they came.
        unjudged_modules: ``.gitmodules`` blobs that index-pack couldn't judge.
        is_whole: whether all that the repository holds is there with all that it reaches.
    """

    def __init__(
        self,
        git: Git,
        path: Path,
        environment: Mapping[str, str],
        held_environment: Mapping[str, str],
        *,
        received_bytes: int,
        unjudged_modules: Collection[ObjectId],
        is_whole: bool,
    ) -> None:
        self._git = git
        self._limits = git.limits
        self._path = path
        self._environment = dict(environment)
        self._held_environment = dict(held_environment)
        # Without its alternate the quarantine lists its own objects only; fix-thin made its packs complete.
        self._own_environment = {**self._environment, "GIT_ALTERNATE_OBJECT_DIRECTORIES": ""}
        self._git_objects = Path(self._held_environment["GIT_DIR"], "objects")
        self._inflated_allowed = received_bytes * self._limits.inflate_ratio + self._limits.inflate_allowance_bytes
        self._is_small = received_bytes <= SMALL_BYTES
        self._unjudged = unjudged_modules
        self._is_whole = is_whole
        self.parents: dict[ObjectId, tuple[ObjectId, ...]] = {}

    async def run(self, tips: Collection[ObjectId], *, has_packs: bool) -> tuple[int, int]:
        """Return the number of objects in the quarantine and their inflated length together.

        Raises:
            BadPack: see ``guts.git.faults``.
            GitFailed: rev-list met something missing or broken, or our own side failed.
        """
        if self._is_whole and (few := await asyncio.to_thread(self._linked, tips)) is not None:
            await self._scan_few(few)
            return len(few), sum(len(content.data) for content in few)
        while True:
            held = self._held_packs()
            once = await self._check_once(tips, has_packs, bool(held))
            if once.unlinked == once.misnamed == 0:
                return once.objects, once.inflated
            # Another fetch may have brought the same objects between our two counts; then count again.
            if self._held_packs() == held:
                if once.unlinked:
                    raise ExtraObjects(f"{once.unlinked} objects that no tip reaches")
                raise UnsafeTree(f"{once.misnamed} trees, commits or tags that are only named as files")

    async def _check_once(self, tips: Collection[ObjectId], has_packs: bool, holds_any: bool) -> _Counts:
        few = await asyncio.to_thread(self._read_few) if has_packs else None
        if few is not None and (tree := await asyncio.to_thread(misnaming, few)) is not None:
            raise UnsafeTree(f"tree {tree} names as a file what is none")
        is_listed = has_packs and few is None
        with tempfile.TemporaryFile(dir=self._path) as ids, tempfile.TemporaryFile(dir=self._path) as others:
            try:
                async with asyncio.TaskGroup() as group:
                    scan = group.create_task(self.scan(few, ids, others, keep_ids=holds_any)) if has_packs else None
                    links = group.create_task(self.links(tips, holds_any=holds_any))
                    walk = group.create_task(self.links(tips, holds_any=holds_any, blobs=False)) if is_listed else None
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
            objects, inflated, no_blobs = scan.result() if scan else (0, 0, 0)
            brought = await self._count_unheld(ids) if holds_any else objects
            misnamed = 0
            if walk is not None:
                misnamed = (await self._count_unheld(others) if holds_any else no_blobs) - walk.result()
            return _Counts(objects, inflated, brought - links.result(), misnamed)

    async def scan(
        self, few: Sequence[Content] | None, ids: IO[bytes], others: IO[bytes], *, keep_ids: bool
    ) -> tuple[int, int, int]:
        """Look at every object; return their number, their inflated length together, and how many are no blobs.

        Args:
            few: all of them, where they were read.
            ids: where the ids go, a line each.
            others: where those go that are not of blobs, unless they were read.
            keep_ids: whether they are wanted.
        """
        if few is not None:
            await self._scan_few(few)
            ids.write(b"".join([b"%s\n" % content.id.encode() for content in few]))
            no_blobs = sum(content.kind != b"blob" for content in few)
            return len(few), sum(len(content.data) for content in few), no_blobs
        objects, inflated, no_blobs, scan = await self._scan_listed(ids, others, keep_ids=keep_ids)
        await self._check_links(scan.links)
        await self._check_modules(scan.modules)
        return objects, inflated, no_blobs

    def _read_few(self) -> list[Content] | None:
        """Return all objects of packs that are small inflated, too; ``None``: they are not, or are over a limit."""
        limits = self._limits
        allowed = min(SMALL_BYTES, limits.object_bytes, self._inflated_allowed)
        found: list[Content] = []
        with disk_faults():
            stems = sorted((self._path / "pack").glob("*.idx"))
        for stem in stems if self._is_small else ():
            few = read_pack(stem.with_suffix(""), allowed, MAX_IDS - len(found))
            if few is None or any(content.kind == b"tree" and len(content.data) > limits.tree_bytes for content in few):
                return None
            found += few
            allowed -= sum(len(content.data) for content in few)
        # What came in two packs is listed once.
        return found if self._is_small and len({content.id for content in found}) == len(found) else None

    def _linked(self, tips: Collection[ObjectId]) -> list[Content] | None:
        """Return all objects where they are few, all new ones are reached, and all that is named is here.

        For a repository that is whole: what it holds is there with all that it reaches. ``None``: git has to say.
        """
        few = self._read_few()
        if few is None or len(tips) > MAX_IDS:
            return None
        ids = [ObjectId(bytes.fromhex(content.id)) for content in few]
        held = kinds_among(self._git_objects, ids)
        links = follow(few, tips, held) if held is not None else None
        if held is None or links is None or len(links.outside) > MAX_OUTSIDE:
            return None
        here = kinds_among(self._git_objects, links.outside)
        if here is None or any(id_ not in here or kind not in (None, here[id_]) for id_, kind in links.outside.items()):
            return None
        return few if all(id_ in held or id_ in links.reached for id_ in ids) else None

    async def _scan_few(self, few: Sequence[Content]) -> None:
        """Look at the trees among ``few``, and keep who is whose parent."""
        scan = TreeScan()
        for content in few:
            if content.kind == b"tree":
                self._look_at(content, scan)
        self.parents = parents(few)
        await self._check_links(scan.links)
        await self._check_modules(scan.modules)

    async def _scan_listed(
        self, ids: IO[bytes], others: IO[bytes], *, keep_ids: bool
    ) -> tuple[int, int, int, TreeScan]:
        """Bound what the objects inflate to, and then look at the trees."""
        objects = inflated = no_blobs = 0
        with tempfile.TemporaryFile(dir=self._path) as trees:
            async with self._git.start(BATCH_ALL, environment=self._own_environment) as child:
                child.close_stdin()
                async for block in lines_in_blocks(child):
                    sizes = [int(size) for size in _SIZES.findall(block)]
                    if len(sizes) != block.count(b"\n"):
                        raise CorruptPack("an object that index-pack took, and that git can't read")
                    objects += len(sizes)
                    no_blobs += len(sizes) - block.count(b"blob ")
                    inflated += sum(sizes)
                    if max(sizes) > self._limits.object_bytes:
                        raise _too_large(block, max(sizes), self._limits.object_bytes)
                    self._check_inflated(inflated)
                    if max(map(int, _TREE_SIZES.findall(block)), default=0) > self._limits.tree_bytes:
                        raise TooLarge(f"a tree of more than {exact_size(self._limits.tree_bytes)}")
                    trees.write(b"".join(_TREES.findall(block)))
                    if keep_ids:
                        ids.write(b"".join(_IDS.findall(block)))
                        others.write(b"".join(_NO_BLOBS.findall(block)))
                await child.finish()
            return objects, inflated, no_blobs, await self._scan_trees(trees)

    def _check_inflated(self, inflated: int) -> None:
        if inflated > self._inflated_allowed:
            raise OverLimit(f"the pack inflates to more than {size_text(self._inflated_allowed)}")

    async def _scan_trees(self, ids: IO[bytes]) -> TreeScan:
        scan = TreeScan()

        def look(tree: Content) -> None:
            self._look_at(tree, scan)

        await self._read(ids, self._limits.tree_bytes, look, PLAIN_ANSWERS)
        return scan

    def _look_at(self, tree: Content, scan: TreeScan) -> None:
        scan.scan(tree.id, tree.data)
        if max(len(scan.links), len(scan.modules)) > self._limits.special_blobs:
            raise OverLimit(f"more than {self._limits.special_blobs} symlinks or .gitmodules")

    async def _check_links(self, ids: Collection[bytes]) -> None:
        def look(link: Content) -> None:
            check_link(link.id, link.data)

        await self._read_special(ids, self._limits.symlink_bytes, look)

    async def _check_modules(self, ids: Collection[bytes]) -> None:
        unjudged = {str(id_) for id_ in self._unjudged}
        texts: list[bytes] = []

        def look(modules: Content) -> None:
            check_modules(modules.id, modules.data)
            if modules.id in unjudged:
                texts.append(modules.data)

        await self._read_special({*ids, *self._unjudged}, self._limits.modules_bytes, look)
        for text in texts:
            await self._fsck_modules(text)

    async def _fsck_modules(self, text: bytes) -> None:
        """Let git judge a ``.gitmodules`` that index-pack couldn't, in a pack with a tree that names it."""
        entry = b"100644 .gitmodules\0" + sha1(b"blob %d\0" % len(text) + text).digest()  # noqa: S324 (git's hash)
        pack = struct.pack(">4sII", b"PACK", 2, 2) + _packed(_BLOB, text) + _packed(_TREE, entry)
        pack += sha1(pack).digest()  # noqa: S324
        with tempfile.TemporaryDirectory(dir=self._path) as scratch:
            environment = {**self._own_environment, "GIT_OBJECT_DIRECTORY": scratch}
            try:
                await self._git.run(
                    ["index-pack", "--stdin", "--fsck-objects"],
                    environment=environment,
                    config=["core.fsync=none"],
                    data=pack,
                )
            except GitFailed as error:
                if error.is_ours:
                    raise
                raise (RefusedObject if error.is_fsck else UnsafeTree)(str(error)) from error

    async def _read_special(self, ids: Collection[bytes], max_bytes: int, look: Callable[[Content], None]) -> None:
        """Show ``look`` the blobs that trees name; the link check finds those that are missing."""
        if not ids:
            return
        with tempfile.TemporaryFile(dir=self._path) as questions:
            questions.write(id_lines([ObjectId(id_) for id_ in ids]))
            try:
                await self._read(questions, max_bytes, look)
            except OversizedObject as error:
                raise UnsafeTree(f"a symlink or .gitmodules: {error}") from None

    async def _read(
        self,
        ids: IO[bytes],
        max_bytes: int,
        look: Callable[[Content], None],
        skipped: re.Pattern[bytes] | None = None,
    ) -> None:
        """Show ``look`` the objects whose ids stand in the file, those that are here, but for answers ``skipped``."""
        ids.seek(0)
        async with self._git.start(BATCH_CONTENTS, environment=self._environment, stdin=ids.fileno()) as child:
            async for batch in contents(child, max_bytes, skipped):
                for content in batch:
                    if content.kind != b"missing":
                        look(content)
            await child.finish()

    async def links(self, tips: Collection[ObjectId], *, holds_any: bool, blobs: bool = True) -> int:
        """Check that the tips are complete; return how many objects they reach that were not held before.

        Args:
            blobs: else they are neither looked for nor counted, nor is anything that is only named as a file.
        """
        if not tips:
            return 0
        arguments = ["rev-list", "--objects", "--no-object-names", "--stdin", "--not", "--all"]
        if not blobs:
            arguments[1:1] = ["--filter=blob:none", "--filter-provided-objects"]
        # A commit graph would vouch for commits without looking at them.
        config = ["core.commitGraph=false"]
        with tempfile.TemporaryFile(dir=self._path) as questions:
            questions.write(id_lines(tips))
            questions.seek(0)
            if not holds_any:
                async with self._git.start(
                    arguments, environment=self._environment, config=config, stdin=questions.fileno()
                ) as walk:
                    count = await _count(walk, b"\n")
                    await walk.finish()
                    return count
            with tempfile.TemporaryFile(dir=self._path) as reached:
                async with self._git.start(
                    arguments,
                    environment=self._environment,
                    config=config,
                    stdin=questions.fileno(),
                    stdout=reached.fileno(),
                ) as walk:
                    await walk.finish()
                return await self._count_unheld(reached)

    async def _count_unheld(self, ids: IO[bytes]) -> int:
        """Return how many of the ids the repository didn't hold before."""
        ids.flush()
        if os.fstat(ids.fileno()).st_size <= MAX_IDS * _ID_LINE_BYTES:
            ids.seek(0)
            few = {ObjectId(bytes.fromhex(line.decode())) for line in ids.read().split()}
            held = await asyncio.to_thread(held_among, self._git_objects, few)
            if held is not None:
                return len(few) - len(held)
        ids.seek(0)
        async with self._git.start(
            ["cat-file", "--buffer", f"--batch-check={_PRESENT}"],
            environment=self._held_environment,
            stdin=ids.fileno(),
        ) as child:
            count = await _count(child, b"m")
            await child.finish()
            return count

    def _held_packs(self) -> set[str]:
        return {name for name in os.listdir(self._git_objects / "pack") if name.endswith(".idx")}


def _too_large(block: bytes, size: int, allowed: int) -> ObjectTooLarge:
    """Return the fault of the object of ``size`` bytes that ``block``, lines of type, size and id, tells of."""
    found = re.search(rb" %d ([0-9a-f]{40})\n" % size, block)
    assert found is not None
    return ObjectTooLarge(ObjectId(bytes.fromhex(found[1].decode())), size, allowed)


async def _count(child: Child, byte: bytes) -> int:
    count = 0
    while chunk := await child.stdout.read(CHUNK_BYTES):
        count += chunk.count(byte)
    return count


def _packed(kind: int, data: bytes) -> bytes:
    """Return an object as it stands in a pack (gitformat-pack)."""
    size = len(data)
    first, size = kind << 4 | size & 15, size >> 4
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    head.append(first)
    return bytes(head) + zlib.compress(data)
