"""Rows B2 and B6 of docs/threats.md at the service, in virtual time: who asks without end, and who replays old news.

``make rows`` runs them with the whole numbers of the rows; ``make test`` with fewer.
"""

import gc
import heapq
import os
import sys
from typing import Final

import pytest

from guts.effects import Disconnect, Effect, Fetch, Persist, ScoreChanged, Send, Serve, Withhold
from guts.events import ConnectionId, MessageReceived, ServeFinished, Woke
from guts.gossip import protocol
from guts.gossip.envelope import envelope
from guts.limits import DEFAULTS
from guts.service.serving import ALL_SLICES
from guts.wire.messages import GetObjects, Gossip, NewCommit, Objects, Subscribe
from tests.unit.service.bench import AUTHOR, RECORD, Bench, R, known

GREEDY: Final = int(os.environ.get("GUTS_GREEDY", "3000"))
REPLAYS: Final = int(os.environ.get("GUTS_REPLAYS", "20000"))
PACK_SECONDS: Final = 0.4
HONEST_PAUSE: Final = 0.2
"""Seconds between a pack and the next request of the honest peer: below its own rate."""

FLAT_BLOCKS: Final = 2000
"""Blocks of memory (each a small object, 100 bytes or so) by which a service may differ between two moments."""


def blocks() -> int:
    """Return how many blocks of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()


class Greed:
    """A service, packs that take their time, an honest peer, and perhaps greedy ones, each as fast as it may."""

    def __init__(self, greedy: int) -> None:
        self.bench = Bench({R: known(1)})
        self.queue: list[tuple[float, int, str, int]] = []
        self.count = 0
        self.taken = {number: 0 for number in range(1, 2 + greedy)}
        self.served = dict(self.taken)
        self.next_at = dict.fromkeys(self.taken, 0.0)
        for number in self.taken:
            self.bench.call(number, number)
            self.later(0.0, "ask", number)

    def later(self, seconds: float, what: str, number: int) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.bench.time + seconds, self.count, what, number))

    def step(self) -> None:
        """Let the next thing happen."""
        at, _, what, number = heapq.heappop(self.queue)
        deadline = self.bench.service.deadline(self.bench.time)
        if deadline <= at:
            self.bench.time = max(self.bench.time, deadline)
            self.took(self.bench.handle(Woke()))
        self.bench.time = at
        connection = ConnectionId(number)
        if what == "served":
            self.served[number] += 1
            self.took(self.bench.handle(ServeFinished(connection, R, None)))
            if number == 1:
                self.later(HONEST_PAUSE, "ask", 1)
            return
        self.taken[number] += 1
        request = GetObjects(self.taken[number], R, 2 * self.taken[number] + 1, ALL_SLICES, "", 1, 0)
        self.next_at[number] = at
        self.took(self.bench.handle(MessageReceived(connection, request, 70)))
        if number != 1:
            # Nothing that it is told makes it stop, and its next message is taken as soon as it may be.
            self.later(self.next_at[number] - at, "ask", number)

    def took(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Serve(connection=connection):
                    self.later(PACK_SECONDS, "served", int(connection))
                case Withhold(connection=connection, seconds=seconds):
                    self.next_at[int(connection)] = self.bench.time + seconds
                case Send(connection=connection, message=Objects()) if connection == 1:
                    self.later(HONEST_PAUSE, "ask", 1)
                case Disconnect() | Persist(change=ScoreChanged()):
                    raise AssertionError(f"asking for much is no fault: {effect}")
                case _:
                    pass


def test_b2_whoever_asks_for_100_000_packs_and_reads_nothing_keeps_nobody_from_theirs() -> None:
    alone = Greed(0)
    while alone.bench.time < 300.0:
        alone.step()
    world = Greed(1)
    while world.taken[2] < GREEDY // 10:
        world.step()
    before = blocks()
    while world.taken[2] < GREEDY:
        world.step()
    grown = blocks() - before
    assert world.served[1] / world.bench.time >= 0.8 * alone.served[1] / alone.bench.time
    # What is above its rate waited, and of the rest it got no more places than one peer may have.
    rate, burst = DEFAULTS["objects_rate"], DEFAULTS["objects_burst"]
    assert world.taken[2] <= rate * world.bench.time + burst + 2
    assert world.bench.service.limits.meters["serves_per_peer"].peak <= DEFAULTS["serves_per_peer"]
    assert world.bench.service.limits.meters["objects_rate"].bit >= GREEDY - 2 * burst
    assert grown < FLAT_BLOCKS, f"{grown} more blocks of memory are in use"


def test_b2_many_greedy_identities_leave_an_honest_peer_its_share() -> None:
    world = Greed(4)
    while world.bench.time < 120.0:
        world.step()
    # Five who want all they can get, four places: nobody has more of them than the honest one, who asks once at a time.
    assert min(world.served.values()) > 0
    assert world.served[1] >= 0.8 * max(world.served.values()) / 2


def test_b6_a_million_old_news_are_relayed_to_nobody_once_the_seen_cache_forgot_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgets = min(protocol.SEEN_LIMIT, REPLAYS // 10)
    monkeypatch.setattr(protocol, "SEEN_LIMIT", forgets)
    bench = Bench({R: known(2**40)})
    for number in range(1, 4):
        bench.call(number, number)
        bench.say(number, Subscribe((R,)))
    different = forgets + forgets // 10
    before = 0
    for number in range(REPLAYS):
        old = NewCommit(R, AUTHOR, number % different, b"o" * 32, RECORD)
        effects = bench.handle(MessageReceived(ConnectionId(1), envelope(old), 300))
        assert not any(isinstance(effect, Fetch | Persist | Disconnect) for effect in effects), effects
        told = [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Gossip)]
        assert told == []
        if number == REPLAYS // 2:
            before = blocks()
    grown = blocks() - before
    assert grown < FLAT_BLOCKS, f"{grown} more blocks of memory are in use"
    assert bench.service.limits.meters["gossip_rate"].bit > REPLAYS / 2
