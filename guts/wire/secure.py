"""``SecureChannel``: raw bytes of a connection <-> authenticated plaintexts (docs/protocol.md §2).

Noise messages with a 2-byte length in front; the XX handshake, whose second and third message carry a
signature that binds the sender's Noise static key to its node key; then transport messages, with new keys
after every 65,536 of them.

Sans-IO. Bytes that arrive go to ``receive``, plaintexts to ``send``, bytes to write come out of ``take``. The
channel keeps no time: whoever owns it closes the connection when ``established`` takes too long.

Everything wrong raises a ``PeerFault`` and kills the channel. It then has nothing more to say (what was
waiting in ``take`` is dropped): an answer to a malformed or foreign conversation only helps attackers. Until
the handshake is done nobody has proved who sent the bytes, and afterwards anyone on the path can alter them,
so every fault here has the severity ``NETWORK``: the connection ends, no score changes.

Not promised: that the other side is who the person meant (``expected`` checks that where an id is known),
that lengths and times stay hidden, or that the last message was the last one that the peer sent. A dialler is
``established`` when the listener has proved itself; that the listener accepts the dialler too shows only in the
first plaintext that comes back.
"""

import hashlib
from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final, final

from guts import canonical
from guts.canonical import Bounds, NotCanonical
from guts.errors import PeerFault, Severity
from guts.identity import SIGNATURE_LENGTH, SigningKey, domain, signature_valid
from guts.ids import PeerId
from guts.noise.cipher import TAG_LENGTH, CipherState, DecryptFailed
from guts.noise.handshake import HandshakeState
from guts.noise.keys import DH_LENGTH, HandshakeFailed, KeyPair
from guts.wire.limits import MAX_PLAINTEXT

PROTOCOL_MAJOR: Final = 1
"""Part of the prologue: nodes of different majors fail the handshake."""

LENGTH_BYTES: Final = 2
"""Big-endian length in front of every Noise message; enough for the longest one (Noise rev 34 §3)."""

MESSAGE_1_BYTES: Final = DH_LENGTH
"""The first message is an ephemeral key and nothing else; any other length is refused before any crypto."""

MAX_HANDSHAKE_MESSAGE: Final = 1024
"""Messages 2 and 3: keys, tags and a credential are below 250 bytes; the rest is room for a later version."""

REKEY_INTERVAL: Final = 65_536
"""Transport messages of one direction under one key; both sides count."""

CREDENTIAL_VERSION: Final = 1
NOT_OUR_NETWORK: Final = "other network or protocol version, or not a Guts node"

_CREDENTIAL_BOUNDS: Final = Bounds(MAX_HANDSHAKE_MESSAGE, max_list=3, max_str=0, max_bin=64, max_depth=1)
_HANDSHAKE_DOMAIN: Final = domain("handshake")
_INITIATOR, _RESPONDER = b"\0", b"\1"


class Direction(Enum):
    """Who opened a connection."""

    OUTBOUND = "outbound"
    """We dialled: Noise initiator."""

    INBOUND = "inbound"
    """The other side dialled: we are the Noise responder."""


class UnexpectedPeer(PeerFault):
    """Another node than the one we meant to dial answered at this address."""

    code: ClassVar[str] = "UNEXPECTED_PEER"
    severity: ClassVar[Severity] = Severity.NETWORK

    def __init__(self, expected: PeerId, actual: PeerId) -> None:
        super().__init__(f"expected {expected}, met {actual}")
        self.expected = expected
        self.actual = actual


class MetSelf(PeerFault):
    """The other side has our own node key: an address of our own, or a copy of our key."""

    code: ClassVar[str] = "MET_SELF"
    severity: ClassVar[Severity] = Severity.NETWORK


