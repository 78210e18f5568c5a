"""What peers and workers say about repositories that this node follows or reads."""

import logging

from guts.clock import Now
from guts.effects import Effect
from guts.errors import PeerFault, StorageFault
from guts.events import Accepted, Failed, FetchFinished, LookFinished, NothingNew
from guts.peers.manager import PeerManager
from guts.peers.state import PeerConnection
from guts.service.admission import Admitted
from guts.service.news import News
from guts.service.seeding import Seeding
from guts.sync.receipts import Receipts
from guts.sync.reposync import RepoSync
from guts.wire.messages import Refs, RefsStatus, Subscribe

log = logging.getLogger(__name__)


class Repositories:
    """Notes who holds what, and what came of transfers."""

    def __init__(self, peers: PeerManager, sync: RepoSync, receipts: Receipts, news: News, seeding: Seeding) -> None:
        self._peers = peers
        self._sync = sync
        self._receipts = receipts
        self._news = news
        self._seeding = seeding

    def subscribed(self, connection: PeerConnection, admitted: Admitted[Subscribe], now: Now) -> list[Effect]:
        """Ask who wants the news of what we hold: it may hold it too, or only want to."""
        message = admitted.message
        self._peers.subscribe(connection, message)
        shared = [repository for repository in message.added if self._sync.holds(repository)]
        asked = self._sync.ask(connection.peer, shared, now.mono)
        met = self._seeding.met(connection.peer, message.added, now)
        return asked + self._receipts.met(connection.peer, connection.id, message.added) + met

    def refs(self, connection: PeerConnection, admitted: Admitted[Refs], now: Now) -> list[Effect]:
        """Take an answer to GetRefs, and note what the peer says that it holds."""
        message = admitted.message
        readings = self._sync.readings
        part = readings if readings.asked(connection.id, message.request) else self._sync
        effects = part.refs(connection.id, message, now.mono)
        state = self._peers.state(connection.peer)
        for answer in message.answers:
            if answer.status is RefsStatus.HELD:
                state.holds(answer.repository)
            else:
                state.repositories.discard(answer.repository)
        held = [answer.repository for answer in message.answers if answer.status is RefsStatus.HELD]
        return effects + self._receipts.met(connection.peer, connection.id, held) + self._seeding.look(now)

    def fetch_finished(self, event: FetchFinished, now: Now) -> list[Effect]:
        """Take the outcome of a transfer, and announce what it brought."""
        peer = self._sync.fetches.running[event.fetch].peer
        goal = self._sync.goals.get(event.repository)
        before = goal.known.epoch if goal is not None and goal.held else None
        event, effects = self._seeding.judged(event)
        match event.outcome:
            case Failed(error=error) as failed:
                log.debug("fetch of %s from %s failed: %s", event.repository.short, peer.short, error)
                if not isinstance(error, StorageFault):
                    self._peers.state(peer).usefulness.failed()
                if isinstance(error, PeerFault):
                    effects += self._peers.fault(peer, error, now)
                effects += self._seeding.refused(event.repository, failed, now)
            case Accepted(pack_bytes=pack_bytes, pack_seconds=seconds) if goal is not None:
                self._peers.state(peer).holds(event.repository)
                self._peers.state(peer).usefulness.served(pack_bytes, seconds)
            case NothingNew() if goal is not None:
                self._peers.state(peer).holds(event.repository)
            case _:
                pass
        effects += self._sync.fetch_finished(event, now.mono)
        return effects + self._news.fetched(event, before, now) + self._seeding.look(now)

    def look_finished(self, event: LookFinished, now: Now) -> list[Effect]:
        """Take the outcome of a reading."""
        readings = self._sync.readings
        peer = readings.fetches.running[event.fetch].peer
        effects: list[Effect] = []
        match event.outcome:
            case Failed(error=PeerFault() as error):
                effects += self._peers.fault(peer, error, now)
            case Accepted() | NothingNew():
                self._peers.state(peer).holds(event.repository)
            case _:
                pass
        return effects + readings.look_finished(event, now.mono)
