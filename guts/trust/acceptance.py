"""What a replica does with a SignedRefs record that it is offered (DESIGN §6, "Acceptance").

``accept`` is the part that needs no objects: identity, seq, time and descent. Its answer is one of the
``Decision`` values; a ``PeerFault`` is raised only for what no honest peer relays. ``ref_changes`` then says
which changes git must find to be fast-forward before the record may be committed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, final

from guts.errors import PeerFault, Severity
from guts.ids import AuthorId, ObjectId
from guts.trust.chain import IdentityChain
from guts.trust.entries import Seen
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import Header, SignedHeader, SignedRefs

MAX_AHEAD_MS: Final = 10 * 60 * 1000
"""How far a record may be ahead of this node's clock. More waits: a stolen key cannot burn the seqs to come."""

MAX_BRIDGE: Final = 1_000
"""Headers that close a gap: as many as replicas keep of one author."""


class WrongRepository(PeerFault):
    """A record, or a header, of another repository than was asked about."""

    code = "WRONG_REPOSITORY"


class NotMaintainer(PeerFault):
    """A record by somebody whom the identity document that it names does not list."""

    code = "NOT_MAINTAINER"


class InvalidBridge(PeerFault):
    """Headers that should lead from one record to another do not."""

    code = "INVALID_BRIDGE"


class InconsistentRefs(PeerFault):
    """A record contradicts an older one of its author. A relay that lacks the older one cannot know."""

    code = "INCONSISTENT_REFS"
    severity: ClassVar[Severity] = Severity.MINOR


@final
@dataclass(frozen=True, slots=True)
class Known:
    """The newest record of an author that this node accepted: seq and header hash."""

    seq: int
    hash: bytes


@final
@dataclass(frozen=True, slots=True)
class New:
    """Newer, and descends from what is known: fetch its objects, then commit."""


@final
@dataclass(frozen=True, slots=True)
class Duplicate:
    """Exactly what is known already."""


@final
@dataclass(frozen=True, slots=True)
class Stale:
    """Older than what is known. Never goes back."""


@final
@dataclass(frozen=True, slots=True)
class Ahead:
    """Ahead of this node's clock: offer it again at ``until_ms`` (Unix milliseconds). Nobody is punished."""

    until_ms: int


@final
@dataclass(frozen=True, slots=True)
class NeedsIdentity:
    """Signed under a newer epoch than is known here: get the identity documents up to ``epoch`` first."""

    epoch: int


@final
@dataclass(frozen=True, slots=True)
class OtherIdentity:
    """Signed under another document of ``epoch`` than the one in our chain: the identity has forked."""

    epoch: int


@final
@dataclass(frozen=True, slots=True)
class PastLimit:
    """After the author's last record that counts: removed since, or on the branch that was not reaffirmed."""


@final
@dataclass(frozen=True, slots=True)
class Suspended:
    """The author signed two histories, and no identity document has said since which one counts."""


@final
@dataclass(frozen=True, slots=True)
class Unseen:
    """The author had seen records of others that are not known here: get those first (author, seq)."""

    missing: tuple[tuple[AuthorId, int], ...]


@final
@dataclass(frozen=True, slots=True)
class Gap:
    """Headers are missing between what is known and the record.

    Attributes:
        hash: of the newest missing header.
        before_seq: it is older than this.
    """

    hash: bytes
    before_seq: int


@final
@dataclass(frozen=True, slots=True)
class Fork:
    """The author's history split: this record's does not contain what is known. Keep and relay the proof.

    Attributes:
        header: the header that does not fit.
        predecessor: the one that it follows, where the proof needs it.
    """

    header: SignedHeader
    predecessor: SignedHeader | None

    def proof(self, held: SignedHeader) -> EquivocationProof:
        """Return the proof; ``held`` is the header of the known record."""
        return EquivocationProof.of(held, self.header, self.predecessor)


Decision = New | Duplicate | Stale | Ahead | NeedsIdentity | OtherIdentity | PastLimit | Suspended | Unseen | Gap | Fork

_NOBODY: Final[Mapping[AuthorId, int]] = MappingProxyType({})
_NO_PROOFS: Final[Mapping[AuthorId, EquivocationProof]] = MappingProxyType({})


def accept(
    chain: IdentityChain,
    known: Known | None,
    candidate: SignedRefs,
    bridge: Sequence[SignedHeader],
    now_ms: int,
    *,
    others: Mapping[AuthorId, int] = _NOBODY,
    proofs: Mapping[AuthorId, EquivocationProof] = _NO_PROOFS,
) -> Decision:
    """Decide about ``candidate``.

    Args:
        chain: of the repository that was asked about.
        known: the newest record of the candidate's author that was accepted here and still counts
            (``canonical_refs.within_limit``).
        bridge: headers of the author that lead to the candidate, oldest first; empty where none came along.
        now_ms: Unix milliseconds.
        others: the highest seq known here of each other maintainer.
        proofs: of equivocation, those that are held, by author. Nobody waits for what an author whose history split
            had published.

    Raises:
        WrongRepository, NotMaintainer, InvalidBridge: what no honest peer relays.
    """
    header = candidate.header
    if header.repository != chain.repository:
        raise WrongRepository("a record of another repository")
    if header.epoch > chain.epoch:
        return NeedsIdentity(header.epoch)
    document = chain.history[header.epoch]
    if header.identity_hash != document.hash:
        return OtherIdentity(header.epoch)
    if header.author not in document.maintainers:
        raise NotMaintainer("a record by somebody who is no maintainer")
    if past_limit(chain, header):
        return PastLimit()
    if suspended(chain, proofs.get(header.author), header):
        return Suspended()
    if known is not None and header.seq <= known.seq:
        if header.seq < known.seq:
            return Stale()
        return Duplicate() if header.hash == known.hash else Fork(candidate.signed_header, None)
    # What it has seen too: nobody has seen a record that had to wait.
    latest = max((seq for _, seq in candidate.entries.seen.pairs), default=0)
    ahead_ms = max(header.seq, header.time_ms, latest) - now_ms - MAX_AHEAD_MS
    if ahead_ms > 0:
        return Ahead(now_ms + ahead_ms)
    unseen = tuple(
        (author, seq)
        for author, last in candidate.entries.seen.pairs
        if others.get(author, 0) < (seq := _reachable(chain, author, last)) and not freezes(chain, proofs.get(author))
    )
    if unseen:
        return Unseen(unseen)
    if known is None:
        return New()
    return _descent(known, candidate.signed_header, bridge, chain.last_limit(header.author))


