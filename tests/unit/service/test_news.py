"""Plumtree, one service at a time: who gets a record in full, who in short, what is asked for, and when."""

from dataclasses import replace

import pytest

from guts.clock import Now
from guts.effects import Candidate, Disconnect, Effect, Fetch, GiveReceipt, Hurry, Persist, ScoreChanged, Send, Serve
from guts.errors import PeerFault, StorageFault, Unavailable
from guts.events import (
    Accepted,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    Head,
    Incomplete,
    Published,
    Unseed,
    Vetted,
    VettedRecord,
    Woke,
)
from guts.gossip.envelope import announcement, brief, envelope
from guts.gossip.missing import ROUND_TRIPS, UNKNOWN_ROUND_TRIP
from guts.gossip.protocol import RELAY_WINDOW_MS
from guts.gossip.untold import TELL_WITHIN
from guts.identity import SigningKey
from guts.records import PeerRecord
from guts.service import serve_queue
from guts.service.news import ASK_BESIDE, ASK_BESIDE_AGAIN, HOT_MS, REPOSITORIES_BURST, REPOSITORIES_RATE
from guts.service.serve_queue import MAX_PARKED_PER_PEER, PARKED_SECONDS
from guts.service.serving import ALL_SLICES
from guts.sync.fetches import HURRY_SECONDS
from guts.wire.messages import (
    EncodedRefs,
    GetObjects,
    GetRefs,
    Graft,
    KnownHead,
    NewCommit,
    NewRepository,
    Objects,
    ObjectsStatus,
    Prune,
    Refs,
    RefsAnswer,
    RefsQuery,
    RefsStatus,
    Subscribe,
)
from tests.support.peers import IDS, WALL, author, hello_of, inbound, record_of, repository
from tests.unit.service.bench import AUTHOR, RECORD, Bench, R, S, accepted, known

C1, C2, C3 = ConnectionId(1), ConnectionId(2), ConnectionId(3)
NEWS = NewCommit(R, AUTHOR, 2, b"h" * 32, RECORD)
WHOLE, SHORT = envelope(NEWS), envelope(brief(NEWS))
HEAD = Head(2, b"h" * 32)
STRANGER = author(9)
RECEIPT = GiveReceipt(C1, 0, R, AUTHOR, HEAD)
QUERY = RefsQuery(R, 1, b"i" * 32, (KnownHead(AUTHOR, 1, b"h" * 32),))
WAIT = 1.5 * ROUND_TRIPS * UNKNOWN_ROUND_TRIP
"""The longest that is waited over a link whose round trip is not known."""


class Fault(PeerFault):
    code = "FAULT"


def followers(count: int = 3) -> Bench:
    """Return a bench that holds R, with peers who follow it too and have answered that they hold nothing newer."""
    bench = Bench({R: known(1)})
    for number in range(1, count + 1):
        bench.call(number, number)
        for effect in bench.say(number, Subscribe((R,))):
            assert isinstance(effect, Send)
            assert isinstance(effect.message, GetRefs)
            bench.say(number, Refs(effect.message.request, (RefsAnswer(R, RefsStatus.HELD),)))
    return bench


def only_fetch(effects: list[Effect]) -> Fetch:
    [effect] = effects
    assert isinstance(effect, Fetch)
    assert effect.candidate == Candidate((), (), (RECORD,))
    return effect


def vetted(fetch: Fetch, age_ms: int = 0, wall: int = WALL) -> Vetted:
    record = VettedRecord(AUTHOR, HEAD, RECORD, wall - age_ms)
    return Vetted(fetch.fetch, R, fetch.connection, (record,))


def finished(fetch: Fetch, outcome: FetchOutcome) -> FetchFinished:
    return FetchFinished(fetch.fetch, R, fetch.connection, outcome)


def objects(request: int = 1) -> GetObjects:
    return GetObjects(request, R, 2 * request + 1, ALL_SLICES, "", 1, 0)


# --- in full ------------------------------------------------------------------------------------------------


def test_record_is_relayed_when_it_is_found_good_and_told_of_when_it_is_committed() -> None:
    bench = followers()
    bench.say(2, Prune(R, AUTHOR))
    fetch = only_fetch(bench.say(1, WHOLE))
    assert bench.handle(vetted(fetch)) == [Send(C3, WHOLE)]
    assert bench.handle(finished(fetch, accepted(2))) == [RECEIPT]
    assert bench.service.deadline(0.0) <= TELL_WITHIN
    assert told_later(bench) == [Send(C2, SHORT)]
    assert told_later(bench) == []
    # It comes back, and goes nowhere.
    assert bench.say(3, SHORT) == []
    assert bench.say(2, WHOLE) == []


