"""What a client of the control API is told of a repository's refs, with what vouches for them."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guts.git import packed_refs
from guts.git.ancestry import peel
from guts.git.packed_refs import PackedRef
from guts.ids import ObjectId, RepositoryId
from guts.node.acceptance import Held
from guts.node.repositories import Repositories
from guts.records import Signed
from guts.store.accepted import StoredRepository
from guts.trust.canonical_refs import AncestorFacts, canonical_refs
from guts.trust.identity_document import MAX_DOCUMENT_BYTES, IdentityDocument
from guts.trust.ref_names import CONFLICTS
from guts.trust.signed_refs import MAX_HEADER_BYTES, Header

NOT_FOLLOWED = "this node seeds it no longer: the refs are as of its last sync"


@dataclass(frozen=True, slots=True)
class ShownRefs:
    """The canonical refs of a repository.

    Attributes:
        document: the newest one.
        held: this node has all objects.
        head: name of the ref that HEAD points at; there need not be one of that name.
        refs: those of conflicts too, in ascending byte order.
        documents: the identity chain, encoded, oldest first.
        headers: of the record of each author that counts, in order of their keys, with its hash.
        proofs: that authors signed two histories: why an older record counts than before.
        sources: other holders whose word was compared for this answer.
        notes: lines that a person should see.
        followed: this node keeps it up to date.
    """

    repository: RepositoryId
    document: IdentityDocument
    held: bool
    head: str
    refs: Mapping[str, PackedRef]
    documents: Sequence[bytes]
    headers: Sequence[tuple[Header, bytes]]
    sources: int
    proofs: Sequence[bytes] = ()
    notes: tuple[str, ...] = ()
    followed: bool = False

    def to_json(self) -> dict[str, object]:
        """Return what ``GET /v1/repositories/{id}/refs`` answers."""
        document = self.document
        return {
            "repository": str(self.repository),
            "name": document.name,
            "held": self.held,
            "head": self.head,
            "refs": [
                {"ref": name, "oid": str(ref.target), "peeled": None if ref.peeled is None else str(ref.peeled)}
                for name, ref in self.refs.items()
            ],
            "epoch": document.epoch,
            "identity_hash": document.hash.hex(),
            "maintainers": [str(author) for author in document.maintainers],
            "documents": [base64.b64encode(encoded).decode() for encoded in self.documents],
            "heads": [
                {
                    "author": str(header.author),
                    "seq": header.seq,
                    "hash": digest.hex(),
                    "signed_ms": header.time_ms,
                }
                for header, digest in self.headers
            ],
            "proofs": [base64.b64encode(encoded).decode() for encoded in self.proofs],
            "conflicts": [name for name in self.refs if name.startswith(CONFLICTS)],
            "sources": self.sources,
            "notes": list(self.notes),
            "followed": self.followed,
        }


async def held_refs(repositories: Repositories, stored: StoredRepository) -> ShownRefs:
    """Return the refs of a repository of which this node has all objects.

    What is in the database was verified before it was committed; nobody's word is taken again for it.

    Raises:
        NotARepository, StorageFault: the folder of the repository is damaged.
    """
    summary = stored.summary
    bare = await repositories.open(summary.id)
    projected, _ = await asyncio.to_thread(packed_refs.read, bare.path)
    peeled = {ref.target: ref.peeled for ref in projected.values()}
    # The projection follows the commit, by milliseconds; the objects are there before both.
    fresh = {oid for oid in stored.canonical.values() if oid not in peeled}
    for oid, (is_tag, info) in (await peel(bare.git, bare.environment, fresh)).items():
        peeled[oid] = info.id if is_tag else None
    newest = Signed.decode(stored.documents[-1].encoded, MAX_DOCUMENT_BYTES)
    document = IdentityDocument.decode_body(newest.body)
    return ShownRefs(
        repository=summary.id,
        document=document,
        held=True,
        head=summary.head or document.default_ref,
        refs={name: PackedRef(oid, peeled[oid]) for name, oid in stored.canonical.items()},
        documents=[kept.encoded for kept in stored.documents],
        headers=[
            (Header.decode_body(Signed.decode(kept.header, MAX_HEADER_BYTES).body), kept.hash)
            for kept in stored.signed_refs
        ],
        sources=0,
        proofs=[kept.encoded for kept in stored.equivocations],
        notes=() if summary.seeding else (NOT_FOLLOWED,),
        followed=summary.seeding,
    )


def read_refs(
    held: Held, ancestors: AncestorFacts, peeled: Mapping[ObjectId, ObjectId], sources: int, notes: tuple[str, ...]
) -> ShownRefs:
    """Return the refs of a repository of which this node has the verified records, and no objects.

    Args:
        ancestors: as for ``canonical_refs``.
        peeled: what each annotated tag finally points at.
    """
    chain, shown = held.chain, canonical_refs(held.chain, held.records, ancestors)
    return ShownRefs(
        repository=chain.repository,
        document=chain.current,
        held=False,
        head=shown.head,
        refs={name: PackedRef(oid, peeled.get(oid)) for name, oid in shown.refs.items()},
        documents=chain.documents,
        headers=[(record.header, record.hash) for _, record in sorted(held.records.items())],
        sources=sources,
        proofs=[proof.encode() for _, proof in sorted(held.proofs.items())],
        notes=notes,
    )
