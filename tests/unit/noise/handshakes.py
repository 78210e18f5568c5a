"""Handshakes with fixed keys, for the tests of this folder."""

from guts.noise.cipher import CipherState
from guts.noise.handshake import HandshakeState
from guts.noise.hashes import HashFunction
from guts.noise.keys import KeyPair

PROLOGUE = b"a prologue"

# Any 32 bytes are a private key; these only have to differ.
INITIATOR_STATIC, INITIATOR_EPHEMERAL = b"\x11" * 32, b"\x12" * 32
RESPONDER_STATIC, RESPONDER_EPHEMERAL = b"\x21" * 32, b"\x22" * 32


def initiator(prologue: bytes = PROLOGUE, hash_function: HashFunction = HashFunction.SHA256) -> HandshakeState:
    return HandshakeState(
        initiator=True,
        prologue=prologue,
        static=KeyPair(INITIATOR_STATIC),
        ephemeral=lambda: KeyPair(INITIATOR_EPHEMERAL),
        hash_function=hash_function,
    )


def responder(prologue: bytes = PROLOGUE, hash_function: HashFunction = HashFunction.SHA256) -> HandshakeState:
    return HandshakeState(
        initiator=False,
        prologue=prologue,
        static=KeyPair(RESPONDER_STATIC),
        ephemeral=lambda: KeyPair(RESPONDER_EPHEMERAL),
        hash_function=hash_function,
    )


def finish(alice: HandshakeState, bob: HandshakeState) -> None:
    """Run the handshake from its first message to its last."""
    bob.read_message(alice.write_message(b""))
    alice.read_message(bob.write_message(b"from bob"))
    bob.read_message(alice.write_message(b"from alice"))


def ciphers() -> tuple[CipherState, CipherState]:
    """Return the initiator's sending cipher and the responder's receiving one."""
    alice, bob = initiator(), responder()
    finish(alice, bob)
    return alice.split()[0], bob.split()[1]
