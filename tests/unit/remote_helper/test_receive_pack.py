"""The server's side of ``git push``, byte by byte; tests/e2e and tests/interop have the real git."""

import io
import os
from collections.abc import Callable

import pytest

from guts.errors import ExitStatus, UsageError
from guts.git.pkt_line import BadPacket, Mark, Packet, encode, read_packet
from guts.remote_helper.receive_pack import (
    MAX_COMMANDS,
    MAX_OPTIONS,
    NO_OBJECT,
    BadPush,
    Command,
    Outcome,
    ReceivePack,
    Reporter,
    Request,
)

ONE, TWO = "1" * 40, "2" * 40
MAIN, DEV = "refs/heads/main", "refs/heads/dev"
ALL = "report-status-v2 side-band-64k object-format=sha1 agent=git/2.39.5"
FLUSH = Mark.FLUSH.value


def asked(*commands: str, capabilities: str = ALL, options: tuple[str, ...] | None = None, pack: bytes = b"") -> bytes:
    lines = [
        encode(f"{text}{f'{chr(0)} {capabilities}' if not number else ''}".encode())
        for number, text in enumerate(commands)
    ]
    said = b"".join(lines) + FLUSH
    if options is not None:
        said += b"".join(encode(option.encode()) for option in options) + FLUSH
    return said + pack


class Seen:
    """Notes what is asked for, and does what it is told to."""

    def __init__(self, act: Callable[[Request, Reporter], Outcome] = lambda _request, _reporter: Outcome()) -> None:
        self.request: Request | None = None
        self.pack = b""
        self.act = act

    def __call__(self, request: Request, reporter: Reporter) -> Outcome:
        self.request = request
        outcome = self.act(request, reporter)
        self.pack = b"".join(request.pack)
        return outcome


def packets(data: bytes) -> list[Packet]:
    stream = io.BytesIO(data)
    found = []
    while (packet := read_packet(stream.read)) is not None:
        found.append(packet)
    return found


def conversation(
    data: bytes, push: Seen, refs: dict[str, str] | None = None
) -> tuple[list[Packet], list[Packet], ExitStatus]:
    """Return the advertisement, what followed it, and the exit status."""
    answered = io.BytesIO()
    status = ReceivePack(refs or {}, io.BytesIO(data), answered).serve(push)
    said = packets(answered.getvalue())
    end = said.index(Mark.FLUSH) + 1
    return said[:end], said[end:], status


def told(said: list[Packet]) -> tuple[list[str], list[str]]:
    """Return lines of the progress band, and of the report."""
    progress = b"".join(p[1:] for p in said if isinstance(p, bytes) and p[:1] == b"\x02")
    report = packets(b"".join(p[1:] for p in said if isinstance(p, bytes) and p[:1] == b"\x01"))
    assert report[-1] is Mark.FLUSH
    assert said[-1] is Mark.FLUSH
    return progress.decode().splitlines(), [line.decode().rstrip("\n") for line in report if isinstance(line, bytes)]


def test_refs_are_advertised_in_order_with_capabilities_behind_the_first() -> None:
    advertised, rest, status = conversation(FLUSH, Seen(), {MAIN: ONE, DEV: TWO})
    first, second, end = advertised
    assert isinstance(first, bytes)
    name, _, capabilities = first.partition(b"\0")
    assert name == f"{TWO} {DEV}".encode()
    words = capabilities.decode().split()
    assert {"report-status", "report-status-v2", "delete-refs", "side-band-64k", "atomic", "push-options"} <= set(words)
    assert any(word.startswith("agent=guts/") for word in words)
    assert (second, end) == (f"{ONE} {MAIN}\n".encode(), Mark.FLUSH)
    assert (rest, status) == ([], ExitStatus.OK), "git had nothing to push"


def test_empty_repository_advertises_its_capabilities_all_the_same() -> None:
    (line, _), _, _ = conversation(FLUSH, Seen())
    assert isinstance(line, bytes)
    assert line.startswith(f"{NO_OBJECT} capabilities^{{}}\0".encode())


def test_push_is_handed_on_with_its_pack_and_answered() -> None:
    push = Seen()
    data = asked(f"{ONE} {TWO} {MAIN}", f"{NO_OBJECT} {TWO} {DEV}", pack=b"PACK and more")
    _, said, status = conversation(data, push)
    assert push.request is not None
    assert push.request.commands == [Command(MAIN, ONE, TWO), Command(DEV, None, TWO)]
    assert (push.request.atomic, push.request.options) == (False, [])
    assert push.pack == b"PACK and more"
    assert told(said) == ([], ["unpack ok", f"ok {MAIN}", f"ok {DEV}"])
    assert status is ExitStatus.OK


def test_push_that_only_deletes_has_no_pack() -> None:
    push = Seen()
    conversation(asked(f"{ONE} {NO_OBJECT} {MAIN}", pack=b"no pack"), push)
    assert push.request is not None
    assert push.request.commands == [Command(MAIN, ONE, None)]
    assert push.pack == b""


def test_options_come_before_the_pack() -> None:
    push = Seen()
    data = asked(
        f"{ONE} {TWO} {MAIN}", capabilities=f"{ALL} push-options atomic quiet", options=("a=1", "b"), pack=b"PACK"
    )
    conversation(data, push)
    assert push.request is not None
    assert (push.request.options, push.request.atomic) == (["a=1", "b"], True)
    assert push.pack == b"PACK"


def test_shallow_lines_of_a_clone_that_was_cut_off_are_passed_over() -> None:
    push = Seen()
    data = encode(f"shallow {ONE}\n".encode()) + asked(f"{ONE} {TWO} {MAIN}")
    conversation(data, push)
    assert push.request is not None
    assert len(push.request.commands) == 1


