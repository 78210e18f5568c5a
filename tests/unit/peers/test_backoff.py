"""Waiting times grow, have full jitter and a cap; who hangs up at once is dialled less and less."""

import math
import random

from guts.peers.backoff import MAX_DELAY, MAX_DELAY_FOR_HOLDER, Backoff
from guts.peers.dialling import STABLE_AFTER, Dialling
from guts.peers.state import PeerState
from tests.support.peers import IDS, address, repository, target


class Longest(random.Random):
    """Always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_longest_wait_doubles_to_the_cap() -> None:
    backoff = Backoff()
    waits = []
    for _ in range(14):
        backoff.failed(0.0, Longest())
        waits.append(backoff.not_before)
    assert waits == [
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
        1024.0,
        2048.0,
        MAX_DELAY,
        MAX_DELAY,
        MAX_DELAY,
    ]
    backoff.succeeded()
    assert backoff == Backoff(0, 0.0)


def test_jitter_is_full() -> None:
    rng = random.Random(7)
    waits = []
    for _ in range(1000):
        backoff = Backoff(failures=4)
        backoff.failed(100.0, rng)
        waits.append(backoff.not_before - 100.0)
    assert min(waits) < 1.0
    assert max(waits) > 31.0
    assert all(0.0 <= wait <= 32.0 for wait in waits)


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(failures=100_000)
    backoff.failed(0.0, Longest(), MAX_DELAY_FOR_HOLDER)
    assert backoff.not_before == MAX_DELAY_FOR_HOLDER


def _due(
    dialling: Dialling, *states: PeerState, now: float, connected: tuple[int, ...] = ()
) -> tuple[list[str], float]:
    targets, following = dialling.due(states, {IDS[n] for n in connected}, set(), lambda _: False, now)
    return [found.host for found in targets], following


def test_door_that_hangs_up_at_once_is_dialled_less_and_less() -> None:
    door = target(1)
    dialling = Dialling((door,), Longest())
    state = PeerState(IDS[1], (address(1),), last_seen=1)
    state.backoff.not_before = math.inf
    waits = []
    for _ in range(6):
        dialling.greeted(door, IDS[1])
        dialling.failed(door, None, 0.0, lasted=1.0)
        waits.append(_due(dialling, now=0.0)[1])
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_long_connection_forgets_failures() -> None:
    door = target(1)
    dialling = Dialling((door,), Longest())
    for _ in range(5):
        dialling.failed(door, None, 0.0)
    dialling.failed(door, None, 0.0, lasted=STABLE_AFTER - 0.001)
    assert _due(dialling, now=0.0) == ([], 30.0)
    dialling.failed(door, None, 0.0, lasted=STABLE_AFTER)
    assert _due(dialling, now=0.0) == ([], 2.0)


def test_full_door_is_left_alone_for_as_long_as_it_asks_within_bounds() -> None:
    door = target(1)
    dialling = Dialling((door,), random.Random(1))
    dialling.failed(door, None, 10.0, at_least=60)
    assert _due(dialling, now=69.9) == ([], 70.0)
    assert _due(dialling, now=70.0) == (["192.0.2.1"], math.inf)
    dialling.failed(door, None, 100.0, at_least=7 * 24 * 3600)
    assert _due(dialling, now=100.0) == ([], 100.0 + MAX_DELAY)


def test_holder_of_what_we_follow_is_knocked_at_more_often() -> None:
    dialling = Dialling((), Longest())
    holder, other = PeerState(IDS[1], (address(1),), last_seen=1), PeerState(IDS[2], (address(2),), last_seen=2)
    holder.holds(repository(1))
    for _ in range(12):
        dialling.failed(None, holder, 0.0)
        dialling.failed(target(9), other, 0.0)
    assert (holder.backoff.not_before, other.backoff.not_before) == (30.0, 3600.0)


def test_doors_come_first_then_the_latest_seen_and_addresses_take_turns() -> None:
    dialling = Dialling((target(1), target(2, IDS[2])), Longest())
    early = PeerState(IDS[3], (address(3),), last_seen=5)
    late = PeerState(IDS[4], (address(4), address(5)), last_seen=6)
    never = PeerState(IDS[6], (address(6),))
    nowhere = PeerState(IDS[7], (), last_seen=9)
    states = (early, late, never, nowhere)
    assert _due(dialling, *states, now=0.0) == (["192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.3"], math.inf)
    dialling.failed(None, late, 0.0)
    assert _due(dialling, *states, now=2.0)[0] == ["192.0.2.1", "192.0.2.2", "192.0.2.5", "192.0.2.3"]
    dialling.failed(None, late, 2.0)
    assert _due(dialling, *states, now=6.0)[0] == ["192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.3"]


def test_connected_banned_and_dialled_peers_are_left_alone() -> None:
    dialling = Dialling((target(1, IDS[1]), target(2)), Longest())
    states = [PeerState(IDS[3], (address(3),), last_seen=1), PeerState(IDS[4], (address(4),), last_seen=2)]
    assert dialling.due(states, {IDS[1]}, {target(2)}, lambda peer: peer == IDS[3], 0.0) == (
        [target(4, IDS[4])],
        math.inf,
    )
    assert dialling.begin(target(4, IDS[4]))
    assert not dialling.begin(target(4, IDS[4]))
    assert dialling.due(states, {IDS[1]}, {target(2)}, lambda peer: peer == IDS[3], 0.0) == ([], math.inf)
    dialling.end(target(4, IDS[4]))
    assert dialling.begin(target(4, IDS[4]))


def test_bare_door_is_left_alone_while_its_node_is_connected_some_other_way() -> None:
    dialling = Dialling((target(1),), Longest())
    dialling.greeted(target(9), IDS[9])
    dialling.greeted(target(1), IDS[1])
    assert _due(dialling, now=0.0, connected=(1, 9)) == ([], math.inf)
    assert _due(dialling, now=0.0, connected=(9,)) == (["192.0.2.1"], math.inf)
