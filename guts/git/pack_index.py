"""Which objects the packs of a repository have, and of which kind, by their indexes and without a child.

For a few ids: a git child costs some milliseconds before its first answer. An index of version 2 (gitformat-pack) has
the sorted ids behind a table of how many begin with at most which byte. As git does when it opens a pack, an index
counts only with a pack beside it that ends in the checksum that the index names.
"""

import contextlib
import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from guts.git.files import disk_faults
from guts.ids import ObjectId

MAX_IDS: Final = 1_000
"""Ids in one question; for more, one git child is cheaper."""

MAX_PACKS: Final = 100
"""Packs that are opened for one question, some 50 µs each; for more, one git child is cheaper."""

_MAGIC: Final = b"\xfftOc\x00\x00\x00\x02"
_TABLE: Final = struct.Struct(">256I")
_IDS_OFFSET: Final = len(_MAGIC) + _TABLE.size
_CHECKSUM_BYTES: Final = 20
_CRC_BYTES: Final = 4
_SHORT: Final = struct.Struct(">I")
_LONG: Final = struct.Struct(">Q")
_IS_LONG: Final = 1 << 31

KINDS: Final = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
"""Of an entry of a pack, by the number in its head; there are deltas besides."""

OFS_DELTA: Final = 6
REF_DELTA: Final = 7

MAX_CHAIN: Final = 4_096
"""Deltas on one another that are followed; git makes at most 4,095."""

_ENTRY_BYTES: Final = 64
"""Of an entry, to begin with: its size and what says where its base is take 10 and 20 bytes at the most."""


def held_among(objects: Path, ids: Collection[ObjectId]) -> set[ObjectId] | None:
    """Return those of ``ids`` that the packs in the folder ``objects`` have; ``None``: it takes git to say.

    Raises: ``DiskFault``.
    """
    if len(ids) > MAX_IDS:
        return None
    with disk_faults():
        if (packs := _packs(objects)) is None:
            return None
        held: set[ObjectId] = set()
        for pack in packs:
            with _opened(pack) as opened:
                if opened is not None:
                    held.update(id_ for id_ in set(ids) - held if opened.place(id_) is not None)
        return held


def kinds_among(objects: Path, ids: Collection[ObjectId]) -> dict[ObjectId, bytes] | None:
    """Return the kind (``b"commit"``, …) of those of ``ids`` that the packs have; ``None``: it takes git to say.

    Raises: ``DiskFault``.
    """
    if len(ids) > MAX_IDS:
        return None
    with disk_faults():
        if (packs := _packs(objects)) is None:
            return None
        kinds: dict[ObjectId, bytes] = {}
        for pack in packs:
            with _opened(pack) as opened:
                for id_ in set(ids) - kinds.keys() if opened is not None else ():
                    if opened is not None and (place := opened.place(id_)) is not None:
                        kind = opened.kind(place)
                        if kind is None:
                            return None
                        kinds[id_] = kind
        return kinds


def _packs(objects: Path) -> list[Path] | None:
    """Return the packs, without a suffix; ``None``: there are too many, or not only packs."""
    # A node writes no loose objects and borrows from no other folder; where somebody else did, git knows.
    if any(len(name) == 2 for name in os.listdir(objects)) or (objects / "info" / "alternates").exists():
        return None
    names = set(os.listdir(objects / "pack"))
    stems = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
    packs = [objects / "pack" / stem for stem in stems if f"{stem}.pack" in names]
    return packs if len(packs) <= MAX_PACKS else None


@contextlib.contextmanager
def _opened(stem: Path) -> "Iterator[_Pack | None]":
    """Enter with the pack ``stem``; with ``None`` where git would not take it for one."""
    with open(f"{stem}.idx", "rb") as file, open(f"{stem}.pack", "rb") as pack:
        index, size = file.fileno(), os.fstat(file.fileno()).st_size
        # Read, not mapped: a bad sector is an error then, and not the end of the process.
        head = os.pread(index, _IDS_OFFSET, 0)
        if (
            len(head) < _IDS_OFFSET
            or head[: len(_MAGIC)] != _MAGIC
            or os.fstat(pack.fileno()).st_size < _CHECKSUM_BYTES
        ):
            yield None
            return
        table = _TABLE.unpack_from(head, len(_MAGIC))
        named = os.pread(index, _CHECKSUM_BYTES, size - 2 * _CHECKSUM_BYTES)
        pack.seek(-_CHECKSUM_BYTES, os.SEEK_END)
        whole = size >= _IDS_OFFSET + table[-1] * ObjectId.LENGTH + 2 * _CHECKSUM_BYTES and pack.read() == named
        yield _Pack(index, pack.fileno(), table) if whole else None


class _Pack:
    """A pack and its index, open."""

    def __init__(self, index: int, pack: int, table: tuple[int, ...]) -> None:
        self._index = index
        self._pack = pack
        self._table = table

    def place(self, id_: bytes) -> int | None:
        """Return the number of ``id_`` among the sorted ids; ``None``: it is not one of them."""
        low, high = self._table[id_[0] - 1] if id_[0] else 0, self._table[id_[0]]
        while low < high:
            middle = (low + high) // 2
            found = os.pread(self._index, ObjectId.LENGTH, _IDS_OFFSET + middle * ObjectId.LENGTH)
            if found == id_:
                return middle
            if found < id_:
                low = middle + 1
            else:
                high = middle
        return None

    def kind(self, place: int) -> bytes | None:
        """Return the kind of an object, that of its base where it is a delta; ``None``: that is not found."""
        offset = self._offset(place)
        for _ in range(MAX_CHAIN):
            head = os.pread(self._pack, _ENTRY_BYTES, offset)
            if not head or (kind := head[0] >> 4 & 7) in KINDS:
                return KINDS[kind] if head else None
            at = 1
            while at < len(head) and head[at - 1] & 0x80:
                at += 1
            if kind == REF_DELTA and (base := self.place(head[at : at + ObjectId.LENGTH])) is not None:
                offset = self._offset(base)
            elif kind == OFS_DELTA:
                offset -= offset_back(head, at)[0]
            else:
                return None
        return None

    def _offset(self, place: int) -> int:
        count = self._table[-1]
        short = _IDS_OFFSET + count * (ObjectId.LENGTH + _CRC_BYTES)
        (offset,) = _SHORT.unpack(os.pread(self._index, _SHORT.size, short + place * _SHORT.size))
        if offset & _IS_LONG:
            long = short + count * _SHORT.size + (offset & ~_IS_LONG) * _LONG.size
            (offset,) = _LONG.unpack(os.pread(self._index, _LONG.size, long))
        return int(offset)


def offset_back(data: bytes, at: int) -> tuple[int, int]:
    """Return how far before a delta its base is, and where in ``data`` what says it ends. Raises: ``IndexError``."""
    byte = data[at]
    back = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = data[at]
        back = (back + 1) << 7 | byte & 0x7F
    return back, at + 1
