"""What can be wrong with a pack that a peer sent. Each is something that an honest peer can never send."""

from typing import ClassVar

from guts.errors import PeerFault


class BadPack(PeerFault):
    """Base of all faults of a received pack."""

    code: ClassVar[str] = "BAD_PACK"


class CorruptPack(BadPack):
    """Not a pack, damaged, cut short, followed by other bytes, or with objects that git's fsck refuses."""

    code: ClassVar[str] = "CORRUPT_PACK"


class TooLarge(BadPack):
    """Past a limit, as sent or inflated."""

    code: ClassVar[str] = "PACK_TOO_LARGE"


class MissingObjects(BadPack):
    """Something that the signed tips reach is neither in the pack nor held."""

    code: ClassVar[str] = "MISSING_OBJECTS"


class ExtraObjects(BadPack):
    """The pack brings objects that the signed tips don't reach."""

    code: ClassVar[str] = "EXTRA_OBJECTS"


class UnsafeTree(BadPack):
    """A tree, a symlink or a ``.gitmodules`` that may harm who checks it out."""

    code: ClassVar[str] = "UNSAFE_TREE"
