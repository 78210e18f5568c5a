"""What was accepted once is accepted again, in whichever order the files of a folder come."""

import itertools

import pytest

from guts.ids import AuthorId
from guts.node.rebuilding import NothingAccepted, accept_again
from guts.store.history import IdentityFork
from guts.trust.canonical_refs import canonical_refs
from guts.trust.equivocation import EquivocationProof
from guts.trust.signed_refs import SignedRefs
from tests.unit.trust.world import ALICE, BOB, CAROL, MAIN, NOW, by_hand, chain, oid, publish, records

IDENTITY = chain(ALICE, BOB, CAROL)
FIRST = publish(IDENTITY, ALICE, None, {MAIN: oid(1)})
SECOND = publish(IDENTITY, BOB, None, {MAIN: oid(2)}, now=NOW + 1, others=[FIRST])
THIRD = publish(IDENTITY, CAROL, None, {MAIN: oid(3)}, now=NOW + 2, others=[FIRST, SECOND])
EVERYTHING = records(FIRST, SECOND, THIRD)


def folder(*signed: SignedRefs) -> dict[AuthorId, tuple[bytes, bytes]]:
    return {record.author: (record.header_bytes, record.entries_bytes) for record in signed}


@pytest.mark.parametrize("order", list(itertools.permutations([FIRST, SECOND, THIRD])))
def test_records_that_saw_each_other_are_accepted_in_any_order(order: tuple[SignedRefs, ...]) -> None:
    verified, refused = accept_again(IDENTITY.repository, IDENTITY.documents, folder(*order), [], NOW + 3)

    assert not refused
    assert dict(verified.records) == EVERYTHING
    assert records(*(new.record for new in verified.new)) == EVERYTHING
    assert all(new.replaced is None for new in verified.new)
    shown = canonical_refs(verified.chain, verified.records, frozenset())
    assert shown.refs == canonical_refs(IDENTITY, EVERYTHING, frozenset()).refs


def test_records_of_maintainers_who_pushed_in_turn_are_accepted_together() -> None:
    """Each has seen a record of the other that is gone: none of them could come first."""
    again = publish(IDENTITY, ALICE, FIRST, {MAIN: oid(4)}, now=NOW + 3, others=[SECOND, THIRD])
    both = publish(IDENTITY, BOB, SECOND, {MAIN: oid(5)}, now=NOW + 4, others=[again, THIRD])
    newest = (again, both, THIRD)
    verified, refused = accept_again(IDENTITY.repository, IDENTITY.documents, folder(*newest), [], NOW + 5)
    assert not refused
    assert dict(verified.records) == records(*newest)


def test_damaged_record_keeps_no_other_out() -> None:
    kept = folder(FIRST, SECOND, THIRD)
    header, entries = kept[BOB.author_id]
    kept[BOB.author_id] = (header[:-1] + bytes([header[-1] ^ 1]), entries)
    verified, refused = accept_again(IDENTITY.repository, IDENTITY.documents, kept, [], NOW + 3)
    assert dict(verified.records) == records(FIRST)
    assert sorted(refused) == sorted([BOB.author_id, CAROL.author_id]), "Carol has seen what is damaged"


def test_record_that_can_not_be_accepted_keeps_no_other_out() -> None:
    future = by_hand(IDENTITY, CAROL, {}, seq=NOW + 30 * 24 * 3600 * 1000)
    verified, refused = accept_again(
        IDENTITY.repository, IDENTITY.documents, folder(FIRST, SECOND, future), [], NOW + 3
    )

    assert dict(verified.records) == records(FIRST, SECOND)
    assert list(refused) == [future.author]


def test_folder_without_a_record_that_counts_is_told() -> None:
    future = by_hand(IDENTITY, CAROL, {}, seq=NOW + 30 * 24 * 3600 * 1000)
    for signed in ([], [future]):
        with pytest.raises(NothingAccepted):
            accept_again(IDENTITY.repository, IDENTITY.documents, folder(*signed), [], NOW + 3)


def test_proofs_come_back_and_a_damaged_one_spoils_nothing() -> None:
    one, two = (publish(IDENTITY, ALICE, FIRST, {MAIN: oid(n)}, now=NOW + n) for n in (6, 7))
    proof = EquivocationProof.of(one.signed_header, two.signed_header, FIRST.signed_header)
    renamed = [
        IDENTITY.extend(IDENTITY.successor(created_ms=NOW, nonce=bytes(16), name=name).sign(ALICE, BOB))
        for name in ("left", "right")
    ]
    proofs = [proof.encode(), proof.encode()[:-1], renamed[1].documents[1], b""]
    verified, refused = accept_again(
        IDENTITY.repository, renamed[0].documents, folder(one, SECOND, THIRD), proofs, NOW + 9
    )
    assert dict(verified.proofs) == {ALICE.author_id: proof}
    assert verified.fork == IdentityFork(1, renamed[1].documents[1])
    assert dict(verified.records) == records(SECOND, THIRD), "the branch that was in the folder does not count"
    assert not refused
