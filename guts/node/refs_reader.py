"""``RefsReader``: what a GetRefs asks for, read from the database; no more of it than the answer needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from guts.ids import AuthorId, RepositoryId
from guts.store import repositories as table
from guts.store.database import Database
from guts.wire.limits import KIB, MAX_DOCUMENTS, MAX_HEADERS, MAX_ITEMS, MAX_QUERIES, MAX_RECORDS, MAX_REFS_BYTES
from guts.wire.messages import EncodedRefs, RecordQuery, RefsAnswer, RefsQuery, RefsStatus

ANSWER_BUDGET: Final = MAX_REFS_BYTES - 32 * KIB
"""Bytes of documents, headers and records in one Refs; the rest of the message is ids and lengths."""

ANSWER_OVERHEAD: Final = 64
"""Bytes that an answer about one repository takes before anything is in it."""

VALUE_BYTES: Final = -(-ANSWER_BUDGET // (MAX_ITEMS - 8 * (MAX_QUERIES + 1)))
"""What a value counts for at least: a message has no more than 16,384, of which an answer's frame takes fewer than
eight. Who asks would otherwise take thousands of small documents, made for that, for a fault of ours."""

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

    def add_document(self, document: bytes) -> bool:
        if len(self.documents) >= MAX_DOCUMENTS or not self._fits(_cost(document)):
            return False
        self.documents.append(document)
        return True

    def add_record(self, record: EncodedRefs, bridge: Sequence[bytes]) -> bool:
        size = max(len(record.header) + len(record.entries), _RECORD_VALUES * VALUE_BYTES) + sum(map(_cost, bridge))
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
        return tuple(answers), b""

    async def _answer(self, query: RefsQuery | RecordQuery, budget: int) -> tuple[RefsAnswer, int, bool]:
        repository = query.repository
        answer = _Answer(budget)
        try:
            summary = await self._database.read(table.load_summary, repository)
        except table.NotHeld:
            return RefsAnswer(repository, RefsStatus.NOT_HELD), answer.spent, True
        if not summary.seeding:
            return RefsAnswer(repository, RefsStatus.NOT_HELD), answer.spent, True
        if isinstance(query, RecordQuery):
            wanted = {query.author} if summary.authors.get(query.author, (-1,))[0] == query.seq else set()
            complete = await self._add_records(answer, repository, wanted, {})
        else:
            known = {head.author: head.seq for head in query.known}
            newer = {author for author, (seq, _) in summary.authors.items() if known.get(author, -1) < seq}
            complete = await self._add_documents(answer, query, summary.epoch)
            complete = complete and await self._add_records(answer, repository, newer, known)
        result = RefsAnswer(
            repository, RefsStatus.HELD, tuple(answer.documents), tuple(answer.headers), tuple(answer.records)
        )
        return result, answer.spent, complete

    async def _add_documents(self, answer: _Answer, query: RefsQuery, epoch: int) -> bool:
        if query.documents > epoch:
            return True
        documents = await self._database.read(table.load_documents, query.repository, from_epoch=query.documents)
        return all(answer.add_document(document.encoded) for document in documents)

    async def _add_records(
        self, answer: _Answer, repository: RepositoryId, authors: set[AuthorId], known: dict[AuthorId, int]
    ) -> bool:
        for author in sorted(authors):
            row = await self._database.read(table.load_signed_refs_of, repository, author)
            bridge: tuple[table.Header, ...] = ()
            if author in known:
                bridge = await self._database.read(table.load_headers, repository, author, above_seq=known[author])
            if not answer.add_record(EncodedRefs(row.header, row.entries), [header.encoded for header in bridge]):
                return False
        return True
