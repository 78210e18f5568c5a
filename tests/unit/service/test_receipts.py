"""Who confirms what to whom, what counts, and what costs nothing."""

import pytest

from guts.effects import Disconnect, Effect, GiveReceipt, Persist, ReceiptKept, Reply, ScoreChanged, Send
from guts.errors import Unavailable
from guts.events import (
    Accepted,
    AwaitReceipts,
    CommandId,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    Head,
    Known,
    NothingNew,
    Published,
    Seed,
    Unseed,
    Woke,
)
from guts.gossip.envelope import envelope
from guts.identity import SigningKey
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.records import CommitReceipt, Signed
from guts.service.commands import NotFollowed
from guts.sync.receipts import MAX_OPEN, MAX_PEERS, MAX_RECENT, MAX_UNASKED, UNASKED_SECONDS, Receipts, ReceiptWaiter
from guts.wire.messages import (
    Error,
    ErrorCode,
    GetReceipt,
    NewCommit,
    Receipt,
    Refs,
    RefsAnswer,
    RefsStatus,
    Subscribe,
)
from tests.support.peers import IDS, KEYS, WALL, author
from tests.unit.service.bench import AUTHOR, RECORD, Bench, R, S, accepted, known

C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)
HASH = b"h" * 32
NEWS = envelope(NewCommit(R, AUTHOR, 2, HASH, RECORD))


def receipt(
    number: int,
    seq: int = 1,
    *,
    repository: RepositoryId = R,
    author: AuthorId = AUTHOR,
    digest: bytes = HASH,
    time_ms: int = WALL,
) -> CommitReceipt:
    """Return what node ``number`` signs."""
    return CommitReceipt.sign(KEYS[number], repository, author, seq, digest, time_ms)


def kept(number: int, seq: int = 1) -> Persist:
    return Persist(ReceiptKept(receipt(number, seq)))


def forged(number: int, by: SigningKey) -> bytes:
    """Return a receipt in the name of node ``number`` that another one signed."""
    body = Signed.decode(receipt(number).encoded, 300).body
    (_, signature), *_ = Signed.sign("receipt", body, by).signatures
    return Signed(body, ((IDS[number], signature),)).encode()


def finished(outcome: FetchOutcome, connection: ConnectionId = C1, fetch: int = 1) -> FetchFinished:
    return FetchFinished(FetchId(fetch), R, connection, outcome)


def wait(replicas: int, seq: int = 1, *confirmed: int, timeout: float = 20.0) -> AwaitReceipts:
    return AwaitReceipts(R, AUTHOR, seq, replicas, frozenset(IDS[number] for number in confirmed), timeout)


def told(number: int, confirmed: int) -> Reply:
    return Reply(CommandId(number), {"confirmed": confirmed})


def asked(effects: list[Effect]) -> list[tuple[ConnectionId, int]]:
    """Return over which connections a receipt of record 1 is asked for, and under which ids; there is nothing else."""
    found = []
    for effect in effects:
        assert isinstance(effect, Send)
        assert isinstance(effect.message, GetReceipt)
        assert (effect.message.repository, effect.message.author, effect.message.seq) == (R, AUTHOR, 1)
        found.append((effect.connection, effect.message.request))
    return found


def publisher(*followers: int) -> Bench:
    """Return a node that holds record 1 of R; each follower is connected under its own number."""
    bench = Bench({R: known(1)})
    for number in followers:
        bench.call(number, number)
        bench.say(number, Subscribe((R,)))
        answer = RefsAnswer(R, RefsStatus.HELD)
        bench.say(number, Refs(bench.service.sync.requests.next() - 1, (answer,)))
    return bench


def faults(effects: list[Effect]) -> list[str]:
    """Return the codes of the faults that were counted."""
    return [
        effect.change.reason
        for effect in effects
        if isinstance(effect, Persist) and isinstance(effect.change, ScoreChanged)
    ]


# --- what we confirm ----------------------------------------------------------------------------------------


