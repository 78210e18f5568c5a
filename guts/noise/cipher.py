"""``CipherState``: one direction's key and nonce (Noise rev 34 §5.1) with ChaCha20-Poly1305 (§12.3)."""

from typing import ClassVar, Final, final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from guts.errors import PeerFault, Severity

KEY_LENGTH: Final = 32
TAG_LENGTH: Final = 16
"""Bytes that encryption adds to a plaintext."""

MAX_NONCE: Final = 2**64 - 1
"""Reserved for rekeying; no message is ever encrypted under it (§5.1)."""

MAX_MESSAGE: Final = 65_535
"""Bytes of any one Noise message (§3)."""


class DecryptFailed(PeerFault):
    """Bytes are not what the other side encrypted at this point of the conversation.

    Anyone on the path can make this happen to an honest peer, so nobody is charged.
    """

    code: ClassVar[str] = "DECRYPT_FAILED"
    severity: ClassVar[Severity] = Severity.NETWORK


@final
class CipherState:
    """A key and the nonce of its next message. The nonce lives here only, so none is ever used twice.

    Attributes:
        n: nonce of the next message, 0..2^64-1. Rekeying does not reset it.
    """

    __slots__ = ("_k", "n")

    def __init__(self) -> None:
        self._k: bytes | None = None
        self.n = 0

    def initialize_key(self, key: bytes) -> None:
        """Set the key (32 bytes) and start again at nonce 0."""
        self._k = key
        self.n = 0

    def has_key(self) -> bool:
        """Tell whether a key is set."""
        return self._k is not None

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        """Return ``plaintext`` encrypted, 16 bytes longer, bound to ``ad``; without a key, as it is.

        Raises:
            AssertionError: 2^64-1 messages were encrypted under this key.
        """
        if self._k is None:
            return plaintext
        if self.n == MAX_NONCE:
            raise AssertionError("all nonces of this key are used up")
        ciphertext = crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, ad, _nonce(self.n), self._k)
        self.n += 1
        return ciphertext

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Return what ``ciphertext`` encrypts; without a key, ``ciphertext`` as it is.

        Raises:
            DecryptFailed: altered, truncated, out of order, bound to another ``ad``, encrypted under another
                key, or past the last nonce. The nonce stays as it was.
        """
        if self._k is None:
            return ciphertext
        if self.n == MAX_NONCE:
            raise DecryptFailed("all nonces of this key are used up")
        try:
            plaintext = crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, ad, _nonce(self.n), self._k)
        # A wrong tag is a CryptoError; a ciphertext shorter than a tag is a ValueError.
        except (CryptoError, ValueError):
            raise DecryptFailed(f"message {self.n} is not authentic") from None
        self.n += 1
        return plaintext

    def rekey(self) -> None:
        """Replace the key by a one-way function of itself (§4.2, REKEY). The nonce goes on.

        Raises:
            AssertionError: there is no key yet.
        """
        if self._k is None:
            raise AssertionError("rekey without a key")
        zeros = bytes(KEY_LENGTH)
        self._k = crypto_aead_chacha20poly1305_ietf_encrypt(zeros, b"", _nonce(MAX_NONCE), self._k)[:KEY_LENGTH]


def _nonce(n: int) -> bytes:
    """Return 32 zero bits and ``n`` as 64 bits, little endian (§12.3)."""
    return (n << 32).to_bytes(12, "little")
