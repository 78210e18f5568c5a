"""Signed records: what a node says of itself, portable and checkable without asking the node.

A signed record is ``[body, [[key, signature]…]]`` (docs/protocol.md §1). ``Signed`` is every kind's envelope;
``PeerRecord``, ``ProviderRecord`` and ``CommitReceipt`` are the kinds that a node key signs. Validation is
construction: a ``PeerRecord`` made by ``verify`` has been checked in full, and carries the bytes it came from.
"""

import functools
import hashlib
import ipaddress
import itertools
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, final

from guts import canonical
from guts.addresses import TRANSPORT_TCP, Address
from guts.canonical import Bounds, Value
from guts.errors import PeerFault, Severity
from guts.identity import SIGNATURE_LENGTH, SigningKey, domain, signature_valid
from guts.ids import AuthorId, PeerId, RepositoryId

MAX_SIGNATURES: Final = 64
"""Signatures on one record: 32 maintainers of one epoch and 32 that the next one adds."""

MAX_RECORD_BYTES: Final = 512
"""A PeerRecord or ProviderRecord, so that several fit a DHT datagram of 1,152 bytes."""

MAX_RECEIPT_BYTES: Final = 260
"""A CommitReceipt: its fields have fixed lengths, and the largest numbers make it as long as this."""

HASH_LENGTH: Final = 32

MAX_ADDRESSES: Final = 8
MAX_CAPABILITIES: Final = 8
MAX_CAPABILITY_BYTES: Final = 32
RECORD_LIFE_MS: Final = 24 * 3600 * 1000
MAX_RECORD_LIFE_MS: Final = 48 * 3600 * 1000
"""Nobody may store a record for longer than this, whatever it says of itself."""

PEER_RECORDS_KEPT: Final = 1024
"""Decoded PeerRecords that are kept: the same one comes in a hello, from other peers, from the DHT, from the database.
About 2 MB."""

MAX_SEQ: Final = 2**63 - 1
"""Sequence numbers and times fit a signed 64-bit integer, which is what databases store."""


class InvalidRecord(PeerFault):
    """A record is malformed, or its signature does not cover it."""

    code = "INVALID_RECORD"


class ExpiredRecord(PeerFault):
    """A record's time is over, or its life is longer than any record's may be. Clocks differ: nobody is punished."""

    code: ClassVar[str] = "EXPIRED_RECORD"
    severity: ClassVar[Severity] = Severity.NETWORK


@dataclass(frozen=True, slots=True)
class Signed:
    """The envelope: a body and the signatures over it, keys ascending.

    Attributes:
        body: canonical msgpack.
        signatures: pairs of a 32-byte public key and its 64-byte signature.
    """

    body: bytes
    signatures: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def sign(cls, kind: str, body: bytes, *keys: SigningKey) -> Self:
        """Return ``body`` signed by ``keys`` for the domain of ``kind``."""
        pairs = sorted((key.public, key.sign(domain(kind), body)) for key in keys)
        return cls(body, tuple(pairs))

    @classmethod
    def decode(cls, data: bytes, max_bytes: int) -> Self:
        """Return the envelope in ``data``; the signatures are not yet checked.

        Raises:
            PeerFault: too long, not canonical, no or too many signatures, keys not strictly ascending.
        """
        match canonical.decode(data, Bounds(max_bytes, max_list=MAX_SIGNATURES, max_bin=max_bytes, max_depth=3)):
            case [bytes(body), [_, *_] as pairs]:
                signatures = tuple(_signature(pair) for pair in pairs)
            case _:
                raise InvalidRecord("not [body, signatures]")
        keys = [key for key, _ in signatures]
        if any(a >= b for a, b in itertools.pairwise(keys)):
            raise InvalidRecord("keys are not strictly ascending")
        return cls(body, signatures)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.encode([self.body, [[key, signature] for key, signature in self.signatures]])

    def check(self, kind: str) -> None:
        """Raises: ``InvalidRecord``: a signature does not cover the body in the domain of ``kind``."""
        for key, signature in self.signatures:
            if not signature_valid(key, domain(kind), self.body, signature):
                raise InvalidRecord(f"a signature on this {kind} record is not valid")

    def hash(self, kind: str) -> bytes:
        """Return SHA-256(domain ‖ body): the record's id, the same whoever signed it."""
        return hashlib.sha256(domain(kind) + self.body).digest()


