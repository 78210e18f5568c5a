"""Which objects the packs of a repository have, and of which kind, by their indexes and without a child.

For a few ids: a git child costs some milliseconds before its first answer. An index of version 2 (gitformat-pack) has
the sorted ids behind a table of how many begin with at most which byte. As git does when it opens a pack, an index
counts only with a pack beside it that ends in the checksum that the index names.
"""

import contextlib
import functools
import os
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Final

from guts.git.files import disk_faults
from guts.ids import ObjectId

MAX_IDS: Final = 1_000
"""Ids in one question; for more, one git child is cheaper."""

MAX_PACKS: Final = 100
"""Packs that are looked at for one question, some 50 µs for each that has to be opened; for more, one git child is
cheaper."""

SMALL_INDEX_BYTES: Final = 4_096
"""An index up to here, of about a hundred objects, stays in memory: pushes are small, and each asks all packs."""

KEPT_INDEXES: Final = 2_000
"""Small indexes in memory, 8 MB at the most: those of the packs of many repositories."""

_MAGIC: Final = b"\xfftOc\x00\x00\x00\x02"
_NUMBER: Final = struct.Struct(">I")
_IDS_OFFSET: Final = len(_MAGIC) + 256 * _NUMBER.size
_CHECKSUM_BYTES: Final = 20
_CRC_BYTES: Final = 4
_LONG: Final = struct.Struct(">Q")
_IS_LONG: Final = 1 << 31

KINDS: Final = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
"""Of an entry of a pack, by the number in its head; there are deltas besides."""

OFS_DELTA: Final = 6
REF_DELTA: Final = 7

MAX_CHAIN: Final = 4_096
"""Deltas on one another that are followed; git makes at most 4,095."""

_Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset on, or what there is of them."""

_SIZE_BYTES: Final = 10
"""Of an entry, that say its kind and its size; index-pack takes more of them, git can't read the object then."""

_ENTRY_BYTES: Final = 64
"""Of an entry, to begin with: its size and what says where its base is take 10 and 20 bytes at the most."""


def held_among(objects: Path, ids: Collection[ObjectId]) -> set[ObjectId] | None:
    """Return those of ``ids`` that the packs in the folder ``objects`` have; ``None``: it takes git to say.

    Raises: ``DiskFault``.
    """
    with disk_faults():
        found = _found(objects, ids)
        return None if found is None else set(found)


def kinds_among(objects: Path, ids: Collection[ObjectId]) -> dict[ObjectId, bytes] | None:
    """Return the kind (``b"commit"``, …) of those of ``ids`` that the packs have; ``None``: it takes git to say.

    Raises: ``DiskFault``.
    """
    with disk_faults():
        if (found := _found(objects, ids)) is None:
            return None
        kinds: dict[ObjectId, bytes] = {}
        for id_, stem in found.items():
            with _opened(stem) as index, open(f"{stem}.pack", "rb") as pack:
                kind = _kind(index, pack.fileno(), id_) if index is not None else None
            if kind is None:
                return None
            kinds[id_] = kind
        return kinds


def _found(objects: Path, ids: Collection[ObjectId]) -> dict[ObjectId, str] | None:
    """Return a pack (a path without a suffix) for each of ``ids`` that is in one; ``None``: it takes git to say."""
    if len(ids) > MAX_IDS or (packs := _packs(objects)) is None:
        return None
    found: dict[ObjectId, str] = {}
    missing = set(ids)
    for stem in packs:
        if not missing:
            break
        with _opened(stem) as index:
            here = {id_ for id_ in missing if index is not None and index.place(id_) is not None}
        found.update(dict.fromkeys(here, stem))
        missing -= here
    return found


def _packs(objects: Path) -> list[str] | None:
    """Return the packs, without a suffix; ``None``: there are too many, or not only packs."""
    # A node writes no loose objects and borrows from no other folder; where somebody else did, git knows.
    if any(len(name) == 2 for name in os.listdir(objects)) or (objects / "info" / "alternates").exists():
        return None
    folder = f"{objects}/pack"
    names = set(os.listdir(folder))
    stems = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
    packs = [f"{folder}/{stem}" for stem in stems if f"{stem}.pack" in names]
    return packs if len(packs) <= MAX_PACKS else None


@contextlib.contextmanager
def _opened(stem: str) -> "Iterator[_Index | None]":
    """Enter with the index of the pack ``stem``; with ``None`` where git would not take the two for a pack."""
    try:
        small = _small_index(stem, os.stat(f"{stem}.pack").st_size)
    except _NotWhole:
        yield None
        return
    if small is not None:
        yield _Index(small)
        return
    # Read, not mapped: a bad sector is an error then, and not the end of the process.
    with open(f"{stem}.idx", "rb") as file:
        yield _Index(functools.partial(_read_at, file.fileno())) if _is_whole(stem, file) else None


