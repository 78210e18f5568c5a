"""One event in, an exact list of effects out."""

import pytest

from guts.addresses import Address
from guts.effects import (
    Candidate,
    Dial,
    Disconnect,
    Effect,
    Fetch,
    FindProviders,
    GiveReceipt,
    LoadRefs,
    PeerSeen,
    Persist,
    Provide,
    Reply,
    ResetStream,
    SeedingStopped,
    Send,
    Serve,
    ServeGit,
    Withdraw,
)
from guts.errors import PeerFault, StorageFault, Unavailable
from guts.events import (
    Accepted,
    AddressesChanged,
    CommandId,
    Connect,
    ConnectionId,
    DialFailed,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    GitServed,
    Head,
    Incomplete,
    LookupFinished,
    NothingNew,
    ProvidersFound,
    Published,
    RefsLoaded,
    Seed,
    ServeFinished,
    SyncNow,
    UnknownMessageReceived,
    Unseed,
    Woke,
)
from guts.gossip.envelope import brief, envelope
from guts.gossip.untold import TELL_WITHIN
from guts.limits import DEFAULTS
from guts.records import ProviderRecord
from guts.service.admission import BUSY_RETRY_AFTER
from guts.service.commands import NotFollowed
from guts.service.serving import ALL_SLICES
from guts.sync.goal import SyncTimedOut
from guts.wire.messages import (
    UPLOAD_PACK,
    Error,
    ErrorCode,
    GetObjects,
    GetRefs,
    GitService,
    Goodbye,
    GoodbyeCode,
    Gossip,
    Hello,
    KnownHead,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    ObjectsStatus,
    Ping,
    Pong,
    Prune,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    ResetCode,
    Subscribe,
)
from tests.support.peers import (
    HOUR_MS,
    IDS,
    KEYS,
    NEW,
    WALL,
    ack_of,
    address,
    at,
    hello_of,
    inbound,
    outbound,
    record_of,
    score_changed,
    target,
)
from tests.unit.service.bench import AUTHOR, ME, RECORD, Bench, R, S, accepted, known

MAX_GIT = int(DEFAULTS["git"])
MAX_GIT_PER_NETWORK = int(DEFAULTS["git_per_network"])
MAX_GIT_PER_PEER = int(DEFAULTS["git_per_peer"])
MAX_LOADS_PER_PEER = int(DEFAULTS["requests_per_peer"])
MAX_SERVES = int(DEFAULTS["serves"])
MAX_SERVES_PER_PEER = int(DEFAULTS["serves_per_peer"])

C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)
QUERY = RefsQuery(R, 1, b"i" * 32, (KnownHead(AUTHOR, 1, b"h" * 32),))
NEWS = NewCommit(R, AUTHOR, 2, b"h" * 32, RECORD)
HEAD = Head(2, b"h" * 32)
OUT_OF_STATE_BAN = score_changed(1, 100.0, 100.0, "OUT_OF_STATE", barred=86_400)
BANNED = Goodbye(GoodbyeCode.PROTOCOL_FAULT, "too many faults", 86_400)


class Fault(PeerFault):
    code = "FAULT"


def get_objects(request: int = 1, wanted: object = R, slices: bytes = ALL_SLICES, filter_: str = "") -> GetObjects:
    return GetObjects(request, S if wanted is S else R, 2 * request + 1, slices, filter_, 1, 0)


def holding() -> Bench:
    return Bench({R: known(1)})


# --- the state of a connection ------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [Ping(1), Pong(1), Subscribe((R,)), GetRefs(1, ()), Refs(1, ()), envelope(NEWS)])
def test_anything_before_the_hello_is_a_fatal_fault(message: Ping) -> None:
    bench = holding()
    bench.handle(inbound(1, 1))
    assert bench.say(1, message) == [OUT_OF_STATE_BAN, Disconnect(C1, BANNED)]
    # What still comes is not looked at.
    assert bench.say(1, hello_of(1)) == []
    assert bench.say(1, message) == []


