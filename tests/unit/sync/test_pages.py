"""Answers that were cut are put together before anything is fetched."""

import dataclasses
from collections.abc import Sequence

import pytest

from guts.effects import Candidate, Effect, Fetch, Send
from guts.events import ConnectionId, FetchId, Head, Known
from guts.records import Signed
from guts.sync import pages
from guts.sync.pages import Pages
from guts.trust.chain import IdentityChain
from guts.trust.signed_refs import SignedRefs
from guts.wire.limits import MAX_KNOWN_HEADS
from guts.wire.messages import EncodedRefs, GetRefs, KnownHead, Refs, RefsAnswer, RefsQuery, RefsStatus
from tests.support.peers import IDS, author, repository
from tests.unit.sync.test_reposync import Bench
from tests.unit.trust.world import ALICE, BOB, CAROL, MAIN, NOW, chain, oid, publish

A, B = IDS[1], IDS[2]
CHAIN = chain(ALICE, BOB, CAROL)
R = CHAIN.repository


def in_turn() -> list[SignedRefs]:
    """Return the newest records of three who pushed in turn: none can be accepted before another."""
    made: dict[bytes, SignedRefs] = {}
    for turn in range(6):
        who = (ALICE, BOB, CAROL)[turn % 3]
        others = [record for record in made.values() if record.author != who.author_id]
        previous = made.get(who.author_id)
        made[who.author_id] = publish(
            CHAIN, who, previous, {MAIN: oid(turn)}, now=NOW + turn, others=others, forced={MAIN}
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
    assert kept.keep(A, page(FIRST), 0.0)
    assert not kept.keep(B, page(SECOND), 0.0)
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
    assert kept.keep(A, page(FIRST), 0.0)
    assert kept.keep(A, page(SECOND), 0.0) is not bool(over)


def test_page_of_what_is_no_record_is_for_others_to_judge() -> None:
    kept = Pages()
    junk = RefsAnswer(R, RefsStatus.HELD, (), (), (EncodedRefs(b"no header", b"no entries"),))
    assert not kept.keep(A, junk, 0.0)
    assert not kept.keep(A, RefsAnswer(R, RefsStatus.HELD, (b"no document",)), 0.0)
    assert kept._size == 0


def small(documents: Sequence[bytes], count: int) -> RefsAnswer:
    """Return a page that is little on the wire, and more in memory."""
    return RefsAnswer(R, RefsStatus.HELD, tuple(documents), (b"h",) * count)


@pytest.mark.parametrize("over", [0, 1])
def test_small_values_count_for_what_they_take_in_memory(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    (document,) = CHAIN.documents
    size = len(document) + pages.VALUE_BYTES + 1_000 * (1 + pages.VALUE_BYTES)
    monkeypatch.setattr(pages, "MAX_PAGES_BYTES", size - over)
    assert Pages().keep(A, small([document], 1_000), 0.0) is not bool(over)


def test_documents_between_which_there_are_none_are_not_kept() -> None:
    (document,) = CHAIN.documents
    kept = Pages()
    assert not kept.keep(A, small([b"??"] * 1_023 + [document], 0), 0.0)
    assert not kept.keep(A, small([document] + [b"??"] * 1_022 + [document], 0), 0.0)
    assert kept.keep(A, small([document], 0), 0.0)
    assert not kept.keep(A, small([document], 0), 0.0)


def forged(number: int, seq: int = 1) -> EncodedRefs:
    """Return a record of an author who does not exist, whose signature nobody has looked at yet."""
    header = dataclasses.replace(
        FIRST.header, author=author(number), seq=seq, time_ms=seq, previous=b"" if seq == 1 else b"p" * 32
    )
    return EncodedRefs(Signed(header.body, ((author(number), bytes(64)),)).encode(), FIRST.entries_bytes)


def of(*records: EncodedRefs) -> RefsAnswer:
    return RefsAnswer(R, RefsStatus.HELD, (), (), records)


def test_pages_name_as_many_authors_as_a_question_does() -> None:
    kept = Pages()
    assert kept.keep(A, of(*(forged(number) for number in range(1, MAX_KNOWN_HEADS))), 0.0)
    assert not kept.keep(A, of(forged(100), forged(101)), 0.0)
    assert kept.keep(A, of(forged(100)), 0.0)
    assert not kept.keep(A, of(forged(101)), 0.0)
    assert len(kept.known(A, R, Known()).heads) == MAX_KNOWN_HEADS


def test_pages_keep_one_record_of_an_author_the_newest() -> None:
    kept = Pages()
    old, new = forged(1, 1), forged(1, 2)
    assert not kept.keep(A, of(old, new), 0.0)
    assert kept.keep(A, of(old), 0.0)
    assert kept.keep(A, of(new), 0.0)
    assert not kept.keep(A, of(old), 0.0)
    assert kept.take(A, of(forged(2))) == Candidate((), (old.header,), (new, forged(2)))


@pytest.mark.parametrize("over", [0, 1])
def test_pages_of_one_answer_are_bounded(over: int) -> None:
    kept = Pages()
    assert all(kept.keep(A, of(forged(1, seq)), 0.0) for seq in range(1, pages.MAX_PAGES + over))
    assert kept.keep(A, of(forged(2)), 0.0) is not bool(over)


def test_answer_that_drips_gives_way_to_another_peers() -> None:
    kept = Pages()
    assert kept.keep(A, page(FIRST), 1.0)
    assert not kept.keep(B, page(SECOND), 1.0 + pages.TAKEOVER_AFTER - 0.001)
    assert kept.keep(A, page(SECOND), 1.0 + pages.TAKEOVER_AFTER)
    assert kept.keep(B, page(SECOND), 1.0 + pages.TAKEOVER_AFTER)
    assert kept.known(A, R, Known()) == Known()
    assert kept.take(B, page(THIRD)).records == (encoded(SECOND), encoded(THIRD))
    assert kept._size == 0


def test_answer_that_drips_holds_the_room_of_all_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PAGES_BYTES", pages._size(page(FIRST)))
    kept = Pages()
    assert kept.keep(A, page(FIRST), 0.0)
    other = dataclasses.replace(page(FIRST), repository=repository(9))
    assert not kept.keep(B, other, pages.TAKEOVER_AFTER - 0.001)
    assert kept.keep(B, other, pages.TAKEOVER_AFTER)
    assert kept.take(A, page(SECOND)).records == (encoded(SECOND),)
