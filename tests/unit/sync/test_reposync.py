"""From a wish to a repository, and every way in which that can fail, as exact lists of effects."""

import dataclasses
import math
import random
import time
from collections.abc import Callable

import pytest

from guts.addresses import Address, BootstrapAddress
from guts.effects import (
    Candidate,
    Dial,
    Effect,
    Fetch,
    FindProviders,
    Hurry,
    Persist,
    Provide,
    Reply,
    SeedingStopped,
    Send,
)
from guts.errors import GutsError, PeerFault, Severity, StorageFault, Unavailable
from guts.events import (
    Accepted,
    CommandId,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    Head,
    Incomplete,
    Known,
    LookupFinished,
    NothingNew,
)
from guts.ids import PeerId, RepositoryId
from guts.sync.fetches import HURRY_SECONDS, MAX_FETCHES, MAX_FETCHES_PER_PEER, MAX_HURRIED, RunningFetch
from guts.sync.goal import NoLongerFollowed, NoProviders, ProvidersUnreachable, SyncTimedOut, Waiter
from guts.sync.questions import ANSWER_TIMEOUT, MAX_QUESTIONS_PER_PEER, UnsolicitedAnswer
from guts.sync.refused import MAX_UNTRIED_SECONDS, REFUSED_SECONDS, offer_id
from guts.sync.reposync import LISTEN_AFTER_NOTHING, RepoSync
from guts.sync.search import MAX_DIALS_PER_GOAL, MAX_SEARCHES, MAX_WAITING_DIALS, SEARCH_INTERVAL, WANTED_HOLDERS
from guts.sync.setbacks import FAILED_WITH_CONNECTION, RETRY_AFTER_FAULT, RETRY_AFTER_STORAGE, RETRY_AFTER_TROUBLE
from guts.wire.limits import MAX_KNOWN_HEADS, MAX_QUERIES, MAX_SUBSCRIPTIONS
from guts.wire.messages import (
    EncodedRefs,
    Error,
    ErrorCode,
    GetRefs,
    KnownHead,
    KnownSplit,
    NewCommit,
    NewProof,
    Objects,
    ObjectsStatus,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from tests.support.peers import IDS, address, author, repository, target

R, S = repository(1), repository(2)
A, B, C = IDS[1], IDS[2], IDS[3]
AUTHOR = author(1)
RECORD = EncodedRefs(b"header", b"entries")
DOCUMENT = b"document"


def known(seq: int) -> Known:
    return Known(0, b"i" * 32, ((AUTHOR, Head(seq, b"h" * 32)),))


def accepted(seq: int) -> Accepted:
    return Accepted(known(seq), ((AUTHOR, Head(seq, b"h" * 32), RECORD),))


def newer(wanted: RepositoryId = R) -> RefsAnswer:
    return RefsAnswer(wanted, RefsStatus.HELD, (DOCUMENT,), (), (RECORD,))


def same(wanted: RepositoryId = R) -> RefsAnswer:
    return RefsAnswer(wanted, RefsStatus.HELD)


def not_held(wanted: RepositoryId = R) -> RefsAnswer:
    return RefsAnswer(wanted, RefsStatus.NOT_HELD)


def news(seq: int, record: EncodedRefs | None = RECORD, wanted: RepositoryId = R) -> NewCommit:
    return NewCommit(wanted, AUTHOR, seq, b"h" * 32, record)


class Middle(random.Random):
    """Draws the middle: jitter changes nothing."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Fault(PeerFault):
    code = "FAULT"


class Bench:
    """A RepoSync, who is known to hold what, and the last request."""

    def __init__(self, *held: RepositoryId, rng: random.Random | None = None, interval: float = 60.0) -> None:
        self.holders: dict[RepositoryId, list[PeerId]] = {}
        self.sync = RepoSync(
            {wanted: known(1) for wanted in held},
            lambda wanted: self.holders.get(wanted, []),
            rng or Middle(1),
            0.0,
            interval,
        )
        self.commands = 0
        self.goal = self.sync.goals.get(R, None)

    def connection(self, peer: PeerId) -> ConnectionId:
        return ConnectionId(IDS.index(peer))

    def ready(self, peer: PeerId, *shared: RepositoryId, now: float = 0.0) -> list[Effect]:
        for wanted in shared:
            self.holders.setdefault(wanted, []).append(peer)
        return self.sync.peer_ready(peer, self.connection(peer), shared, now)

    def gone(self, peer: PeerId, now: float = 0.0) -> list[Effect]:
        self.holders = {wanted: [p for p in peers if p != peer] for wanted, peers in self.holders.items()}
        return self.sync.peer_gone(peer, self.connection(peer), now)

    def waiter(self, now: float = 0.0, timeout: float = 60.0) -> Waiter:
        self.commands += 1
        return Waiter(CommandId(self.commands), now, now + timeout)

    def want(self, *hints: BootstrapAddress, now: float = 0.0, timeout: float = 60.0) -> list[Effect]:
        return self.sync.want(R, hints, self.waiter(now, timeout), now)

    def sync_now(self, now: float = 0.0) -> list[Effect]:
        return self.sync.sync_now(R, self.waiter(now), now)

    def every(self, timeout: float = 60.0) -> Waiter:
        return dataclasses.replace(self.waiter(timeout=timeout), every=True)

    def looked_up(self, asked: int = 7, now: float = 0.0) -> list[Effect]:
        return self.sync.lookup_finished(LookupFinished(R, asked), now)

    def refs(
        self, peer: PeerId, request: int, *answers: RefsAnswer, cursor: bytes = b"", now: float = 0.0
    ) -> list[Effect]:
        return self.sync.refs(self.connection(peer), Refs(request, answers, cursor), now)

    def fetched(
        self, fetch: int, peer: PeerId, outcome: FetchOutcome, *, wanted: RepositoryId = R, now: float = 0.0
    ) -> list[Effect]:
        return self.sync.fetch_finished(FetchFinished(FetchId(fetch), wanted, self.connection(peer), outcome), now)

    def news(self, peer: PeerId, message: NewCommit, now: float = 0.0) -> list[Effect]:
        return self.sync.news(peer, self.connection(peer), message, now)

    def ask(self, peer: PeerId, request: int, *queries: RefsQuery) -> Send:
        return Send(self.connection(peer), GetRefs(request, queries))

    def fetch(self, fetch: int, peer: PeerId, request: int, *, whole: bool = True, wanted: RepositoryId = R) -> Fetch:
        candidate = Candidate((DOCUMENT,) if whole else (), (), (RECORD,))
        return Fetch(FetchId(fetch), self.connection(peer), request, wanted, candidate)

    def tell(self, peer: PeerId, added: tuple[RepositoryId, ...], removed: tuple[RepositoryId, ...] = ()) -> Send:
        return Send(self.connection(peer), Subscribe(added, removed))


NOTHING_KNOWN = RefsQuery(R, 0, b"", ())


def knows(seq: int, wanted: RepositoryId = R) -> RefsQuery:
    return RefsQuery(wanted, 1, b"i" * 32, (KnownHead(AUTHOR, seq, b"h" * 32),))


def success(command: int, seq: int, seconds: float = 0.0) -> Reply:
    return Reply(CommandId(command), {"repository": str(R), "epoch": 0, "seq": seq, "seconds": seconds})


def failed(effects: list[Effect], kind: type[GutsError], text: str = "") -> bool:
    errors = [effect.result for effect in effects if isinstance(effect, Reply)]
    assert errors, effects
    assert all(type(error) is kind and text in str(error) for error in errors), errors
    return True


# --- want ---------------------------------------------------------------------------------------------------


def test_wish_is_told_looked_up_dialled_asked_fetched_and_provided() -> None:
    bench = Bench()
    assert bench.ready(A) == []
    assert bench.want(target(9)) == [
        bench.tell(A, (R,)),
        Dial(target(9)),
        bench.ask(A, 1, NOTHING_KNOWN),
        FindProviders(R),
    ]
    assert bench.refs(A, 1, not_held()) == []
    assert bench.sync.holder_found(R, B, [address(2)], 0.1) == [Dial(target(2, B))]
    assert bench.looked_up() == []
    assert bench.sync.dial_ended(target(9), Unavailable("refused"), 0.2) == []
    assert bench.ready(B, R, now=0.3) == [bench.tell(B, (R,)), bench.ask(B, 2, NOTHING_KNOWN)]
    assert bench.sync.dial_ended(target(2, B), B, 0.3) == []
    assert bench.refs(B, 2, newer(), now=0.4) == [bench.fetch(1, B, 3)]
    assert bench.fetched(1, B, accepted(5), now=1.5) == [Provide(R), success(1, 5, 1.5)]
    assert bench.sync.holds(R)
    assert bench.sync.followed() == [R]


def test_wish_for_what_is_here_is_granted_and_compared_behind() -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.want(target(9)) == [Dial(target(9)), bench.ask(A, 1, knows(1)), success(1, 1)]


def test_second_wish_joins_the_first() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want(target(9))
    assert bench.want(target(9), target(8)) == [Dial(target(8))]
    assert bench.refs(A, 1, newer()) == [bench.fetch(1, A, 2)]
    assert bench.fetched(1, A, accepted(5)) == [Provide(R), success(1, 5), success(2, 5)]


def test_where_no_node_is_known_that_is_said_and_not_that_the_id_is_wrong() -> None:
    bench = Bench()
    bench.want()
    effects = bench.sync.lookup_finished(LookupFinished(R, 0, alone=True), 0.0)
    assert failed(effects, NoProviders, "no node of the network is known here")


def test_nobody_holds_it() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1, not_held())
    effects = bench.looked_up(asked=7)
    assert failed(effects, NoProviders, "asked 7 DHT nodes")
    assert effects[-1] == bench.tell(A, (), (R,))
    assert bench.sync.goals == {}


def test_those_who_might_hold_it_are_named_with_their_reasons() -> None:
    bench = Bench()
    bench.ready(A)
    bench.ready(B)
    bench.want(target(9))
    bench.sync.dial_ended(target(9), Unavailable("nothing listens there"), 0)
    bench.refs(A, 1, not_held())
    bench.gone(B)
    effects = bench.looked_up()
    assert failed(effects, ProvidersUnreachable, f"2 possible replicas of {R} known, none served it")
    assert failed(effects, ProvidersUnreachable, f"\n  192.0.2.9:9000: nothing listens there\n  {B}: disconnected")


def test_holder_that_offers_nothing_is_a_reason() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1, same())
    assert failed(bench.looked_up(), ProvidersUnreachable, "offers nothing")


def test_dials_for_one_wish_are_bounded() -> None:
    bench = Bench()
    bench.want()
    dials = bench.sync.holder_found(R, A, [Address("192.0.2.1", 9000 + n) for n in range(MAX_DIALS_PER_GOAL + 1)], 0)
    assert len(dials) == MAX_DIALS_PER_GOAL
    assert bench.sync.holder_found(R, A, [Address("192.0.2.1", 9000)], 0) == []
    for waiting in range(1, -1, -1):
        dialled = next(iter(bench.sync.goals[R].dials))
        assert len(bench.sync.dial_ended(dialled, Unavailable("no"), 0)) == waiting


def test_dead_addresses_of_one_holder_keep_no_other_holder_out() -> None:
    """One made-up record with eight dead addresses was enough to hide every provider that was found after it."""
    bench = Bench()
    bench.want()
    dead = [Address("192.0.2.1", 9000 + n) for n in range(MAX_DIALS_PER_GOAL)]
    assert bench.sync.holder_found(R, A, dead, 0) == [Dial(BootstrapAddress(a.ip, a.port, A)) for a in dead]
    assert bench.sync.holder_found(R, C, [Address("192.0.2.3", 9000), Address("192.0.2.3", 9001)], 0) == []
    assert bench.sync.holder_found(R, B, [address(2)], 0) == []
    first = [bench.sync.dial_ended(BootstrapAddress(a.ip, a.port, A), Unavailable("no"), 0) for a in dead[:2]]
    assert sorted(first, key=str) == sorted(
        [[Dial(target(2, B))], [Dial(BootstrapAddress("192.0.2.3", 9000, C))]], key=str
    )
    bench.sync.dial_ended(BootstrapAddress("192.0.2.3", 9000, C), C, 0)
    assert bench.sync.goals[R].to_dial == {}


def test_targets_that_wait_are_bounded_and_first_addresses_go_first() -> None:
    bench = Bench()
    bench.want()
    goal = bench.sync.goals[R]
    many = [Address("192.0.2.1", 1000 + n) for n in range(MAX_DIALS_PER_GOAL + MAX_WAITING_DIALS + 1)]
    bench.sync.holder_found(R, A, many[:MAX_DIALS_PER_GOAL], 0)
    bench.sync.holder_found(R, A, many[MAX_DIALS_PER_GOAL:], 0)
    assert len(goal.dials) == MAX_DIALS_PER_GOAL
    assert len(goal.to_dial) == MAX_WAITING_DIALS
    bench.sync.holder_found(R, B, [address(2)], 0)
    assert len(goal.to_dial) == MAX_WAITING_DIALS
    ended = [bench.sync.dial_ended(dialled, Unavailable("no"), 0) for dialled in list(goal.dials)[:2]]
    assert [Dial(target(2, B))] in ended


def test_connected_holder_is_asked_and_not_dialled() -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.sync.holder_found(R, A, [address(1)], 0) == [bench.ask(A, 1, knows(1))]
    assert bench.sync.holder_found(S, A, [address(1)], 0) == []


def test_hint_at_a_peer_that_is_connected_is_asked_over_that_connection() -> None:
    """A second one would take the place of the first, and cut off what runs over it."""
    bench = Bench()
    bench.ready(A)
    effects = bench.want(target(1, A), target(2, B))
    assert [effect for effect in effects if isinstance(effect, Dial)] == [Dial(target(2, B))]
    assert sum(isinstance(effect, Send) and isinstance(effect.message, GetRefs) for effect in effects) == 1


@pytest.mark.parametrize("holders", [WANTED_HOLDERS - 1, WANTED_HOLDERS])
def test_holders_of_what_is_here_are_dialled_up_to_three(holders: int) -> None:
    bench = Bench(R)
    bench.holders[R] = IDS[4 : 4 + holders]
    dialled = bench.sync.holder_found(R, A, [address(1)], 0)
    assert dialled == ([Dial(target(1, A))] if holders < WANTED_HOLDERS else [])


def test_command_that_runs_out_of_time_leaves_nothing() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want(timeout=10.0)
    assert bench.sync.deadline() == 10.0
    assert bench.sync.tick(9.9) == []
    effects = bench.sync.tick(10.0)
    assert failed(effects, SyncTimedOut, f"{R} did not arrive in time")
    assert effects[-1] == bench.tell(A, (), (R,))
    assert bench.sync.goals == {}
    assert bench.refs(A, 1, newer(), now=11.0) == []
    assert bench.looked_up() == []
    assert bench.sync.dial_ended(target(9), A, 0.0) == []


def test_transfer_goes_on_when_the_command_has_run_out_of_time() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want(timeout=10.0)
    bench.refs(A, 1, newer())
    bench.looked_up()
    assert failed(bench.sync.tick(10.0), SyncTimedOut)
    assert bench.fetched(1, A, accepted(5), now=20.0) == [Provide(R)]
    assert bench.sync.holds(R)


def test_failed_transfer_of_an_expired_wish_ends_it() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want(timeout=10.0)
    bench.refs(A, 1, newer())
    bench.looked_up()
    bench.sync.tick(10.0)
    assert bench.fetched(1, A, Failed(Fault("x")), now=20.0) == [bench.tell(A, (), (R,))]
    assert bench.sync.goals == {}


def test_second_wish_outlives_the_first() -> None:
    bench = Bench()
    bench.want(timeout=10.0)
    bench.want(timeout=20.0)
    assert [effect.command_id for effect in bench.sync.tick(10.0) if isinstance(effect, Reply)] == [1]
    assert R in bench.sync.goals
    assert failed(bench.sync.tick(20.0), SyncTimedOut)


# --- sync now, drop, publish --------------------------------------------------------------------------------


def test_sync_now_is_answered_by_the_first_holder_that_answers() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    bench.refs(A, 1, same())
    bench.refs(B, 2, same())
    assert bench.sync_now(1.0) == [bench.ask(A, 3, knows(1)), bench.ask(B, 4, knows(1))]
    assert bench.refs(B, 4, same(), now=1.25) == [success(1, 1, 0.25)]
    assert bench.refs(A, 3, same(), now=2.0) == []


def test_sync_now_for_every_answer_waits_for_the_last_and_for_what_it_brings() -> None:
    bench = Bench(R)
    for peer in (A, B, C):
        bench.ready(peer, R)
    for request, peer in ((1, A), (2, B), (3, C)):
        bench.refs(peer, request, same())
    goal = bench.sync.goals[R]
    assert len(bench.sync.sync_now(R, bench.every(), 0.0)) == WANTED_HOLDERS == 3
    # Another command is content with the first answer.
    assert bench.sync_now() == []
    assert bench.refs(A, 4, same()) == [success(2, 1)]
    assert bench.refs(B, 5, newer()) == [bench.fetch(1, B, 7)]
    assert bench.refs(C, 6, same()) == []
    assert not goal.compared
    assert bench.fetched(1, B, accepted(2)) == [success(1, 2)]
    assert goal.compared


def test_sync_now_for_every_answer_does_not_wait_for_who_is_gone_or_silent() -> None:
    bench = Bench(R, interval=10_000.0)
    for peer in (A, B, C):
        bench.ready(peer, R)
    bench.sync.sync_now(R, bench.every(), 0.0)
    bench.refs(A, 1, same())
    assert bench.gone(B) == []
    assert bench.sync.tick(ANSWER_TIMEOUT) == [success(1, 1, ANSWER_TIMEOUT)]
    assert bench.sync.goals[R].compared


def test_sync_now_for_every_answer_looks_for_more_holders_where_they_are_few() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, same())
    assert bench.sync.sync_now(R, bench.every(), 0.0) == [bench.ask(A, 2, knows(1)), FindProviders(R)]
    assert bench.refs(A, 2, same()) == []
    assert bench.looked_up() == [success(1, 1)]


def test_sync_now_for_every_answer_runs_out_of_time() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.sync.sync_now(R, bench.every(timeout=5.0), 0.0)
    bench.looked_up()
    assert failed(bench.sync.tick(5.0), SyncTimedOut)
    assert not bench.sync.goals[R].compared
    bench.sync.published(R, known(2), 5.0)
    assert bench.sync.goals[R].compared


def test_sync_now_brings_what_is_newer() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.sync_now()
    assert bench.refs(A, 1, newer()) == [bench.fetch(1, A, 2)]
    assert bench.fetched(1, A, accepted(2)) == [success(1, 2)]


def test_sync_now_without_holders_looks_for_them() -> None:
    bench = Bench(R)
    assert bench.sync_now() == [FindProviders(R)]
    assert bench.sync_now() == []
    assert failed(bench.looked_up(), NoProviders)
    assert bench.sync.holds(R)


def test_sync_now_out_of_time_names_the_silent() -> None:
    bench = Bench(R, interval=10_000.0)
    bench.ready(A, R)
    bench.sync_now()
    bench.sync_now()
    bench.sync.goals[R].dials[target(9)] = None
    bench.sync.tick(ANSWER_TIMEOUT)
    effects = bench.sync.tick(60.0)
    assert failed(effects, SyncTimedOut, "no holder answered in time\n")
    assert failed(effects, SyncTimedOut, f"\n  {A}: did not answer in time")
    assert failed(effects, SyncTimedOut, "192.0.2.9:9000: is being dialled")
    assert len(effects) == 2
    assert bench.sync.holds(R)


def test_dropped_repository_is_untold_and_its_commands_are_answered() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    effects = bench.sync.drop(R)
    assert failed(effects, NoLongerFollowed, "no longer seeded")
    assert effects[1:] == [bench.tell(A, (), (R,))]
    assert not bench.sync.holds(R)
    assert bench.sync.deadline() <= 60.0
    assert bench.sync.tick(100.0) == []


def test_commit_that_ends_after_the_drop_is_not_seeded() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1, newer())
    bench.sync.drop(R)
    assert bench.fetched(1, A, accepted(5)) == [Persist(SeedingStopped(R))]
    assert not bench.sync.holds(R)


@pytest.mark.parametrize("outcome", [NothingNew(Known()), Incomplete(), Failed(Unavailable("x"))])
def test_other_end_of_a_transfer_after_the_drop_is_nothing(outcome: FetchOutcome) -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, newer())
    bench.sync.drop(R)
    assert bench.fetched(1, A, outcome) == []
    assert bench.sync.fetches.running == {}


def test_commit_for_an_earlier_wish_serves_the_later_one() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1, newer())
    bench.sync.drop(R)
    bench.want()
    assert bench.refs(A, 3, newer()) == [bench.fetch(2, A, 4)]
    # The first transfer commits while the second runs; the second finds nothing new.
    assert bench.fetched(1, A, accepted(5)) == [Provide(R)]
    assert bench.fetched(2, A, NothingNew(known(5))) == [success(2, 5)]
    assert bench.sync.holds(R)


def test_published_repository_is_followed_provided_and_told() -> None:
    bench = Bench()
    bench.ready(A)
    assert bench.sync.published(R, known(3), 0.0) == [bench.tell(A, (R,)), Provide(R)]
    assert bench.sync.published(R, known(4), 0.0) == []
    assert bench.sync.goals[R].known == known(4)


def test_publishing_answers_who_waits_for_it() -> None:
    bench = Bench()
    bench.want()
    assert bench.sync.published(R, known(3), 2.0) == [Provide(R), success(1, 3, 2.0)]


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        lambda bench: bench.refs(A, 99, same()),
        lambda bench: bench.refs(B, 1, same()),
        lambda bench: bench.refs(A, 1, same(), same(S)),
        lambda bench: bench.refs(A, 1, same(S)),
        lambda bench: bench.refs(A, 1, same(), same()),
    ],
)
def test_answer_that_was_not_asked_for_is_a_serious_fault_and_changes_nothing(
    answer: Callable[[Bench], list[Effect]],
) -> None:
    bench = Bench(R, S)
    bench.ready(A, R)
    bench.ready(B)
    with pytest.raises(UnsolicitedAnswer) as caught:
        answer(bench)
    assert caught.value.severity is Severity.SERIOUS
    assert bench.refs(A, 1, newer()) == [bench.fetch(1, A, 2)]


def test_answer_comes_once() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, same())
    with pytest.raises(UnsolicitedAnswer):
        bench.refs(A, 1, same())


def test_slow_answer_is_no_fault_and_is_used() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    assert bench.sync.deadline() == ANSWER_TIMEOUT
    assert bench.sync.tick(ANSWER_TIMEOUT - 0.1) == []
    assert failed(bench.sync.tick(ANSWER_TIMEOUT), ProvidersUnreachable, "did not answer in time")
    bench.want(now=31.0)
    assert bench.refs(A, 1, newer(), now=40.0) == [bench.fetch(1, A, 3)]


def test_peer_that_owes_two_answers_is_asked_no_more_until_it_pays() -> None:
    bench = Bench(*(repository(n) for n in range(200)), interval=10_000.0)
    wanted = [repository(n) for n in range(200)]
    sends = bench.ready(A, *wanted)
    assert [
        len(send.message.queries) for send in sends if isinstance(send, Send) and isinstance(send.message, GetRefs)
    ] == [MAX_QUERIES] * MAX_QUESTIONS_PER_PEER
    bench.sync.tick(ANSWER_TIMEOUT)
    assert all(not goal.asking for goal in bench.sync.goals.values())
    assert bench.sync.ask(A, [repository(5)], 40.0) == []
    assert bench.refs(A, 1, *[same(wanted[n]) for n in range(MAX_QUERIES)], now=50.0) == []
    assert bench.sync.ask(A, [repository(5)], 50.0) == [bench.ask(A, 3, knows(1, repository(5)))]


def test_one_overdue_answer_does_not_stop_the_line() -> None:
    bench = Bench(R, S, interval=10_000.0)
    bench.ready(A, R)
    bench.sync.ask(A, [S], 10.0)
    bench.sync.tick(ANSWER_TIMEOUT)
    assert bench.sync.goals[S].asking == {A}
    assert bench.refs(A, 2, same(S), now=31.0) == []


def test_answer_in_parts_is_asked_on() -> None:
    bench = Bench(R, S)
    assert bench.ready(A, R, S)[1:] == [bench.ask(A, 1, knows(1), knows(1, S))]
    # R comes cut, S not at all.
    assert bench.refs(A, 1, newer(), cursor=b"\x01") == [bench.fetch(1, A, 2), bench.ask(A, 3, knows(1, S))]
    assert bench.refs(A, 3, same(S)) == []
    assert bench.fetched(1, A, accepted(2)) == [bench.ask(A, 4, knows(2))]
    assert bench.refs(A, 4, newer()) == [bench.fetch(2, A, 5)]
    assert bench.fetched(2, A, accepted(3)) == []


def test_only_the_last_part_of_an_answer_is_cut() -> None:
    bench = Bench(R, S)
    bench.ready(A, R, S)
    assert bench.refs(A, 1, newer(R), newer(S), cursor=b"\x01") == [
        bench.fetch(1, A, 2),
        bench.fetch(2, A, 3, wanted=S),
    ]
    assert bench.fetched(1, A, accepted(2)) == []
    assert bench.fetched(2, A, accepted(2), wanted=S) == [bench.ask(A, 4, knows(2, S))]


def test_holders_are_asked_for_what_counts_of_an_author_whose_record_counts_no_more() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    for request, peer in ((1, A), (2, B)):
        bench.refs(peer, request, same())
    none = Known(1, b"j" * 32)
    asked = RefsQuery(R, 2, b"j" * 32, ())
    assert bench.sync.published(R, none, 0.0) == [bench.ask(A, 3, asked), bench.ask(B, 4, asked)]
    assert bench.sync.published(R, known(2), 0.0) == []


def test_proof_is_looked_at_where_no_split_from_before_it_is_known() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, same())

    def told(seq: int) -> list[Effect]:
        return bench.sync.proof_news(A, bench.connection(A), NewProof(R, AUTHOR, seq, b"proof"), 0.0)

    split = dataclasses.replace(known(1), splits=((AUTHOR, 5),))
    bench.sync.published(R, split, 0.0)
    assert told(5) == told(6) == []
    assert told(4) == [Fetch(FetchId(1), bench.connection(A), 2, R, Candidate((), (), (), (b"proof",)))]
    earlier = dataclasses.replace(split, splits=((AUTHOR, 4),))
    took = Accepted(earlier, (), ((AUTHOR, 4, b"proof"),))
    query = RefsQuery(R, 1, b"i" * 32, (KnownHead(AUTHOR, 1, b"h" * 32),), (KnownSplit(AUTHOR, 4),))
    assert bench.fetched(1, A, took) == [bench.ask(A, 3, query)]
    assert bench.sync.proof_news(A, ConnectionId(99), NewProof(R, AUTHOR, 1, b"proof"), 0.0) == []
    assert bench.sync.proof_news(A, bench.connection(A), NewProof(S, AUTHOR, 1, b"proof"), 0.0) == []


def test_answer_that_promises_more_and_brings_nothing_is_not_asked_on() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    assert bench.refs(A, 1, cursor=b"\x01") == []
    assert bench.sync.ask(A, [R], 14.9) == []
    assert bench.sync.ask(A, [R], 15.0) == [bench.ask(A, 2, knows(1))]


def test_answer_that_leaves_a_repository_out_is_a_reason() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1)
    assert failed(bench.looked_up(), ProvidersUnreachable, "did not answer about it")


def test_answers_about_what_was_dropped_are_dropped() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.sync.drop(R)
    assert bench.refs(A, 1, newer()) == []


def test_busy_peer_is_asked_again_when_it_said_and_the_command_waits() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    assert bench.sync.refused(bench.connection(A), Error(1, ErrorCode.BUSY, "", 5), 1.0) == []
    assert bench.sync.deadline() == 6.0
    assert bench.sync.tick(5.9) == []
    assert bench.sync.tick(6.0) == [bench.ask(A, 2, NOTHING_KNOWN)]
    assert bench.refs(A, 2, newer(), now=6.5) == [bench.fetch(1, A, 3)]


def test_refusal_ends_the_wish() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    effects = bench.sync.refused(bench.connection(A), Error(1, ErrorCode.LIMIT), 1.0)
    assert failed(effects, ProvidersUnreachable, "refused: limit")


def test_error_that_answers_nothing_is_nobodys_concern() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    assert bench.sync.refused(bench.connection(A), Error(0, ErrorCode.BUSY), 0.0) == []
    assert bench.sync.refused(bench.connection(A), Error(99, ErrorCode.BUSY), 0.0) == []
    assert bench.refs(A, 1, same()) == []


def test_refusal_about_what_was_dropped_is_dropped() -> None:
    bench = Bench(R, S)
    bench.ready(A, R, S)
    bench.sync.drop(R)
    assert bench.sync.refused(bench.connection(A), Error(1, ErrorCode.BUSY, "", 5), 0.0) == []
    bench.ready(B, S)
    bench.sync.drop(S)
    assert bench.sync.refused(bench.connection(B), Error(2, ErrorCode.LIMIT), 0.0) == []


# --- transfers ----------------------------------------------------------------------------------------------


def test_who_hurries_has_twice_the_time_the_next_time_until_something_is_committed() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    for number in range(1, MAX_HURRIED + 3):
        fetch = FetchId(number)
        goal = bench.sync.goals[R]
        transfer = RunningFetch(R, A, bench.connection(A), 99, asked=True, partial=False, offer=b"")
        bench.sync.fetches.begin(goal, transfer)
        assert bench.sync._hurry(goal, A) == []
        seconds = HURRY_SECONDS * 2 ** min(number - 1, MAX_HURRIED)
        assert bench.sync._hurry(goal, B) == [Hurry(fetch, seconds)]
        assert bench.sync._hurry(goal, B) == []
        bench.sync.fetches.end(fetch)
        goal.fetch = None
    assert seconds == HURRY_SECONDS * 2**MAX_HURRIED
    bench.sync.published(R, dataclasses.replace(bench.sync.goals[R].known, epoch=7), 0.0)
    assert bench.sync.goals[R].hurried == 0


def test_second_offer_waits_for_the_first_transfer_which_hurries_and_is_asked_again() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    assert bench.refs(A, 1, newer()) == [bench.fetch(1, A, 3)]
    assert bench.refs(B, 2, newer()) == [Hurry(FetchId(1), HURRY_SECONDS)]
    assert bench.fetched(1, A, accepted(2)) == [bench.ask(B, 4, knows(2))]


def test_so_many_transfers_of_one_peer_at_a_time_and_one_question_per_free_place() -> None:
    wanted = [repository(n) for n in range(5)]
    bench = Bench(*wanted)
    bench.ready(A, *wanted)
    effects = bench.refs(A, 1, *[newer(one) for one in wanted])
    assert effects == [bench.fetch(n + 1, A, n + 2, wanted=wanted[n]) for n in range(MAX_FETCHES_PER_PEER)]
    assert bench.fetched(1, A, accepted(2), wanted=wanted[0]) == [bench.ask(A, 4, knows(1, wanted[2]))]
    assert bench.refs(A, 4, newer(wanted[2])) == [bench.fetch(3, A, 5, wanted=wanted[2])]
    # What turns out to be nothing does not stop the line.
    assert bench.fetched(2, A, accepted(2), wanted=wanted[1]) == [bench.ask(A, 6, knows(1, wanted[3]))]
    assert bench.refs(A, 6, same(wanted[3])) == [bench.ask(A, 7, knows(1, wanted[4]))]


def test_last_place_for_transfers_is_for_a_peer_that_has_none() -> None:
    wanted = [repository(n) for n in range(5)]
    bench = Bench(*wanted)
    for peer in (A, B, C):
        bench.ready(peer, *wanted)
    begun = [bench.refs(A, 1, *[newer(one) for one in wanted[:2]], *map(same, wanted[2:]))]
    begun += [bench.refs(B, 2, *map(same, wanted[:2]), newer(wanted[2]), newer(wanted[3]), same(wanted[4]))]
    assert [sum(isinstance(effect, Fetch) for effect in effects) for effects in begun] == [2, 1]
    [fetch] = bench.refs(C, 3, *map(same, wanted[:4]), newer(wanted[4]))
    assert isinstance(fetch, Fetch)
    assert len(bench.sync.fetches.running) == MAX_FETCHES


def test_offers_of_those_who_left_are_forgotten_and_the_line_goes_on() -> None:
    wanted = [repository(n) for n in range(MAX_FETCHES_PER_PEER + 1)]
    bench = Bench(*wanted)
    bench.ready(A, *wanted)
    bench.refs(A, 1, *[newer(one) for one in wanted])
    assert list(bench.sync.goals[wanted[-1]].offers) == [A]
    bench.ready(B, wanted[-1])
    bench.gone(A)
    assert bench.sync.goals[wanted[-1]].offers == {}
    [fetch] = bench.refs(B, 4, newer(wanted[-1]))
    assert isinstance(fetch, Fetch)
    assert fetch.repository == wanted[-1]


def test_peer_gone_in_the_middle_lets_another_serve() -> None:
    bench = Bench()
    bench.ready(A)
    bench.ready(B)
    bench.want()
    bench.looked_up()
    assert bench.refs(A, 1, newer()) == [bench.fetch(1, A, 3)]
    assert bench.refs(B, 2, newer()) == []
    assert bench.gone(A) == []
    assert bench.fetched(1, A, Failed(Unavailable("gone"))) == [bench.ask(B, 4, NOTHING_KNOWN)]
    assert bench.refs(B, 4, newer()) == [bench.fetch(2, B, 5)]
    assert bench.fetched(2, B, accepted(5)) == [Provide(R), success(1, 5)]


@pytest.mark.parametrize("first", ["transfer", "connection"])
def test_peer_whose_connection_broke_is_asked_over_a_new_one_as_if_nothing_had_been(first: str) -> None:
    bench = Bench(R)
    bench.ready(A, R)
    assert bench.news(A, news(8)) == [bench.fetch(1, A, 2, whole=False)]
    for what in ("transfer", "connection") if first == "transfer" else ("connection", "transfer"):
        if what == "transfer":
            bench.fetched(1, A, Failed(Unavailable("the connection is closed")), now=1.0)
        else:
            bench.gone(A, now=1.1)
    assert bench.ready(A, R, now=1.5) == [bench.tell(A, (R,)), bench.ask(A, 3, knows(1))]


def test_peer_that_failed_before_it_went_is_left_alone_for_a_while() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.news(A, news(8))
    bench.fetched(1, A, Failed(Unavailable("reset")), now=1.0)
    bench.gone(A, now=1.1 + FAILED_WITH_CONNECTION)
    assert bench.ready(A, R, now=4.0) == [bench.tell(A, (R,))]


def test_busy_peer_that_went_is_left_alone_as_it_asked() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    [fetch] = bench.news(A, news(8))
    assert isinstance(fetch, Fetch)
    bench.sync.fetches.answered(bench.connection(A), Objects(fetch.request, ObjectsStatus.BUSY, 10))
    bench.fetched(1, A, Failed(Unavailable("reset")), now=1.0)
    bench.gone(A, now=1.1)
    assert bench.ready(A, R, now=2.0) == [bench.tell(A, (R,))]


def test_last_peer_gone_in_the_middle_is_the_reason() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    bench.refs(A, 1, newer())
    bench.gone(A)
    assert failed(bench.fetched(1, A, Failed(Unavailable("broke off"))), ProvidersUnreachable, "broke off")


def test_faulty_peer_is_not_asked_for_ten_minutes_and_others_are() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, newer())
    bench.ready(B)
    bench.holders[R].append(B)
    assert bench.fetched(1, A, Failed(Fault("bad pack")), now=1.0) == [bench.ask(B, 3, knows(1))]
    assert bench.sync.ask(A, [R], 1.0 + RETRY_AFTER_FAULT - 0.1) == []
    # Nor is what it tells believed.
    assert bench.news(A, news(9), now=2.0) == []
    assert bench.sync.ask(A, [R], 1.0 + RETRY_AFTER_FAULT) == [bench.ask(A, 4, knows(1))]


def test_trouble_is_retried_a_little_later_while_the_command_waits() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    bench.refs(A, 1, newer())
    assert bench.fetched(1, A, Failed(Unavailable("stalled")), now=10.0) == []
    assert bench.sync.deadline() == 10.0 + RETRY_AFTER_TROUBLE
    assert bench.sync.tick(25.0) == [bench.ask(A, 3, NOTHING_KNOWN)]


def test_busy_server_of_packs_is_asked_again_when_it_said() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    bench.refs(A, 1, newer())
    bench.sync.fetches.answered(bench.connection(A), Objects(77, ObjectsStatus.BUSY, 1))
    bench.sync.fetches.answered(bench.connection(B), Objects(2, ObjectsStatus.BUSY, 1))
    bench.sync.fetches.answered(bench.connection(A), Objects(2, ObjectsStatus.NOT_HELD, 1))
    bench.sync.fetches.answered(bench.connection(A), Objects(2, ObjectsStatus.BUSY, 5))
    assert bench.fetched(1, A, Failed(Unavailable("stream reset")), now=1.0) == []
    assert bench.sync.tick(5.9) == []
    assert bench.sync.tick(6.0) == [bench.ask(A, 3, NOTHING_KNOWN)]


@pytest.mark.parametrize(("said", "waits"), [(0, 1.0), (600, 600.0), (604_800, 600.0)])
def test_busy_peer_cannot_ask_for_no_time_or_for_ever(said: int, waits: float) -> None:
    bench = Bench(R, interval=10_000.0)
    bench.ready(A, R)
    bench.sync.refused(bench.connection(A), Error(1, ErrorCode.BUSY, "", said), 0.0)
    assert bench.sync.deadline() == waits


def test_resting_peer_that_leaves_is_waited_for_no_longer() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    bench.sync.refused(bench.connection(A), Error(1, ErrorCode.BUSY, "", 5), 1.0)
    assert failed(bench.gone(A), ProvidersUnreachable, "disconnected")


def test_resting_peers_wake_one_by_one() -> None:
    bench = Bench(R, interval=10_000.0)
    bench.ready(A, R)
    bench.ready(B, R)
    bench.sync.refused(bench.connection(A), Error(1, ErrorCode.BUSY, "", 5), 0.0)
    bench.sync.refused(bench.connection(B), Error(2, ErrorCode.BUSY, "", 9), 0.0)
    # The look for more holders comes with the round.
    assert bench.sync.tick(5.0) == [bench.ask(A, 3, knows(1)), FindProviders(R)]
    assert bench.sync.tick(9.0) == [bench.ask(B, 4, knows(1))]


def test_our_own_disk_fails_the_command_blames_nobody_and_pauses() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B, R)
    bench.sync_now()
    bench.refs(A, 1, newer())
    bench.refs(B, 2, newer())
    fault = StorageFault("disk full")
    assert bench.fetched(1, A, Failed(fault), now=1.0) == [Reply(CommandId(1), fault)]
    assert bench.news(A, news(9), now=2.0) == []
    assert bench.sync.ask(B, [R], 2.0) == [bench.ask(B, 4, knows(1))]
    assert bench.refs(B, 4, newer(), now=2.0) == []
    assert bench.sync.deadline() <= 1.0 + RETRY_AFTER_STORAGE
    assert bench.news(A, news(9), now=61.0) == [bench.fetch(2, A, 5, whole=False)]


def test_our_own_disk_ends_a_wish() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.refs(A, 1, newer())
    fault = StorageFault("disk full")
    assert bench.fetched(1, A, Failed(fault)) == [Reply(CommandId(1), fault), bench.tell(A, (), (R,))]
    assert bench.sync.goals == {}


def test_nothing_new_confirms_what_is_here() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.sync_now()
    bench.refs(A, 1, newer())
    assert bench.fetched(1, A, NothingNew(known(1))) == [success(1, 1)]


def test_nothing_in_an_offer_of_what_is_not_here_is_a_reason() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want()
    bench.looked_up()
    bench.refs(A, 1, newer())
    assert failed(bench.fetched(1, A, NothingNew(Known())), ProvidersUnreachable, "offers nothing")


# --- news ---------------------------------------------------------------------------------------------------


def test_news_with_its_record_is_fetched_at_once() -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.news(A, news(2)) == [bench.fetch(1, A, 1, whole=False)]


@pytest.mark.parametrize("seq", [0, 1])
def test_old_news_is_nothing(seq: int) -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.news(A, news(seq)) == []


def test_news_of_what_is_not_followed_is_nothing() -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.news(A, news(2, wanted=S)) == []


def test_news_without_its_record_is_asked_for() -> None:
    bench = Bench(R)
    bench.ready(A)
    assert bench.news(A, news(2, None)) == [bench.ask(A, 1, knows(1))]


def test_news_of_what_is_only_wanted_is_asked_for() -> None:
    bench = Bench()
    bench.want()
    bench.ready(A)
    bench.refs(A, 1, not_held())
    assert bench.news(A, news(2)) == [bench.ask(A, 2, NOTHING_KNOWN)]


def test_news_during_a_question_is_asked_for_again_after_it() -> None:
    """The answer under way may have been given before the news was."""
    bench = Bench(R)
    bench.ready(A, R)
    assert bench.news(A, news(2, None)) == []
    assert bench.refs(A, 1, same()) == [bench.ask(A, 2, knows(1))]
    assert bench.refs(A, 2, newer()) == [bench.fetch(1, A, 3)]


def test_news_during_a_transfer_is_asked_for_after_it() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.refs(A, 1, newer())
    assert bench.news(A, news(3)) == []
    assert bench.fetched(1, A, accepted(2)) == [bench.ask(A, 3, knows(2))]


def test_news_that_does_not_connect_leads_to_one_question_and_then_waits() -> None:
    bench = Bench(R)
    bench.ready(A)
    bench.news(A, news(7))
    assert bench.fetched(1, A, Incomplete()) == [bench.ask(A, 2, knows(1))]
    assert bench.refs(A, 2, newer()) == [bench.fetch(2, A, 3)]
    assert bench.fetched(2, A, Incomplete()) == []
    # More of it: nothing before the wait is over, then the same again.
    for _ in range(100):
        assert bench.news(A, news(8), now=1.0) == []
        assert bench.news(A, news(8, None), now=1.0) == []
    assert bench.news(A, news(8), now=RETRY_AFTER_TROUBLE) == [bench.fetch(3, A, 4, whole=False)]


def test_peer_whose_news_come_to_nothing_is_not_listened_to_for_a_while_and_others_are() -> None:
    bench = Bench(R)
    bench.ready(A)
    bench.ready(B)

    def proof(peer: PeerId, now: float) -> list[Effect]:
        return bench.sync.proof_news(peer, bench.connection(peer), NewProof(R, AUTHOR, 9, b"proof"), now)

    assert len(proof(A, 0.0)) == 1
    assert bench.fetched(1, A, NothingNew(known(1))) == []
    almost = LISTEN_AFTER_NOTHING - 0.001
    assert proof(A, almost) == bench.news(A, news(2), almost) == bench.news(A, news(2, None), almost) == []
    assert not bench.sync.listens(A, R, almost)
    assert bench.sync.listens(A, S, almost)
    assert bench.news(B, news(2), almost) == [bench.fetch(2, B, 2, whole=False)]
    bench.fetched(2, B, accepted(2))
    assert len(proof(A, LISTEN_AFTER_NOTHING)) == 1


def test_peer_whose_answer_to_news_is_of_use_is_listened_to_again() -> None:
    bench = Bench(R)
    bench.ready(A)
    bench.news(A, news(7))
    bench.fetched(1, A, Incomplete())
    assert not bench.sync.listens(A, R, 0.0)
    bench.refs(A, 2, newer())
    bench.fetched(2, A, accepted(7))
    assert bench.news(A, news(8)) == [bench.fetch(3, A, 4, whole=False)]


def test_unasked_news_of_nothing_do_not_answer_a_command() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    bench.ready(B)
    bench.sync_now()
    bench.sync.proof_news(B, bench.connection(B), NewProof(R, AUTHOR, 9, b"proof"), 0.0)
    assert bench.fetched(1, B, NothingNew(known(1))) == []
    assert bench.refs(A, 1, same()) == [success(1, 1)]


def test_silent_peer_that_was_the_first_to_offer_keeps_no_other_out() -> None:
    bench = Bench(R)
    for peer in (A, B, C):
        bench.ready(peer)
    bench.news(A, news(2))
    assert bench.news(B, news(3)) == bench.news(C, news(3)) == []
    assert bench.fetched(1, A, accepted(2)) == [bench.ask(B, 2, knows(2)), bench.ask(C, 3, knows(2))]
    assert bench.refs(C, 3, newer()) == [bench.fetch(2, C, 4)]


def test_command_hears_that_an_answer_does_not_connect() -> None:
    bench = Bench()
    bench.ready(A)
    bench.want(timeout=10.0)
    bench.looked_up()
    bench.refs(A, 1, newer())
    assert bench.fetched(1, A, Incomplete()) == []
    assert failed(bench.sync.tick(10.0), SyncTimedOut, "does not follow from what is here")


# --- peers --------------------------------------------------------------------------------------------------


def test_replaced_connection_is_forgotten_and_the_new_one_asked() -> None:
    bench = Bench(R)
    bench.ready(A, R)
    assert bench.sync.peer_ready(A, ConnectionId(77), [R], 1.0) == [
        Send(ConnectionId(77), Subscribe((R,))),
        Send(ConnectionId(77), GetRefs(2, (knows(1),))),
    ]
    # The late end of the old one changes nothing.
    assert bench.gone(A) == []
    assert bench.sync.tick(29.0) == []
    with pytest.raises(UnsolicitedAnswer):
        bench.refs(A, 1, same())
    assert bench.sync.refs(ConnectionId(77), Refs(2, (same(),)), 1.0) == []
    # News over the old one names a peer that is not there any more.
    assert bench.sync.news(A, ConnectionId(1), news(5), 1.0) == [Send(ConnectionId(77), GetRefs(3, (knows(1),)))]


def test_peer_that_was_never_ready_leaves_nothing() -> None:
    assert Bench(R).gone(A) == []
    assert Bench(R).sync.ask(A, [R], 0.0) == []


@pytest.mark.parametrize("count", [MAX_SUBSCRIPTIONS, MAX_SUBSCRIPTIONS + 1])
def test_subscriptions_go_in_batches(count: int) -> None:
    bench = Bench(*(repository(n) for n in range(count)))
    sizes = [
        len(effect.message.added)
        for effect in bench.ready(A)
        if isinstance(effect, Send) and isinstance(effect.message, Subscribe)
    ]
    assert sizes == ([MAX_SUBSCRIPTIONS] if count == MAX_SUBSCRIPTIONS else [MAX_SUBSCRIPTIONS, 1])


@pytest.mark.parametrize("count", [MAX_QUERIES, MAX_QUERIES + 1])
def test_questions_go_in_batches(count: int) -> None:
    wanted = [repository(n) for n in range(count)]
    sends = Bench(*wanted).ready(A, *wanted)[1:]
    sizes = [
        len(send.message.queries) for send in sends if isinstance(send, Send) and isinstance(send.message, GetRefs)
    ]
    assert sizes == ([MAX_QUERIES] if count == MAX_QUERIES else [MAX_QUERIES, 1])


def test_question_names_so_many_authors_at_the_most() -> None:
    bench = Bench()
    heads = tuple((author(n), Head(1, b"h" * 32)) for n in range(MAX_KNOWN_HEADS + 1))
    bench.sync.published(R, Known(0, b"i" * 32, heads), 0.0)
    [_, send] = bench.ready(A, R)
    assert isinstance(send, Send)
    assert isinstance(send.message, GetRefs)
    [query] = send.message.queries
    assert isinstance(query, RefsQuery)
    assert len(query.known) == MAX_KNOWN_HEADS


def test_questions_about_many_authors_are_split_by_size() -> None:
    bench = Bench()
    heads = tuple((author(n), Head(1, b"h" * 32)) for n in range(MAX_KNOWN_HEADS))
    wanted = [repository(n) for n in range(20)]
    for one in wanted:
        bench.sync.published(one, Known(0, b"i" * 32, heads), 0.0)
    sends = bench.ready(A, *wanted)[1:]
    sizes = [
        len(send.message.queries) for send in sends if isinstance(send, Send) and isinstance(send.message, GetRefs)
    ]
    assert len(sizes) == 2
    assert sum(sizes) == 20


def test_waiting_questions_about_what_was_dropped_are_not_asked() -> None:
    wanted = [repository(n) for n in range(3 * MAX_QUERIES)]
    bench = Bench(*wanted)
    bench.ready(A, *wanted)
    for one in wanted:
        bench.sync.drop(one)
    assert bench.refs(A, 1) == []


# --- time ---------------------------------------------------------------------------------------------------


def test_one_holder_is_asked_per_round_and_more_are_looked_for() -> None:
    bench = Bench(R)
    bench.ready(A)
    bench.holders[R] = [A]
    assert bench.sync.deadline() == 30.0
    assert bench.sync.tick(29.9) == []
    assert bench.sync.tick(30.0) == [FindProviders(R), bench.ask(A, 1, knows(1))]
    bench.refs(A, 1, same(), now=31.0)
    bench.looked_up(now=31.0)
    assert bench.sync.deadline() == 90.0
    for round_ in range(90, 30 + int(SEARCH_INTERVAL), 60):
        [asked] = bench.sync.tick(float(round_))
        assert isinstance(asked, Send)
        assert isinstance(asked.message, GetRefs)
        bench.refs(A, asked.message.request, same(), now=round_ + 1.0)
    assert FindProviders(R) in bench.sync.tick(30.0 + SEARCH_INTERVAL)


def test_rounds_are_jittered_by_half() -> None:
    bench = Bench(R, rng=random.Random(3))
    bench.holders[R] = IDS[1:5]
    pauses = []
    now = 0.0
    for _ in range(300):
        due = bench.sync.deadline()
        pauses.append(due - now)
        now = due
        bench.sync.tick(now)
    assert 0.0 <= pauses[0] <= 60.0
    assert 30.0 <= min(pauses[1:]) < 32.0
    assert 88.0 < max(pauses[1:]) <= 90.0


def test_enough_holders_need_no_lookup() -> None:
    bench = Bench(R)
    bench.holders[R] = IDS[1 : 1 + WANTED_HOLDERS]
    assert bench.sync.tick(30.0) == []


def test_lookups_of_our_own_accord_are_few_at_a_time() -> None:
    wanted = [repository(n) for n in range(MAX_SEARCHES + 2)]
    bench = Bench(*wanted)
    assert bench.sync.tick(30.0) == [FindProviders(one) for one in wanted[:MAX_SEARCHES]]
    bench.sync.lookup_finished(LookupFinished(wanted[0], 5), 31.0)
    assert len([effect for effect in bench.sync.tick(90.0) if isinstance(effect, FindProviders)]) == 1
    # A command's lookup comes on top.
    assert FindProviders(R) in Bench().want()


def test_reasons_are_kept_only_while_a_command_waits() -> None:
    bench = Bench(R)
    for number in range(1, 9):
        bench.ready(IDS[number], R)
        bench.gone(IDS[number])
    assert bench.sync.goals[R].reasons == {}


def test_nothing_to_do_is_never_due() -> None:
    assert Bench().sync.deadline() == math.inf


def test_ten_thousand_repositories_cost_little_per_event() -> None:
    wanted = [repository(n) for n in range(10_000)]
    bench = Bench(*wanted, rng=random.Random(1))
    bench.holders = {one: [A] for one in wanted}
    bench.sync.peer_ready(A, bench.connection(A), [], 0.0)
    begun = time.process_time()
    for step in range(200):
        bench.sync.deadline()
        bench.sync.tick(step * 0.005)
    quiet = (time.process_time() - begun) / 200
    print(f"{quiet * 1e6:.0f} us per tick and deadline with 10,000 repositories")
    assert quiet < 0.002
    begun = time.process_time()
    for number in range(100):
        bench.sync.peer_ready(B, ConnectionId(1000 + number), [], 1.0)
        bench.sync.peer_gone(B, ConnectionId(1000 + number), 1.0)
        bench.sync.dial_ended(target(9), Unavailable("no"), 1.0)
    churn = (time.process_time() - begun) / 100
    print(f"{churn * 1e3:.1f} ms for a peer that comes and goes")
    assert churn < 0.1


# --- what is refused as it was signed -----------------------------------------------------------------------


class AsSigned(PeerFault):
    code = "AS_SIGNED"
    severity = Severity.NETWORK


def fetches(effects: list[Effect]) -> list[Fetch]:
    return [effect for effect in effects if isinstance(effect, Fetch)]


def questions(effects: list[Effect]) -> list[tuple[ConnectionId, int]]:
    sends = [effect for effect in effects if isinstance(effect, Send)]
    return [(send.connection, send.message.request) for send in sends if isinstance(send.message, GetRefs)]


def test_b4_record_that_was_refused_is_fetched_from_no_other_holder_for_a_while_and_other_records_are() -> None:
    bench = Bench(R)
    for peer in (A, B, C):
        bench.ready(peer, R)
    assert len(fetches(bench.refs(A, 1, newer()))) == 1
    effects = bench.fetched(1, A, Failed(AsSigned("git refuses it")))
    assert not any(isinstance(effect, Persist) for effect in effects)
    # The others are asked, and have the same, in whatever company it comes.
    assert bench.refs(B, 2, newer()) == []
    assert bench.refs(C, 3, dataclasses.replace(newer(), documents=())) == []
    assert bench.news(B, news(2)) == []
    goal = bench.sync.goals[R]
    assert goal.willing(B, 0.0), "it is left alone for nothing"
    assert bench.sync.deadline() <= REFUSED_SECONDS
    other = EncodedRefs(b"other", b"entries")
    [fetch] = fetches(bench.news(B, dataclasses.replace(news(3, other), hash=b"k" * 32)))
    bench.fetched(fetch.fetch, B, Failed(Unavailable("gone")))
    # One of those who offered it is tried in time, and then none for twice as long.
    effects = bench.sync.tick(REFUSED_SECONDS)
    [(connection, request)] = questions(effects)
    asked = next(peer for peer in (B, C) if bench.connection(peer) == connection)
    [fetch] = fetches(bench.refs(asked, request, newer(), now=REFUSED_SECONDS))
    bench.fetched(fetch.fetch, asked, Failed(AsSigned("git refuses it")), now=REFUSED_SECONDS)
    assert goal.refused.until(offer_id((RECORD,)), A) == 3 * REFUSED_SECONDS


def honest_turn(liars: int, seed: int) -> tuple[float, int]:
    """Return when the one honest holder is fetched from, who answers last, and how many liars were before it."""
    rng = random.Random(seed)
    peers = [PeerId(bytes([50 + number]) * 32) for number in range(liars + 1)]
    connections = {ConnectionId(number): peer for number, peer in enumerate(peers)}
    by_peer = {peer: connection for connection, peer in connections.items()}
    sync = RepoSync({R: known(1)}, lambda _: peers, rng, 0.0)
    now, tried = 0.0, 0
    effects = [effect for peer in peers for effect in sync.peer_ready(peer, by_peer[peer], [R], now)]
    while now < 3600.0:
        following: list[Effect] = []
        for fetch in fetches(effects):
            if connections[fetch.connection] == peers[-1]:
                return now, tried
            tried += 1
            outcome = Failed(AsSigned("git refuses it"))
            following += sync.fetch_finished(FetchFinished(fetch.fetch, R, fetch.connection, outcome), now)
        for connection, request in sorted(questions(effects)):
            following += sync.refs(connection, Refs(request, (newer(),)), now)
        effects = following
        if not effects:
            now = max(sync.deadline(), now + 0.01)
            effects = sync.tick(now)
    raise AssertionError("the honest holder had no turn within an hour")


@pytest.mark.parametrize("liars", [1, 3, 7, 15, 31])
def test_b4_many_who_spoil_the_pack_of_a_record_delay_an_honest_holder_by_a_minute_each(liars: int) -> None:
    for seed in range(8):
        seconds, tried = honest_turn(liars, seed)
        print(f"seed {seed}: {seconds:.0f} s, {tried} of {liars} liars")
        assert tried <= liars, "nobody has a second turn before all have had one"
        assert seconds <= liars * MAX_UNTRIED_SECONDS


def test_round_for_another_reason_loses_nobody_who_waits_to_give_what_was_refused() -> None:
    bench = Bench(R)
    for peer in (A, B):
        bench.ready(peer, R)
    bench.refs(A, 1, newer())
    bench.fetched(1, A, Failed(AsSigned("git refuses it")), now=0.0)
    assert bench.refs(B, 2, newer()) == []
    bench.sync._agenda.schedule(bench.sync.goals[R], 5.0)
    [(_, request)] = questions(bench.sync.tick(5.0))
    bench.refs(B, request, same(), now=5.0)
    [(connection, request)] = questions(bench.sync.tick(REFUSED_SECONDS))
    assert connection == bench.connection(B)
    assert len(fetches(bench.refs(B, request, newer(), now=REFUSED_SECONDS))) == 1


def test_who_is_gone_waits_no_more_to_give_what_was_refused() -> None:
    bench = Bench(R)
    for peer in (A, B):
        bench.ready(peer, R)
    bench.refs(A, 1, newer())
    bench.fetched(1, A, Failed(AsSigned("git refuses it")))
    bench.refs(B, 2, newer())
    refused = bench.sync.goals[R].refused
    assert refused.due_at() == REFUSED_SECONDS
    bench.gone(B)
    assert refused.due_at() == math.inf


def test_whoever_waits_for_a_repository_has_every_holder_tried() -> None:
    """A holder may add what git refuses to the pack of an honest record."""
    bench = Bench()
    bench.ready(A)
    bench.ready(B)
    bench.want()
    bench.refs(A, 1, newer())
    assert fetches(bench.refs(B, 2, newer())) == []
    effects = bench.fetched(1, A, Failed(AsSigned("git refuses it")))
    [(connection, request)] = questions(effects)
    assert connection == bench.connection(B)
    assert len(fetches(bench.refs(B, request, newer()))) == 1
    assert success(1, 5) in bench.fetched(2, B, accepted(5))
    assert len(bench.sync.goals[R].refused) == 0


def test_fault_of_the_sender_says_nothing_about_the_record() -> None:
    bench = Bench(R)
    for peer in (A, B):
        bench.ready(peer, R)
    bench.refs(A, 1, newer())
    bench.fetched(1, A, Failed(Fault("damaged")))
    assert len(fetches(bench.refs(B, 2, newer()))) == 1