def test_who_told_it_meanwhile_is_not_told() -> None:
    bench = followers()
    for number in (2, 3):
        bench.say(number, Prune(R, AUTHOR))
    fetch = only_fetch(bench.say(1, WHOLE))
    assert bench.handle(vetted(fetch)) == []
    assert bench.handle(finished(fetch, accepted(2))) == [RECEIPT]
    assert bench.say(3, SHORT) == []
    assert told_later(bench) == [Send(C2, SHORT)]


def test_what_was_overtaken_before_it_was_told_is_not_told() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(finished(fetch, accepted(2)))
    news = NewCommit(R, AUTHOR, 3, b"k" * 32, RECORD)
    bench.handle(Published(R, Accepted(known(3), ((AUTHOR, Head(3, b"k" * 32), RECORD),))))
    assert told_later(bench) == []
    fetch = only_fetch(bench.say(1, envelope(replace(news, seq=4, hash=b"l" * 32))))
    bench.handle(vetted(fetch))
    bench.handle(finished(fetch, Accepted(known(4), ((AUTHOR, Head(4, b"l" * 32), RECORD),))))
    bench.command(Unseed(R))
    assert told_later(bench) == []


def test_nothing_is_relayed_that_was_not_found_good() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    effects = bench.handle(finished(fetch, Failed(Fault("bad signature"))))
    assert [effect for effect in effects if isinstance(effect, Send) and effect.message in (WHOLE, SHORT)] == []


def test_second_copy_prunes_its_link_and_the_third_over_it_says_nothing() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    # Not before it is committed: who was first may give nothing.
    assert bench.say(2, WHOLE) == []
    # Who told it too is not told.
    assert bench.handle(vetted(fetch)) == [Send(C3, WHOLE)]
    assert bench.handle(finished(fetch, accepted(2))) == [RECEIPT, Send(C2, Prune(R, AUTHOR))]
    assert bench.say(3, WHOLE) == [Send(C3, Prune(R, AUTHOR))]
    assert bench.say(3, WHOLE) == []


def told_later(bench: Bench) -> list[Effect]:
    """Return what is sent in the time in which all who lack it have been told."""
    bench.time += TELL_WITHIN
    return bench.service.news.tick(at(bench))


def questions(effects: list[Effect]) -> list[tuple[ConnectionId, int]]:
    """Return to whom a GetRefs goes, and its id."""
    return [
        (e.connection, e.message.request) for e in effects if isinstance(e, Send) and isinstance(e.message, GetRefs)
    ]


def test_first_teller_that_gives_nothing_is_hurried_as_soon_as_another_has_committed_it() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    assert bench.say(2, WHOLE) == []
    assert bench.handle(vetted(fetch)) == [Send(C3, WHOLE)]
    bench.time = ASK_BESIDE - 0.01
    assert questions(bench.handle(Woke())) == []
    bench.time = ASK_BESIDE
    [(asked, request)] = questions(bench.handle(Woke()))
    assert asked == C2
    # It has not committed it itself: nobody is hurried, and a while later it, or the next one, is asked.
    assert bench.say(2, Refs(request, (RefsAnswer(R, RefsStatus.HELD),))) == []
    bench.time += ASK_BESIDE_AGAIN
    [(asked, request)] = questions(bench.handle(Woke()))
    # Who was told here may have it from others, and sooner.
    assert asked == C3
    answer = RefsAnswer(R, RefsStatus.HELD, (), (), (RECORD,))
    assert bench.say(int(asked), Refs(request, (answer,))) == [Hurry(fetch.fetch, HURRY_SECONDS)]
    bench.time += ASK_BESIDE_AGAIN
    assert questions(bench.handle(Woke())) == []
    asked_now = dict(questions(bench.handle(finished(fetch, Failed(Unavailable("nothing came"))))))
    assert set(asked_now) == {C2, C3}
    [second] = bench.say(2, Refs(asked_now[C2], (answer,)))
    assert isinstance(second, Fetch)
    assert second.connection == C2
    # Its link was not made lazy.
    effects = bench.handle(finished(second, accepted(2)))
    assert [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Prune)] == []


