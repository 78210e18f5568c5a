"""Faults fade, bans end and grow, and none of it depends on the wall clock."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.clock import Now
from guts.effects import KeptScore, Persist, ScoreChanged
from guts.errors import PeerFault, Severity
from guts.ids import PeerId
from guts.peers import score
from guts.peers.score import (
    BAN_SECONDS,
    HALF_LIFE,
    MAX_BAN_SECONDS,
    MAX_SHUT_OUT_SECONDS,
    MAX_TRACKED,
    MINOR_UP_TO,
    REPEATS_KEPT,
    SHUT_OUT_SECONDS,
    Scores,
)
from tests.support.peers import IDS, WALL, at, score_changed

PEER, OTHER = IDS[0], IDS[1]
DAY_MS = 24 * 3600 * 1000
YEAR_MS = 365 * DAY_MS
JUMPS = [sign * jump for jump in (3_600_000, DAY_MS, 10 * YEAR_MS) for sign in (1, -1)]


class Fatal(PeerFault):
    code = "FATAL"


class Serious(PeerFault):
    code = "SERIOUS"
    severity = Severity.SERIOUS


class Minor(PeerFault):
    code = "MINOR"
    severity = Severity.MINOR


class Network(PeerFault):
    code = "NETWORK"
    severity = Severity.NETWORK


def change(kept: list[Persist]) -> ScoreChanged:
    """Return the one change of a list of effects."""
    [persist] = kept
    assert isinstance(persist.change, ScoreChanged)
    return persist.change


def test_fatal_fault_bans_for_a_day_and_no_longer() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Fatal("x"), at(1)) == [score_changed(0, 100.0, 100.0, "FATAL", at(1), barred=BAN_SECONDS)]
    assert scores.banned(PEER, 1 + BAN_SECONDS - 0.001)
    assert not scores.banned(PEER, 1 + BAN_SECONDS)
    assert not scores.banned(OTHER, 1)
    assert scores.ban_left(PEER, 1) == BAN_SECONDS
    assert scores.ban_left(OTHER, 1) == 0.0


def test_two_serious_faults_shut_out_for_ten_minutes() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Serious("x"), at(0)) == [score_changed(0, 25.0, 25.0, "SERIOUS")]
    assert not scores.banned(PEER, 0)
    assert scores.count(PEER, Serious("x"), at(0)) == [score_changed(0, 50.0, 25.0, "SERIOUS", barred=SHUT_OUT_SECONDS)]
    assert scores.ban_left(PEER, 0) == SHUT_OUT_SECONDS
    assert not scores.banned(PEER, SHUT_OUT_SECONDS)


def test_one_serious_fault_is_grey_for_three_minutes() -> None:
    scores = Scores([], at(0), trusted=frozenset([OTHER]))
    for peer in (PEER, OTHER):
        scores.count(peer, Serious("x"), at(0))
    assert scores.grey(PEER, 0)
    assert scores.grey(PEER, 193)
    assert not scores.grey(PEER, 194)
    assert not scores.grey(OTHER, 0)


def test_minor_faults_alone_have_no_consequence() -> None:
    """Who passes on what a hostile author signed may not know: not even a thousand of them make anybody grey."""
    scores = Scores([], at(0))
    for second in range(1_000):
        scores.count(PEER, Minor("x"), at(second / 10))
        assert scores.value(PEER, second / 10) <= MINOR_UP_TO
    assert not scores.grey(PEER, 100)
    scores.count(PEER, Serious("x"), at(100))
    assert not scores.banned(PEER, 100)
    assert change(scores.count(PEER, Minor("x"), at(100))).change == 0.0


def test_fault_halves_every_ten_minutes() -> None:
    scores = Scores([], at(0))
    scores.count(PEER, Serious("x"), at(0))
    assert scores.value(PEER, 600) == 12.5
    assert scores.value(PEER, 1200) == 6.25
    assert scores.value(PEER, -5) == 25.0
    assert scores.value(OTHER, 0) == 0.0
    assert change(scores.count(PEER, Serious("x"), at(600))).score.value == 37.5


def test_network_trouble_costs_nothing_and_leaves_no_row() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Network("x"), at(0)) == []
    assert scores.value(PEER, 0) == 0.0


def test_later_small_fault_does_not_lift_a_ban() -> None:
    scores = Scores([], at(0))
    scores.count(PEER, Fatal("x"), at(0))
    later = change(scores.count(PEER, Minor("x"), at(7200)))
    assert (later.score.barred_until, later.barred_ms) == (DAY_MS, 0)
    assert scores.ban_left(PEER, 7200) == BAN_SECONDS - 7200


def test_faults_found_while_shut_out_make_it_a_ban_and_no_second_shut_out() -> None:
    scores = Scores([], at(0))
    for _ in range(3):
        last = change(scores.count(PEER, Serious("x"), at(0)))
    assert (last.score.shut_outs, last.score.banned, last.barred_ms) == (1, False, 0)
    assert scores.ban_left(PEER, 0) == SHUT_OUT_SECONDS
    last = change(scores.count(PEER, Serious("x"), at(0)))
    assert (last.score.shut_outs, last.score.bans, last.score.banned, last.barred_ms) == (1, 1, True, DAY_MS)
    last = change(scores.count(PEER, Fatal("x"), at(0)))
    assert (last.score.bans, last.barred_ms) == (1, 0)


def test_each_shut_out_is_twice_as_long_as_the_last_up_to_a_day() -> None:
    scores, now, seconds = Scores([], at(0)), 0.0, []
    for _ in range(10):
        while not scores.banned(PEER, now):
            scores.count(PEER, Serious("x"), at(now))
        seconds.append(scores.ban_left(PEER, now))
        now += seconds[-1]
    assert seconds == [min(SHUT_OUT_SECONDS * 2**n, MAX_SHUT_OUT_SECONDS) for n in range(10)]
    assert sum(seconds[:8]) > 24 * 3600 > sum(seconds[:7])  # no more than eight visits a day


def test_each_ban_is_twice_as_long_as_the_last_up_to_thirty_days() -> None:
    scores, now, seconds = Scores([], at(0)), 0.0, []
    for _ in range(7):
        scores.count(PEER, Fatal("x"), at(now))
        seconds.append(scores.ban_left(PEER, now))
        now += seconds[-1]
    assert [s / BAN_SECONDS for s in seconds] == [1, 2, 4, 8, 16, 30, 30]
    assert seconds[-1] == MAX_BAN_SECONDS


@pytest.mark.parametrize(("pause", "length"), [(REPEATS_KEPT - 1, 2 * BAN_SECONDS), (REPEATS_KEPT, BAN_SECONDS)])
def test_repeats_are_forgotten_seven_days_after_the_end(pause: float, length: float) -> None:
    scores = Scores([], at(0))
    scores.count(PEER, Fatal("x"), at(0))
    scores.count(PEER, Fatal("x"), at(BAN_SECONDS + pause))
    assert scores.ban_left(PEER, BAN_SECONDS + pause) == length


def test_trusted_peer_is_counted_and_never_shut_out() -> None:
    scores = Scores([KeptScore(PEER, 0.0, 0, DAY_MS, banned=True)], at(0), trusted=frozenset([PEER]))
    assert not scores.banned(PEER, 0)
    kept = change(scores.count(PEER, Fatal("x"), at(0)))
    assert (kept.score.value, kept.barred_ms) == (100.0, 0)
    assert not scores.banned(PEER, 0)
    assert scores.value(PEER, 0) == 100.0


def test_restart_keeps_bans_and_goes_on_forgetting() -> None:
    ran = 10_000_000
    stored = [KeptScore(PEER, 80.0, ran - 600_000, ran + 5_000, True), KeptScore(OTHER, 10.0, ran, ran)]
    scores = Scores(stored, at(0), ran)
    assert scores.value(PEER, 0) == 40.0
    assert scores.ban_left(PEER, 0) == 5.0
    assert not scores.banned(PEER, 5)
    assert scores.value(OTHER, 0) == 10.0
    assert not scores.banned(OTHER, 0)


@pytest.mark.parametrize("jump", JUMPS)
def test_jump_of_the_wall_clock_bans_and_frees_nobody_in_this_run_or_between_two(jump: int) -> None:
    running = Scores([], at(0))
    kept = change(running.count(PEER, Fatal("x"), at(0))).score
    running.count(OTHER, Serious("x"), at(0))
    later = Now(60.0, WALL + jump)
    assert running.ban_left(PEER, later.mono) == BAN_SECONDS - 60
    serious = change(running.count(OTHER, Minor("x"), later)).score
    assert serious.value == pytest.approx(25.0 * 0.5**0.1)
    # The next run begins a minute of running time later, at another monotonic time, with yet another clock.
    again = Scores([kept, serious], Now(5_000.0, WALL - 3 * jump), ran=120_000)
    assert again.ban_left(PEER, 5_000.0) == BAN_SECONDS - 120
    assert again.value(OTHER, 5_000.0) == pytest.approx(serious.value * 0.5**0.1)
    assert not again.banned(OTHER, 5_000.0)


def test_repeats_are_remembered_by_the_next_run() -> None:
    kept = change(Scores([], at(0)).count(PEER, Fatal("x"), at(0))).score
    scores = Scores([kept], at(7), ran=DAY_MS)
    assert not scores.banned(PEER, 7)
    scores.count(PEER, Fatal("x"), at(7))
    assert scores.ban_left(PEER, 7) == 2 * BAN_SECONDS


def _peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def test_remembers_so_many_peers_and_forgets_the_least_guilty_who_is_not_banned() -> None:
    # A value of next to nothing, but banned; then values from 1 up.
    rows = [KeptScore(_peer(0), 0.001, 0, 60_000)]
    rows += [KeptScore(_peer(number), float(number), 0) for number in range(1, MAX_TRACKED)]
    scores = Scores(rows, at(0))
    assert [scores.value(_peer(number), 0) for number in (0, 1, 2)] == [0.001, 1.0, 2.0]
    scores.count(_peer(2), Minor("x"), at(0))
    assert scores.value(_peer(1), 0) == 1.0
    scores.count(PEER, Minor("x"), at(0))
    assert scores.value(_peer(1), 0) == 0.0
    assert scores.value(_peer(2), 0) == 7.0
    assert scores.banned(_peer(0), 0)


FAULTS = st.lists(st.tuples(st.sampled_from([Fatal, Serious, Minor, Network]), st.floats(0, 10_000)), max_size=20)


@given(FAULTS, st.floats(0, 100_000))
def test_s7_fault_is_never_negative_and_only_faults_raise_it(
    faults: list[tuple[type[PeerFault], float]], later: float
) -> None:
    scores = Scores([], at(0))
    time = 0.0
    for kind, pause in faults:
        time += pause
        before = scores.value(PEER, time)
        scores.count(PEER, kind("x"), at(time))
        added = min(5.0, max(0.0, MINOR_UP_TO - before)) if kind is Minor else kind.severity
        assert scores.value(PEER, time) == pytest.approx(before + added)
    assert 0.0 <= scores.value(PEER, time + later) <= scores.value(PEER, time)


@given(FAULTS, st.integers(0, 19), st.floats(0, 10_000))
def test_s7_one_fault_more_never_makes_the_fault_smaller(
    faults: list[tuple[type[PeerFault], float]], more: int, later: float
) -> None:
    fewer, every = Scores([], at(0)), Scores([], at(0))
    time = 0.0
    for number, (kind, pause) in enumerate(faults):
        time += pause
        every.count(PEER, kind("x"), at(time))
        if number != more:
            fewer.count(PEER, kind("x"), at(time))
    assert every.value(PEER, time + later) >= fewer.value(PEER, time + later) - 1e-9


@given(FAULTS.map(lambda faults: [fault for fault in faults if fault[0] is not Minor]), st.floats(0, 100_000))
def test_s7_decay_is_exact(faults: list[tuple[type[PeerFault], float]], later: float) -> None:
    scores, at_times, time = Scores([], at(0)), [], 0.0
    for kind, pause in faults:
        time += pause
        scores.count(PEER, kind("x"), at(time))
        at_times.append((time, float(kind.severity)))
    end = time + later
    expected = sum(cost * 2.0 ** -((end - when) / HALF_LIFE) for when, cost in at_times)
    assert scores.value(PEER, end) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_numbers_are_those_of_the_threat_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "threats.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", page, re.MULTILINE)
    assert dict(rows) == {severity.name.lower(): str(int(severity)) for severity in Severity}
    thresholds = [
        int(number) for number in re.findall(r"^\| (\d+) \| (?:asked|disconnected|banned)", page, re.MULTILINE)
    ]
    assert thresholds == [score.GREY_AT, score.SHUT_OUT_AT, score.BAN_AT]


@pytest.mark.parametrize(("apart", "barred"), [(0.0, 600_000), (180.0, 600_000), (200.0, 0)])
def test_two_serious_faults_within_three_minutes_shut_out(apart: float, barred: int) -> None:
    scores = Scores([], at(0.0))
    scores.count(PEER, Serious("x"), at(0.0))
    assert change(scores.count(PEER, Serious("x"), at(apart))).barred_ms == barred
