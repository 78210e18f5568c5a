"""Whom to let in, from the command line: what is asked of the node, and lists of bans as files."""

import json
import math
import time
from pathlib import Path

import pytest

from guts.addresses import parse_subject
from guts.cli import ban_list
from guts.cli.answer import Answer, answers
from guts.cli.ban_list import MAX_LINE_BYTES, MAX_REASON_BYTES, BadBanList, ListedBan
from guts.cli.bans import MAX_SPAN, BadSpan, span
from guts.errors import ExitStatus
from guts.events import WantedBan
from guts.ids import AuthorId
from tests.support.scripted_control import NODE, NOW_MS, ScriptedControl
from tests.unit.cli.conftest import Guts

HEADER = '{"guts_bans": 1}'
FOREVER = '{"ban": "192.0.2.0/24", "until_ms": null, "left_s": null, "reason": "spam"}'
NET = parse_subject("192.0.2.0/24")
ID = parse_subject(NODE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400.0),
        ("90m", 5_400.0),
        ("1s", 1.0),
        ("30d", 2_592_000.0),
        ("2w", 1_209_600.0),
        ("forever", None),
        (f"{MAX_SPAN}s", float(MAX_SPAN)),
    ],
)
def test_span_is_seconds(text: str, seconds: float | None) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("24", "a whole number with s, m, h, d or w, or forever"),
        ("1y", "a whole number with s, m, h, d or w, or forever"),
        ("0h", "0h is out of range: 1s to 36500d"),
        ("36501d", "36501d is out of range: 1s to 36500d"),
    ],
)
def test_reason_why_a_span_is_refused_is_the_true_one(text: str, says: str) -> None:
    with pytest.raises(BadSpan) as refused:
        span(text)
    assert says in str(refused.value)


def test_file_that_is_no_list_is_told_in_plain_words(guts: Guts, control: ScriptedControl, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x80\xff")
    for name, says in (("none", "No such file or directory"), ("binary", "is not a list of bans: it is not text")):
        error = guts("peer", "bans", "import", str(tmp_path / name), "--json").error
        assert says in str(error["message"])
        assert "Errno" not in str(error["message"])
        assert error["hint"] == "guts peer bans export FILE writes such a list"


@pytest.mark.parametrize(
    "text", ["", "24", "h", "0h", "-1h", "1.5h", "24 h", "1y", f"{MAX_SPAN + 1}s", "9999999999h", "٣h"]
)
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(BadSpan):
        span(text)


def test_node_or_network_is_banned_for_a_day_or_as_long_as_is_said(guts: Guts, control: ScriptedControl) -> None:
    assert guts("peer", "ban", NODE).out == f"banned {NODE} for 24h; 1 connection closed\n"
    guts("peer", "ban", "192.0.2.0/24", "--for", "forever", "--reason", "spam")
    assert control.calls == [
        ("ban", (WantedBan(ID, 86_400.0, ""),), False),
        ("ban", (WantedBan(NET, math.inf, "spam"),), False),
    ]


@pytest.mark.parametrize(
    ("who", "code"), [("example.org", "BAD_SUBJECT"), ("192.0.2.7/24", "BAD_SUBJECT"), ("node1abc", "BAD_ID")]
)
def test_nobody_is_asked_about_what_names_nobody(guts: Guts, control: ScriptedControl, who: str, code: str) -> None:
    for command in ("ban", "unban"):
        ran = guts("peer", command, who, "--json")
        assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, code)
    assert control.calls == []


@pytest.mark.parametrize(
    ("who", "hint"),
    [
        ("192.0.2.7/24", "did you mean 192.0.2.0/24?"),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        # What would be refused next is not what is meant.
        ("10.0.0.1/7", "a banned network has at least /8"),
        ("2001:db8::/15", "a banned network has at least /16"),
        (str(AuthorId(bytes(32))), "repositories and authors are blocked: guts block, guts unblock"),
    ],
)
def test_who_can_not_be_banned_like_this_gets_a_hint_that_helps(
    guts: Guts, control: ScriptedControl, who: str, hint: str
) -> None:
    for command in ("ban", "unban"):
        assert guts("peer", command, who, "--json").error["hint"] == hint