def test_unknown_message_is_answered_after_the_hello_and_a_fault_before_it() -> None:
    bench = Bench()
    bench.handle(inbound(1, 1))
    assert bench.handle(UnknownMessageReceived(C1, 99)) == [OUT_OF_STATE_BAN, Disconnect(C1, BANNED)]
    assert bench.handle(UnknownMessageReceived(C1, 99)) == []
    assert bench.handle(UnknownMessageReceived(ConnectionId(77), 99)) == []
    bench.call(2, 2)
    bench.time = 20.0
    assert bench.handle(UnknownMessageReceived(C2, 99)) == [
        Send(C2, Error(0, ErrorCode.UNSUPPORTED, "unknown message type"))
    ]
    assert bench.service.peers.connections[C2].last_heard == 20.0


def test_second_hello_is_a_fatal_fault() -> None:
    bench = Bench()
    bench.call(1, 1)
    assert bench.say(1, hello_of(1)) == [OUT_OF_STATE_BAN, Disconnect(C1, BANNED)]


def test_goodbye_may_come_at_any_time() -> None:
    bench = Bench()
    bench.handle(inbound(1, 1))
    assert bench.say(1, Goodbye(GoodbyeCode.FULL, "", 60)) == [Disconnect(C1, None)]
    bench.call(2, 2)
    assert bench.say(2, Goodbye(GoodbyeCode.SHUTTING_DOWN)) == [Disconnect(C2, None)]
    assert bench.service.peers.scores.value(IDS[1], 0.0) == 0.0


def test_message_of_a_connection_that_is_gone_is_nothing() -> None:
    assert Bench().say(9, Ping(1)) == []


def test_ping_is_answered_and_pong_is_heard() -> None:
    bench = Bench()
    bench.call(1, 1)
    bench.time = 7.0
    assert bench.say(1, Ping(5)) == [Send(C1, Pong(5))]
    assert bench.say(1, Pong(5)) == []
    assert bench.service.peers.connections[C1].last_heard == 7.0


def test_new_peer_is_told_what_we_follow_and_asked_about_what_it_holds() -> None:
    bench = holding()
    bench.service.peers.state(IDS[1]).holds(R)
    bench.service.peers.state(IDS[1]).holds(S)
    effects = bench.call(1, 1)
    assert effects[1:] == [
        Persist(PeerSeen(IDS[1], None, record_of(1), ("seed",), WALL)),
        Send(C1, Subscribe((R,))),
        Send(C1, GetRefs(1, (QUERY,))),
    ]


def test_restarted_peer_is_asked_over_the_new_connection() -> None:
    bench = holding()
    bench.service.peers.state(IDS[1]).holds(R)
    bench.call(1, 1)
    effects = bench.call(2, 1, NEW)
    assert effects[0] == Disconnect(C1, Goodbye(GoodbyeCode.DUPLICATE, "another connection of ours stays"))
    assert effects[-2:] == [Send(C2, Subscribe((R,))), Send(C2, GetRefs(2, (QUERY,)))]
    assert bench.end(1) == []
    bench.time = 29.0
    assert bench.service.sync.goals[R].asking == {IDS[1]}


# --- commands about peers -----------------------------------------------------------------------------------


def test_connect_is_answered_when_the_hello_is_exchanged() -> None:
    bench = Bench()
    where = target(1, IDS[1])
    assert bench.command(Connect(where, 10.0)) == [Dial(where)]
    assert bench.command(Connect(where, 20.0)) == []
    bench.time = 0.5
    effects = bench.reach(1, 1)
    assert [effect for effect in effects if isinstance(effect, Reply)] == [
        Reply(CommandId(1), {"peer": str(IDS[1]), "seconds": 0.5}),
        Reply(CommandId(2), {"peer": str(IDS[1]), "seconds": 0.5}),
    ]


