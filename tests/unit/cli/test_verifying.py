"""How refs compare with what several maintainers signed, and what is believed of those who tell it."""

import base64
from collections.abc import Mapping

import pytest

from guts.cli.answer import Answer, BadAnswer
from guts.cli.verifying import (
    Finding,
    Signature,
    Signed,
    Verdict,
    compare,
    compare_head,
    compare_whole_head,
    earlier_signature,
    fetching_may_help,
    judged,
)
from guts.ids import AuthorId, ObjectId
from guts.trust.canonical_refs import AncestorFacts
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from tests.unit.trust.world import ALICE, BOB, DEV, EVE, MAIN, NOW, chain, oid, publish, records

TAG = "refs/tags/v1"
BOTH = chain(ALICE, BOB)
ALICES = publish(BOTH, ALICE, None, {MAIN: oid(1), TAG: oid(9)}, now=NOW - 5_000)
BOBS = publish(BOTH, BOB, None, {MAIN: oid(2), DEV: oid(3)}, now=NOW - 4_000)
CONFLICT = f"refs/guts/conflict/{BOB.author_id}/{MAIN}"


def state(*signed: SignedRefs, ancestors: AncestorFacts = frozenset()) -> Signed:
    return Signed(BOTH, records(*signed), ancestors=ancestors)


def verdicts(signed: Signed, there: Mapping[str, ObjectId]) -> dict[str, str]:
    return {finding.ref: str(finding.verdict) for finding in compare(signed, signed.canonical, there, lambda _: True)}


def test_refs_as_signed_are_ok_with_who_signed_them() -> None:
    signed = state(ALICES, BOBS)
    there = dict(signed.canonical.refs)
    assert CONFLICT in there
    found = {finding.ref: finding for finding in compare(signed, signed.canonical, there, lambda _: True)}
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert found[DEV].signed == Signature(BOB.author_id, oid(3), BOBS.seq, NOW - 4_000)
    assert found[MAIN].signed == Signature(ALICE.author_id, oid(1), ALICES.seq, NOW - 5_000)
    assert found[CONFLICT].signed == Signature(BOB.author_id, oid(2), BOBS.seq, NOW - 4_000)
    assert (found[MAIN].note, found[DEV].note) == ("in conflict with another maintainer's", "")


def test_each_kind_of_lie_has_its_name() -> None:
    signed = state(ALICES, BOBS)
    there = {MAIN: oid(66), DEV: oid(3), "refs/tags/v2": oid(9)}
    assert verdicts(signed, there) == {
        MAIN: "forged",
        DEV: "ok",
        TAG: "withheld",
        "refs/tags/v2": "unsigned",
    }


def test_value_that_is_signed_as_another_ref_is_told_so_and_not_ok() -> None:
    signed = state(ALICES, BOBS)
    there = {MAIN: oid(3), TAG: oid(66), DEV: oid(2), "refs/heads/new": oid(3)}
    found = {one.ref: one for one in compare(signed, signed.canonical, there, lambda _: True)}
    assert {ref: (str(one.verdict), one.signed_as) for ref, one in found.items()} == {
        MAIN: ("forged", DEV),
        TAG: ("forged", None),
        DEV: ("forged", CONFLICT),
        "refs/heads/new": ("unsigned", DEV),
    }


def test_fetching_may_help_where_all_that_is_wrong_is_old_or_missing() -> None:
    def helps(*verdicts: Verdict) -> bool:
        return fetching_may_help([Finding(verdict, MAIN, None) for verdict in verdicts])

    assert helps(Verdict.STALE, Verdict.OK)
    assert helps(Verdict.WITHHELD, Verdict.STALE, Verdict.LOCAL)
    assert not helps(Verdict.OK, Verdict.LOCAL)
    assert not helps(Verdict.STALE, Verdict.FORGED)
    assert not helps(Verdict.WITHHELD, Verdict.UNSIGNED)