def _reachable(chain: IdentityChain, author: AuthorId, seq: int) -> int:
    """Return how far an author who was seen at ``seq`` must be known here: nobody has what was cut off since."""
    limit = chain.last_limit(author)
    return seq if limit is None else min(seq, limit.seq)


def settles(chain: IdentityChain, proof: EquivocationProof) -> bool:
    """Tell whether an identity document since the split says which record of the author counts.

    So it does where it has cut one of the two headers off: an author whose record was reaffirmed goes on from that
    one, past those which came after it.
    """
    if chain.limit(proof.author, proof.epoch) is not None:
        return True
    headers = (proof.first.header, proof.second.header)
    return any(past_limit(chain, header) for header in headers)


def concerns(chain: IdentityChain, proof: EquivocationProof) -> bool:
    """Tell whether ``proof`` is about what a maintainer signed: each header under a document that lists its author.

    Otherwise its headers could name any epoch, and no document could ever settle it.
    """
    headers = [proof.first.header, proof.second.header]
    headers += [proof.predecessor.header] if proof.predecessor is not None else []
    return all(
        header.epoch <= chain.epoch
        and header.identity_hash == chain.history[header.epoch].hash
        and header.author in chain.history[header.epoch].maintainers
        for header in headers
    )


def freezes(chain: IdentityChain, proof: EquivocationProof | None) -> bool:
    """Tell whether the author whom ``proof`` is about can't go on: no identity document has settled the split."""
    return proof is not None and not settles(chain, proof)


def suspended(chain: IdentityChain, proof: EquivocationProof | None, header: Header) -> bool:
    """Tell whether ``header`` is on a branch of a split history, and no document has said which one counts."""
    return proof is not None and header.seq >= proof.split_seq and not settles(chain, proof)


def past_limit(chain: IdentityChain, header: Header) -> bool:
    """Tell whether an identity document has cut the author's history off before ``header``."""
    limit = chain.limit(header.author, header.epoch)
    if limit is None or header.seq < limit.seq:
        return False
    return header.seq > limit.seq or header.hash != limit.hash


def _descent(
    known: Known, newest: SignedHeader, bridge: Sequence[SignedHeader], decreed: AuthorPoint | None
) -> New | Gap | Fork:
    """Walk from ``newest`` back to ``known``, or to the newer record that an identity document names.

    Raises:
        InvalidBridge: the headers given do not follow one another up to ``newest``.
    """
    if len(bridge) > MAX_BRIDGE:
        raise InvalidBridge(f"more than {MAX_BRIDGE} headers")
    ends = {known.hash}
    if decreed is not None and decreed.seq > known.seq:
        if newest.header.hash == decreed.hash:
            return New()
        ends.add(decreed.hash)
    child = newest
    for parent in reversed(bridge):
        if child.header.previous in ends:
            return New()
        if (parent.header.repository, parent.header.author) != (newest.header.repository, newest.header.author):
            raise InvalidBridge("a header of another author or repository")
        if child.header.previous != parent.header.hash or child.header.seq <= parent.header.seq:
            raise InvalidBridge("headers do not follow one another")
        if parent.header.seq == known.seq:
            return Fork(parent, None)
        if parent.header.seq < known.seq:
            return Fork(child, parent)
        child = parent
    if child.header.previous in ends:
        return New()
    if not child.header.previous:
        return Fork(child, None)
    return Gap(child.header.previous, child.header.seq)


@final
@dataclass(frozen=True, slots=True)
class RefChange:
    """A ref of the author that moved since the record held here.

    Attributes:
        new: ``None``: deleted.
        allowed: marked as forced since the held record. Otherwise the record may be committed only if ``old``
            is an ancestor of ``new``, which git must say.
    """

    ref: str
    old: ObjectId
    new: ObjectId | None
    allowed: bool


def ref_changes(held: SignedRefs | None, candidate: SignedRefs) -> tuple[RefChange, ...]:
    """Return the refs that point elsewhere in ``candidate`` than in ``held``, the author's record held here.

    Raises:
        InconsistentRefs: an entry changed without a new seq, or got a seq from before the held record.
    """
    if held is None:
        return ()
    changes: list[RefChange] = []
    for ref, entry in candidate.entries.refs.items():
        before = held.entries.refs.get(ref)
        if entry == before:
            continue
        if entry.seq <= held.seq:
            raise InconsistentRefs("an entry changed without a new seq")
        if before is not None and before.oid is not None and entry.oid != before.oid:
            changes.append(RefChange(ref, before.oid, entry.oid, entry.forced > held.seq))
    if _head(candidate) != _head(held) and candidate.entries.head_seq <= held.seq:
        raise InconsistentRefs("HEAD changed without a new seq")
    return tuple(changes)


def _head(record: SignedRefs) -> tuple[str, int, Seen]:
    return record.header.head, record.entries.head_seq, record.entries.head_seen
