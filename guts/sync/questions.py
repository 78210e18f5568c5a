"""Who is being asked for refs, about what: a few GetRefs under way with each peer, the rest waits here."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from guts.effects import Send
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId, Known
from guts.ids import PeerId, RepositoryId
from guts.wire.limits import MAX_KNOWN_HEADS, MAX_MESSAGE_BYTES, MAX_QUERIES, MAX_SPLITS, MAX_UINT32
from guts.wire.messages import GetRefs, KnownHead, KnownSplit, Refs, RefsQuery

ANSWER_TIMEOUT: Final = 30.0
"""Seconds for an answer to GetRefs: 4 MiB at 140 kB/s. A later one is still taken."""

MAX_QUESTIONS_PER_PEER: Final = 2
"""GetRefs under way with one peer; the rest wait here, not in its queue."""

QUERY_BYTES: Final = 96
"""The most that a query takes without the heads in it: id, hash, count and lengths."""

HEAD_BYTES: Final = 80
"""The most that one known head takes in a query: author, seq, hash and lengths."""

SPLIT_BYTES: Final = 48
"""The most that one known split takes: author, seq and lengths."""

MESSAGE_OVERHEAD: Final = 128
"""The most that a GetRefs takes without its queries."""


class UnsolicitedAnswer(PeerFault):
    """An answer to a question that was not asked, or about something that was not asked for."""

    code: ClassVar[str] = "UNSOLICITED_ANSWER"
    severity: ClassVar[Severity] = Severity.SERIOUS


def refs_query(repository: RepositoryId, known: Known) -> RefsQuery:
    """Return the question for what is newer than ``known``."""
    # An author who is left out is only told again.
    heads = tuple(KnownHead(author, head.seq, head.hash) for author, head in known.heads[:MAX_KNOWN_HEADS])
    splits = tuple(KnownSplit(author, seq) for author, seq in known.splits[:MAX_SPLITS])
    return RefsQuery(repository, known.epoch + 1, known.identity_hash, heads, splits, known.fork)


def _size(query: RefsQuery) -> int:
    return QUERY_BYTES + HEAD_BYTES * len(query.known) + SPLIT_BYTES * len(query.splits)


@dataclass(slots=True)
class Question:
    """One GetRefs that has not been answered.

    Attributes:
        deadline: monotonic seconds; infinity once it has passed.
    """

    peer: PeerId
    repositories: tuple[RepositoryId, ...]
    deadline: float


@dataclass(slots=True)
class _Line:
    """A ready peer: its connection, what was asked over it, and what is still to be asked, in order."""

    connection: ConnectionId
    asked: dict[int, Question] = field(default_factory=dict)
    waiting: dict[RepositoryId, None] = field(default_factory=dict)

    @property
    def silent(self) -> bool:
        """Tell whether the peer owes so many answers that it is asked nothing more."""
        overdue = sum(question.deadline == math.inf for question in self.asked.values())
        return overdue >= MAX_QUESTIONS_PER_PEER


class RequestIds:
    """The ids of this node's requests, to whomever they go."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Return an id for a request, one that is not under way any more."""
        self._last = self._last % MAX_UINT32 + 1
        return self._last


