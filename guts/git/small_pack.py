"""The objects of a small pack that git has indexed, read without a child; and whether all that they name is here.

A push brings a few objects. A git child that shows them, and another that follows their links, cost more than
everything else that is done about them (docs/benchmarks.md), so those of a small pack are read here, out of the files
that ``git index-pack`` wrote: it has checked every id and, with its fsck, every object. A pack is gitformat-pack(5),
version 2, and its index too.

Nothing is judged by what is read here alone. What is odd, large, or not clearly linked is left to git, which says what
is wrong with it.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from guts.git.files import disk_faults
from guts.git.objects import Content
from guts.git.pack_index import KINDS, OFS_DELTA, REF_DELTA, offset_back
from guts.git.trees import DIRECTORY, LINK, REGULAR, file_type
from guts.ids import ObjectId

DELTA_BYTES: Final = 64 * 1024
"""Deltas that are applied, inflated: each step of one is some microseconds of Python. Of a longer one git is asked."""

_HEADER_BYTES: Final = 12
_ENTRY_BYTES: Final = 64  # head, base and zlib's own of an object; header and trailer of a pack
_IDS_OFFSET: Final = 8 + 256 * 4  # in an index, after its header and fan-out table

# git takes ids in upper case, too. What follows the last parent is asked for, so that none is passed over.
_COMMIT: Final = re.compile(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)author ")
_TAG: Final = re.compile(rb"object ([0-9a-f]{40})\ntype (commit|tree|blob|tag)\n")
_ENTRY: Final = re.compile(rb"([0-7]{5,6}) [^\x00]+\x00(.{20})", re.DOTALL)
_NAMED_KINDS: Final = {DIRECTORY: b"tree", REGULAR: b"blob", LINK: b"blob"}


class _TooMuch(Exception):
    """More than is read here, or nothing that is understood."""


class _Entry(NamedTuple):
    kind: int
    base: int | bytes | None
    size: int
    start: int


def read_pack(stem: Path, max_bytes: int, max_objects: int) -> list[Content] | None:
    """Return all objects of an indexed pack; ``None``: it is larger than allowed, or takes git to read.

    Args:
        stem: path of the pack without its suffix.
        max_bytes: length of its inflated objects together; what it takes beside them is bounded by their number.

    Raises:
        DiskFault: a file can't be read.
    """
    with disk_faults():
        if stem.with_suffix(".pack").stat().st_size > max_bytes + (max_objects + 1) * _ENTRY_BYTES:
            return None
        index, pack = stem.with_suffix(".idx").read_bytes(), stem.with_suffix(".pack").read_bytes()
    try:
        return _Reader(index, pack, max_bytes, max_objects).read()
    except (_TooMuch, zlib.error, struct.error, IndexError):
        return None


class _Reader:
    """One pack, in memory."""

    def __init__(self, index: bytes, pack: bytes, max_bytes: int, max_objects: int) -> None:
        (count,) = struct.unpack_from(">I", index, _IDS_OFFSET - 4)
        if count > max_objects:
            raise _TooMuch
        ids = [index[_IDS_OFFSET + 20 * at : _IDS_OFFSET + 20 * (at + 1)] for at in range(count)]
        offsets = struct.unpack_from(f">{count}I", index, _IDS_OFFSET + 24 * count)
        self._pack = pack
        self._offsets = dict(zip(ids, offsets, strict=True))
        self._allowed = max_bytes
        self._deltas_allowed = DELTA_BYTES
        self._done: dict[int, tuple[bytes, bytes]] = {}

    def read(self) -> list[Content]:
        return [Content(id_.hex(), *self._object(offset)) for id_, offset in self._offsets.items()]

    def _object(self, offset: int) -> tuple[bytes, bytes]:
        """Return kind and content; bases are made first, without recursion: a chain may be long."""
        deltas: list[tuple[int, _Entry]] = []
        while offset not in self._done:
            entry = self._entry(offset)
            if entry.kind in KINDS:
                self._allowed -= entry.size
                if self._allowed < 0:
                    raise _TooMuch
                self._done[offset] = KINDS[entry.kind], self._inflated(entry)
                break
            base = self._offsets.get(entry.base) if isinstance(entry.base, bytes) else entry.base
            # As many deltas on one another as there are objects are a circle.
            if base is None or len(deltas) >= len(self._offsets):
                raise _TooMuch
            deltas.append((offset, entry))
            offset = base
        for at, entry in reversed(deltas):
            self._deltas_allowed -= entry.size
            if self._deltas_allowed < 0:
                raise _TooMuch
            kind, base_data = self._done[offset]
            self._done[at] = kind, self._patched(base_data, self._inflated(entry))
            offset = at
        return self._done[offset]

    def _entry(self, offset: int) -> _Entry:
        pack, at = self._pack, offset + 1
        byte = pack[offset]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 0x80:
            byte = pack[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        if not byte and at > offset + 1:
            # A longer way to write a size, which index-pack takes; of some of them git can't read the object then.
            raise _TooMuch
        base: int | bytes | None = None
        if kind == OFS_DELTA:
            back, at = offset_back(pack, at)
            base = offset - back
            if base < _HEADER_BYTES:
                raise _TooMuch
        elif kind == REF_DELTA:
            base = pack[at : at + 20]
            at += 20
        elif kind not in KINDS:
            raise _TooMuch
        return _Entry(kind, base, size, at)

    def _inflated(self, entry: _Entry) -> bytes:
        data = zlib.decompressobj().decompress(memoryview(self._pack)[entry.start :], entry.size + 1)
        if len(data) != entry.size:
            raise _TooMuch
        return data

    def _patched(self, base: bytes, delta: bytes) -> bytes:
        """Return what ``delta`` makes of ``base``."""
        base_size, at = _size(delta, 0)
        size, at = _size(delta, at)
        self._allowed -= size
        if base_size != len(base) or self._allowed < 0:
            raise _TooMuch
        made = bytearray()
        while at < len(delta):
            step = delta[at]
            at += 1
            if step & 0x80:
                start = length = 0
                for bit in range(4):
                    if step & 1 << bit:
                        start |= delta[at] << 8 * bit
                        at += 1
                for bit in range(3):
                    if step & 0x10 << bit:
                        length |= delta[at] << 8 * bit
                        at += 1
                made += base[start : start + (length or 0x10000)]
            else:
                made += delta[at : at + step]
                at += step
            if not step or len(made) > size:
                raise _TooMuch
        if len(made) != size:
            raise _TooMuch
        return bytes(made)


def _size(delta: bytes, at: int) -> tuple[int, int]:
    size = shift = 0
    while True:
        byte = delta[at]
        size |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if not byte & 0x80:
            return size, at


def parents(contents: Iterable[Content]) -> dict[ObjectId, tuple[ObjectId, ...]]:
    """Return the parents of the commits among ``contents``."""
    found: dict[ObjectId, tuple[ObjectId, ...]] = {}
    for content in contents:
        if content.kind == b"commit" and (match := _COMMIT.match(content.data)) is not None:
            found[_id(content.id)] = tuple(_id(word.decode()) for word in match[2].split()[1::2])
    return found


def misnaming(contents: Collection[Content]) -> str | None:
    """Return the id of a tree that names as a file what is among ``contents`` and is none; ``None``: there is none."""
    kinds = {_id(content.id): content.kind for content in contents}
    for content in contents:
        for id_, kind in _named(content) or () if content.kind == b"tree" else ():
            if kind == b"blob" and kinds.get(id_, kind) != kind:
                return content.id
    return None


class Links(NamedTuple):
    """What a pack's objects lead to.

    Attributes:
        reached: its objects that the tips reach.
        outside: what these name, and the tips, as far as it is not in the pack; with the kind that it has to be of,
            ``None`` where that may be any.
    """

    reached: frozenset[ObjectId]
    outside: Mapping[ObjectId, bytes | None]


def follow(contents: Iterable[Content], tips: Collection[ObjectId], held: Collection[ObjectId]) -> Links | None:
    """Return where the links from ``tips`` lead; ``None``: something names an object of another kind than it is.

    Args:
        held: those of ``contents`` that are here with all that they name, as bases of deltas are: that is not followed,
            nor is it outside.
    """
    by_id = {_id(content.id): content for content in contents}
    vouched: set[tuple[ObjectId, bytes]] = set()
    for id_ in held:
        vouched.update(_named(by_id[id_]) or ())
    reached: set[ObjectId] = set()
    outside: dict[ObjectId, bytes | None] = {}
    ways: list[tuple[ObjectId, bytes | None]] = [(tip, None) for tip in tips]
    while ways:
        id_, kind = ways.pop()
        content = by_id.get(id_)
        if content is None:
            if kind is not None and outside.get(id_) not in (None, kind):
                return None
            outside[id_] = kind or outside.get(id_)
        elif kind not in (None, content.kind):
            return None
        elif id_ not in reached:
            reached.add(id_)
            if id_ not in held:
                named = _named(content)
                if named is None:
                    return None
                ways += [link for link in named if link not in vouched or link[0] in by_id]
    return Links(frozenset(reached), outside)


def _named(content: Content) -> list[tuple[ObjectId, bytes]] | None:
    """Return what an object names, with the kinds; ``None``: it can't be told."""
    data = content.data
    if content.kind == b"commit" and (match := _COMMIT.match(data)) is not None:
        return [
            (_id(match[1].decode()), b"tree"),
            *((_id(word.decode()), b"commit") for word in match[2].split()[1::2]),
        ]
    if content.kind == b"tag" and (match := _TAG.match(data)) is not None:
        return [(_id(match[1].decode()), match[2])]
    if content.kind == b"tree":
        entries: list[tuple[ObjectId, bytes]] = []
        position = 0
        while (match := _ENTRY.match(data, position)) is not None:
            position = match.end()
            if (kind := _NAMED_KINDS.get(file_type(match[1]))) is not None:  # else a submodule
                entries.append((ObjectId(match[2]), kind))
        return entries if position == len(data) else None
    return [] if content.kind == b"blob" else None


def _id(text: str) -> ObjectId:
    return ObjectId(bytes.fromhex(text))