def test_replica_confirms_to_the_peer_that_it_fetched_from() -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.say(1, NEWS)
    assert bench.handle(finished(accepted(2))) == [GiveReceipt(C1, 0, R, AUTHOR, Head(2, HASH))]


def test_replica_confirms_every_authors_record_that_came() -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.say(1, NEWS)
    other, head = author(2), Head(9, b"g" * 32)
    both = Accepted(
        Known(0, b"i" * 32, ((AUTHOR, Head(2, HASH)), (other, head))),
        ((AUTHOR, Head(2, HASH), RECORD), (other, head, RECORD)),
    )
    assert bench.handle(finished(both)) == [
        GiveReceipt(C1, 0, R, AUTHOR, Head(2, HASH)),
        GiveReceipt(C1, 0, R, other, head),
    ]


@pytest.mark.parametrize("outcome", [NothingNew(known(1)), Failed(Unavailable("gone"))])
def test_nothing_is_confirmed_where_nothing_was_committed(outcome: FetchOutcome) -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.say(1, NEWS)
    assert not any(isinstance(effect, GiveReceipt) for effect in bench.handle(finished(outcome)))


def test_what_is_no_longer_followed_is_not_confirmed() -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.say(1, NEWS)
    bench.command(Unseed(R))
    assert not any(isinstance(effect, GiveReceipt) for effect in bench.handle(finished(accepted(2))))


def test_node_that_keeps_nothing_confirms_nothing() -> None:
    bench = Bench({R: known(1)}, capabilities=())
    bench.call(1, 1)
    bench.say(1, NEWS)
    assert bench.handle(finished(accepted(2))) == []
    refusal = Error(5, ErrorCode.REFUSED, "this node keeps nothing")
    assert bench.say(1, GetReceipt(5, R, AUTHOR, 1)) == [Send(C1, refusal)]


@pytest.mark.parametrize("seq", [0, 1])
def test_receipt_that_is_asked_for_is_of_the_newest_record(seq: int) -> None:
    bench = publisher()
    bench.call(1, 1)
    assert bench.say(1, GetReceipt(5, R, AUTHOR, seq)) == [GiveReceipt(C1, 5, R, AUTHOR, Head(1, HASH))]


def test_receipt_of_what_is_not_followed_is_refused() -> None:
    bench = publisher()
    bench.call(1, 1)
    refusal = Error(5, ErrorCode.NOT_FOUND, "not followed here")
    assert bench.say(1, GetReceipt(5, S, AUTHOR, 1)) == [Send(C1, refusal)]


def test_receipt_of_a_record_to_come_is_given_when_it_is_committed() -> None:
    bench = publisher()
    for number in (1, 2):
        bench.call(number, number)
    assert bench.say(1, GetReceipt(5, R, AUTHOR, 2)) == []
    assert bench.say(2, GetReceipt(6, R, AUTHOR, 3)) == []
    bench.say(1, NEWS)
    # Once, also to whom it is due unasked.
    assert bench.handle(finished(accepted(2))) == [GiveReceipt(C1, 5, R, AUTHOR, Head(2, HASH))]
    assert bench.handle(Published(R, accepted(4))) == [GiveReceipt(C2, 6, R, AUTHOR, Head(4, HASH))]
    assert bench.handle(Published(R, accepted(5))) == []


def test_receipt_of_a_repository_on_its_way_is_given_when_it_is_here() -> None:
    bench = Bench()
    for number in (1, 2):
        bench.call(number, number)
    bench.command(Seed(R, (), 60.0))
    assert bench.say(2, GetReceipt(5, R, AUTHOR, 1)) == []
    answer = RefsAnswer(R, RefsStatus.HELD, (b"d",), (), (RECORD,))
    bench.say(1, Refs(1, (answer,)))
    effects = bench.handle(finished(accepted(1)))
    given = [effect for effect in effects if isinstance(effect, GiveReceipt)]
    assert given == [GiveReceipt(C2, 5, R, AUTHOR, Head(1, HASH)), GiveReceipt(C1, 0, R, AUTHOR, Head(1, HASH))]


