"""Faults fade, bans end, and neither depends on the wall clock of this run."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.clock import Now
from guts.effects import Persist, ScoreChanged
from guts.errors import PeerFault, Severity
from guts.ids import PeerId
from guts.peers import score
from guts.peers.score import BAN_SECONDS, MAX_TRACKED, SHUT_OUT_SECONDS, Scores, StoredFault
from tests.support.peers import IDS, WALL, at

PEER, OTHER = IDS[0], IDS[1]
DAY_MS = 24 * 3600 * 1000


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


def test_fatal_fault_bans_for_a_day_and_no_longer() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Fatal("x"), at(1)) == [
        Persist(ScoreChanged(PEER, 100.0, 100.0, "FATAL", WALL + 1000 + DAY_MS, WALL + 1000))
    ]
    assert scores.banned(PEER, 1 + BAN_SECONDS - 0.001)
    assert not scores.banned(PEER, 1 + BAN_SECONDS)
    assert not scores.banned(OTHER, 1)
    assert scores.ban_left(PEER, 1) == BAN_SECONDS
    assert scores.ban_left(OTHER, 1) == 0.0


def test_two_serious_faults_shut_out_for_ten_minutes() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Serious("x"), at(0)) == [Persist(ScoreChanged(PEER, 25.0, 25.0, "SERIOUS", 0, WALL))]
    assert not scores.banned(PEER, 0)
    assert scores.count(PEER, Serious("x"), at(0)) == [
        Persist(ScoreChanged(PEER, 50.0, 25.0, "SERIOUS", WALL + 600_000, WALL))
    ]
    assert scores.ban_left(PEER, 0) == SHUT_OUT_SECONDS
    assert not scores.banned(PEER, SHUT_OUT_SECONDS)


def test_fault_halves_every_ten_minutes() -> None:
    scores = Scores([], at(0))
    scores.count(PEER, Serious("x"), at(0))
    assert scores.value(PEER, 600) == 12.5
    assert scores.value(PEER, 1200) == 6.25
    assert scores.value(PEER, -5) == 25.0
    assert scores.value(OTHER, 0) == 0.0
    [kept] = scores.count(PEER, Minor("x"), at(600))
    assert isinstance(kept.change, ScoreChanged)
    assert kept.change.fault == 17.5


def test_network_trouble_costs_nothing_and_leaves_no_row() -> None:
    scores = Scores([], at(0))
    assert scores.count(PEER, Network("x"), at(0)) == []
    assert scores.value(PEER, 0) == 0.0


def test_later_small_fault_does_not_lift_a_ban() -> None:
    scores = Scores([], at(0))
    scores.count(PEER, Fatal("x"), at(0))
    [kept] = scores.count(PEER, Minor("x"), at(7200))
    assert isinstance(kept.change, ScoreChanged)
    assert kept.change.banned_until == WALL + DAY_MS
    assert scores.ban_left(PEER, 7200) == BAN_SECONDS - 7200


def test_restart_keeps_bans_and_goes_on_forgetting() -> None:
    stored = [StoredFault(PEER, 80.0, WALL - 600_000, WALL + 5_000), StoredFault(OTHER, 10.0, WALL, WALL)]
    scores = Scores(stored, at(0))
    assert scores.value(PEER, 0) == 40.0
    assert scores.ban_left(PEER, 0) == 5.0
    assert not scores.banned(PEER, 5)
    assert scores.value(OTHER, 0) == 10.0
    assert not scores.banned(OTHER, 0)


def test_jump_of_the_wall_clock_neither_bans_for_longer_nor_grows_faults() -> None:
    ten_years = 10 * 365 * DAY_MS
    earlier = Scores([StoredFault(PEER, 80.0, WALL, WALL + DAY_MS)], Now(0.0, WALL - ten_years))
    assert earlier.ban_left(PEER, 0) == BAN_SECONDS
    assert earlier.value(PEER, 0) == 80.0
    running = Scores([], at(0))
    running.count(PEER, Fatal("x"), at(0))
    running.count(OTHER, Minor("x"), Now(1.0, WALL + ten_years))
    assert running.ban_left(PEER, 1) == BAN_SECONDS - 1


def _peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def test_remembers_so_many_peers_and_forgets_the_least_guilty_who_is_not_banned() -> None:
    # A value of next to nothing, but banned; then values from 1 up.
    rows = [StoredFault(_peer(0), 0.001, WALL, WALL + 60_000)]
    rows += [StoredFault(_peer(number), float(number), WALL, 0) for number in range(1, MAX_TRACKED)]
    scores = Scores(rows, at(0))
    assert [scores.value(_peer(number), 0) for number in (0, 1, 2)] == [0.001, 1.0, 2.0]
    scores.count(_peer(2), Minor("x"), at(0))
    assert scores.value(_peer(1), 0) == 1.0
    scores.count(PEER, Minor("x"), at(0))
    assert scores.value(_peer(1), 0) == 0.0
    assert scores.value(_peer(2), 0) == 7.0
    assert scores.banned(_peer(0), 0)


@given(
    st.lists(st.tuples(st.sampled_from([Fatal, Serious, Minor, Network]), st.floats(0, 10_000)), max_size=20),
    st.floats(0, 100_000),
)
def test_fault_is_never_negative_and_only_faults_raise_it(
    faults: list[tuple[type[PeerFault], float]], later: float
) -> None:
    scores = Scores([], at(0))
    time = 0.0
    for kind, pause in faults:
        time += pause
        before = scores.value(PEER, time)
        scores.count(PEER, kind("x"), at(time))
        assert scores.value(PEER, time) == pytest.approx(before + kind.severity)
    assert 0.0 <= scores.value(PEER, time + later) <= scores.value(PEER, time)


def test_numbers_are_those_of_the_threat_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "threats.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", page, re.MULTILINE)
    assert dict(rows) == {severity.name.lower(): str(int(severity)) for severity in Severity}
    thresholds = [int(number) for number in re.findall(r"^\| (\d+) \| (?:disconnected|banned)", page, re.MULTILINE)]
    assert thresholds == [score.DISCONNECT_AT, score.BAN_AT]


@pytest.mark.parametrize(("apart", "pause"), [(0.0, 600_000), (180.0, 600_000), (200.0, 0)])
def test_two_serious_faults_within_three_minutes_shut_out(apart: float, pause: int) -> None:
    scores = Scores([], at(0.0))
    scores.count(PEER, Serious("x"), at(0.0))
    (persist,) = scores.count(PEER, Serious("x"), at(apart))
    assert isinstance(persist.change, ScoreChanged)
    assert persist.change.banned_until == (at(apart).wall + pause if pause else 0)
