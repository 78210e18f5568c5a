"""``Trees``: which links carry the records of an author in full, and which in short (Plumtree §3.2).

One tree for each author of each repository: a tree that grew around one place is up to twice as deep from another, and
maintainers push each from a place of their own. Only the lazy links are kept: every link begins eager.
"""

from collections.abc import Iterable
from typing import Final

from guts.events import ConnectionId
from guts.ids import AuthorId, RepositoryId

MAX_LAZY: Final = 16_384
"""Trees in which one link is lazy: 10,000 repositories with a maintainer or two who push, 2 MB. A link that is lazy in
one more is eager again in the oldest of them: what is sent there too often is pruned again."""

Tree = tuple[RepositoryId, AuthorId]


class Trees:
    """The lazy links of every tree."""

    def __init__(self) -> None:
        self._lazy: dict[ConnectionId, dict[Tree, None]] = {}

    def is_lazy(self, tree: Tree, link: ConnectionId) -> bool:
        """Tell whether records cross ``link`` in short."""
        return tree in self._lazy.get(link, ())

    def eager(self, tree: Tree, links: Iterable[ConnectionId]) -> list[ConnectionId]:
        """Return those of ``links`` that records cross in full."""
        return [link for link in links if not self.is_lazy(tree, link)]

    def prune(self, tree: Tree, link: ConnectionId) -> None:
        """Let ``link`` be lazy."""
        lazy = self._lazy.setdefault(link, {})
        lazy[tree] = None
        if len(lazy) > MAX_LAZY:
            del lazy[next(iter(lazy))]

    def graft(self, tree: Tree, link: ConnectionId) -> None:
        """Let ``link`` be eager."""
        lazy = self._lazy.get(link, {})
        lazy.pop(tree, None)
        if not lazy:
            self._lazy.pop(link, None)

    def drop_link(self, link: ConnectionId) -> None:
        """Forget a connection that is gone."""
        self._lazy.pop(link, None)

    def drop_topic(self, repository: RepositoryId) -> None:
        """Forget the trees of a repository that is no longer followed."""
        for link, lazy in list(self._lazy.items()):
            for tree in [tree for tree in lazy if tree[0] == repository]:
                self.graft(tree, link)
