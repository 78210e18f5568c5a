"""When most peers seem faulty at once, it is this node that is broken: nobody is banned for it."""

import logging

import pytest

from guts.clock import Now
from guts.effects import ScoreChanged
from guts.ids import PeerId
from guts.peers.mass_fault import MAX_CLOCK_OFFSET_MS, MIN_PEERS, WINDOW, Evidence, Sign
from guts.peers.score import BAN_SECONDS, Scores
from tests.support.peers import at
from tests.unit.peers.test_score import Fatal, Minor, Serious

PEERS = [PeerId(bytes([number]) * 32) for number in range(20)]


def seen(peers: list[PeerId], offset_ms: int | None = None) -> Evidence:
    """Return the evidence of ``peers``, each in a network of its own."""
    return Evidence({peer: f"network {peer}" for peer in peers}, offset_ms)


def break_down(scores: Scores, dialled: list[PeerId], faulty: int, now: Now) -> list[ScoreChanged]:
    """Let the first ``faulty`` peers commit what is fatal; return what is kept of it."""
    kept = [effect.change for peer in PEERS[:faulty] for effect in scores.count(peer, Fatal("x"), now, seen(dialled))]
    assert all(isinstance(change, ScoreChanged) for change in kept)
    return [change for change in kept if isinstance(change, ScoreChanged)]


