"""``RefsReader``: what a GetRefs asks for, read from the database; no more of it than the answer needs."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from guts.ids import AuthorId, RepositoryId
from guts.node.history import restore
from guts.records import Signed
from guts.store import accepted, history
from guts.store import repositories as table
from guts.store.accepted import NotHeld
from guts.store.database import Database
from guts.trust.signed_refs import MAX_HEADER_BYTES, Header, SignedRefs
from guts.wire.limits import (
    KIB,
    MAX_DOCUMENTS,
    MAX_HEADERS,
    MAX_ITEMS,
    MAX_PROOFS,
    MAX_QUERIES,
    MAX_RECORDS,
    MAX_REFS_BYTES,
)
from guts.wire.messages import EncodedRefs, RecordQuery, RefsAnswer, RefsQuery, RefsStatus

ANSWER_BUDGET: Final = MAX_REFS_BYTES - 32 * KIB
"""Bytes of documents, headers and records in one Refs; the rest of the message is ids and lengths."""

ANSWER_OVERHEAD: Final = 64
"""Bytes that an answer about one repository takes before anything is in it."""

VALUE_BYTES: Final = -(-ANSWER_BUDGET // (MAX_ITEMS - 9 * (MAX_QUERIES + 1)))
"""What a value counts for at least: a message has no more than 16,384, of which an answer's frame takes fewer than
nine. Who asks would otherwise take thousands of small documents, made for that, for a fault of ours."""

_RECORD_VALUES: Final = 3
"""A record is a list of two."""

_CURSOR_BYTES: Final = 2


@dataclass(slots=True)
class _Answer:
    """An answer as it grows; the first thing always fits, so that an asker always gets on."""

    budget: int
    spent: int = ANSWER_OVERHEAD
    documents: list[bytes] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    records: list[EncodedRefs] = field(default_factory=list)
    proofs: list[bytes] = field(default_factory=list)

    def add_proof(self, proof: bytes) -> bool:
        if len(self.proofs) >= MAX_PROOFS or not self._fits(_cost(proof)):
            return False
        self.proofs.append(proof)
        return True

    def add_document(self, document: bytes) -> bool:
        if len(self.documents) >= MAX_DOCUMENTS or not self._fits(_cost(document)):
            return False
        self.documents.append(document)
        return True

    def add_record(self, record: EncodedRefs, bridge: Sequence[bytes]) -> bool:
        size = max(len(record.header) + len(record.entries), _RECORD_VALUES * VALUE_BYTES)
        if size + sum(map(_cost, bridge)) > ANSWER_BUDGET:
            # No message holds both. Who has nothing of the author needs no bridge; others wait for a smaller record.
            bridge = ()
        size += sum(map(_cost, bridge))
        if len(self.records) >= MAX_RECORDS or len(self.headers) + len(bridge) > MAX_HEADERS or not self._fits(size):
            return False
        self.headers += bridge
        self.records.append(record)
        return True

    def _fits(self, size: int) -> bool:
        if self.spent > ANSWER_OVERHEAD and self.spent + size > self.budget:
            return False
        self.spent += size
        return True


def _cost(value: bytes) -> int:
    return max(len(value), VALUE_BYTES)


MAX_SERVED_DELTAS: Final = 50
"""How far behind the newest an older record is told to others: each step is work for this node, up to 16 ms."""


class RefsReader:
    """Answers GetRefs from the database of a node."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self, queries: Sequence[RefsQuery | RecordQuery], cursor: bytes
    ) -> tuple[tuple[RefsAnswer, ...], bytes]:
        """Return the answers to ``queries`` that fit one message, and a cursor that goes on with the rest.

        The cursor is the index of the first query that is not answered in full. An answer that is cut still carries
        something new, so an asker that asks again with what it knows then always gets on.

        Raises:
            StorageFault: the database failed.
        """
        answers: list[RefsAnswer] = []
        left = ANSWER_BUDGET
        start = int.from_bytes(cursor, "big")
        for index, query in enumerate(queries[start:], start):
            answer, spent, complete = await self._answer(query, left)
            if answers and spent > left:
                return tuple(answers), index.to_bytes(_CURSOR_BYTES, "big")
            answers.append(answer)
            left -= spent
            if not complete:
                return tuple(answers), index.to_bytes(_CURSOR_BYTES, "big")
            if isinstance(query, RecordQuery) and index + 1 < len(queries):
                # One at a time: older records take work to make.
                return tuple(answers), (index + 1).to_bytes(_CURSOR_BYTES, "big")
        return tuple(answers), b""

    async def _answer(self, query: RefsQuery | RecordQuery, budget: int) -> tuple[RefsAnswer, int, bool]:
        repository = query.repository
        answer = _Answer(budget)
        try:
            summary = await self._database.read(table.load_summary, repository)
        except NotHeld:
            return RefsAnswer(repository, RefsStatus.NOT_HELD), answer.spent, True
        if not summary.seeding:
            return RefsAnswer(repository, RefsStatus.NOT_HELD), answer.spent, True
        if isinstance(query, RecordQuery):
            complete = await self._add_record(answer, query)
        else:
            known = {head.author: (head.seq, head.hash) for head in query.known}
            newer = {author for author, newest in summary.authors.items() if _is_newer(newest, known.get(author))}
            complete = await self._add_documents(answer, query)
            if summary.splits or summary.fork:
                complete = complete and await self._add_proofs(answer, query)
            complete = complete and await self._add_records(answer, repository, newer, known)
        result = RefsAnswer(
            repository,
            RefsStatus.HELD,
            tuple(answer.documents),
            tuple(answer.headers),
            tuple(answer.records),
            tuple(answer.proofs),
            summary.size,
        )
        return result, answer.spent, complete

    async def _add_documents(self, answer: _Answer, query: RefsQuery) -> bool:
        if query.documents and query.fork:
            # Its identity does not change any more.
            return True
        last = max(query.documents - 1, 0)
        documents = await self._database.read(table.load_documents, query.repository, from_epoch=last)
        if query.documents and documents and documents[0].hash != query.identity_hash:
            # It follows another document of that epoch, or of one before.
            documents = await self._database.read(table.load_documents, query.repository, from_epoch=1)
        elif query.documents:
            documents = documents[1:]
        return all(answer.add_document(document.encoded) for document in documents)

    async def _add_proofs(self, answer: _Answer, query: RefsQuery) -> bool:
        """Add what the asker does not know of authors who signed two histories."""
        known = {split.author: split.seq for split in query.splits}
        proofs = await self._database.read(history.load_proofs, query.repository)
        fork = await self._database.read(history.load_fork, query.repository)
        if fork is not None and not query.fork and not answer.add_proof(fork.encoded):
            return False
        return all(
            answer.add_proof(proof.encoded)
            for proof in proofs
            if proof.author not in known or proof.split < known[proof.author]
        )

    async def _add_record(self, answer: _Answer, query: RecordQuery) -> bool:
        """Add the records of that author and seq, where they are held: two, if its history split there."""
        newest: SignedRefs | None = None
        found: list[EncodedRefs] = []
        with contextlib.suppress(NotHeld):
            row = await self._database.read(table.load_signed_refs_of, query.repository, query.author)
            if row.seq == query.seq:
                found.append(EncodedRefs(row.header, row.entries))
            newest = await asyncio.to_thread(SignedRefs.decode, row.header, row.entries)
        for kept in await self._database.read(history.load_kept, query.repository, query.author):
            if kept.header.seq == query.seq and kept.base is not None:
                record = await restore(self._database, query.repository, kept.header, newest, MAX_SERVED_DELTAS)
                found += [EncodedRefs(record.header_bytes, record.entries_bytes)] if record is not None else []
        return all(answer.add_record(record, ()) for record in found)

    async def _add_records(
        self,
        answer: _Answer,
        repository: RepositoryId,
        authors: set[AuthorId],
        known: dict[AuthorId, tuple[int, bytes]],
    ) -> bool:
        for author in sorted(authors):
            row = await self._database.read(table.load_signed_refs_of, repository, author)
            bridge: list[bytes] = []
            if author in known:
                bridge = await self._bridge(repository, row, known[author])
            if not answer.add_record(EncodedRefs(row.header, row.entries), bridge):
                return False
        return True

    async def _bridge(
        self, repository: RepositoryId, newest: accepted.SignedRefs, known: tuple[int, bytes]
    ) -> list[bytes]:
        """Return the headers that lead from ``known`` (seq, hash) to the author's newest record, oldest first.

        Where ``known`` is not among them, the last one that is older comes too: it shows that the history has split.
        """
        seq, digest = known
        rows = await self._database.read(history.load_headers, repository, newest.author, above_seq=seq)
        bridge, before = await asyncio.to_thread(_leading, rows, newest.header)
        if before != digest and newest.seq > seq:
            older = await self._database.read(history.load_header, repository, newest.author, before)
            bridge = [*([older.encoded] if older is not None else []), *bridge]
        return bridge


def _is_newer(newest: tuple[int, bytes], known: tuple[int, bytes] | None) -> bool:
    """Tell whether an author's newest record is news to who knows ``known``, or another one of that seq."""
    return known is None or newest[0] > known[0] or (newest[0] == known[0] and newest[1] != known[1])


def _leading(rows: Sequence[history.Header], newest: bytes) -> tuple[list[bytes], bytes]:
    """Return those of ``rows`` that lead to ``newest``, oldest first, and the hash of the header before them."""
    headers = {row.hash: row.encoded for row in rows}
    found: list[bytes] = []
    previous = _previous(newest)
    while (parent := headers.pop(previous, None)) is not None:
        found.append(parent)
        previous = _previous(parent)
    return found[::-1], previous


def _previous(header: bytes) -> bytes:
    return Header.decode_body(Signed.decode(header, MAX_HEADER_BYTES).body).previous
