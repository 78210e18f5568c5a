"""Named maintainers of one repository, with fixed keys, who prepare and sign real records."""

import hashlib
from collections.abc import Iterable, Mapping, Set

from guts.identity import SigningKey, domain
from guts.ids import AuthorId, ObjectId
from guts.records import Signed
from guts.trust.authoring import UnsignedRefs, prepare_refs
from guts.trust.canonical_refs import AncestorFacts
from guts.trust.chain import IdentityChain
from guts.trust.entries import Entries, Entry, Seen
from guts.trust.identity_document import IdentityDocument
from guts.trust.signed_refs import KIND, Header, SignedRefs

NOW = 1_800_000_000_000
MAIN, DEV = "refs/heads/main", "refs/heads/dev"


def key(name: str) -> SigningKey:
    """Return the key that ``name`` always has."""
    return SigningKey(hashlib.sha256(b"test key of " + name.encode()).digest())


def oid(number: int) -> ObjectId:
    """Return a made-up object id."""
    return ObjectId(hashlib.sha1(number.to_bytes(4, "big")).digest())


ALICE, BOB, CAROL, EVE = key("alice"), key("bob"), key("carol"), key("eve")


def genesis(*keys: SigningKey, name: str = "example", threshold: int | None = None) -> IdentityDocument:
    """Return the unsigned genesis document of a repository of ``keys``."""
    return IdentityDocument.genesis(
        name=name,
        description="An example.",
        default_branch="main",
        maintainers=tuple(k.author_id for k in keys),
        threshold=threshold,
        created_ms=NOW,
        nonce=hashlib.sha256(name.encode()).digest()[:16],
    )


def chain(*keys: SigningKey, name: str = "example", threshold: int | None = None) -> IdentityChain:
    """Return the chain that holds only the genesis document."""
    return IdentityChain.from_documents([genesis(*keys, name=name, threshold=threshold).sign(*keys)])


def publish(
    identity: IdentityChain,
    author: SigningKey,
    previous: SignedRefs | None,
    wanted: Mapping[str, ObjectId],
    *,
    now: int = NOW,
    head: str = MAIN,
    forced: Set[str] = frozenset(),
    others: Iterable[SignedRefs] = (),
    ancestors: AncestorFacts = frozenset(),
) -> SignedRefs:
    """Return the record that ``author`` signs next."""
    unsigned = prepare_refs(
        identity,
        author.author_id,
        previous,
        wanted,
        head,
        now,
        forced=forced,
        others={record.author: record for record in others},
        ancestors=ancestors,
    )
    assert unsigned is not None
    return sign(unsigned, author)


def sign(unsigned: UnsignedRefs, author: SigningKey) -> SignedRefs:
    """Return the record with the signature of ``author``."""
    return unsigned.attach(author.author_id, author.sign(domain(KIND), unsigned.body))


def by_hand(
    identity: IdentityChain,
    author: SigningKey,
    refs: Mapping[str, Entry],
    *,
    seq: int = NOW,
    previous: bytes = b"",
    epoch: int | None = None,
    identity_hash: bytes | None = None,
    time_ms: int | None = None,
    seen: Seen | None = None,
    head: str = MAIN,
    head_seq: int | None = None,
    head_seen: Seen | None = None,
) -> SignedRefs:
    """Return a signed record with any content, as a hostile or mistaken author might make."""
    entries = Entries(refs, seen or Seen(), head_seq or seq, head_seen or Seen()).encode()
    header = Header(
        identity.repository,
        author.author_id,
        identity.epoch if epoch is None else epoch,
        identity.hash if identity_hash is None else identity_hash,
        seq,
        previous,
        min(seq, NOW) if time_ms is None else time_ms,
        head,
        hashlib.sha256(entries).digest(),
    )
    return SignedRefs.decode(Signed.sign(KIND, header.body, author).encode(), entries)


def records(*signed: SignedRefs) -> dict[AuthorId, SignedRefs]:
    """Return ``signed`` by author."""
    return {record.author: record for record in signed}
