"""Whether this node is fit to prepare what an author signs (DESIGN §6): its clock, and what it has missed."""

import contextlib
from typing import ClassVar, Final

from guts.clock import Now
from guts.errors import ExitStatus, Unavailable, UsageError
from guts.events import SyncNow
from guts.ids import RepositoryId
from guts.node.driver import Driver

MAX_CLOCK_OFFSET_MS: Final = 5 * 60 * 1000
"""How far our clock may be from the median of the peers' clocks: half of what replicas put up with, so that no record
has to wait with them, or burns the author's seqs to come."""

LEARN_TIMEOUT: Final = 5.0
"""Seconds in which replicas may tell what this node has missed while it was away."""


class WrongClock(UsageError):
    """This node's clock is far from those of its peers; what is signed by it would have to wait with them."""

    code: ClassVar[str] = "WRONG_CLOCK"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, offset_ms: int) -> None:
        minutes = f"{abs(offset_ms) / 60_000:,.0f} minutes {'behind' if offset_ms > 0 else 'ahead of'}"
        super().__init__(
            f"this node's clock is {minutes} the clocks of its peers; nothing was signed",
            hint="set the clock of this machine (timedatectl set-ntp true), then try again",
        )


async def make_ready(driver: Driver, repository: RepositoryId, now: Now) -> None:
    """Return when an author's next record may be prepared.

    After a start, as after a restore from a backup, replicas may have newer records of the author than this node: who
    signed without them would sign a second history. So all that can be reached are asked once: one alone may be behind
    as well, or lie.

    Raises:
        WrongClock: the median of the peers' clocks is more than ``MAX_CLOCK_OFFSET_MS`` from ours.
    """
    offset = driver.service.peers.clock_offset(now)
    if offset is not None and abs(offset) > MAX_CLOCK_OFFSET_MS:
        raise WrongClock(offset)
    goal = driver.service.sync.goals.get(repository)
    if goal is not None and goal.held and not goal.compared:
        with contextlib.suppress(Unavailable):
            await driver.execute(SyncNow(repository, LEARN_TIMEOUT, every=True))
