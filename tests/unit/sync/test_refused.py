"""Offers that were refused: when they may be fetched again, and from whom."""

import math

from guts.ids import PeerId
from guts.sync.refused import (
    MAX_GIVERS,
    MAX_REFUSED,
    MAX_REFUSED_SECONDS,
    MAX_UNTRIED_SECONDS,
    REFUSED_KEPT,
    REFUSED_SECONDS,
    RefusedRecords,
    offer_id,
)
from guts.wire.messages import EncodedRefs
from tests.support.peers import IDS

LIAR, OTHER = IDS[1], IDS[2]


def test_each_refusal_doubles_the_pause_up_to_a_bound_that_is_lower_for_who_was_not_tried() -> None:
    refused, now = RefusedRecords(), 100.0
    assert refused.until(b"offer", LIAR) == 0.0
    pauses, untried = [], []
    for _ in range(9):
        refused.refuse(b"offer", LIAR, now)
        pauses.append(refused.until(b"offer", LIAR) - now)
        untried.append(refused.until(b"offer", OTHER) - now)
        now = refused.until(b"offer", LIAR)
    assert pauses == [REFUSED_SECONDS * 2**n for n in range(6)] + [MAX_REFUSED_SECONDS] * 3
    assert untried == [15.0, 30.0] + [MAX_UNTRIED_SECONDS] * 7
    refused.refuse(b"offer", LIAR, now)
    refused.refuse(b"offer", LIAR, now + REFUSED_KEPT)
    assert refused.until(b"offer", LIAR) == now + REFUSED_KEPT + REFUSED_SECONDS


def test_so_many_offers_are_remembered_and_not_one_more() -> None:
    refused = RefusedRecords()
    for number in range(MAX_REFUSED):
        refused.refuse(b"%d" % number, LIAR, 0.0)
    refused.refuse(b"0", LIAR, 1.0)
    assert len(refused) == MAX_REFUSED
    refused.refuse(b"more", LIAR, 1.0)
    assert len(refused) == MAX_REFUSED
    assert refused.until(b"1", LIAR) == 0.0
    assert refused.until(b"0", LIAR) > 0.0
    refused.offered(b"0", OTHER)
    refused.clear()
    assert len(refused) == 0
    assert refused.due_at() == math.inf


def test_so_many_givers_are_remembered_and_not_one_more() -> None:
    refused = RefusedRecords()
    givers = [PeerId(bytes([number]) * 32) for number in range(MAX_GIVERS + 1)]
    for giver in (*givers[:-1], givers[1]):
        refused.refuse(b"offer", giver, 0.0)
    assert {refused.until(b"offer", giver) for giver in givers[:-1]} == {MAX_REFUSED_SECONDS}
    assert refused.until(b"offer", givers[-1]) == MAX_UNTRIED_SECONDS
    refused.refuse(b"offer", givers[-1], 0.0)
    assert refused.until(b"offer", givers[0]) == MAX_UNTRIED_SECONDS, "who gave it first is forgotten"
    assert {refused.until(b"offer", giver) for giver in givers[1:]} == {MAX_REFUSED_SECONDS}


def test_who_offers_what_is_refused_is_due_once_in_its_time_and_not_once_it_is_gone() -> None:
    refused = RefusedRecords()
    for _ in range(4):
        refused.refuse(b"offer", LIAR, 0.0)
    for peer in (LIAR, OTHER, IDS[3]):
        refused.offered(b"offer", peer)
    refused.gone(IDS[3])
    refused.gone(IDS[4])
    assert refused.due_at() == MAX_UNTRIED_SECONDS
    assert refused.due(MAX_UNTRIED_SECONDS - 0.1) == []
    assert refused.due(MAX_UNTRIED_SECONDS) == [OTHER]
    assert refused.due_at() == 8 * REFUSED_SECONDS
    assert refused.due(8 * REFUSED_SECONDS) == [LIAR]
    assert refused.due(math.inf) == []


def test_offer_is_known_by_its_records_in_any_order() -> None:
    one, two = EncodedRefs(b"one", b"entries"), EncodedRefs(b"two", b"entries")
    assert offer_id((one, two)) == offer_id((two, one))
    assert len({offer_id(()), offer_id((one,)), offer_id((two,)), offer_id((one, two))}) == 4
