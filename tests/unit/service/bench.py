"""A service with named peers, for the tests of this package."""

import random
from collections.abc import Mapping

from guts.addresses import BootstrapAddress
from guts.effects import Effect
from guts.errors import GutsError
from guts.events import (
    Accepted,
    Command,
    CommandId,
    CommandReceived,
    ConnectionId,
    Disconnected,
    Event,
    Head,
    Known,
    MessageReceived,
)
from guts.gossip.protocol import GossipProtocol
from guts.ids import RepositoryId
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.service.service import Service
from guts.sync.reposync import RepoSync
from guts.wire.messages import EncodedRefs, Message
from tests.support.peers import IDS, OLD, ack_of, at, author, hello_of, inbound, outbound, record_of, repository

ME = 0
"""The smallest id, so that what we dial stays."""

R, S = repository(1), repository(2)
AUTHOR = author(1)
RECORD = EncodedRefs(b"header", b"entries")


def known(seq: int, epoch: int = 0) -> Known:
    """Return the state after the record ``seq``."""
    return Known(epoch, b"i" * 32, ((AUTHOR, Head(seq, b"h" * 32)),))


def accepted(seq: int, epoch: int = 0) -> Accepted:
    """Return the outcome that brings the record ``seq``."""
    return Accepted(known(seq, epoch), ((AUTHOR, Head(seq, b"h" * 32), RECORD),))


class Bench:
    """A service, and the time in seconds at which events happen."""

    def __init__(
        self,
        held: Mapping[RepositoryId, Known] | None = None,
        capabilities: tuple[str, ...] = ("seed",),
        max_connections: int = 50,
    ) -> None:
        rng = random.Random(1)
        me = Self(IDS[ME], "guts/test", capabilities, b"my start")
        peers = PeerManager(me, record_of(ME), Limits(max_connections, 30.0), Scores([], at(0)), (), (), rng)
        sync = RepoSync(
            held or {}, lambda wanted: [state.id for state in peers.peers_with_repository(wanted)], rng, 0.0, 1000.0
        )
        self.service = Service(peers, GossipProtocol(rng), sync)
        self.time = 0.0
        self.commands = 0

    def handle(self, event: Event) -> list[Effect]:
        """Let ``event`` happen now."""
        return self.service.handle(event, at(self.time))

    def say(self, connection: int, message: Message) -> list[Effect]:
        """Let a peer say ``message``."""
        return self.handle(MessageReceived(ConnectionId(connection), message))

    def call(self, connection: int, peer: int, nonce: bytes = OLD) -> list[Effect]:
        """Let ``peer`` dial us and say hello."""
        self.handle(inbound(connection, peer))
        return self.say(connection, hello_of(peer, nonce=nonce))

    def reach(self, connection: int, peer: int, dialled: BootstrapAddress | None = None) -> list[Effect]:
        """Let our dial of ``peer`` succeed."""
        self.handle(outbound(connection, peer, dialled))
        return self.say(connection, ack_of(peer))

    def end(self, connection: int, error: GutsError | None = None) -> list[Effect]:
        """Let a connection be gone."""
        return self.handle(Disconnected(ConnectionId(connection), error))

    def command(self, command: Command) -> list[Effect]:
        """Give ``command``; their ids count from 1."""
        self.commands += 1
        return self.handle(CommandReceived(CommandId(self.commands), command))
