"""32 maintainers with 5,000 refs each, all in conflict: verified, and joined into the refs of the repository.

Seconds are CPU time of one thread. Keys and ids are made from numbers: the same in each run.

    python -m tests.benchmarks.maintainers [runs]
"""

import hashlib
import sys
import time

from guts.identity import SigningKey
from guts.ids import ObjectId
from guts.node.acceptance import verify
from guts.records import Signed
from guts.trust.canonical_refs import ancestor_questions, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.entries import MAX_ENTRIES_BYTES, MAX_REFS, Entries, Entry, Seen
from guts.trust.identity_document import MAX_MAINTAINERS, IdentityDocument
from guts.trust.signed_refs import KIND, Header
from guts.wire.messages import EncodedRefs
from tests.benchmarks.figure import Figure, show

RUNS = 3
NOW = 1_800_000_000_000


def repository() -> tuple[IdentityChain, tuple[EncodedRefs, ...]]:
    """Return a repository's chain and the record of each maintainer."""
    keys = [SigningKey(hashlib.sha256(b"maintainer %d" % number).digest()) for number in range(MAX_MAINTAINERS)]
    genesis = IdentityDocument.genesis(
        name="many",
        description="",
        default_branch="main",
        maintainers=tuple(key.author_id for key in keys),
        created_ms=NOW,
        nonce=bytes(16),
    )
    chain = IdentityChain.from_documents([genesis.sign(*keys)])
    return chain, tuple(_record(chain, key, number) for number, key in enumerate(keys))


def _record(chain: IdentityChain, key: SigningKey, number: int) -> EncodedRefs:
    refs = {
        f"refs/heads/topic/{ref:05}": Entry(ObjectId(hashlib.sha1(b"%d %d" % (number, ref)).digest()), NOW, Seen())
        for ref in range(MAX_REFS)
    }
    entries = Entries(refs, Seen(), NOW, Seen()).encode()
    assert len(entries) <= MAX_ENTRIES_BYTES
    digest = hashlib.sha256(entries).digest()
    author, repo = key.author_id, chain.repository
    header = Header(repo, author, 0, chain.hash, NOW, b"", NOW, "refs/heads/main", digest)
    return EncodedRefs(Signed.sign(KIND, header.body, key).encode(), entries)


def measure(runs: int = RUNS) -> list[Figure]:
    """Run everything; return the figures."""
    chain, records = repository()
    verifying, joining = [], []
    for _ in range(runs):
        begun = time.process_time()
        verified = verify(chain.repository, None, chain.documents, (), records, NOW)
        verifying.append(time.process_time() - begun)
        assert verified is not None
        assert len(verified.records) == MAX_MAINTAINERS
        begun = time.process_time()
        questions = ancestor_questions(chain, verified.records)
        shown = canonical_refs(chain, verified.records)
        joining.append(time.process_time() - begun)
        assert len(shown.refs) == MAX_MAINTAINERS * MAX_REFS
    print(f"32 maintainers x 5,000 refs, all in conflict: {len(questions)} questions for git")
    return [
        Figure("verify 32 maintainers x 5,000 refs", "s", verifying, 2, "at most"),
        Figure("canonical refs of those, all in conflict", "s", joining, 10, "at most"),
    ]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