def test_nothing_is_owed_over_a_connection_that_is_gone() -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.say(1, GetReceipt(5, R, AUTHOR, 2))
    bench.end(1)
    assert bench.handle(Published(R, accepted(2))) == []


def test_oldest_of_too_many_open_requests_is_given_up() -> None:
    bench = publisher()
    bench.call(1, 1)
    for number in range(MAX_OPEN):
        assert bench.say(1, GetReceipt(number + 1, R, AUTHOR, 2 + number)) == []
    too_many = Error(1, ErrorCode.LIMIT, "too many receipts asked for")
    assert bench.say(1, GetReceipt(1000, R, AUTHOR, 2)) == [Send(C1, too_many)]
    given = bench.handle(Published(R, accepted(2)))
    assert given == [GiveReceipt(C1, 1000, R, AUTHOR, Head(2, HASH))]


# --- what others confirm ------------------------------------------------------------------------------------


def test_receipt_for_what_is_held_is_kept_once() -> None:
    bench = publisher(1)
    assert bench.say(1, Receipt(0, receipt(1).encoded)) == [kept(1)]
    assert bench.say(1, Receipt(0, receipt(1, time_ms=WALL + 1).encoded)) == []
    assert bench.service.receipts.of(R) == [receipt(1)]
    assert bench.service.receipts.of(S) == []


def test_receipt_for_a_newer_record_takes_the_place_of_the_older_one() -> None:
    bench = publisher(1)
    bench.say(1, Receipt(0, receipt(1).encoded))
    bench.handle(Published(R, accepted(2)))
    assert bench.say(1, Receipt(0, receipt(1, 2).encoded)) == [kept(1, 2)]
    assert bench.say(1, Receipt(0, receipt(1).encoded)) == []
    assert bench.service.receipts.of(R) == [receipt(1, 2)]


@pytest.mark.parametrize(
    "of_no_use",
    [
        receipt(1, repository=S),
        receipt(1, author=author(2)),
        receipt(1, 0),
        receipt(1, 2),
        receipt(1, digest=b"g" * 32),
    ],
)
def test_receipt_for_what_is_not_held_changes_nothing(of_no_use: CommitReceipt) -> None:
    bench = publisher(1)
    assert bench.say(1, Receipt(0, of_no_use.encoded)) == []
    assert bench.service.receipts.of(of_no_use.claim.repository) == []


@pytest.mark.parametrize("data", [b"receipt", receipt(2).encoded, forged(1, KEYS[2]), receipt(1).encoded[:-1] + b"x"])
def test_forged_receipt_is_a_fatal_fault(data: bytes) -> None:
    bench = publisher(1)
    effects = bench.say(1, Receipt(0, data))
    assert len(faults(effects)) == 1
    assert any(isinstance(effect, Disconnect) for effect in effects)
    assert bench.service.receipts.of(R) == []


def test_receipts_past_the_rate_are_passed_over_until_the_minute_is_over() -> None:
    bench = publisher(1)
    for _ in range(MAX_UNASKED - 1):
        assert bench.say(1, Receipt(0, receipt(1, 7).encoded)) == []
    assert bench.say(1, Receipt(0, receipt(1).encoded)) == [kept(1)]
    bench.handle(Published(R, accepted(2)))
    assert bench.say(1, Receipt(0, receipt(1, 2).encoded)) == []
    bench.time += UNASKED_SECONDS
    assert bench.say(1, Receipt(0, receipt(1, 2).encoded)) == [kept(1, 2)]


def test_receipts_of_64_peers_are_kept_and_those_for_older_records_give_way() -> None:
    receipts = Receipts(lambda: 1)
    keys = [SigningKey(bytes([number]) * 32) for number in range(MAX_PEERS + 2)]
    now = known(5)

    def come(number: int, seq: int, digest: bytes = HASH) -> bool:
        made = CommitReceipt.sign(keys[number], R, AUTHOR, seq, digest, WALL)
        message = Receipt(0, made.encoded)
        return bool(receipts.received(ConnectionId(number), keys[number].peer_id, message, lambda _: now, 0.0))

    for number in range(MAX_PEERS):
        assert come(number, 5)
    assert not come(MAX_PEERS, 5)
    now = known(6)
    assert come(MAX_PEERS, 6)
    peers = [receipt.claim.peer for receipt in receipts.of(R)]
    assert len(peers) == MAX_PEERS
    assert keys[MAX_PEERS].peer_id in peers
    assert keys[0].peer_id not in peers


