"""Answers that were cut are put together before anything is fetched."""

import pytest

from guts.effects import Candidate, Effect, Fetch, Send
from guts.events import ConnectionId, FetchId, Head, Known
from guts.sync import pages
from guts.sync.pages import Pages
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs, GetRefs, KnownHead, Refs, RefsAnswer, RefsQuery, RefsStatus
from tests.support.peers import IDS
from tests.unit.sync.test_reposync import Bench
from tests.unit.trust.world import ALICE, BOB, CAROL, MAIN, NOW, chain, oid, publish

A, B = IDS[1], IDS[2]
CHAIN = chain(ALICE, BOB, CAROL)
R = CHAIN.repository


def in_turn() -> list[SignedRefs]:
    """Return the newest records of three who pushed in turn: none can be accepted before another."""
    made: dict[bytes, SignedRefs] = {}
    for turn in range(6):
        author = (ALICE, BOB, CAROL)[turn % 3]
        others = [record for record in made.values() if record.author != author.author_id]
        previous = made.get(author.author_id)
        made[author.author_id] = publish(
            CHAIN, author, previous, {MAIN: oid(turn)}, now=NOW + turn, others=others, forced={MAIN}
        )
    return list(made.values())


FIRST, SECOND, THIRD = in_turn()


def encoded(record: SignedRefs) -> EncodedRefs:
    return EncodedRefs(record.header_bytes, record.entries_bytes)


def page(*records: SignedRefs, documents: tuple[bytes, ...] = ()) -> RefsAnswer:
    return RefsAnswer(R, RefsStatus.HELD, documents, (b"bridge",), tuple(map(encoded, records)), (b"proof",))


def asked(request: int, identity: IdentityChain | None, *records: SignedRefs) -> Send:
    heads = tuple(KnownHead(r.author, r.seq, r.hash) for r in sorted(records, key=lambda r: r.author))
    epoch, digest = (0, b"") if identity is None else (identity.epoch + 1, identity.hash)
    return Send(ConnectionId(1), GetRefs(request, (RefsQuery(R, epoch, digest, heads),)))


def fetched(*records: SignedRefs, pages: int) -> Candidate:
    return Candidate(CHAIN.documents, (b"bridge",) * pages, tuple(map(encoded, records)), (b"proof",) * pages)


def wanted() -> Bench:
    bench = Bench()
    bench.ready(A)
    assert asked(1, None) in bench.sync.want(R, (), bench.waiter(), 0.0)
    return bench


def answer(bench: Bench, request: int, content: RefsAnswer, *, cut: bool) -> list[Effect]:
    return bench.sync.refs(ConnectionId(1), Refs(request, (content,), b"\x00" if cut else b""), 0.0)


def test_records_that_have_seen_each_other_come_together_however_the_answer_is_cut() -> None:
    bench = wanted()
    assert answer(bench, 1, page(FIRST, documents=CHAIN.documents), cut=True) == [asked(2, CHAIN, FIRST)]
    assert answer(bench, 2, page(SECOND), cut=True) == [asked(3, CHAIN, FIRST, SECOND)]
    assert answer(bench, 3, page(THIRD), cut=False) == [
        Fetch(FetchId(1), ConnectionId(1), 4, R, fetched(FIRST, SECOND, THIRD, pages=3))
    ]
    assert bench.sync._pages._size == 0


def test_peer_that_goes_away_in_the_middle_takes_its_pages_along() -> None:
    bench = wanted()
    answer(bench, 1, page(FIRST, documents=CHAIN.documents), cut=True)
    bench.gone(A)
    assert bench.sync._pages._size == 0
    assert Send(ConnectionId(2), asked(3, None).message) in bench.ready(B)


def test_peer_that_is_late_with_a_page_takes_its_pages_along() -> None:
    bench = wanted()
    answer(bench, 1, page(FIRST, documents=CHAIN.documents), cut=True)
    bench.sync.tick(31.0)
    assert bench.sync._pages._size == 0


def test_page_with_nothing_new_ends_it() -> None:
    bench = wanted()
    answer(bench, 1, page(FIRST, documents=CHAIN.documents), cut=True)
    effects = answer(bench, 2, page(FIRST), cut=True)
    assert effects == [Fetch(FetchId(1), ConnectionId(1), 3, R, fetched(FIRST, pages=2))]


def test_pages_of_another_peer_are_not_mixed_in() -> None:
    kept = Pages()
    assert kept.keep(A, page(FIRST))
    assert not kept.keep(B, page(SECOND))
    assert kept.known(B, R, Known()) == Known()
    assert kept.take(B, page(THIRD)).records == (encoded(THIRD),)
    assert kept.known(A, R, Known()).heads == ((FIRST.author, Head(FIRST.seq, FIRST.hash)),)
    kept.drop(B, R)
    assert kept.take(A, page(THIRD)).records == (encoded(FIRST), encoded(THIRD))


@pytest.mark.parametrize("over", [0, 1])
def test_pages_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    size = sum(pages._size(page(record)) for record in (FIRST, SECOND))
    monkeypatch.setattr(pages, "MAX_PAGES_BYTES", size - over)
    kept = Pages()
    assert kept.keep(A, page(FIRST))
    assert kept.keep(A, page(SECOND)) is not bool(over)


def test_page_of_what_is_no_record_is_for_others_to_judge() -> None:
    kept = Pages()
    junk = RefsAnswer(R, RefsStatus.HELD, (), (), (EncodedRefs(b"no header", b"no entries"),))
    assert not kept.keep(A, junk)
    assert not kept.keep(A, RefsAnswer(R, RefsStatus.HELD, (b"no document",)))
    assert kept._size == 0
