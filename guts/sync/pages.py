"""Answers to GetRefs that were cut: gone on with, and handed over as one.

Two records that have seen each other are accepted together or not at all, and both may be as large as an answer may be.
So the pages of one peer's answer are put together before anything is judged. What is known of a page comes from its
headers alone, whose signatures nobody has looked at yet: a peer that lies about them makes its own answer useless.
"""

from dataclasses import dataclass, field
from typing import Final

from guts.effects import Candidate
from guts.errors import PeerFault
from guts.events import Head, Known
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import Signed
from guts.trust.identity_document import MAX_DOCUMENT_BYTES, IdentityDocument
from guts.trust.signed_refs import MAX_HEADER_BYTES, Header
from guts.wire.limits import MAX_REFS_BYTES, MIB
from guts.wire.messages import EncodedRefs, RefsAnswer

MAX_PAGES_BYTES: Final = 32 * MAX_REFS_BYTES + 64 * MIB
"""Bytes of all pages that are kept: the records of 32 maintainers, each as large as one may be, and 1,000 documents."""


@dataclass(slots=True)
class _Pages:
    """What one peer has answered so far about one repository."""

    peer: PeerId
    documents: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    records: dict[bytes, EncodedRefs] = field(default_factory=dict)
    proofs: list[bytes] = field(default_factory=list)
    heads: dict[AuthorId, Head] = field(default_factory=dict)
    identity_hash: bytes = b""
    size: int = 0


class Pages:
    """The answers that are being put together, one for each repository at the most."""

    def __init__(self) -> None:
        self._open: dict[RepositoryId, _Pages] = {}
        self._size = 0

    def keep(self, peer: PeerId, answer: RefsAnswer) -> bool:
        """Keep a page; ``False`` where it has nothing new, there is no room, or another peer's answer is being kept.

        So too where it has what is no header or document: whoever judges the records says whose fault that is.
        """
        pages = self._open.get(answer.repository) or _Pages(peer)
        size = _size(answer)
        new = [record for record in answer.records if record.header not in pages.records]
        if pages.peer != peer or self._size + size > MAX_PAGES_BYTES or not (new or answer.documents):
            return False
        try:
            heads = dict(_head(record) for record in new)
            hashes = [_hash(document) for document in answer.documents[-1:]]
        except PeerFault:
            return False
        pages.identity_hash = hashes[0] if hashes else pages.identity_hash
        pages.heads.update(heads)
        pages.records.update({record.header: record for record in new})
        pages.documents += answer.documents
        pages.headers += answer.headers
        pages.proofs += answer.proofs
        pages.size += size
        self._size += size
        self._open[answer.repository] = pages
        return True

    def known(self, peer: PeerId, repository: RepositoryId, known: Known) -> Known:
        """Return ``known`` with what is in the pages of ``peer``: what it need not tell again."""
        pages = self._open.get(repository)
        if pages is None or pages.peer != peer:
            return known
        heads = {**dict(known.heads), **pages.heads}
        epoch = known.epoch + len(pages.documents)
        # Those that were just told first: who is asked about too many heads must get on.
        order = sorted(heads.items(), key=lambda item: (item[0] not in pages.heads, item[0]))
        return Known(epoch, pages.identity_hash or known.identity_hash, tuple(order), known.splits, known.fork)

    def take(self, peer: PeerId, answer: RefsAnswer) -> Candidate:
        """Return the last page with those of ``peer`` before it, which are kept no longer."""
        pages = self._open.get(answer.repository)
        if pages is None or pages.peer != peer:
            return Candidate(answer.documents, answer.headers, answer.records, answer.proofs)
        self._forget(answer.repository)
        records = {**pages.records, **{record.header: record for record in answer.records}}
        return Candidate(
            (*pages.documents, *answer.documents),
            (*pages.headers, *answer.headers),
            tuple(records.values()),
            (*pages.proofs, *answer.proofs),
        )

    def drop(self, peer: PeerId, repository: RepositoryId) -> None:
        """Forget what ``peer`` has answered so far, where it will not go on."""
        pages = self._open.get(repository)
        if pages is not None and pages.peer == peer:
            self._forget(repository)

    def forget(self, repository: RepositoryId) -> None:
        """Forget what anybody answered about ``repository``."""
        if repository in self._open:
            self._forget(repository)

    def _forget(self, repository: RepositoryId) -> None:
        self._size -= self._open.pop(repository).size


def _head(record: EncodedRefs) -> tuple[AuthorId, Head]:
    header = Header.decode_body(Signed.decode(record.header, MAX_HEADER_BYTES).body)
    return header.author, Head(header.seq, header.hash)


def _hash(document: bytes) -> bytes:
    return IdentityDocument.decode_body(Signed.decode(document, MAX_DOCUMENT_BYTES).body).hash


def _size(answer: RefsAnswer) -> int:
    records = sum(len(record.header) + len(record.entries) for record in answer.records)
    return records + sum(map(len, (*answer.documents, *answer.headers, *answer.proofs)))
