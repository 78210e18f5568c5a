"""Iterative lookup over disjoint paths (Kademlia §2.3, S/Kademlia §4.4), asynchronous and bounded.

Every node belongs to the path that heard of it first and is asked once. A path ends when the nearest
``PATH_WIDTH`` nodes that it knows have answered; then the nearest ``BUCKET_SIZE`` of all paths together must
have answered. A slow node gives up its place in flight after half a second and still counts when it answers.

There are no tasks: answers come as callbacks of futures into one queue, so a caller may stop at any time and
nothing is left behind but requests whose answers nobody reads.
"""

import asyncio
import functools
from bisect import insort
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from guts.clock import Now
from guts.discovery.contact import AddressPolicy, Contact, address_group
from guts.discovery.keys import Key
from guts.discovery.limits import (
    ALPHA,
    BUCKET_SIZE,
    MAX_LOOKUP_PER_GROUP,
    MAX_LOOKUP_RPCS,
    MAX_LOOKUP_SECONDS,
    PATH_WIDTH,
    PATHS,
    SOFT_SECONDS,
)
from guts.discovery.messages import Answer, Found, read_found
from guts.errors import PeerFault


@dataclass(frozen=True, slots=True)
class LookupStats:
    """What one lookup cost.

    Attributes:
        asked: nodes.
        answered: of these.
        rpcs: requests, further pages included (retransmissions are not counted).
        hops: longest chain of hearsay that led to a node that answered; 0 when only the own table was asked.
        seconds: from start to end.
    """

    asked: int = 0
    answered: int = 0
    rpcs: int = 0
    hops: int = 0
    seconds: float = 0.0


class _State(Enum):
    HEARD = 0
    ASKED = 1
    SLOW = 2
    ANSWERED = 3
    FAILED = 4


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    distance: int
    path: int
    hops: int
    state: _State = _State.HEARD
    soft: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    candidate: _Candidate | None
    answer: Answer | None = None
    is_page: bool = False
    is_slow: bool = False


@dataclass(slots=True)
class _Pages:
    """How many further pages of records a lookup may still ask for."""

    left: int
    skips: dict[Key, int] = field(default_factory=dict)


Ask = Callable[[Contact], "asyncio.Future[Answer | None]"]
AskPage = Callable[[Contact, int, bytes], "asyncio.Future[Answer | None]"]


