"""So many ids, for so long, the least recently met go first."""

from guts.gossip.protocol import REJECTED_LIMIT, REJECTED_SECONDS, SEEN_LIMIT, SEEN_SECONDS
from guts.gossip.seen import SeenCache


def test_limits_are_those_of_the_design() -> None:
    assert (SEEN_LIMIT, SEEN_SECONDS) == (65_536, 600.0)
    assert (REJECTED_LIMIT, REJECTED_SECONDS) == (4_096, 3600.0)


def test_id_is_new_once() -> None:
    cache = SeenCache(10, 600.0)
    assert not cache.knows(b"a", 0.0)
    assert cache.meet(b"a", 0.0)
    assert cache.knows(b"a", 1.0)
    assert not cache.meet(b"a", 1.0)


def test_id_is_forgotten_so_long_after_it_was_last_met() -> None:
    cache = SeenCache(10, 600.0)
    cache.meet(b"a", 0.0)
    cache.meet(b"b", 1.0)
    cache.meet(b"a", 599.0)
    assert cache.knows(b"a", 601.0)
    assert not cache.knows(b"b", 601.0)
    assert cache.knows(b"a", 1198.9)
    assert cache.meet(b"a", 1199.0)


def test_one_more_than_the_limit_pushes_the_least_recent_out() -> None:
    cache = SeenCache(100, 600.0)
    for number in range(100):
        cache.meet(bytes([number]), 0.0)
    assert len(cache) == 100
    assert cache.knows(bytes([0]), 0.0)
    cache.meet(bytes([0]), 0.0)
    cache.meet(b"more", 0.0)
    assert len(cache) == 100
    assert not cache.knows(bytes([1]), 0.0)
    assert cache.knows(bytes([0]), 0.0)


def test_flood_of_ids_takes_no_more_room_than_the_limit() -> None:
    cache = SeenCache(1000, 600.0)
    for number in range(100_000):
        cache.meet(number.to_bytes(4, "big"), 0.0)
    assert len(cache) == 1000


def test_forgotten_id_is_new_again() -> None:
    cache = SeenCache(10, 600.0)
    cache.meet(b"a", 0.0)
    cache.forget(b"a")
    cache.forget(b"never met")
    assert cache.meet(b"a", 0.0)
