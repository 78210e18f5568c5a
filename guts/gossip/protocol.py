"""``GossipProtocol``: what was seen, who has it, and over which links it goes on; see the package's docstring."""

import random
from collections import OrderedDict
from collections.abc import Iterable
from typing import ClassVar, Final

from guts.effects import Send
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.gossip.envelope import News, brief, envelope, fits, message_id
from guts.gossip.missing import MissingNews
from guts.gossip.seen import SeenCache
from guts.gossip.trees import Trees
from guts.gossip.untold import Untold
from guts.ids import RepositoryId
from guts.wire.messages import Gossip, NewCommit

SEEN_LIMIT: Final = 65_536
"""Ids remembered: about 10 MiB, and more than ten minutes of any honest load."""

SEEN_SECONDS: Final = 600.0

REJECTED_LIMIT: Final = 4_096
"""Records remembered as refused: each stands for the work of a verification that is not done again."""

REJECTED_SECONDS: Final = 3600.0

RELAY_WINDOW_MS: Final = 3_600_000
"""Age of a record, by its signed time, past which it is not news any more: anti-entropy brings it to who lacks it."""

SPREADING_LIMIT: Final = 1_024
"""Records of which it is remembered who has them; a record crosses a network within seconds."""


WANTS_REPOSITORIES: Final = "news"
"""The capability of those who want the topic ``repositories``, and pass it on."""

FANOUT: Final = 6
"""Peers to whom a new repository is passed on, drawn at random: gossipsub's D. All who want to hear of it do, but for
a few in a thousand, and those meet it in the DHT or on another day."""


class RelaysRefused(PeerFault):
    """A record came that was refused before, bit for bit. Who relays it may not look as closely as we do."""

    code: ClassVar[str] = "RELAYS_REFUSED"
    severity: ClassVar[Severity] = Severity.MINOR


class GossipProtocol:
    """What was seen, and whom to tell. One per node.

    Attributes:
        trees: which links are eager.
        missing: what was told of in short and has not come.
        untold: what is to be told in short.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.trees = Trees()
        self.missing = MissingNews(rng)
        self.untold = Untold(rng)
        self._seen = SeenCache(SEEN_LIMIT, SEEN_SECONDS)
        self._rejected = SeenCache(REJECTED_LIMIT, REJECTED_SECONDS)
        self._having: OrderedDict[bytes, set[ConnectionId]] = OrderedDict()

    # --- in -------------------------------------------------------------------------------------------------

    def first_seen(self, gossip: Gossip, now: float) -> bool:
        """Mark ``gossip`` as seen at ``now`` (monotonic seconds); tell whether it is new.

        Raises:
            RelaysRefused: it is what ``reject`` was told of.
        """
        identifier = message_id(gossip)
        if self._rejected.knows(identifier, now):
            raise RelaysRefused("a record that was refused before")
        return self._seen.meet(identifier, now)

    def forget(self, gossip: Gossip) -> None:
        """Take back that ``gossip`` was seen: nothing came of it, and another may tell it with more success."""
        self._seen.forget(message_id(gossip))

    def reject(self, gossip: Gossip, now: float) -> None:
        """Remember that ``gossip`` is worth nothing, whoever tells it."""
        self._rejected.meet(message_id(gossip), now)

    def has(self, news: NewCommit, link: ConnectionId) -> None:
        """Note that who is at the other end of ``link`` has the record of ``news``, or says so."""
        having = self._having.setdefault(news.hash, set())
        self._having.move_to_end(news.hash)
        having.add(link)
        if len(self._having) > SPREADING_LIMIT:
            self._having.popitem(last=False)

    def have_not(self, header_hash: bytes, links: Iterable[ConnectionId]) -> None:
        """Take back ``has``: what was sent over ``links`` did not help."""
        self._having.get(header_hash, set()).difference_update(links)

    # --- out ------------------------------------------------------------------------------------------------

    def relay(self, news: NewCommit, listeners: Iterable[ConnectionId], now: float) -> list[Send]:
        """Return the sends of ``news``, record and all, over the eager links to those who lack it; none if too large.

        ``news`` is marked as seen: what came in by gossip and was validated goes on; what comes back does not.
        """
        if not fits(news):
            return []
        whole = envelope(news)
        self._seen.meet(message_id(whole), now)
        return self._send(news, whole, self.trees.eager((news.repository, news.author), listeners))

    def tell(self, news: NewCommit, listeners: Iterable[ConnectionId]) -> list[Send]:
        """Return the sends of ``news`` in short to those who lack it, over links of both kinds."""
        return self._send(news, envelope(brief(news)), listeners)

    def flood(self, news: News, listeners: Iterable[ConnectionId], now: float) -> list[Send]:
        """Return the sends of ``news`` to all ``listeners``, and mark it as seen."""
        message = envelope(news)
        self._seen.meet(message_id(message), now)
        return [Send(link, message) for link in listeners]

    def scatter(self, message: Gossip, listeners: Iterable[ConnectionId], now: float) -> list[Send]:
        """Return the sends of ``message`` to ``FANOUT`` of ``listeners``, drawn at random, and mark it as seen."""
        self._seen.meet(message_id(message), now)
        drawn = list(listeners)
        self._rng.shuffle(drawn)
        return [Send(link, message) for link in drawn[:FANOUT]]

    def _send(self, news: NewCommit, message: Gossip, links: Iterable[ConnectionId]) -> list[Send]:
        having = self._having.get(news.hash, set())
        lacking = [link for link in links if link not in having]
        for link in lacking:
            self.has(news, link)
        return [Send(link, message) for link in lacking]

    # --- links ----------------------------------------------------------------------------------------------

    def drop_link(self, link: ConnectionId) -> None:
        """Forget a connection that is gone."""
        self.trees.drop_link(link)
        self.missing.drop_link(link)

    def drop_topic(self, repository: RepositoryId) -> None:
        """Forget the trees of a repository that is no longer followed."""
        self.trees.drop_topic(repository)
        self.missing.here(repository)
