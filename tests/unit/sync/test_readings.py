"""Refs of what is not held: who is asked, how long, and what ends it, as exact lists of effects."""

import pytest

from guts.addresses import BootstrapAddress
from guts.effects import Candidate, Dial, Effect, FindProviders, Look, Reply, Result, Send
from guts.events import (
    Accepted,
    CommandId,
    Failed,
    FetchId,
    FetchOutcome,
    Incomplete,
    Known,
    LookFinished,
    LookupFinished,
    NothingNew,
)
from guts.ids import PeerId, RepositoryId
from guts.sync.fetches import MAX_FETCHES
from guts.sync.goal import NoProviders, ProvidersUnreachable, SyncTimedOut
from guts.sync.questions import ANSWER_TIMEOUT, UnsolicitedAnswer
from guts.sync.readings import GRACE, MAX_READINGS, Readings, TooManyReadings
from guts.wire.messages import Error, ErrorCode, GetRefs, Refs, RefsAnswer, RefsQuery
from tests.support.peers import address, repository
from tests.unit.sync.test_reposync import (
    DOCUMENT,
    NOTHING_KNOWN,
    RECORD,
    A,
    B,
    Bench,
    C,
    Fault,
    R,
    failed,
    known,
    knows,
    newer,
    not_held,
    same,
)

NOTHING = Known()