@final
class SecureChannel:
    """One side of one encrypted connection.

    Attributes:
        direction: who dialled.
        peer: the other side's proven id, once its credential was checked.
        handshake_hash: channel binding (32 bytes, Noise rev 34 §11.2), once established.
    """

    __slots__ = (
        "_expected",
        "_fault",
        "_incoming",
        "_key",
        "_network",
        "_outgoing",
        "_reading",
        "_sending",
        "_static",
        "buffered",
        "direction",
        "handshake_hash",
        "peer",
    )

    def __init__(
        self,
        *,
        direction: Direction,
        network: str,
        key: SigningKey,
        static: KeyPair,
        ephemeral: Callable[[], KeyPair],
        expected: PeerId | None = None,
    ) -> None:
        """Start. The dialler's first message is ready in ``take`` at once.

        Args:
            direction: our role.
            network: name of the network; both sides need the same.
            key: our node key.
            static: our Noise static key, fresh per process.
            ephemeral: makes a new key pair per call.
            expected: whom we dial, where known; nobody else learns who we are.
        """
        self.direction = direction
        self.peer: PeerId | None = None
        self.handshake_hash: bytes | None = None
        self.buffered = 0
        self._network = hashlib.sha256(network.encode()).digest()
        self._key = key
        self._static = static
        self._expected = expected
        self._incoming = bytearray()
        self._outgoing: list[bytes] = []
        self._sending: CipherState | None = None
        self._fault: PeerFault | None = None
        handshake = HandshakeState(
            initiator=direction is Direction.OUTBOUND,
            prologue=b"GUTS" + bytes([PROTOCOL_MAJOR]) + self._network,
            static=static,
            ephemeral=ephemeral,
        )
        # What reads the next message: first the handshake, then the cipher that it leaves behind.
        self._reading: HandshakeState | CipherState = handshake
        if direction is Direction.OUTBOUND:
            self._write(handshake.write_message(b""))

    @property
    def established(self) -> bool:
        """Whether plaintexts can be sent: the handshake is done and nothing went wrong."""
        return self._sending is not None

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes as they arrived, in any pieces, and return the plaintexts that are complete with them.

        At most one incomplete message (65,537 bytes) is kept. When a message is bad, good ones before it in
        the same ``data`` are lost with the connection.

        Raises:
            HandshakeFailed: other network, other protocol, bad length or bad credential.
            UnexpectedPeer, MetSelf: the dial reached someone else, or ourselves.
            DecryptFailed: a transport message is not authentic.
            PeerFault: the channel was dead already; the fault that killed it.
        """
        if self._fault is not None:
            raise self._fault
        try:
            return self._receive(data)
        except PeerFault as fault:
            self._fault = fault
            self._sending = None
            self._incoming.clear()
            self.take()
            raise

    def send(self, plaintext: bytes) -> None:
        """Encrypt one transport message of 0..65,519 bytes; its bytes wait in ``take``.

        Raises:
            AssertionError: not ``established``, or too long.
        """
        if self._sending is None:
            raise AssertionError("send on a channel that is not established")
        if len(plaintext) > MAX_PLAINTEXT:
            raise AssertionError(f"a plaintext of {len(plaintext)} bytes; {MAX_PLAINTEXT} fit")
        self._write(self._sending.encrypt_with_ad(b"", plaintext))
        _rekey_when_due(self._sending)

    def take(self) -> bytes:
        """Return the bytes to write, and forget them. ``buffered`` says how many there are."""
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        self.buffered = 0
        return data

    def _write(self, message: bytes) -> None:
        self._outgoing += (len(message).to_bytes(LENGTH_BYTES, "big"), message)
        self.buffered += LENGTH_BYTES + len(message)

    def _receive(self, data: bytes) -> list[bytes]:
        buffer = self._incoming
        if not buffer:
            # Reads that end where a message ends, as those of a busy stream do, are never copied together.
            plaintexts, at = self._read_messages(data)
            buffer += data[at:]
            return plaintexts
        buffer += data
        plaintexts, at = self._read_messages(buffer)
        del buffer[:at]
        return plaintexts

    def _read_messages(self, data: bytes | bytearray) -> tuple[list[bytes], int]:
        """Return the plaintexts of the whole messages at the start of ``data``, and where they end."""
        plaintexts: list[bytes] = []
        at, end = 0, len(data)
        with memoryview(data) as view:
            while end - at >= LENGTH_BYTES:
                length = view[at] << 8 | view[at + 1]
                self._check_length(length)
                start = at + LENGTH_BYTES
                if end - start < length:
                    break
                at = start + length
                message = bytes(view[start:at])
                if isinstance(self._reading, CipherState):
                    plaintexts.append(self._reading.decrypt_with_ad(b"", message))
                    _rekey_when_due(self._reading)
                else:
                    self._continue(self._reading, message)
        return plaintexts, at

    def _check_length(self, length: int) -> None:
        """Refuse a length from its two bytes alone, before anything waits or is allocated for it."""
        if isinstance(self._reading, CipherState):
            if length < TAG_LENGTH:
                raise DecryptFailed(f"a transport message of {length} bytes")
        elif self._reading.step == 0:
            if length != MESSAGE_1_BYTES:
                raise HandshakeFailed(f"a first message of {length} bytes: not a Guts node")
        elif not 1 <= length <= MAX_HANDSHAKE_MESSAGE:
            raise HandshakeFailed(NOT_OUR_NETWORK)

    def _continue(self, handshake: HandshakeState, message: bytes) -> None:
        """Read one handshake message, and write the next if there is one."""
        before = handshake.handshake_hash
        try:
            payload = handshake.read_message(message)
        except DecryptFailed:
            raise HandshakeFailed(NOT_OUR_NETWORK) from None
        if handshake.remote_static is not None:
            role = _RESPONDER if handshake.initiator else _INITIATOR
            self.peer = self._check_credential(payload, role, before, handshake.remote_static)
        if handshake.writes_next:
            role = _INITIATOR if handshake.initiator else _RESPONDER
            self._write(handshake.write_message(self._credential(role, handshake.handshake_hash)))
        if handshake.finished:
            self.handshake_hash = handshake.handshake_hash
            # The ephemeral and the chaining key go with it: keys in use never lead back to older ones.
            self._sending, self._reading = handshake.split()

    def _credential(self, role: bytes, before: bytes) -> bytes:
        """Return our payload for the handshake message that is begun at the handshake hash ``before``."""
        signature = self._key.sign(_HANDSHAKE_DOMAIN, role + self._network + before + self._static.public)
        return canonical.encode([CREDENTIAL_VERSION, self._key.public, signature])

    def _check_credential(self, payload: bytes, role: bytes, before: bytes, remote_static: bytes) -> PeerId:
        """Return who sent ``payload``, in a message that was begun at the handshake hash ``before``.

        Raises:
            HandshakeFailed: not a credential, or not one for this role, network, history and static key.
            MetSelf, UnexpectedPeer: valid, but not whom we want to talk to.
        """
        try:
            value = canonical.decode(payload, _CREDENTIAL_BOUNDS)
        except NotCanonical:
            raise HandshakeFailed("the credential is not canonical") from None
        match value:
            # bool is a kind of int, and True == 1; only the number is a version.
            case [version, bytes(public), bytes(signature)] if (
                type(version) is int
                and version == CREDENTIAL_VERSION
                and len(public) == PeerId.LENGTH
                and len(signature) == SIGNATURE_LENGTH
            ):
                pass
            case _:
                raise HandshakeFailed("not a credential of version 1")
        body = role + self._network + before + remote_static
        if not signature_valid(public, _HANDSHAKE_DOMAIN, body, signature):
            raise HandshakeFailed("the credential's signature is not valid")
        peer = PeerId(public)
        if public == self._key.public:
            raise MetSelf("met a node with our own key")
        if self._expected is not None and peer != self._expected:
            raise UnexpectedPeer(self._expected, peer)
        return peer


def _rekey_when_due(cipher: CipherState) -> None:
    """Rekey after every ``REKEY_INTERVAL`` messages; the cipher's nonce, which goes on, is the count."""
    if cipher.n % REKEY_INTERVAL == 0:
        cipher.rekey()
