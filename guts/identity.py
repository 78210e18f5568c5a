"""Ed25519 keys and signatures: the one place that signs, and the one verifier (libsodium through PyNaCl).

libsodium refuses signatures under small-order keys that other libraries accept; two verifiers could disagree
about a record and split the network, so there is only this one.

Two kinds of key, never mixed: the *node key* proves who is at the other end of a connection, the *author key*
signs identity documents and refs. A signature always covers ``domain ‖ body``, where a domain is
``guts/<kind>/1\\0``: a signature made for one purpose is worth nothing for another.
"""

from typing import Final, Self, final

import nacl.bindings
import nacl.exceptions
import nacl.utils

from guts.ids import AuthorId, PeerId

SEED_LENGTH: Final = 32
SIGNATURE_LENGTH: Final = 64


def domain(kind: str) -> bytes:
    """Return the signature domain of ``kind``: ``guts/<kind>/1\\0``."""
    return b"guts/" + kind.encode("ascii") + b"/1\0"


@final
class SigningKey:
    """An Ed25519 private key (RFC 8032). Its seed is the only secret; ``repr`` never shows it."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        """Raises: ``ValueError``: ``seed`` is not 32 bytes."""
        if len(seed) != SEED_LENGTH:
            raise ValueError(f"a seed has {SEED_LENGTH} bytes, not {len(seed)}")
        public, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
        self.public: bytes = public
        self._secret: bytes = secret

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the operating system's randomness."""
        return cls(nacl.utils.random(SEED_LENGTH))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes."""
        return self._secret[:SEED_LENGTH]

    @property
    def peer_id(self) -> PeerId:
        """The public key as a node's id."""
        return PeerId(self.public)

    @property
    def author_id(self) -> AuthorId:
        """The public key as an author's id."""
        return AuthorId(self.public)

    def sign(self, signature_domain: bytes, body: bytes) -> bytes:
        """Return the 64-byte signature over ``signature_domain ‖ body``."""
        signed: bytes = nacl.bindings.crypto_sign(signature_domain + body, self._secret)
        return signed[:SIGNATURE_LENGTH]

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:12]}…)"


def signature_valid(public: bytes, signature_domain: bytes, body: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes) by ``public`` (32 bytes) covers ``signature_domain ‖ body``."""
    if len(public) != 32 or len(signature) != SIGNATURE_LENGTH:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + signature_domain + body, public)
    except nacl.exceptions.BadSignatureError:
        return False
    return True
