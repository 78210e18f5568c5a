"""Bans by the operator: of keys, addresses and networks; and the slower service of who comes from a bad address."""

import contextlib
import ipaddress
import math

import pytest

from guts.addresses import Address, BadSubject, BansTooMuch, BanSubject, parse_subject, subject_text
from guts.effects import BanKept, BanLifted, Persist
from guts.ids import BadId
from guts.peers import bans as bans_module
from guts.peers import penalties as penalties_module
from guts.peers.bans import MAX_REASON_BYTES, SAME_END, BadReason, OperatorBan, OperatorBans, TooManyBans
from guts.peers.penalties import MAX_PENALTY, PENALTY, PENALTY_SECONDS, Penalties
from guts.peers.score import BAN_SECONDS, Bar, Scores, TrustedPeer
from tests.support.peers import IDS, WALL, at
from tests.unit.peers.test_score import Fatal, Minor

NET = parse_subject("192.0.2.0/24")


def ban(subject: BanSubject, until: float, reason: str = "") -> OperatorBan:
    """Return a ban made at the start of the test."""
    return OperatorBan(subject, until, WALL, reason)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (str(IDS[0]), str(IDS[0])),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:DB8::/48", "2001:db8::/48"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_subject_is_written_in_one_way(text: str, written: str) -> None:
    assert subject_text(parse_subject(text)) == written
    assert parse_subject(written) == parse_subject(text)


@pytest.mark.parametrize("text", ["", "example.org", "192.0.2.0/33", "192.0.2.7/24", "1.2.3", "-", "fe80::1%eth0/64"])
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(BadSubject):
        parse_subject(text)


def test_slip_in_a_network_is_mended_in_the_hint_and_a_mistyped_id_is_told() -> None:
    with pytest.raises(BadSubject) as caught:
        parse_subject("192.0.2.7/24")
    assert caught.value.hint == "did you mean 192.0.2.0/24?"
    with pytest.raises(BadId):
        parse_subject("node1abc")


@pytest.mark.parametrize(
    ("ip", "refused"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        (str(ipaddress.ip_address("::ffff:192.0.2.9")), True),
        ("2001:db8::1", False),
    ],
)
def test_ban_of_a_network_is_of_every_address_in_it(ip: str, refused: bool) -> None:
    bans = OperatorBans([], 0.0)
    bans.ban(ban(NET, math.inf), 0.0, merge=False)
    bans.ban(ban(parse_subject("2001:db8:1::/48"), math.inf), 0.0, merge=False)
    bans.ban(ban(IDS[0], math.inf), 0.0, merge=False)
    assert (bans.of_address(Address(ip, 9000), 0.0) is not None) is refused


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("0.0.0.0/0", True),
        ("126.0.0.0/7", True),
        ("127.0.0.0/8", False),
        ("::/0", True),
        ("2000::/15", True),
        ("2001::/16", False),
    ],
)
def test_most_of_the_internet_is_not_banned(text: str, refused: bool) -> None:
    bans = OperatorBans([], 0.0)
    with pytest.raises(BansTooMuch) if refused else contextlib.nullcontext():
        bans.ban(ban(parse_subject(text), math.inf), 0.0, merge=False)
    assert len(list(bans)) == (not refused)


def test_ban_that_ends_is_told_once_and_the_next_end_is_known() -> None:
    bans = OperatorBans([], 0.0)
    assert bans.next_end == math.inf
    for text, until in (("192.0.2.0/24", 50.0), ("192.0.2.7", 10.0), ("192.0.2.8", math.inf)):
        bans.ban(ban(parse_subject(text), until), 0.0, merge=False)
    assert (bans.next_end, bans.ended(9.9)) == (10.0, [])
    assert bans.ended(10.0) == [parse_subject("192.0.2.7")]
    assert (bans.next_end, bans.ended(10.0)) == (50.0, [])
    bans.lift(NET)
    assert (bans.ended(50.0), bans.next_end) == ([], math.inf)


