"""Which handshakes a listener begins, and who goes for whom: every limit at its value and one past it."""

import random
from typing import Final

import pytest

from guts.addresses import neighbours
from guts.net import handshake_limits
from guts.net.handshake_limits import DEFAULT_HANDSHAKE_LIMITS, HandshakeGate, HandshakeLimits

OWN: Final = "203.0.113.1"
NOW: Final = 54_321.987
"""Some monotonic second: sums of floats must not decide."""


def gate(limits: HandshakeLimits = DEFAULT_HANDSHAKE_LIMITS) -> HandshakeGate:
    return HandshakeGate(limits)


def test_address_begins_six_handshakes_at_once_and_not_seven() -> None:
    strangers = gate()
    assert [strangers.may_begin("198.51.100.1", OWN, NOW) for _ in range(7)] == [True] * 6 + [False]
    assert strangers.may_begin("198.51.100.2", OWN, NOW)


def test_address_begins_six_a_minute_and_not_seven_however_often_it_knocks() -> None:
    strangers = gate()
    for _ in range(6):
        assert strangers.may_begin("198.51.100.1", OWN, NOW)
    begun = [second for second in range(1, 601) if strangers.may_begin("198.51.100.1", OWN, NOW + second)]
    assert begun == list(range(10, 601, 10))


def test_address_that_stays_away_begins_six_again_and_no_more() -> None:
    strangers = gate()
    for later in (0.0, 60.0, 1e7):
        assert [strangers.may_begin("198.51.100.1", OWN, NOW + later) for _ in range(7)] == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("198.51.100.1", "198.51.100.2", False),
    ],
)
def test_rate_is_of_an_ipv4_address_or_of_a_64(one: str, another: str, same: bool) -> None:
    strangers = gate()
    for _ in range(6):
        assert strangers.may_begin(one, "2001:db8::1", NOW)
    assert strangers.may_begin(another, "2001:db8::1", NOW) is not same


def test_rates_of_10_000_addresses_are_remembered_and_not_of_10_001() -> None:
    strangers = gate()
    first, last = "2001:db8:0:1::", f"2001:db8:0:{handshake_limits.MAX_SOURCES:x}::"
    for number in range(1, handshake_limits.MAX_SOURCES + 1):
        for _ in range(7):
            strangers.may_begin(f"2001:db8:0:{number:x}::", "2001:db8::1", NOW)
    assert strangers.sources == handshake_limits.MAX_SOURCES
    assert not strangers.may_begin(first, "2001:db8::1", NOW)  # and so the second is the next that is forgotten
    assert strangers.may_begin("2001:db8:1::", "2001:db8::1", NOW)
    assert strangers.sources == handshake_limits.MAX_SOURCES
    assert not strangers.may_begin(first, "2001:db8::1", NOW)
    assert not strangers.may_begin(last, "2001:db8::1", NOW)
    assert strangers.may_begin("2001:db8:0:2::", "2001:db8::1", NOW)


def test_fifth_handshake_of_an_address_takes_the_place_of_its_oldest() -> None:
    strangers = gate()
    assert strangers.begin(100, "198.51.100.9", OWN) is None
    assert [strangers.begin(number, "198.51.100.1", OWN) for number in range(6)] == [None] * 4 + [0, 1]
    assert len(strangers) == 5
    strangers.end(3)
    assert strangers.begin(6, "198.51.100.1", OWN) is None


@pytest.mark.parametrize(
    ("places", "outside"),
    [("198.51.100.{}", "198.51.101.1"), ("2001:db8:1:{:x}::1", "2001:db8:2::1")],
)
def test_17th_handshake_of_a_network_takes_the_place_of_its_oldest(places: str, outside: str) -> None:
    strangers = gate()
    assert strangers.begin(100, outside, OWN) is None
    assert [strangers.begin(number, places.format(number), OWN) for number in range(17)] == [None] * 16 + [0]
    assert len(strangers) == 17


