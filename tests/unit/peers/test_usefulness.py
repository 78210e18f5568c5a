"""Who served well is asked first; it is an average, and no punishment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.peers.usefulness import MAX_RATE, MIN_MEASURED_BYTES, UNKNOWN_RATE, Usefulness

MIB = 1 << 20


def test_fast_peer_is_worth_more_than_an_unknown_one_and_that_more_than_one_that_fails() -> None:
    fast, slow, new, failing = (Usefulness() for _ in range(4))
    for _ in range(5):
        fast.served(8 * MIB, 1.0)
        slow.served(MIB, 100.0)
        failing.failed()
    assert fast.value > new.value > slow.value > 0
    assert new.value > failing.value > 0


def test_small_pack_says_nothing_about_the_line() -> None:
    useful = Usefulness()
    useful.served(MIN_MEASURED_BYTES - 1, 60.0)
    assert useful.rate == UNKNOWN_RATE
    useful.served(MIN_MEASURED_BYTES, 60.0)
    assert useful.rate < UNKNOWN_RATE


def test_failures_are_made_good_again() -> None:
    useful = Usefulness()
    for _ in range(10):
        useful.failed()
    assert useful.success == pytest.approx(0.8**10)
    for _ in range(20):
        useful.served(0, 0.0)
    assert useful.success > 0.98


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 1 << 40), st.floats(0, 1e6)))))
def test_average_stays_in_bounds(transfers: list[tuple[int, float] | None]) -> None:
    useful = Usefulness()
    for transfer in transfers:
        if transfer is None:
            useful.failed()
        else:
            useful.served(*transfer)
        assert 0.0 <= useful.success <= 1.0
        assert 0.0 <= useful.rate <= MAX_RATE
