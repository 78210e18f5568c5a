"""One bare repository of a node: what it has, what it can give, and its recovery after a crash."""

import asyncio
import contextlib
import itertools
import os
import shutil
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from guts.crash import crash_point
from guts.errors import StorageFault
from guts.git import ancestry, packed_refs
from guts.git.ancestry import NotHeld
from guts.git.command import Child, Git
from guts.git.files import DiskFault, disk_faults, sync_directory, sync_file, write_files
from guts.git.folder import NAME as FOLDER_NAME
from guts.git.folder import RecordsFolder
from guts.git.objects import BATCH_CHECK, CHUNK_BYTES, ObjectInfo, id_lines, lines_in_blocks, parse_infos
from guts.git.pack_index import held_among
from guts.git.packed_refs import PackedRef
from guts.git.quarantine import PREFIX, Quarantine
from guts.ids import ObjectId

# No user, no hooks, no ages of git's own maintenance: the node is the one writer. The fsync lines are for
# git's own writers (receive-pack); quarantines sync what they move themselves.
_CONFIG: Final = b"""[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
\tfsync = all
\tfsyncMethod = fsync
\tlogAllRefUpdates = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[receive]
\tunpackLimit = 1
\tfsckObjects = true
\tautogc = false
[uploadpack]
\tallowFilter = true
\tallowAnySHA1InWant = false
\tallowRefInWant = false
[transfer]
\tfsckObjects = true
"""

# git's own quarantine of a push is objects/tmp_objdir-*.
_LEFTOVERS: Final = ("tmp_*", "*.lock", "objects/tmp_*", "objects/pack/tmp_*", "guts/tmp_*", "guts/*/tmp_*")


class NotARepository(StorageFault):
    """There is no bare repository at the path."""

    code: ClassVar[str] = "NOT_A_REPOSITORY"


_IDS_OFFSET: Final = 8 + 256 * 4  # in an idx of version 2, after its header and fan-out table
_LISTED_IDS: Final = 10_000  # objects listed at a time: 4 MiB


