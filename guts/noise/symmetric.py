"""``SymmetricState``: the chaining key and the hash of all that was said (Noise rev 34 §5.2)."""

from typing import final

from guts.noise.cipher import KEY_LENGTH, CipherState
from guts.noise.hashes import HashFunction


@final
class SymmetricState:
    """Chaining key ``ck``, handshake hash ``h`` and the cipher of the handshake.

    Attributes:
        h: the handshake hash so far, as long as the hash function's output.
        cipher: encrypts handshake payloads and static keys once there is a shared key.
    """

    __slots__ = ("_ck", "_hash", "cipher", "h")

    def __init__(self, protocol_name: bytes, hash_function: HashFunction) -> None:
        """InitializeSymmetric: a name no longer than a hash is padded with zeros, a longer one hashed."""
        length = hash_function.length
        if len(protocol_name) <= length:
            self.h = protocol_name.ljust(length, b"\0")
        else:
            self.h = hash_function.hash(protocol_name)
        self._ck = self.h
        self._hash = hash_function
        self.cipher = CipherState()

    def mix_key(self, input_key_material: bytes) -> None:
        """Mix a DH product into the chaining key and set the cipher's key from it."""
        self._ck, temp_k = self._hash.hkdf(self._ck, input_key_material)
        self.cipher.initialize_key(temp_k[:KEY_LENGTH])

    def mix_hash(self, data: bytes) -> None:
        """Mix ``data`` into the handshake hash."""
        self.h = self._hash.hash(self.h + data)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return ``plaintext`` encrypted (as it is while there is no key) and mixed into the hash."""
        ciphertext = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Return what ``ciphertext`` encrypts, and mix it into the hash.

        Raises:
            guts.noise.cipher.DecryptFailed: it is not authentic for all that was said before.
        """
        plaintext = self.cipher.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers of the transport messages: initiator to responder, and back."""
        temp_k1, temp_k2 = self._hash.hkdf(self._ck, b"")
        c1, c2 = CipherState(), CipherState()
        c1.initialize_key(temp_k1[:KEY_LENGTH])
        c2.initialize_key(temp_k2[:KEY_LENGTH])
        return c1, c2
