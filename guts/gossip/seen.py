"""``SeenCache``: ids of what was met lately, so many and for so long."""

from collections import OrderedDict


class SeenCache:
    """The ids met last, least recently met first.

    Args:
        limit: ids remembered; one more pushes the least recent out.
        seconds: for which an id is remembered after it was last met.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._met: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._met)

    def meet(self, identifier: bytes, now: float) -> bool:
        """Note that ``identifier`` was met at ``now`` (monotonic seconds); tell whether it was unknown."""
        known = self.knows(identifier, now)
        self._met[identifier] = now
        self._met.move_to_end(identifier)
        if len(self._met) > self._limit:
            self._met.popitem(last=False)
        return not known

    def knows(self, identifier: bytes, now: float) -> bool:
        """Tell whether ``identifier`` is remembered at ``now`` (monotonic seconds)."""
        while self._met and next(iter(self._met.values())) <= now - self._seconds:
            self._met.popitem(last=False)
        return identifier in self._met

    def forget(self, identifier: bytes) -> None:
        """Forget ``identifier``, where it is remembered."""
        self._met.pop(identifier, None)