class BareRepository:
    """A bare repository with one writer: the node. Obtained from ``create`` or ``open``."""

    def __init__(self, path: Path, git: Git) -> None:
        self.path = path.absolute()
        self.git = git
        self.records = RecordsFolder(self.path / FOLDER_NAME)

    @classmethod
    async def create(cls, path: Path, git: Git | None = None) -> Self:
        """Make an empty repository at ``path``, or complete one whose making was interrupted; durable on return.

        Raises:
            DiskFault, GitFailed: it can't be made.
        """
        repository = cls(path, git or Git())
        await asyncio.to_thread(packed_refs.drop_damaged_head, repository.path)
        await repository.git.run(
            ["init", "--quiet", "--bare", "--template=", "--object-format=sha1", str(repository.path)],
            config=["init.defaultBranch=main"],
        )
        crash_point("repository-initialised")
        await asyncio.to_thread(repository.records.create)
        await asyncio.to_thread(write_files, repository.path, {"config": _CONFIG})
        await asyncio.to_thread(_sync_names, repository.path)
        return repository

    @classmethod
    async def open(cls, path: Path, git: Git | None = None) -> Self:
        """Return the repository at ``path``.

        Raises:
            NotARepository: there is none.
        """
        if not await asyncio.to_thread(_is_repository, path):
            raise NotARepository(f"there is no repository at {path}")
        return cls(path, git or Git())

    @property
    def environment(self) -> dict[str, str]:
        """What tells git to work here."""
        return {"GIT_DIR": str(self.path)}

    def quarantine(self, *, is_whole: bool = False) -> Quarantine:
        """Return a new quarantine, to be entered with ``async with``.

        Args:
            is_whole: whether every object that this repository holds is there with all that it reaches: only what
                passed ``Quarantine.check`` was ever put into it, and nothing is known to be lost. What is here need not
                be followed then.
        """
        return Quarantine(self.path, self.git, is_whole=is_whole)

    async def has(self, ids: Collection[ObjectId]) -> set[ObjectId]:
        """Return those of ``ids`` that are held. Raises: ``GitFailed``, ``DiskFault``: that can't be said."""
        if (known := await asyncio.to_thread(held_among, self.path / "objects", ids)) is not None:
            return known
        asked = iter(ids)
        held: set[ObjectId] = set()
        while chunk := list(itertools.islice(asked, self.git.limits.batch_ids)):
            held.update(info.id for info in await self.inspect(chunk))
        return held

    async def inspect(self, ids: Collection[ObjectId]) -> list[ObjectInfo]:
        """Return kind and size of those of ``ids`` that are held.

        Raises:
            ValueError: more than ``GitLimits.batch_ids``.
            GitFailed: git can't say.
        """
        if len(ids) > self.git.limits.batch_ids:
            raise ValueError(f"{len(ids)} ids where {self.git.limits.batch_ids} are allowed")
        if not ids:
            return []
        found: list[ObjectInfo] = []
        # All questions (at most 8 MB) wait in the transport while answers are read: no deadlock.
        async with self.git.start(BATCH_CHECK, environment=self.environment) as child:
            child.write(id_lines(ids))
            child.close_stdin()
            async for block in lines_in_blocks(child):
                found.extend(parse_infos(block))
            await child.finish()
        return found

    async def packs(self) -> list[str]:
        """Return the names of the packs. Raises: ``DiskFault``."""
        return await asyncio.to_thread(_pack_names, self.path)

    async def objects(self, packs: Collection[str] | None = None) -> AsyncGenerator[ObjectInfo, None]:
        """Yield every object of ``packs`` (names), or of all packs.

        Raises:
            DiskFault: a pack's index can't be read.
            GitFailed: git can't read on.
        """
        for pack in await self.packs() if packs is None else packs:
            index = self.path / "objects" / "pack" / f"pack-{pack}.idx"
            start = 0
            while ids := await asyncio.to_thread(_pack_ids, index, start, _LISTED_IDS):
                start += len(ids)
                for info in await self.inspect(ids):
                    yield info

    @contextlib.asynccontextmanager
    async def pack(
        self, wants: Collection[ObjectId], haves: Collection[ObjectId] = ()
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with an iterator over the bytes of a pack: what ``wants`` reach and ``haves`` don't.

        It reads from git only as it is consumed. Bases of deltas may be left out where ``haves`` imply them.

        Args:
            wants: objects to give with all that they reach.
            haves: what the other side holds completely; those that are unknown here are passed over.

        Raises:
            NotHeld: wants that are not here; before any byte.
            GitFailed: git failed midway (from the iterator).
        """
        held = await self.has({*wants, *haves})
        if missing := set(wants) - held:
            raise NotHeld(missing)
        known = [have for have in haves if have in held]
        async with start_pack(self.git, wants, known, self.environment) as chunks:
            yield chunks

    async def sift(
        self, source: Quarantine, target: Quarantine, tips: Collection[ObjectId], held: Collection[ObjectId]
    ) -> int:
        """Put what ``tips`` reach of the checked ``source`` into ``target``, and check it; return how many objects.

        Args:
            held: objects of this repository; what they reach is left out.

        Raises:
            GitFailed, DiskFault: our own side failed.
        """
        async with start_pack(self.git, tips, held, source.environment) as chunks:
            pack = await target.index(chunks)
        await target.check(tips)
        return pack.objects

    async def is_ancestor(self, old: ObjectId, new: ObjectId) -> bool:
        """Return whether ``old`` is ``new`` or one of its ancestors; tags count as the commits they point at."""
        return (await self.are_ancestors([(old, new)]))[0]

    async def are_ancestors(
        self,
        pairs: Sequence[tuple[ObjectId, ObjectId]],
        parents: Mapping[ObjectId, tuple[ObjectId, ...]] = ancestry.NO_PARENTS,
    ) -> list[bool]:
        """Return for each pair (old, new) what ``is_ancestor`` says. Args, Raises: as ``ancestry.are_ancestors``."""
        return await ancestry.are_ancestors(self.git, self.environment, pairs, parents)

    async def project(
        self, refs: Mapping[str, ObjectId], head: str, commits: Collection[ObjectId] | None = None
    ) -> None:
        """Make ``refs`` the refs of the repository, and ``head`` the name that HEAD points at; see ``sync_refs``.

        Args:
            commits: what is known to be a commit, and here; with it, what refs point at already is not looked at
                again. ``None``: nothing is taken for granted.

        Raises:
            NotHeld: a ref's object is not here; nothing changed.
            DiskFault: the disk refused; the old refs stand.
        """
        known: dict[ObjectId, PackedRef] = {}
        if commits is not None:
            known = await asyncio.to_thread(_write_refs, self.path, refs, head, commits)
            if known.keys() >= set(refs.values()):
                return
        peeled = await ancestry.peel(self.git, self.environment, set(refs.values()) - known.keys())
        known |= {target: PackedRef(target, info.id if is_tag else None) for target, (is_tag, info) in peeled.items()}
        packed = {name: known[target] for name, target in refs.items()}
        await asyncio.to_thread(packed_refs.write, self.path, packed, head)

    async def sync_refs(self) -> None:
        """Make durable what was projected: a crash of the machine takes it back no more. Raises: ``DiskFault``."""
        await asyncio.to_thread(packed_refs.sync, self.path)

    async def refs(self) -> tuple[dict[str, ObjectId], str]:
        """Return the projected refs and the name that HEAD points at.

        Raises:
            DamagedRefs, DiskFault: they can't be read.
        """
        packed, head = await asyncio.to_thread(packed_refs.read, self.path)
        return {name: ref.target for name, ref in packed.items()}, head

    async def fsck(self) -> None:
        """Let git check every object and link.

        Raises:
            GitFailed: something is damaged or missing; the error says what.
        """
        await self.git.run(["fsck", "--full", "--no-dangling", "--no-progress"], environment=self.environment)

    def size(self) -> int:
        """Return the bytes that the repository takes on the disk; waits for that. Raises: ``DiskFault``."""
        return _size(self.path)

    async def delete(self) -> None:
        """Remove the repository from the disk. Raises: ``DiskFault``."""
        await asyncio.to_thread(_delete, self.path)


@contextlib.asynccontextmanager
async def start_pack(
    git: Git,
    wants: Iterable[ObjectId],
    haves: Iterable[ObjectId],
    environment: Mapping[str, str],
    cwd: Path | None = None,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Enter with the bytes of the pack that leads from ``haves`` to ``wants``; all of them are held.

    Raises:
        GitFailed: git failed midway (from the iterator).
    """
    arguments = ["pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "-q"]
    revisions = id_lines(list(wants)) + b"--not\n" + id_lines(list(haves))
    async with git.start(arguments, environment=environment, cwd=cwd) as child:
        child.write(revisions)
        child.close_stdin()
        chunks = _chunks(child)
        async with contextlib.aclosing(chunks):
            yield chunks


async def _chunks(child: Child) -> AsyncGenerator[bytes, None]:
    while chunk := await child.stdout.read(CHUNK_BYTES):
        yield chunk
    await child.finish()


def _write_refs(
    path: Path, refs: Mapping[str, ObjectId], head: str, commits: Collection[ObjectId]
) -> dict[ObjectId, PackedRef]:
    """Return what is known of objects; write ``refs``, as ``project`` does, if all of theirs are among these."""
    known: dict[ObjectId, PackedRef] = {}
    with contextlib.suppress(packed_refs.DamagedRefs, DiskFault):  # they are about to be replaced
        known = {ref.target: ref for ref in packed_refs.read(path)[0].values()}
    known |= {target: PackedRef(target) for target in commits}
    if known.keys() >= set(refs.values()):
        packed_refs.write(path, {name: known[target] for name, target in refs.items()}, head)
    return known


def _pack_ids(index: Path, start: int, count: int) -> list[ObjectId]:
    """Return ids ``start`` to ``start + count``, as far as there are, of a pack's index (gitformat-pack, version 2)."""
    with disk_faults(), index.open("rb") as file:
        file.seek(_IDS_OFFSET - 4)
        (objects,) = struct.unpack(">I", file.read(4))
        file.seek(_IDS_OFFSET + start * ObjectId.LENGTH)
        data = file.read(ObjectId.LENGTH * max(min(count, objects - start), 0))
    return [ObjectId(data[at : at + ObjectId.LENGTH]) for at in range(0, len(data), ObjectId.LENGTH)]


def _pack_names(path: Path) -> list[str]:
    with disk_faults():
        indexes = (path / "objects" / "pack").glob("pack-*.idx")
        return sorted(index.stem.removeprefix("pack-") for index in indexes if index.with_suffix(".pack").exists())


def _sync_names(path: Path) -> None:
    """Make durable what ``git init`` made without a sync: HEAD, the folder of packs, and the repository itself."""
    with disk_faults():
        sync_file(path / "HEAD")
        sync_directory(path / "objects")
        sync_directory(path.parent)


def _is_repository(path: Path) -> bool:
    return all((path / name).exists() for name in ("HEAD", "config", "objects", "refs", FOLDER_NAME))


def clean_up(path: Path) -> list[str]:
    """Remove what a crash left in a repository (quarantines, temporary files, locks); return their names.

    To be called before anything else uses the repository; it waits for the disk.

    Raises:
        NotARepository: there is none at ``path``.
        DiskFault: something can't be removed.
    """
    if not _is_repository(path):
        raise NotARepository(f"there is no repository at {path}")
    removed = []
    with disk_faults():
        for pattern in (f"objects/{PREFIX}*", *_LEFTOVERS):
            for leftover in sorted(path.glob(pattern)):
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()
                removed.append(str(leftover.relative_to(path)))
        # A pack whose index did not get its name yet was never part of the repository. An index without a pack stays:
        # nobody takes it for one, and whoever put its pack elsewhere may put it back.
        for pack in sorted((path / "objects" / "pack").glob("pack-*")):
            if not pack.with_suffix(".idx").exists():
                pack.unlink()
                removed.append(str(pack.relative_to(path)))
    return removed


def _size(path: Path) -> int:
    total = 0
    with disk_faults():
        for directory, _, files in os.walk(path):
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(directory, file)).st_size
    return total


def _delete(path: Path) -> None:
    with disk_faults():
        shutil.rmtree(path)
