"""From what a peer offers to what may be fetched: the part of acceptance that needs no objects (DESIGN §6).

Pure, and possibly slow (thousands of signatures, megabytes of entries): callers run it in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, assert_never

from guts.errors import GutsError, Unavailable
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.store.repositories import StoredRepository
from guts.trust.acceptance import (
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
    ref_changes,
)
from guts.trust.canonical_refs import within_limit
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import Header, SignedHeader, SignedRefs
from guts.wire.messages import EncodedRefs


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
        generation: how many commits made it; 0: it was not stored yet.
    """

    chain: IdentityChain
    records: Mapping[AuthorId, SignedRefs]
    generation: int = 0

    @classmethod
    def of(cls, stored: StoredRepository) -> "Held":
        """Decode what the database keeps; it was verified when it came, and is again."""
        chain = IdentityChain.from_documents([document.encoded for document in stored.documents])
        records = (SignedRefs.decode(row.header, row.entries) for row in stored.signed_refs)
        return cls(chain, {record.author: record for record in records}, stored.summary.generation)

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
        new: the records that are new; at least one, unless documents are.
        records: the newest record of every author, the new ones in their place.
        generation: of the state that this one follows, and no other.
    """

    chain: IdentityChain
    first_new_document: int
    new: tuple[NewRecord, ...]
    records: Mapping[AuthorId, SignedRefs]
    generation: int

    @property
    def tips(self) -> frozenset[ObjectId]:
        """Every object that a record, new or held, points at."""
        return _tips(self.records)


def _tips(records: Mapping[AuthorId, SignedRefs]) -> frozenset[ObjectId]:
    return frozenset[ObjectId]().union(*(record.tips() for record in records.values()))


def verify(
    repository: RepositoryId,
    held: Held | None,
    documents: tuple[bytes, ...],
    bridge: tuple[bytes, ...],
    records: tuple[EncodedRefs, ...],
    now_ms: int,
) -> Verified | None:
    """Return what is new in an offer, or ``None`` where nothing is.

    Records may come in any order. One that can't be accepted now does not keep others out: what it lacks is raised
    only where nothing else is new.

    Raises:
        PeerFault: what no honest peer offers.
        MissingContext: documents, headers or records in between are missing.
        NotYet: a record from the future, or by an author whose history split.
    """
    if held is not None:
        chain, first_new = held.chain, held.chain.epoch + 1
    elif documents:
        chain, first_new = IdentityChain.from_documents([documents[0]]), 0
    else:
        raise MissingContext("no identity document is known or offered")
    if chain.repository != repository:
        raise WrongRepository("identity documents of another repository")
    for document in documents:
        chain = chain.extend(document)
    newest = dict(held.records) if held is not None else {}
    headers = [SignedHeader.decode(header) for header in bridge]
    authors = {author for document in chain.history for author in document.maintainers}
    offered = []
    for encoded in records:
        # Megabytes of entries are looked at only where somebody signed who may.
        header = SignedHeader.decode(encoded.header).header
        if header.author not in authors:
            raise _stranger(chain, header)
        offered.append(SignedRefs.decode(encoded.header, encoded.entries))
    new, obstacle = _accept_all(chain, newest, offered, headers, now_ms)
    # Nobody follows a repository for the sake of its documents alone, while its records wait.
    if not new and (chain.epoch < first_new or (held is None and obstacle is not None)):
        if obstacle is not None:
            raise obstacle
        return None
    return Verified(chain, first_new, tuple(new), newest, 0 if held is None else held.generation)


def _accept_all(
    chain: IdentityChain,
    newest: dict[AuthorId, SignedRefs],
    offered: list[SignedRefs],
    headers: list[SignedHeader],
    now_ms: int,
) -> tuple[list[NewRecord], Unavailable | None]:
    """Put what can be accepted of ``offered`` into ``newest``.

    Returns:
        What was accepted, and what the first of the others lacks.

    Raises:
        PeerFault: see ``guts.trust.acceptance.accept``.
    """
    new: list[NewRecord] = []
    while True:
        found, obstacle = _accept_together(chain, newest, offered, headers, now_ms)
        if not found:
            return new, obstacle
        new += found
        newest.update({accepted.record.author: accepted.record for accepted in found})
        # Another record of one of these authors may follow on it.
        offered = [record for record in offered if record is not newest.get(record.author)]


def _accept_together(
    chain: IdentityChain,
    newest: Mapping[AuthorId, SignedRefs],
    offered: list[SignedRefs],
    headers: list[SignedHeader],
    now_ms: int,
) -> tuple[list[NewRecord], Unavailable | None]:
    """Return the most of ``offered``, one for each author, that have seen only what is held or is among them.

    Maintainers who push in turn have seen each other's records from before, so that none could come first.
    """
    seqs = {author: record.seq for author, record in newest.items()}
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
            between = tuple(header for header in headers if header.header.author == record.author)
            counts = replaced is not None and within_limit(chain, replaced)
            known = Known(replaced.seq, replaced.hash) if replaced is not None and counts else None
            decision = accept(chain, known, record, between, now_ms, others=together)
            if isinstance(decision, New):
                kept.append(record)
                if record.author not in found or found[record.author].record.seq < record.seq:
                    counted = replaced if replaced is not None and _binds(chain, replaced, record) else None
                    found[record.author] = NewRecord(record, replaced, counted, between)
            else:
                obstacle = obstacle or _lack(record, decision)
        if len(kept) == len(candidates):
            return list(found.values()), obstacle
        candidates = kept


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
    """Tell whether what ``record`` changes is to be judged by ``held``.

    Not where an identity document has cut ``held`` off, or names a record between the two as the one to go on from.
    """
    decreed = chain.last_limit(held.author)
    return within_limit(chain, held) and (decreed is None or not held.seq < decreed.seq <= record.seq)


def _lack(record: SignedRefs, decision: Decision) -> Unavailable | None:
    """Return why ``record`` can't be accepted yet; ``None``: it never will, or has been."""
    match decision:
        case New() | Duplicate() | Stale() | PastLimit() | Suspended():
            return None
        case NeedsIdentity() | Gap() | Unseen():
            return MissingContext(f"a record by {record.author.short} needs more: {type(decision).__name__}")
        case Ahead():
            return NotYet(f"a record by {record.author.short} is ahead of this node's clock")
        case Fork() | OtherIdentity():
            return NotYet(f"{record.author.short} signed two histories; the one that came first stays")
        case _:
            assert_never(decision)
