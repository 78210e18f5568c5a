"""Whatever the order in which records arrive, and whichever are lost on the way: in the end the same refs.

The schedules are those of ``tests.simulation.trust_model``, with hypothesis to draw them, and to shorten one that
fails. Checked in each: replicas that heard everything show the same refs, no seq goes down, nothing that was
superseded returns, no honest history is a proof of equivocation, and pushes in turn leave one survivor.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guts.errors import Unavailable
from guts.node.acceptance import Held, verify
from guts.trust.canonical_refs import CanonicalRefs, canonical_refs
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs
from tests.simulation.trust_model import Model
from tests.unit.trust.world import ALICE, BOB, CAROL, DEV, MAIN, NOW, chain, oid, publish

CHAIN = chain(ALICE, BOB, CAROL)
_slow = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("splits", [0, 2])
@given(st.randoms(use_true_random=False))
@_slow
def test_replicas_that_heard_everything_agree_whatever_was_lost_on_the_way(splits: int, rng: random.Random) -> None:
    Model(rng, splits).run(steps=15)


def history() -> list[SignedRefs]:
    """Return what three signed in turn, all seen by the next, and what two of them signed apart after that."""
    newest: dict[bytes, SignedRefs] = {}
    made: list[SignedRefs] = []
    for turn in range(6):
        author = (ALICE, BOB, CAROL)[turn % 3]
        others = [record for record in newest.values() if record.author != author.author_id]
        record = publish(
            CHAIN,
            author,
            newest.get(author.author_id),
            {MAIN: oid(turn), (DEV if turn % 2 else "refs/tags/v1"): oid(100 + turn)},
            now=NOW + turn,
            others=others,
            forced={MAIN, DEV, "refs/tags/v1"},
        )
        newest[author.author_id] = record
        made.append(record)
    for author in (ALICE, BOB):
        others = [record for record in newest.values() if record.author != author.author_id]
        wanted = {MAIN: oid(len(made) + 10)}
        made.append(
            publish(CHAIN, author, newest[author.author_id], wanted, now=NOW + 20, others=others, forced={MAIN})
        )
    return made


RECORDS = history()


def deliver(held: Held, records: list[SignedRefs], *, bridged: bool = False) -> Held:
    """Return what a replica holds after it was offered ``records`` together."""
    encoded = tuple(EncodedRefs(record.header_bytes, record.entries_bytes) for record in records)
    # Of each author in order: what leads to the newest from what is held.
    headers = [
        r for r in RECORDS if bridged and r not in records and (h := held.records.get(r.author)) and h.seq < r.seq
    ]
    bridge = tuple(record.header_bytes for record in headers)
    try:
        verified = verify(CHAIN.repository, held, (), bridge, encoded, NOW + 1000)
    except Unavailable:
        return held
    assert verified is None or not verified.proofs, "an honest history makes no proof"
    return held if verified is None else Held(held.chain, verified.records)


def shown(identity: IdentityChain, held: Held) -> CanonicalRefs:
    return canonical_refs(identity, held.records)


@given(st.permutations(RECORDS), st.integers(0, len(RECORDS)), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_any_subset_in_any_order_and_then_all_is_one_state(order: list[SignedRefs], count: int, together: int) -> None:
    held = Held(CHAIN, {})
    seqs: dict[bytes, int] = {}
    for start in range(0, count, together):
        held = deliver(held, order[start : start + together])
        for author, record in held.records.items():
            assert record.seq >= seqs.get(author, 0)
            seqs[author] = record.seq
    newest = {record.author: record for record in RECORDS}
    held = deliver(held, list(newest.values()), bridged=True)
    assert dict(held.records) == newest
    assert shown(CHAIN, held) == canonical_refs(CHAIN, newest)
