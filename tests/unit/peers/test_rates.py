"""Buckets keep what they promise: at most rate times time and one burst, and nobody waits longer than for that."""

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guts.effects import Candidate
from guts.ids import PeerId
from guts.limits import DEFAULTS, Limits
from guts.peers.penalties import PENALTY
from guts.peers.rates import (
    FAIR_SHARE,
    MAX_CONTROL_PENALTY,
    MAX_PEERS,
    MAX_WAIT,
    UNLOOKED,
    MessageClass,
    Rates,
    TokenBucket,
    class_of,
    signatures_in,
    signatures_offered,
)
from guts.wire.messages import EncodedRefs, Message
from tests.support.messages import EXAMPLES
from tests.support.peers import IDS

ONE, OTHER = IDS[1], IDS[2]
HERE, THERE = "198.51.100.7", "203.0.113.9"
EXPECTED = {"control": (2, 60), "gossip": (10, 1024), "refs": (5, 100), "objects": (10, 100), "answers": (100, 1000)}


def rates(limits: Limits | None = None, penalised: Sequence[str] = ()) -> Rates:
    return Rates(limits or Limits(), lambda peer, ip, now: PENALTY if ip in penalised else 1.0)


@pytest.mark.parametrize("kind", MessageClass)
def test_burst_passes_at_once_and_one_more_waits_for_its_token(kind: MessageClass) -> None:
    rate, burst = EXPECTED[kind]
    buckets = rates()
    assert [buckets.spend(ONE, HERE, kind, 0, 5.0) for _ in range(burst)] == [0.0] * burst
    assert buckets.spend(ONE, HERE, kind, 0, 5.0) == pytest.approx(1 / rate)
    # The token is back; the next one waits again, and not longer.
    assert buckets.spend(ONE, HERE, kind, 0, 5.0 + 1 / rate) == pytest.approx(1 / rate)
    # Others, and other classes, have buckets of their own.
    assert buckets.spend(OTHER, HERE, kind, 0, 5.0) == 0.0
    assert all(buckets.spend(ONE, HERE, other, 0, 5.0) == 0.0 for other in MessageClass if other is not kind)


@pytest.mark.parametrize(("name", "peers"), [("bytes", 1), ("total_bytes", 3)])
def test_bytes_of_a_peer_and_of_all_pass_up_to_the_burst_and_not_above(name: str, peers: int) -> None:
    limits = Limits()
    buckets = rates(limits)
    rate, burst = int(DEFAULTS[f"{name}_rate"]), int(DEFAULTS[f"{name}_burst"])
    size = burst // peers
    waits = [buckets.spend(IDS[number], HERE, MessageClass.REFS, size, 0.0) for number in range(peers)]
    assert waits == [0.0] * peers
    left = burst - size * peers
    assert buckets.spend(IDS[5 if peers > 1 else 0], HERE, MessageClass.REFS, left + 1, 0.0) == pytest.approx(1 / rate)
    assert limits.meters[f"{name}_rate"].bit == 1
    assert limits.meters[f"{name}_burst"].peak == burst


def test_checks_pass_up_to_the_burst_and_not_above() -> None:
    buckets = rates()
    assert buckets.spend_checks(ONE, int(DEFAULTS["checks_burst"]), 0.0) == 0.0
    assert buckets.spend_checks(ONE, 1, 0.0) == pytest.approx(1 / 1000)
    assert buckets.spend_checks(ONE, 1, 10.0) == 0.0


def test_who_used_less_than_a_fair_share_of_the_checks_waits_for_nobody_elses() -> None:
    buckets = rates()
    burst, fair = int(DEFAULTS["checks_burst"]), int(DEFAULTS["checks_burst"] * FAIR_SHARE)
    most = (burst / FAIR_SHARE - burst) / DEFAULTS["checks_rate"]
    waits = [buckets.spend_checks(PeerId(bytes([number]) * 32), burst, 0.0) for number in range(20)]
    owed = [min(number * burst / DEFAULTS["checks_rate"], most) for number in range(20)]
    assert waits == pytest.approx([min(wait, MAX_WAIT) for wait in owed])
    assert buckets.spend_checks(ONE, fair, 0.0) == 0.0
    assert buckets.spend_checks(ONE, 1, 0.0) > 0.0
    assert buckets.spend_checks(OTHER, 1, 0.0) == 0.0
    assert buckets.spend_checks(ONE, fair, most + 0.6) == 0.0, "the debt of all has an end"


