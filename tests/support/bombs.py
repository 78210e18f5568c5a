"""msgpack that is small to send and large to hold (docs/threats.md A7)."""

from typing import Final

from guts.ids import RepositoryId
from guts.wire import limits
from guts.wire.codec import encode
from guts.wire.messages import Refs, RefsAnswer, RefsStatus

REPOSITORY: Final = RepositoryId(bytes(range(32)))
UNKNOWN: Final = b"\x64"
"""A type of message that nobody uses."""


def array32(count: int) -> bytes:
    """Return the header of a list of ``count``."""
    return b"\xdd" + count.to_bytes(4, "big")


def bombs() -> dict[str, bytes]:
    """Return encoded messages that no codec may unfold, by what they are made of."""
    full = limits.MAX_MESSAGE_BYTES
    refs = limits.MAX_REFS_BYTES
    nested = b"\x93" + UNKNOWN + b"\xdc\x03\xff" + (b"\xdc\x00\x3f" + b"\x90" * 63) * 992
    return {
        "empty lists, unknown type": b"\x92" + UNKNOWN + array32(full - 7) + b"\x90" * (full - 7),
        "empty lists in lists, unknown type": nested[:full],
        "empty lists in lists, whole": b"\x92" + UNKNOWN + b"\xdc\x03\xdf" + (b"\xdc\x00\x3e" + b"\x90" * 62) * 991,
        "empty maps": b"\x92" + UNKNOWN + array32(full - 7) + b"\x80" * (full - 7),
        "deep": b"\x92" + UNKNOWN + b"\x91" * (full - 3) + b"\xc0",
        "lists claimed, not there": b"\x92" + UNKNOWN + array32(2**32 - 1) * 1000,
        "bytes claimed, not there": b"\x92" + UNKNOWN + b"\xc6\xff\xff\xff\xff",
        "empty lists as a nonce": b"\x92\x03" + array32(full - 7) + b"\x90" * (full - 7),
        "empty lists as queries": b"\x94\x05\x01" + array32(full - 8) + b"\x90" * (full - 8),
        "empty lists as answers": b"\x94\x06\x01" + array32(refs - 8) + b"\x90" * (refs - 8),
        "empty lists as documents": b"\x94\x06\x01\x91\x97\xc4\x20"
        + REPOSITORY
        + b"\x00\xdc\x04\x00"
        + b"\x90" * (refs - 100),
        "tiny headers": encode(
            Refs(1, (RefsAnswer(REPOSITORY, RefsStatus.HELD, (b"d",) * 1024, (b"h",) * 1024),) * 7)
        ).replace(b"\x97\x97", b"\xdc\x00\x40\x97", 1),
        "repositories claimed": b"\x93\x0c" + array32(2**31) + b"\xc4\x20" + bytes(32),
    }
