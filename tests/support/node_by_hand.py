"""A node's handshake written from docs/protocol.md §2 alone, on another Noise implementation than ours.

As an oracle it does what the page says. As an attacker it says whatever ``credential`` it is given.
"""

import hashlib
from typing import Final

from nacl.public import PrivateKey
from nacl.signing import SigningKey, VerifyKey

from tests.support.noise_references import MakeReference, NoiseprotocolPeer

INITIATOR: Final = b"\x00"
RESPONDER: Final = b"\x01"


def frame(message: bytes) -> bytes:
    """Return a Noise message as it travels: length first."""
    return len(message).to_bytes(2, "big") + message


class NodeByHand:
    """One side of one connection.

    Attributes:
        before: the handshake hash before the credential that was written or read last.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        seed: bytes,
        network: str = "test",
        static: bytes = b"\x71" * 32,
        ephemeral: bytes = b"\x72" * 32,
        major: int = 1,
        make: MakeReference = NoiseprotocolPeer,
    ) -> None:
        self.initiator = initiator
        self.key = SigningKey(seed)
        self.network = hashlib.sha256(network.encode()).digest()
        self._static = static
        self.noise = make(
            initiator=initiator,
            prologue=b"GUTS" + bytes([major]) + self.network,
            static=static,
            ephemeral=ephemeral,
        )
        self.before = b""

    @property
    def public(self) -> bytes:
        return bytes(self.key.verify_key)

    @property
    def static_public(self) -> bytes:
        return bytes(PrivateKey(self._static).public_key)

    def sign(self, *, role: bytes, network: bytes, before: bytes, static: bytes) -> bytes:
        return self.key.sign(b"guts/handshake/1\0" + role + network + before + static).signature

    def signature(self) -> bytes:
        """Return the signature for the message that is written next."""
        return self.sign(
            role=INITIATOR if self.initiator else RESPONDER,
            network=self.network,
            before=self.noise.handshake_hash,
            static=self.static_public,
        )

    def credential(self, signature: bytes) -> bytes:
        """Return ``[1, key, signature]`` in canonical msgpack."""
        return b"\x93\x01" + b"\xc4\x20" + self.public + b"\xc4\x40" + signature

    def hello(self) -> bytes:
        """Return message 1, framed."""
        return frame(self.noise.write(b""))

    def hear_hello(self, data: bytes) -> None:
        """Read message 1, framed."""
        assert data[:2] == b"\x00\x20"
        assert self.noise.read(data[2:]) == b""

    def introduce(self, credential: bytes | None = None) -> bytes:
        """Return message 2 or 3, framed, with ``credential`` or an honest one."""
        self.before = self.noise.handshake_hash
        return frame(self.noise.write(self.credential(self.signature()) if credential is None else credential))

    def meet(self, data: bytes) -> bytes:
        """Read message 2 or 3, framed, check its credential, and return the node key in it."""
        assert int.from_bytes(data[:2], "big") == len(data) - 2
        self.before = self.noise.handshake_hash
        payload = self.noise.read(data[2:])
        assert (payload[:4], payload[36:38], len(payload)) == (b"\x93\x01\xc4\x20", b"\xc4\x40", 102)
        key, signature = payload[4:36], payload[38:]
        role = RESPONDER if self.initiator else INITIATOR
        signed = b"guts/handshake/1\0" + role + self.network + self.before + self.noise.remote_static
        VerifyKey(key).verify(signed, signature)
        return key

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return a transport message, framed."""
        return frame(self.noise.encrypt(plaintext))

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext of one framed transport message."""
        assert int.from_bytes(data[:2], "big") == len(data) - 2
        return self.noise.decrypt(data[2:])
