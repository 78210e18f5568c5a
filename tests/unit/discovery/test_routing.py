import random

from hypothesis import given, settings
from hypothesis import strategies as st

from guts.discovery.contact import Contact
from guts.discovery.keys import KEY_BITS, Key
from guts.discovery.limits import BUCKET_SIZE
from guts.discovery.routing import PRIOR_LIFE_SECONDS, SILENCE_SECONDS, RoutingTable
from tests.support.dht import global_ip

OWN = Key(bytes(20))


def key(number: int) -> Key:
    return Key(number.to_bytes(20, "big"))


def contact(number: int, ip: str | None = None, port: int = 9000) -> Contact:
    return Contact(key(number), ip or global_ip(number % 65_536), port)


def failed(routing: RoutingTable, silent: Contact, now: float) -> bool:
    return routing.failed(silent.key, silent.ip, silent.port, now)


def table(*, local: bool = False) -> RoutingTable:
    return RoutingTable(OWN, lambda _: local)


numbers = st.integers(1, 2**160 - 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(numbers, st.integers(1, 5000)), min_size=1, max_size=200, unique=True),
    st.one_of(numbers, st.integers(1, 5000)),
    st.integers(1, 30),
)
def test_fault_7_nearest_is_exactly_what_brute_force_finds(ids: list[int], target: int, count: int) -> None:
    routing = table(local=True)
    for index, number in enumerate(ids):
        routing.answered(Contact(key(number), "10.0.0.1", 1 + index), 0.0)
    placed = [c.key.number for c in routing]
    expected = sorted(placed, key=lambda number: number ^ target)[:count]
    assert [c.key.number for c in routing.nearest(key(target), count)] == expected


def test_fault_14_crafted_ids_make_no_more_buckets_than_bits() -> None:
    rng = random.Random(14)
    routing = table(local=True)
    for index in range(2000):
        cluster = rng.randrange(50) << 152
        routing.answered(Contact(key(cluster | rng.getrandbits(8) | 1), "10.0.0.1", 1 + index), 0.0)
    assert len(routing) <= KEY_BITS * BUCKET_SIZE
    assert len(routing.untouched(1.0)) <= KEY_BITS


def far(index: int) -> int:
    """Return the index-th number of the farthest bucket."""
    return 1 << 159 | index


def test_a_bucket_holds_k_and_not_one_more() -> None:
    routing = table()
    for index in range(BUCKET_SIZE):
        assert routing.wants(contact(far(index)))
        assert routing.answered(contact(far(index)), 0.0)
    assert not routing.wants(contact(far(BUCKET_SIZE)))
    assert not routing.answered(contact(far(BUCKET_SIZE)), 0.0)
    assert len(routing) == BUCKET_SIZE


def test_a_spare_takes_the_place_of_a_contact_that_failed_twice() -> None:
    routing = table()
    for index in range(BUCKET_SIZE + 1):
        routing.answered(contact(far(index)), 0.0)
    assert not failed(routing, contact(far(3)), 1.0)
    assert key(far(3)) in routing
    assert failed(routing, contact(far(3)), 1.0)
    assert key(far(3)) not in routing
    assert key(far(BUCKET_SIZE)) in routing


def test_an_answer_between_two_failures_forgives_the_first() -> None:
    routing = table()
    routing.answered(contact(7), 0.0)
    failed(routing, contact(7), 1.0)
    routing.answered(contact(7), 2.0)
    failed(routing, contact(7), 3.0)
    assert key(7) in routing


def test_silence_at_an_address_that_a_liar_named_harms_nobody() -> None:
    routing = table()
    for index in range(BUCKET_SIZE + 1):
        routing.answered(contact(far(index)), 0.0)
    for silent in (contact(far(3), "20.0.9.9"), contact(far(3), port=9001)):
        assert not failed(routing, silent, 1.0)
        assert not failed(routing, silent, 1.0)
    assert key(far(3)) in routing
    assert not failed(routing, contact(far(BUCKET_SIZE), "20.0.9.9"), 1.0)
    for _ in range(2):
        failed(routing, contact(far(3)), 1.0)
    assert key(far(BUCKET_SIZE)) in routing


def test_nobody_is_evicted_while_nobody_at_all_answers() -> None:
    routing = table()
    routing.answered(contact(7), 0.0)
    for _ in range(5):
        assert not failed(routing, contact(7), SILENCE_SECONDS + 0.1)
    assert key(7) in routing
    routing.answered(contact(8), SILENCE_SECONDS + 1)
    assert failed(routing, contact(7), SILENCE_SECONDS + 2)


def test_a_bucket_holds_two_of_one_network_and_not_three() -> None:
    routing = table()
    assert routing.answered(contact(far(1), "20.0.0.1"), 0.0)
    assert routing.answered(contact(far(2), "20.0.0.2"), 0.0)
    assert not routing.answered(contact(far(3), "20.0.0.3"), 0.0)
    assert routing.answered(contact(far(4), "20.0.1.1"), 0.0)


def test_a_table_holds_ten_of_one_network_and_not_eleven() -> None:
    routing = table()
    placed = [routing.answered(contact(1 << 159 - i, f"20.0.0.{i}"), 0.0) for i in range(11)]
    assert placed == [True] * 10 + [False]
    six = [routing.answered(contact(3 << 150 - 2 * i, f"2a00:1::{i + 1:x}"), 0.0) for i in range(11)]
    assert six == [True] * 10 + [False]


def test_diversity_does_not_count_inside_the_own_private_range() -> None:
    routing = table(local=True)
    assert all(routing.answered(contact(far(i), "10.0.0.1", 9000 + i), 0.0) for i in range(BUCKET_SIZE))


def test_a_working_address_is_not_given_up_for_a_relays() -> None:
    routing = table()
    routing.answered(contact(7, "20.0.0.1"), 0.0)
    routing.answered(contact(7, "20.0.9.9"), 1.0)
    assert [c.ip for c in routing] == ["20.0.0.1"]
    failed(routing, contact(7, "20.0.0.1"), 2.0)
    routing.answered(contact(7, "20.0.9.9"), 3.0)
    assert [c.ip for c in routing] == ["20.0.9.9"]
    assert routing.at(("20.0.0.1", 9000)) is None


def test_a_new_id_at_an_address_replaces_the_old_one() -> None:
    routing = table()
    routing.answered(contact(7, "20.0.0.1"), 0.0)
    routing.answered(contact(9, "20.0.0.1"), 1.0)
    assert [c.key.number for c in routing] == [9]


def test_never_holds_its_own_id() -> None:
    routing = table()
    assert not routing.answered(Contact(OWN, "20.0.0.1", 9000), 0.0)
    assert not routing.wants(Contact(OWN, "20.0.0.1", 9000))


@given(st.integers(0, 159), st.integers(0, 2**160 - 1))
def test_a_random_key_falls_into_its_bucket(index: int, bits: int) -> None:
    routing = table()
    assert KEY_BITS - OWN.distance(routing.random_key(index, bits)).bit_length() == index


def test_mean_life_starts_cautious_and_learns_from_deaths() -> None:
    routing = table()
    assert routing.mean_life(0.0) == PRIOR_LIFE_SECONDS
    for i in range(4):
        routing.answered(contact(far(i)), 0.0)
    assert routing.mean_life(3600.0) == PRIOR_LIFE_SECONDS + 4 * 3600
    routing.answered(contact(far(0)), 3600.0)
    failed(routing, contact(far(1)), 3600.0)
    failed(routing, contact(far(1)), 3600.0)
    assert routing.mean_life(3600.0) == (PRIOR_LIFE_SECONDS + 3 * 3600) / 2
