"""From what a peer offers to what may be fetched: the part of acceptance that needs no objects (DESIGN §6).

Pure, and possibly slow (thousands of signatures, megabytes of entries): callers run it in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, assert_never

from guts.errors import GutsError, Unavailable
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.store.accepted import StoredRepository
from guts.store.history import IdentityFork
from guts.trust.acceptance import (
    MAX_BRIDGE,
    Ahead,
    Decision,
    Duplicate,
    Fork,
    Gap,
    Known,
    NeedsIdentity,
    New,
    NotMaintainer,
    OtherIdentity,
    PastLimit,
    RefChange,
    Stale,
    Suspended,
    Unseen,
    WrongRepository,
    accept,
    concerns,
    freezes,
    ref_changes,
)
from guts.trust.chain import IdentityChain, IdentityForked
from guts.trust.equivocation import EquivocationProof, is_proof
from guts.trust.signed_refs import Header, SignedHeader, SignedRefs
from guts.trust.standing import counts
from guts.wire.messages import EncodedRefs

MAX_RECORDS_PER_AUTHOR: Final = 4
"""Records of one author that are looked at in one offer, the newest: honest holders tell the one that counts, and with
it perhaps the two sides of a split, or the one that a document names."""


class NotYet(Unavailable):
    """A record can't be judged or applied now; nobody is punished, and it is looked at again later."""

    code: ClassVar[str] = "NOT_YET"


class MissingContext(Unavailable):
    """What was offered does not connect to what is held; a full answer to GetRefs would."""

    code: ClassVar[str] = "MISSING_CONTEXT"


