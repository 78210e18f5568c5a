"""What can be wrong with a pack that a peer sent: all but ``OverLimit`` is what an honest peer can never send."""

from typing import ClassVar

from guts.errors import PeerFault, Severity
from guts.ids import ObjectId
from guts.sizes import compared_sizes


class BadPack(PeerFault):
    """Base of all faults of a received pack."""

    code: ClassVar[str] = "BAD_PACK"


class CorruptPack(BadPack):
    """Not a pack, damaged, cut short, or followed by other bytes."""

    code: ClassVar[str] = "CORRUPT_PACK"


class RefusedObject(BadPack):
    """An object that git's fsck refuses: all is as its author signed it.

    Which objects that are depends on the version of git: an honest replica whose git knows fewer checks holds what this
    node refuses, and serves it. Only its author is to blame.
    """

    code: ClassVar[str] = "REFUSED_OBJECT"
    severity: ClassVar[Severity] = Severity.NETWORK


class TooLarge(BadPack):
    """Past a limit, as sent or inflated."""

    code: ClassVar[str] = "PACK_TOO_LARGE"


class ObjectTooLarge(TooLarge):
    """One object is longer than any may be."""

    def __init__(self, object_id: ObjectId, size: int, allowed: int) -> None:
        has, may_have = compared_sizes(size, allowed)
        super().__init__(f"object {object_id} has {has}; an object may have {may_have}")
        self.object_id = object_id


class OverLimit(TooLarge):
    """More than this node takes in at once: bytes, objects, all that they inflate to, symlinks.

    A larger limit elsewhere, or a repository that grew in many small packs, is no fault of whoever serves it: an author
    could otherwise have every honest replica shut out. What no single object may be is another thing.
    """

    code: ClassVar[str] = "PACK_OVER_LIMIT"
    severity: ClassVar[Severity] = Severity.NETWORK


class MissingObjects(BadPack):
    """Something that the signed tips reach is neither in the pack nor held."""

    code: ClassVar[str] = "MISSING_OBJECTS"


class ExtraObjects(BadPack):
    """The pack brings objects that the signed tips don't reach."""

    code: ClassVar[str] = "EXTRA_OBJECTS"


class UnsafeTree(BadPack):
    """A tree, a symlink or a ``.gitmodules`` that may harm who checks it out, or a tree that hides what is missing."""

    code: ClassVar[str] = "UNSAFE_TREE"