def _signature(pair: Value) -> tuple[bytes, bytes]:
    match pair:
        case [bytes(key), bytes(signature)] if len(key) == 32 and len(signature) == SIGNATURE_LENGTH:
            return key, signature
        case _:
            raise InvalidRecord("not a [key, signature]")


def _pack_addresses(addresses: tuple[Address, ...]) -> list[Value]:
    return [[ipaddress.ip_address(a.ip).packed, a.port, a.transport] for a in addresses]


def _unpack_addresses(value: Value) -> tuple[Address, ...]:
    if not isinstance(value, list) or len(value) > MAX_ADDRESSES:
        raise InvalidRecord("not a list of addresses")
    return tuple(_unpack_address(item) for item in value)


def _unpack_address(value: Value) -> Address:
    match value:
        case [bytes(packed), int(port), str(transport)] if (
            len(packed) in (4, 16) and type(port) is int and 1 <= port <= 65_535 and transport == TRANSPORT_TCP
        ):
            return Address(str(ipaddress.ip_address(packed)), port, transport)
        case _:
            raise InvalidRecord("not an address")


def _number(value: Value) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEQ:
        raise InvalidRecord("not a sequence number or time")
    return value


def _check_life(expires: int, now_ms: int) -> None:
    if not now_ms < expires <= now_ms + MAX_RECORD_LIFE_MS:
        raise ExpiredRecord("the record has expired, or claims a longer life than records have")


def _open(data: bytes, max_bytes: int = MAX_RECORD_BYTES) -> tuple[Signed, Value]:
    """Return the envelope of a node's record, and what its body says; the signature is not yet checked."""
    signed = Signed.decode(data, max_bytes)
    return signed, canonical.decode(signed.body, Bounds(max_bytes, max_list=16, max_depth=3))


def _check_signer(signed: Signed, peer: bytes, kind: str) -> None:
    if [key for key, _ in signed.signatures] != [peer]:
        raise InvalidRecord(f"a {kind} record is signed by the node it speaks of")
    signed.check(kind)