def test_of_networks_around_an_address_the_one_that_ends_last_counts() -> None:
    bans = OperatorBans([], 0.0)
    for text, until in (("192.0.2.0/24", 50.0), ("192.0.0.0/16", 99.0), ("192.0.2.7", 10.0)):
        bans.ban(ban(parse_subject(text), until), 0.0, merge=False)
    where = Address("192.0.2.7", 1)
    assert [found.until for now in (0.0, 50.0) if (found := bans.of_address(where, now))] == [99.0, 99.0]
    assert bans.of_address(where, 99.0) is None
    inner = bans.around(ipaddress.ip_network("192.0.2.0/25"), 0.0)
    assert inner is not None
    assert inner.until == 99.0
    assert bans.around(ipaddress.ip_network("192.0.0.0/15"), 0.0) is None


def test_ban_is_kept_on_the_running_time_and_taken_over_by_the_next_run() -> None:
    zero = 1_000.0
    bans = OperatorBans([], zero)
    kept = bans.ban(ban(NET, 1_060.0, "spam"), 1_010.0, merge=False)
    assert kept == [Persist(BanKept(NET, 60_000, WALL, "spam"))]
    assert bans.ban(ban(IDS[0], math.inf), 1_010.0, merge=False) == [Persist(BanKept(IDS[0], None, WALL, ""))]
    later = OperatorBans([BanKept(NET, 60_000, WALL, "spam"), BanKept(IDS[0], None, WALL, "")], -50.0)
    assert [(b.subject, b.until, b.reason) for b in later] == [(NET, 10.0, "spam"), (IDS[0], math.inf, "")]
    assert later.get(NET, 9.9) is not None
    assert later.get(NET, 10.0) is None


def test_command_changes_a_ban_and_a_list_makes_none_shorter() -> None:
    bans = OperatorBans([], 0.0)
    bans.ban(ban(NET, 100.0, "a"), 0.0, merge=False)
    assert bans.ban(ban(NET, 100.0 + SAME_END, "a"), 0.0, merge=False) == []
    assert bans.ban(ban(NET, 50.0), 0.0, merge=True) == []
    assert bans.ban(ban(NET, 100.0 - SAME_END, "other"), 0.0, merge=True) == []
    assert bans.ban(ban(NET, 101.0 + SAME_END), 0.0, merge=True) != []
    assert bans.ban(ban(NET, 50.0), 0.0, merge=False) != []
    assert bans.ban(ban(NET, math.inf), 0.0, merge=True) != []
    assert bans.ban(ban(NET, math.inf), 0.0, merge=True) == []
    assert bans.ban(ban(NET, math.inf, "why"), 0.0, merge=False) != []


def test_lifted_ban_is_no_more() -> None:
    bans = OperatorBans([], 0.0)
    bans.ban(ban(NET, math.inf), 0.0, merge=False)
    assert bans.lift(NET) == [Persist(BanLifted(NET))]
    assert bans.lift(NET) == []
    assert bans.of_address(Address("192.0.2.1", 1), 0.0) is None


def test_so_many_bans_are_kept_and_those_that_ended_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans_module, "MAX_BANS", 2)
    bans = OperatorBans([], 0.0)
    bans.ban(ban(IDS[0], 10.0), 0.0, merge=False)
    bans.ban(ban(IDS[1], math.inf), 0.0, merge=False)
    with pytest.raises(TooManyBans):
        bans.ban(ban(IDS[2], math.inf), 9.0, merge=False)
    assert bans.ban(ban(IDS[1], 50.0), 9.0, merge=False)
    assert bans.ban(ban(IDS[2], math.inf), 10.0, merge=False)
    assert {b.subject for b in bans} == {IDS[1], IDS[2]}