def test_refs_of_conflicts_need_not_be_mirrored_and_may_not_be_made_up() -> None:
    signed = state(ALICES, BOBS)
    honest = {MAIN: oid(1), DEV: oid(3), TAG: oid(9)}
    assert CONFLICT not in verdicts(signed, honest)
    assert verdicts(signed, {**honest, CONFLICT: oid(4)})[CONFLICT] == "forged"
    assert verdicts(signed, {**honest, CONFLICT: oid(1)})[CONFLICT] == "forged"  # that is Alice's, not Bob's
    invented = f"refs/guts/conflict/{EVE.author_id}/{MAIN}"
    assert verdicts(signed, {**honest, invented: oid(2)})[invented] == "unsigned"


def test_other_side_of_a_conflict_is_signed_too() -> None:
    signed = state(ALICES, BOBS)
    (finding,) = [
        finding for finding in compare(signed, signed.canonical, {MAIN: oid(2)}, lambda _: False) if finding.ref == MAIN
    ]
    assert finding.verdict is Verdict.OK
    assert finding.signed == Signature(BOB.author_id, oid(2), BOBS.seq, NOW - 4_000)
    assert finding.note == "in conflict with another maintainer's, which is shown first"


def test_side_that_the_other_contains_is_stale() -> None:
    signed = state(ALICES, BOBS)
    assert set(signed.questions) == {(oid(1), oid(2)), (oid(2), oid(1))}
    joined = state(ALICES, BOBS, ancestors=frozenset({(oid(1), oid(2))}))
    assert verdicts(joined, {MAIN: oid(2), DEV: oid(3), TAG: oid(9)})[MAIN] == "ok"
    assert verdicts(joined, {MAIN: oid(1), DEV: oid(3), TAG: oid(9)})[MAIN] == "stale"


def test_entry_that_another_maintainer_has_seen_and_replaced_is_stale() -> None:
    merged = publish(
        BOTH,
        BOB,
        BOBS,
        {MAIN: oid(7), DEV: oid(3)},
        now=NOW,
        others=[ALICES],
        ancestors=frozenset({(oid(2), oid(7)), (oid(1), oid(7))}),
    )
    signed = state(ALICES, merged)
    (finding,) = [one for one in compare(signed, signed.canonical, {MAIN: oid(1)}, lambda _: False)]
    assert finding.verdict is Verdict.STALE
    assert finding.earlier == Signature(ALICE.author_id, oid(1), ALICES.seq, NOW - 5_000)
    assert finding.signed == Signature(BOB.author_id, oid(7), merged.seq, NOW)


def test_head_is_compared_by_name() -> None:
    signed = state(ALICES, publish(BOTH, BOB, None, {DEV: oid(3)}, head=DEV))
    canonical = signed.canonical
    other = DEV if canonical.head == MAIN else MAIN
    assert compare_head(signed, canonical, canonical.head).verdict is Verdict.OK
    assert compare_head(signed, canonical, other).verdict is Verdict.STALE
    assert compare_head(signed, canonical, "refs/heads/evil").verdict is Verdict.FORGED


@pytest.mark.parametrize(
    ("target", "at", "there", "verdict"),
    [
        (MAIN, oid(1), oid(1), Verdict.OK),
        (MAIN, None, oid(1), Verdict.OK),  # a branch with no commit is not listed with HEAD
        (MAIN, oid(66), oid(1), Verdict.FORGED),
        (MAIN, oid(66), None, Verdict.FORGED),
        (DEV, oid(1), oid(1), Verdict.FORGED),
        (None, oid(1), oid(1), Verdict.OK),  # the server is too old to tell the branch
        (None, oid(1), None, Verdict.OK),
        (None, oid(66), oid(1), Verdict.FORGED),
        (None, oid(66), oid(66), Verdict.FORGED),
        (None, oid(7), oid(7), Verdict.STALE),
        (None, None, oid(1), None),
    ],
)
def test_head_is_compared_by_place_too(
    target: str | None, at: ObjectId | None, there: ObjectId | None, verdict: Verdict | None
) -> None:
    signed = state(publish(BOTH, ALICE, None, {MAIN: oid(1)}, head=MAIN))
    shown = {} if there is None else {MAIN: there}
    once = Signature(ALICE.author_id, oid(7), 1, NOW)
    findings = [judged(one, {MAIN: once}, frozenset()) for one in compare(signed, signed.canonical, shown, bool)]
    found = compare_whole_head(signed, signed.canonical, shown, target, at, findings)
    assert (None if found is None else found.verdict) is verdict
    if found is not None:
        assert (found.ref, found.doubtful) == ("HEAD", False)


