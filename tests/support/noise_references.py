"""Two independent Noise implementations, ``noiseprotocol`` and ``dissononce``, behind one face."""

import warnings
from typing import Final, Protocol

from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.keypair import KeyPair as DissononceKeyPair
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.extras.dh.dangerous.dh_nogen import NoGenDH
from dissononce.hash.blake2b import Blake2bHash
from dissononce.hash.blake2s import Blake2sHash
from dissononce.hash.sha256 import SHA256Hash
from dissononce.hash.sha512 import SHA512Hash
from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from noise.connection import Keypair, NoiseConnection

HASHES: Final = ("SHA256", "SHA512", "BLAKE2s", "BLAKE2b")


class Reference(Protocol):
    """One side of an XX conversation, as another implementation plays it."""

    @property
    def handshake_hash(self) -> bytes: ...
    @property
    def remote_static(self) -> bytes: ...
    def write(self, payload: bytes) -> bytes: ...
    def read(self, message: bytes) -> bytes: ...
    def encrypt(self, plaintext: bytes) -> bytes: ...
    def decrypt(self, ciphertext: bytes) -> bytes: ...
    def rekey_sending(self) -> None: ...
    def rekey_receiving(self) -> None: ...


class NoiseprotocolPeer:
    """``noiseprotocol`` (Noise on the ``cryptography`` package)."""

    def __init__(
        self, *, initiator: bool, prologue: bytes, static: bytes, ephemeral: bytes, hash_name: str = "SHA256"
    ) -> None:
        self._noise = NoiseConnection.from_name(f"Noise_XX_25519_ChaChaPoly_{hash_name}".encode())
        if initiator:
            self._noise.set_as_initiator()
        else:
            self._noise.set_as_responder()
        self._noise.set_prologue(prologue)
        self._noise.set_keypair_from_private_bytes(Keypair.STATIC, static)
        self._noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of ephemeral keypairs is already set", UserWarning)
            self._noise.start_handshake()
        self._state = self._noise.noise_protocol.handshake_state

    @property
    def handshake_hash(self) -> bytes:
        return bytes(self._state.symmetric_state.h)

    @property
    def remote_static(self) -> bytes:
        return bytes(self._state.rs.public_bytes)

    def write(self, payload: bytes) -> bytes:
        return bytes(self._noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self._noise.read_message(message))

    def encrypt(self, plaintext: bytes) -> bytes:
        return bytes(self._noise.encrypt(plaintext))

    def decrypt(self, ciphertext: bytes) -> bytes:
        return bytes(self._noise.decrypt(ciphertext))

    def rekey_sending(self) -> None:
        self._noise.rekey_outbound_cipher()

    def rekey_receiving(self) -> None:
        self._noise.rekey_inbound_cipher()


class DissononcePeer:
    """``dissononce``."""

    _HASHES: Final = {
        "SHA256": SHA256Hash,
        "SHA512": SHA512Hash,
        "BLAKE2s": Blake2sHash,
        "BLAKE2b": Blake2bHash,
    }

    def __init__(
        self, *, initiator: bool, prologue: bytes, static: bytes, ephemeral: bytes, hash_name: str = "SHA256"
    ) -> None:
        dh = X25519DH()
        own: DissononceKeyPair = dh.generate_keypair(PrivateKey(static))
        self._symmetric = SymmetricState(CipherState(ChaChaPolyCipher()), self._HASHES[hash_name]())
        self._state = HandshakeState(self._symmetric, NoGenDH(dh, PrivateKey(ephemeral)))
        self._state.initialize(XXHandshakePattern(), initiator, prologue, s=own)
        self._initiator = initiator
        self._sending = self._receiving = CipherState(ChaChaPolyCipher())
        self._sent = self._received = 0

    @property
    def handshake_hash(self) -> bytes:
        return bytes(self._symmetric.get_handshake_hash())

    @property
    def remote_static(self) -> bytes:
        return bytes(self._state.rs.data)

    def _split(self, ciphers: tuple[CipherState, CipherState] | None) -> None:
        if ciphers is not None:
            self._sending, self._receiving = ciphers if self._initiator else ciphers[::-1]

    def write(self, payload: bytes) -> bytes:
        buffer = bytearray()
        self._split(self._state.write_message(payload, buffer))
        return bytes(buffer)

    def read(self, message: bytes) -> bytes:
        buffer = bytearray()
        self._split(self._state.read_message(message, buffer))
        return bytes(buffer)

    def encrypt(self, plaintext: bytes) -> bytes:
        self._sent += 1
        return bytes(self._sending.encrypt_with_ad(b"", plaintext))

    def decrypt(self, ciphertext: bytes) -> bytes:
        plaintext = bytes(self._receiving.decrypt_with_ad(b"", ciphertext))
        self._received += 1
        return plaintext

    def rekey_sending(self) -> None:
        _rekey(self._sending, self._sent)

    def rekey_receiving(self) -> None:
        _rekey(self._receiving, self._received)


def _rekey(cipher: CipherState, nonce: int) -> None:
    """Rekey as the specification says (§4.2, §5.1): dissononce 0.34.3 keeps the tag as part of the key and
    starts again at nonce 0."""
    cipher.initialize_key(cipher.cipher.rekey(cipher._key)[:32])
    cipher.set_nonce(nonce)


class MakeReference(Protocol):
    def __call__(
        self, *, initiator: bool, prologue: bytes, static: bytes, ephemeral: bytes, hash_name: str = "SHA256"
    ) -> Reference: ...


REFERENCES: Final[dict[str, MakeReference]] = {
    "noiseprotocol": NoiseprotocolPeer,
    "dissononce": DissononcePeer,
}
