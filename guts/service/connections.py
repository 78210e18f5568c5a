"""Connections that begin and end, for all who want to know: the hello, dials that somebody waits for, the end."""

import math

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Effect, Reply
from guts.errors import GutsError, PeerFault, Unavailable
from guts.events import CommandId, Connect, ConnectionId
from guts.ids import PeerId
from guts.peers.exchange import PeerExchange
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.service.news import News
from guts.service.serving import Serving
from guts.sync.goal import SyncTimedOut, Waiter
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync


class Connections:
    """Tells the parts that ask peers who has come and who has gone; answers the commands that wait for a dial."""

    def __init__(
        self,
        peers: PeerManager,
        sync: RepoSync,
        receipts: Receipts,
        serving: Serving,
        news: News,
        exchange: PeerExchange,
    ) -> None:
        self._serving = serving
        self._news = news
        self._peers = peers
        self._sync = sync
        self._inquiries = (sync, sync.readings)
        self._receipts = receipts
        self._exchange = exchange
        self._connects: dict[BootstrapAddress, list[Waiter]] = {}

    def deadline(self) -> float:
        """Return when ``tick`` is due (monotonic seconds); infinity for never."""
        times = (waiter.deadline for waiters in self._connects.values() for waiter in waiters)
        return min(times, default=math.inf)

    def connect(self, command_id: CommandId, command: Connect, now: Now) -> list[Effect]:
        """Dial; the command is answered when the hello is exchanged, or when nothing comes of it."""
        waiter = Waiter(command_id, now.mono, now.mono + command.timeout)
        self._connects.setdefault(command.target, []).append(waiter)
        self._peers.prefer(command.target)
        return [Dial(command.target)]

    def introduced(self, connection: PeerConnection, effects: list[Effect], now: Now) -> list[Effect]:
        """Return ``effects`` of a hello, and where the connection is ready what follows from that."""
        if not connection.ready:
            return effects
        self._exchange.ready(now.mono)
        known = self._peers.state(connection.peer).repositories
        shared = sorted(repository for repository in known if repository in self._sync.goals)
        effects += self._sync.peer_ready(connection.peer, connection.id, shared, now.mono)
        effects += self._sync.readings.peer_ready(connection.peer, connection.id, now.mono)
        if connection.dialled is not None:
            effects += self._dial_succeeded(connection.dialled, connection.peer, now)
        return effects

    def dial_failed(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        """Note that no connection came of a dial."""
        if not isinstance(error, PeerFault):
            self._peers.nobody_at(target, now.mono)
        return self._peers.dial_failed(target, now) + self._dial_in_vain(target, error, now)

    def refused(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        """Note that a dial was not begun."""
        return self._dial_in_vain(target, error, now)

    def disconnected(self, connection_id: ConnectionId, error: GutsError | None, now: Now) -> list[Effect]:
        """Note the end of a connection."""
        connection, effects = self._peers.disconnected(connection_id, error, now)
        for part in self._inquiries:
            effects += part.peer_gone(connection.peer, connection_id, now.mono)
        self._receipts.gone(connection_id)
        self._exchange.gone(connection_id)
        self._serving.gone(connection_id)
        self._news.connection_gone(connection_id)
        if connection.dialled is None or connection.was_ready:
            return effects
        if self._peers.connection_to(connection.peer) is not None:
            # It was a second connection to a peer that we have already: the dial did reach it.
            return effects + self._dial_succeeded(connection.dialled, connection.peer, now)
        why = error or connection.farewell or Unavailable("the peer closed the connection")
        return effects + self._dial_in_vain(connection.dialled, why, now)

    def tick(self, now: Now) -> list[Effect]:
        """Answer the commands whose time is over."""
        effects: list[Effect] = []
        for target, waiters in list(self._connects.items()):
            for waiter in [waiter for waiter in waiters if waiter.deadline <= now.mono]:
                waiters.remove(waiter)
                effects.append(Reply(waiter.command_id, SyncTimedOut(f"{target} did not answer in time")))
            if not waiters:
                del self._connects[target]
        return effects

    def _dial_succeeded(self, target: BootstrapAddress, peer: PeerId, now: Now) -> list[Effect]:
        effects = self._dial_ended(target, peer, now)
        for waiter in self._connects.pop(target, []):
            seconds = round(now.mono - waiter.started, 3)
            effects.append(Reply(waiter.command_id, {"peer": str(peer), "seconds": seconds}))
        return effects

    def _dial_in_vain(self, target: BootstrapAddress, error: GutsError, now: Now) -> list[Effect]:
        effects = self._dial_ended(target, error, now)
        return effects + [Reply(waiter.command_id, error) for waiter in self._connects.pop(target, [])]

    def _dial_ended(self, target: BootstrapAddress, outcome: PeerId | GutsError, now: Now) -> list[Effect]:
        return [effect for part in self._inquiries for effect in part.dial_ended(target, outcome, now.mono)]
