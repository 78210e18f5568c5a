"""``Turns``: whose turn it is to answer a request of git's that is repeated.

Only git can tell whether a pack is whole. So whoever gave one for the same request before is asked last, and one that
withholds objects, of many or of a few, keeps nobody from those that have them: the next try goes elsewhere.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from guts.node.git_relay import Source

MAX_REMEMBERED: Final = 256
"""Requests of which it is remembered who gave the pack: more than people repeat within the life of a node."""


class Turns:
    """Who gave the pack, for each of the last requests."""

    def __init__(self) -> None:
        self._given: dict[bytes, set[str]] = {}

    def note(self, request: bytes, source: Source) -> None:
        """Note that ``source`` gave a pack for ``request``."""
        digest = hashlib.sha256(request).digest()
        self._given[digest] = self._given.pop(digest, set()) | {source.name}
        if len(self._given) > MAX_REMEMBERED:
            del self._given[next(iter(self._given))]

    def in_order(self, request: bytes, sources: Sequence[Source]) -> list[Source]:
        """Return ``sources`` in the order in which they are asked; when all have had their turn, it begins anew."""
        digest = hashlib.sha256(request).digest()
        before = self._given.get(digest, set())
        if before.issuperset(source.name for source in sources):
            self._given.pop(digest, None)
            before = set()
        return sorted(sources, key=lambda source: source.name in before)