class Reader(Bench):
    """A ``Bench`` for its readings."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: Readings = self.sync.readings

    def ready(self, peer: PeerId, *shared: RepositoryId, now: float = 0.0) -> list[Effect]:
        for wanted in shared:
            self.holders.setdefault(wanted, []).append(peer)
        return self.readings.peer_ready(peer, self.connection(peer), now)

    def read(
        self, *hints: BootstrapAddress, wanted: RepositoryId = R, of: Known = NOTHING, timeout: float = 60.0
    ) -> list[Effect]:
        return self.readings.read(wanted, of, hints, self.waiter(timeout=timeout), 0.0)

    def answer(self, peer: PeerId, request: int, *answers: RefsAnswer, now: float = 0.0) -> list[Effect]:
        return self.readings.refs(self.connection(peer), Refs(request, answers, b""), now)

    def looked(self, fetch: int, peer: PeerId, outcome: FetchOutcome, now: float = 0.0) -> list[Effect]:
        event = LookFinished(FetchId(fetch), R, self.connection(peer), outcome)
        return self.readings.look_finished(event, now)

    def look(self, fetch: int, peer: PeerId) -> Look:
        return Look(FetchId(fetch), self.connection(peer), R, Candidate((DOCUMENT,), (), (RECORD,)))

    def found_nobody(self, now: float = 0.0) -> list[Effect]:
        return self.readings.lookup_finished(LookupFinished(R, 7), now)


def seq(number: int) -> Accepted:
    return Accepted(known(number), ())


def told(command: int, *sources: PeerId, seconds: float = 0.0) -> Reply:
    result: Result = {"repository": str(R), "sources": [str(source) for source in sources], "claimed_bytes": 0}
    result["seconds"] = seconds
    return Reply(CommandId(command), result)


def asked_both() -> Reader:
    """Return a reading for which A and B have been asked, under 1 and 2, and the lookup has ended."""
    reader = Reader()
    assert reader.ready(A) == reader.ready(B) == []
    assert reader.read() == [reader.ask(A, 1, NOTHING_KNOWN), reader.ask(B, 2, NOTHING_KNOWN), FindProviders(R)]
    assert reader.found_nobody() == []
    return reader


# --- who is asked -------------------------------------------------------------------------------------------


def test_hints_are_dialled_and_ready_peers_asked_beside_the_lookup() -> None:
    reader = Reader()
    reader.ready(A)
    hint = BootstrapAddress("192.0.2.1", 9000)
    assert reader.read(hint) == [Dial(hint), reader.ask(A, 1, NOTHING_KNOWN), FindProviders(R)]
    assert reader.readings.dial_ended(hint, B, 0.0) == []
    assert reader.ready(B) == [reader.ask(B, 2, NOTHING_KNOWN)]


def test_reading_tells_nobody_and_follows_nothing() -> None:
    reader = asked_both()
    assert reader.answer(A, 1, newer()) == [reader.look(1, A)]
    assert reader.looked(1, A, seq(1)) == []
    assert reader.answer(B, 2, same()) == [told(1, A, B)]
    assert (reader.sync.goals, reader.readings.goals) == ({}, {})


def test_holder_that_the_lookup_finds_is_dialled() -> None:
    reader = Reader()
    reader.read()
    where = address(2)
    assert reader.readings.holder_found(R, B, [where], 0.0) == [Dial(BootstrapAddress(where.ip, where.port, B))]


# --- what ends it -------------------------------------------------------------------------------------------


def test_stale_answer_gives_way_to_a_newer_one() -> None:
    reader = asked_both()
    assert reader.answer(A, 1, newer()) == [reader.look(1, A)]
    assert reader.looked(1, A, seq(1)) == []
    assert reader.answer(B, 2, newer()) == [reader.look(2, B)]
    assert reader.looked(2, B, seq(2)) == [told(1, A, B)]


def test_answer_that_comes_while_another_is_looked_at_is_asked_for_again() -> None:
    reader = asked_both()
    assert reader.answer(A, 1, newer()) == [reader.look(1, A)]
    assert reader.answer(B, 2, newer()) == []
    assert reader.looked(1, A, seq(1)) == [reader.ask(B, 4, knows(1))]
    assert reader.answer(B, 4, same()) == [told(1, A, B)]


def test_silent_peer_is_waited_for_no_longer_than_the_grace() -> None:
    reader = asked_both()
    reader.answer(A, 1, newer())
    assert reader.looked(1, A, seq(1), now=5.0) == []
    assert reader.readings.deadline() == 5.0 + GRACE
    assert reader.readings.tick(5.0 + GRACE - 0.01) == []
    assert reader.readings.tick(5.0 + GRACE) == [told(1, A, seconds=6.0)]


def test_only_holder_ends_it_when_nobody_else_can_be_had() -> None:
    reader = asked_both()
    reader.answer(A, 1, newer())
    assert reader.answer(B, 2, not_held()) == []
    assert reader.looked(1, A, seq(1)) == [told(1, A)]


def test_second_holder_may_take_as_long_as_the_first() -> None:
    reader = asked_both()
    assert reader.answer(A, 1, not_held()) == []
    assert reader.answer(B, 2, newer(), now=20.0) == [reader.look(1, B)]
    assert reader.looked(1, B, seq(1), now=20.0) == [told(1, B, seconds=20.0)]


def test_liar_costs_one_attempt_and_is_not_asked_again() -> None:
    reader = asked_both()
    reader.holders[R] = [A, B]
    assert reader.answer(A, 1, newer()) == [reader.look(1, A)]
    assert reader.looked(1, A, Failed(Fault("signed by nobody"))) == []
    assert reader.answer(B, 2, newer()) == [reader.look(2, B)]
    assert reader.looked(2, B, seq(1)) == [told(1, B)]


@pytest.mark.parametrize("outcome", [Failed(Fault("signed by nobody")), Incomplete()])
def test_nobody_but_liars(outcome: FetchOutcome) -> None:
    reader = asked_both()
    reader.answer(A, 1, newer())
    assert reader.answer(B, 2, not_held()) == []
    assert failed(reader.looked(1, A, outcome), ProvidersUnreachable, str(A))


def test_nobody_holds_it() -> None:
    reader = asked_both()
    assert reader.answer(A, 1, not_held()) == []
    assert failed(reader.answer(B, 2, not_held()), NoProviders)
    assert reader.readings.goals == {}


@pytest.mark.parametrize("answer", [same(), newer()])
def test_holder_that_offers_nothing_is_no_source(answer: RefsAnswer) -> None:
    reader = asked_both()
    effects = reader.answer(B, 2, not_held()) + reader.answer(A, 1, answer)
    if answer == newer():
        effects = reader.looked(1, A, NothingNew(Known()))
    assert failed(effects, ProvidersUnreachable, "offers nothing")


def test_all_silent_and_the_time_is_over() -> None:
    reader = asked_both()
    assert reader.readings.tick(ANSWER_TIMEOUT - 0.1) == []
    assert failed(reader.readings.tick(ANSWER_TIMEOUT), ProvidersUnreachable, "did not answer in time")
    assert reader.readings.goals == {}
    assert reader.readings.tick(1e6) == []


def test_time_is_over_before_anybody_answers() -> None:
    reader = asked_both()
    reader.read(timeout=5.0)
    assert reader.readings.tick(4.9) == []
    assert failed(reader.readings.tick(5.0), SyncTimedOut)


def test_time_that_is_over_in_the_grace_is_enough_for_what_was_found() -> None:
    reader = Reader()
    reader.ready(A)
    reader.read(timeout=0.5)
    reader.answer(A, 1, newer())
    assert reader.looked(1, A, seq(1)) == []
    assert reader.readings.tick(0.5) == [told(1, A, seconds=0.5)]


def test_busy_peer_is_asked_again_when_it_said() -> None:
    reader = asked_both()
    assert reader.answer(B, 2, not_held()) == []
    busy = Error(1, ErrorCode.BUSY, "busy", 5)
    assert reader.readings.refused(reader.connection(A), busy, 0.0) == []
    assert reader.readings.deadline() == 5.0
    assert reader.readings.tick(5.0) == [reader.ask(A, 3, NOTHING_KNOWN)]
    reader.answer(A, 3, newer(), now=5.0)
    assert reader.looked(1, A, seq(1), now=5.0) == [told(1, A, seconds=5.0)]


def test_peer_that_goes_away_is_not_waited_for() -> None:
    reader = asked_both()
    reader.answer(A, 1, newer())
    assert reader.looked(1, A, seq(1)) == []
    assert reader.readings.peer_gone(B, reader.connection(B), 0.0) == [told(1, A)]


def test_author_whose_record_counts_no_more_is_asked_for_everywhere() -> None:
    reader = asked_both()
    reader.holders[R] = [A, B]
    reader.answer(A, 1, newer())
    reader.looked(1, A, seq(1))
    assert reader.answer(B, 2, newer()) == [reader.look(2, B)]
    taken_back = Accepted(Known(0, b"i" * 32), ())
    nothing_of_it = RefsQuery(R, 1, b"i" * 32, ())
    assert reader.looked(2, B, taken_back) == [reader.ask(A, 5, nothing_of_it), reader.ask(B, 6, nothing_of_it)]
    assert reader.answer(A, 5, same()) == []
    assert reader.answer(B, 6, same()) == [told(1, A, B)]


# --- again, and many ----------------------------------------------------------------------------------------


def test_later_reading_goes_on_from_what_is_known() -> None:
    reader = Reader()
    reader.ready(A)
    assert reader.read(of=known(7))[0] == reader.ask(A, 1, knows(7))
    assert reader.found_nobody() == []
    assert reader.answer(A, 1, same()) == [told(1, A)]


def test_what_is_being_looked_at_is_waited_for_though_two_have_agreed() -> None:
    reader = Reader()
    for peer in (A, B, C):
        reader.ready(peer)
    reader.read(of=known(1))
    assert reader.answer(C, 3, newer()) == [reader.look(1, C)]
    assert reader.answer(A, 1, same()) == reader.answer(B, 2, same()) == []
    assert reader.looked(1, C, seq(2)) == [told(1, A, B, C)]


def test_what_is_known_of_before_is_no_answer_of_today() -> None:
    reader = Reader()
    assert reader.read(of=known(7)) == [FindProviders(R)]
    assert failed(reader.found_nobody(), NoProviders)


def test_who_reads_the_same_at_once_shares_the_answer() -> None:
    reader = asked_both()
    assert reader.read() == []
    reader.answer(A, 1, newer())
    reader.looked(1, A, seq(1))
    assert reader.answer(B, 2, same()) == [told(1, A, B), told(2, A, B)]


def test_one_of_two_who_read_gives_up() -> None:
    reader = asked_both()
    reader.read(timeout=5.0)
    assert failed(reader.readings.tick(5.0), SyncTimedOut)
    assert list(reader.readings.goals) == [R]


@pytest.mark.parametrize("running", [MAX_READINGS - 1, MAX_READINGS])
def test_so_many_readings_at_once_and_no_more(running: int) -> None:
    reader = Reader()
    for number in range(running):
        reader.read(wanted=repository(100 + number))
    effects = reader.read()
    if running < MAX_READINGS:
        assert effects == [FindProviders(R)]
    else:
        assert failed(effects, TooManyReadings)
    assert len(reader.readings.goals) == MAX_READINGS


@pytest.mark.parametrize("running", [MAX_FETCHES - 1, MAX_FETCHES])
def test_so_many_looks_at_once_and_no_more(running: int) -> None:
    reader = Reader()
    reader.ready(A)
    others = [repository(100 + number) for number in range(running)]
    for wanted in others:
        [question, _] = reader.read(wanted=wanted)
        assert isinstance(question, Send)
        assert isinstance(question.message, GetRefs)
        reader.answer(A, question.message.request, newer(wanted))
    assert len(reader.readings.fetches.running) == running
    [question, _] = reader.read()
    assert isinstance(question, Send)
    assert isinstance(question.message, GetRefs)
    looks = reader.answer(A, question.message.request, newer())
    assert len(looks) == (1 if running < MAX_FETCHES else 0)
    if running == MAX_FETCHES:
        event = LookFinished(FetchId(1), others[0], reader.connection(A), seq(1))
        [again] = reader.readings.look_finished(event, 0.0)
        assert isinstance(again, Send)


def test_answer_to_a_question_of_the_other_kind_is_unasked() -> None:
    reader = asked_both()
    with pytest.raises(UnsolicitedAnswer):
        reader.sync.refs(reader.connection(A), Refs(1, (newer(),), b""), 0.0)
    assert reader.readings.asked(reader.connection(A), 1)


def test_look_that_outlives_its_reading_changes_nothing() -> None:
    reader = asked_both()
    reader.answer(A, 1, newer())
    assert failed(reader.readings.tick(60.0), SyncTimedOut)
    assert reader.looked(1, A, seq(1), now=61.0) == []
    assert reader.readings.goals == {}
