"""Which objects the packs of a repository have, by their indexes and without a child.

For a few ids: a git child costs some milliseconds before its first answer. An index of version 2 (gitformat-pack) has
the sorted ids behind a table of how many begin with at most which byte. As git does when it opens a pack, an index
counts only with a pack beside it that ends in the checksum that the index names.
"""

import os
import struct
from collections.abc import Collection
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


def held_among(objects: Path, ids: Collection[ObjectId]) -> set[ObjectId] | None:
    """Return those of ``ids`` that the packs in the folder ``objects`` have; ``None``: it takes git to say.

    Raises: ``DiskFault``.
    """
    if len(ids) > MAX_IDS:
        return None
    with disk_faults():
        # A node writes no loose objects and borrows from no other folder; where somebody else did, git knows.
        if any(len(name) == 2 for name in os.listdir(objects)) or (objects / "info" / "alternates").exists():
            return None
        names = set(os.listdir(objects / "pack"))
        stems = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
        packs = [stem for stem in stems if f"{stem}.pack" in names]
        if len(packs) > MAX_PACKS:
            return None
        held: set[ObjectId] = set()
        for pack in packs:
            held |= _found(objects / "pack" / pack, set(ids) - held)
        return held


def _found(stem: Path, ids: Collection[ObjectId]) -> set[ObjectId]:
    """Return those of ``ids`` that are in the pack ``stem``; none where git would not take it for one."""
    with open(f"{stem}.idx", "rb") as file, open(f"{stem}.pack", "rb") as pack:
        index, size = file.fileno(), os.fstat(file.fileno()).st_size
        # Read, not mapped: a bad sector is an error then, and not the end of the process.
        head = os.pread(index, _IDS_OFFSET, 0)
        if (
            len(head) < _IDS_OFFSET
            or head[: len(_MAGIC)] != _MAGIC
            or os.fstat(pack.fileno()).st_size < _CHECKSUM_BYTES
        ):
            return set()
        table = _TABLE.unpack_from(head, len(_MAGIC))
        named = os.pread(index, _CHECKSUM_BYTES, size - 2 * _CHECKSUM_BYTES)
        pack.seek(-_CHECKSUM_BYTES, os.SEEK_END)
        if size < _IDS_OFFSET + table[-1] * ObjectId.LENGTH + 2 * _CHECKSUM_BYTES or pack.read() != named:
            return set()
        return {id_ for id_ in ids if _has(index, id_, table[id_[0] - 1] if id_[0] else 0, table[id_[0]])}


def _has(index: int, id_: ObjectId, low: int, high: int) -> bool:
    """Tell whether ``id_`` is one of the ids ``low`` to ``high``, the last not included."""
    while low < high:
        middle = (low + high) // 2
        found = os.pread(index, ObjectId.LENGTH, _IDS_OFFSET + middle * ObjectId.LENGTH)
        if found == id_:
            return True
        if found < id_:
            low = middle + 1
        else:
            high = middle
    return False