def test_unban_of_who_is_not_banned_is_fine(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("peer", "unban", "2001:db8::/32")
    assert (ran.status, ran.out) == (0, "2001:db8::/32 was not banned\n")
    assert control.calls == [("unban", parse_subject("2001:db8::/32"))]


def test_show_tells_every_change(guts: Guts, control: ScriptedControl) -> None:
    out = guts("peer", "show", NODE).out
    assert "25.0, halves every 10m 0s" in out
    assert "RUDE" in out
    assert "+25.0" in out
    shown = Answer.of(guts("peer", "show", NODE, "--json").json)
    assert [change.text("reason") for change in shown.objects("ledger")] == ["RUDE"]


def test_show_has_no_usefulness_where_nothing_was_asked(guts: Guts, control: ScriptedControl) -> None:
    out = guts("peer", "show", NODE).out
    assert "usefulness    -\n" in out
    assert "0 shut-outs, 0 bans of late" in out


def test_peers_are_sorted_by_score(guts: Guts, control: ScriptedControl) -> None:
    by_score, by_rtt = (answers(guts("peer", "ls", "--sort", key, "--json").json) for key in ("score", "rtt"))
    assert [row.seconds("score") for row in by_score] == [5.0, 0.0]
    assert [row.json.get("rtt_ms") for row in by_rtt] == [0.4, None]


def test_list_that_was_written_is_read_and_asked_for(guts: Guts, control: ScriptedControl, tmp_path: Path) -> None:
    assert guts("peer", "bans").err == "nobody is banned\n"
    until = time.time_ns() // 1_000_000 + 60_000
    control.banned = [
        {"subject": NODE, "kind": "banned", "left_s": 60.0, "until_ms": until, "reason": "faults"},
        {"subject": "192.0.2.9", "kind": "shut out", "left_s": 6.0, "until_ms": until, "reason": "faults"},
        {"subject": "192.0.2.0/24", "kind": "banned by the operator", "left_s": None, "until_ms": None, "reason": "ä"},
    ]
    assert [line.split()[0] for line in guts("peer", "bans").out.splitlines()] == [
        "WHO",
        NODE,
        "192.0.2.9",
        "192.0.2.0/24",
    ]
    file = tmp_path / "bans"
    assert guts("peer", "bans", "export", str(file)).err == f"2 bans written to {file}\n"
    assert guts("peer", "bans", "export", str(file), "--json").json == {"file": str(file), "bans": 2}
    for flags in ((), ("--json",)):
        assert guts("peer", "bans", "export", "-", *flags).out == file.read_text()
    assert guts("peer", "bans", "export", str(tmp_path), "--json").error["code"] == "BAN_LIST_UNWRITABLE"
    ran = guts("peer", "bans", "import", str(file))
    assert ran.out == "2 bans added or prolonged, 0 were there already\n"
    [(name, wanted, merge)] = control.calls
    assert (name, merge) == ("ban", True)
    assert isinstance(wanted, tuple)
    assert [(ban.subject, ban.reason) for ban in wanted] == [(ID, "faults"), (NET, "ä")]
    assert 0 < wanted[0].seconds <= 60.0
    assert wanted[1].seconds == math.inf


def test_bans_that_have_ended_are_not_asked_for(guts: Guts, control: ScriptedControl, tmp_path: Path) -> None:
    ended = json.dumps({"ban": "192.0.2.1", "until_ms": NOW_MS, "left_s": 5, "reason": ""})
    (tmp_path / "bans").write_text(f"{HEADER}\n{ended}\n")
    ran = guts("peer", "bans", "import", str(tmp_path / "bans"))
    assert ran.out == "0 bans added or prolonged, 0 were there already, 1 have ended\n"
    assert control.calls == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (FOREVER, "line 1: a list begins with"),
        ('{"guts_bans": 2}', "line 1: a list begins with"),
        (f"{HEADER}\n{FOREVER}\nwhat", "line 3: not JSON"),
        (f"{HEADER}\n\n[]", "line 3: not an object"),
        (f"{HEADER}\n" + "[" * 2000, "line 2: not JSON"),
        (f"{HEADER}\n" + FOREVER.replace("192.0.2.0/24", "0.0.0.0/0"), "line 2: 0.0.0.0/0 is too much of IPv4"),
        (f"{HEADER}\n" + FOREVER.replace("192.0.2.0/24", "example.org"), "line 2: 'example.org' names nobody"),
        (f"{HEADER}\n" + FOREVER.replace("192.0.2.0/24", "node1abc"), "line 2: "),
        (f"{HEADER}\n" + FOREVER.replace('"reason"', '"why"'), "line 2: a ban has the fields"),
        (f"{HEADER}\n" + FOREVER.replace("spam", "a\\nb"), "line 2: a reason is a line"),
        (f"{HEADER}\n" + FOREVER.replace("spam", "x" * (MAX_REASON_BYTES + 1)), "line 2: a reason is a line"),
        (f"{HEADER}\n" + FOREVER.replace("spam", "x" * MAX_LINE_BYTES), "line 2: a line has at most"),
        (f"{HEADER}\n" + FOREVER.replace('"until_ms": null', '"until_ms": 5'), "line 2: until_ms and left_s"),
        (f"{HEADER}\n" + FOREVER.replace("null", "true"), "line 2: until_ms and left_s"),
        (f"{HEADER}\n" + FOREVER.replace("null", "-1"), "line 2: until_ms and left_s"),
        (f"{HEADER}\n" + FOREVER.replace("null", "NaN"), "line 2: until_ms and left_s"),
    ],
)
def test_bad_line_is_told_by_its_number_and_nothing_is_imported(
    guts: Guts, control: ScriptedControl, tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "bans").write_text(content)
    ran = guts("peer", "bans", "import", str(tmp_path / "bans"), "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "BAD_BAN_LIST")
    assert says in str(ran.error["message"])
    assert control.calls == []


def test_file_that_is_not_there_or_not_text_is_no_list(guts: Guts, control: ScriptedControl, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        assert guts("peer", "bans", "import", str(tmp_path / name), "--json").error["code"] == "BAD_BAN_LIST"


def test_list_has_so_many_bans_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ban_list, "MAX_LINES", 3)
    assert len(ban_list.read([HEADER, *[FOREVER] * 3])) == 3
    with pytest.raises(BadBanList, match="line 5"):
        ban_list.read([HEADER, *[FOREVER] * 4])


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400_000, -3_600_000, 0, 3_600_000, 10 * 365 * 86_400_000])
def test_clock_that_is_wrong_makes_no_ban_of_a_list_longer(jump: int) -> None:
    listed = ListedBan(NODE, NOW_MS + 60_000, 60.0, "")
    seconds = listed.seconds(NOW_MS + jump)
    assert seconds is not None
    assert seconds <= 60.0
    assert listed.seconds(NOW_MS + 20_000) == 40.0


def test_what_is_written_is_what_is_read() -> None:
    rows = [
        Answer({"subject": NODE, "kind": "banned", "left_s": 60.5, "until_ms": NOW_MS, "reason": "x"}),
        Answer({"subject": "192.0.2.0/24", "kind": "banned by the operator", "left_s": None, "reason": ""}),
        Answer({"subject": "192.0.2.1", "kind": "shut out", "left_s": 60.0, "until_ms": NOW_MS, "reason": "x"}),
    ]
    assert ban_list.read(ban_list.write(rows)) == [
        ListedBan(NODE, NOW_MS, 60.5, "x"),
        ListedBan("192.0.2.0/24", None, None, ""),
    ]


@pytest.mark.parametrize(
    ("sign", "says"), [("faults", "5 of 8 peers that it dialled seem faulty"), ("clock", "its clock is not theirs")]
)
def test_status_says_why_bans_are_suspended(guts: Guts, control: ScriptedControl, sign: str, says: str) -> None:
    assert "bans" not in guts("node", "status").out
    control.suspended = {"sign": sign, "faulty": 5, "of": 8, "since_s": 61.0}
    out = guts("node", "status").out
    assert f"bans          suspended since 1m 1s: {says}" in out