def test_record_that_comes_while_another_is_fetched_is_asked_for_beside_it() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    other = envelope(NewCommit(R, author(2), 9, b"o" * 32, RECORD))
    assert bench.say(2, other) == []
    bench.time = ASK_BESIDE
    [(asked, request)] = questions(bench.handle(Woke()))
    assert asked == C2
    answer = RefsAnswer(R, RefsStatus.HELD, (), (), (RECORD,))
    assert bench.say(2, Refs(request, (answer,))) == [Hurry(fetch.fetch, HURRY_SECONDS)]


def test_own_record_goes_over_eager_links_in_full_and_over_lazy_ones_in_short() -> None:
    bench = followers()
    bench.say(2, Prune(R, AUTHOR))
    assert bench.handle(Published(R, accepted(2))) == [Send(C1, WHOLE), Send(C3, WHOLE), Send(C2, SHORT)]
    bench.say(2, Graft(R, AUTHOR))
    news = NewCommit(R, AUTHOR, 3, b"k" * 32, RECORD)
    after = Accepted(known(3), ((AUTHOR, Head(3, b"k" * 32), RECORD),))
    assert bench.handle(Published(R, after)) == [Send(link, envelope(news)) for link in (C1, C2, C3)]


def test_prune_by_who_does_not_follow_leaves_nothing() -> None:
    bench = followers(1)
    bench.call(2, 2)
    assert (
        bench.say(2, Prune(R, AUTHOR))
        == bench.say(1, Prune(S, AUTHOR))
        == bench.say(1, Prune(R, STRANGER))
        == bench.say(2, Graft(S, AUTHOR))
        == []
    )
    assert bench.service.gossip.trees.eager((R, AUTHOR), [C1, C2]) == [C1, C2]
    assert bench.service.gossip.trees.eager((S, AUTHOR), [C1, C2]) == [C1, C2]
    assert bench.service.gossip.trees.eager((R, STRANGER), [C1, C2]) == [C1, C2]


def test_new_connection_begins_eager() -> None:
    bench = followers(2)
    bench.say(2, Prune(R, AUTHOR))
    bench.end(2)
    bench.call(9, 2)
    bench.say(9, Subscribe((R,)))
    sends = bench.handle(Published(R, accepted(2)))
    assert Send(ConnectionId(9), WHOLE) in sends


def test_record_too_large_is_told_in_short_when_it_is_committed() -> None:
    bench = followers(2)
    large = EncodedRefs(b"header", b"e" * 9000)
    effects = bench.say(1, SHORT)
    [asked] = effects
    assert isinstance(asked, Send)
    assert isinstance(asked.message, GetRefs)
    [fetch] = bench.say(1, Refs(asked.message.request, (RefsAnswer(R, RefsStatus.HELD, (), (), (large,)),)))
    assert isinstance(fetch, Fetch)
    assert bench.handle(Vetted(fetch.fetch, R, C1, (VettedRecord(AUTHOR, HEAD, large, WALL),))) == []
    brought = Accepted(known(2), ((AUTHOR, HEAD, large),))
    assert bench.handle(finished(fetch, brought)) == [RECEIPT, Send(C2, SHORT)]


# --- the window ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "goes_on"), [(RELAY_WINDOW_MS, True), (RELAY_WINDOW_MS + 1, False)])
def test_news_of_more_than_an_hour_ago_go_no_further(age: int, goes_on: bool) -> None:
    bench = followers(2)
    fetch = only_fetch(bench.say(1, WHOLE))
    assert bench.handle(vetted(fetch, age)) == ([Send(C2, WHOLE)] if goes_on else [])
    assert bench.handle(finished(fetch, accepted(2))) == [RECEIPT]


@pytest.mark.parametrize(("age", "message"), [(HOT_MS, WHOLE), (HOT_MS + 1, SHORT), (RELAY_WINDOW_MS + 1, None)])
def test_what_a_question_brought_goes_on_in_full_only_while_it_is_hot(age: int, message: object) -> None:
    bench = followers(2)
    [asked] = bench.say(1, SHORT)
    assert isinstance(asked, Send)
    assert isinstance(asked.message, GetRefs)
    [fetch] = bench.say(1, Refs(asked.message.request, (RefsAnswer(R, RefsStatus.HELD, (), (), (RECORD,)),)))
    assert isinstance(fetch, Fetch)
    effects = bench.handle(vetted(fetch, age)) + bench.handle(finished(fetch, accepted(2))) + told_later(bench)
    sends = [effect for effect in effects if isinstance(effect, Send)]
    assert [(send.connection, send.message) for send in sends] == ([(C2, message)] if message else [])


