"""What git may cost: every bound of this package, in one value that tests and operators can change."""

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class GitLimits:
    """Bounds of one git child and of one received pack (reasons and measurements: docs/threats.md, B3).

    Attributes:
        alloc_bytes: largest single allocation of git (``GIT_ALLOC_LIMIT``); stops delta bombs, whose
            60 KB of input otherwise take 800 MiB.
        memory_bytes: address space of a child.
        cpu_seconds: processor time of a child; indexing a 200 MB repository takes 13 s.
        file_bytes: largest file that a child may write.
        wall_seconds: life of a child, waiting for peers included.
        stderr_bytes: how much of what a child says on stderr is kept.
        pack_bytes: length of a received pack; the whole history of git itself is 499 MiB.
        pack_objects: objects in a received pack; git itself has 849,014.
        object_bytes: inflated length of one object.
        tree_bytes: inflated length of one tree, which is held in memory while it is scanned.
        inflate_ratio, inflate_allowance_bytes: the inflated objects of a pack may take ``ratio`` × its length
            plus the allowance. Of 20 public repositories the worst has 27.
        special_blobs: distinct symlinks, and distinct ``.gitmodules``, that a pack may bring.
        symlink_bytes: length of a symlink's target (``PATH_MAX``).
        modules_bytes: length of a ``.gitmodules`` file.
        batch_ids: ids in one question to ``has``.
    """

    alloc_bytes: int = 256 * MIB
    memory_bytes: int = 4 * GIB
    cpu_seconds: int = 600
    file_bytes: int = 2 * GIB
    wall_seconds: float = 1800.0
    stderr_bytes: int = 16 * KIB
    pack_bytes: int = GIB
    pack_objects: int = 2_000_000
    object_bytes: int = 100 * MIB
    tree_bytes: int = 16 * MIB
    inflate_ratio: int = 200
    inflate_allowance_bytes: int = GIB
    special_blobs: int = 200_000
    symlink_bytes: int = 4 * KIB
    modules_bytes: int = MIB
    batch_ids: int = 200_000


DEFAULT_LIMITS: Final = GitLimits()
