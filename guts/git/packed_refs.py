"""``packed-refs``: all refs of a repository in one file, replaced by one rename.

git's own multi-ref transactions are not crash-atomic in the files backend; one rename is. The repositories of a
node have no loose refs, so this file is the whole truth that readers (``upload-pack``, ``rev-list --all``) see.
Format: git's ``refs/packed-backend.c``: a header that names the traits ``peeled fully-peeled sorted``, then
``<oid> <ref>`` lines in byte order of the refs, each annotated tag followed by ``^<oid that it peels to>``.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from guts.crash import crash_point
from guts.errors import StorageFault
from guts.git.files import disk_faults, sync_directory, sync_file, write_files
from guts.ids import ObjectId

FILE_NAME: Final = "packed-refs"
HEADER: Final = b"# pack-refs with: peeled fully-peeled sorted \n"

_LINE: Final = re.compile(rb"([0-9a-f]{40}) (refs/[^\x00-\x20\x7f]+)\n(?:\^([0-9a-f]{40})\n)?")
_HEAD: Final = re.compile(rb"ref: (refs/[^\x00-\x20\x7f]+)\n")


class DamagedRefs(StorageFault):
    """``packed-refs`` or ``HEAD`` is not what this module wrote."""

    code: ClassVar[str] = "DAMAGED_REFS"


@dataclass(frozen=True, slots=True)
class PackedRef:
    """What a ref points at.

    Attributes:
        target: the object.
        peeled: what the tag finally points at; ``None`` where ``target`` is no annotated tag.
    """

    target: ObjectId
    peeled: ObjectId | None = None


def encode(refs: Mapping[str, PackedRef]) -> bytes:
    """Return the file that holds ``refs``.

    Raises:
        ValueError: a name that can't stand in the file; callers check names against git's rules before.
    """
    lines = [HEADER]
    for name, ref in sorted((name.encode(), ref) for name, ref in refs.items()):
        line = b"%s %s\n" % (str(ref.target).encode(), name)
        if ref.peeled is not None:
            line += b"^%s\n" % str(ref.peeled).encode()
        if not _LINE.fullmatch(line):
            raise ValueError(f"{name!r} is not the name of a ref")
        lines.append(line)
    return b"".join(lines)


def decode(data: bytes) -> dict[str, PackedRef]:
    """Return the refs in a file that ``encode`` made, or git with the same traits.

    Raises:
        DamagedRefs: it is no such file.
    """
    if not data.startswith(HEADER):
        raise DamagedRefs("packed-refs has no header, or other traits")
    refs: dict[str, PackedRef] = {}
    position, previous = len(HEADER), b""
    while position < len(data):
        match = _LINE.match(data, position)
        if match is None or match[2] <= previous:
            raise DamagedRefs(f"packed-refs is damaged at byte {position}")
        peeled = ObjectId(bytes.fromhex(match[3].decode())) if match[3] else None
        try:
            name = match[2].decode()
        except UnicodeDecodeError:
            raise DamagedRefs(f"packed-refs is damaged at byte {position}") from None
        refs[name] = PackedRef(ObjectId(bytes.fromhex(match[1].decode())), peeled)
        position, previous = match.end(), match[2]
    return refs


def write(git_dir: Path, refs: Mapping[str, PackedRef], head: str) -> None:
    """Replace HEAD, where it is another, then all refs by one rename; durable after ``sync``.

    A crash between the two leaves the new HEAD with the old refs, and one of the machine before ``sync`` may damage
    the refs; the next projection mends that. HEAD is never damaged, as no git child works without one: a new one is
    durable at once, and that is rare.

    Raises:
        DiskFault: the disk refused; the old refs stand.
    """
    head_line = b"ref: %s\n" % head.encode()
    if not _HEAD.fullmatch(head_line):
        raise ValueError(f"{head!r} is not the name of a ref")
    files = {"HEAD": head_line, FILE_NAME: encode(refs)}
    with contextlib.suppress(OSError):  # then it is written anew
        if (git_dir / "HEAD").read_bytes() == head_line:
            del files["HEAD"]
    crash_point("refs-projecting")
    write_files(git_dir, files, durable="HEAD" in files)
    crash_point("refs-projected")


def sync(git_dir: Path) -> None:
    """Make durable what was written. Raises: ``DiskFault``."""
    with disk_faults():
        sync_file(git_dir / FILE_NAME)
        sync_directory(git_dir)


def drop_damaged_head(git_dir: Path) -> None:
    """Remove a HEAD that is none: ``git init`` would leave it as it is, and then nothing of git works here.

    Raises:
        DiskFault: it can't be read, or removed.
    """
    with disk_faults(), contextlib.suppress(FileNotFoundError):
        if not _HEAD.fullmatch((git_dir / "HEAD").read_bytes()):
            (git_dir / "HEAD").unlink()


def read(git_dir: Path) -> tuple[dict[str, PackedRef], str]:
    """Return all refs, and the name that HEAD points at.

    Raises:
        DamagedRefs, DiskFault: the files are damaged, or can't be read.
    """
    with disk_faults():
        head_line = (git_dir / "HEAD").read_bytes()
        path = git_dir / FILE_NAME
        data = path.read_bytes() if path.exists() else HEADER
    match = _HEAD.fullmatch(head_line)
    if match is None:
        raise DamagedRefs("HEAD is damaged")
    return decode(data), match[1].decode(errors="replace")
