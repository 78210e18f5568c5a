"""X25519 key pairs and Diffie-Hellman (Noise rev 34 §4.1, §12.1; RFC 7748)."""

from typing import ClassVar, Final, Self, final

import nacl.bindings
import nacl.utils

from guts.errors import PeerFault, Severity

DH_LENGTH: Final = 32
"""Bytes of a private key, of a public key and of their product (DHLEN)."""


class HandshakeFailed(PeerFault):
    """The other side's handshake bytes lead nowhere. Nobody proved to have sent them: nobody pays."""

    code: ClassVar[str] = "HANDSHAKE_FAILED"
    severity: ClassVar[Severity] = Severity.NETWORK


@final
class KeyPair:
    """An X25519 key pair; ``repr`` never shows the private key.

    Attributes:
        public: 32 bytes.
    """

    __slots__ = ("_private", "public")

    def __init__(self, private: bytes) -> None:
        """Raises: ``ValueError``: ``private`` is not 32 bytes."""
        if len(private) != DH_LENGTH:
            raise ValueError(f"an X25519 private key has {DH_LENGTH} bytes, not {len(private)}")
        self._private = private
        self.public: bytes = nacl.bindings.crypto_scalarmult_base(private)

    @classmethod
    def generate(cls) -> Self:
        """Return a new key pair from the operating system's randomness (GENERATE_KEYPAIR)."""
        return cls(nacl.utils.random(DH_LENGTH))

    def exchange(self, public: bytes) -> bytes:
        """Return the 32-byte product with the other side's ``public`` (DH).

        Raises:
            HandshakeFailed: ``public`` has low order, so the product would be known to everyone.
            ValueError: ``public`` is not 32 bytes. libsodium would read past its end; PyNaCl does not look.
        """
        if len(public) != DH_LENGTH:
            raise ValueError(f"an X25519 public key has {DH_LENGTH} bytes, not {len(public)}")
        try:
            shared: bytes = nacl.bindings.crypto_scalarmult(self._private, public)
        except RuntimeError:
            raise HandshakeFailed("a public key of low order") from None
        return shared

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()[:12]}…)"
