"""Where a peer's objects stay until they have passed every check.

A quarantine is a directory ``incoming-…`` beside the repository's packs (so that moving out of it is a rename),
used as git's object directory with the repository's own objects as an alternate::

    async with repository.quarantine() as quarantine:
        await quarantine.index(chunks)      # any number of times
        await quarantine.check(tips)
        await quarantine.migrate()

However the block is left, nothing of the quarantine remains; without ``migrate`` the repository is unchanged.

Whose fault a failure is decides its type. What the bytes did is a ``BadPack`` (a ``PeerFault``). What the machine
did (a full disk, an I/O error, no memory for a process) is a ``StorageFault``. An exception from ``chunks``, such
as a lost connection, passes through as it is.
"""

import asyncio
import contextlib
import os
import re
import shutil
import struct
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from guts.crash import crash_point
from guts.git import ancestry
from guts.git.command import Git, GitFailed
from guts.git.faults import CorruptPack, MissingObjects, OverLimit, RefusedObject, TooLarge
from guts.git.feeder import Feeder, feeding
from guts.git.files import disk_faults, sync_directory, sync_file
from guts.git.inspection import Inspection
from guts.git.objects import ObjectInfo
from guts.ids import ObjectId
from guts.sizes import exact_size

PREFIX: Final = "incoming-"

_HEADER: Final = struct.Struct(">4sII")
_TRAILER_BYTES: Final = 20
_IDS_OFFSET: Final = 8 + 256 * 4  # in an idx of version 2, after its header and fan-out table
_INDEXED: Final = re.compile(rb"pack\t([0-9a-f]{40})\n((?:[0-9a-f]{40}\n)*)")


