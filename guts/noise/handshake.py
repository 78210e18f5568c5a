"""``HandshakeState`` (Noise rev 34 §5.3) for the interactive pattern XX (§7.5)::

    XX:
      -> e
      <- e, ee, s, es
      -> s, se

Both static keys travel encrypted; each side knows the other's when the handshake is done.
"""

from collections.abc import Callable
from typing import Final, final

from guts.noise.cipher import MAX_MESSAGE, TAG_LENGTH, CipherState
from guts.noise.hashes import HashFunction
from guts.noise.keys import DH_LENGTH, HandshakeFailed, KeyPair
from guts.noise.symmetric import SymmetricState

XX: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
"""Tokens of each message; the initiator writes the first."""


@final
class HandshakeState:
    """One side of one handshake. Messages are written and read in turn until ``finished``; then ``split``.

    A state that raised a fault is spent: drop it.

    Attributes:
        initiator: whether this side wrote the first message.
        remote_static: the other side's static public key (32 bytes), once its message was read.
        step: messages written and read so far, 0..3.
    """

    __slots__ = ("_e", "_ephemeral", "_re", "_s", "_symmetric", "initiator", "remote_static", "step")

    def __init__(
        self,
        *,
        initiator: bool,
        prologue: bytes,
        static: KeyPair,
        ephemeral: Callable[[], KeyPair],
        hash_function: HashFunction = HashFunction.SHA256,
    ) -> None:
        """Initialize. ``ephemeral`` is called once, when the own ephemeral key is needed; it must never
        return the same key pair twice."""
        name = f"Noise_XX_25519_ChaChaPoly_{hash_function.name}".encode("ascii")
        self._symmetric = SymmetricState(name, hash_function)
        self._symmetric.mix_hash(prologue)
        self.initiator = initiator
        self._s = static
        self._ephemeral = ephemeral
        self._e: KeyPair | None = None
        self._re: bytes | None = None
        self.remote_static: bytes | None = None
        self.step = 0

    @property
    def handshake_hash(self) -> bytes:
        """The hash of prologue and all handshake bytes so far; when finished, the channel binding (§11.2)."""
        return self._symmetric.h

    @property
    def finished(self) -> bool:
        """Whether all messages of the pattern were written and read."""
        return self.step == len(XX)

    @property
    def writes_next(self) -> bool:
        """Whether the next message is this side's to write."""
        return not self.finished and (self.step % 2 == 0) == self.initiator

    def write_message(self, payload: bytes) -> bytes:
        """Return the next handshake message, carrying ``payload`` (in clear in the first message).

        Raises:
            HandshakeFailed: the other side's public key has low order.
            AssertionError: it is not this side's turn, or the message would exceed 65,535 bytes.
        """
        if not self.writes_next:
            raise AssertionError("not this side's turn to write")
        parts: list[bytes] = []
        for token in XX[self.step]:
            match token:
                case "e":
                    self._e = self._ephemeral()
                    parts.append(self._e.public)
                    self._symmetric.mix_hash(self._e.public)
                case "s":
                    parts.append(self._symmetric.encrypt_and_hash(self._s.public))
                case _:
                    self._mix_dh(token)
        parts.append(self._symmetric.encrypt_and_hash(payload))
        self.step += 1
        message = b"".join(parts)
        if len(message) > MAX_MESSAGE:
            raise AssertionError(f"a handshake message of {len(message)} bytes")
        return message

    def read_message(self, message: bytes) -> bytes:
        """Return the payload of the other side's next handshake message.

        Raises:
            HandshakeFailed: too short, or a public key of low order.
            guts.noise.cipher.DecryptFailed: altered, or made for another prologue or history.
            AssertionError: it is not the other side's turn.
        """
        if self.finished or self.writes_next:
            raise AssertionError("not this side's turn to read")
        at = 0
        for token in XX[self.step]:
            match token:
                case "e":
                    self._re, at = _take(message, at, DH_LENGTH)
                    self._symmetric.mix_hash(self._re)
                case "s":
                    # XX sends static keys only after a DH, so they always travel with a tag.
                    encrypted, at = _take(message, at, DH_LENGTH + TAG_LENGTH)
                    self.remote_static = self._symmetric.decrypt_and_hash(encrypted)
                case _:
                    self._mix_dh(token)
        payload = self._symmetric.decrypt_and_hash(message[at:])
        self.step += 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers for sending and for receiving transport messages, in this side's order.

        Raises:
            AssertionError: the handshake is not finished.
        """
        if not self.finished:
            raise AssertionError("split before the handshake is finished")
        c1, c2 = self._symmetric.split()
        return (c1, c2) if self.initiator else (c2, c1)

    def _mix_dh(self, token: str) -> None:
        """Mix in the DH of a token: its first letter is the initiator's key, its second the responder's."""
        own, other = (token[0], token[1]) if self.initiator else (token[1], token[0])
        key = self._e if own == "e" else self._s
        public = self._re if other == "e" else self.remote_static
        if key is None or public is None:
            raise AssertionError(f"token {token} before its keys")
        self._symmetric.mix_key(key.exchange(public))


def _take(message: bytes, at: int, length: int) -> tuple[bytes, int]:
    """Return ``length`` bytes of ``message`` from ``at``, and where they end."""
    end = at + length
    if len(message) < end:
        raise HandshakeFailed(f"a handshake message of {len(message)} bytes is too short")
    return message[at:end], end
