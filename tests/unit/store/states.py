"""Accepted states as an acceptance would hand them to the store."""

import hashlib

from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.store.accepted import AcceptedState, IdentityDocument, NewSignedRefs, SignedRefs
from guts.store.history import Equivocation, Header

REPOSITORY = RepositoryId(b"R" * 32)
OTHER = RepositoryId(b"O" * 32)
ALICE = AuthorId(b"A" * 32)
BOB = AuthorId(b"B" * 32)
MAIN = "refs/heads/main"


def digest(text: str) -> bytes:
    """Return 32 bytes that stand for the hash of ``text``."""
    return hashlib.sha256(text.encode()).digest()


def oid(text: str) -> ObjectId:
    """Return an object id made from ``text``."""
    return ObjectId(hashlib.sha1(text.encode()).digest())


def document(epoch: int) -> IdentityDocument:
    """Return the identity document of ``epoch``."""
    return IdentityDocument(epoch, digest(f"document {epoch}"), f"encoded document {epoch}".encode())


def record(author: AuthorId, seq: int) -> SignedRefs:
    """Return a record of ``author``."""
    name = f"{author.hex()} {seq}"
    return SignedRefs(author, seq, digest(name), f"header {name}".encode(), f"entries {name}".encode())


def header(author: AuthorId, seq: int) -> Header:
    """Return the header of ``record(author, seq)``."""
    full = record(author, seq)
    return Header(author, seq, full.hash, full.header)


def new(author: AuthorId, seq: int, previous: int | None, *bridging: int) -> NewSignedRefs:
    """Return the step of ``author`` from the record ``previous`` to ``seq``."""
    before = None if previous is None else (previous, record(author, previous).hash)
    delta = None if previous is None else f"delta {author.hex()} {previous}".encode()
    bridge = tuple(header(author, number) for number in bridging)
    return NewSignedRefs(author, record(author, seq), before, delta, bridge)


def state(
    *signed_refs: NewSignedRefs,
    documents: tuple[IdentityDocument, ...] = (),
    canonical: dict[str, ObjectId] | None = None,
    repository: RepositoryId = REPOSITORY,
    now_ms: int = 1_000,
    equivocations: tuple[Equivocation, ...] = (),
) -> AcceptedState:
    """Return a state to commit."""
    return AcceptedState(
        repository=repository,
        name="guts",
        description="a test",
        documents=documents,
        signed_refs=signed_refs,
        equivocations=equivocations,
        canonical={MAIN: oid("tip")} if canonical is None else canonical,
        head=MAIN,
        seeding=True,
        size=4_096,
        now_ms=now_ms,
    )


def first_state(*, repository: RepositoryId = REPOSITORY) -> AcceptedState:
    """Return the state of a new repository: its genesis and Alice's first record."""
    return state(new(ALICE, 10, None), documents=(document(0),), repository=repository)