def test_connect_over_a_second_connection_succeeds_through_the_first() -> None:
    bench = Bench()
    bench.reach(1, 1)
    bench.command(Connect(target(9), 10.0))
    bench.handle(outbound(2, 1, target(9)))
    assert bench.say(2, Goodbye(GoodbyeCode.DUPLICATE)) == [Disconnect(C2, None)]
    assert bench.end(2) == [Reply(CommandId(1), {"peer": str(IDS[1]), "seconds": 0.0})]


@pytest.mark.parametrize("error", [Unavailable("refused"), Fault("another node")])
def test_connect_to_nobody_tells_why(error: Unavailable) -> None:
    bench = Bench()
    bench.command(Connect(target(9), 10.0))
    assert bench.handle(DialFailed(target(9), error)) == [Reply(CommandId(1), error)]


def test_connect_that_is_refused_tells_why() -> None:
    bench = Bench()
    bench.command(Connect(target(1), 10.0))
    bench.handle(outbound(1, 1, target(1)))
    bench.say(1, Goodbye(GoodbyeCode.FULL, "", 60))
    [reply] = bench.end(1)
    assert isinstance(reply, Reply)
    assert str(reply.result) == "the node has no free connection"


def test_connect_that_breaks_off_tells_why() -> None:
    bench = Bench()
    for number, error in enumerate((Unavailable("reset"), None), start=1):
        bench.command(Connect(target(1), 10.0))
        bench.handle(outbound(number, 1, target(1)))
        [reply] = bench.end(number, error)
        assert isinstance(reply, Reply)
        assert str(reply.result) == ("reset" if error else "the peer closed the connection")


def test_connect_runs_out_of_time() -> None:
    bench = Bench()
    bench.command(Connect(target(1), 10.0))
    bench.command(Connect(target(1), 12.0))
    bench.handle(Woke())
    assert bench.service.deadline(0.0) == 10.0
    for time, command in ((10.0, 1), (12.0, 2)):
        bench.time = time
        [reply] = bench.handle(Woke())
        assert isinstance(reply, Reply)
        assert reply.command_id == command
        assert isinstance(reply.result, SyncTimedOut)
    assert bench.service.deadline(12.0) > 12.0


# --- commands about repositories ----------------------------------------------------------------------------


def test_seed_follows_and_looks_up() -> None:
    bench = Bench()
    bench.call(1, 1)
    assert bench.command(Seed(R, (target(9),), 10.0)) == [
        Send(C1, Subscribe((R,))),
        Dial(target(9)),
        Send(C1, GetRefs(1, (RefsQuery(R, 0, b"", ()),))),
        FindProviders(R),
    ]


def test_unseed_untells_withdraws_and_persists() -> None:
    bench = holding()
    bench.call(1, 1)
    assert bench.command(Unseed(R)) == [
        Send(C1, Subscribe((), (R,))),
        Withdraw(R),
        Persist(SeedingStopped(R)),
        Reply(CommandId(1), {"repository": str(R)}),
    ]
    assert bench.command(Unseed(R)) == [Reply(CommandId(2), {"repository": str(R)})]


def test_unseed_of_what_never_came_has_nothing_to_persist() -> None:
    bench = Bench()
    bench.command(Seed(R, (), 10.0))
    effects = bench.command(Unseed(R))
    assert [type(effect) for effect in effects] == [Reply, Withdraw, Reply]


def test_sync_of_what_is_not_here_is_refused() -> None:
    bench = Bench()
    [reply] = bench.command(SyncNow(R, 10.0))
    assert isinstance(reply, Reply)
    assert isinstance(reply.result, NotFollowed)
    assert holding().command(SyncNow(R, 10.0)) == [FindProviders(R)]


# --- serving ------------------------------------------------------------------------------------------------


