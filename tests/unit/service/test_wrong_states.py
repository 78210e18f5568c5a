"""Row B1 of docs/threats.md: whatever a peer says, whenever, it has a defined outcome and never is it an exception.

Sequences of arbitrary well-formed messages of every type, hellos that are right and wrong, transfers that end in any
way, commands and time, over several connections; after each event the books must balance. ``make test`` plays 300,
always the same; ``make rows`` plays 50,000 others, and prints what plays a sequence that failed again.
"""

import math
import os
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guts.effects import Dial, Disconnect, Effect, Fetch, FindProviders, LoadRefs, Look, Send, Serve, ServeGit, Withhold
from guts.errors import GutsError, PeerFault, StorageFault, Unavailable
from guts.events import (
    ConnectionId,
    DialFailed,
    Disconnected,
    Failed,
    FetchFinished,
    FetchOutcome,
    GitServed,
    Incomplete,
    Known,
    LookFinished,
    LookupFinished,
    MessageReceived,
    NothingNew,
    Published,
    Read,
    RefsLoaded,
    Seed,
    ServeFinished,
    SyncNow,
    UnknownMessageReceived,
    Unseed,
    Woke,
)
from guts.gossip.envelope import envelope
from guts.service.serving import ALL_SLICES
from guts.sync.fetches import MAX_FETCHES
from guts.wire.messages import (
    UPLOAD_PACK,
    EncodedRefs,
    Error,
    ErrorCode,
    GetObjects,
    GetPeers,
    GetRefs,
    GitService,
    Gossip,
    Message,
    NewCommit,
    NewRepository,
    Objects,
    ObjectsStatus,
    Peers,
    Ping,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from tests.support.messages import MESSAGES
from tests.support.peers import IDS, NEW, OLD, WALL, ack_of, hello_of, inbound, outbound, record_of, target
from tests.unit.service.bench import AUTHOR, Bench, R, S, accepted, known

SEQUENCES: Final = int(os.environ.get("GUTS_SEQUENCES", "0"))


class Broken(PeerFault):
    """Whatever a worker may find."""


_RECORD: Final = EncodedRefs(b"header", b"entries")
_RECORDS: Final = [record_of(1), record_of(2), record_of(2, expires=WALL), b"", b"garbage"]
_ids: Final = st.sampled_from([R, S])
_status: Final = st.sampled_from(list(RefsStatus))
_answers: Final = st.builds(
    RefsAnswer, _ids, _status, st.sampled_from([(), (b"d",)]), st.just(()), st.sampled_from([(), (_RECORD,)])
)
_news: Final = st.builds(
    NewCommit, _ids, st.just(AUTHOR), st.integers(0, 5), st.just(b"h" * 32), st.sampled_from([None, _RECORD])
) | st.builds(NewRepository, _ids, st.integers(0, 2), st.just(b"i" * 32), st.sampled_from(_RECORDS))

_likely: Final[st.SearchStrategy[Message]] = st.one_of(
    st.builds(
        hello_of,
        st.sampled_from([1, 2]),
        nonce=st.sampled_from([OLD, NEW]),
        versions=st.sampled_from([(1, 1), (2, 3)]),
        record=st.sampled_from([None, *_RECORDS]),
    ),
    st.builds(ack_of, st.sampled_from([1, 2]), nonce=st.sampled_from([OLD, NEW]), version=st.sampled_from([1, 2])),
    st.builds(Subscribe, st.sampled_from([(), (R,), (R, S)]), st.sampled_from([(), (R,)])),
    st.builds(
        Refs,
        st.integers(1, 6),
        st.lists(_answers, max_size=2).map(tuple),
        st.sampled_from([b"", b"\x01"]),
    ),
    st.builds(Peers, st.integers(1, 6), st.lists(st.sampled_from(_RECORDS[:3]), max_size=3).map(tuple)),
    _news,
    _news.map(envelope),
    st.builds(Gossip, st.sampled_from(["repositories", f"repo/{R}", "x"]), st.binary(min_size=1, max_size=40)),
)

_fair: Final[st.SearchStrategy[Message]] = st.one_of(
    st.builds(Subscribe, st.sampled_from([(), (R,), (R, S)]), st.sampled_from([(), (R,)])),
    st.builds(
        NewCommit, _ids, st.just(AUTHOR), st.integers(0, 9), st.just(b"h" * 32), st.sampled_from([None, _RECORD])
    ).map(envelope),
    st.builds(NewRepository, _ids, st.just(0), st.just(b"i" * 32), st.sampled_from(_RECORDS[:3])),
    st.builds(Ping, st.integers(0, 9)),
    st.builds(GetPeers, st.integers(1, 9)),
    st.builds(GetRefs, st.integers(1, 9), st.just((RefsQuery(R, 0, b"", ()),))),
    st.builds(
        GetObjects, st.integers(1, 9), _ids, st.just(3), st.just(ALL_SLICES), st.just(""), st.just(1), st.just(0)
    ),
    st.builds(GitService, st.integers(1, 9), _ids, st.just(5), st.sampled_from([UPLOAD_PACK, UPLOAD_PACK, 2])),
    st.builds(Objects, st.integers(1, 30), st.sampled_from(list(ObjectsStatus)), st.integers(0, 20)),
)
"""What an honest peer says."""

_contents: Final = st.tuples(_status, st.sampled_from([(), (b"d",)]), st.just(()), st.sampled_from([(), (_RECORD,)]))
_outcomes: Final[st.SearchStrategy[FetchOutcome]] = st.one_of(
    st.integers(1, 9).map(accepted),
    st.sampled_from([NothingNew(Known()), NothingNew(known(1)), Incomplete()]),
    st.sampled_from([Broken("x"), Unavailable("x"), StorageFault("x")]).map(Failed),
)

_READS: Final = [Read(S, Known(), (target(6),), 20.0), Read(S, known(2), (), 5.0)]

_steps: Final = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 9), _likely),
    st.tuples(st.just("say"), st.integers(0, 9), _fair),
    st.tuples(st.just("answer"), st.integers(0, 9), st.tuples(st.lists(_contents, max_size=2), st.booleans())),
    st.tuples(st.just("answer"), st.integers(0, 9), st.tuples(st.lists(_contents, max_size=2), st.booleans())),
    st.tuples(st.just("answer"), st.integers(0, 9), st.sampled_from(list(ErrorCode))),
    st.tuples(st.just("say"), st.integers(0, 9), MESSAGES),
    st.tuples(
        st.just("flood"),
        st.integers(0, 9),
        st.tuples(MESSAGES, st.sampled_from([2, 70, 1100]), st.sampled_from([0, 70, 1 << 16])),
    ),
    st.tuples(st.just("unknown"), st.integers(0, 9), st.integers(0, 127)),
    st.tuples(st.just("connect"), st.booleans(), st.integers(1, 5)),
    st.tuples(st.just("greet"), st.booleans(), st.integers(1, 5)),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from([None, Broken("x"), Unavailable("x")])),
    st.tuples(st.just("work"), st.integers(0, 9), _outcomes),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 2.0, 7.0, 25.0, 31.0]), st.none()),
    st.tuples(
        st.just("command"),
        st.none(),
        st.sampled_from(
            [Seed(R, (target(7),), 30.0), Seed(S, (), 5.0), Unseed(R), SyncNow(R, 20.0), Unseed(S), *_READS]
        ),
    ),
    st.tuples(st.just("publish"), st.integers(1, 9), _ids),
)


