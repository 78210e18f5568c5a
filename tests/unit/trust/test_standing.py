"""Which record of an author counts, of those that a replica has kept."""

import pytest

from guts.trust.chain import IdentityChain
from guts.trust.equivocation import EquivocationProof
from guts.trust.identity_document import AuthorPoint
from guts.trust.signed_refs import SignedRefs
from guts.trust.standing import counts, standing
from tests.unit.trust.world import ALICE, BOB, MAIN, NOW, chain, oid, publish

BOTH = chain(ALICE, BOB, threshold=1)


def history(previous: SignedRefs | None, *times: int) -> list[SignedRefs]:
    """Return Alice's records at these milliseconds, each after the one before."""
    made: list[SignedRefs] = []
    for time in times:
        previous = publish(BOTH, ALICE, previous, {MAIN: oid(time)}, now=NOW + time)
        made.append(previous)
    return made


FIRST, SECOND, THIRD, FOURTH = history(None, 1, 2, 4, 6)
(BRANCH,) = history(SECOND, 5)
PROOF = EquivocationProof.of(THIRD.signed_header, BRANCH.signed_header, SECOND.signed_header)
EARLY = history(FIRST, 3)[0]
EARLIER = EquivocationProof.of(SECOND.signed_header, EARLY.signed_header, FIRST.signed_header)


def of(
    identity: IdentityChain,
    current: SignedRefs | None,
    *kept: SignedRefs,
    proof: EquivocationProof | None = None,
    headers_only: tuple[SignedRefs, ...] = (),
) -> bytes | None:
    headers = {record.hash: record.header for record in (*kept, *headers_only)}
    whole = {record.hash for record in kept}
    at = None if current is None else current.header
    return standing(identity, proof, ALICE.author_id, at, headers, whole)


def reaffirming(record: SignedRefs) -> IdentityChain:
    point = AuthorPoint(ALICE.author_id, record.seq, record.hash)
    return BOTH.extend(BOTH.successor(created_ms=NOW, nonce=bytes(16), reaffirmed=(point,)).sign(BOB))


def removing(record: SignedRefs | None) -> IdentityChain:
    seq, digest = (0, b"") if record is None else (record.seq, record.hash)
    document = BOTH.successor(
        created_ms=NOW,
        nonce=bytes(16),
        maintainers=(BOB.author_id,),
        removed=(AuthorPoint(ALICE.author_id, seq, digest),),
    )
    return BOTH.extend(document.sign(BOB))


def test_newest_record_counts_where_nothing_was_said() -> None:
    assert of(BOTH, FOURTH, FIRST, SECOND, THIRD) == FOURTH.hash
    assert of(BOTH, None, FIRST) is None
    assert of(BOTH, None) is None


def test_record_before_the_earliest_split_counts_whichever_branch_is_held() -> None:
    for current, kept in ((FOURTH, (FIRST, SECOND, THIRD)), (BRANCH, (FIRST, SECOND)), (SECOND, (FIRST, FOURTH))):
        assert of(BOTH, current, *kept, proof=PROOF) == SECOND.hash
        assert of(BOTH, current, *kept, proof=EARLIER) == FIRST.hash
    assert not counts(BOTH, PROOF, THIRD.header)
    assert counts(BOTH, PROOF, SECOND.header)


def test_record_without_its_entries_is_passed_over() -> None:
    assert of(BOTH, FOURTH, FIRST, headers_only=(SECOND, THIRD), proof=PROOF) == FIRST.hash
    assert of(BOTH, FOURTH, FIRST, headers_only=(SECOND,), proof=PROOF) is None, "nothing leads there"
    assert of(BOTH, FOURTH, headers_only=(FIRST, SECOND, THIRD), proof=PROOF) is None


@pytest.mark.parametrize("named", [SECOND, THIRD, BRANCH])
def test_reaffirmed_record_counts_whichever_branch_is_held(named: SignedRefs) -> None:
    identity = reaffirming(named)
    kept = (FIRST, SECOND, THIRD, FOURTH, BRANCH)
    for current in (None, *kept):
        others = tuple(record for record in kept if record is not current)
        if current is named:
            assert of(identity, current, *others, proof=PROOF) == named.hash
            continue
        # A header that the limit does not cut off, and that is older than the one named, is overtaken by that.
        assert of(identity, current, *others, proof=PROOF) == named.hash


def test_author_who_goes_on_from_the_reaffirmed_record_does_not_go_back_to_it() -> None:
    identity = reaffirming(SECOND)
    on = publish(identity, ALICE, SECOND, {MAIN: oid(9)}, now=NOW + 9)
    assert of(identity, on, FIRST, SECOND, THIRD, proof=PROOF) == on.hash


def test_removed_author_counts_up_to_the_freeze_point() -> None:
    kept = (FIRST, SECOND, THIRD)
    assert of(removing(SECOND), FOURTH, *kept) == SECOND.hash
    assert of(removing(FOURTH), FOURTH, *kept) == FOURTH.hash
    assert of(removing(None), FOURTH, *kept) is None
    assert of(removing(FOURTH), SECOND, FIRST) == SECOND.hash, "what is not here can't be shown yet"