# --- in short -----------------------------------------------------------------------------------------------


def test_short_news_over_an_eager_link_are_asked_for_at_once_and_of_one() -> None:
    bench = followers()
    assert bench.say(1, SHORT) == [Send(C1, GetRefs(4, (QUERY,)))]
    assert bench.say(2, SHORT) == bench.say(3, SHORT) == []


def test_short_news_over_a_lazy_link_wait_for_the_record_to_come_in_full() -> None:
    bench = followers()
    bench.say(2, Prune(R, AUTHOR))
    assert bench.say(2, SHORT) == []
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.time = WAIT
    # It is on its way: nobody is asked.
    assert bench.service.news.tick(at(bench)) == []
    bench.handle(finished(fetch, accepted(2)))
    assert told_later(bench) == [Send(C3, SHORT)]
    bench.time += 2 * WAIT
    assert bench.service.news.tick(at(bench)) == []
    assert bench.service.news.deadline() > bench.time


def test_what_does_not_come_in_full_is_asked_for_over_a_grafted_link() -> None:
    bench = followers()
    for number in (1, 2):
        bench.say(number, Prune(R, AUTHOR))
        assert bench.say(number, SHORT) == []
    bench.handle(Woke())
    assert 0.0 < bench.service.deadline(0.0) <= WAIT
    bench.time = WAIT
    assert bench.service.news.tick(at(bench)) == [Send(C1, Graft(R, AUTHOR)), Send(C1, GetRefs(4, (QUERY,)))]
    # Nothing came of it: the next one is asked, and then nobody is left.
    bench.time = 2 * WAIT
    assert bench.service.news.tick(at(bench)) == [Send(C2, Graft(R, AUTHOR)), Send(C2, GetRefs(5, (QUERY,)))]
    bench.time = 3 * WAIT
    assert bench.service.news.tick(at(bench)) == []
    assert bench.service.gossip.trees.eager((R, AUTHOR), [C1, C2]) == [C1, C2]


def test_teller_that_is_gone_is_not_asked() -> None:
    bench = followers()
    for number in (1, 2):
        bench.say(number, Prune(R, AUTHOR))
        bench.say(number, SHORT)
    bench.end(1)
    bench.time = WAIT
    assert bench.service.news.tick(at(bench)) == [Send(C2, Graft(R, AUTHOR)), Send(C2, GetRefs(4, (QUERY,)))]


def test_what_is_no_longer_followed_is_not_asked_for() -> None:
    bench = followers()
    bench.say(1, Prune(R, AUTHOR))
    bench.say(1, SHORT)
    bench.command(Unseed(R))
    bench.time = WAIT
    assert bench.service.news.tick(at(bench)) == []


def at(bench: Bench) -> Now:
    return Now(bench.time, WALL + int(bench.time * 1000))


# --- what fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Failed(Unavailable("reset")), Failed(StorageFault("disk")), Incomplete()])
def test_what_could_not_be_had_from_one_is_taken_from_another(outcome: FetchOutcome) -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    bench.handle(finished(fetch, outcome))
    bench.time = 61.0
    assert Prune(R, AUTHOR) not in [effect.message for effect in bench.say(2, WHOLE) if isinstance(effect, Send)]


def test_refused_record_is_not_looked_at_again_and_costs_whoever_relays_it_little() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(finished(fetch, Failed(Fault("bad signature"))))
    [persist] = bench.say(2, WHOLE)
    assert isinstance(persist, Persist)
    assert isinstance(persist.change, ScoreChanged)
    assert (persist.change.score.peer, persist.change.change) == (IDS[2], 5.0)
    assert (persist.change.reason, persist.change.barred_ms) == ("RELAYS_REFUSED", 0)


def test_record_whose_objects_are_bad_may_come_from_another() -> None:
    """The objects are the fault of who served them; the record was found good."""
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    effects = bench.handle(finished(fetch, Failed(Fault("bad pack"))))
    assert [type(effect) for effect in effects][:2] == [Persist, Disconnect]
    bench.time = 61.0
    assert not any(isinstance(effect, Persist) for effect in bench.say(2, WHOLE))


# --- objects before the commit ------------------------------------------------------------------------------


