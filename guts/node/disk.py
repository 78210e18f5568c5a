"""``Disk``: how much is here, how much more may come, and whether anything may at all."""

import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from guts.errors import StorageFault
from guts.git.files import disk_faults
from guts.ids import RepositoryId
from guts.node.repositories import Repositories
from guts.sync.quotas import DiskLow, Passed, Quotas, Space, Usage

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 4 << 20
"""Bytes that come between two looks at the file system: each is a system call."""

TELL_EVERY: Final = 3600.0
"""Seconds between two warnings that the disk is low: near the limit it may be so again and again."""


ROOMY: Final = Space(1 << 62, 1 << 62)
"""In the place of a file system that is not looked at."""


def space_of(path: Path) -> Space:
    """Return the file system of ``path``, as far as this user may fill it. Raises: ``DiskFault``."""
    with disk_faults():
        found = os.statvfs(path)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


class Disk:
    """The quotas, and what counts against them. One per node.

    Below the floor nothing is fetched; what is here is served as ever. Nothing has to be told when there is space
    again: every fetch looks.
    """

    def __init__(
        self,
        repositories: Repositories,
        quotas: Quotas,
        monotonic: Callable[[], float],
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        """Args: ``space``: tells of the file system that a path is on."""
        self.quotas = quotas
        self._repositories = repositories
        self._monotonic = monotonic
        self._space = space
        self._incoming = 0
        self._told_at: float | None = None

    @property
    def used(self) -> int:
        """Bytes of all repositories, with what is coming in."""
        return sum(self._repositories.sizes.values()) + self._incoming

    def space(self) -> Space:
        """Return the file system as it is. Raises: ``DiskFault``."""
        return self._space(self._repositories.root)

    def after(self, more: int) -> dict[str, int]:
        """Tell what is free and used, now and with ``more`` bytes of repositories (or fewer). Raises: ``DiskFault``."""
        free = self.space().free
        return {
            "free_bytes": free,
            "free_after_bytes": max(0, free - more),
            "used_bytes": self.used,
            "used_after_bytes": self.used + more,
            "disk_bytes": self.quotas.disk,
        }

    def check(self, repository: RepositoryId, claim: int = 0, besides: int = 0) -> None:
        """Check that something of ``repository`` may come.

        Args:
            claim: bytes that it would be, as its holder says; 0: it does not say.
            besides: bytes of others that would have come before it.

        Raises:
            QuotaExceeded: it may not.
            DiskLow: nothing may.
            DiskFault: the disk can't be looked at.
        """
        space = self.space()
        self._check(repository, 0, Space(space.free - besides, space.capacity), claim, besides)

    def check_floor(self) -> None:
        """Check that anything may be written at all: the quotas are not for the operator's own publications.

        Raises:
            DiskLow: nothing may.
            DiskFault: the disk can't be looked at.
        """
        space = self.space()
        floor = self.quotas.floor(space)
        if space.free < floor:
            raise DiskLow(space.free, floor)

    def passed(self, repository: RepositoryId) -> tuple[Passed, ...]:
        """Return the limits that are passed, now that ``repository`` was published here.

        It was: where the disk can't be looked at, only what is known without it is told.
        """
        try:
            space = self.space()
        except StorageFault:
            space = ROOMY
        return self.quotas.passed(Usage(self._repositories.sizes.get(repository, 0), self.used, space))

    @contextlib.contextmanager
    def receiving(self, repository: RepositoryId) -> "Iterator[Receiving]":
        """Enter with what counts the bytes of ``repository`` that come; they count until the context is left."""
        receiving = Receiving(self, repository)
        try:
            yield receiving
        finally:
            self._incoming -= receiving.received

    def arrived(self, repository: RepositoryId, count: int, received: int, *, look: bool) -> None:
        """Count ``count`` bytes in, of ``received`` in all. Raises: as ``check``."""
        self._incoming += count
        space = self.space() if look else ROOMY
        self._check(repository, received, space, 0)

    def _check(self, repository: RepositoryId, received: int, space: Space, claim: int, besides: int = 0) -> None:
        here = 0 if self._repositories.is_lost(repository) else self._repositories.sizes.get(repository, 0)
        try:
            self.quotas.check(Usage(here + received, self.used + besides, space), claim, claimed=bool(claim))
        except DiskLow as error:
            now = self._monotonic()
            if self._told_at is None or now >= self._told_at + TELL_EVERY:
                self._told_at = now
                log.warning("%s", error)
            raise


class Receiving:
    """The bytes of one repository that come; see ``Disk.receiving``.

    Attributes:
        received: how many have come.
    """

    def __init__(self, disk: Disk, repository: RepositoryId) -> None:
        self.received = 0
        self._disk = disk
        self._repository = repository
        self._look_at = LOOK_EVERY

    async def metered(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield ``chunks`` as long as more may come. Raises: as ``Disk.check``."""
        async for chunk in chunks:
            self.received += len(chunk)
            look = self.received >= self._look_at
            if look:
                self._look_at = self.received + LOOK_EVERY
            self._disk.arrived(self._repository, len(chunk), self.received, look=look)
            yield chunk
