"""``Project``: a repository as its maintainers see it: identity, keys, commits, and what each of them signed."""

import hashlib
from collections.abc import Mapping

from guts.identity import SigningKey
from guts.ids import AuthorId, ObjectId
from guts.trust.authoring import prepare_refs
from guts.trust.canonical_refs import CanonicalRefs
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import IdentityDocument
from guts.trust.ref_names import CONFLICTS
from guts.trust.signed_refs import SignedRefs
from tests.support.simulator.commits import Commits
from tests.support.simulator.replica import Replica
from tests.unit.trust.world import MAIN, key, sign


class Project:
    """One repository.

    Attributes:
        id: of the repository.
        chain: its identity.
        maintainers: their keys, in order.
        versions: the number of each record, by its hash; the first is 1.
    """

    def __init__(self, number: int, maintainers: int, created_ms: int) -> None:
        self.maintainers = tuple(key(f"maintainer {place} of {number}") for place in range(maintainers))
        genesis = IdentityDocument.genesis(
            name=f"project-{number}",
            description="Made up.",
            default_branch="main",
            maintainers=tuple(writer.author_id for writer in self.maintainers),
            threshold=None,
            created_ms=created_ms,
            nonce=hashlib.sha256(str(number).encode()).digest()[:16],
        )
        self.chain = IdentityChain.from_documents([genesis.sign(*self.maintainers)])
        self.id = self.chain.repository
        self.commits = Commits()
        self.versions: dict[bytes, int] = {}
        self.last: dict[AuthorId, SignedRefs] = {}

    def push(self, replica: Replica | None, author: SigningKey, now_ms: int, ref: str = MAIN) -> SignedRefs:
        """Return what ``author`` signs, who adds a commit to what ``replica`` shows for ``ref``, conflicts merged."""
        shown: Mapping[str, ObjectId] = {}
        sides: list[ObjectId] = []
        others: dict[AuthorId, SignedRefs] = {}
        previous: SignedRefs | None = None
        if replica is not None:
            base = replica.canonical(self.commits)
            shown = without_conflicts(base)
            sides = [conflict.oid for conflict in base.conflicts if conflict.ref == ref]
            others = {other: record for other, record in replica.newest.items() if other != author.author_id}
            previous = replica.newest.get(author.author_id)
        assert self.last.get(author.author_id) == previous, "an author pushes where the last push is known"
        wanted = {**shown, ref: self.commits.commit(*([shown[ref]] if ref in shown else []), *sides)}
        unsigned = prepare_refs(
            self.chain,
            author.author_id,
            previous,
            wanted,
            MAIN,
            now_ms,
            others=others,
            ancestors=self.commits,
        )
        assert unsigned is not None, "a push changes something"
        record = sign(unsigned, author)
        self.last[author.author_id] = record
        self.versions[record.hash] = len(self.versions) + 1
        return record

    def version(self, replica: Replica) -> int:
        """Return the number of the newest record that ``replica`` has."""
        return max((self.versions[record.hash] for record in replica.newest.values()), default=0)


def without_conflicts(refs: CanonicalRefs) -> dict[str, ObjectId]:
    """Return ``refs`` but for those that show what lost."""
    return {ref: oid for ref, oid in refs.refs.items() if not ref.startswith(CONFLICTS)}
