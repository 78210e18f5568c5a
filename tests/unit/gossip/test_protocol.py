"""What was announced is sent once, what was seen goes on once, who has it is not told."""

import random

import pytest

from guts.errors import Severity
from guts.events import ConnectionId
from guts.gossip import protocol
from guts.gossip.envelope import announcement, brief, envelope
from guts.gossip.protocol import FANOUT, GossipProtocol, RelaysRefused
from guts.wire.messages import EncodedRefs, NewCommit, NewRepository
from tests.support.peers import author, record_of, repository

R = repository(1)
TREE = (R, author(1))
COMMIT = NewCommit(R, author(1), 5, b"h" * 32, EncodedRefs(b"header", b"entries"))
LARGE = NewCommit(R, author(1), 5, b"h" * 32, EncodedRefs(b"header", b"e" * 9000))
REPOSITORY = NewRepository(R, 0, b"i" * 32, record_of(1))
WHOLE, SHORT = envelope(COMMIT), envelope(brief(COMMIT))


def connections(count: int) -> list[ConnectionId]:
    return [ConnectionId(number) for number in range(count)]


def protocol_of(seed: int = 1) -> GossipProtocol:
    return GossipProtocol(random.Random(seed))


def test_announced_news_is_sent_to_everybody_and_dropped_when_it_comes_back() -> None:
    """Marking as seen and sending are one step: the seed of this project marked first and then sent nothing."""
    spread = protocol_of()
    sends = spread.relay(COMMIT, connections(3), 0.0)
    assert [send.connection for send in sends] == connections(3)
    assert {send.message for send in sends} == {WHOLE}
    assert not spread.first_seen(WHOLE, 1.0)


def test_news_that_came_in_is_relayed_though_it_was_seen() -> None:
    spread = protocol_of()
    assert spread.first_seen(WHOLE, 0.0)
    assert [send.connection for send in spread.relay(COMMIT, connections(1), 0.1)] == [0]


def test_who_is_known_to_have_it_is_not_told() -> None:
    spread = protocol_of()
    one, two, three = connections(3)
    spread.has(COMMIT, one)
    assert [send.connection for send in spread.relay(COMMIT, [one, two], 0.0)] == [two]
    assert [send.connection for send in spread.tell(COMMIT, [one, two, three])] == [three]
    assert spread.tell(COMMIT, [one, two, three]) == []
    assert spread.relay(COMMIT, [one, two, three], 1.0) == []


def test_whom_it_did_not_help_is_told_again() -> None:
    spread = protocol_of()
    one, two = connections(2)
    spread.relay(COMMIT, [one, two], 0.0)
    spread.have_not(COMMIT.hash, [two])
    spread.have_not(b"unheard of".ljust(32), [two])
    assert [send.connection for send in spread.tell(COMMIT, [one, two])] == [two]


def test_lazy_links_get_it_in_short_when_the_time_has_come() -> None:
    spread = protocol_of()
    one, two = connections(2)
    spread.trees.prune(TREE, two)
    assert [(send.connection, send.message) for send in spread.relay(COMMIT, [one, two], 0.0)] == [(one, WHOLE)]
    assert [(send.connection, send.message) for send in spread.tell(COMMIT, [one, two])] == [(two, SHORT)]


def test_record_too_large_for_gossip_is_told_in_short_over_all_links() -> None:
    spread = protocol_of()
    assert spread.relay(LARGE, connections(2), 0.0) == []
    assert [send.message for send in spread.tell(LARGE, connections(2))] == [SHORT, SHORT]


def test_new_repository_is_one_message_for_all() -> None:
    spread = protocol_of()
    sends = spread.flood(REPOSITORY, connections(9), 0.0)
    assert {send.message for send in sends} == {envelope(REPOSITORY)}
    assert len(sends) == 9
    assert not spread.first_seen(envelope(REPOSITORY), 1.0)


@pytest.mark.parametrize("count", [1, FANOUT, FANOUT + 1, 50])
def test_new_repository_goes_on_to_some_drawn_at_random(count: int) -> None:
    spread = protocol_of()
    message = announcement(REPOSITORY)
    drawn = [frozenset(send.connection for send in spread.scatter(message, connections(count), 0.0)) for _ in range(20)]
    assert {len(links) for links in drawn} == {min(count, FANOUT)}
    assert (len(set(drawn)) > 1) == (count > FANOUT)
    assert not spread.first_seen(message, 1.0)


def test_what_nothing_came_of_may_be_told_again() -> None:
    spread = protocol_of()
    spread.first_seen(WHOLE, 0.0)
    spread.forget(WHOLE)
    assert spread.first_seen(WHOLE, 0.0)


def test_what_was_refused_is_a_small_fault_of_whoever_tells_it_again() -> None:
    spread = protocol_of()
    spread.reject(WHOLE, 0.0)
    with pytest.raises(RelaysRefused) as caught:
        spread.first_seen(WHOLE, 1.0)
    assert caught.value.severity is Severity.MINOR
    # Another record with the same number and hash is another matter: a lie about a record does not keep it out.
    other = NewCommit(R, author(1), 5, b"h" * 32, EncodedRefs(b"header", b"honest"))
    assert spread.first_seen(envelope(other), 1.0)


def test_who_has_what_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert protocol.SPREADING_LIMIT == 1_024
    monkeypatch.setattr(protocol, "SPREADING_LIMIT", 2)
    spread = protocol_of()
    commits = [NewCommit(R, author(1), seq, bytes([seq]) * 32) for seq in (1, 2, 3)]
    for commit in commits[:2]:
        spread.has(commit, ConnectionId(1))
    assert [spread.tell(commit, [ConnectionId(1)]) for commit in commits[:2]] == [[], []]
    spread.has(commits[2], ConnectionId(1))
    assert [len(spread.tell(commit, [ConnectionId(1)])) for commit in commits[1:]] == [0, 0]
    assert len(spread.tell(commits[0], [ConnectionId(1)])) == 1


def test_connection_or_repository_that_is_gone_leaves_nothing() -> None:
    spread = protocol_of()
    for link in connections(2):
        spread.trees.prune(TREE, link)
        spread.missing.told(link, COMMIT, 0.1, 0.0)
    spread.drop_link(ConnectionId(0))
    assert not spread.trees.is_lazy(TREE, ConnectionId(0))
    assert list(spread.missing.tellers(R)) == [ConnectionId(1)]
    spread.drop_topic(R)
    assert not spread.trees.is_lazy(TREE, ConnectionId(1))
    assert spread.missing.tellers(R) == {}