def test_where_a_key_was_banned_everything_costs_ten_times_as_much() -> None:
    buckets = rates(penalised=[HERE])
    burst = int(DEFAULTS["refs_burst"] / PENALTY)
    assert [buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) for _ in range(burst)] == [0.0] * burst
    assert buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) == pytest.approx(PENALTY / 5)
    assert buckets.spend(OTHER, THERE, MessageClass.REFS, 0, 0.0) == 0.0
    # Another key at the same place pays out of the same purse.
    assert buckets.spend(OTHER, HERE, MessageClass.REFS, 0, 0.0) == pytest.approx(2 * PENALTY / 5)
    # What all share is not used up faster by it.
    assert buckets.spend(ONE, HERE, MessageClass.GOSSIP, 4 << 20, 0.0) > 0
    assert buckets.used(0.0)["total_bytes_burst"] == 4 << 20


def test_pings_cost_forty_times_as_much_at_the_most() -> None:
    buckets = Rates(Limits(), lambda peer, ip, now: 160.0)
    rate, burst = EXPECTED["control"]
    assert buckets.spend(ONE, HERE, MessageClass.CONTROL, 0, 0.0) == 0.0
    assert buckets.spend(ONE, HERE, MessageClass.CONTROL, 0, 0.0) == (2 * MAX_CONTROL_PENALTY - burst) / rate


def test_new_limits_count_at_once_and_old_debts_do_not_outlive_them() -> None:
    limits = Limits()
    buckets = rates(limits)
    for _ in range(100):
        assert buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) == 0.0
    limits.values.update(refs_burst=10, refs_rate=0.1)
    buckets.changed()
    assert buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) == pytest.approx(1 / 0.1)
    limits.values.update(refs_burst=1000, refs_rate=5.0)
    buckets.changed()
    assert [buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) for _ in range(989)] == [0.0] * 989
    assert buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) > 0


def test_peers_remembered_are_bounded_and_who_owes_nothing_goes_first() -> None:
    buckets = rates()
    for _ in range(101):
        buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0)
    for number in range(MAX_PEERS - 1):
        buckets.spend(PeerId(number.to_bytes(32, "big")), HERE, MessageClass.REFS, 0, 0.0)
    # Another connection, or a new process: what it owes is not forgotten, while there is room.
    assert buckets.spend(ONE, HERE, MessageClass.REFS, 0, 0.0) > 0
    buckets.spend(PeerId(b"x" * 32), HERE, MessageClass.REFS, 0, 0.0)
    assert len(buckets._peers) == MAX_PEERS
    buckets.spend(PeerId(b"y" * 32), HERE, MessageClass.REFS, 0, 1000.0)
    assert len(buckets._peers) == UNLOOKED
    buckets.spend(PeerId(b"z" * 32), HERE, MessageClass.REFS, 0, 1000.0)
    assert len(buckets._peers) == UNLOOKED, "one more, and one that owes nothing is forgotten"


def test_clock_that_stands_still_or_goes_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket()
    assert bucket.spend(5, 1.0, 5, 100.0) == 0.0
    assert bucket.spend(1, 1.0, 5, 50.0) == 1.0
    assert bucket.spend(0, 1.0, 5, 101.0) == 0.0


@given(
    st.floats(0.1, 1000.0),
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 100.0)), max_size=60),
)
def test_who_waits_as_told_gets_the_rate_and_a_burst_and_one_message(
    rate: float, burst: int, steps: list[tuple[float, float]]
) -> None:
    """P10: never more than rate x time + burst (+ the one message that was not known before), and never starved."""
    bucket, now, spent, largest = TokenBucket(), 0.0, 0.0, 0.0
    for idle, amount in steps:
        now += idle
        wait = bucket.spend(amount, rate, burst, now)
        spent += amount
        largest = max(largest, amount)
        assert spent <= (rate * now + burst + largest) * (1 + 1e-9)
        assert wait <= amount / rate + 1e-9
        now += wait


def test_every_message_has_a_class() -> None:
    assert {type(message) for message in EXAMPLES.values()} == set(get_args(Message))
    assert {class_of(message) for message in EXAMPLES.values()} == set(MessageClass)


def test_every_signature_that_is_offered_counts() -> None:
    assert signatures_offered(Candidate((b"d",) * 3, (b"h",) * 5, (EncodedRefs(b"h", b"e"),), (b"p",))) == 11
    assert {name: signatures_in(message) for name, message in EXAMPLES.items() if signatures_in(message)} == {
        **dict.fromkeys(["Hello", "Hello, nothing said", "HelloAck", "NewRepository"], 1),
        **dict.fromkeys(["Receipt", "Receipt, not asked for"], 1),
        "Peers": 2,
    }