SIGNED_NOW = Signature(ALICE.author_id, oid(2), 5, NOW)
ONCE = Signature(ALICE.author_id, oid(1), 4, NOW - 1)


@pytest.mark.parametrize(
    ("verdict", "at", "earlier", "contained", "after"),
    [
        (Verdict.FORGED, oid(1), {}, frozenset(), Verdict.FORGED),
        (Verdict.FORGED, oid(1), {MAIN: ONCE}, frozenset(), Verdict.STALE),
        (Verdict.FORGED, oid(3), {MAIN: ONCE}, frozenset(), Verdict.FORGED),
        (Verdict.FORGED, oid(1), {DEV: ONCE}, frozenset(), Verdict.FORGED),
        (Verdict.FORGED, oid(1), {}, frozenset({MAIN}), Verdict.STALE),
        (Verdict.FORGED, oid(1), {}, frozenset({DEV}), Verdict.FORGED),
        (Verdict.UNSIGNED, oid(1), {MAIN: ONCE}, frozenset(), Verdict.STALE),
        (Verdict.OK, oid(1), {MAIN: ONCE}, frozenset(), Verdict.OK),
        (Verdict.LOCAL, oid(1), {MAIN: ONCE}, frozenset(), Verdict.LOCAL),
    ],
)
def test_forged_is_told_from_stale(
    verdict: Verdict,
    at: ObjectId,
    earlier: dict[str, Signature],
    contained: frozenset[str],
    after: Verdict,
) -> None:
    assert judged(Finding(verdict, MAIN, str(at), SIGNED_NOW), earlier, contained).verdict is after


def answer(identity: IdentityChain, *signed: SignedRefs) -> Answer:
    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return Answer(
        {
            "documents": [text(document) for document in identity.documents],
            "records": [
                {"header": text(record.header_bytes), "entries": text(record.entries_bytes)} for record in signed
            ],
            "ancestors": [{"ancestor": str(oid(1)), "descendant": str(oid(2))}],
            "sources": 2,
        }
    )


def test_node_is_believed_what_it_proves() -> None:
    signed = Signed.from_answer(BOTH.repository, answer(BOTH, ALICES, BOBS))
    assert signed.records == records(ALICES, BOBS)
    assert (signed.sources, signed.ancestors) == (2, {(oid(1), oid(2))})


def test_node_is_not_believed_what_nobody_signed() -> None:
    with pytest.raises(BadAnswer, match="does not prove"):
        Signed.from_answer(BOTH.repository, answer(BOTH))
    with pytest.raises(BadAnswer, match="does not prove"):
        Signed.from_answer(BOTH.repository, answer(chain(EVE), publish(chain(EVE), EVE, None, {MAIN: oid(1)})))
    stranger = publish(chain(EVE), EVE, None, {MAIN: oid(1)})
    with pytest.raises(BadAnswer, match="does not prove"):
        Signed.from_answer(BOTH.repository, answer(BOTH, stranger))
    with pytest.raises(BadAnswer, match="does not prove"):
        Signed.from_answer(BOTH.repository, answer(BOTH, ALICES, stranger))
    mixed = dict(answer(BOTH, ALICES).json)
    mixed["records"] = [
        {
            "header": base64.b64encode(ALICES.header_bytes).decode(),
            "entries": base64.b64encode(BOBS.entries_bytes).decode(),
        }
    ]
    with pytest.raises(BadAnswer, match="does not prove"):
        Signed.from_answer(BOTH.repository, Answer(mixed))


def test_older_record_is_believed_by_its_signature() -> None:
    told = {
        "oid": str(oid(1)),
        "seq": ALICES.seq,
        "header": base64.b64encode(ALICES.header_bytes).decode(),
    }
    signature = earlier_signature(BOTH.repository, Answer(told))
    assert signature == Signature(AuthorId(ALICE.author_id), oid(1), ALICES.seq, NOW - 5_000)
    for wrong in ({"seq": 1}, {"header": ""}, {"oid": "x"}):
        with pytest.raises(BadAnswer):
            earlier_signature(BOTH.repository, Answer({**told, **wrong}))
    with pytest.raises(BadAnswer):
        earlier_signature(chain(EVE).repository, Answer(told))