@final
@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a node can be reached and what it does, in its own words.

    Attributes:
        expires: Unix milliseconds.
        seq: the newest of several records is the one with the highest number.
        encoded: the signed bytes.
    """

    KIND: ClassVar[str] = "peer"

    peer: PeerId
    addresses: tuple[Address, ...]
    capabilities: tuple[str, ...]
    seq: int
    expires: int
    encoded: bytes = field(repr=False)

    @classmethod
    def sign(
        cls,
        key: SigningKey,
        addresses: tuple[Address, ...],
        capabilities: tuple[str, ...],
        seq: int,
        expires: int,
    ) -> Self:
        """Return the record that ``key`` signs for itself."""
        caps: list[Value] = list(capabilities)
        body = canonical.encode([key.public, _pack_addresses(addresses), caps, seq, expires])
        signed = Signed.sign(cls.KIND, body, key)
        return cls(key.peer_id, addresses, capabilities, seq, expires, signed.encode())

    @classmethod
    def verify(cls, data: bytes, now_ms: int) -> "PeerRecord":
        """Return the record in ``data``, fully checked.

        Raises:
            InvalidRecord, NotCanonical: malformed, or not signed by the node it speaks of.
            ExpiredRecord: its time is over.
        """
        record = cls.decode(data)
        _check_life(record.expires, now_ms)
        return record

    @classmethod
    def decode(cls, data: bytes) -> "PeerRecord":
        """Return the record in ``data``, checked but for its time: for one that its own node has just sent.

        Raises:
            InvalidRecord, NotCanonical: malformed, or not signed by the node it speaks of.
        """
        return _peer_record(data)


@functools.lru_cache(maxsize=PEER_RECORDS_KEPT)
def _peer_record(data: bytes) -> PeerRecord:
    signed, body = _open(data)
    match body:
        case [bytes(peer), addresses, list(capabilities), seq, expires]:
            pass
        case _:
            raise InvalidRecord("not a peer record")
    _check_signer(signed, peer, PeerRecord.KIND)
    if len(capabilities) > MAX_CAPABILITIES or not all(
        isinstance(c, str) and len(c.encode()) <= MAX_CAPABILITY_BYTES for c in capabilities
    ):
        raise InvalidRecord("not a list of capabilities")
    return PeerRecord(
        PeerId(peer),
        _unpack_addresses(addresses),
        tuple(str(c) for c in capabilities),
        _number(seq),
        _number(expires),
        data,
    )


@final
@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """ "This node holds that repository", in the node's own words.

    Attributes: as in ``PeerRecord``.
    """

    KIND: ClassVar[str] = "provider"

    repository: RepositoryId
    peer: PeerId
    addresses: tuple[Address, ...]
    seq: int
    expires: int
    encoded: bytes = field(repr=False)

    @classmethod
    def sign(
        cls, key: SigningKey, repository: RepositoryId, addresses: tuple[Address, ...], seq: int, expires: int
    ) -> Self:
        """Return the record that ``key`` signs for itself."""
        body = canonical.encode([repository, key.public, _pack_addresses(addresses), seq, expires])
        signed = Signed.sign(cls.KIND, body, key)
        return cls(repository, key.peer_id, addresses, seq, expires, signed.encode())

    @classmethod
    def verify(cls, data: bytes, now_ms: int) -> Self:
        """Return the record in ``data``, fully checked.

        Raises:
            InvalidRecord, NotCanonical: malformed, or not signed by the node it speaks of.
            ExpiredRecord: its time is over.
        """
        signed, body = _open(data)
        match body:
            case [bytes(repository), bytes(peer), addresses, seq, expires] if len(repository) == 32:
                pass
            case _:
                raise InvalidRecord("not a provider record")
        _check_signer(signed, peer, cls.KIND)
        record = cls(
            RepositoryId(repository),
            PeerId(peer),
            _unpack_addresses(addresses),
            _number(seq),
            _number(expires),
            data,
        )
        _check_life(record.expires, now_ms)
        return record


@final
@dataclass(frozen=True, slots=True)
class ReceiptClaim:
    """What a receipt says: "this node committed that record". Nobody has looked at its signature yet.

    Attributes:
        author, seq, hash: of the SignedRefs; ``hash`` is that of its header.
        peer: the node that committed it.
        time_ms: when it says so, by its own clock; Unix milliseconds.
    """

    repository: RepositoryId
    author: AuthorId
    seq: int
    hash: bytes
    peer: PeerId
    time_ms: int

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return what the receipt in ``data`` says; cheap, for who may not need to know whether it is true.

        Raises:
            InvalidRecord, NotCanonical: malformed.
        """
        _, body = _open(data, MAX_RECEIPT_BYTES)
        match body:
            case [bytes(repository), bytes(author), seq, bytes(digest), bytes(peer), time_ms] if all(
                len(value) == HASH_LENGTH for value in (repository, author, digest, peer)
            ):
                return cls(
                    RepositoryId(repository), AuthorId(author), _number(seq), digest, PeerId(peer), _number(time_ms)
                )
            case _:
                raise InvalidRecord("not a receipt")


@final
@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """A receipt, signed by the node that committed the record.

    Attributes:
        encoded: the signed bytes.
    """

    KIND: ClassVar[str] = "receipt"

    claim: ReceiptClaim
    encoded: bytes = field(repr=False)

    @classmethod
    def sign(
        cls, key: SigningKey, repository: RepositoryId, author: AuthorId, seq: int, digest: bytes, time_ms: int
    ) -> Self:
        """Return the receipt of the node of ``key`` for the record of ``author`` with ``seq`` and ``digest``."""
        claim = ReceiptClaim(repository, author, seq, digest, key.peer_id, time_ms)
        body = canonical.encode([repository, author, seq, digest, key.public, time_ms])
        return cls(claim, Signed.sign(cls.KIND, body, key).encode())

    @classmethod
    def verify(cls, data: bytes) -> Self:
        """Return the receipt in ``data``, fully checked; whether that record exists is another question.

        Raises:
            InvalidRecord, NotCanonical: malformed, or not signed by the node it speaks of.
        """
        signed, _ = _open(data, MAX_RECEIPT_BYTES)
        claim = ReceiptClaim.decode(data)
        _check_signer(signed, claim.peer, cls.KIND)
        return cls(claim, data)