def test_65th_handshake_takes_the_place_of_the_oldest_of_the_network_with_most() -> None:
    strangers = gate()
    strangers.begin(1000, "192.0.2.1", OWN)
    for number in range(63):
        # Three networks with 16, one with 15.
        assert strangers.begin(number, f"198.51.{number % 4}.{number}", OWN) is None
    assert len(strangers) == 64
    assert strangers.begin(2000, "192.0.2.2", OWN) == 0
    assert strangers.begin(2001, "192.0.2.3", OWN) == 1
    assert strangers.begin(2002, "192.0.2.4", OWN) == 2
    assert len(strangers) == 64


def test_who_is_out_stays_out() -> None:
    strangers = gate(HandshakeLimits(in_progress=1))
    assert strangers.begin(1, "198.51.100.1", OWN) is None
    assert strangers.begin(2, "192.0.2.1", OWN) == 1
    strangers.end(1)
    assert len(strangers) == 1
    assert strangers.begin(3, "203.0.113.7", OWN) == 2


def test_50_are_computed_in_a_second_and_not_51() -> None:
    strangers = gate()
    assert [strangers.wait_to_compute(NOW) for _ in range(50)] == [0.0] * 50
    wait = strangers.wait_to_compute(NOW)
    assert wait == pytest.approx(1 / 50)
    assert strangers.wait_to_compute(NOW + 0.019) > 0.0
    assert strangers.wait_to_compute(NOW + wait) == 0.0
    assert strangers.wait_to_compute(NOW + wait) > 0.0


def test_who_asks_all_the_time_computes_50_a_second() -> None:
    strangers = gate()
    computed = sum(strangers.wait_to_compute(NOW + tick / 1000) == 0.0 for tick in range(60_000))
    assert computed == pytest.approx(50 + 50 * 60, abs=1)


@pytest.mark.parametrize(
    ("remote", "own", "spared"),
    [
        ("127.3.2.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("192.168.7.7", "192.168.1.1", True),
        ("172.18.0.1", "172.18.0.4", True),
        ("fd00::1", "fd00:1::2", True),
        ("192.168.7.7", "10.0.0.1", False),
        ("192.168.7.7", "127.0.0.1", False),
        ("198.51.100.1", "127.0.0.1", False),
        ("198.51.100.1", "198.51.100.2", False),
        ("2001:db8::1", "::1", False),
    ],
)
def test_neighbours_are_spared_and_nobody_else(remote: str, own: str, spared: bool) -> None:
    assert neighbours(remote, own) is spared
    for limits in (DEFAULT_HANDSHAKE_LIMITS, HandshakeLimits(spare_neighbours=False)):
        strangers = gate(limits)
        expected = spared and limits.spare_neighbours
        assert all(strangers.may_begin(remote, own, NOW) for _ in range(100)) is expected
        assert (strangers.sources == 0) is expected
        dropped = [strangers.begin(number, remote, own) for number in range(65)]
        assert len(strangers) == (64 if expected else 4)
        assert dropped[-1] == (0 if expected else 60)


def test_no_order_of_comers_breaks_a_limit() -> None:
    """Whoever comes and goes in any order, the counts hold, and nothing is left when all have gone."""
    for seed in range(20):
        rng = random.Random(seed)
        print("seed", seed)
        strangers, present = gate(), dict[int, str]()
        for number in range(2000):
            if present and rng.random() < 0.2:
                gone = rng.choice(list(present))
                strangers.end(gone)
                del present[gone]
            ip = f"198.51.{int(rng.paretovariate(0.7)) % 200}.{int(rng.paretovariate(1.0)) % 250}"
            dropped = strangers.begin(number, ip, OWN)
            if dropped is not None:
                del present[dropped]
            present[number] = ip
            assert len(strangers) == len(present) <= 64
            assert sum(other == ip for other in present.values()) <= 4
            assert sum(other.rpartition(".")[0] == ip.rpartition(".")[0] for other in present.values()) <= 16
        for number in present:
            strangers.end(number)
        assert len(strangers) == 0
        assert not strangers._by_source
        assert not strangers._by_prefix
