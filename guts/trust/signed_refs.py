"""SignedRefs: one maintainer's snapshot of refs. A signed header, and the entries whose hash it holds."""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self, final

from guts import canonical
from guts.canonical import Bounds
from guts.identity import domain
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.records import MAX_SEQ, Signed
from guts.trust.entries import Entries, InvalidRefs, number
from guts.trust.identity_document import HASH_LENGTH
from guts.trust.ref_names import MAX_REF_BYTES, is_branch

KIND: Final = "refs"
VERSION: Final = 1
MAX_HEADER_BYTES: Final = 1024
"""A header is about 350 bytes, with the longest HEAD about 600."""


@final
@dataclass(frozen=True, slots=True)
class Header:
    """What the signature covers, beside the entries by their hash.

    Attributes:
        epoch: of the identity document that the author knew, with its hash.
        seq: max(seq of the previous record + 1, ``time_ms``).
        previous: hash of the author's header before this; empty in the first.
        time_ms: Unix milliseconds by the author's clock.
        head: full name of the branch that a clone checks out.
        entries_hash: SHA-256 of the encoded entries.
    """

    repository: RepositoryId
    author: AuthorId
    epoch: int
    identity_hash: bytes
    seq: int
    previous: bytes
    time_ms: int
    head: str
    entries_hash: bytes

    def __post_init__(self) -> None:
        """Raises: ``InvalidRefs``: a field breaks a rule."""
        if not 0 <= self.epoch <= MAX_SEQ or not 0 <= self.time_ms <= self.seq or not 1 <= self.seq <= MAX_SEQ:
            raise InvalidRefs("epoch, time or seq is out of range")
        if len(self.identity_hash) != HASH_LENGTH or len(self.entries_hash) != HASH_LENGTH:
            raise InvalidRefs(f"a hash has {HASH_LENGTH} bytes")
        if len(self.previous) not in (0, HASH_LENGTH):
            raise InvalidRefs("not the hash of a header before this one")
        if not is_branch(self.head):
            raise InvalidRefs("HEAD is not the full name of a branch")

    @property
    def body(self) -> bytes:
        """The canonical bytes that are signed and hashed."""
        return canonical.encode(
            [
                VERSION,
                self.repository,
                self.author,
                self.epoch,
                self.identity_hash,
                self.seq,
                self.previous,
                self.time_ms,
                self.head,
                self.entries_hash,
            ]
        )

    @property
    def hash(self) -> bytes:
        """SHA-256(domain ‖ body), 32 bytes: what names this record."""
        return hashlib.sha256(domain(KIND) + self.body).digest()

    @classmethod
    def decode_body(cls, body: bytes) -> Self:
        """Return the header whose body ``body`` is.

        Raises:
            NotCanonical, InvalidRefs: malformed.
        """
        bounds = Bounds(MAX_HEADER_BYTES, max_list=10, max_str=MAX_REF_BYTES, max_bin=HASH_LENGTH, max_depth=1)
        match canonical.decode(body, bounds):
            case [
                version,
                bytes(repository),
                bytes(author),
                epoch,
                bytes(identity_hash),
                seq,
                bytes(previous),
                time_ms,
                str(head),
                bytes(entries_hash),
            ] if number(version) == VERSION and len(repository) == len(author) == 32:
                pass
            case _:
                raise InvalidRefs("not the header of a record of version 1")
        return cls(
            RepositoryId(repository),
            AuthorId(author),
            number(epoch),
            identity_hash,
            number(seq),
            previous,
            number(time_ms),
            head,
            entries_hash,
        )


@final
@dataclass(frozen=True, slots=True)
class SignedHeader:
    """A header whose signature has been checked: what bridges a gap, and what proofs are made of.

    Attributes:
        encoded: the signed bytes.
    """

    header: Header
    encoded: bytes = field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the signed header in ``data``.

        Raises:
            NotCanonical, InvalidRecord, InvalidRefs: malformed, or not signed by its author alone.
        """
        signed = Signed.decode(data, MAX_HEADER_BYTES)
        header = Header.decode_body(signed.body)
        if [key for key, _ in signed.signatures] != [header.author]:
            raise InvalidRefs("a record is signed by the author that it names, and by nobody else")
        signed.check(KIND)
        return cls(header, data)


@final
@dataclass(frozen=True, slots=True)
class SignedRefs:
    """A whole record. Shape, names, signature and hash of the entries have been checked; policy has not."""

    KIND: ClassVar[str] = KIND

    header: Header
    entries: Entries
    header_bytes: bytes = field(repr=False)
    entries_bytes: bytes = field(repr=False)

    @classmethod
    def decode(cls, header: bytes, entries: bytes) -> Self:
        """Return the record made of these signed ``header`` bytes and these ``entries`` bytes.

        Cheap checks come first: no entry is decoded before the signature and the hash are right.

        Raises:
            NotCanonical, InvalidRecord, InvalidRefs: malformed, forged, or not made for each other.
        """
        signed = SignedHeader.decode(header)
        if hashlib.sha256(entries).digest() != signed.header.entries_hash:
            raise InvalidRefs("the entries are not those that the header was signed with")
        decoded = Entries.decode(entries)
        if decoded.last_seq() > signed.header.seq:
            raise InvalidRefs("an entry was set after the record was signed")
        if decoded.seen.get(signed.header.author):
            raise InvalidRefs("an author does not list what it has seen of itself")
        return cls(signed.header, decoded, header, entries)

    @property
    def author(self) -> AuthorId:
        """Who signed it."""
        return self.header.author

    @property
    def seq(self) -> int:
        """Its sequence number."""
        return self.header.seq

    @property
    def hash(self) -> bytes:
        """The hash of its header: what names it."""
        return self.header.hash

    @property
    def signed_header(self) -> SignedHeader:
        """The header, as it is kept and sent to bridge gaps."""
        return SignedHeader(self.header, self.header_bytes)

    def tips(self) -> frozenset[ObjectId]:
        """Return the objects that its refs point at."""
        return frozenset(self.entries.live().values())