def test_who_was_told_and_asks_for_objects_waits_for_the_commit() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    assert bench.say(2, objects(7)) == [Serve(C2, objects(7))]
    bench.handle(vetted(fetch))
    assert bench.say(2, objects()) == []
    assert bench.handle(finished(fetch, accepted(2))) == [Serve(C2, objects()), RECEIPT]
    # From then on it is served as everybody is.
    assert bench.say(3, objects()) == [Serve(C3, objects())]


def test_who_waits_for_a_commit_that_fails_is_served_what_is_here() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    bench.say(2, objects())
    assert Serve(C2, objects()) in bench.handle(finished(fetch, Failed(Unavailable("reset"))))


def test_who_finds_no_place_to_wait_for_the_commit_is_served_and_told_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve_queue, "MAX_PARKED", MAX_PARKED_PER_PEER)
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    for request in range(MAX_PARKED_PER_PEER):
        assert bench.say(2, objects(request + 1)) == []
    assert bench.say(3, objects()) == [Serve(C3, objects())]
    assert Send(C3, SHORT) in bench.handle(finished(fetch, accepted(2)))


def test_who_waits_too_long_for_a_commit_is_sent_away_and_told_of_it_when_it_comes() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    bench.say(2, objects())
    bench.time = PARKED_SECONDS
    [refusal, _] = bench.service.serving.tick(bench.time)
    assert isinstance(refusal, Send)
    assert refusal.message == Objects(1, ObjectsStatus.BUSY, 5)
    assert bench.handle(finished(fetch, accepted(2))) == [RECEIPT, Send(C2, SHORT)]


def test_commit_for_an_earlier_following_tells_nobody() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.command(Unseed(R))
    assert bench.handle(vetted(fetch)) == []
    assert [type(effect) for effect in bench.handle(finished(fetch, accepted(2)))] == [Persist]
    assert bench.service.sync.fetches.running == {}
    assert fetch.fetch == FetchId(1)


# --- repositories that nobody knows -------------------------------------------------------------------------

WORD = NewRepository(S, 0, b"i" * 32, record_of(1))


def curious(*peers: int, me: bool = True) -> Bench:
    """Return a bench, and peers of whom those in ``peers`` want to hear of new repositories."""
    bench = Bench({R: known(1)}, ("seed", "news") if me else ("seed",))
    for number in range(1, 6):
        bench.handle(inbound(number, number))
        bench.say(number, hello_of(number, capabilities=("seed", "news") if number in peers else ("seed",)))
    return bench


def test_new_repository_is_announced_to_those_who_asked_for_such_news() -> None:
    bench = curious(2, 4, me=False)
    effects = bench.handle(Published(S, accepted(2)))
    word = announcement(NewRepository(S, 0, b"i" * 32, record_of(0)))
    assert {effect.connection for effect in effects if isinstance(effect, Send) and effect.message == word} == {2, 4}
    effects = bench.handle(Published(S, accepted(3)))
    assert not any(isinstance(effect, Send) and effect.message == word for effect in effects)


def test_word_of_a_new_repository_is_passed_on_once_by_those_who_want_it() -> None:
    bench = curious(1, 2, 4)
    sends = bench.say(1, announcement(WORD))
    assert {(send.connection, send.message) for send in sends if isinstance(send, Send)} == {
        (2, announcement(WORD)),
        (4, announcement(WORD)),
    }
    assert bench.say(1, announcement(WORD)) == bench.say(2, announcement(WORD)) == []
    assert curious(1, 2, 4, me=False).say(1, announcement(WORD)) == []


def test_word_for_the_followers_of_a_repository_is_not_passed_on() -> None:
    assert curious(1, 2, 4).say(1, envelope(WORD)) == []


def test_word_of_a_holder_whose_record_is_not_valid_is_not_passed_on() -> None:
    bench = curious(1, 2, 4)
    assert bench.say(1, announcement(NewRepository(S, 0, b"i" * 32, record_of(3, expires=WALL)))) == []
    effects = bench.say(1, announcement(NewRepository(S, 0, b"i" * 32, record_of(3)[:-1])))
    assert [type(effect) for effect in effects] == [Persist, Disconnect]