class Lookup:
    """One search for the nodes nearest to ``target``; iterate over ``run`` once."""

    def __init__(
        self,
        target: Key,
        ask: Ask,
        *,
        own: Key,
        clock: Callable[[], Now],
        policy: AddressPolicy,
        blame: Callable[[Contact], None],
        ask_page: AskPage | None = None,
        max_pages: int = 0,
        waits: bool = True,
    ) -> None:
        """Take how to ask a node, and whom to tell that a node's signed answer is malformed.

        ``waits``: until everybody has answered or was given up; else only for those who answer soon.
        """
        self._target = target
        self._ask = ask
        self._ask_page = ask_page
        self._pages = _Pages(max_pages)
        self._waits = waits
        self._own = own
        self._clock = clock
        self._policy = policy
        self._blame = blame
        self._candidates: dict[Key, _Candidate] = {}
        self._paths: list[list[_Candidate]] = [[] for _ in range(PATHS)]
        self._ordered: list[_Candidate] = []
        self._groups: Counter[bytes] = Counter()
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self._found: dict[Key, Found] = {}
        self._started = 0.0
        self._asked = self._rpcs = self._hops = self._outstanding = 0
        self._next_path = 0

    @property
    def stats(self) -> LookupStats:
        """What it has cost so far."""
        return LookupStats(self._asked, len(self._found), self._rpcs, self._hops, self._clock().mono - self._started)

    @property
    def nearest(self) -> list[Found]:
        """The up to ``BUCKET_SIZE`` nearest nodes that answered, nearest first."""
        keys = sorted(self._found, key=self._target.distance)
        return [self._found[key] for key in keys[:BUCKET_SIZE]]

    async def run(self, seeds: Iterable[Contact]) -> AsyncGenerator[Found, None]:
        """Search from ``seeds`` on and yield every answer as it comes."""
        self._started = self._clock().mono
        for index, contact in enumerate(seeds):
            self._hear(contact, index % PATHS, 0)
        deadline = asyncio.get_running_loop().call_later(MAX_LOOKUP_SECONDS, self._events.put_nowait, _Event(None))
        try:
            self._advance()
            while self._outstanding > (0 if self._waits else self._slow()):
                event = await self._events.get()
                if event.candidate is None:
                    return
                found = self._handle(event, event.candidate)
                if found is not None:
                    yield found
                self._advance()
        finally:
            deadline.cancel()
            for candidate in self._candidates.values():
                if candidate.soft is not None:
                    candidate.soft.cancel()

    def _slow(self) -> int:
        return sum(candidate.state is _State.SLOW for candidate in self._candidates.values())

    def _hear(self, contact: Contact, path: int, hops: int) -> None:
        if contact.key == self._own or contact.key in self._candidates:
            return
        if not self._policy.is_local(contact.ip):
            group = address_group(contact.ip)
            if self._groups[group] >= MAX_LOOKUP_PER_GROUP:
                return
            self._groups[group] += 1
        candidate = _Candidate(contact, self._target.distance(contact.key), path, hops)
        self._candidates[contact.key] = candidate
        insort(self._paths[path], candidate, key=_by_distance)
        insort(self._ordered, candidate, key=_by_distance)

    def _handle(self, event: _Event, candidate: _Candidate) -> Found | None:
        if event.is_slow:
            if candidate.state is _State.ASKED:
                candidate.state = _State.SLOW
            return None
        self._outstanding -= 1
        if not event.is_page and candidate.soft is not None:
            candidate.soft.cancel()
        found = self._read(event.answer)
        if found is None:
            if not event.is_page:
                candidate.state = _State.FAILED
            return None
        if not event.is_page:
            candidate.state = _State.ANSWERED
            self._hops = max(self._hops, candidate.hops)
            self._found[candidate.contact.key] = found
            for contact in found.contacts:
                # A teller outside a private range has no business naming addresses inside it.
                if self._policy.allows(contact.ip, contact.port) and self._policy.may_tell(
                    found.contact.ip, contact.ip
                ):
                    self._hear(contact, candidate.path, candidate.hops + 1)
        self._next_page(candidate, found)
        return found

    def _read(self, answer: Answer | None) -> Found | None:
        if answer is None:
            return None
        try:
            return read_found(answer)
        except PeerFault:
            self._blame(answer.contact)
            return None

    def _next_page(self, candidate: _Candidate, found: Found) -> None:
        key = candidate.contact.key
        skip = self._pages.skips.get(key, 0) + len(found.records)
        had_page = key in self._pages.skips
        self._pages.skips[key] = skip
        stuck = had_page and not found.records
        if self._ask_page is None or stuck or skip >= found.total:
            return
        if self._pages.left == 0 or self._rpcs >= MAX_LOOKUP_RPCS:
            return
        self._pages.left -= 1
        self._send(candidate, self._ask_page(found.contact, skip, found.token), is_page=True)

    def _advance(self) -> None:
        """Ask whom is to be asked next while there is room in flight."""
        flying = sum(c.state is _State.ASKED for c in self._candidates.values())
        while flying < ALPHA and self._rpcs < MAX_LOOKUP_RPCS:
            candidate = self._next()
            if candidate is None:
                return
            candidate.state = _State.ASKED
            self._asked += 1
            flying += 1
            candidate.soft = asyncio.get_running_loop().call_later(
                SOFT_SECONDS, self._events.put_nowait, _Event(candidate, is_slow=True)
            )
            self._send(candidate, self._ask(candidate.contact), is_page=False)

    def _send(self, candidate: _Candidate, future: "asyncio.Future[Answer | None]", *, is_page: bool) -> None:
        self._rpcs += 1
        self._outstanding += 1
        future.add_done_callback(functools.partial(self._settled, candidate, is_page))

    def _settled(self, candidate: _Candidate, is_page: bool, future: "asyncio.Future[Answer | None]") -> None:
        self._events.put_nowait(_Event(candidate, future.result(), is_page))

    def _next(self) -> _Candidate | None:
        for offset in range(PATHS):
            index = (self._next_path + offset) % PATHS
            candidate = _first_heard(self._paths[index], PATH_WIDTH)
            if candidate is not None:
                self._next_path = index + 1
                return candidate
        return _first_heard(self._ordered, BUCKET_SIZE)


def _by_distance(candidate: _Candidate) -> int:
    return candidate.distance


def _first_heard(ordered: list[_Candidate], width: int) -> _Candidate | None:
    """Return the nearest one not yet asked among the ``width`` nearest that have not failed."""
    for candidate in ordered:
        if candidate.state is _State.HEARD:
            return candidate
        if candidate.state is not _State.FAILED:
            width -= 1
            if width == 0:
                return None
    return None