class Run:
    """A bench, and what is under way outside of it."""

    def __init__(self) -> None:
        self.bench = Bench({R: known(1)})
        self.connections: list[ConnectionId] = []
        self.closing: set[ConnectionId] = set()
        self.work: list[Effect] = []
        self.questions: list[tuple[ConnectionId, GetRefs]] = []
        self.count = 0

    def took(self, effects: list[Effect]) -> None:
        """Look at what came of an event, and keep what a worker would do."""
        for effect in effects:
            match effect:
                case Disconnect(connection=connection):
                    assert connection in self.connections
                    assert connection not in self.closing
                    self.closing.add(connection)
                case Fetch() | Look() | LoadRefs() | Serve() | ServeGit() | FindProviders() | Dial():
                    self.work.append(effect)
                case Withhold(connection=connection, seconds=seconds):
                    assert connection in self.connections
                    assert 0 < seconds < math.inf
                case Send(connection=connection, message=GetRefs() as question):
                    self.questions.append((connection, question))
                case Send(connection=connection):
                    assert connection in self.connections or connection not in self.bench.service.peers.connections
                case _:
                    pass
        self.balanced()

    def balanced(self) -> None:
        """Check what must always hold."""
        service = self.bench.service
        assert set(service.peers.connections) == set(self.connections)
        assert len(service.sync.fetches.running) == sum(isinstance(work, Fetch) for work in self.work) <= MAX_FETCHES
        readings = service.sync.readings
        assert len(readings.fetches.running) == sum(isinstance(work, Look) for work in self.work) <= MAX_FETCHES
        for reading in readings.goals.values():
            assert reading.waiters, "a reading that nobody waits for"
            assert reading.busy or self.bench.time < reading.ends < math.inf, "a reading that nothing is done about"
        ready = [connection.peer for connection in service.peers.ready()]
        assert len(ready) == len(set(ready))
        assert sorted(ready) == sorted(peer for peer in IDS if service.peers.connection_to(peer) is not None)
        for goal in service.sync.goals.values():
            connected = {state.id for state in service.peers.peers.values() if state.connection is not None}
            assert goal.asking | set(goal.offers) | set(goal.resting) <= connected
            assert goal.held or goal.busy, "a wish that nothing is done about"
            assert not (goal.waiters and goal.done), "a command that is not answered"
        assert service.deadline(self.bench.time) >= min(self.bench.time, service.sync.deadline())

    def step(self, kind: str, which: object, what: object) -> None:
        """Let one thing happen."""
        bench = self.bench
        if kind in {"connect", "greet"}:
            self.count += 1
            assert isinstance(what, int)
            number, peer = self.count, what
            self.connections.append(ConnectionId(number))
            self.took(bench.handle(outbound(number, peer) if which else inbound(number, peer)))
            if kind == "greet":
                self.took(bench.say(number, ack_of(peer) if which else hello_of(peer)))
        elif kind == "wait":
            assert isinstance(which, float)
            bench.time += which
            self.took(bench.handle(Woke()))
        elif kind == "command":
            assert isinstance(what, Seed | Unseed | SyncNow | Read)
            self.took(bench.command(what))
        elif kind == "publish":
            assert isinstance(which, int)
            self.took(bench.handle(Published(R if what == R else S, accepted(which))))
        elif kind == "answer" and self.questions:
            assert isinstance(which, int)
            self.answer(*self.questions.pop(which % len(self.questions)), what)
        elif kind == "work" and self.work:
            assert isinstance(which, int)
            self.finish(self.work.pop(which % len(self.work)), what)
        elif kind in {"say", "flood", "unknown", "end"} and self.connections:
            assert isinstance(which, int)
            self.at_connection(kind, self.connections[which % len(self.connections)], what)

    def at_connection(self, kind: str, connection: ConnectionId, what: object) -> None:
        """Let something happen at a connection."""
        if kind == "end":
            assert what is None or isinstance(what, GutsError)
            self.connections.remove(connection)
            self.closing.discard(connection)
            self.took(self.bench.handle(Disconnected(connection, what)))
        elif kind == "unknown":
            assert isinstance(what, int)
            self.took(self.bench.handle(UnknownMessageReceived(connection, what)))
        elif kind == "flood":
            assert isinstance(what, tuple)
            message, times, size = what
            for _ in range(times):
                self.took(self.bench.handle(MessageReceived(connection, message, size)))
                if connection in self.closing:
                    break
        else:
            assert isinstance(what, Message)
            effects = self.bench.say(connection, what)
            assert connection not in self.closing or effects == []
            self.took(effects)

    def answer(self, connection: ConnectionId, question: GetRefs, how: object) -> None:
        """Let the peer answer ``question``, or refuse to."""
        if connection not in self.connections:
            return
        if isinstance(how, ErrorCode):
            self.took(self.bench.say(connection, Error(question.request, how, "", 5)))
            return
        assert isinstance(how, tuple)
        contents, cut = how
        answers = tuple(
            RefsAnswer(query.repository, *content) for query, content in zip(question.queries, contents, strict=False)
        )
        self.took(self.bench.say(connection, Refs(question.request, answers, b"\x01" if cut else b"")))

    def finish(self, work: Effect, outcome: object) -> None:
        """Let a worker report."""
        handle = self.bench.handle
        match work:
            case Fetch(fetch=fetch, repository=repository, connection=connection):
                assert isinstance(outcome, FetchOutcome)
                self.took(handle(FetchFinished(fetch, repository, connection, outcome)))
            case Look(fetch=fetch, repository=repository, connection=connection):
                assert isinstance(outcome, FetchOutcome)
                self.took(handle(LookFinished(fetch, repository, connection, outcome)))
            case LoadRefs(connection=connection, request=request):
                self.took(handle(RefsLoaded(connection, request, (), b"")))
            case Serve(connection=connection, request=request):
                self.took(handle(ServeFinished(connection, request.repository, None)))
            case ServeGit(connection=connection):
                self.took(handle(GitServed(connection, None)))
            case FindProviders(repository=repository):
                self.took(handle(LookupFinished(repository, 3)))
            case Dial(target=where):
                self.took(handle(DialFailed(where, Unavailable("refused"))))
            case _:
                raise AssertionError(work)


@settings(
    max_examples=SEQUENCES or 300, deadline=None, derandomize=not SEQUENCES, suppress_health_check=list(HealthCheck)
)
@given(st.lists(_steps, max_size=40))
def test_b1_no_sequence_of_messages_breaks_the_service(steps: list[tuple[str, object, object]]) -> None:
    run = Run()
    for kind, which, what in steps:
        run.step(kind, which, what)
    # Whatever was begun can end.
    while run.work:
        run.finish(run.work.pop(), Failed(Unavailable("x")))
    while run.connections:
        run.at_connection("end", run.connections[0], None)
        while run.work:
            run.finish(run.work.pop(), Failed(Unavailable("x")))
    run.step("wait", 10_000.0, None)
    assert all(not goal.waiters or goal.busy for goal in run.bench.service.sync.goals.values())
    assert run.bench.service.sync.readings.goals == {}