def test_so_many_words_of_one_peer_are_passed_on_and_then_so_many_a_second() -> None:
    bench = curious(1, 2)
    words = [announcement(NewRepository(repository(number), 0, b"i" * 32, record_of(1))) for number in range(600)]
    passed = [bool([effect for effect in bench.say(1, word) if isinstance(effect, Send)]) for word in words[:300]]
    assert passed == [True] * int(REPOSITORIES_BURST) + [False] * (300 - int(REPOSITORIES_BURST))
    bench.time = 10.0
    passed = [bool([effect for effect in bench.say(1, word) if isinstance(effect, Send)]) for word in words[300:]]
    assert sum(passed) == 10 * REPOSITORIES_RATE


def test_b2_words_signed_by_many_come_out_of_the_purse_of_who_tells_them_and_of_no_other() -> None:
    bench = curious(1, 2, 3)
    keys = [SigningKey(number.to_bytes(32, "little")) for number in range(1, 401)]
    records = [PeerRecord.sign(key, (), ("seed",), 1, WALL + 3_600_000).encoded for key in keys]
    words = [announcement(NewRepository(repository(n), 0, b"i" * 32, record)) for n, record in enumerate(records)]

    def passed(connection: int, number: int) -> bool:
        return any(isinstance(effect, Send) for effect in bench.say(connection, words[number]))

    assert sum(passed(1, number) for number in range(399)) == REPOSITORIES_BURST
    # What it tells of others is not lost: it goes on, and so does what nobody has told yet, when another tells it.
    assert all(passed(2, number) for number in (300, 399))
    assert len(bench.service.news._passed) == 2


def test_word_that_one_peer_has_no_purse_for_is_passed_on_for_another_and_coming_again_fills_no_purse() -> None:
    bench = curious(1, 2, 3)
    words = [announcement(NewRepository(repository(number), 0, b"i" * 32, record_of(1))) for number in range(300)]

    def passed(connection: int, number: int) -> bool:
        return any(isinstance(effect, Send) for effect in bench.say(connection, words[number]))

    assert sum(passed(1, number) for number in range(300)) == REPOSITORIES_BURST
    assert passed(2, 299)
    assert not passed(1, 299), "it has come"
    bench.end(1)
    bench.handle(inbound(11, 1))
    bench.say(11, hello_of(1, capabilities=("seed", "news")))
    assert not passed(11, 298)
    assert passed(2, 298)


# --- records that lead nowhere ------------------------------------------------------------------------------


def leads_nowhere(bench: Bench, connection: int = 1) -> Fetch:
    """Let a good record come whose objects its teller has not; return the transfer."""
    fetch = only_fetch(bench.say(connection, WHOLE))
    bench.handle(vetted(fetch))
    bench.say(connection, Objects(fetch.request, ObjectsStatus.NOT_HELD))
    bench.handle(finished(fetch, Failed(Unavailable("reset"))))
    return fetch


def test_teller_of_a_record_that_leads_nowhere_is_not_left_alone() -> None:
    bench = followers()
    leads_nowhere(bench)
    goal = bench.service.sync.goals[R]
    assert all(goal.willing(IDS[number], bench.time) for number in (1, 2, 3))
    assert bench.service.peers.scores.value(IDS[1], 0.0) == 0.0


def test_next_record_of_that_author_is_asked_for_and_not_fetched_from_who_may_not_have_it() -> None:
    bench = followers()
    leads_nowhere(bench)
    for connection, effects in [(number, bench.service.sync.goals[R].asking) for number in (1, 2, 3)]:
        assert IDS[connection] in effects
    news = envelope(NewCommit(R, AUTHOR, 3, b"k" * 32, RECORD))
    assert bench.say(2, news) == []
    assert list(bench.service.gossip.missing.tellers(R)) == [2]
    bench.time = 30.0
    assert [type(effect) for effect in bench.say(2, news)] == [Fetch]


def test_fault_in_the_objects_is_the_tellers() -> None:
    bench = followers()
    fetch = only_fetch(bench.say(1, WHOLE))
    bench.handle(vetted(fetch))
    bench.handle(finished(fetch, Failed(Fault("bad pack"))))
    assert not bench.service.sync.goals[R].willing(IDS[1], bench.time)


def test_who_was_told_in_vain_is_told_again_when_it_is_committed() -> None:
    bench = followers()
    leads_nowhere(bench)
    [asked] = [question for question in bench.service.sync._questions._lines[IDS[3]].asked]
    [fetch] = bench.say(3, Refs(asked, (RefsAnswer(R, RefsStatus.HELD, (), (), (RECORD,)),)))
    assert isinstance(fetch, Fetch)
    assert bench.handle(vetted(fetch)) == [Send(C2, WHOLE)]