def test_so_many_questions_of_one_peer_are_worked_on_and_the_next_is_told_to_wait() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.call(2, 2)
    for request in range(1, MAX_LOADS_PER_PEER + 1):
        assert bench.say(1, GetRefs(request, (QUERY,))) == [LoadRefs(C1, request, (QUERY,), b"")]
    assert bench.say(1, GetRefs(99, (QUERY,))) == [
        Send(C1, Error(99, ErrorCode.BUSY, "too many requests under way", BUSY_RETRY_AFTER))
    ]
    assert bench.say(2, GetRefs(1, (QUERY,), b"c")) == [LoadRefs(C2, 1, (QUERY,), b"c")]
    answer = RefsAnswer(R, RefsStatus.HELD)
    assert bench.handle(RefsLoaded(C1, 1, (answer,), b"x")) == [Send(C1, Refs(1, (answer,), b"x"))]
    assert bench.say(1, GetRefs(99, (QUERY,))) == [LoadRefs(C1, 99, (QUERY,), b"")]


def test_fault_while_serving_is_counted() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, get_objects())
    effects = bench.handle(ServeFinished(C1, R, Fault("x")))
    assert effects[1:] == [Disconnect(C1, BANNED)]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (get_objects(wanted=S), ObjectsStatus.NOT_HELD, ResetCode.NOT_FOUND),
        (get_objects(slices=b"\x01" * 8), ObjectsStatus.UNSUPPORTED, ResetCode.REFUSED),
        (get_objects(filter_="blob:none"), ObjectsStatus.UNSUPPORTED, ResetCode.REFUSED),
    ],
)
def test_pack_that_cannot_be_had_is_refused(request_: GetObjects, status: ObjectsStatus, code: ResetCode) -> None:
    bench = holding()
    bench.call(1, 1)
    assert bench.say(1, request_) == [Send(C1, Objects(1, status, 0)), ResetStream(C1, 3, code)]


def git_service(request: int = 1, wanted: object = R, service: int = UPLOAD_PACK) -> GitService:
    return GitService(request, S if wanted is S else R, 2 * request + 1, service)


def git_busy(connection: ConnectionId) -> list[Effect]:
    error = Error(9, ErrorCode.BUSY, "too many under way", BUSY_RETRY_AFTER)
    return [Send(connection, error), ResetStream(connection, 19, ResetCode.LIMIT)]


def test_so_many_requests_of_git_are_answered_for_one_peer_and_for_all() -> None:
    bench = holding()
    full = MAX_GIT // MAX_GIT_PER_PEER
    for number in range(1, full + 2):
        bench.call(number, number)
    for number in range(1, full + 1):
        for request in range(1, MAX_GIT_PER_PEER + 1):
            assert bench.say(number, git_service(request)) == [ServeGit(ConnectionId(number), git_service(request))]
        assert bench.say(number, git_service(9)) == git_busy(ConnectionId(number))
    last = ConnectionId(full + 1)
    assert bench.say(full + 1, git_service(9)) == git_busy(last)
    # Packs for other nodes have places of their own.
    assert bench.say(1, get_objects()) == [Serve(C1, get_objects())]
    assert bench.handle(GitServed(C1, None)) == []
    assert bench.say(full + 1, git_service(9)) == [ServeGit(last, git_service(9))]
    assert bench.say(1, git_service(9)) == git_busy(C1)
    # The end of an answer after that of its connection.
    bench.end(2)
    assert bench.handle(GitServed(C2, Fault("x"))) == []
    assert bench.say(1, git_service(9)) == [ServeGit(C1, git_service(9))]


@pytest.mark.parametrize(
    ("addresses", "more"),
    [
        (["8.8.4.1", "8.8.4.2", "8.8.4.200"], "8.8.4.3"),
        (["2600:1::1", "2600:1:0:2::1", "2600:1::3"], "2600:1:0:ffff::1"),
    ],
)
def test_one_network_of_the_internet_has_not_all_places(addresses: list[str], more: str) -> None:
    admission = Bench().service.admission
    assert 2 * MAX_GIT_PER_PEER <= MAX_GIT_PER_NETWORK < MAX_GIT
    for number in range(MAX_GIT_PER_NETWORK):
        assert admission.begin_git(ConnectionId(number), Address(addresses[number % 3], 9))
    assert not admission.begin_git(ConnectionId(90), Address(more, 9))
    for number, ip in enumerate(("8.8.5.1", "2600:1:1::1", "192.168.0.1", "127.0.0.1")):
        assert admission.begin_git(ConnectionId(100 + number), Address(ip, 9)), ip
    assert not admission.begin_git(ConnectionId(110), Address("9.9.9.9", 9))
    admission.end_git(ConnectionId(0))
    assert admission.begin_git(ConnectionId(90), Address(more, 9))


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.2.3", "fd00::1"])
def test_nodes_of_one_lan_or_machine_are_not_one_network(ip: str) -> None:
    admission = Bench().service.admission
    for number in range(MAX_GIT):
        assert admission.begin_git(ConnectionId(number), Address(ip, 9))
    assert not admission.begin_git(ConnectionId(MAX_GIT), Address(ip, 9))