class Questions:
    """The open questions to every ready peer.

    A question that is overdue keeps its place until it is answered or the connection ends: a peer that owes
    ``MAX_QUESTIONS_PER_PEER`` answers is asked nothing more, and a slow one's answer is not taken for an unasked one.

    Args:
        query: makes the question for a peer about a repository; ``None`` where it is followed no longer.
        next_request: see ``RequestIds``.
    """

    def __init__(
        self, query: Callable[[PeerId, RepositoryId], RefsQuery | None], next_request: Callable[[], int]
    ) -> None:
        self._query = query
        self._next_request = next_request
        self._lines: dict[PeerId, _Line] = {}
        # All are given the same time, so the first is overdue first; asked for after each event of the node.
        self._awaited: dict[tuple[PeerId, int], Question] = {}

    def connections(self) -> list[ConnectionId]:
        """Return the connections of the ready peers."""
        return [line.connection for line in self._lines.values()]

    def peers(self) -> list[PeerId]:
        """Return the ready peers."""
        return list(self._lines)

    def ready(self, peer: PeerId) -> bool:
        """Tell whether ``peer`` can be asked."""
        return peer in self._lines

    def begin(self, peer: PeerId, connection: ConnectionId) -> None:
        """Note that ``peer`` is ready, over ``connection``."""
        self._end(peer)
        self._lines[peer] = _Line(connection)

    def end(self, peer: PeerId, connection: ConnectionId) -> bool:
        """Forget ``peer`` and what it was asked; ``False`` where ``connection`` is not the one it is ready over."""
        line = self._lines.get(peer)
        if line is None or line.connection != connection:
            return False
        self._end(peer)
        return True

    def _end(self, peer: PeerId) -> None:
        line = self._lines.pop(peer, None)
        for request in line.asked if line is not None else ():
            self._awaited.pop((peer, request), None)

    def connection(self, peer: PeerId) -> ConnectionId | None:
        """Return the connection over which ``peer`` is ready."""
        line = self._lines.get(peer)
        return line.connection if line is not None else None

    def add(self, peer: PeerId, repository: RepositoryId) -> bool:
        """Put a question in line; ``False`` where ``peer`` can't be asked."""
        line = self._lines.get(peer)
        if line is None or line.silent:
            return False
        line.waiting[repository] = None
        return True

    def send(self, peer: PeerId, now: float) -> list[Send]:
        """Return the GetRefs for which there is room."""
        line = self._lines.get(peer)
        sends: list[Send] = []
        while line is not None and line.waiting and len(line.asked) < MAX_QUESTIONS_PER_PEER:
            queries = self._batch(peer, line)
            if queries:
                request = self._next_request()
                repositories = tuple(query.repository for query in queries)
                question = Question(peer, repositories, now + ANSWER_TIMEOUT)
                line.asked[request] = self._awaited[peer, request] = question
                sends.append(Send(line.connection, GetRefs(request, queries)))
        return sends

    def _batch(self, peer: PeerId, line: _Line) -> tuple[RefsQuery, ...]:
        """Take queries out of the line, as many as one message holds."""
        queries: list[RefsQuery] = []
        room = MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD
        while line.waiting and len(queries) < MAX_QUERIES:
            repository = next(iter(line.waiting))
            query = self._query(peer, repository)
            size = _size(query) if query is not None else 0
            if queries and size > room:
                break
            del line.waiting[repository]
            if query is not None:
                queries.append(query)
                room -= size
        return tuple(queries)

    def find(self, connection: ConnectionId, request: int) -> Question | None:
        """Return the open question that ``request`` names."""
        lines = (line for line in self._lines.values() if line.connection == connection)
        return next((line.asked.get(request) for line in lines), None)

    def answered(self, connection: ConnectionId, refs: Refs) -> Question:
        """Return the open question that ``refs`` answers.

        Raises:
            UnsolicitedAnswer: nothing was asked under that id, or something else was.
        """
        question = self.find(connection, refs.request)
        if question is None:
            raise UnsolicitedAnswer("Refs for a request that is not open")
        answered = {answer.repository for answer in refs.answers}
        if len(answered) != len(refs.answers) or not answered <= set(question.repositories):
            raise UnsolicitedAnswer("Refs about a repository that was not asked for")
        return question

    def close(self, peer: PeerId, request: int) -> None:
        """Forget a question that was answered."""
        del self._lines[peer].asked[request]
        self._awaited.pop((peer, request), None)

    def overdue(self, now: float) -> list[tuple[PeerId, tuple[RepositoryId, ...]]]:
        """Return what has become overdue since the last call, with what waits behind it for good."""
        found: list[tuple[PeerId, tuple[RepositoryId, ...]]] = []
        while self._awaited and (question := next(iter(self._awaited.values()))).deadline <= now:
            del self._awaited[next(iter(self._awaited))]
            question.deadline = math.inf
            found.append((question.peer, question.repositories))
            line = self._lines[question.peer]
            if line.silent and line.waiting:
                found.append((question.peer, tuple(line.waiting)))
                line.waiting.clear()
        return found

    def deadline(self) -> float:
        """Return when the next question is overdue (monotonic seconds); infinity for never."""
        return next(iter(self._awaited.values())).deadline if self._awaited else math.inf
