"""``Commits``: git, as far as acceptance asks it: a graph of made-up commits, and who is whose ancestor."""

from collections.abc import Iterable, Iterator, Set

from guts.ids import ObjectId
from tests.unit.trust.world import oid

COMMIT_BYTES = 3_000
"""Of a pack, for each commit in it: a commit, a few trees, a few deltas."""


class Commits(Set[tuple[ObjectId, ObjectId]]):
    """The commits of one repository; as a set, the facts (ancestor, descendant) about them.

    A set of commits is an integer with a bit for each, so that thousands of them cost little.
    """

    def __init__(self) -> None:
        self._numbers: dict[ObjectId, int] = {}
        self._ancestors: list[int] = []

    def commit(self, *parents: ObjectId) -> ObjectId:
        """Return a new commit."""
        made = oid(len(self._ancestors) + 1)
        self._ancestors.append(self.closure(parents))
        self._numbers[made] = len(self._numbers)
        return made

    def closure(self, tips: Iterable[ObjectId]) -> int:
        """Return the commits that ``tips`` reach, themselves too; tips that nobody made reach nothing."""
        found = 0
        for tip in tips:
            if (number := self._numbers.get(tip)) is not None:
                found |= self._ancestors[number] | 1 << number
        return found

    def missing(self, tips: Iterable[ObjectId], held: int) -> list[ObjectId]:
        """Return those of ``tips`` that are not among the commits ``held``, in order."""
        return sorted(tip for tip in tips if not self.holds(tip, held))

    def holds(self, tip: ObjectId, held: int) -> bool:
        """Tell whether ``tip`` is among the commits ``held``."""
        number = self._numbers.get(tip)
        return number is not None and bool(held >> number & 1)

    def __contains__(self, pair: object) -> bool:
        match pair:
            case (ObjectId() as old, ObjectId() as new):
                return bool(self._ancestors[self._numbers[new]] >> self._numbers[old] & 1)
            case _:
                return False

    def __iter__(self) -> Iterator[tuple[ObjectId, ObjectId]]:
        made = list(self._numbers)
        return ((old, new) for new in made for old in made if (old, new) in self)

    def __len__(self) -> int:
        return sum(ancestors.bit_count() for ancestors in self._ancestors)
