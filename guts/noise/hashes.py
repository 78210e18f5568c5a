"""Hash functions, HMAC-HASH and HKDF (Noise rev 34 §4.3, §12.5-12.8)."""

import hashlib
import hmac
from enum import Enum


class HashFunction(Enum):
    """The four hash functions of Noise; the value is ``hashlib``'s name for it."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    BLAKE2s = "blake2s"
    BLAKE2b = "blake2b"

    @property
    def length(self) -> int:
        """Bytes of a hash, 32 or 64 (HASHLEN)."""
        return hashlib.new(self.value).digest_size

    def hash(self, data: bytes) -> bytes:
        """Return HASH(``data``)."""
        return hashlib.new(self.value, data).digest()

    def hkdf(self, chaining_key: bytes, input_key_material: bytes) -> tuple[bytes, bytes]:
        """Return the two outputs of HKDF(``chaining_key``, ``input_key_material``, 2)."""
        temp_key = hmac.digest(chaining_key, input_key_material, self.value)
        output1 = hmac.digest(temp_key, b"\x01", self.value)
        return output1, hmac.digest(temp_key, output1 + b"\x02", self.value)
