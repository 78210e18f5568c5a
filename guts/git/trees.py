"""What our own scan refuses in trees, beyond git's fsck.

git's fsck (of 2.39) refuses ``.git`` and its look-alikes, ``..``, and harmful ``.gitmodules``, but accepts
(measured; docs/threats.md, B4): control bytes in names (a carriage return, CVE-2025-48384), the same inside
``.gitmodules``, and symlinks that point into ``.git``, through which a later checkout writes a hook.

Honest trees pass with one run of a compiled expression over many of them. Only trees with symlinks, with something
like ``.gitmodules``, or with something odd are looked at entry by entry.
"""

import re
from typing import Final

from guts.git.faults import UnsafeTree

# Code points that HFS+ ignores in names (git's utf8.c, next_hfs_char), as UTF-8.
_IGNORABLE: Final = re.compile(rb"\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf")

# Names with a first byte of those code points (e2, ef) take the long way, like those that begin as .gitmodules
# or one of its short names does. The common first bytes are tried first. What a possessive quantifier
# repeats is an atomic group: before Python 3.11.5 it takes a part that failed for a match (CPython issue 106052).
_PLAIN_ENTRIES: Final = (
    rb"(?>(?:100644|40000|100755|160000|100664) "
    rb"(?:[^\x00-\x1f\x7f\xe2\xef.gG]"
    rb"|(?!\.[gG][iI][tT][mM]|[gG][iI][tT][mM][oO][dD]~|[gG][iI]7)[.gG])"
    rb"[^\x00-\x1f\x7f\xe2\xef]*+\x00.{20})*+"
)
_PLAIN: Final = re.compile(_PLAIN_ENTRIES, re.DOTALL)

PLAIN_ANSWERS: Final = re.compile(rb"(?>tree \d+ [0-9a-f]{40}\n" + _PLAIN_ENTRIES + rb"\n)*+", re.DOTALL)
"""Any number of answers of ``objects.BATCH_CONTENTS`` that are plain trees. It goes by the entries, not by the
length: git's fsck has passed these trees, and of what follows an entry nothing can be taken for one."""

_ENTRY: Final = re.compile(rb"([0-7]{5,6}) ([^\x00]+)\x00(.{20})", re.DOTALL)
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_MODULES: Final = re.compile(rb"(?:\.gitmodules|gitmod~\d+|gi7[0-9a-f~]+)[ .]*(?::.*)?", re.DOTALL | re.IGNORECASE)
_INTO_GIT: Final = re.compile(rb"(?:^|[/\\])(?:\.git|git~\d+)[ .]*(?::[^/\\]*)?(?:[/\\]|$)", re.IGNORECASE)
# A carriage return is only a line's end where a newline follows; git keeps every other one as part of a value.
_BAD_IN_MODULES: Final = re.compile(rb"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

DIRECTORY: Final = 0o040000
REGULAR: Final = 0o100000
LINK: Final = 0o120000
_TYPE_BITS: Final = 0o170000


def file_type(mode: bytes) -> int:
    """Return what git takes an entry of that octal mode for; what is none of the three named here is a submodule.

    git looks at these bits alone, whatever the others are (tree-walk.c and cache.h, ``canon_mode``), and its fsck only
    warns of odd modes: 120777 is a symlink, too.
    """
    return int(mode, 8) & _TYPE_BITS


class TreeScan:
    """Collects what trees lead to that needs a look of its own.

    Attributes:
        links: ids (20 bytes) of the targets of symlinks.
        modules: ids of files that some system takes for ``.gitmodules``.
    """

    def __init__(self) -> None:
        self.links: set[bytes] = set()
        self.modules: set[bytes] = set()

    def scan(self, id_: str, tree: bytes) -> None:
        """Look at one tree object.

        Raises:
            UnsafeTree: a name in it has a control byte.
        """
        if _PLAIN.fullmatch(tree):
            return
        position = 0
        while match := _ENTRY.match(tree, position):
            position = match.end()
            mode, name, target = match.groups()
            if _CONTROL.search(name):
                raise UnsafeTree(f"tree {id_} has a name with a control byte")
            if file_type(mode) == LINK:
                self.links.add(target)
            elif _MODULES.fullmatch(_IGNORABLE.sub(b"", name)):
                self.modules.add(target)
        if position != len(tree):
            raise UnsafeTree(f"tree {id_} is malformed")


def check_link(id_: str, target: bytes) -> None:
    """Look at the target of a symlink.

    Raises:
        UnsafeTree: it leads into a ``.git`` directory, on any system.
    """
    if _INTO_GIT.search(_IGNORABLE.sub(b"", target)):
        raise UnsafeTree(f"symlink {id_} points into .git")


def check_modules(id_: str, text: bytes) -> None:
    """Look at a ``.gitmodules`` file; what it says is for git's fsck.

    Raises:
        UnsafeTree: it has control bytes that don't end a line.
    """
    if _BAD_IN_MODULES.search(text):
        raise UnsafeTree(f".gitmodules {id_} has control bytes")
