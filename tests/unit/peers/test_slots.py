"""Places for those who come in: per host, per prefix, and who goes when all are taken."""

import random
from collections.abc import Collection

import pytest

from guts.addresses import Address
from guts.events import ConnectionId
from guts.ids import PeerId
from guts.peers.networks import Surroundings
from guts.peers.slots import (
    GRACE,
    MAX_PER_HOST,
    MAX_PER_PREFIX,
    PROTECTED_HOLDERS,
    PROTECTED_KNOWN,
    PROTECTED_NEAR,
    PROTECTED_PREFIXES,
    Slots,
)
from guts.peers.state import PeerConnection
from guts.wire.secure import Direction

SECRET = bytes(16)


def slots(maximum: int = 50, *own: str) -> Slots:
    return Slots(maximum, Surroundings(own), SECRET)


def least(
    table: Slots,
    inbound: list[PeerConnection],
    useful: Collection[int] = (),
    known: Collection[int] = (),
    *,
    now: float = 1e9,
    stranger: bool = True,
) -> PeerConnection | None:
    return table.least_wanted(inbound, lambda c: c.id in useful, lambda c: c.id in known, now, stranger=stranger)


def came(number: int, ip: str, opened_at: float = 0.0, rtt: float | None = None) -> PeerConnection:
    peer = PeerId(number.to_bytes(32, "big"))
    connection = PeerConnection(
        ConnectionId(number), Direction.INBOUND, peer, Address(ip, 1), None, opened_at, opened_at
    )
    connection.rtt = rtt
    return connection


@pytest.mark.parametrize(("maximum", "inbound"), [(50, 42), (17, 9), (16, 8), (10, 5), (2, 1), (1, 1)])
def test_eight_places_are_kept_for_those_that_we_dial_or_half_of_a_small_table(maximum: int, inbound: int) -> None:
    assert slots(maximum).inbound_maximum == inbound


@pytest.mark.parametrize(("same", "other"), [("45.0.0.1", "45.0.0.2"), ("2a00:1:2:3::%x", "2a00:1:2:4::1")])
def test_host_has_four_and_not_five(same: str, other: str) -> None:
    ips = [same % n if "%" in same else same for n in range(1, MAX_PER_HOST + 2)]
    inbound = [came(n, ip) for n, ip in enumerate(ips[:-1])]
    assert not slots().crowded(ips[-1], inbound[:-1])
    assert slots().crowded(ips[-1], inbound)
    assert not slots().crowded(other, inbound)


@pytest.mark.parametrize(("pattern", "other"), [("45.0.0.%d", "45.0.1.1"), ("2a00:1:2:%x::1", "2a00:1:3::1")])
def test_prefix_has_ten_and_not_eleven(pattern: str, other: str) -> None:
    inbound = [came(n, pattern % n) for n in range(1, MAX_PER_PREFIX + 1)]
    assert not slots().crowded(pattern % 99, inbound[:-1])
    assert slots().crowded(pattern % 99, inbound)
    assert not slots().crowded(other, inbound)


def test_range_that_the_node_is_in_is_not_counted() -> None:
    inbound = [came(n, "10.0.0.1") for n in range(40)]
    assert slots().crowded("10.0.0.1", inbound)
    assert not slots(50, "10.9.9.9").crowded("10.0.0.1", inbound)
    assert slots(50, "192.168.0.1").crowded("10.0.0.1", inbound)


def test_youngest_of_the_most_frequent_network_goes() -> None:
    inbound = [came(n, f"45.{n}.0.1", float(n)) for n in range(20)]
    inbound += [came(100 + n, f"46.0.0.{n}", float(n)) for n in range(10)]
    victim = least(slots(), inbound)
    assert victim is not None
    assert victim.id == 109


def test_near_useful_and_old_connections_of_secret_networks_stay_whatever_comes() -> None:
    """An attacker who comes last, from anywhere, gets no place of these."""
    rng = random.Random(3)
    near = [came(n, f"45.{n}.0.1", 1000.0, 0.001 * (n + 1)) for n in range(PROTECTED_NEAR)]
    holders = [came(20 + n, f"46.{n}.0.1", 1000.0) for n in range(PROTECTED_HOLDERS)]
    useful = {connection.id for connection in holders}
    known = [came(60 + n, f"49.{n}.0.1", 1000.0) for n in range(PROTECTED_KNOWN)]
    friends = {connection.id for connection in known}
    old = [came(40 + n, f"47.{n}.0.1", float(n)) for n in range(4)]
    inbound = [*near, *holders, *known, *old]
    number = 100
    while len(inbound) < 42:
        inbound.append(came(number, f"48.{number % 250}.0.1", 2000.0 + number, 0.5))
        number += 1
    gone = set()
    for _ in range(500):
        victim = least(slots(), inbound, useful, friends)
        assert victim is not None
        gone.add(victim.id)
        inbound.remove(victim)
        inbound.append(came(number, f"48.{rng.randrange(256)}.{rng.randrange(256)}.1", 2000.0 + number, 0.5))
        number += 1
    assert not gone & {connection.id for connection in (*near, *holders, *known, *old)}
    assert len(gone) == 500


def test_secret_chooses_the_networks_that_are_kept() -> None:
    inbound = [came(n, f"45.{n}.0.1", float(n)) for n in range(12)]
    kept = set()
    for number in range(40):
        table = Slots(50, Surroundings(), number.to_bytes(16, "big"))
        left = list(inbound)
        while (victim := least(table, left)) is not None:
            left.remove(victim)
        assert PROTECTED_PREFIXES <= len(left) <= PROTECTED_PREFIXES + 1
        kept.add(tuple(connection.id for connection in left))
    assert len(kept) > 30


def test_nobody_goes_where_all_are_worth_keeping() -> None:
    inbound = [came(n, f"45.{n}.0.1", 0.0, 0.1) for n in range(PROTECTED_PREFIXES + PROTECTED_NEAR)]
    assert least(slots(), inbound) is None
    assert least(slots(), []) is None


def test_newcomer_has_three_seconds_before_another_stranger_takes_its_place() -> None:
    inbound = [came(n, f"45.{n}.0.1", 100.0) for n in range(20)]
    assert least(slots(), inbound, now=100.0 + GRACE - 0.001) is None
    assert least(slots(), inbound, now=100.0 + GRACE) is not None
    assert least(slots(), inbound, now=100.0, stranger=False) is not None, "who was reached before is no stranger"
