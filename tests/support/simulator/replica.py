"""``Replica``: what a node keeps of a repository, but for its objects; with it, acceptance goes on from there."""

from dataclasses import dataclass, field

from guts.events import Head, Known
from guts.ids import AuthorId
from guts.node.acceptance import Held, Verified
from guts.store.history import IdentityFork
from guts.trust.canonical_refs import AncestorFacts, CanonicalRefs, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.signed_refs import SignedHeader, SignedRefs
from guts.trust.standing import standing


@dataclass
class Replica:
    """What a replica keeps: identity, proofs, each author's newest record that counts, and what it accepted before.

    Attributes:
        generation: how many commits made it.
    """

    chain: IdentityChain
    newest: dict[AuthorId, SignedRefs] = field(default_factory=dict)
    proofs: dict[AuthorId, EquivocationProof] = field(default_factory=dict)
    archive: dict[bytes, SignedRefs] = field(default_factory=dict)
    headers: dict[bytes, SignedHeader] = field(default_factory=dict)
    fork: IdentityFork | None = None
    generation: int = 0

    def canonical(self, ancestors: AncestorFacts) -> CanonicalRefs:
        """Return the refs of the repository."""
        return canonical_refs(self.chain, self.newest, ancestors)

    def held(self) -> Held:
        """Return the state as acceptance wants it."""
        headers = {hash_: kept for hash_, kept in self.headers.items() if kept.header.author in self.proofs}
        return Held(self.chain, dict(self.newest), dict(self.proofs), self.generation, self.fork, headers)

    def known(self) -> Known:
        """Return what the service keeps of it."""
        heads = tuple((author, Head(record.seq, record.hash)) for author, record in sorted(self.newest.items()))
        splits = tuple((author, proof.split_seq) for author, proof in sorted(self.proofs.items()))
        return Known(self.chain.epoch, self.chain.hash, heads, splits, 0 if self.fork is None else self.fork.epoch)

    def bridge(self, record: SignedRefs, known: tuple[int, bytes] = (0, b"")) -> list[bytes]:
        """Return the headers kept here that lead from ``known`` to ``record``, oldest first.

        As ``guts.node.refs_reader`` does.
        """
        found: list[bytes] = []
        seq, digest = known
        header = record.header
        while header.previous != digest and header.seq > seq and header.previous in self.headers:
            signed = self.headers[header.previous]
            found.append(signed.encoded)
            header = signed.header
        return found[::-1]

    def take(self, verified: Verified) -> None:
        """Commit ``verified``."""
        for new in verified.new:
            self.newest[new.record.author] = new.record
            self.archive[new.record.hash] = new.record
            for header in (*new.bridge, new.record.signed_header):
                self.headers[header.header.hash] = header
        if verified.chain.epoch > self.chain.epoch or verified.new_proofs:
            self.chain, self.proofs = verified.chain, dict(verified.proofs)
            for author in sorted({author for document in self.chain.history for author in document.maintainers}):
                self._settle(author)
        self.fork = self.fork or verified.fork
        self.generation += 1

    def _settle(self, author: AuthorId) -> None:
        """Go to the record of the author that counts now, as ``guts.node.history`` does."""
        kept = {digest: signed.header for digest, signed in self.headers.items() if signed.header.author == author}
        current = self.newest.get(author)
        header = None if current is None else current.header
        target = standing(self.chain, self.proofs.get(author), author, header, kept, kept.keys() & self.archive.keys())
        if target is None:
            self.newest.pop(author, None)
        elif current is None or target != current.hash:
            self._went_back(author)
            self.newest[author] = self.archive[target]

    def _went_back(self, author: AuthorId) -> None:
        """Another record of ``author`` counts than the one before, and no newer one."""