class _NotWhole(Exception):
    """Git would not take it for a pack."""


@functools.lru_cache(KEPT_INDEXES)
def _small_index(stem: str, pack_bytes: int) -> _Read | None:
    """Return a way to read a whole index that is in memory from now on; ``None``: it is large. Raises: ``_NotWhole``.

    A pack has the name of its content, so that what was read of one once stays true as long as the pack is as long.
    """
    with open(f"{stem}.idx", "rb") as file:
        if not _is_whole(stem, file):
            raise _NotWhole
        if os.fstat(file.fileno()).st_size > SMALL_INDEX_BYTES:
            return None
        file.seek(0)
        data = file.read()
    return lambda length, offset: data[offset : offset + length]


def _is_whole(stem: str, file: IO[bytes]) -> bool:
    """Tell whether the open index is one, with its pack beside it."""
    index, size = file.fileno(), os.fstat(file.fileno()).st_size
    head = os.pread(index, _IDS_OFFSET, 0)
    if len(head) < _IDS_OFFSET or head[: len(_MAGIC)] != _MAGIC:
        return False
    (count,) = _NUMBER.unpack_from(head, _IDS_OFFSET - _NUMBER.size)
    if size < _IDS_OFFSET + count * ObjectId.LENGTH + 2 * _CHECKSUM_BYTES:
        return False
    with open(f"{stem}.pack", "rb") as pack:
        length = os.fstat(pack.fileno()).st_size
        named = os.pread(index, _CHECKSUM_BYTES, size - 2 * _CHECKSUM_BYTES)
        return length >= _CHECKSUM_BYTES and os.pread(pack.fileno(), _CHECKSUM_BYTES, length - _CHECKSUM_BYTES) == named


def _read_at(file: int, length: int, offset: int) -> bytes:
    return os.pread(file, length, offset)


class _Index:
    """The index of a pack: the sorted ids of its objects, and where those are.

    Args:
        read: returns so many bytes of it from an offset on.
    """

    def __init__(self, read: _Read) -> None:
        self._read = read

    def _number(self, offset: int) -> int:
        (number,) = _NUMBER.unpack(self._read(_NUMBER.size, offset))
        return int(number)

    def _up_to(self, byte: int) -> int:
        """Return how many ids begin with at most ``byte``."""
        return self._number(len(_MAGIC) + byte * _NUMBER.size)

    def place(self, id_: bytes) -> int | None:
        """Return the number of ``id_`` among the sorted ids; ``None``: it is not one of them."""
        low, high = self._up_to(id_[0] - 1) if id_[0] else 0, self._up_to(id_[0])
        while low < high:
            middle = (low + high) // 2
            found = self._read(ObjectId.LENGTH, _IDS_OFFSET + middle * ObjectId.LENGTH)
            if found == id_:
                return middle
            if found < id_:
                low = middle + 1
            else:
                high = middle
        return None

    def offset(self, place: int) -> int:
        """Return where in the pack the object of this number begins."""
        count = self._up_to(255)
        short = _IDS_OFFSET + count * (ObjectId.LENGTH + _CRC_BYTES)
        offset = self._number(short + place * _NUMBER.size)
        if offset & _IS_LONG:
            long = short + count * _NUMBER.size + (offset & ~_IS_LONG) * _LONG.size
            (offset,) = _LONG.unpack(self._read(_LONG.size, long))
        return offset


def _kind(index: _Index, pack: int, id_: ObjectId) -> bytes | None:
    """Return the kind of an object, that of its base where it is a delta; ``None``: that is not found."""
    if (place := index.place(id_)) is None:
        return None
    offset = index.offset(place)
    for _ in range(MAX_CHAIN):
        head = os.pread(pack, _ENTRY_BYTES, offset)
        if not head or (kind := head[0] >> 4 & 7) in KINDS:
            return KINDS[kind] if head else None
        at = 1
        while at < len(head) and head[at - 1] & 0x80:
            at += 1
        if at > _SIZE_BYTES or len(head) < at + ObjectId.LENGTH:
            return None
        if kind == REF_DELTA and (base := index.place(head[at : at + ObjectId.LENGTH])) is not None:
            offset = index.offset(base)
        elif kind == OFS_DELTA:
            offset -= offset_back(head, at)[0]
        else:
            return None
    return None


def offset_back(data: bytes, at: int) -> tuple[int, int]:
    """Return how far before a delta its base is, and where in ``data`` what says it ends. Raises: ``IndexError``."""
    byte = data[at]
    back = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = data[at]
        back = (back + 1) << 7 | byte & 0x7F
    return back, at + 1