@dataclass(frozen=True, slots=True)
class IndexedPack:
    """A pack that git has indexed.

    Attributes:
        name: the pack's checksum, hexadecimal.
        received_bytes: its length as it came.
        objects: how many objects it brought.
        unjudged_modules: ``.gitmodules`` blobs that its trees name and that were not in it.
    """

    name: str
    received_bytes: int
    objects: int
    unjudged_modules: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What ``check`` saw.

    Attributes:
        objects: objects in the quarantine's packs.
        inflated_bytes: their inflated lengths together.
    """

    objects: int
    inflated_bytes: int


class Quarantine:
    """One quarantine. Obtained from ``BareRepository.quarantine``."""

    def __init__(self, git_dir: Path, git: Git, *, is_whole: bool = False) -> None:
        """Args: as ``BareRepository.quarantine``."""
        self._is_whole = is_whole
        self._git_dir = git_dir
        self._git = git
        self._path: Path | None = None
        self._packs: list[IndexedPack] = []
        self._checked = False
        self._parents: dict[ObjectId, tuple[ObjectId, ...]] = {}

    async def __aenter__(self) -> Self:
        """Raises: ``DiskFault``."""
        with disk_faults():
            self._path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._git_dir / "objects"))
            (self._path / "pack").mkdir()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove the quarantine and all in it; may be called again. Raises: ``DiskFault``."""
        if self._path is not None:
            with disk_faults():
                shutil.rmtree(self._path)
            self._path = None

    @property
    def received_bytes(self) -> int:
        """Length of all packs that have come."""
        return sum(pack.received_bytes for pack in self._packs)

    async def index(self, chunks: AsyncIterable[bytes], max_bytes: int | None = None) -> IndexedPack:
        """Let git take in a pack as it comes; no more of it than a chunk is held in memory.

        Args:
            chunks: the pack, in pieces of any length.
            max_bytes: length allowed, where that is less than ``GitLimits.pack_bytes``.

        Raises:
            CorruptPack, TooLarge, RefusedObject: not a pack, damaged, past a limit, refused by git's fsck.
            GitFailed, DiskFault: our own side failed.
        """
        assert self._path is not None, "the quarantine is open"
        limits = self._git.limits
        allowed = limits.pack_bytes if max_bytes is None else min(max_bytes, limits.pack_bytes)
        source = _Bounded(chunks, allowed)
        head = await source.head(_HEADER.size)
        count = _check_header(head, limits.pack_objects)
        arguments = ["index-pack", "--stdin", "--fix-thin", "--fsck-objects", f"--max-input-size={allowed}"]
        with _blamed_on_pack():
            async with (
                feeding() as feeder,
                self._git.start(
                    arguments,
                    environment=self.environment,
                    # Checks run while the system writes the pack back; migrate() syncs what has passed them.
                    config=["core.fsync=none"],
                    stdin=feeder.stdin,
                ) as child,
            ):
                feeder.started()
                fed = await _feed(feeder, head, source)
                output = await child.stdout.read()
                await child.finish()
        match = _INDEXED.fullmatch(output)
        if match is None or not fed:
            raise CorruptPack("bytes follow the pack")
        name = match[1].decode()
        await asyncio.to_thread(_check_index, self._path / "pack" / f"pack-{name}", count, source.received)
        unjudged = tuple(ObjectId(bytes.fromhex(line.decode())) for line in match[2].split())
        pack = IndexedPack(name, source.received, count, unjudged)
        self._packs.append(pack)
        self._checked = False
        self._parents = {}
        crash_point("quarantine-indexed")
        return pack

    async def check(self, tips: Collection[ObjectId]) -> Checked:
        """Check everything that was indexed, and that ``tips`` are complete here.

        Works without any pack too: then only the links are checked.

        Raises:
            TooLarge, UnsafeTree, MissingObjects, ExtraObjects, CorruptPack: see ``guts.git.faults``.
            GitFailed, DiskFault: our own side failed.
        """
        inspection = self.inspection()
        # Its lists are files beside the packs, which fill a disk as packs do.
        with disk_faults(), _blamed_on_pack(MissingObjects):
            objects, inflated = await inspection.run(tips, has_packs=any(pack.objects for pack in self._packs))
        self._checked = True
        self._parents = inspection.parents
        crash_point("quarantine-checked")
        return Checked(objects, inflated)

    def inspection(self) -> Inspection:
        """Return the checks over what is here now; ``check`` runs them."""
        assert self._path is not None, "the quarantine is open"
        return Inspection(
            self._git,
            self._path,
            self.environment,
            {"GIT_DIR": str(self._git_dir)},
            received_bytes=self.received_bytes,
            unjudged_modules={id_ for pack in self._packs for id_ in pack.unjudged_modules},
            is_whole=self._is_whole,
        )

    async def are_ancestors(self, pairs: Sequence[tuple[ObjectId, ObjectId]]) -> list[bool]:
        """Return for each pair (old, new) whether ``new`` contains ``old``. Raises: as ``ancestry.are_ancestors``."""
        return await ancestry.are_ancestors(self._git, self.environment, pairs, self._parents)

    @property
    def parents(self) -> Mapping[ObjectId, tuple[ObjectId, ...]]:
        """Parents of commits that came and have been checked; of none where more came than a small pack."""
        return self._parents

    async def peel(self, ids: Collection[ObjectId]) -> dict[ObjectId, tuple[bool, ObjectInfo]]:
        """Return for each id whether it is an annotated tag, and what it points at. Raises: as ``ancestry.peel``."""
        return await ancestry.peel(self._git, self.environment, ids)

    @property
    def is_open(self) -> bool:
        """Whether what was taken in is still here."""
        return self._path is not None

    async def migrate(self) -> list[str]:
        """Move the checked packs into the repository; durable on return. Returns their names.

        Raises:
            DiskFault: the disk refused; packs without an index are no part of the repository.
        """
        assert self._checked, "check() passed"
        names = [pack.name for pack in self._packs if pack.objects]
        await asyncio.to_thread(self._move, names)
        crash_point("packs-migrated")
        self.discard()
        return names

    def _move(self, names: list[str]) -> None:
        assert self._path is not None, "the quarantine is open"
        source, target = self._path / "pack", self._git_dir / "objects" / "pack"
        with disk_faults():
            for name in names:
                # The index last: what has no index is invisible to git, and so is an index that has no pack, which a
                # crash of the machine may leave.
                files = [f"pack-{name}{suffix}" for suffix in (".pack", ".rev", ".idx")]
                present = [file for file in files if (source / file).exists()]
                for file in present:
                    sync_file(source / file)
                for file in present:
                    os.replace(source / file, target / file)
                    crash_point("index-renamed" if file.endswith(".idx") else "pack-renamed")
            sync_directory(target)

    @property
    def environment(self) -> dict[str, str]:
        """What tells git to work here: with what was taken in, and all that the repository has."""
        own = str(self._git_dir / "objects").replace("\\", "\\\\").replace('"', '\\"')
        return {
            "GIT_DIR": str(self._git_dir),
            "GIT_OBJECT_DIRECTORY": str(self._path),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{own}"',
        }


