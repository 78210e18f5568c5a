"""What is accepted of a repository, as the store takes it and gives it back; and why it may not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from guts.errors import StorageFault
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.store.history import Equivocation, Header, IdentityFork
from guts.store.seeding import EXPLICIT


class Conflict(StorageFault):
    """The repository moved on since the state was prepared: nothing was committed; prepare it anew."""

    code: ClassVar[str] = "CONFLICT"


class NotHeld(StorageFault):
    """The repository is not (or no longer) held here."""

    code: ClassVar[str] = "NOT_HELD"


@final
@dataclass(frozen=True, slots=True)
class IdentityDocument:
    """One document of the identity chain.

    Attributes:
        hash: its 32-byte record hash.
        encoded: the signed bytes.
    """

    epoch: int
    hash: bytes
    encoded: bytes


@final
@dataclass(frozen=True, slots=True)
class SignedRefs:
    """The newest record of an author that counts.

    Attributes:
        hash: the header's 32-byte record hash.
        header: its signed bytes.
        entries: canonical bytes of the entries.
    """

    author: AuthorId
    seq: int
    hash: bytes
    header: bytes
    entries: bytes


@final
@dataclass(frozen=True, slots=True)
class NewSignedRefs:
    """An author's record to commit, in the place of the one that it was checked against.

    Attributes:
        record: ``None``: none of the author's records that are held counts any more.
        previous: (seq, hash) that must still be the author's newest; ``None``: the author must have none.
        delta: makes the entries of ``previous`` of those of ``record``, or of nothing; ``None`` where there is none.
        bridging: headers between ``previous`` and this one, kept with it.
    """

    author: AuthorId
    record: SignedRefs | None
    previous: tuple[int, bytes] | None
    delta: bytes | None = None
    bridging: tuple[Header, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class AcceptedState:
    """All that one acceptance changes, to be committed as a whole.

    Attributes:
        documents: identity documents that are new here, epochs rising by one from the newest one held.
        equivocations: proofs to keep; replaces what was there.
        canonical: every canonical ref, conflict refs too; replaces what was there.
        head: name of the ref that HEAD points to, if it points to one.
        size: bytes of the repository on disk.
        now_ms: Unix milliseconds.
        fork: a second document of an epoch, to keep.
        reason: why it is seeded: ``explicit`` or what ``guts.store.seeding`` keeps.
        generation: number of commits that must have been made so far; ``None``: any.
    """

    repository: RepositoryId
    name: str
    description: str
    documents: tuple[IdentityDocument, ...]
    signed_refs: tuple[NewSignedRefs, ...]
    equivocations: tuple[Equivocation, ...]
    canonical: Mapping[str, ObjectId]
    head: str | None
    seeding: bool
    size: int
    now_ms: int
    fork: IdentityFork | None = None
    reason: str = EXPLICIT
    generation: int | None = None


@final
@dataclass(frozen=True, slots=True)
class RepositorySummary:
    """What stays in memory of each repository.

    Attributes:
        identity_hash: hash of the newest identity document.
        authors: (seq, hash) of each author's newest record that counts.
        splits: the seq from which the records of an author whose history split do not count, where one did.
        fork: epoch of which there are two documents; 0: none.
        generation: number of commits so far.
        projected: whether git's refs show ``generation``.
        updated: of the newest commit, Unix milliseconds.
    """

    id: RepositoryId
    name: str
    description: str
    epoch: int
    identity_hash: bytes
    head: str | None
    seeding: bool
    generation: int
    projected: bool
    created: int
    updated: int
    size: int
    authors: Mapping[AuthorId, tuple[int, bytes]]
    splits: Mapping[AuthorId, int]
    fork: int


@final
@dataclass(frozen=True, slots=True)
class StoredRepository:
    """Everything that was accepted of one repository."""

    summary: RepositorySummary
    documents: tuple[IdentityDocument, ...]
    signed_refs: tuple[SignedRefs, ...]
    equivocations: tuple[Equivocation, ...]
    canonical: Mapping[str, ObjectId]
    fork: IdentityFork | None = None
