"""``Removals``: what is not seeded any more goes, after a while; or at once.

When it is due is in the database, so that a restart forgets nothing; while the node runs the time is counted on the
monotonic clock. A removal is begun by renaming the folder, then the database forgets the repository, then the files
go: a crash in between is finished at the next start (``guts.node.recovery``).
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Final

from guts.clock import Now
from guts.errors import StorageFault
from guts.ids import RepositoryId
from guts.node.repositories import Repositories
from guts.store import seeding as table

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 60.0
"""Until what the disk or the database refused is tried again."""


class Removals:
    """The repositories that are to go, and when. One per node.

    Args:
        grace: seconds from the end of the seeding to the removal.
    """

    def __init__(self, repositories: Repositories, clock: Callable[[], Now], grace: float) -> None:
        self._repositories = repositories
        self._clock = clock
        self._grace = grace
        self._due: dict[RepositoryId, float] = {}
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Take over what the database remembers. Raises: ``StorageFault``."""
        now = self._clock()
        for row in await self._repositories.database.read(table.load):
            if row.remove_at is not None:
                self._due[row.repository] = now.mono + (row.remove_at - now.wall) / 1000

    def due(self, repository: RepositoryId) -> float | None:
        """Return the monotonic second at which ``repository`` is removed, or ``None``."""
        return self._due.get(repository)

    async def stop_seeding(self, repository: RepositoryId, reason: str, *, at_once: bool = False) -> None:
        """Note that ``repository`` is not seeded any more, and let it go after the grace time.

        Args:
            reason: as for ``guts.store.seeding.drop``.
            at_once: the grace time is over; ``remove`` does it.

        Raises:
            StorageFault: it was not noted.
        """
        now = self._clock()
        wait = 0.0 if at_once else self._grace
        at = now.wall + math.ceil(wait * 1000)
        remove_at = await self._repositories.stop_seeding(repository, reason, now.wall, at)
        if remove_at is not None:
            # Not by what was due before: it may have been seeded again since.
            self._due[repository] = now.mono + min(wait, (remove_at - now.wall) / 1000)
            self._changed.set()

    def cancel(self, repository: RepositoryId) -> None:
        """Let ``repository`` stay: it is seeded again, as the database says already."""
        self._due.pop(repository, None)

    async def remove(self, repository: RepositoryId) -> bool:
        """Remove ``repository`` now, and end what is under way with it; tell whether it was there to be removed.

        Raises:
            StorageFault: it is not gone, and is tried again.
        """
        removed = await self._repositories.remove(repository, interrupt=True)
        self._due.pop(repository, None)
        return removed

    async def run(self) -> None:
        """Remove what is due until cancelled."""
        while True:
            self._changed.clear()
            repository, due = min(self._due.items(), key=lambda item: item[1], default=(None, math.inf))
            wait = due - self._clock().mono
            if repository is not None and wait <= 0:
                await self._try(repository, due)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait if wait < math.inf else None):
                    await self._changed.wait()

    async def _try(self, repository: RepositoryId, due: float) -> None:
        try:
            if await self._repositories.remove(repository, interrupt=False):
                log.info("removed %s, which is not seeded any more", repository)
        except StorageFault as error:
            log.warning("can't remove %s: %s", repository.short, error)
            self._due[repository] = self._clock().mono + RETRY_SECONDS
            return
        if self._due.get(repository) == due:
            del self._due[repository]
