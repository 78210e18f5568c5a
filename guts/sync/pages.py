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
from guts.wire.limits import MAX_DOCUMENTS, MAX_KNOWN_HEADS, MAX_REFS_BYTES, MIB
from guts.wire.messages import EncodedRefs, RefsAnswer

MAX_PAGES_BYTES: Final = 32 * MAX_REFS_BYTES + 64 * MIB
"""Bytes of all pages that are kept: the records of 32 maintainers, each as large as one may be, and 1,000 documents."""

VALUE_BYTES: Final = 128
"""What a value takes in memory besides its bytes, at the most: the objects around it and its places in lists."""

MAX_PAGES: Final = 64
"""Pages of one answer: a record of the largest size for each author that a question names."""

TAKEOVER_AFTER: Final = 300.0
"""Seconds after its first page from which an answer gives way to another peer's: 4 MiB pages at 140 kB/s, ten of them.
"""


@dataclass(slots=True)
class _Pages:
    """What one peer has answered so far about one repository."""

    peer: PeerId
    deadline: float
    count: int = 0
    documents: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    records: dict[AuthorId, EncodedRefs] = field(default_factory=dict)
    proofs: list[bytes] = field(default_factory=list)
    heads: dict[AuthorId, Head] = field(default_factory=dict)
    epoch: int | None = None
    identity_hash: bytes = b""
    size: int = 0

    def add(self, answer: RefsAnswer) -> bool:
        """Add a page; ``False``, and nothing is changed, where it has nothing new or can't follow what is here.

        Raises:
            PeerFault: it has what is no header or document.
        """
        epoch, identity_hash = self.epoch, self.identity_hash
        if answer.documents:
            first, last = _document(answer.documents[0]), _document(answer.documents[-1])
            epoch, identity_hash = last.epoch, last.hash
            if self.epoch not in (None, first.epoch - 1) or epoch - first.epoch + 1 != len(answer.documents):
                return False
        kept = {record.header for record in self.records.values()}
        new = [(_head(record), record) for record in answer.records if record.header not in kept]
        heads = {author: head for (author, head), _ in new}
        if (
            not (new or answer.documents)
            or len(heads) < len(new)
            or any(author in heads and heads[author].seq <= head.seq for author, head in self.heads.items())
            or len(self.heads.keys() | heads.keys()) > MAX_KNOWN_HEADS
            or len(self.documents) + len(answer.documents) > MAX_DOCUMENTS
        ):
            return False
        self.count += 1
        self.epoch, self.identity_hash = epoch, identity_hash
        # An author may have signed another record between two pages; what came first leads to it then.
        self.headers += [self.records[author].header for author in heads if author in self.records]
        self.records.update({author: record for (author, _), record in new})
        self.heads.update(heads)
        self.documents += answer.documents
        self.headers += answer.headers
        self.proofs += answer.proofs
        return True


class Pages:
    """The answers that are being put together, one for each repository at the most."""

    def __init__(self) -> None:
        self._open: dict[RepositoryId, _Pages] = {}
        self._size = 0

    def keep(self, peer: PeerId, answer: RefsAnswer, now: float) -> bool:
        """Keep a page; ``False`` where it has nothing new, there is no room, or another peer's answer is being kept.

        So too where it has what is no header or document: whoever judges the records says whose fault that is. An
        answer that was begun ``TAKEOVER_AFTER`` seconds before ``now`` (monotonic) gives way to another peer's.
        """
        size = _size(answer)
        pages = self._open.get(answer.repository)
        if (pages is not None and pages.peer != peer) or self._size + size > MAX_PAGES_BYTES:
            self._give_way(peer, now)
            pages = self._open.get(answer.repository)
        pages = pages or _Pages(peer, now + TAKEOVER_AFTER)
        if pages.peer != peer or pages.count >= MAX_PAGES or self._size + size > MAX_PAGES_BYTES:
            return False
        try:
            added = pages.add(answer)
        except PeerFault:
            return False
        if added:
            pages.size += size
            self._size += size
            self._open[answer.repository] = pages
        return added

    def _give_way(self, peer: PeerId, now: float) -> None:
        """Forget what other peers than ``peer`` have taken too long for."""
        for repository, pages in list(self._open.items()):
            if pages.peer != peer and now >= pages.deadline:
                self._forget(repository)

    def known(self, peer: PeerId, repository: RepositoryId, known: Known) -> Known:
        """Return ``known`` with what is in the pages of ``peer``: what it need not tell again."""
        pages = self._open.get(repository)
        if pages is None or pages.peer != peer:
            return known
        heads = {**dict(known.heads), **pages.heads}
        place = (known.epoch, known.identity_hash) if pages.epoch is None else (pages.epoch, pages.identity_hash)
        # Those that were just told first: who is asked about too many heads must get on.
        order = sorted(heads.items(), key=lambda item: (item[0] not in pages.heads, item[0]))
        return Known(*place, tuple(order), known.splits, known.fork)

    def take(self, peer: PeerId, answer: RefsAnswer) -> Candidate:
        """Return the last page with those of ``peer`` before it, which are kept no longer."""
        pages = self._open.get(answer.repository)
        if pages is None or pages.peer != peer:
            return Candidate(answer.documents, answer.headers, answer.records, answer.proofs)
        self._forget(answer.repository)
        records = {record.header: record for record in (*pages.records.values(), *answer.records)}
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


def _document(encoded: bytes) -> IdentityDocument:
    return IdentityDocument.decode_body(Signed.decode(encoded, MAX_DOCUMENT_BYTES).body)


def _size(answer: RefsAnswer) -> int:
    records = [value for record in answer.records for value in (record.header, record.entries)]
    return sum(len(value) + VALUE_BYTES for value in (*records, *answer.documents, *answer.headers, *answer.proofs))