def test_receipts_of_256_authors_are_in_memory() -> None:
    receipts = Receipts(lambda: 1)
    for number in range(MAX_RECENT + 1):
        made = receipt(1, author=author(number + 1))
        held = {R: Known(0, b"i" * 32, ((author(number + 1), Head(1, HASH)),))}
        assert receipts.received(ConnectionId(number), IDS[1], Receipt(0, made.encoded), held.get, 0.0)
        assert len(receipts.of(R)) == min(number + 1, MAX_RECENT)
    assert receipts.of(R)[0].claim.author == author(2)


# --- who waits ----------------------------------------------------------------------------------------------


def test_command_waits_until_enough_have_confirmed() -> None:
    bench = publisher(1, 2, 3)
    requests = dict(asked(bench.command(wait(2))))
    assert set(requests) == {C1, C2, C3}
    assert bench.say(1, Receipt(0, receipt(1).encoded)) == [kept(1)]
    assert bench.say(1, Receipt(requests[C1], receipt(1).encoded)) == []
    assert bench.say(3, Receipt(requests[C3], receipt(3).encoded)) == [kept(3), told(1, 2)]
    assert bench.say(2, Receipt(requests[C2], receipt(2).encoded)) == [kept(2)]
    bench.time = 30.0
    assert told(1, 2) not in bench.handle(Woke())


def test_command_is_answered_when_its_time_is_over() -> None:
    bench = publisher(1, 2)
    bench.command(wait(2, timeout=5.0))
    bench.say(1, Receipt(0, receipt(1).encoded))
    assert bench.service.deadline(bench.time) <= 5.0
    bench.time = 4.9
    assert told(1, 1) not in bench.handle(Woke())
    bench.time = 5.0
    assert told(1, 1) in bench.handle(Woke())


def test_command_is_answered_at_once_by_what_came_before() -> None:
    bench = publisher(1, 2)
    bench.say(1, Receipt(0, receipt(1).encoded))
    assert bench.command(wait(1)) == [told(1, 1)]
    assert bench.command(wait(2, 1, 1, 5)) == [told(2, 2)]
    assert bench.command(wait(2, 1, 5)) == [told(3, 2)]
    # Who has confirmed is not asked.
    assert [connection for connection, _ in asked(bench.command(wait(3, 1, 5)))] == [C2]


def test_commands_that_wait_for_one_record_ask_once() -> None:
    bench = publisher(1)
    assert len(asked(bench.command(wait(1)))) == 1
    assert bench.command(wait(1)) == []
    assert bench.say(1, Receipt(0, receipt(1).encoded)) == [kept(1), told(1, 1), told(2, 1)]


def test_nobody_waits_for_what_is_not_followed() -> None:
    bench = Bench()
    (reply,) = bench.command(wait(1))
    assert isinstance(reply, Reply)
    assert isinstance(reply.result, NotFollowed)


def test_receipt_for_a_later_record_counts_for_an_earlier_one() -> None:
    bench = publisher(1)
    bench.command(wait(1))
    bench.handle(Published(R, accepted(2)))
    assert bench.say(1, Receipt(0, receipt(1, 2).encoded)) == [kept(1, 2), told(1, 1)]


def test_receipt_for_a_record_that_was_replaced_counts_for_who_waits_for_it() -> None:
    bench = publisher(1, 2)
    bench.command(wait(2))
    bench.handle(Published(R, accepted(2)))
    assert bench.say(1, Receipt(0, receipt(1, 1).encoded)) == [kept(1, 1)]
    assert bench.say(2, Receipt(0, receipt(2, 1, digest=b"g" * 32).encoded)) == []
    assert bench.say(2, Receipt(0, receipt(2, 2).encoded)) == [kept(2, 2), told(1, 2)]


