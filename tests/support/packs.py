"""Packs made by hand, honest and hostile (gitformat-pack)."""

import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from hashlib import sha1

from guts.ids import ObjectId

COMMIT, TREE, BLOB, TAG, REF_DELTA = 1, 2, 3, 4, 7
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}


def object_id(kind: int, data: bytes) -> ObjectId:
    """Return the id of an object."""
    return ObjectId(sha1(b"%s %d\0" % (_NAMES[kind], len(data)) + data).digest())


def varint(number: int) -> bytes:
    """Return a size as deltas write it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def entry(kind: int, data: bytes, base: bytes = b"", padding: int = 0) -> bytes:
    """Return one object as it stands in a pack; ``base`` is what a ``REF_DELTA`` builds on.

    Args:
        padding: bytes by which its size is written longer than it has to be.
    """
    size = len(data)
    first, size = kind << 4 | size & 15, size >> 4
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    if padding:
        head += bytes([first | 0x80]) + b"\x80" * (padding - 1)
        first = 0
    return bytes([*head, first]) + base + zlib.compress(data)


def sealed(entries: Sequence[bytes], count: int | None = None) -> bytes:
    """Return the pack of ``entries``; ``count`` is what its header says, where that is a lie."""
    body = struct.pack(">4sII", b"PACK", 2, len(entries) if count is None else count) + b"".join(entries)
    return body + sha1(body).digest()


def pack(objects: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a pack of whole objects."""
    return sealed([entry(kind, data) for kind, data in objects])


def tree(*entries: tuple[str, bytes, bytes]) -> bytes:
    """Return a tree of (mode, name, id)."""
    return b"".join([b"%s %s\0%s" % (mode.encode(), name, id_) for mode, name, id_ in entries])


def commit(tree_id: bytes, *parents: bytes) -> bytes:
    """Return a commit."""
    who = b"A <a@example.org> 1600000000 +0000"
    before = b"".join([b"parent %s\n" % parent.hex().encode() for parent in parents])
    return b"tree %s\n%sauthor %s\ncommitter %s\n\nm\n" % (tree_id.hex().encode(), before, who, who)


def delta_bomb(step: int = 64 * 1024, levels: int = 2, fan: int = 110) -> bytes:
    """Return a delta that multiplies its base: each level copies the whole base ``fan`` times."""
    blob = b"\0" * step
    entries, base, size = [entry(BLOB, blob)], object_id(BLOB, blob), step
    data = b""
    for level in range(levels):
        copies = []
        for offset in range(0, size, 0xFFFFFF):
            length = min(0xFFFFFF, size - offset)
            copies.append(b"\xff" + struct.pack("<I", offset) + struct.pack("<I", length)[:3])
        data = varint(size) + varint(size * fan) + b"".join(copies) * fan
        entries.append(entry(REF_DELTA, data, base))
        size *= fan
        if level + 1 < levels:
            base = object_id(BLOB, bytes(size))
    return sealed(entries)


async def chunks(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    """Yield ``data`` in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