@dataclass(frozen=True, slots=True)
class Held:
    """The accepted state of a repository, decoded.

    Attributes:
        records: the newest record of each author that counts.
        proofs: of equivocation, by author; those that no identity document has settled.
        fork: a second document of an epoch of the chain: the identity does not change any more.
        headers: by hash, kept ones of the authors in ``proofs``: who went back to a record from before the split meets
            records in between whose predecessors no holder may have, but this node.
        generation: how many commits made it; 0: it was not stored yet.
    """

    chain: IdentityChain
    records: Mapping[AuthorId, SignedRefs]
    proofs: Mapping[AuthorId, EquivocationProof] = field(default_factory=dict)
    generation: int = 0
    fork: IdentityFork | None = None
    headers: Mapping[bytes, SignedHeader] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: StoredRepository) -> "Held":
        """Decode what the database keeps; it was verified when it came, and is again."""
        chain = IdentityChain.from_documents([document.encoded for document in stored.documents])
        records = (SignedRefs.decode(row.header, row.entries) for row in stored.signed_refs)
        proofs = (EquivocationProof.decode(row.encoded) for row in stored.equivocations)
        return cls(
            chain,
            {record.author: record for record in records},
            {proof.author: proof for proof in proofs},
            stored.summary.generation,
            stored.fork,
        )

    @property
    def tips(self) -> frozenset[ObjectId]:
        """Every object that a record points at."""
        return _tips(self.records)


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to commit.

    Attributes:
        replaced: the author's record held until now, which it takes the place of.
        counted: ``replaced``, if its refs are what ``record`` changes; ``None`` where there is none, or an identity
            document says from which other record the author goes on.
        bridge: headers that lead to ``record``.
    """

    record: SignedRefs
    replaced: SignedRefs | None
    counted: SignedRefs | None
    bridge: tuple[SignedHeader, ...]

    def changes(self) -> tuple[RefChange, ...]:
        """Return the refs that it moves. Raises: ``PeerFault``: see ``guts.trust.acceptance.ref_changes``."""
        return ref_changes(self.counted, self.record)


@dataclass(frozen=True, slots=True)
class Verified:
    """A newer state of a repository, as far as signatures can tell; its objects are not here yet.

    Attributes:
        chain: with the new documents.
        first_new_document: index in the chain of the first document that is new here.
        new: the records that are new, in the order in which they replace others.
        records: the newest record of every author, the new ones in their place.
        proofs: of equivocation, those held and those new.
        new_proofs: the authors whose proof is new here.
        fork: a second document of an epoch, which is new here.
        withdrawn: records of which none that is held takes the place, though they don't count any more.
        generation: of the state that this one follows, and no other.
    """

    chain: IdentityChain
    first_new_document: int
    new: tuple[NewRecord, ...]
    records: Mapping[AuthorId, SignedRefs]
    proofs: Mapping[AuthorId, EquivocationProof] = field(default_factory=dict)
    new_proofs: frozenset[AuthorId] = frozenset()
    withdrawn: tuple[SignedRefs, ...] = ()
    fork: IdentityFork | None = None
    generation: int = 0

    @property
    def tips(self) -> frozenset[ObjectId]:
        """Every object that a record, new or held, points at."""
        return _tips(self.records)


def follow(held: Held, chain: IdentityChain) -> Verified:
    """Return the state that follows on ``held`` with the documents of ``chain``, and without any new record."""
    proofs = {author: proof for author, proof in held.proofs.items() if freezes(chain, proof)}
    return Verified(chain, held.chain.epoch + 1, (), held.records, proofs, generation=held.generation)


def _tips(records: Mapping[AuthorId, SignedRefs]) -> frozenset[ObjectId]:
    return frozenset[ObjectId]().union(*(record.tips() for record in records.values()))


def verify(
    repository: RepositoryId,
    held: Held | None,
    documents: tuple[bytes, ...],
    bridge: tuple[bytes, ...],
    records: tuple[EncodedRefs, ...],
    now_ms: int,
    proofs: tuple[bytes, ...] = (),
) -> Verified | None:
    """Return what is new in an offer, or ``None`` where nothing is.

    Records may come in any order. One that can't be accepted now does not keep others out: what it lacks is raised
    only where nothing else is new. One that does not fit with what is held makes a proof of equivocation; which record
    of that author counts then is for ``guts.node.history`` to find.

    Raises:
        PeerFault: what no honest peer offers.
        MissingContext: documents, headers or records in between are missing.
        NotYet: a record from the future, or under another identity document than ours.
    """
    if held is None:
        if not documents:
            raise MissingContext("no identity document is known or offered")
        held, first_new = Held(IdentityChain.from_documents([documents[0]]), {}), 0
    else:
        first_new = held.chain.epoch + 1
    chain = held.chain
    if chain.repository != repository:
        raise WrongRepository("identity documents of another repository")
    told = [proof for proof in proofs if is_proof(proof)]
    # Whose identity has forked follows no document: not until its operator has chosen.
    fork = held.fork
    for document in documents if fork is None else ():
        chain, fork = _extend(chain, document)
        if fork is not None:
            break
    for document in (proof for proof in proofs if not is_proof(proof)):
        fork = fork or _extend(chain, document)[1]
    newest = dict(held.records)
    headers = [SignedHeader.decode(header) for header in bridge]
    authors = {author for document in chain.history for author in document.maintainers}
    signed: dict[AuthorId, list[tuple[int, EncodedRefs]]] = {}
    for encoded in records:
        # Megabytes of entries are looked at only where somebody signed who may, and not of many for one author.
        header = SignedHeader.decode(encoded.header).header
        if header.author not in authors:
            raise _stranger(chain, header)
        signed.setdefault(header.author, []).append((header.seq, encoded))
    offered = [
        SignedRefs.decode(encoded.header, encoded.entries)
        for of_one in signed.values()
        for _, encoded in sorted(of_one, key=lambda item: item[0])[-MAX_RECORDS_PER_AUTHOR:]
    ]
    split = {author: proof for author, proof in held.proofs.items() if freezes(chain, proof)}
    for proof in map(EquivocationProof.decode, told):
        if proof.first.header.repository != repository:
            raise WrongRepository("proof about another repository")
        _put(chain, split, proof)
    new, obstacle = _accept_all(chain, newest, split, offered, headers, held.headers, now_ms)
    new_proofs = frozenset(author for author, proof in split.items() if held.proofs.get(author) != proof)
    # Nobody follows a repository for the sake of its documents alone, while its records wait.
    new_fork = fork if held.fork is None else None
    if (
        not new
        and not new_proofs
        and new_fork is None
        and (chain.epoch < first_new or (not first_new and obstacle is not None))
    ):
        if obstacle is not None:
            raise obstacle
        return None
    return Verified(chain, first_new, tuple(new), newest, split, new_proofs, fork=new_fork, generation=held.generation)


def _extend(chain: IdentityChain, document: bytes) -> tuple[IdentityChain, IdentityFork | None]:
    """Return the chain with ``document``; or as it is, with ``document`` as a second one of its epoch."""
    try:
        return chain.extend(document), None
    except IdentityForked as error:
        return chain, IdentityFork(error.epoch, error.document)


def _put(chain: IdentityChain, proofs: dict[AuthorId, EquivocationProof], proof: EquivocationProof) -> bool:
    """Keep ``proof``, if none of an earlier split is held and no document has settled it; tell whether it was kept.

    One that is not about what a maintainer signed, as far as is known here, is nobody's fault: it is told again.
    """
    held = proofs.get(proof.author)
    if not concerns(chain, proof) or not freezes(chain, proof):
        return False
    if held is not None and held.split_seq <= proof.split_seq:
        return False
    proofs[proof.author] = proof
    return True


def _accept_all(
    chain: IdentityChain,
    newest: dict[AuthorId, SignedRefs],
    proofs: dict[AuthorId, EquivocationProof],
    offered: list[SignedRefs],
    headers: list[SignedHeader],
    own_headers: Mapping[bytes, SignedHeader],
    now_ms: int,
) -> tuple[list[NewRecord], Unavailable | None]:
    """Put what can be accepted of ``offered`` into ``newest``, and what it proves into ``proofs``.

    Returns:
        What was accepted, and what the first of the others lacks.

    Raises:
        PeerFault: see ``guts.trust.acceptance.accept``.
    """
    new: list[NewRecord] = []
    while True:
        found, obstacle = _accept_together(chain, newest, proofs, offered, headers, own_headers, now_ms)
        if not found:
            return new, obstacle
        new += found
        newest.update({accepted.record.author: accepted.record for accepted in found})
        # Another record of one of these authors may follow on it.
        offered = [record for record in offered if record is not newest.get(record.author)]


def _accept_together(
    chain: IdentityChain,
    newest: Mapping[AuthorId, SignedRefs],
    proofs: dict[AuthorId, EquivocationProof],
    offered: list[SignedRefs],
    headers: list[SignedHeader],
    own_headers: Mapping[bytes, SignedHeader],
    now_ms: int,
) -> tuple[list[NewRecord], Unavailable | None]:
    """Return the most of ``offered``, one for each author, that have seen only what is held or is among them.

    Maintainers who push in turn have seen each other's records from before, so that none could come first.
    """
    seqs = _heard_of(newest)
    known_headers = {**own_headers, **{signed.header.hash: signed for signed in headers}}
    known_headers.update({record.hash: record.signed_header for record in offered})
    candidates = offered
    obstacle: Unavailable | None = None
    while True:
        together = dict(seqs)
        for record in candidates:
            together[record.author] = max(record.seq, together.get(record.author, 0))
        found: dict[AuthorId, NewRecord] = {}
        kept = []
        for record in candidates:
            replaced = newest.get(record.author)
            between = _leading_to(record, known_headers)
            proof = proofs.get(record.author)
            valid = replaced is not None and counts(chain, proof, replaced.header)
            known = Known(replaced.seq, replaced.hash) if replaced is not None and valid else None
            decision = accept(chain, known, record, between, now_ms, others=together, proofs=proofs)
            if isinstance(decision, Fork):
                assert replaced is not None, "nothing splits off from nothing"
                _put(chain, proofs, decision.proof(replaced.signed_header))
            if isinstance(decision, New):
                kept.append(record)
                if record.author not in found or found[record.author].record.seq < record.seq:
                    counted = replaced if valid and replaced is not None and _binds(chain, replaced, record) else None
                    found[record.author] = NewRecord(record, replaced, counted, between)
            else:
                obstacle = obstacle or _lack(record, decision)
        if len(kept) == len(candidates):
            return list(found.values()), obstacle
        candidates = kept


def _leading_to(record: SignedRefs, headers: Mapping[bytes, SignedHeader]) -> tuple[SignedHeader, ...]:
    """Return those of ``headers`` that lead to ``record``, oldest first; at most ``MAX_BRIDGE``.

    What leads nowhere is passed over: pages of one answer, told while the author pushed, have headers too many.
    """
    found: list[SignedHeader] = []
    child = record.header
    while len(found) < MAX_BRIDGE and (signed := headers.get(child.previous)) is not None:
        parent = signed.header
        if (parent.author, parent.repository) != (child.author, child.repository) or parent.seq >= child.seq:
            break
        found.append(signed)
        child = parent
    return tuple(reversed(found))


def _heard_of(newest: Mapping[AuthorId, SignedRefs]) -> dict[AuthorId, int]:
    """Return how far each author is known here, or was when what is held was accepted: some may have been cut off.

    Nobody waits for what the records that are held have waited for already.
    """
    seqs = {author: record.seq for author, record in newest.items()}
    for record in newest.values():
        for author, seq in record.entries.seen.pairs:
            seqs[author] = max(seq, seqs.get(author, 0))
    return seqs


def _stranger(chain: IdentityChain, header: Header) -> GutsError:
    """Return what to raise about a record by somebody whom no document here lists.

    Whoever relays it may have a newer document, or another one of that epoch: both are honest.
    """
    if header.repository != chain.repository:
        return WrongRepository("a record of another repository")
    if header.epoch > chain.epoch:
        return MissingContext(f"a record by {header.author.short} needs the document of epoch {header.epoch}")
    if header.identity_hash != chain.history[header.epoch].hash:
        return NotYet(f"a record of {header.author.short} under another document of epoch {header.epoch}")
    return NotMaintainer("a record by somebody who never was a maintainer")


def _binds(chain: IdentityChain, held: SignedRefs, record: SignedRefs) -> bool:
    """Tell whether what ``record`` changes is to be judged by ``held``, which counts.

    Not where an identity document names a record between the two as the one to go on from.
    """
    decreed = chain.last_limit(held.author)
    return decreed is None or not held.seq < decreed.seq <= record.seq


def _lack(record: SignedRefs, decision: Decision) -> Unavailable | None:
    """Return why ``record`` can't be accepted yet; ``None``: it never will, or has been."""
    match decision:
        case New() | Duplicate() | Stale() | PastLimit() | Suspended() | Fork():
            return None
        case NeedsIdentity() | Gap() | Unseen():
            return MissingContext(f"a record by {record.author.short} needs more: {type(decision).__name__}")
        case Ahead():
            return NotYet(f"a record by {record.author.short} is ahead of this node's clock")
        case OtherIdentity():
            return NotYet(f"a record of {record.author.short} under another document of that epoch than ours")
        case _:
            assert_never(decision)
