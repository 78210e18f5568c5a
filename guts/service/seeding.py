"""What this node takes on without being asked, and what its operator changes about that."""

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.clock import Now
from guts.effects import Effect, Persist, Reply, SeedingStopped, Withdraw
from guts.errors import DiskFull
from guts.events import Accepted, Block, CommandId, Failed, FetchFinished, Follow, Unblock, Unfollow
from guts.gossip.protocol import WANTS_REPOSITORIES, GossipProtocol
from guts.ids import PeerId, RepositoryId
from guts.peers.manager import PeerManager
from guts.peers.networks import prefix
from guts.records import PeerRecord
from guts.sync.policy import Blocked, NoPlace, NotTaken, judge
from guts.sync.quotas import DiskLow
from guts.sync.reposync import RepoSync

MAX_WAITING_PER_PEER: Final = 1_024
"""Repositories that one peer has told of and that wait to be looked at: as many as one Subscribe names. What comes
when the line is full is passed over until the peer comes again."""

MAX_JUDGED: Final = 4_096
"""Repositories that were looked at and not taken, so that no peer has the same one looked at again and again."""

UNKNOWN: Final = b"?"
"""In the place of the hash of an identity document that nobody announced."""

JUDGED_SECONDS: Final = 3_600.0
"""Until what was not taken is worth another look; at once where another identity document of it is announced."""


@dataclass(frozen=True, slots=True)
class _Met:
    """What waits to be looked at; ``identity_hash``, ``holder``: of what was announced on the topic."""

    repository: RepositoryId
    identity_hash: bytes | None
    holder: PeerRecord | None