class _Bounded:
    """A stream of chunks that counts, and stops at a limit."""

    def __init__(self, chunks: AsyncIterable[bytes], limit: int) -> None:
        self._chunks = aiter(chunks)
        self._limit = limit
        self.received = 0

    async def head(self, length: int) -> bytes:
        """Return the chunks up to and with the one that completes the first ``length`` bytes."""
        head = b""
        async for chunk in self.rest():
            head += chunk
            if len(head) >= length:
                return head
        raise CorruptPack("cut short before the end of the header")

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield the chunks that follow. Raises: ``OverLimit``."""
        async for chunk in self._chunks:
            self.received += len(chunk)
            if self.received > self._limit:
                raise OverLimit(f"a pack of more than {exact_size(self._limit)}")
            yield chunk


def _check_header(head: bytes, max_objects: int) -> int:
    magic, version, count = _HEADER.unpack_from(head)
    if magic != b"PACK" or version != 2:
        raise CorruptPack("not a pack of version 2")
    if count > max_objects:
        raise OverLimit(f"a pack of {count} objects where {max_objects} are allowed")
    return int(count)


async def _feed(feeder: Feeder, head: bytes, source: _Bounded) -> bool:
    """Hand all bytes to the child; ``False``: it stopped listening before the end."""
    listening = await feeder.feed(head)
    async for chunk in source.rest():
        if not listening:
            return False
        listening = await feeder.feed(chunk)
    feeder.close()
    return listening


@contextlib.contextmanager
def _blamed_on_pack(fault: type[CorruptPack] | type[MissingObjects] = CorruptPack) -> Iterator[None]:
    """Turn a git child's failure over the data into the peer's fault; leave our own as they are."""
    try:
        yield
    except GitFailed as error:
        if error.is_limit:
            raise TooLarge(str(error)) from error
        if error.is_ours:
            raise
        if error.is_fsck:
            raise RefusedObject(str(error)) from error
        raise fault(str(error)) from error


def _check_index(stem: Path, count: int, received: int) -> None:
    """Check what index-pack doesn't.

    It ignores what follows a pack, and takes a pack that has one object twice. Where it appended bases to a thin
    pack, the first of them took the place of the pack's trailer.

    Args:
        stem: path of the pack without its suffix.
        count: objects that the pack's header promised.
        received: bytes that came.

    Raises:
        CorruptPack: the bytes are not one pack of ``count`` different objects and nothing more.
    """
    with disk_faults():
        idx = stem.with_suffix(".idx").read_bytes()
        pack_bytes = stem.with_suffix(".pack").stat().st_size
    (indexed,) = struct.unpack_from(">I", idx, _IDS_OFFSET - 4)
    ids = memoryview(idx)[_IDS_OFFSET : _IDS_OFFSET + indexed * 20]
    if any(one == other for one, other in pairwise(struct.iter_unpack("20s", ids))):
        raise CorruptPack("the pack has one object twice")
    whole = pack_bytes == received
    if indexed != count:
        offsets = struct.unpack_from(f">{indexed}I", idx, _IDS_OFFSET + indexed * (20 + 4))
        end = received - _TRAILER_BYTES
        whole = end in offsets and sum(offset < end for offset in offsets) == count
    if not whole:
        raise CorruptPack("bytes follow the pack")
