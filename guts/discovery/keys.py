"""Positions in the DHT's 160-bit space, and the distance between them."""

import hashlib
from typing import ClassVar, Final, Self, final

from guts.identity import domain
from guts.ids import PeerId, RepositoryId

KEY_BITS: Final = 160

_NODE: Final = domain("dht-node")
_REPOSITORY: Final = domain("dht-repository")


@final
class Key(bytes):
    """A position, 20 bytes (Kademlia §2.1). Nodes and what they store live in one space."""

    LENGTH: ClassVar[int] = KEY_BITS // 8

    def __new__(cls, data: bytes) -> Self:
        """Raises: ``ValueError``: ``data`` is not exactly 20 bytes."""
        if len(data) != cls.LENGTH:
            raise ValueError(f"a key has {cls.LENGTH} bytes, not {len(data)}")
        return super().__new__(cls, data)

    @property
    def number(self) -> int:
        """The position as an integer, 0 .. 2^160 - 1."""
        return int.from_bytes(self, "big")

    def distance(self, other: "Key") -> int:
        """Return the XOR distance to ``other`` (Kademlia §2.1)."""
        return self.number ^ other.number

    def __repr__(self) -> str:
        return f"Key({self.hex()[:8]}…)"


def node_key(peer: PeerId) -> Key:
    """Return where a node lives: nobody chooses a position, only the key that hashes to it."""
    return Key(hashlib.blake2b(_NODE + peer, digest_size=Key.LENGTH).digest())


def repository_key(repository: RepositoryId) -> Key:
    """Return where the provider records of ``repository`` live."""
    return Key(hashlib.blake2b(_REPOSITORY + repository, digest_size=Key.LENGTH).digest())