@pytest.mark.parametrize(
    ("message", "error", "code"),
    [
        (git_service(wanted=S), ErrorCode.NOT_FOUND, ResetCode.NOT_FOUND),
        (git_service(service=2), ErrorCode.UNSUPPORTED, ResetCode.REFUSED),
    ],
)
def test_git_service_that_cannot_be_had_is_refused(message: GitService, error: ErrorCode, code: ResetCode) -> None:
    bench = holding()
    bench.call(1, 1)
    [refusal, reset] = bench.say(1, message)
    assert isinstance(refusal, Send)
    assert isinstance(refusal.message, Error)
    assert (refusal.message.request, refusal.message.code) == (1, error)
    assert reset == ResetStream(C1, 3, code)


def test_fault_in_a_request_of_git_is_counted() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, git_service())
    assert bench.handle(GitServed(C1, Unavailable("x"))) == []
    bench.say(1, git_service())
    assert bench.handle(GitServed(C1, Fault("x")))[1:] == [Disconnect(C1, BANNED)]


# --- who holds what -----------------------------------------------------------------------------------------


def test_subscriber_is_asked_and_counts_as_a_holder_only_when_it_says_so() -> None:
    bench = holding()
    bench.call(1, 1)
    assert bench.say(1, Subscribe((R, S))) == [Send(C1, GetRefs(1, (QUERY,)))]
    assert bench.service.peers.peers_with_repository(R) == []
    assert bench.say(1, Refs(1, (RefsAnswer(R, RefsStatus.HELD),))) == []
    assert [state.id for state in bench.service.peers.peers_with_repository(R)] == [IDS[1]]
    bench.say(1, Subscribe((R,)))
    assert bench.say(1, Refs(2, (RefsAnswer(R, RefsStatus.NOT_HELD),))) == []
    assert bench.service.peers.peers_with_repository(R) == []


def test_unasked_answers_cost_and_two_close_together_disconnect() -> None:
    bench = holding()
    bench.call(1, 1)
    assert bench.say(1, Refs(5, ())) == [score_changed(1, 25.0, 25.0, "UNSOLICITED_ANSWER")]
    assert bench.say(1, Refs(5, ()))[1:] == [
        Disconnect(C1, Goodbye(GoodbyeCode.PROTOCOL_FAULT, "too many faults", 600))
    ]


def provider(number: int) -> ProviderRecord:
    return ProviderRecord.sign(KEYS[number], R, (address(number),), 1, WALL + HOUR_MS)


def test_providers_are_dialled_but_for_this_node_and_the_banned() -> None:
    bench = Bench()
    bench.command(Seed(R, (), 60.0))
    bench.service.peers.scores.count(IDS[2], Fault("x"), at(0))
    assert bench.handle(ProvidersFound(R, (provider(ME), provider(1), provider(2), provider(3)))) == [
        Dial(target(1, IDS[1])),
        Dial(target(3, IDS[3])),
    ]
    effects = bench.handle(DialFailed(target(1, IDS[1]), Unavailable("refused")))
    assert effects == []
    assert bench.handle(LookupFinished(R, 20)) == []
    [reply] = bench.handle(DialFailed(target(3, IDS[3]), Unavailable("refused")))
    assert isinstance(reply, Reply)
    assert "2 possible replicas" in str(reply.result)


