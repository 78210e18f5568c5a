"""Proof that an author signed two histories: it convinces anyone, without asking anyone."""

from dataclasses import dataclass
from typing import Final, Self, final

from guts import canonical
from guts.canonical import Bounds
from guts.errors import PeerFault
from guts.ids import AuthorId
from guts.trust.signed_refs import MAX_HEADER_BYTES, SignedHeader

MAX_PROOF_BYTES: Final = 3 * MAX_HEADER_BYTES + 64


class InvalidProof(PeerFault):
    """What was offered as proof of equivocation proves nothing."""

    code = "INVALID_PROOF"


_LIST_OF_THREE: Final = b"\x93"
"""How msgpack begins one; a signed record is a list of two."""


def is_proof(data: bytes) -> bool:
    """Tell proof of equivocation from a signed document, which shows that an identity has forked."""
    return data.startswith(_LIST_OF_THREE)


@final
@dataclass(frozen=True, slots=True)
class EquivocationProof:
    """Two headers of one author that cannot be in one history.

    Either both have one seq, or ``second`` is newer and its history passes ``first`` by: its predecessor is
    older than ``first``, or it has none.

    Attributes:
        predecessor: the header that ``second`` follows; ``None`` where it follows none, or where both headers
            have one seq.
    """

    first: SignedHeader
    second: SignedHeader
    predecessor: SignedHeader | None = None

    def __post_init__(self) -> None:
        """Raises: ``InvalidProof``: the headers can be in one history."""
        headers = [self.first.header, self.second.header]
        if self.predecessor is not None:
            headers.append(self.predecessor.header)
        if len({(header.repository, header.author) for header in headers}) != 1:
            raise InvalidProof("headers of different authors or repositories")
        first, second = headers[:2]
        if first.seq == second.seq:
            if first.hash >= second.hash or self.predecessor is not None:
                raise InvalidProof("not two headers of one seq, the smaller hash first")
        elif self.predecessor is None:
            if second.previous or second.seq < first.seq:
                raise InvalidProof("the newer header follows another, which is not shown")
        elif second.previous != headers[2].hash or not headers[2].seq < first.seq < second.seq:
            raise InvalidProof("the newer header's history does not pass the older one by")

    @classmethod
    def of(cls, held: SignedHeader, other: SignedHeader, predecessor: SignedHeader | None) -> Self:
        """Return the proof made of the header we hold and those that do not fit with it.

        Raises:
            InvalidProof: they do fit.
        """
        if held.header.seq == other.header.seq:
            first, second = sorted((held, other), key=lambda signed: signed.header.hash)
            return cls(first, second)
        return cls(held, other, predecessor)

    @property
    def author(self) -> AuthorId:
        """Who signed two histories."""
        return self.first.header.author

    @property
    def epoch(self) -> int:
        """The newest epoch of the headers: an identity document after it can settle which one counts."""
        return max(self.first.header.epoch, self.second.header.epoch)

    @property
    def split_seq(self) -> int:
        """Records of the author from this seq on do not count, until an identity document reaffirms one."""
        return min(self.first.header.seq, self.second.header.seq)

    def encode(self) -> bytes:
        """Return the canonical bytes: the signed headers, the predecessor empty where there is none."""
        predecessor = b"" if self.predecessor is None else self.predecessor.encoded
        return canonical.encode([self.first.encoded, self.second.encoded, predecessor])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the proof in ``data``, checked in full.

        Raises:
            PeerFault: malformed, a signature is not valid, or it proves nothing.
        """
        match canonical.decode(data, Bounds(MAX_PROOF_BYTES, max_list=3, max_bin=MAX_HEADER_BYTES, max_depth=1)):
            case [bytes(first), bytes(second), bytes(predecessor)]:
                pass
            case _:
                raise InvalidProof("not a proof of equivocation")
        return cls(
            SignedHeader.decode(first),
            SignedHeader.decode(second),
            SignedHeader.decode(predecessor) if predecessor else None,
        )