@pytest.mark.parametrize(
    ("dialled", "faulty", "up"), [(4, 4, False), (5, 2, False), (5, 3, True), (8, 4, False), (8, 5, True)]
)
def test_more_than_half_of_at_least_five_bring_the_guard_up(
    dialled: int, faulty: int, up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scores = Scores([], at(0))
    kept = break_down(scores, PEERS[:dialled], faulty, at(0))
    assert scores.guard.up(0) is up
    banned = [peer for peer in PEERS if scores.banned(peer, 0)]
    assert banned == ([] if up else PEERS[:faulty])
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == up
    if up:
        assert f"{faulty} of {dialled} peers seem faulty" in warnings[0]
        # All but the last were counted, and are forgiven; the last costs nothing.
        assert [(change.reason, change.score.value) for change in kept[-faulty:]] == [
            *[("MASS_FAULT", 0.0)] * (faulty - 1),
            ("FATAL", 0.0),
        ]
        assert sum(change.change for change in kept) == pytest.approx(0.0)


def test_any_number_of_those_who_dialled_us_does_not() -> None:
    scores = Scores([], at(0))
    break_down(scores, PEERS[15:], 15, at(0))
    assert not scores.guard.up(0)
    assert all(scores.banned(peer, 0) for peer in PEERS[:15])


def test_one_peer_that_goes_on_and_on_does_not() -> None:
    scores = Scores([], at(0))
    for second in range(100):
        scores.count(PEERS[0], Minor("x"), at(second), seen(PEERS[:5]))
    assert not scores.guard.up(99)


def test_while_it_is_up_nothing_is_added_and_it_comes_down_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    scores = Scores([], at(0))
    break_down(scores, PEERS[:5], 3, at(0))
    later = at(WINDOW - 1)
    [kept] = scores.count(PEERS[9], Fatal("x"), later, seen(PEERS[:5]))
    assert isinstance(kept.change, ScoreChanged)
    assert (kept.change.change, kept.change.score.value, kept.change.barred_ms) == (0.0, 0.0, 0)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
    ended = at(2 * WINDOW)
    assert not scores.guard.up(ended.mono)
    scores.count(PEERS[9], Fatal("x"), ended, seen(PEERS[:5]))
    assert scores.ban_left(PEERS[9], ended.mono) == BAN_SECONDS


def test_bans_of_earlier_stay_and_those_of_late_do_not_count_as_repeats() -> None:
    scores = Scores([], at(0))
    scores.count(PEERS[10], Fatal("x"), at(0))
    now = at(WINDOW + 1)
    break_down(scores, PEERS[:5], 3, now)
    assert scores.guard.up(now.mono)
    assert scores.banned(PEERS[10], now.mono)
    assert [scores.standing(peer, now.mono).bans for peer in PEERS[:3]] == [0, 0, 0]


@pytest.mark.parametrize("minutes", [-24 * 60, 24 * 60])
def test_clock_that_is_off_from_those_of_the_peers_brings_it_up(minutes: int, caplog: pytest.LogCaptureFixture) -> None:
    scores = Scores([], at(0))
    scores.count(PEERS[0], Serious("x"), at(0))
    assert scores.look(seen(PEERS[: MIN_PEERS - 1], minutes * 60_000), at(1)) == []
    assert scores.look(seen(PEERS[:MIN_PEERS], MAX_CLOCK_OFFSET_MS), at(1)) == []
    assert not scores.guard.up(1)
    [forgiven] = scores.look(seen(PEERS[:MIN_PEERS], minutes * 60_000), at(1))
    assert isinstance(forgiven.change, ScoreChanged)
    assert (forgiven.change.reason, forgiven.change.score.value) == ("MASS_FAULT", 0.0)
    assert scores.guard.sign is Sign.CLOCK
    assert "its clock is 1440 min off" in caplog.text
    for peer in PEERS[MIN_PEERS:]:
        scores.count(peer, Fatal("x"), at(2), seen(PEERS[:MIN_PEERS], minutes * 60_000))
    assert not [peer for peer in PEERS if scores.banned(peer, 2)]
    # The clock is set right.
    assert scores.look(seen(PEERS[:MIN_PEERS], 0), at(3)) == []
    assert scores.guard.up(3)
    assert not scores.guard.up(2 + WINDOW)


def test_people_are_told_once_until_peers_seem_well_again(caplog: pytest.LogCaptureFixture) -> None:
    scores = Scores([], at(0))
    hour = 3_600_000
    time = 0.0

    def looked(dialled: int, offset: int, *, later: float) -> int:
        nonlocal time
        time += later
        scores.look(seen(PEERS[:dialled], offset), at(time))
        return len([record for record in caplog.records if record.levelno >= logging.WARNING])

    assert looked(MIN_PEERS, hour, later=1) == 1
    # Peers come and go for hours: the guard comes down for want of evidence, and up again.
    for _ in range(5):
        assert looked(MIN_PEERS - 1, 0, later=WINDOW + 1) == 1
        assert not scores.guard.up(time)
        assert looked(MIN_PEERS, hour, later=1) == 1
        assert scores.guard.up(time)
    # The clock is set right; later it is wrong once more.
    assert looked(MIN_PEERS, 0, later=WINDOW + 1) == 1
    assert looked(MIN_PEERS, hour, later=1) == 2


def test_one_network_has_one_vote() -> None:
    scores = Scores([], at(0))
    crowded = Evidence({peer: "one network" if number < 6 else str(number) for number, peer in enumerate(PEERS[:10])})
    for peer in PEERS[:6]:
        scores.count(peer, Fatal("x"), at(0), crowded)
    assert not scores.guard.up(0), "one of five networks"
    for peer in PEERS[6:8]:
        scores.count(peer, Fatal("x"), at(0), crowded)
    assert scores.guard.up(0)
    assert (scores.guard.faulty, scores.guard.of) == (3, 5)


def test_those_who_come_in_the_place_of_faulty_ones_have_no_vote() -> None:
    scores = Scores([], at(0))
    honest, hostile = PEERS[:4], PEERS[4:]
    for second, peer in enumerate(hostile):
        # Four places are the hostile one's, with another key and network each time.
        here = [*honest, *hostile[max(0, second - 3) : second + 1]]
        scores.look(seen(here), at(second))
        scores.count(peer, Fatal("x"), at(second), seen(here))
    assert not scores.guard.up(len(hostile))
    assert all(scores.banned(peer, len(hostile)) for peer in hostile)


def test_only_those_who_were_looked_at_are_forgiven() -> None:
    scores = Scores([], at(0))
    scores.count(PEERS[19], Fatal("x"), at(0), seen(PEERS[:5]))
    break_down(scores, PEERS[:5], 3, at(1))
    assert scores.guard.up(1)
    assert [peer for peer in PEERS if scores.banned(peer, 1)] == [PEERS[19]]
