"""The table of outcomes in docs/protocol.md §4, played cell by cell against a real service and the real codec.

A message type without a row, a cell that says something else than what happens, and a cell that nobody plays all fail.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

import msgpack
import pytest

from guts import canonical
from guts.effects import (
    Disconnect,
    Effect,
    Fetch,
    GiveReceipt,
    LoadRefs,
    Persist,
    ResetStream,
    ScoreChanged,
    Send,
    Serve,
    ServeGit,
    Withhold,
)
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId, UnknownMessageReceived, Woke
from guts.gossip.envelope import envelope
from guts.limits import DEFAULTS
from guts.records import CommitReceipt
from guts.service.serving import ALL_SLICES
from guts.sync.receipts import MAX_UNASKED
from guts.wire import codec, limits
from guts.wire.connection import MessageReceived
from guts.wire.messages import (
    UPLOAD_PACK,
    Error,
    ErrorCode,
    GetObjects,
    GetPeers,
    GetReceipt,
    GetRefs,
    GitService,
    Goodbye,
    GoodbyeCode,
    Graft,
    Message,
    NewCommit,
    NewProof,
    NewRepository,
    Objects,
    ObjectsStatus,
    Peers,
    Ping,
    Pong,
    Prune,
    Receipt,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from tests.support.messages import EXAMPLES
from tests.support.peers import KEYS, WALL, ack_of, hello_of, inbound, outbound, record_of
from tests.unit.service.bench import AUTHOR, Bench, R, S, known

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "protocol.md"
UNKNOWN: Final = "a later type"
TYPES: Final = [*(kind.__name__ for kind in get_args(Message)), UNKNOWN]
CONTROL: Final = {"Ping", "Pong", "Goodbye"}
HELLOS: Final = {"Hello", "HelloAck"}
C1: Final = ConnectionId(1)
LATER: Final = 99
COLUMNS: Final = (
    "wrong state",
    "wrong side",
    "wrong frame",
    "unknown id",
    "field above its limit",
    "not canonical",
    "one too many",
    "valid, of no use",
)


def rows() -> dict[str, dict[str, str]]:
    """Return the cells of the table, by message and column."""
    text = DOCUMENT.read_text()
    head = re.search(r"^\| message \| wrong state .*\|$", text, re.MULTILINE)
    assert head is not None, "docs/protocol.md has no table of outcomes"
    columns = [cell.strip() for cell in head[0].strip("|").split("|")][1:]
    assert tuple(columns) == COLUMNS
    found: dict[str, dict[str, str]] = {}
    for line in text[head.end() :].strip().splitlines()[1:]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[name] = dict(zip(columns, cells, strict=True))
    return found


# --- what happens ---------------------------------------------------------------------------------------------


def _word(name: str) -> str:
    return name.lower().replace("_", " ")


def _of(effect: Effect) -> str | None:
    match effect:
        case Persist(change=ScoreChanged(change=change, reason=reason)):
            return f"{_word(Severity(int(change)).name)} {reason}"
        case Send(message=Error(code=code)):
            return f"Error({_word(code.name)})"
        case Send(message=Objects(status=status)):
            return f"Objects({_word(status.name)})"
        case Send(message=Pong()):
            return "Pong"
        case LoadRefs() | Serve() | ServeGit() | GiveReceipt() | Send(message=Peers()):
            return "answered"
        case ResetStream(code=code):
            return f"RESET({_word(code.name)})"
        case Fetch():
            return "fetched"
        case Disconnect(goodbye=None):
            return "ends"
        case Disconnect(goodbye=Goodbye(code=code)):
            return f"Goodbye({_word(code.name)})"
        case Withhold():
            return "waits"
        case _:
            return None


def outcome(effects: list[Effect]) -> str:
    """Return what came of a message, as the table says it."""
    said = [word for effect in effects if (word := _of(effect)) is not None]
    blamed = [word for word in said if word.split()[0] in {"fatal", "serious", "minor"}]
    return ", ".join(dict.fromkeys(blamed or said)) or "ignored"


def refused(data: bytes, *, control: bool) -> str:
    """Return what the codec makes of ``data``."""
    try:
        message = MessageReceived(data, 0, control).decode()
    except PeerFault as fault:
        return f"{_word(fault.severity.name)} {fault.code}"
    return f"a {type(message).__name__}"


# --- how it is played -----------------------------------------------------------------------------------------


def greeted(connection: int = 1, peer: int = 1) -> Bench:
    """Return a service that holds R, and to which a peer is connected."""
    bench = Bench({R: known(1)})
    bench.call(connection, peer)
    return bench


def example(name: str) -> Message:
    return next(message for key, message in EXAMPLES.items() if key.partition(",")[0] == name)


def heard(bench: Bench, name: str) -> list[Effect]:
    if name == UNKNOWN:
        return bench.handle(UnknownMessageReceived(C1, LATER))
    return bench.say(1, example(name))


def data_of(name: str) -> bytes:
    return canonical.encode([LATER, b"field"]) if name == UNKNOWN else codec.encode(example(name))


def wrong_state(name: str) -> str:
    if name in HELLOS:
        return outcome(greeted().say(1, hello_of(1) if name == "Hello" else ack_of(1)))
    bench = Bench({R: known(1)})
    bench.handle(inbound(1, 1))
    return outcome(heard(bench, name))


def wrong_frame(name: str) -> str:
    return refused(data_of(name), control=name not in CONTROL)


ABOVE: Final[dict[str, tuple[int, object]]] = {
    "Hello": (4, ["c"] * (limits.MAX_CAPABILITIES + 1)),
    "HelloAck": (2, "s" * (limits.MAX_SOFTWARE_BYTES + 1)),
    "Ping": (1, -1),
    "Pong": (1, -1),
    "GetRefs": (2, [[1, bytes(32), bytes(32), 1]] * (limits.MAX_QUERIES + 1)),
    "Refs": (3, bytes(limits.MAX_CURSOR_BYTES + 1)),
    "GetObjects": (6, limits.MAX_OBJECT_IDS + 1),
    "Objects": (3, limits.MAX_RETRY_AFTER_S + 1),
    "GitService": (4, limits.MAX_GIT_SERVICE + 1),
    "GetReceipt": (4, limits.MAX_SEQ + 1),
    "Receipt": (2, bytes(limits.MAX_RECEIPT_BYTES + 1)),
    "NewCommit": (5, [b"h", bytes(limits.MAX_NEW_COMMIT_BYTES)]),
    "NewRepository": (4, bytes(limits.MAX_PEER_RECORD_BYTES + 1)),
    "NewProof": (4, bytes(limits.MAX_PROOF_BYTES + 1)),
    "Gossip": (2, bytes(limits.MAX_GOSSIP_BYTES + 1)),
    "Subscribe": (1, [bytes(32)] * limits.MAX_SUBSCRIPTIONS),
    "GetPeers": (1, limits.MAX_UINT32 + 1),
    "Peers": (2, [b"r"] * (limits.MAX_PEER_RECORDS + 1)),
    "Prune": (1, bytes(33)),
    "Graft": (1, bytes(33)),
    "Goodbye": (2, "t" * (limits.MAX_TEXT_BYTES + 1)),
    "Error": (3, "t" * (limits.MAX_TEXT_BYTES + 1)),
    UNKNOWN: (1, bytes(limits.MAX_MESSAGE_BYTES)),
}
"""A field of each, and a value one above what it may be; with the one that it removes, the Subscribe has 1,025."""


def above(name: str) -> str:
    fields = msgpack.unpackb(data_of(name), raw=False)
    index, value = ABOVE[name]
    fields[index] = value
    return refused(msgpack.packb(fields, use_bin_type=True), control=name in CONTROL)


def not_canonical(name: str) -> str:
    return refused(data_of(name) + b"\xc0", control=name in CONTROL)


def answers(bench: Bench, *answer: RefsAnswer) -> str:
    """Return what comes of an answer to the question that the service asks."""
    questions = [effect.message for effect in bench.say(1, Subscribe((R,))) if isinstance(effect, Send)]
    [question] = [message for message in questions if isinstance(message, GetRefs)]
    return outcome(bench.say(1, Refs(question.request, answer)))


def until(bench: Bench, make: Callable[[int], Message], refusal: str) -> str:
    """Return what the first message is told that is one too many, where one comes after the other."""
    for number in range(1, 1000):
        found = outcome(bench.say(1, make(number)))
        if refusal in found:
            return found
    raise AssertionError(f"nobody is told {refusal}")


def rate(kind: str, make: Callable[[int], Message]) -> str:
    """Return what comes of the first message above the burst of a class, which is not sooner and not later."""
    bench = greeted()
    burst = int(DEFAULTS[f"{kind}_burst"]) - (kind == "control")
    before = [outcome(bench.say(1, make(number))) for number in range(burst)]
    assert not any("waits" in said for said in before)
    return outcome(bench.say(1, make(burst)))


def refs_of(repository: object = R) -> Callable[[int], Message]:
    return lambda number: GetRefs(number + 1, (RefsQuery(S if repository is S else R, 0, b"", ()),))


def objects_of(repository: object = R, slices: bytes = ALL_SLICES) -> Callable[[int], Message]:
    return lambda number: GetObjects(number + 1, S if repository is S else R, 2 * number + 1, slices, "", 1, 0)


def git_of(repository: object = R, service: int = UPLOAD_PACK) -> Callable[[int], Message]:
    return lambda number: GitService(number + 1, S if repository is S else R, 2 * number + 1, service)


def receipt_asked(repository: object = R, seq: int = 99) -> Callable[[int], Message]:
    return lambda number: GetReceipt(number + 1, S if repository is S else R, AUTHOR, seq)


def commit(repository: object = R, seq: int = 0) -> NewCommit:
    return NewCommit(S if repository is S else R, AUTHOR, seq, b"h" * 32)


def full() -> str:
    bench = Bench({R: known(1)}, max_connections=2)
    bench.call(1, 1)
    return outcome(bench.handle(inbound(2, 2)))


def unasked_receipt(seq: int = 5, times: int = 1) -> str:
    bench = greeted()
    for _ in range(times - 1):
        bench.say(1, Receipt(0, receipt_of(1, seq)))
    return outcome(bench.say(1, Receipt(0, receipt_of(1, seq))))


def receipt_of(number: int, seq: int) -> bytes:
    return CommitReceipt.sign(KEYS[number], R, AUTHOR, seq, b"h" * 32, WALL).encoded


def first(message: Message) -> str:
    """Return what comes of the first message of a peer that has dialled."""
    bench = Bench({R: known(1)})
    bench.handle(inbound(1, 1))
    return outcome(bench.say(1, message))


def dialled(bench: Bench, message: Message) -> str:
    bench.handle(outbound(1, 1))
    return outcome(bench.say(1, message))


def twice(message: Message) -> str:
    bench = greeted()
    bench.say(1, message)
    return outcome(bench.say(1, message))


def many_unknown() -> str:
    bench = greeted()
    said = [outcome(heard(bench, UNKNOWN)) for _ in range(int(DEFAULTS["control_burst"]))]
    assert set(said[:-1]) == {"Error(unsupported)"}
    return said[-1]


def answered_twice() -> str:
    bench = greeted()
    [question] = [
        effect.message
        for effect in bench.say(1, Subscribe((R,)))
        if isinstance(effect, Send) and isinstance(effect.message, GetRefs)
    ]
    bench.say(1, Refs(question.request, ()))
    return outcome(bench.say(1, Refs(question.request, ())))


def exchanged(times: int) -> str:
    """Return what comes of so many answers to one GetPeers."""
    bench = greeted()
    asked: list[GetPeers] = []
    while not asked:
        bench.time += 1.0
        sent = [effect.message for effect in bench.handle(Woke()) if isinstance(effect, Send)]
        asked = [message for message in sent if isinstance(message, GetPeers)]
    for _ in range(times - 1):
        bench.say(1, Peers(asked[0].request, ()))
    return outcome(bench.say(1, Peers(asked[0].request, ())))


PLAYS: Final[dict[tuple[str, str], Callable[[], str]]] = {
    ("Hello", "wrong side"): lambda: dialled(Bench(), hello_of(1)),
    ("HelloAck", "wrong side"): lambda: first(ack_of(1)),
    ("Hello", "unknown id"): lambda: first(hello_of(1, record=record_of(2))),
    ("HelloAck", "unknown id"): lambda: dialled(Bench(), ack_of(1, record=record_of(2))),
    ("Pong", "unknown id"): lambda: outcome(greeted().say(1, Pong(12345))),
    ("GetRefs", "unknown id"): lambda: outcome(greeted().say(1, refs_of(S)(1))),
    ("Refs", "unknown id"): lambda: outcome(greeted().say(1, Refs(7, ()))),
    ("GetObjects", "unknown id"): lambda: outcome(greeted().say(1, objects_of(S)(1))),
    ("Objects", "unknown id"): lambda: outcome(greeted().say(1, Objects(7, ObjectsStatus.BUSY, 5))),
    ("GitService", "unknown id"): lambda: outcome(greeted().say(1, git_of(S)(1))),
    ("GetReceipt", "unknown id"): lambda: outcome(greeted().say(1, receipt_asked(S)(1))),
    ("Receipt", "unknown id"): lambda: outcome(greeted().say(1, Receipt(7, receipt_of(1, 1)))),
    ("NewCommit", "unknown id"): lambda: outcome(greeted().say(1, commit(S, 5))),
    ("NewRepository", "unknown id"): lambda: outcome(greeted().say(1, NewRepository(S, 1, b"h" * 32, record_of(1)))),
    ("NewProof", "unknown id"): lambda: outcome(greeted().say(1, NewProof(S, AUTHOR, 1, b"p"))),
    ("Gossip", "unknown id"): lambda: outcome(greeted().say(1, envelope(commit(S, 5)))),
    ("Subscribe", "unknown id"): lambda: outcome(greeted().say(1, Subscribe((S,)))),
    ("Peers", "unknown id"): lambda: outcome(greeted().say(1, Peers(7, ()))),
    ("Prune", "unknown id"): lambda: outcome(greeted().say(1, Prune(S, AUTHOR))),
    ("Graft", "unknown id"): lambda: outcome(greeted().say(1, Graft(S, AUTHOR))),
    ("Error", "unknown id"): lambda: outcome(greeted().say(1, Error(7, ErrorCode.BUSY))),
    ("Hello", "one too many"): full,
    ("HelloAck", "one too many"): lambda: wrong_state("HelloAck"),
    ("Ping", "one too many"): lambda: rate("control", Ping),
    ("Pong", "one too many"): lambda: rate("control", Pong),
    ("GetRefs", "one too many"): lambda: until(greeted(), refs_of(), "busy"),
    ("Refs", "one too many"): answered_twice,
    ("GetObjects", "one too many"): lambda: until(greeted(), objects_of(), "busy"),
    ("Objects", "one too many"): lambda: rate("answers", lambda number: Objects(number + 1, ObjectsStatus.BUSY, 5)),
    ("GitService", "one too many"): lambda: until(greeted(), git_of(), "busy"),
    ("GetReceipt", "one too many"): lambda: until(greeted(), receipt_asked(), "limit"),
    ("Receipt", "one too many"): lambda: unasked_receipt(1, MAX_UNASKED + 1),
    ("NewCommit", "one too many"): lambda: rate("gossip", lambda number: commit(S, number)),
    ("NewRepository", "one too many"): lambda: rate("gossip", lambda number: NewRepository(S, number, b"h" * 32, b"r")),
    ("NewProof", "one too many"): lambda: rate("gossip", lambda number: NewProof(S, AUTHOR, number, b"p")),
    ("Gossip", "one too many"): lambda: rate("gossip", lambda number: envelope(commit(S, number))),
    ("Subscribe", "one too many"): lambda: rate("gossip", lambda number: Subscribe((S,))),
    ("GetPeers", "one too many"): lambda: twice(GetPeers(1)),
    ("Peers", "one too many"): lambda: exchanged(2),
    ("Prune", "one too many"): lambda: rate("gossip", lambda number: Prune(S, AUTHOR)),
    ("Graft", "one too many"): lambda: rate("gossip", lambda number: Graft(S, AUTHOR)),
    ("Goodbye", "one too many"): lambda: twice(Goodbye(GoodbyeCode.IDLE)),
    ("Error", "one too many"): lambda: rate("answers", lambda number: Error(number, ErrorCode.BUSY)),
    (UNKNOWN, "one too many"): many_unknown,
    ("Hello", "valid, of no use"): lambda: first(hello_of(1, versions=(2, 3))),
    ("HelloAck", "valid, of no use"): lambda: dialled(Bench(), ack_of(1, version=2)),
    ("Ping", "valid, of no use"): lambda: outcome(greeted().say(1, Ping(1))),
    ("Pong", "valid, of no use"): lambda: outcome(greeted().say(1, Pong(1))),
    ("GetRefs", "valid, of no use"): lambda: outcome(greeted().say(1, GetRefs(1, ()))),
    ("Refs", "valid, of no use"): lambda: answers(greeted(), RefsAnswer(R, RefsStatus.HELD)),
    ("GetObjects", "valid, of no use"): lambda: outcome(greeted().say(1, objects_of(R, b"\x01" * 8)(1))),
    ("Objects", "valid, of no use"): lambda: outcome(greeted().say(1, Objects(1, ObjectsStatus.PACK_FOLLOWS, 0))),
    ("GitService", "valid, of no use"): lambda: outcome(greeted().say(1, git_of(R, 2)(1))),
    ("GetReceipt", "valid, of no use"): lambda: outcome(greeted().say(1, receipt_asked(R, 1)(1))),
    ("Receipt", "valid, of no use"): unasked_receipt,
    ("NewCommit", "valid, of no use"): lambda: outcome(greeted().say(1, commit(R, 0))),
    ("NewRepository", "valid, of no use"): lambda: outcome(
        greeted().say(1, NewRepository(R, 0, b"h" * 32, record_of(1)))
    ),
    ("NewProof", "valid, of no use"): lambda: twice(NewProof(R, AUTHOR, 1, b"p")),
    ("Gossip", "valid, of no use"): lambda: twice(envelope(commit(S, 5))),
    ("Subscribe", "valid, of no use"): lambda: outcome(greeted().say(1, Subscribe(()))),
    ("GetPeers", "valid, of no use"): lambda: outcome(greeted().say(1, GetPeers(1))),
    ("Peers", "valid, of no use"): lambda: exchanged(1),
    ("Prune", "valid, of no use"): lambda: twice(Prune(R, AUTHOR)),
    ("Graft", "valid, of no use"): lambda: twice(Graft(R, AUTHOR)),
    ("Goodbye", "valid, of no use"): lambda: outcome(greeted().say(1, Goodbye(GoodbyeCode.SHUTTING_DOWN))),
    ("Error", "valid, of no use"): lambda: outcome(greeted().say(1, Error(0, ErrorCode.NOT_FOUND))),
    (UNKNOWN, "valid, of no use"): lambda: outcome(heard(greeted(), UNKNOWN)),
}
"""The cells that are played by hand; the others are the same for all."""

GENERIC: Final[dict[str, Callable[[str], str]]] = {
    "wrong state": wrong_state,
    "wrong frame": wrong_frame,
    "field above its limit": above,
    "not canonical": not_canonical,
}


# --- the table --------------------------------------------------------------------------------------------------


def test_every_message_has_a_row_and_every_row_a_message() -> None:
    assert list(rows()) == TYPES, "docs/protocol.md §4, Outcomes: a row for each message type, in the order of Message"
    assert set(ABOVE) == set(TYPES)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", TYPES)
def test_outcome_is_what_the_table_says(name: str, column: str) -> None:
    play = PLAYS.get((name, column))
    if play is not None:
        happened = play()
    elif column in GENERIC:
        happened = GENERIC[column](name)
    else:
        happened = "–"
    assert rows()[name][column] == happened
