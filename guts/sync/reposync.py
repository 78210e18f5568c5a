"""``RepoSync``: find peers, ask for refs, see what is newer, have it fetched; see the package's docstring."""

import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, assert_never

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import Candidate, Dial, Effect, Fetch, FindProviders, Provide, Reply, Send
from guts.errors import GutsError, PeerFault, StorageFault, Unavailable
from guts.events import (
    Accepted,
    ConnectionId,
    Failed,
    FetchFinished,
    FetchId,
    Incomplete,
    Known,
    LookupFinished,
    NothingNew,
)
from guts.ids import PeerId, RepositoryId
from guts.records import ProviderRecord
from guts.sync.goal import Goal, NoProviders, ProvidersUnreachable, SyncTimedOut, Waiter
from guts.wire.limits import MAX_QUERIES
from guts.wire.messages import GetRefs, KnownHead, NewCommit, Refs, RefsAnswer, RefsQuery, RefsStatus

ASK_INTERVAL: Final = 60.0
"""Seconds between two rounds of anti-entropy for one repository: gossip is for speed, this for certainty."""

SEARCH_INTERVAL: Final = 300.0
"""Seconds between two lookups for a repository with too few connected holders, ± half."""

WANTED_HOLDERS: Final = 3
"""Other holders of a followed repository to be connected to, as a best effort."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds for an answer to GetRefs: 4 MiB at 140 kB/s."""

MAX_LATE: Final = 1_024
"""Questions without an answer in time that are remembered: an answer that comes late is no fault."""

MAX_ASKS_PER_PEER: Final = 2
"""GetRefs under way with one peer; the rest wait here, not in its queue."""

MAX_FETCHES: Final = 4
"""Transfers at a time: they share the disk and the link."""

MAX_DIALS_PER_GOAL: Final = 8
RETRY_AFTER_TROUBLE: Final = 15.0
"""Seconds, ± half, before a peer whose transfer failed is asked again for that repository."""

RETRY_AFTER_FAULT: Final = 600.0
RETRY_AFTER_STORAGE: Final = 60.0


class UnsolicitedAnswer(PeerFault):
    """An answer to a question that was not asked, or about something that was not asked for."""

    code: ClassVar[str] = "UNSOLICITED_ANSWER"


class AnswerIncomplete(Unavailable):
    """A peer left out of its answer what its records build on."""

    code: ClassVar[str] = "INCOMPLETE"


@dataclass(slots=True)
class _Ready:
    """A ready peer: its connection, and what it is still to be asked about, in order."""

    connection: ConnectionId
    to_ask: dict[RepositoryId, None]
    asks: int = 0


@dataclass(frozen=True, slots=True)
class _Ask:
    peer: PeerId
    repositories: tuple[RepositoryId, ...]
    deadline: float


