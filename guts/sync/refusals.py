"""``Refusals``: what this node would have taken, or had already, and did not take, by its own limits and choices.

For the operator: nobody waits for what the policy takes, so nobody is told why it is not here. It is kept in memory
alone: what is met after a restart is judged afresh.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from guts.errors import GutsError
from guts.events import Reason
from guts.ids import AuthorId, RepositoryId

MAX_REFUSALS: Final = 100
"""Of each reason, the newest: who announces much to the whole network pushes out nothing of a followed author."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a repository was not taken, or nothing newer of one that is here.

    Attributes:
        reason: why it would have been, or is here.
        owners: of its maintainers, those who are followed.
        at_ms: Unix milliseconds.
    """

    repository: RepositoryId
    error: GutsError
    reason: Reason
    owners: frozenset[AuthorId]
    at_ms: int


class Refusals:
    """The newest refusal of each repository, bounded for each reason."""

    def __init__(self) -> None:
        self._kept: dict[Reason, OrderedDict[RepositoryId, Refusal]] = {reason: OrderedDict() for reason in Reason}

    def __iter__(self) -> Iterator[Refusal]:
        """Yield them, the newest first."""
        kept = [refusal for refusals in self._kept.values() for refusal in refusals.values()]
        return iter(sorted(kept, key=lambda refusal: (-refusal.at_ms, refusal.repository)))

    def note(self, refusal: Refusal) -> None:
        """Keep ``refusal``, in the place of an earlier one of the same repository."""
        self.forget(refusal.repository)
        kept = self._kept[refusal.reason]
        kept[refusal.repository] = refusal
        if len(kept) > MAX_REFUSALS:
            kept.popitem(last=False)

    def forget(self, repository: RepositoryId) -> None:
        """Forget what was noted of ``repository``, if anything: it was taken, or is not to be."""
        for kept in self._kept.values():
            kept.pop(repository, None)

    def unfollowed(self, owners: Collection[AuthorId]) -> None:
        """Forget what was noted because of somebody who is followed no longer; ``owners`` are."""
        kept = self._kept[Reason.OWNER]
        for repository in [one for one, refusal in kept.items() if refusal.owners.isdisjoint(owners)]:
            del kept[repository]