class NoSay(UsageError):
    code = "NOT_A_MAINTAINER"


def test_git_that_has_gone_away_is_noticed() -> None:
    reading, writing = os.pipe()
    seen = []

    def look(request: Request, reporter: Reporter) -> Outcome:
        seen.append(request.gone())
        os.close(reading)
        seen.append(request.gone())
        return Outcome()

    with os.fdopen(writing, "wb", 0) as git_out, pytest.raises(BrokenPipeError):
        ReceivePack({}, io.BytesIO(asked(f"{ONE} {NO_OBJECT} {MAIN}")), git_out).serve(look)
    assert seen == [False, True]


def refusing(request: Request, reporter: Reporter) -> Outcome:
    raise NoSay("you have no say", hint="ask somebody who has")


def test_error_refuses_every_ref_and_says_what_helps_after_all_was_read() -> None:
    git_in = io.BytesIO(asked(f"{ONE} {TWO} {MAIN}", f"{ONE} {TWO} {DEV}", pack=bytes(300_000)))
    answered = io.BytesIO()
    status = ReceivePack({}, git_in, answered).serve(Seen(refusing))
    assert git_in.read() == b"", "git never sees a closed pipe"
    progress, report = told(packets(answered.getvalue())[2:])
    assert progress == ["error: you have no say", "hint: ask somebody who has"]
    assert report == ["unpack ok", f"ng {MAIN} not a maintainer", f"ng {DEV} not a maintainer"]
    assert status is ExitStatus.OK, "git makes its own of it"


def test_each_ref_is_answered_by_itself() -> None:
    push = Seen(lambda request, reporter: Outcome({DEV: "fetch first"}))
    _, said, _ = conversation(asked(f"{ONE} {TWO} {MAIN}", f"{ONE} {TWO} {DEV}"), push)
    assert told(said)[1] == ["unpack ok", f"ok {MAIN}", f"ng {DEV} fetch first"]


def test_lines_for_people_go_through_the_side_band_each_with_its_word() -> None:
    def speak(request: Request, reporter: Reporter) -> Outcome:
        reporter.success("done")
        reporter.warning("careful\nvery")
        reporter.failure("too few", hint="wait")
        return Outcome()

    data = asked(f"{ONE} {TWO} {MAIN}", capabilities=f"{ALL} quiet")
    progress, _ = told(conversation(data, Seen(speak))[1])
    assert progress == ["success: done", "warning: careful", "very", "error: too few", "hint: wait"]


def test_git_without_side_bands_gets_a_plain_report() -> None:
    _, said, _ = conversation(asked(f"{ONE} {TWO} {MAIN}", capabilities="report-status"), Seen())
    assert said == [b"unpack ok\n", f"ok {MAIN}\n".encode(), Mark.FLUSH]


def test_git_that_wants_no_report_gets_none() -> None:
    _, said, _ = conversation(asked(f"{ONE} {TWO} {MAIN}", capabilities=""), Seen())
    assert said == []


@pytest.mark.parametrize(
    "data",
    [
        asked("hello"),
        asked(f"{ONE} {TWO}"),
        asked(f"{ONE[1:]} {TWO} {MAIN}"),
        asked(f"{'g' * 40} {TWO} {MAIN}"),
        asked(f"{ONE} {TWO} {MAIN}", f"{TWO} {ONE} {MAIN}"),
        encode(f"{ONE} {TWO} {MAIN}".encode()) + Mark.DELIMITER.value,
        encode(f"{ONE} {TWO} {MAIN}".encode()),
        asked(f"{ONE} {TWO} {MAIN}", capabilities="push-options"),
        asked(f"{ONE} {TWO} {MAIN}", capabilities="push-options") + encode(b"a=1"),
    ],
)
def test_what_is_no_push_is_refused(data: bytes) -> None:
    with pytest.raises(BadPush):
        conversation(data, Seen())


def test_pkt_line_that_is_none() -> None:
    with pytest.raises(BadPacket):
        conversation(b"zzzz", Seen())


def test_git_that_goes_away_before_it_asked_pushes_nothing() -> None:
    push = Seen()
    _, said, status = conversation(b"", push)
    assert (push.request, said, status) == (None, [], ExitStatus.OK)


@pytest.mark.parametrize("over", [0, 1])
def test_commands_and_options_are_bounded(over: int) -> None:
    many = [f"{NO_OBJECT} {ONE} refs/heads/{number}" for number in range(MAX_COMMANDS + over)]
    options = tuple(f"o{number}" for number in range(MAX_OPTIONS + over))
    for data in (asked(*many), asked(f"{ONE} {TWO} {MAIN}", capabilities=f"{ALL} push-options", options=options)):
        if over:
            with pytest.raises(BadPush):
                conversation(data, Seen())
        else:
            conversation(data, Seen())


def test_words_of_a_node_move_no_terminal_and_make_no_second_line() -> None:
    def push(request: Request, reporter: Reporter) -> Outcome:
        reporter.warning("no\x1b[2J" + "B" * 70_000)
        return Outcome({MAIN: "no\x1b]0;x\x07\nok " + MAIN + "A" * 70_000})

    data = asked(f"{NO_OBJECT} {'1' * 40} {MAIN}")
    out = io.BytesIO()
    ReceivePack({}, io.BytesIO(data), out).serve(push)
    said = out.getvalue()
    assert b"\x1b" not in said
    assert b"\nok " not in said.split(b"unpack ok\n")[1]
    assert len(said) < 5_000
