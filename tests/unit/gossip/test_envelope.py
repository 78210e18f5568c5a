"""Which news go into which envelope, and what is too large for one."""

import pytest

from guts import canonical
from guts.canonical import NotCanonical
from guts.errors import PeerFault, Severity
from guts.gossip.envelope import (
    InvalidGossip,
    announcement,
    brief,
    envelope,
    message_id,
    open_envelope,
    repository_topic,
)
from guts.wire import codec
from guts.wire.limits import MAX_NEW_COMMIT_BYTES
from guts.wire.messages import EncodedRefs, Gossip, NewCommit, NewProof, NewRepository, Ping
from tests.support.peers import author, record_of, repository

COMMIT = NewCommit(repository(1), author(1), 5, b"h" * 32, EncodedRefs(b"header", b"entries"))
REPOSITORY = NewRepository(repository(1), 0, b"i" * 32, record_of(1))
PROOF = NewProof(repository(1), author(1), 5, b"proof")


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
    assert open_envelope(envelope(REPOSITORY)) == open_envelope(announcement(REPOSITORY)) == REPOSITORY
    assert {envelope(REPOSITORY).topic, announcement(REPOSITORY).topic} == {
        repository_topic(repository(1)),
        "repositories",
    }
    assert open_envelope(envelope(PROOF)) == PROOF


@pytest.mark.parametrize(
    "bad",
    [
        Gossip(repository_topic(repository(2)), codec.encode(COMMIT)),
        Gossip("repositories", codec.encode(COMMIT)),
        Gossip(repository_topic(repository(2)), codec.encode(REPOSITORY)),
        Gossip("repositories", codec.encode(PROOF)),
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
