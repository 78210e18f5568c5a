"""``GossipProtocol``: seen set, fanout, relay."""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Final

from guts import canonical
from guts.effects import Send
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.ids import RepositoryId
from guts.wire import codec
from guts.wire.limits import MAX_NEW_COMMIT_BYTES
from guts.wire.messages import Gossip, NewCommit, NewProof, NewRepository

TOPIC_REPOSITORIES: Final = "repositories"
FANOUT: Final = 6
"""Peers that get a whole record at once; gossipsub's D."""

SEEN_LIMIT: Final = 65_536
"""Ids remembered: about 10 MiB, and more than ten minutes of any honest load."""

SEEN_SECONDS: Final = 600.0

ENVELOPE_BYTES: Final = 128
"""What a NewCommit has around its record: two keys, a hash, a number and lengths, 121 at the most."""


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
    """Return ``news`` in its envelope; a record too large for gossip is left out."""
    if isinstance(news, NewRepository):
        return Gossip(TOPIC_REPOSITORIES, codec.encode(news))
    if isinstance(news, NewProof):
        return Gossip(repository_topic(news.repository), codec.encode(news))
    data = codec.encode(brief(news))
    if news.record is not None:
        record = canonical.encode([news.record.header, news.record.entries])
        if len(data) - len(canonical.encode(None)) + len(record) <= MAX_NEW_COMMIT_BYTES:
            data = codec.encode(news)
    return Gossip(repository_topic(news.repository), data)


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
        case (NewCommit(repository=repository) | NewProof(repository=repository)) as news if (
            gossip.topic == repository_topic(repository)
        ):
            return news
        case NewRepository() as news if gossip.topic == TOPIC_REPOSITORIES:
            return news
        case _:
            raise InvalidGossip("news of a kind that its topic does not carry")


class GossipProtocol:
    """What was seen, and whom to tell. One per node."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def first_seen(self, gossip: Gossip, now: float) -> bool:
        """Mark ``gossip`` as seen at ``now`` (monotonic seconds); tell whether it is new."""
        while self._seen and next(iter(self._seen.values())) <= now - SEEN_SECONDS:
            self._seen.popitem(last=False)
        identifier = message_id(gossip)
        if identifier in self._seen:
            return False
        if len(self._seen) >= SEEN_LIMIT:
            self._seen.popitem(last=False)
        self._seen[identifier] = now
        return True

    def forget(self, gossip: Gossip) -> None:
        """Take back that ``gossip`` was seen: who told it was not listened to."""
        self._seen.pop(message_id(gossip), None)

    def announce(self, news: News, listeners: Iterable[ConnectionId], now: float) -> list[Send]:
        """Return the sends of ``news`` to ``listeners``, and mark it as seen.

        ``FANOUT`` of them, drawn at random, get all of it; the rest are only told that there is news, and ask
        for the record unless somebody else was faster. What came in by gossip, was validated and is announced here
        is thereby relayed: same news, same id.
        """
        whole = envelope(news)
        short = envelope(brief(news)) if isinstance(news, NewCommit) else whole
        self.first_seen(whole, now)
        self.first_seen(short, now)
        shuffled = list(listeners)
        self._rng.shuffle(shuffled)
        return [Send(connection, whole if index < FANOUT else short) for index, connection in enumerate(shuffled)]
