"""``Trees``: which links carry the news of a repository in full, and which in short (Plumtree §3.2).

Only the lazy links are kept: every link begins eager. What is kept is bounded by what both ends of a link follow.
"""

from collections.abc import Iterable

from guts.events import ConnectionId
from guts.ids import RepositoryId


class Trees:
    """The lazy links of every repository."""

    def __init__(self) -> None:
        self._lazy: dict[ConnectionId, set[RepositoryId]] = {}

    def is_lazy(self, repository: RepositoryId, link: ConnectionId) -> bool:
        """Tell whether the news of ``repository`` cross ``link`` in short."""
        return repository in self._lazy.get(link, ())

    def eager(self, repository: RepositoryId, links: Iterable[ConnectionId]) -> list[ConnectionId]:
        """Return those of ``links`` that the news of ``repository`` cross in full."""
        return [link for link in links if not self.is_lazy(repository, link)]

    def prune(self, repository: RepositoryId, link: ConnectionId) -> None:
        """Let ``link`` be lazy for ``repository``; the caller sees to it that both ends follow it."""
        self._lazy.setdefault(link, set()).add(repository)

    def graft(self, repository: RepositoryId, link: ConnectionId) -> None:
        """Let ``link`` be eager for ``repository``."""
        pruned = self._lazy.get(link)
        if pruned is not None:
            pruned.discard(repository)
            if not pruned:
                del self._lazy[link]

    def drop_link(self, link: ConnectionId) -> None:
        """Forget a connection that is gone."""
        self._lazy.pop(link, None)

    def drop_topic(self, repository: RepositoryId) -> None:
        """Forget the tree of a repository that is no longer followed."""
        for link in list(self._lazy):
            self.graft(repository, link)