def test_holder_told_by_gossip_is_dialled_where_it_is_not_connected() -> None:
    bench = Bench()
    bench.call(1, 1)
    bench.command(Seed(R, (), 60.0))
    news = NewRepository(R, 0, b"i" * 32, record_of(3))
    assert bench.say(1, envelope(news)) == [Dial(target(3, IDS[3]))]
    assert bench.say(1, envelope(news)) == []
    bench.call(2, 2)
    assert bench.say(1, NewRepository(R, 0, b"i" * 32, record_of(2))) == []
    bench.say(2, Refs(2, (RefsAnswer(R, RefsStatus.NOT_HELD),)))
    assert bench.say(1, NewRepository(R, 0, b"i" * 32, record_of(2))) == [
        Send(C2, GetRefs(3, (RefsQuery(R, 0, b"", ()),)))
    ]


def test_word_of_an_expired_record_or_of_what_is_not_followed_is_nothing() -> None:
    bench = holding()
    bench.call(1, 1)
    assert bench.say(1, NewRepository(R, 0, b"i" * 32, record_of(3, expires=WALL))) == []
    assert bench.say(1, NewRepository(S, 0, b"i" * 32, b"anything")) == []
    assert bench.say(1, envelope(NewCommit(S, AUTHOR, 2, b"h" * 32, None))) == []


def test_word_with_an_invalid_record_is_a_fault() -> None:
    bench = holding()
    bench.call(1, 1)
    effects = bench.say(1, NewRepository(R, 0, b"i" * 32, record_of(3)[:-1]))
    assert effects[1:] == [Disconnect(C1, BANNED)]


# --- news ---------------------------------------------------------------------------------------------------


def fetch(connection: ConnectionId = C1, number: int = 1, request: int = 2) -> Fetch:
    return Fetch(FetchId(number), connection, request, R, Candidate((), (), (RECORD,)))


def finished(outcome: FetchOutcome, connection: ConnectionId = C1, number: int = 1) -> FetchFinished:
    return FetchFinished(FetchId(number), R, connection, outcome)


def test_bare_news_are_heard_once() -> None:
    bench = holding()
    for number in (1, 2):
        bench.call(number, number)
    proof = NewProof(R, AUTHOR, 9, b"proof")
    assert len(bench.say(1, proof)) == 1
    bench.handle(finished(Failed(Unavailable("gone"))))
    assert bench.say(1, proof) == bench.say(2, proof) == bench.say(2, envelope(proof)) == []


def test_news_that_one_told_in_vain_are_heard_from_another() -> None:
    bench = holding()
    for number in (1, 2):
        bench.call(number, number)
    assert len(bench.say(1, NewProof(R, AUTHOR, 9, b"irrelevant"))) == 1
    bench.handle(finished(NothingNew(known(1))))
    assert bench.say(1, envelope(NEWS)) == bench.say(1, NEWS) == []
    (effect,) = bench.say(2, envelope(NEWS))
    assert isinstance(effect, Fetch)


def test_own_publication_goes_to_subscribers() -> None:
    bench = Bench()
    for number in (1, 2):
        bench.call(number, number)
    assert bench.handle(Published(R, accepted(2))) == [
        Send(C1, Subscribe((R,))),
        Send(C2, Subscribe((R,))),
        Provide(R),
    ]
    bench.say(2, Subscribe((R,)))
    news = NewCommit(R, AUTHOR, 3, b"h" * 32, RECORD)
    assert bench.handle(Published(R, accepted(3))) == [Send(C2, envelope(news))]
    # It comes back, and is known.
    assert bench.say(1, envelope(news)) == [Send(C1, Prune(R, AUTHOR))]
    assert bench.say(1, envelope(news)) == []


def test_new_identity_document_is_told_to_subscribers() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, Subscribe((R,)))
    assert bench.handle(Published(R, Accepted(known(1, epoch=1), ()))) == [
        Send(C1, envelope(NewRepository(R, 1, b"i" * 32, record_of(ME))))
    ]


