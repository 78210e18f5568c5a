"""Offers that were refused: when they may be fetched again."""

from guts.sync.refused import (
    MAX_REFUSED,
    MAX_REFUSED_SECONDS,
    REFUSED_KEPT,
    REFUSED_SECONDS,
    RefusedRecords,
    offer_id,
)
from guts.wire.messages import EncodedRefs


def test_each_refusal_doubles_the_pause_up_to_a_bound() -> None:
    refused, now = RefusedRecords(), 100.0
    assert refused.until(b"offer") == 0.0
    pauses = []
    for _ in range(9):
        refused.refuse(b"offer", now)
        pauses.append(refused.until(b"offer") - now)
        now = refused.until(b"offer")
    assert pauses == [REFUSED_SECONDS * 2**n for n in range(6)] + [MAX_REFUSED_SECONDS] * 3
    refused.refuse(b"offer", now)
    refused.refuse(b"offer", now + REFUSED_KEPT)
    assert refused.until(b"offer") == now + REFUSED_KEPT + REFUSED_SECONDS


def test_so_many_offers_are_remembered_and_not_one_more() -> None:
    refused = RefusedRecords()
    for number in range(MAX_REFUSED):
        refused.refuse(b"%d" % number, 0.0)
    refused.refuse(b"0", 1.0)
    assert len(refused) == MAX_REFUSED
    refused.refuse(b"more", 1.0)
    assert len(refused) == MAX_REFUSED
    assert refused.until(b"1") == 0.0
    assert refused.until(b"0") > 0.0
    refused.clear()
    assert len(refused) == 0


def test_offer_is_known_by_its_records_in_any_order() -> None:
    one, two = EncodedRefs(b"one", b"entries"), EncodedRefs(b"two", b"entries")
    assert offer_id((one, two)) == offer_id((two, one))
    assert len({offer_id(()), offer_id((one,)), offer_id((two,)), offer_id((one, two))}) == 4
