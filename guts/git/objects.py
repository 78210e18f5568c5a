"""Questions to ``git cat-file``: which objects are here, what they are, and their contents."""

import re
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from guts.errors import StorageFault
from guts.git.command import Child
from guts.ids import ObjectId

CHUNK_BYTES: Final = 256 * 1024  # one read from a pipe; large enough that Python's part per read is small

BATCH_CHECK: Final = ("cat-file", "--buffer", "--batch-check=%(objecttype) %(objectsize) %(objectname)")
BATCH_ALL: Final = (*BATCH_CHECK, "--batch-all-objects", "--unordered")
BATCH_CONTENTS: Final = ("cat-file", "--buffer", "--batch=%(objecttype) %(objectsize) %(objectname)")

_INFO: Final = re.compile(rb"^(\w+) (\d+) ([0-9a-f]{40})$", re.MULTILINE)


class UnreadableObject(StorageFault):
    """git answered something else than it should about an object."""

    code: ClassVar[str] = "UNREADABLE_OBJECT"


class ObjectInfo(NamedTuple):
    """One object.

    Attributes:
        kind: ``commit``, ``tree``, ``blob`` or ``tag``.
        size: inflated, in bytes.
    """

    id: ObjectId
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """One object's content; ``kind`` is ``b"missing"`` where there is none."""

    id: str
    kind: bytes
    data: bytes


def id_lines(ids: Collection[ObjectId]) -> bytes:
    """Return ids as the lines that git reads on stdin."""
    return b"".join([b"%s\n" % id_.hex().encode() for id_ in ids])


async def lines_in_blocks(child: Child) -> AsyncIterator[bytes]:
    """Yield the child's stdout in blocks of whole lines, as it comes."""
    rest = b""
    while block := await child.stdout.read(CHUNK_BYTES):
        end = block.rfind(b"\n") + 1
        if not end:
            rest += block
            continue
        yield rest + block[:end]
        rest = block[end:]
    if rest:
        raise UnreadableObject("git's answer was cut short")


def parse_infos(block: bytes) -> Iterator[ObjectInfo]:
    """Yield the objects in a block of ``BATCH_CHECK`` lines; lines about missing ones are passed over."""
    for kind, size, hex_id in _INFO.findall(block):
        yield ObjectInfo(ObjectId(bytes.fromhex(hex_id.decode())), kind.decode(), int(size))


async def contents(
    child: Child, max_bytes: int, skipped: re.Pattern[bytes] | None = None
) -> AsyncIterator[list[Content]]:
    """Yield the answers of ``BATCH_CONTENTS`` in lists, as many as came in one read.

    Args:
        child: it was started with them.
        max_bytes: length of an object that is taken.
        skipped: matches runs of whole answers that need not be yielded.

    Raises:
        OversizedObject: the next object has more than ``max_bytes``; nothing of it was read.
        UnreadableObject: not the answer of ``cat-file``.
    """
    buffer = bytearray()
    wanted = 1
    while block := await child.stdout.read(CHUNK_BYTES):
        buffer += block
        if len(buffer) < wanted:
            continue
        wanted = 1
        ready: list[Content] = []
        position = 0
        while True:
            if skipped is not None and (run := skipped.match(buffer, position)) is not None:
                position = run.end()
            end = buffer.find(b"\n", position)
            if end < 0:
                break
            words = bytes(buffer[position:end]).split(b" ")
            if len(words) == 2:  # "<id> missing"
                ready.append(Content(words[0].decode(), words[1], b""))
                position = end + 1
                continue
            if len(words) != 3:
                raise UnreadableObject("not an answer of cat-file")
            size = int(words[1])
            if size > max_bytes:
                raise OversizedObject(words[2].decode(), size, max_bytes)
            start = end + 1
            if len(buffer) <= start + size:
                # A long object is not looked at again with every read.
                wanted = start + size + 1 - position
                break
            ready.append(Content(words[2].decode(), words[0], bytes(buffer[start : start + size])))
            position = start + size + 1
        del buffer[:position]
        if ready:
            yield ready
    if buffer:
        raise UnreadableObject("git's answer was cut short")


class OversizedObject(StorageFault):
    """An object is longer than its reader takes."""

    code: ClassVar[str] = "OVERSIZED_OBJECT"

    def __init__(self, id_: str, size: int, limit: int) -> None:
        super().__init__(f"object {id_} has {size} bytes where {limit} are allowed")