def test_new_replica_tells_subscribers_that_it_holds() -> None:
    bench = Bench()
    bench.call(1, 1)
    bench.call(2, 2)
    bench.call(3, 3)
    bench.command(Seed(R, (), 60.0))
    bench.say(2, Subscribe((R,)))
    answer = RefsAnswer(R, RefsStatus.HELD, (b"d",), (), (RECORD,))
    assert [type(effect) for effect in bench.say(1, Refs(1, (answer,)))] == [Fetch]
    effects = bench.handle(finished(accepted(2)))
    assert [type(effect) for effect in effects] == [Provide, Reply, GiveReceipt, Send]
    assert effects[2] == GiveReceipt(C1, 0, R, AUTHOR, HEAD)
    word = NewRepository(R, 0, b"i" * 32, record_of(ME))
    assert effects[3] == Send(C2, envelope(word))
    bench.time += TELL_WITHIN
    assert Send(C2, envelope(brief(NEWS))) in bench.handle(Woke())


def test_invalid_gossip_is_a_fatal_fault() -> None:
    bench = holding()
    bench.call(1, 1)
    effects = bench.say(1, Gossip("repositories", b"garbage"))
    assert effects[-1] == Disconnect(C1, BANNED)


def test_fault_of_a_transfer_is_counted_though_the_peer_has_left() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, envelope(NEWS))
    bench.end(1)
    assert bench.handle(finished(Failed(Fault("bad pack")))) == [score_changed(1, 100.0, 100.0, "FAULT", barred=86_400)]


@pytest.mark.parametrize(
    "outcome", [Incomplete(), Failed(Unavailable("x")), Failed(StorageFault("x")), NothingNew(known(1)), accepted(2)]
)
def test_only_faults_of_a_transfer_cost(outcome: FetchOutcome) -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, envelope(NEWS))
    bench.handle(finished(outcome))
    assert bench.service.peers.scores.value(IDS[1], 0.0) == 0.0


def test_commit_that_comes_after_the_unseed_is_not_seeded_and_not_told() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.call(2, 2)
    bench.say(2, Subscribe((R,)))
    bench.say(1, envelope(NEWS))
    bench.command(Unseed(R))
    assert bench.handle(finished(accepted(2))) == [Persist(SeedingStopped(R))]
    assert bench.service.peers.state(IDS[1]).repositories == {R}


def test_busy_answer_to_a_fetch_sets_the_wait() -> None:
    bench = holding()
    bench.call(1, 1)
    [started] = bench.say(1, envelope(NEWS))
    assert isinstance(started, Fetch)
    assert bench.say(1, Objects(started.request, ObjectsStatus.BUSY, 5)) == []
    bench.handle(finished(Failed(Unavailable("reset"))))
    assert bench.service.sync.goals[R].retry_after == {IDS[1]: 5.0}


def test_error_answers_a_question() -> None:
    bench = holding()
    bench.call(1, 1)
    bench.say(1, Subscribe((R,)))
    assert bench.say(1, Error(1, ErrorCode.BUSY, "", 5)) == []
    assert bench.service.sync.goals[R].retry_after == {IDS[1]: 5.0}


def test_new_addresses_are_told_in_the_next_hello() -> None:
    bench = Bench()
    assert bench.handle(AddressesChanged(b"new record")) == []
    [send] = bench.handle(outbound(1, 1))
    assert isinstance(send, Send)
    assert isinstance(send.message, Hello)
    assert send.message.peer_record == b"new record"


def test_wrong_answer_to_our_hello_ends_the_dial() -> None:
    bench = Bench()
    bench.command(Connect(target(1, IDS[1]), 10.0))
    bench.handle(outbound(1, 1))
    effects = bench.say(1, ack_of(1, version=7))
    assert effects[-1] == Disconnect(C1, BANNED)
    [reply] = bench.end(1)
    assert isinstance(reply, Reply)
    assert str(reply.result) == "this node saw a fault of the protocol"