@pytest.mark.parametrize(
    ("reason", "taken"),
    [
        ("ä" * (MAX_REASON_BYTES // 2), True),
        ("ä" * (MAX_REASON_BYTES // 2) + "x", False),
        ("a\nb", False),
        ("\x1b[2J", False),
    ],
)
def test_reason_is_a_line(reason: str, taken: bool) -> None:
    bans = OperatorBans([], 0.0)
    if taken:
        assert bans.ban(ban(NET, 1.0, reason), 0.0, merge=False)
    else:
        with pytest.raises(BadReason):
            bans.ban(ban(NET, 1.0, reason), 0.0, merge=False)


def test_of_two_bans_of_a_peer_the_one_that_ends_last_is_told() -> None:
    scores = Scores([], at(0))
    scores.count(IDS[0], Fatal("x"), at(0))
    assert (scores.standing(IDS[0], 0).bar, scores.ban_left(IDS[0], 0)) == (Bar.BANNED, BAN_SECONDS)
    scores.ban(ban(IDS[0], 60.0), 0.0, merge=False)
    assert scores.standing(IDS[0], 0).bar is Bar.BANNED
    scores.ban(ban(IDS[0], math.inf), 0.0, merge=False)
    assert (scores.standing(IDS[0], 0).bar, scores.ban_left(IDS[0], 0)) == (Bar.BY_OPERATOR, math.inf)


def test_trusted_peer_is_banned_by_nobody() -> None:
    scores = Scores([], at(0), trusted=frozenset([IDS[0]]))
    with pytest.raises(TrustedPeer):
        scores.ban(ban(IDS[0], math.inf), 0.0, merge=False)
    assert scores.ban(ban(IDS[1], math.inf), 0.0, merge=False)


@pytest.mark.parametrize(
    ("came_from", "asked_about", "penalised"),
    [
        ("203.0.114.7", "203.0.114.7", True),
        ("203.0.114.7", "203.0.114.200", True),
        ("203.0.114.7", "203.0.115.7", False),
        ("2a00:1:2::1", "2a00:1:2:ffff::1", True),
        ("2a00:1:2::1", "2a00:1:3::1", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7", "10.0.0.8", False),
    ],
)
def test_address_of_a_banned_peer_is_penalised_for_an_hour_and_its_network_on_the_internet(
    came_from: str, asked_about: str, penalised: bool
) -> None:
    scores = Scores([], at(0))
    scores.count(IDS[0], Minor("x"), at(0), addresses=[Address(came_from, 1)])
    assert scores.penalty(asked_about, 0, 0) == 1.0
    scores.count(IDS[0], Fatal("x"), at(5), addresses=[Address(came_from, 1)])
    expected = PENALTY if penalised else 1.0
    assert scores.penalty(asked_about, 5, 5) == expected
    assert scores.penalty(asked_about, 7, 5 + PENALTY_SECONDS - 1) == expected
    assert scores.penalty(asked_about, 7, 5 + PENALTY_SECONDS) == 1.0
    # Who was connected before is a neighbour, and suffers nothing.
    assert scores.penalty(asked_about, 4.9, 5) == 1.0


def test_each_further_ban_from_an_address_doubles_its_penalty_and_not_that_of_its_network() -> None:
    penalties, factors = Penalties(), []
    for second in range(7):
        penalties.add("203.0.114.7", float(second))
        factors.append(penalties.penalty("203.0.114.7", 99.0, 99.0))
    assert factors == [10.0, 20.0, 40.0, 80.0, 160.0, 160.0, 160.0]
    assert factors[-1] == MAX_PENALTY
    assert penalties.penalty("203.0.114.8", 99.0, 99.0) == PENALTY
    penalties.add("203.0.114.7", 6.0 + PENALTY_SECONDS)
    assert penalties.penalty("203.0.114.7", 1e9, 6.0 + PENALTY_SECONDS) == PENALTY


def test_so_many_penalties_are_remembered_and_the_first_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties_module, "MAX_PENALTIES", 2)
    penalties = Penalties()
    ips = [f"10.0.0.{number}" for number in range(3)]
    penalties.add(ips[0], 0.0)
    penalties.add(ips[1], 1.0)
    penalties.add(ips[0], 2.0)
    penalties.add(ips[2], 3.0)
    assert [penalties.penalty(ip, 3.0, 3.0) for ip in ips] == [20.0, 1.0, 10.0]