class Seeding:
    """Meets repositories, and has those looked at that the policy may want.

    What waits stands in one line per peer, and the lines take turns: who tells of much keeps nobody's out.
    """

    def __init__(self, peers: PeerManager, sync: RepoSync, gossip: GossipProtocol) -> None:
        self._peers = peers
        self._gossip = gossip
        self._sync = sync
        self._policy = sync.policy
        self._lines: dict[PeerId, deque[_Met]] = {}
        self._judged: OrderedDict[RepositoryId, tuple[float, bytes]] = OrderedDict()

    # --- what is met ----------------------------------------------------------------------------------------

    def wants(self, repository: RepositoryId, identity_hash: bytes | None, now: Now) -> bool:
        """Tell whether ``repository``, which is not followed, is worth a look.

        Args:
            identity_hash: of its newest document, where it was announced on the topic ``repositories``.
        """
        judged, seen = self._judged.get(repository, (0.0, b""))
        if seen and now.mono < judged + JUDGED_SECONDS and identity_hash in (None, seen):
            return False
        return self._policy.considers(repository, now.wall, announced=identity_hash is not None)

    def announced(
        self, peer: PeerId, repository: RepositoryId, identity_hash: bytes, holder: PeerRecord, now: Now
    ) -> list[Effect]:
        """Have ``repository``, which is wanted, looked at: ``peer`` announced it, ``holder`` says that it holds it."""
        self._stand_in_line(peer, repository, identity_hash, holder)
        return self.look(now)

    def met(self, peer: PeerId, repositories: Iterable[RepositoryId], now: Now) -> list[Effect]:
        """Take what ``peer``, which is connected, follows: some of it may be of an author who is followed here."""
        for repository in repositories if self._policy.owners else ():
            if repository not in self._sync.goals and self.wants(repository, None, now):
                self._stand_in_line(peer, repository, None, None)
        return self.look(now)

    def look(self, now: Now) -> list[Effect]:
        """Look at what waits, as far as there is room; to be called when there may be more."""
        effects: list[Effect] = []
        for peer in list(self._lines):
            line = self._lines.pop(peer)
            if self._peers.connection_to(peer) is None:
                continue
            asked: list[RepositoryId] = []
            found: list[Effect] = []
            while line and self._sync.may_consider(peer):
                met = line.popleft()
                if met.repository in self._sync.goals or not self.wants(met.repository, met.identity_hash, now):
                    continue
                self._sync.consider(met.repository, peer, met.identity_hash, now.mono)
                asked.append(met.repository)
                found += self._holder(met, peer, now)
            effects += [*self._sync.ask(peer, asked, now.mono), *found]
            if line:
                # Its next turn comes after those of the others.
                self._lines[peer] = line
        return effects

    def _holder(self, met: _Met, teller: PeerId, now: Now) -> list[Effect]:
        """Ask, or dial, who says that it holds what ``teller`` announced."""
        holder = met.holder
        if holder is None or holder.peer in (teller, self._peers.me.peer):
            return []
        if self._peers.scores.banned(holder.peer, now.mono):
            return []
        connection = self._peers.connection_to(teller)
        source = prefix(connection.address.ip) if connection is not None else ""
        self._peers.state(holder.peer, source).holds(met.repository)
        return self._sync.holder_found(met.repository, holder.peer, holder.addresses, now.mono, source)

    def _stand_in_line(
        self, peer: PeerId, repository: RepositoryId, identity_hash: bytes | None, holder: PeerRecord | None
    ) -> None:
        line = self._lines.setdefault(peer, deque())
        if len(line) < MAX_WAITING_PER_PEER:
            line.append(_Met(repository, identity_hash, holder))

    # --- what came of it ------------------------------------------------------------------------------------

    def judged(self, event: FetchFinished) -> tuple[FetchFinished, list[Effect]]:
        """Refuse what a transfer committed in the moment in which the operator decided against it."""
        goal = self._sync.goals.get(event.repository)
        if goal is None or not isinstance(event.outcome, Accepted):
            return event, []
        try:
            judge(self._sync.terms(event.repository), event.repository, event.outcome.maintainers)
        except NotTaken as error:
            # What was held before is stopped as soon as this is known to be refused.
            taken_back: list[Effect] = [] if goal.held else [Persist(SeedingStopped(event.repository))]
            return dataclasses.replace(event, outcome=Failed(error, event.outcome.maintainers)), taken_back
        return event, []

    def refused(self, repository: RepositoryId, failed: Failed, now: Now) -> list[Effect]:
        """Note that a repository was not taken, by this node's own choice; stop where it is blocked."""
        goal, error = self._sync.goals.get(repository), failed.error
        if goal is None:
            return []
        if isinstance(error, NotTaken | DiskLow | DiskFull):
            self._policy.not_taken(goal, error, failed.maintainers, now.wall)
        if not isinstance(error, NotTaken):
            return []
        if isinstance(error, NoPlace):
            # Worth a look as soon as there is a place.
            self._policy.refused += 1
        elif goal.prospect is not None:
            self._judged[repository] = (now.mono, goal.prospect.identity_hash or UNKNOWN)
            self._judged.move_to_end(repository)
            if len(self._judged) > MAX_JUDGED:
                self._judged.popitem(last=False)
        elif isinstance(error, Blocked) and goal.held:
            return self.stop(repository)
        return []

    def stop(self, repository: RepositoryId) -> list[Effect]:
        """Follow ``repository`` no longer, and tell the DHT so."""
        if (goal := self._sync.goals.get(repository)) is None:
            return []
        kept = [Persist(SeedingStopped(repository))] if goal.held else []
        self._policy.dropped(repository, declined=False)
        self._gossip.drop_topic(repository)
        return [*self._sync.drop(repository), Withdraw(repository), *kept]

    # --- commands -------------------------------------------------------------------------------------------

    def execute(self, command_id: CommandId, command: Follow | Unfollow | Block | Unblock, now: Now) -> list[Effect]:
        """Change the policy, and what follows from that."""
        effects: list[Effect] = []
        match command:
            case Follow(author=author):
                self._policy.follow(author)
                self._peers.offer(WANTS_REPOSITORIES)
                effects += self._look_around(now)
            case Unfollow(author=author, repositories=repositories):
                self._policy.unfollow(author)
                for repository in repositories:
                    effects += self.stop(repository)
            case Block(who=who, repositories=repositories):
                self._policy.block(who)
                for repository in repositories:
                    effects += self.stop(repository)
            case Unblock(who=who):
                self._policy.unblock(who)
                effects += self._look_around(now)
        return [*effects, Reply(command_id, {})]

    def _look_around(self, now: Now) -> list[Effect]:
        """Look at what connected peers follow or hold, as if all of it were met for the first time."""
        self._judged.clear()
        effects: list[Effect] = []
        for connection in self._peers.ready():
            state = self._peers.state(connection.peer)
            effects += self.met(connection.peer, sorted(state.subscriptions | state.repositories), now)
        return effects
