"""``Claims``: peers that are only claimed to be somewhere, and which of them is the first to be forgotten.

Whoever tells of many peers makes this node choose among all of them each time, so the choice is kept ready: a heap of
the claims of each source, and one of the sources. What has changed since it was put into a heap is passed over when it
comes up, and a heap that holds more of that than of anything else is made anew: a change costs O(log n), amortised.
"""

import heapq
from dataclasses import dataclass, field
from typing import Final

from guts.ids import PeerId

SLACK: Final = 16
"""Entries that a heap may have beyond twice of what counts: small ones are not made anew all the time."""

Age = tuple[int, int]
"""When it was last heard of (Unix ms), and its place in the order in which peers were met."""


@dataclass(slots=True)
class _Source:
    count: int = 0
    heap: list[tuple[Age, PeerId]] = field(default_factory=list)


class Claims:
    """Claims by source. All of it is as large as the book."""

    def __init__(self) -> None:
        self._claims: dict[PeerId, tuple[str, Age]] = {}
        self._sources: dict[str, _Source] = {}
        self._ranking: list[tuple[int, Age, str]] = []

    def put(self, peer: PeerId, source: str, age: Age) -> None:
        """Take in a claim, or that it is of another age now."""
        self.remove(peer)
        self._claims[peer] = source, age
        claims = self._sources.setdefault(source, _Source())
        claims.count += 1
        heapq.heappush(claims.heap, (age, peer))
        self._rank(source, claims)

    def remove(self, peer: PeerId) -> None:
        """Forget a claim, where it is one."""
        claim = self._claims.pop(peer, None)
        if claim is None:
            return
        source, claims = claim[0], self._sources[claim[0]]
        claims.count -= 1
        if claims.count:
            self._rank(source, claims)
        else:
            del self._sources[source]

    def first(self) -> PeerId | None:
        """Return the claim that goes first: of the source with the most, the one heard of the longest ago."""
        while self._ranking:
            count, age, source = self._ranking[0]
            claims = self._sources.get(source)
            if claims is not None and (-claims.count, self._oldest(source, claims)[0]) == (count, age):
                return self._oldest(source, claims)[1]
            heapq.heappop(self._ranking)
        return None

    def _rank(self, source: str, claims: _Source) -> None:
        if len(claims.heap) > 2 * claims.count + SLACK:
            claims.heap = [(age, peer) for age, peer in claims.heap if self._claims.get(peer) == (source, age)]
            heapq.heapify(claims.heap)
        heapq.heappush(self._ranking, (-claims.count, self._oldest(source, claims)[0], source))
        if len(self._ranking) > 2 * len(self._sources) + SLACK:
            self._ranking = [(-each.count, self._oldest(name, each)[0], name) for name, each in self._sources.items()]
            heapq.heapify(self._ranking)

    def _oldest(self, source: str, claims: _Source) -> tuple[Age, PeerId]:
        while True:
            age, peer = claims.heap[0]
            if self._claims.get(peer) == (source, age):
                return age, peer
            heapq.heappop(claims.heap)
