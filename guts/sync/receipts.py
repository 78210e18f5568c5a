"""Receipts: which peers confirmed which record, who waits to be told, and what receipts are owed to whom.

A receipt is a peer's own signed word that it committed a record. It counts for that record and for every earlier one of
the author: it is taken only for a record that is held here, and what is held here was accepted because the author's
chain leads to it. Counting peers decides nothing; it tells a publisher how far a record has come.

Nobody asks twice: a GetReceipt for a record that is not here yet stays open until it is.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from guts.effects import Effect, GiveReceipt, Persist, ReceiptKept, Reply, Send
from guts.events import Accepted, CommandId, ConnectionId, Known
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import CommitReceipt, InvalidRecord, ReceiptClaim
from guts.sync.questions import UnsolicitedAnswer
from guts.wire.messages import Error, ErrorCode, GetReceipt, Receipt

MAX_RECENT: Final = 256
"""Authors of repositories whose receipts are in memory, the latest ones; the database has the others."""

MAX_PEERS: Final = 64
"""Receipts that are kept for one author: more replicas than anybody waits for."""

MAX_OPEN: Final = 64
"""GetReceipts open with one peer, in either direction; where one more comes, the oldest is given up."""

MAX_UNASKED: Final = 256
"""Receipts that one peer may send unasked in ``UNASKED_SECONDS``: each may cost the check of a signature and a row. An
honest peer sends one for each record that it fetched here; what is above is passed over."""

UNASKED_SECONDS: Final = 60.0


@dataclass(slots=True)
class ReceiptWaiter:
    """A command that is answered when enough peers have confirmed a record.

    Attributes:
        replicas: how many.
        deadline: monotonic seconds; the command is answered then, however many there are.
        confirmed: who has.
        hash: of the record, where it is held here.
    """

    command_id: CommandId
    repository: RepositoryId
    author: AuthorId
    seq: int
    replicas: int
    deadline: float
    confirmed: set[PeerId]
    hash: bytes | None = None

    @property
    def reply(self) -> Reply:
        """The answer, as things are."""
        return Reply(self.command_id, {"confirmed": len(self.confirmed)})


@dataclass(frozen=True, slots=True)
class _Request:
    """An open GetReceipt."""

    repository: RepositoryId
    author: AuthorId
    seq: int


@dataclass(slots=True)
class _Line:
    """What is open over one connection.

    Attributes:
        asked: by us, by id of the request.
        owed: by us, likewise.
        unasked: how many receipts came unasked since ``since`` (monotonic seconds).
    """

    asked: dict[int, _Request] = field(default_factory=dict)
    owed: dict[int, _Request] = field(default_factory=dict)
    unasked: int = 0
    since: float = 0.0


class Receipts:
    """The receipts of one node.

    Args:
        next_request: returns an id for a request, one that is not under way any more.
    """

    def __init__(self, next_request: Callable[[], int]) -> None:
        self._next_request = next_request
        self._recent: OrderedDict[tuple[RepositoryId, AuthorId], dict[PeerId, CommitReceipt]] = OrderedDict()
        self._waiters: list[ReceiptWaiter] = []
        self._lines: dict[ConnectionId, _Line] = {}

    def of(self, repository: RepositoryId) -> list[CommitReceipt]:
        """Return the receipts about ``repository`` that are in memory."""
        return [receipt for (id_, _), kept in self._recent.items() if id_ == repository for receipt in kept.values()]

    def deadline(self) -> float:
        """Return when ``tick`` is due next (monotonic seconds); infinity for never."""
        return min((waiter.deadline for waiter in self._waiters), default=float("inf"))

    def tick(self, now: float) -> list[Effect]:
        """Answer the commands that are out of time."""
        return self._answer([waiter for waiter in self._waiters if waiter.deadline <= now])

    # --- receipts for us ------------------------------------------------------------------------------------

    def wait(self, waiter: ReceiptWaiter, known: Known, holders: Iterable[tuple[PeerId, ConnectionId]]) -> list[Effect]:
        """Answer ``waiter`` when enough peers have confirmed; ask ``holders`` where they have not yet."""
        head = known.head(waiter.author)
        if head is not None and head.seq == waiter.seq:
            waiter.hash = head.hash
        recent = self._recent.get((waiter.repository, waiter.author), {})
        waiter.confirmed.update(peer for peer, receipt in recent.items() if receipt.claim.seq >= waiter.seq)
        if len(waiter.confirmed) >= waiter.replicas:
            return [waiter.reply]
        self._waiters.append(waiter)
        return self._ask(waiter, holders)

    def met(self, peer: PeerId, connection: ConnectionId, repositories: Iterable[RepositoryId]) -> list[Effect]:
        """Ask a peer that holds or follows ``repositories`` for what somebody waits for."""
        met = set(repositories)
        effects: list[Effect] = []
        for waiter in self._waiters:
            if waiter.repository in met:
                effects += self._ask(waiter, [(peer, connection)])
        return effects

    def _ask(self, waiter: ReceiptWaiter, holders: Iterable[tuple[PeerId, ConnectionId]]) -> list[Effect]:
        wanted = _Request(waiter.repository, waiter.author, waiter.seq)
        effects: list[Effect] = []
        for peer, connection in holders:
            asked = self._line(connection).asked
            if peer in waiter.confirmed or wanted in asked.values() or len(asked) >= MAX_OPEN:
                continue
            request = self._next_request()
            asked[request] = wanted
            effects.append(Send(connection, GetReceipt(request, wanted.repository, wanted.author, wanted.seq)))
        return effects

    def received(
        self,
        connection: ConnectionId,
        peer: PeerId,
        message: Receipt,
        held: Callable[[RepositoryId], Known | None],
        now: float,
    ) -> list[Effect]:
        """Take a receipt, where it is of use.

        Args:
            held: returns what is held of a repository that is followed; ``None`` where nothing is.

        Raises:
            UnsolicitedAnswer: it answers a request that is not open, or another one.
            InvalidRecord, NotCanonical: it is malformed, another node's, or its signature is not valid.
        """
        claim = ReceiptClaim.decode(message.receipt)
        if claim.peer != peer:
            raise InvalidRecord("a receipt comes from the node that signed it")
        line = self._line(connection)
        if message.request:
            wanted = line.asked.pop(message.request, None)
            if wanted is None:
                raise UnsolicitedAnswer("a Receipt for a request that is not open")
            if (claim.repository, claim.author) != (wanted.repository, wanted.author) or claim.seq < wanted.seq:
                raise UnsolicitedAnswer("a Receipt for another record than was asked for")
        elif not self._may_come_unasked(line, now):
            return []
        known = held(claim.repository)
        return self._take(claim, message.receipt) if known is not None and self._is_held(claim, known) else []

    def _may_come_unasked(self, line: _Line, now: float) -> bool:
        if now >= line.since + UNASKED_SECONDS:
            line.since, line.unasked = now, 0
        line.unasked += 1
        return line.unasked <= MAX_UNASKED

    def _is_held(self, claim: ReceiptClaim, known: Known) -> bool:
        head = known.head(claim.author)
        if head is not None and (head.seq, head.hash) == (claim.seq, claim.hash):
            return True
        # Somebody waits for a record that another one has replaced in the meantime.
        return any(
            (waiter.repository, waiter.author, waiter.seq, waiter.hash)
            == (claim.repository, claim.author, claim.seq, claim.hash)
            for waiter in self._waiters
        )

    def _take(self, claim: ReceiptClaim, data: bytes) -> list[Effect]:
        """Keep a receipt if there is a place for it, and is none from that peer that says as much."""
        key = (claim.repository, claim.author)
        kept = self._recent.get(key, {})
        before = kept.get(claim.peer)
        if before is not None and before.claim.seq >= claim.seq:
            return []
        oldest = min(kept.values(), key=lambda receipt: receipt.claim.seq, default=None)
        if before is None and len(kept) >= MAX_PEERS and oldest is not None and oldest.claim.seq >= claim.seq:
            return []
        receipt = CommitReceipt.verify(data)
        if before is None and len(kept) >= MAX_PEERS and oldest is not None:
            del kept[oldest.claim.peer]
        kept[claim.peer] = receipt
        self._recent[key] = kept
        self._recent.move_to_end(key)
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        for waiter in self._waiters:
            if (waiter.repository, waiter.author) == key and claim.seq >= waiter.seq:
                waiter.confirmed.add(claim.peer)
        done = [waiter for waiter in self._waiters if len(waiter.confirmed) >= waiter.replicas]
        return [Persist(ReceiptKept(receipt)), *self._answer(done)]

    def _answer(self, done: list[ReceiptWaiter]) -> list[Effect]:
        self._waiters = [waiter for waiter in self._waiters if waiter not in done]
        return [waiter.reply for waiter in done]

    # --- receipts from us -----------------------------------------------------------------------------------

    def asked(self, connection: ConnectionId, message: GetReceipt, known: Known) -> list[Effect]:
        """Give the receipt that a peer asks for, now or when the record is here."""
        head = known.head(message.author)
        if head is not None and head.seq >= message.seq:
            return [GiveReceipt(connection, message.request, message.repository, message.author, head)]
        owed = self._line(connection).owed
        effects: list[Effect] = []
        if len(owed) >= MAX_OPEN:
            oldest = next(iter(owed))
            del owed[oldest]
            effects.append(Send(connection, Error(oldest, ErrorCode.LIMIT, "too many receipts asked for")))
        owed[message.request] = _Request(message.repository, message.author, message.seq)
        return effects

    def committed(
        self,
        repository: RepositoryId,
        accepted: Accepted,
        source: ConnectionId | None,
        holders: Iterable[tuple[PeerId, ConnectionId]],
    ) -> list[Effect]:
        """Give the receipts that are due now: to ``source``, from where the records came, and to who asked.

        A command that waits for one of the authors has ``holders`` asked again: they may have been ahead of us.
        """
        effects: list[Effect] = []
        told: set[tuple[ConnectionId, AuthorId]] = set()
        for connection, line in self._lines.items():
            for request, wanted in list(line.owed.items()):
                head = accepted.known.head(wanted.author)
                if wanted.repository == repository and head is not None and head.seq >= wanted.seq:
                    del line.owed[request]
                    told.add((connection, wanted.author))
                    effects.append(GiveReceipt(connection, request, repository, wanted.author, head))
        for author, head, _ in accepted.news:
            if source is not None and (source, author) not in told:
                effects.append(GiveReceipt(source, 0, repository, author, head))
        fresh = {author for author, _, _ in accepted.news}
        holders = list(holders)
        for waiter in self._waiters:
            if waiter.repository == repository and waiter.author in fresh:
                effects += self._ask(waiter, holders)
        return effects

    # --- connections ----------------------------------------------------------------------------------------

    def refused(self, connection: ConnectionId, request: int) -> None:
        """Take an Error that answers one of our requests; any other is nobody's concern here."""
        if (line := self._lines.get(connection)) is not None:
            line.asked.pop(request, None)

    def gone(self, connection: ConnectionId) -> None:
        """Forget what was open over a connection."""
        self._lines.pop(connection, None)

    def _line(self, connection: ConnectionId) -> _Line:
        return self._lines.setdefault(connection, _Line())
