"""``Prospects``: which repositories that nobody asked for are being looked at, and who told of them."""

from typing import Final

from guts.ids import PeerId, RepositoryId

MAX_PROSPECTS: Final = 64
"""Repositories that nobody asked for and that are being looked at: a question each, and one transfer in all."""

MAX_PROSPECTS_PER_PEER: Final = 16
"""Of those, met by one peer: one that is silent keeps no other's out."""


class Prospects:
    """The bound on what is looked at; how each was met is in its goal (``guts.sync.goal.Prospect``)."""

    def __init__(self) -> None:
        self._tellers: dict[RepositoryId, PeerId] = {}

    def room_for(self, peer: PeerId, places: int) -> bool:
        """Tell whether there is room to look at one more that ``peer`` told of.

        Args:
            places: how many more may be taken by policy.
        """
        # Without a place nothing is looked at anyway, and what waits is let go.
        return len(self._tellers) < min(MAX_PROSPECTS, places or MAX_PROSPECTS) and (
            sum(told == peer for told in self._tellers.values()) < MAX_PROSPECTS_PER_PEER
        )

    def begin(self, repository: RepositoryId, peer: PeerId) -> None:
        """Note that ``repository``, which ``peer`` told of, is looked at."""
        self._tellers[repository] = peer

    def end(self, repository: RepositoryId) -> None:
        """Note that it is a prospect no more."""
        del self._tellers[repository]
