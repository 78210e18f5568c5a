"""States in memory: bounded, the ones asked for last, and never one that the database does not have."""

import itertools

import pytest

from guts.node import held_states
from guts.node.acceptance import Held, Verified
from guts.node.held_states import HeldStates, following
from guts.store.history import IdentityFork
from tests.unit.trust.world import ALICE, BOB, DEV, MAIN, chain, oid, publish, records

ONE = chain(ALICE)
TWO = chain(ALICE, BOB)
FORK = IdentityFork(1, b"another document")


def state(identity: object, generation: int = 1) -> Held:
    assert identity in (ONE, TWO)
    which = ONE if identity is ONE else TWO
    return Held(which, records(publish(which, ALICE, None, {MAIN: oid(1)})), generation=generation)


def size(held: Held) -> int:
    return held_states._size(held)


@pytest.fixture(params=[0, 1])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Room for both states, or for one byte less."""
    short: int = request.param
    monkeypatch.setattr(held_states, "MAX_BYTES", size(state(ONE)) + size(state(TWO)) - short)
    return short


def test_room_is_counted_in_bytes_and_what_was_asked_for_the_longest_ago_goes(room: int) -> None:
    for asked, other in itertools.permutations([ONE, TWO]):
        states = HeldStates()
        states.keep(state(asked))
        states.keep(state(other))
        here = [states.get(identity.repository, None) is not None for identity in (asked, other)]
        assert here == [not room, True]
        states.keep(state(asked))
        assert (states.get(other.repository, None) is None) == bool(room)
        assert states._bytes == sum(size(held) for held, _ in states._states.values())


def test_what_is_larger_than_all_the_room_is_not_kept_nor_what_it_takes_the_place_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = HeldStates()
    states.keep(state(ONE))
    grown = Held(ONE, records(publish(ONE, ALICE, None, {MAIN: oid(1), DEV: oid(2)})), generation=2)
    monkeypatch.setattr(held_states, "MAX_BYTES", size(grown) - 1)
    states.keep(grown)
    assert states.get(ONE.repository, None) is None
    assert states._bytes == 0


def test_only_the_generation_asked_for_is_told() -> None:
    states = HeldStates()
    states.keep(state(ONE, 7))
    assert states.get(ONE.repository, 6) is None
    assert states.get(ONE.repository, 8) is None
    held = state(ONE, 7)
    states.keep(held)
    assert states.get(ONE.repository, 7) is states.get(ONE.repository, None) is held
    assert states.take(ONE.repository) is held
    assert states.take(ONE.repository) is None


def test_commit_is_followed_where_all_of_it_is_known() -> None:
    before = Held(TWO, state(TWO).records, generation=3, fork=FORK)
    new = Verified(TWO, TWO.epoch + 1, (), records(publish(TWO, BOB, None, {DEV: oid(2)})), generation=3)
    after = following(before, new, 4)
    assert after == Held(TWO, new.records, generation=4, fork=FORK), "a fork is told once, and stays"
    assert following(None, new, 4) is None
    assert following(Held(TWO, before.records, generation=2), new, 4) is None
    first = Verified(ONE, 0, (), {}, generation=0)
    assert following(None, first, 1) == Held(ONE, {}, generation=1)