class RepoSync:
    """Every followed repository of this node."""

    def __init__(
        self,
        held: Mapping[RepositoryId, Known],
        holders: Callable[[RepositoryId], Iterable[PeerId]],
        rng: random.Random,
        now: float,
        ask_interval: float = ASK_INTERVAL,
    ) -> None:
        """Follow what is ``held`` already.

        Args:
            holders: names the ready peers known to hold a repository.
            ask_interval: seconds between two rounds of anti-entropy for one repository, ± half.
        """
        self._ask_interval = ask_interval
        self.goals: dict[RepositoryId, Goal] = {}
        self._holders = holders
        self._rng = rng
        self._ready: dict[PeerId, _Ready] = {}
        self._asks: dict[tuple[ConnectionId, int], _Ask] = {}
        self._late: dict[tuple[ConnectionId, int], None] = {}
        self._agenda: list[tuple[float, RepositoryId]] = []
        self._fetches: dict[FetchId, RepositoryId] = {}
        self._last_request = 0
        self._last_fetch = 0
        for repository, known in held.items():
            goal = self.goals[repository] = Goal(repository, known, held=True)
            self._schedule(goal, now + rng.uniform(0.0, ask_interval))
            goal.next_search = now

    # --- questions ------------------------------------------------------------------------------------------

    def followed(self) -> list[RepositoryId]:
        """Return the repositories whose news this node wants."""
        return list(self.goals)

    def holds(self, repository: RepositoryId) -> bool:
        """Tell whether a state of ``repository`` is committed here and followed."""
        goal = self.goals.get(repository)
        return goal is not None and goal.held

    def deadline(self) -> float:
        """Return when ``tick`` is due next (monotonic seconds)."""
        times = [ask.deadline for ask in self._asks.values()]
        times += [waiter.deadline for goal in self.goals.values() if goal.waiters for waiter in goal.waiters]
        return min(times + [time for time, _ in self._agenda[:1]], default=math.inf)

    # --- commands -------------------------------------------------------------------------------------------

    def want(
        self,
        repository: RepositoryId,
        hints: Iterable[BootstrapAddress],
        waiter: Waiter,
        now: float,
    ) -> list[Effect]:
        """Follow ``repository``; the waiter is answered when it is here, or when it can't be had."""
        goal = self.goals.get(repository)
        if goal is None:
            goal = self.goals[repository] = Goal(repository)
            self._schedule(goal, now + self._ask_interval)
        goal.dials.update(hints)
        effects: list[Effect] = [Dial(target) for target in goal.dials]
        for peer in list(self._ready):
            effects += self.ask(peer, [repository], now)
        if goal.held:
            # It is here, if not the newest of it: what was missed while it was not followed comes behind.
            return [*effects, _success(goal, waiter, now)]
        goal.waiters.append(waiter)
        return effects + self._search(goal, now) + self._settle(goal, now)

    def sync_now(self, repository: RepositoryId, waiter: Waiter, now: float) -> list[Effect]:
        """Ask every ready holder of a held repository now; look for holders where there is none."""
        goal = self.goals[repository]
        goal.confirmed = False
        goal.reasons.clear()
        goal.retry_after.clear()
        goal.waiters.append(waiter)
        effects: list[Effect] = []
        holders = list(self._holders(repository))
        for peer in holders:
            effects += self.ask(peer, [repository], now)
        if not holders:
            effects += self._search(goal, now)
        return effects + self._settle(goal, now)

    def drop(self, repository: RepositoryId) -> list[Effect]:
        """Follow ``repository`` no longer."""
        goal = self.goals.pop(repository)
        error = SyncTimedOut(f"{repository} is no longer followed")
        return [Reply(waiter.command_id, error) for waiter in goal.waiters]

    def published(self, repository: RepositoryId, known: Known, now: float) -> None:
        """Follow what was just signed and committed here."""
        goal = self.goals.get(repository)
        if goal is None:
            goal = self.goals[repository] = Goal(repository)
            self._schedule(goal, now + self._jittered(self._ask_interval))
        goal.known = known
        goal.held = True

    # --- peers ----------------------------------------------------------------------------------------------

    def peer_ready(
        self, peer: PeerId, connection: ConnectionId, shared: Iterable[RepositoryId], now: float
    ) -> list[Effect]:
        """Ask a new peer about what it is known to hold, and about everything that somebody waits for."""
        replaced = self._ready.get(peer)
        if replaced is not None:
            self._forget(peer, replaced.connection)
        self._ready[peer] = _Ready(connection, {})
        wanted = [goal.repository for goal in self.goals.values() if not goal.held]
        return self.ask(peer, [*wanted, *shared], now)

    def peer_gone(self, peer: PeerId, connection: ConnectionId, now: float) -> list[Effect]:
        """Give up what was asked of a peer whose connection is gone."""
        ready = self._ready.get(peer)
        if ready is None or ready.connection != connection:
            return []
        effects: list[Effect] = []
        for goal in self._forget(peer, connection):
            goal.reasons[str(peer)] = "disconnected"
            effects += self._settle(goal, now)
        return effects

    def _forget(self, peer: PeerId, connection: ConnectionId) -> list[Goal]:
        """Forget the ready ``connection`` of ``peer``; return the goals that had hopes in it."""
        del self._ready[peer]
        for key in [key for key in self._asks if key[0] == connection]:
            del self._asks[key]
        for key in [key for key in self._late if key[0] == connection]:
            del self._late[key]
        goals = [goal for goal in self.goals.values() if peer in goal.asking or peer in goal.offers]
        for goal in goals:
            goal.asking.discard(peer)
            goal.offers.discard(peer)
        return goals

    def ask(self, peer: PeerId, repositories: Iterable[RepositoryId], now: float) -> list[Effect]:
        """Ask ``peer`` what it has that is newer, of those ``repositories`` that we follow."""
        ready = self._ready.get(peer)
        if ready is None:
            return []
        for repository in repositories:
            goal = self.goals.get(repository)
            if goal is not None and now >= goal.retry_after.get(peer, -math.inf) and peer not in goal.asking:
                goal.asking.add(peer)
                ready.to_ask[repository] = None
        return self._send_asks(peer, ready, now)

    def _send_asks(self, peer: PeerId, ready: _Ready, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while ready.to_ask and ready.asks < MAX_ASKS_PER_PEER:
            batch = tuple(list(ready.to_ask)[:MAX_QUERIES])
            for repository in batch:
                del ready.to_ask[repository]
            queries = tuple(_query(self.goals[repository]) for repository in batch if repository in self.goals)
            if not queries:
                continue
            self._last_request = self._last_request % 0xFFFFFFFF + 1
            self._asks[ready.connection, self._last_request] = _Ask(peer, batch, now + ANSWER_TIMEOUT)
            ready.asks += 1
            effects.append(Send(ready.connection, GetRefs(self._last_request, queries, b"")))
        return effects

    def _answered(self, connection: ConnectionId, request: int) -> _Ask | None:
        ask = self._asks.pop((connection, request), None)
        if ask is not None:
            self._ready[ask.peer].asks -= 1
            for repository in ask.repositories:
                if (goal := self.goals.get(repository)) is not None:
                    goal.asking.discard(ask.peer)
        return ask

    # --- answers --------------------------------------------------------------------------------------------

    def refs(self, connection: ConnectionId, refs: Refs, now: float) -> list[Effect]:
        """Take the answer to a GetRefs.

        Raises:
            UnsolicitedAnswer: nothing was asked under that id, or something else was.
        """
        if (connection, refs.request) in self._late:
            del self._late[connection, refs.request]
            return []
        if (connection, refs.request) not in self._asks:
            raise UnsolicitedAnswer("Refs for a request that is not open")
        ask = self._asks[connection, refs.request]
        answered = {answer.repository for answer in refs.answers}
        if len(answered) != len(refs.answers) or not answered <= set(ask.repositories):
            raise UnsolicitedAnswer("Refs about a repository that was not asked for")
        self._answered(connection, refs.request)
        effects: list[Effect] = []
        for answer in refs.answers:
            if (goal := self.goals.get(answer.repository)) is not None:
                effects += self._answer(goal, ask.peer, connection, answer, bool(refs.cursor), now)
        if refs.cursor and not refs.answers:
            # More is said to follow, again and again: not at the speed of the wire.
            return effects + self._gave_up(ask, "answered with nothing", now)
        if refs.cursor:
            effects += self.ask(ask.peer, [r for r in ask.repositories if r not in answered], now)
        effects += self._send_asks(ask.peer, self._ready[ask.peer], now)
        for repository in ask.repositories:
            if (goal := self.goals.get(repository)) is not None:
                effects += self._settle(goal, now)
        return effects

    def _answer(
        self,
        goal: Goal,
        peer: PeerId,
        connection: ConnectionId,
        answer: RefsAnswer,
        partial: bool,
        now: float,
    ) -> list[Effect]:
        if answer.status is not RefsStatus.HELD:
            goal.reasons[str(peer)] = "does not hold it"
            return []
        if not answer.documents and not answer.records:
            goal.confirmed = goal.confirmed or goal.held
            return []
        candidate = Candidate(answer.documents, answer.headers, answer.records)
        return self._fetch(goal, peer, connection, candidate, partial)

    def refused(self, connection: ConnectionId, request: int, why: str, now: float) -> list[Effect]:
        """Take an Error that answers one of our requests; anything else by that id is nobody's concern."""
        ask = self._answered(connection, request)
        return self._gave_up(ask, why, now) if ask is not None else []

    def _gave_up(self, ask: _Ask, why: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for repository in ask.repositories:
            if (goal := self.goals.get(repository)) is not None:
                goal.reasons[str(ask.peer)] = why
                goal.retry_after[ask.peer] = now + self._jittered(RETRY_AFTER_TROUBLE)
                effects += self._settle(goal, now)
        return effects + self._send_asks(ask.peer, self._ready[ask.peer], now)

    def news(self, peer: PeerId, connection: ConnectionId, news: NewCommit, now: float) -> list[Effect]:
        """Take a NewCommit: fetch at once where its record came along, else ask for it."""
        goal = self.goals.get(news.repository)
        if goal is None:
            return []
        head = goal.known.head(news.author)
        if head is not None and head.seq >= news.seq:
            return []
        if news.record is None or not goal.held:
            return self.ask(peer, [news.repository], now)
        return self._fetch(goal, peer, connection, Candidate((), (), (news.record,)), partial=False, told=True)

    # --- transfers ------------------------------------------------------------------------------------------

    def _fetch(
        self,
        goal: Goal,
        peer: PeerId,
        connection: ConnectionId,
        candidate: Candidate,
        partial: bool,
        told: bool = False,
    ) -> list[Effect]:
        if goal.fetch is not None or len(self._fetches) >= MAX_FETCHES:
            # The bytes are not kept: whoever has something newer is asked again when there is room.
            goal.offers.add(peer)
            return []
        self._last_fetch += 1
        self._last_request = self._last_request % 0xFFFFFFFF + 1
        fetch = FetchId(self._last_fetch)
        self._fetches[fetch] = goal.repository
        goal.fetch = fetch, peer
        goal.again = partial
        goal.told = told
        goal.offers.discard(peer)
        return [Fetch(fetch, connection, self._last_request, goal.repository, candidate)]

    def fetch_finished(self, event: FetchFinished, now: float) -> list[Effect]:
        """Take the outcome of a transfer."""
        del self._fetches[event.fetch]
        goal = self.goals.get(event.repository)
        effects: list[Effect] = []
        if goal is not None and goal.fetch is not None and goal.fetch[0] == event.fetch:
            peer = goal.fetch[1]
            goal.fetch = None
            effects += self._finished(goal, peer, event, now)
        for other in [other for other in self.goals.values() if other.offers]:
            offers, other.offers = other.offers, set()
            for offering in offers:
                effects += self.ask(offering, [other.repository], now)
        if goal is not None:
            effects += self._settle(goal, now)
        return effects

    def _finished(self, goal: Goal, peer: PeerId, event: FetchFinished, now: float) -> list[Effect]:
        match event.outcome:
            case Accepted(known=known):
                first = not goal.held
                goal.known, goal.held, goal.confirmed = known, True, True
                goal.reasons.clear()
                effects: list[Effect] = [Provide(goal.repository)] if first else []
                return effects + (self.ask(peer, [goal.repository], now) if goal.again else [])
            case NothingNew(known=known):
                # It may have been committed for an earlier goal of the same name.
                goal.known, goal.held = known, goal.held or known.epoch >= 0
                goal.confirmed = goal.confirmed or goal.held
                return []
            case Incomplete() if goal.told or goal.again:
                return self.ask(peer, [goal.repository], now)
            case Incomplete():
                # The answer to a question about everything that is newer: asking again would change nothing.
                return self._failed(goal, peer, AnswerIncomplete("what it told does not follow from what is held"), now)
            case Failed(error=error):
                return self._failed(goal, peer, error, now)
            case _:
                assert_never(event.outcome)

    def _failed(self, goal: Goal, peer: PeerId, error: GutsError, now: float) -> list[Effect]:
        goal.reasons[str(peer)] = str(error)
        if isinstance(error, StorageFault):
            self._schedule(goal, now + RETRY_AFTER_STORAGE)
            waiters, goal.waiters = goal.waiters, []
            return [Reply(waiter.command_id, error) for waiter in waiters]
        pause = RETRY_AFTER_FAULT if isinstance(error, PeerFault) else RETRY_AFTER_TROUBLE
        goal.retry_after[peer] = now + self._jittered(pause)
        self._schedule(goal, now + self._jittered(RETRY_AFTER_TROUBLE))
        effects: list[Effect] = []
        for other in self._holders(goal.repository):
            if other != peer:
                effects += self.ask(other, [goal.repository], now)
        return effects

    # --- lookups and dials ----------------------------------------------------------------------------------

    def _search(self, goal: Goal, now: float) -> list[Effect]:
        if goal.searching:
            return []
        goal.searching = True
        goal.asked = 0
        goal.next_search = now + self._jittered(SEARCH_INTERVAL)
        return [FindProviders(goal.repository)]

    def providers_found(self, repository: RepositoryId, records: Iterable[ProviderRecord], now: float) -> list[Effect]:
        """Ask the providers that are connected; dial the others as far as holders are wanted."""
        goal = self.goals.get(repository)
        if goal is None:
            return []
        effects: list[Effect] = []
        for record in records:
            if record.peer in self._ready:
                effects += self.ask(record.peer, [repository], now)
                continue
            for address in record.addresses:
                target = BootstrapAddress(address.ip, address.port, record.peer)
                if target not in goal.dials and len(goal.dials) < MAX_DIALS_PER_GOAL:
                    goal.dials.add(target)
                    effects.append(Dial(target))
        return effects

    def lookup_finished(self, event: LookupFinished, now: float) -> list[Effect]:
        """Note that a lookup has ended."""
        goal = self.goals.get(event.repository)
        if goal is None:
            return []
        goal.searching = False
        goal.asked = event.asked
        return self._settle(goal, now)

    def dial_ended(
        self, target: BootstrapAddress, peer: PeerId | None, error: GutsError | None, now: float
    ) -> list[Effect]:
        """Note the end of a dial: ``peer`` is ready now, or ``error`` tells why nobody is."""
        effects: list[Effect] = []
        for goal in [goal for goal in self.goals.values() if target in goal.dials]:
            goal.dials.discard(target)
            if peer is not None:
                effects += self.ask(peer, [goal.repository], now)
            elif error is not None:
                goal.reasons[str(target)] = str(error)
            effects += self._settle(goal, now)
        return effects

    # --- time -----------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due: rounds of anti-entropy, lookups, answers that did not come, commands out of time."""
        effects: list[Effect] = []
        for key in [key for key, ask in self._asks.items() if ask.deadline <= now.mono]:
            ask = self._answered(*key)
            assert ask is not None
            if len(self._late) >= MAX_LATE:
                del self._late[next(iter(self._late))]
            self._late[key] = None
            effects += self._gave_up(ask, "did not answer in time", now.mono)
        while self._agenda and self._agenda[0][0] <= now.mono:
            time, repository = heapq.heappop(self._agenda)
            goal = self.goals.get(repository)
            if goal is not None and goal.next_ask == time:
                self._schedule(goal, now.mono + self._jittered(self._ask_interval))
                effects += self._round(goal, now.mono)
        for goal in [goal for goal in self.goals.values() if goal.waiters]:
            effects += self._expire(goal, now.mono)
        return effects

    def _round(self, goal: Goal, now: float) -> list[Effect]:
        holders = list(self._holders(goal.repository))
        willing = [peer for peer in holders if now >= goal.retry_after.get(peer, -math.inf)]
        effects: list[Effect] = []
        if willing:
            effects += self.ask(self._rng.choice(willing), [goal.repository], now)
        if len(holders) < WANTED_HOLDERS and now >= goal.next_search:
            effects += self._search(goal, now)
        return effects

    def _expire(self, goal: Goal, now: float) -> list[Effect]:
        late = [waiter for waiter in goal.waiters if waiter.deadline <= now]
        goal.waiters = [waiter for waiter in goal.waiters if waiter.deadline > now]
        text = f"{goal.repository} did not arrive in time" if not goal.held else "no holder answered in time"
        reasons = "".join(f"\n  {who}: {why}" for who, why in sorted(goal.reasons.items()))
        if late and not goal.waiters and not goal.held and goal.fetch is None:
            del self.goals[goal.repository]
        return [Reply(waiter.command_id, SyncTimedOut(text + reasons)) for waiter in late]

    def _settle(self, goal: Goal, now: float) -> list[Effect]:
        """Answer the waiters of ``goal`` where it is decided."""
        if not goal.waiters and not goal.held and not goal.busy:
            self.goals.pop(goal.repository, None)
        if not goal.waiters or (goal.busy and not (goal.held and goal.confirmed and goal.fetch is None)):
            return []
        waiters, goal.waiters = goal.waiters, []
        if goal.held and goal.confirmed:
            return [_success(goal, waiter, now) for waiter in waiters]
        if not goal.held:
            self.goals.pop(goal.repository, None)
        unheld = {who: why for who, why in goal.reasons.items() if why != "does not hold it"}
        error = ProvidersUnreachable(goal.repository, unheld) if unheld else NoProviders(goal.repository, goal.asked)
        return [Reply(waiter.command_id, error) for waiter in waiters]

    def _schedule(self, goal: Goal, time: float) -> None:
        goal.next_ask = time
        heapq.heappush(self._agenda, (time, goal.repository))

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.5)


def _query(goal: Goal) -> RefsQuery:
    known = tuple(KnownHead(author, head.seq, head.hash) for author, head in goal.known.heads)
    return RefsQuery(goal.repository, goal.known.epoch + 1, goal.known.identity_hash, known)


def _success(goal: Goal, waiter: Waiter, now: float) -> Reply:
    seq = max((head.seq for _, head in goal.known.heads), default=0)
    result: dict[str, str | int | float | None] = {
        "repository": str(goal.repository),
        "epoch": goal.known.epoch,
        "seq": seq,
        "seconds": round(now - waiter.started, 3),
    }
    return Reply(waiter.command_id, result)
