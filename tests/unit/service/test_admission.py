"""Admission: who has to wait, and that nothing gets past it."""

import ast
from pathlib import Path
from typing import Final, get_args

import pytest

from guts.addresses import Address
from guts.effects import Disconnect, Effect, Fetch, LoadRefs, Send, Withhold
from guts.events import Connected, ConnectionId, MessageReceived, UnknownMessageReceived
from guts.gossip.envelope import envelope
from guts.limits import DEFAULTS
from guts.peers.penalties import PENALTY, PENALTY_SECONDS, STAYED_SECONDS
from guts.peers.rates import MAX_WAIT
from guts.wire.messages import (
    Error,
    ErrorCode,
    GetReceipt,
    GetRefs,
    Message,
    NewCommit,
    Ping,
    Pong,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from guts.wire.secure import Direction
from tests.support.peers import IDS, hello_of
from tests.unit.service.bench import AUTHOR, RECORD, Bench, R, S, known

SERVICE: Final = Path(__file__).parents[3] / "guts" / "service"
MESSAGES: Final = {kind.__name__ for kind in get_args(Message)} | {"Message", "AnyNews"}
C1 = ConnectionId(1)


def greeted(peers: int = 1) -> Bench:
    bench = Bench({R: known(1)})
    for number in range(1, peers + 1):
        bench.call(number, number)
    return bench


def withheld(effects: list[Effect]) -> list[Withhold]:
    return [effect for effect in effects if isinstance(effect, Withhold)]


def flood(bench: Bench, message: Message, times: int, size: int = 0) -> list[Withhold]:
    found: list[Withhold] = []
    for _ in range(times):
        found += withheld(bench.handle(MessageReceived(C1, message, size)))
    return found


# --- rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "burst"),
    [
        (Subscribe((R,)), "gossip_burst"),
        (envelope(NewCommit(S, AUTHOR, 1, b"h" * 32)), "gossip_burst"),
        (GetReceipt(1, S, AUTHOR, 1), "refs_burst"),
        (Error(9, ErrorCode.BUSY), "answers_burst"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_peer_above_its_rate_waits_and_is_not_blamed(message: Message, burst: str) -> None:
    bench = greeted(2)
    assert flood(bench, message, int(DEFAULTS[burst])) == []
    [wait] = flood(bench, message, 1)
    assert wait.connection == C1
    assert 0 < wait.seconds <= 1
    assert not wait.pause
    peers = bench.service.peers
    assert peers.scores.value(peers.connections[C1].peer, bench.time) == 0
    # What it said was heard all the same; and another peer is not concerned.
    assert withheld(bench.handle(MessageReceived(ConnectionId(2), message))) == []


def test_message_above_the_rate_is_answered_before_the_peer_waits() -> None:
    bench = greeted()
    asked = GetRefs(1, (RefsQuery(R, 0, b"", ()),))
    for _ in range(100):
        bench.say(1, asked)
    bench.service.admission._loads.clear()
    effects = bench.say(1, asked)
    assert effects[0] == LoadRefs(C1, 1, asked.queries, b"")
    assert isinstance(effects[1], Withhold)


def test_too_many_pings_pause_the_connection_for_they_travel_outside_credit() -> None:
    bench = greeted()
    # The hello was one of them.
    assert flood(bench, Ping(1), 59) == []
    assert bench.say(1, Ping(1)) == [Send(C1, Pong(1)), Withhold(C1, 0.5, True)]


def test_unknown_messages_count() -> None:
    bench = greeted()
    found: list[Withhold] = []
    for _ in range(60):
        assert found == []
        found += withheld(bench.handle(UnknownMessageReceived(C1, 99)))
    assert found == [Withhold(C1, 0.5)]


def test_bytes_of_messages_and_of_the_streams_that_come_with_them_count() -> None:
    bench = greeted()
    burst = int(DEFAULTS["bytes_burst"])
    assert flood(bench, Pong(1), 1, burst) == []
    [wait] = flood(bench, Pong(1), 1, 8 << 20)
    assert wait.seconds == pytest.approx(1.0)


def test_b2_one_excess_mutes_nobody_longer_than_ten_seconds_and_what_is_owed_stays_owed() -> None:
    bench = greeted()
    rate, burst = int(DEFAULTS["bytes_rate"]), int(DEFAULTS["bytes_burst"])
    bench.service.limits.values.update(total_bytes_rate=1 << 40)
    assert MAX_WAIT == 10.0
    # It is heard again after ten seconds, and then waits for the rest.
    waits: list[float] = []
    for size in (burst + 25 * rate, 1, 1):
        [wait] = flood(bench, Subscribe((R,)), 1, size)
        waits.append(wait.seconds)
        bench.time += wait.seconds
    assert waits == pytest.approx([10.0, 10.0, 5.0], abs=0.01)
    bench.time += 0.01
    assert flood(bench, Subscribe((R,)), 1, 1) == []
    peers = bench.service.peers
    assert peers.scores.value(peers.connections[C1].peer, bench.time) == 0


def test_reconnecting_does_not_fill_the_buckets() -> None:
    bench = greeted()
    flood(bench, Subscribe((R,)), 1024)
    bench.end(1)
    bench.call(2, 1)
    assert withheld(bench.handle(MessageReceived(ConnectionId(2), Subscribe((R,))))) != []


def test_who_makes_this_node_check_too_many_signatures_waits() -> None:
    bench = greeted()
    questions = [effect.message for effect in bench.say(1, Subscribe((R,))) if isinstance(effect, Send)]
    [question] = [message for message in questions if isinstance(message, GetRefs)]
    bench.service.rates.spend_checks(bench.service.peers.connections[C1].peer, 3999, bench.time)  # and one in the hello
    answer = RefsAnswer(R, RefsStatus.HELD, (), (b"h",) * 499, (RECORD,))
    effects = bench.say(1, Refs(question.request, (answer,)))
    assert [type(effect) for effect in effects] == [Fetch, Withhold]
    assert withheld(effects) == [Withhold(C1, 0.5)]


def test_what_ends_a_connection_is_not_also_withheld() -> None:
    bench = Bench()
    effects = bench.call(1, 1)
    assert not any(isinstance(effect, Disconnect) for effect in effects)
    refused = bench.say(1, Refs(7, ()))
    assert withheld(refused) == []


# --- neighbours of the banned -----------------------------------------------------------------------------------


def meet(bench: Bench, connection: int, peer: int, ip: str) -> None:
    """Let ``peer`` dial from ``ip``, and say hello."""
    where = Address(ip, 40_000)
    bench.handle(Connected(ConnectionId(connection), Direction.INBOUND, IDS[peer], where, None))
    bench.say(connection, hello_of(peer))


@pytest.mark.parametrize(("home", "next_door"), [("8.8.4.7", "8.8.4.9"), ("2600:1::7", "2600:1:0:9::7")])
def test_s6_known_blameless_key_that_comes_back_to_a_punished_address_pays_as_before(home: str, next_door: str) -> None:
    bench = Bench({R: known(1)})
    peers = bench.service.peers

    def cost(peer: int, ip: str = home) -> float:
        return peers.penalty(IDS[peer], ip, bench.time)

    for number in (1, 2, 3):
        meet(bench, number, number, home)
    bench.time = STAYED_SECONDS - 1.0
    bench.end(2)
    bench.time = STAYED_SECONDS
    bench.end(1)
    assert bench.say(3, hello_of(3)) != [], "a fatal fault"
    assert peers.scores.banned(IDS[3], bench.time)
    bench.time += 1.0
    assert [cost(number) for number in (1, 2, 4)] == [1.0, PENALTY, PENALTY]
    for number in (1, 2, 4):
        meet(bench, 10 + number, number, home)
    assert [cost(number) for number in (1, 2, 4)] == [1.0, PENALTY, PENALTY]
    assert cost(1, next_door) == PENALTY, "it is not known there"
    # Who came after the ban, and stays, pays until the hour is over; so does whoever is to blame.
    bench.time += STAYED_SECONDS
    bench.end(14)
    assert cost(4) == PENALTY
    bench.say(11, Refs(99, ()))
    assert cost(1) == PENALTY
    bench.time += PENALTY_SECONDS
    assert [cost(number) for number in (1, 4)] == [1.0, 1.0]


# --- requests under way -----------------------------------------------------------------------------------------


def test_sixteen_requests_of_a_peer_are_under_way_and_one_more_is_told_busy_without_blame() -> None:
    bench = greeted(2)
    most = int(DEFAULTS["requests_per_peer"])
    asked = [GetRefs(number, (RefsQuery(R, 0, b"", ()),)) for number in range(1, most + 2)]
    assert most == 16
    for question in asked[:most]:
        assert isinstance(bench.say(1, question)[0], LoadRefs)
    assert bench.say(1, asked[most]) == [Send(C1, Error(most + 1, ErrorCode.BUSY, "too many requests under way", 5))]
    # However many more: it can't know how many are still under way here.
    for _ in range(3 * most):
        [busy] = bench.say(1, asked[most])
        assert isinstance(busy, Send)
    assert isinstance(bench.say(2, asked[0])[0], LoadRefs)
    assert bench.service.limits.meters["requests_per_peer"].bit == 1 + 3 * most
    assert bench.service.admission.used(bench.time)["requests_per_peer"] == most


# --- what has not passed does not get there ----------------------------------------------------------------------


def _annotations(path: Path) -> list[tuple[str, str, ast.expr]]:
    return _annotations_of(path.read_text())


def _annotations_of(source: str) -> list[tuple[str, str, ast.expr]]:
    return [
        (function.name, argument.arg, argument.annotation)
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in [*function.args.args, *function.args.kwonlyargs]
        if argument.annotation is not None
    ]


def _bare(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript):
        inside = [annotation.slice]
        return not (isinstance(annotation.value, ast.Name) and annotation.value.id == "Admitted") and any(
            map(_bare, inside)
        )
    if isinstance(annotation, ast.Name):
        return annotation.id in MESSAGES
    return any(_bare(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr))


def test_handlers_take_nothing_that_was_not_admitted() -> None:
    bare = [
        (path.name, function, argument)
        for path in SERVICE.glob("*.py")
        # The queue holds what a handler gave it, and what is private is called by one.
        if path.name not in ("admission.py", "serve_queue.py")
        for function, argument, annotation in _annotations(path)
        if _bare(annotation) and not function.startswith("_")
    ]
    assert bare == []
    taken = [
        path.name for path in SERVICE.glob("*.py") for _, _, annotation in _annotations(path) if not _bare(annotation)
    ]
    assert {"serving.py", "news.py", "repositories.py"} <= set(taken)
    [(_, _, bare_one)] = _annotations_of("def f(x: list[GetRefs] | None): ...")
    assert _bare(bare_one)


def test_nobody_else_admits() -> None:
    makers = [
        path.relative_to(SERVICE.parent).as_posix()
        for path in SERVICE.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Admitted"
    ]
    assert set(makers) == {"service/admission.py"}


def test_only_records_that_were_verified_are_records() -> None:
    """``PeerRecord`` and its like are made by signing or by checking a signature, which is in their module."""
    kinds = {"PeerRecord", "ProviderRecord", "CommitReceipt"}
    makers = {
        path.relative_to(SERVICE.parent).as_posix()
        for path in SERVICE.parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds
    }
    assert makers == {"records.py"}


def test_another_message_does_not_pass_under_the_admission_of_one() -> None:
    bench = greeted()
    connection = bench.service.peers.connections[C1]
    admitted, _ = bench.service.admission.admit(connection, MessageReceived(C1, Ping(1)), 0.0)
    with pytest.raises(AssertionError):
        admitted.of(Ping(1))
