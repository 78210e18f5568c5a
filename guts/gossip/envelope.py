"""Gossip envelopes: which news travel under which topic, and their ids (docs/protocol.md §4)."""

import hashlib
from dataclasses import replace
from typing import ClassVar, Final

from guts import canonical
from guts.errors import PeerFault, Severity
from guts.ids import RepositoryId
from guts.wire import codec
from guts.wire.limits import MAX_NEW_COMMIT_BYTES
from guts.wire.messages import Gossip, NewCommit, NewProof, NewRepository

TOPIC_REPOSITORIES: Final = "repositories"

News = NewCommit | NewRepository | NewProof


class InvalidGossip(PeerFault):
    """A Gossip envelope carries something that no honest peer puts in."""

    code: ClassVar[str] = "INVALID_GOSSIP"
    severity: ClassVar[Severity] = Severity.FATAL


def repository_topic(repository: RepositoryId) -> str:
    """Return the topic of the news of one repository."""
    return f"repo/{repository}"


def message_id(gossip: Gossip) -> bytes:
    """Return the 32-byte id of a piece of news."""
    return hashlib.sha256(gossip.topic.encode() + b"\0" + gossip.data).digest()


def envelope(news: News) -> Gossip:
    """Return ``news`` in an envelope for those who follow the repository; a record too large for gossip is left out."""
    if isinstance(news, NewRepository | NewProof):
        return Gossip(repository_topic(news.repository), codec.encode(news))
    return Gossip(repository_topic(news.repository), codec.encode(news if fits(news) else brief(news)))


def fits(news: NewCommit) -> bool:
    """Tell whether ``news`` has its record with it, and may be sent so."""
    if news.record is None:
        return False
    record = canonical.encode([news.record.header, news.record.entries])
    return len(codec.encode(brief(news))) - len(canonical.encode(None)) + len(record) <= MAX_NEW_COMMIT_BYTES


def announcement(news: NewRepository) -> Gossip:
    """Return ``news`` in an envelope for those who want to hear of repositories that they don't know."""
    return Gossip(TOPIC_REPOSITORIES, codec.encode(news))


def brief(news: NewCommit) -> NewCommit:
    """Return ``news`` without its record."""
    return replace(news, record=None)


def open_envelope(gossip: Gossip) -> News:
    """Return the news in ``gossip``.

    Raises:
        InvalidGossip: not such news, or under a topic that it does not belong to.
        guts.canonical.NotCanonical, guts.wire.codec.BadMessage: not a message at all.
    """
    match codec.decode(gossip.data):
        case (NewCommit() | NewProof() | NewRepository()) as news if gossip.topic == repository_topic(news.repository):
            return news
        case NewRepository() as news if gossip.topic == TOPIC_REPOSITORIES:
            return news
        case _:
            raise InvalidGossip("news of a kind that its topic does not carry")