def test_receipt_for_an_earlier_record_does_not_count() -> None:
    bench = publisher(1)
    bench.say(1, Receipt(0, receipt(1).encoded))
    bench.handle(Published(R, accepted(2)))
    (effect,) = bench.command(wait(1, 2))
    assert isinstance(effect, Send)
    assert effect.message == GetReceipt(bench.service.sync.requests.next() - 1, R, AUTHOR, 2)


def test_follower_that_comes_while_a_command_waits_is_asked() -> None:
    bench = publisher()
    assert bench.command(wait(1)) == []
    bench.call(1, 1)
    question, request = bench.say(1, Subscribe((R,)))
    assert asked([request]) == [(C1, bench.service.sync.requests.next() - 1)]
    # Once.
    answer = Refs(question.message.request, (RefsAnswer(R, RefsStatus.HELD),))  # type: ignore[union-attr]
    assert bench.say(1, answer) == []
    bench.end(1)
    bench.call(1, 1)
    assert len(asked(bench.say(1, Subscribe((R,))))) == 1


def test_holder_that_is_found_while_a_command_waits_is_asked() -> None:
    bench = publisher()
    bench.call(1, 1)
    bench.command(wait(1))
    (question,) = bench.say(1, Subscribe((R,)))[:1]
    bench.service.receipts.gone(C1)
    answer = Refs(question.message.request, (RefsAnswer(R, RefsStatus.HELD),))  # type: ignore[union-attr]
    assert len(asked(bench.say(1, answer))) == 1


def test_peer_that_was_ahead_is_asked_again_when_we_are_there_too() -> None:
    bench = publisher(1, 2)
    requests = dict(asked(bench.command(wait(2))))
    # It has the record that we lack: what it says is of no use yet.
    assert bench.say(1, Receipt(requests[C1], receipt(1, 2).encoded)) == []
    effects = bench.handle(Published(R, accepted(2)))
    assert [effect.connection for effect in effects if _is_get_receipt(effect)] == [C1]  # type: ignore[union-attr]


def _is_get_receipt(effect: Effect) -> bool:
    return isinstance(effect, Send) and isinstance(effect.message, GetReceipt)


def test_peer_that_refuses_is_not_waited_for_and_may_be_asked_again() -> None:
    bench = publisher(1)
    ((_, request),) = asked(bench.command(wait(1)))
    assert bench.say(1, Error(request, ErrorCode.NOT_FOUND)) == []
    assert len(asked(bench.command(wait(1)))) == 1


@pytest.mark.parametrize(
    "wrong", [receipt(1, 0), receipt(1, repository=S), receipt(1, author=author(2))], ids=["older", "other", "author"]
)
def test_answer_about_another_record_is_a_fault(wrong: CommitReceipt) -> None:
    bench = publisher(1)
    ((_, request),) = asked(bench.command(wait(1)))
    assert faults(bench.say(1, Receipt(request, wrong.encoded))) == ["UNSOLICITED_ANSWER"]


def test_answer_to_a_request_that_is_not_open_is_a_fault() -> None:
    bench = publisher(1)
    assert faults(bench.say(1, Receipt(77, receipt(1).encoded))) == ["UNSOLICITED_ANSWER"]


def test_no_more_than_64_requests_are_open_with_a_peer() -> None:
    numbers = iter(range(1, 1000))
    receipts = Receipts(lambda: next(numbers))
    sent: list[Effect] = []
    for seq in range(1, MAX_OPEN + 2):
        waiter = ReceiptWaiter(CommandId(seq), R, AUTHOR, seq, 1, 9.0, set())
        sent += receipts.wait(waiter, known(0), [(PeerId(IDS[1]), C1)])
    assert len(sent) == MAX_OPEN
    receipts.refused(C1, 1)
    waiter = ReceiptWaiter(CommandId(99), R, AUTHOR, 99, 1, 9.0, set())
    assert len(receipts.wait(waiter, known(0), [(IDS[1], C1)])) == 1
