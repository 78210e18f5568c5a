"""For how long this node has run, all its runs together: the time in which faults fade and bans end.

The clock of the wall can't say how long a node was off: it may have been wrong before, or be wrong now. The machine
can, unless it was started anew: it counts from its own start. So time off counts where that is the same start, and
does not count otherwise. A ban may take longer than it was meant to, then, and never ends early.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from guts.clock import Now
from guts.errors import StorageFault
from guts.store import scores as score_table
from guts.store.database import Database

log = logging.getLogger(__name__)

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Another one after each start of the machine (Linux, random(4)). Elsewhere time off is never counted."""

SAVE_EVERY: Final = 60.0
"""Seconds: what is not counted after a crash."""


def machine_time() -> tuple[str, int]:
    """Return which start of the machine this is, and the ms since then, suspended or not; ``("", 0)``: not known."""
    try:
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "", 0
    return boot, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)


class RunningTime:
    """The running time of one node; made by ``load``."""

    def __init__(
        self, stored: score_table.RunningTime, clock: Callable[[], Now], machine: Callable[[], tuple[str, int]]
    ) -> None:
        boot, since_boot = machine()
        off = max(0, since_boot - stored.since_boot) if boot and boot == stored.boot else 0
        self._clock = clock
        self._machine = machine
        self._zero = int(clock().mono * 1000) - stored.ran - off

    @classmethod
    async def load(
        cls,
        database: Database,
        clock: Callable[[], Now],
        machine: Callable[[], tuple[str, int]] = machine_time,
    ) -> "RunningTime":
        """Go on from what the last run stored. Raises: ``StorageFault``."""
        return cls(await database.read(score_table.load_running_time), clock, machine)

    def ran(self) -> int:
        """Return the running time in ms."""
        return int(self._clock().mono * 1000) - self._zero

    def reading(self) -> score_table.RunningTime:
        """Return what is stored of it."""
        return score_table.RunningTime(self.ran(), *self._machine())

    async def save(self, database: Database) -> None:
        """Store it. Raises: ``StorageFault``."""
        await database.write(score_table.save_running_time, self.reading())

    async def keep(self, database: Database) -> None:
        """Store it now and then until cancelled."""
        while True:
            await asyncio.sleep(SAVE_EVERY)
            try:
                await self.save(database)
            except StorageFault as error:
                log.warning("can't keep the running time: %s", error)
