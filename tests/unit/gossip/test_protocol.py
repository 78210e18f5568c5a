"""What was announced is sent once, what was seen is dropped, what is too large is left out."""

import random

import pytest

from guts import canonical
from guts.canonical import NotCanonical
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.gossip import protocol
from guts.gossip.protocol import (
    FANOUT,
    SEEN_SECONDS,
    GossipProtocol,
    InvalidGossip,
    brief,
    envelope,
    message_id,
    open_envelope,
    repository_topic,
)
from guts.wire import codec
from guts.wire.limits import MAX_NEW_COMMIT_BYTES
from guts.wire.messages import EncodedRefs, Gossip, NewCommit, NewRepository, Ping
from tests.support.peers import author, record_of, repository

COMMIT = NewCommit(repository(1), author(1), 5, b"h" * 32, EncodedRefs(b"header", b"entries"))
REPOSITORY = NewRepository(repository(1), 0, b"i" * 32, record_of(1))


def connections(count: int) -> list[ConnectionId]:
    return [ConnectionId(number) for number in range(count)]


def protocol_of(seed: int = 1) -> GossipProtocol:
    return GossipProtocol(random.Random(seed))


def gossip(number: int) -> Gossip:
    return Gossip("repositories", number.to_bytes(8, "big"))


def test_announced_news_is_sent_to_everybody_and_dropped_when_it_comes_back() -> None:
    """Marking as seen and sending are one step: the seed of this project marked first and then sent nothing."""
    spread = protocol_of()
    sends = spread.announce(COMMIT, connections(3), 0.0)
    assert sorted(send.connection for send in sends) == [0, 1, 2]
    assert {send.message for send in sends} == {envelope(COMMIT)}
    assert not spread.first_seen(envelope(COMMIT), 1.0)
    assert not spread.first_seen(envelope(brief(COMMIT)), 1.0)


def test_news_that_came_in_is_relayed_though_it_was_seen() -> None:
    spread = protocol_of()
    assert spread.first_seen(envelope(COMMIT), 0.0)
    assert [send.connection for send in spread.announce(COMMIT, connections(1), 0.1)] == [0]


@pytest.mark.parametrize("count", [FANOUT, FANOUT + 1])
def test_so_many_get_the_whole_record_and_the_rest_are_told(count: int) -> None:
    messages = [send.message for send in protocol_of().announce(COMMIT, connections(count), 0.0)]
    assert messages.count(envelope(COMMIT)) == FANOUT
    assert messages.count(envelope(brief(COMMIT))) == count - FANOUT


def test_who_gets_the_whole_record_is_drawn_anew() -> None:
    spread = protocol_of()
    drawn = {
        frozenset(
            send.connection
            for send in spread.announce(COMMIT, connections(12), 0.0)
            if send.message == envelope(COMMIT)
        )
        for _ in range(20)
    }
    assert len(drawn) > 10


def test_new_repository_is_one_message_for_all() -> None:
    sends = protocol_of().announce(REPOSITORY, connections(9), 0.0)
    assert {send.message for send in sends} == {Gossip("repositories", codec.encode(REPOSITORY))}
    assert len(sends) == 9


def test_seen_is_forgotten_after_ten_minutes() -> None:
    spread = protocol_of()
    assert spread.first_seen(gossip(1), 0.0)
    assert spread.first_seen(gossip(2), 1.0)
    assert not spread.first_seen(gossip(1), SEEN_SECONDS - 0.001)
    assert spread.first_seen(gossip(1), SEEN_SECONDS)
    assert not spread.first_seen(gossip(2), SEEN_SECONDS)


def test_seen_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert protocol.SEEN_LIMIT == 65_536
    monkeypatch.setattr(protocol, "SEEN_LIMIT", 100)
    spread = protocol_of()
    assert all(spread.first_seen(gossip(number), 0.0) for number in range(100))
    assert not spread.first_seen(gossip(0), 0.0)
    assert spread.first_seen(gossip(100), 0.0)
    assert spread.first_seen(gossip(0), 0.0)
    assert not spread.first_seen(gossip(2), 0.0)


def test_id_covers_topic_and_data_and_where_one_ends() -> None:
    ids = {message_id(Gossip(topic, data)) for topic, data in (("ab", b"c"), ("a", b"bc"), ("ab", b"d"), ("x", b"c"))}
    assert len(ids) == 4


def _sized(total: int) -> NewCommit:
    """Return a NewCommit of ``total`` bytes."""
    around = len(codec.encode(brief(COMMIT))) - len(canonical.encode(None))
    news = NewCommit(repository(1), author(1), 5, b"h" * 32, EncodedRefs(b"h", b"e" * 5000))
    record = canonical.encode([b"h", b"e" * 5000])
    return NewCommit(
        news.repository,
        news.author,
        news.seq,
        news.hash,
        EncodedRefs(b"h", b"e" * (5000 + total - around - len(record))),
    )


def test_record_travels_inside_up_to_the_limit_and_no_further() -> None:
    fits, too_long = _sized(MAX_NEW_COMMIT_BYTES), _sized(MAX_NEW_COMMIT_BYTES + 1)
    assert len(codec.encode(fits)) == MAX_NEW_COMMIT_BYTES
    with pytest.raises(ValueError, match="8193 bytes"):
        codec.encode(too_long)
    assert open_envelope(envelope(fits)) == fits
    assert open_envelope(envelope(too_long)) == brief(too_long)


def test_envelope_opens_to_what_was_put_in() -> None:
    assert open_envelope(envelope(COMMIT)) == COMMIT
    assert open_envelope(envelope(brief(COMMIT))) == brief(COMMIT)
    assert open_envelope(envelope(REPOSITORY)) == REPOSITORY


@pytest.mark.parametrize(
    "bad",
    [
        Gossip(repository_topic(repository(2)), codec.encode(COMMIT)),
        Gossip("repositories", codec.encode(COMMIT)),
        Gossip(repository_topic(repository(1)), codec.encode(REPOSITORY)),
        Gossip("repositories", codec.encode(Ping(1))),
        Gossip("other", codec.encode(COMMIT)),
    ],
)
def test_news_under_a_topic_that_does_not_carry_it_is_a_fault(bad: Gossip) -> None:
    with pytest.raises(InvalidGossip) as caught:
        open_envelope(bad)
    assert caught.value.severity is Severity.FATAL


@pytest.mark.parametrize("data", [b"\x00", b"\x91\x7f", codec.encode(COMMIT)[:-1], codec.encode(COMMIT) + b"\x00"])
def test_envelope_of_garbage_is_a_fault_and_nothing_else(data: bytes) -> None:
    with pytest.raises(PeerFault):
        open_envelope(Gossip("repositories", data))
    assert issubclass(NotCanonical, PeerFault)
