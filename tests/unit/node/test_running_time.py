"""The node's running time: what counts of the time that it was off."""

from pathlib import Path

import pytest

from guts.clock import Now
from guts.node.running_time import RunningTime, machine_time
from guts.store.database import Database
from tests.support.peers import WALL


class Clocks:
    """The clocks of one machine, all set by hand."""

    def __init__(self) -> None:
        self.mono = 1_000.0
        self.wall = WALL
        self.machine = ("first", 1_000_000)

    def now(self) -> Now:
        return Now(self.mono, self.wall)

    async def load(self, database: Database) -> RunningTime:
        return await RunningTime.load(database, self.now, lambda: self.machine)


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400_000, -3_600_000, 0, 3_600_000, 10 * 365 * 86_400_000])
@pytest.mark.parametrize(
    ("machine", "counted"),
    [(("first", 1_060_000 + 7_000), 7_000), (("second", 5_000), 0), (("first", 900_000), 0), (("", 0), 0)],
    ids=["same start", "started anew", "went back", "not known"],
)
async def test_time_off_counts_where_the_machine_tells_it_whatever_the_wall_clock_says(
    tmp_path: Path, jump: int, machine: tuple[str, int], counted: int
) -> None:
    database = await Database.open(tmp_path / "guts.db")
    clocks = Clocks()
    first = await clocks.load(database)
    assert first.ran() == 0
    clocks.mono, clocks.machine = 1_060.0, ("first", 1_060_000)
    assert first.ran() == 60_000
    await first.save(database)

    clocks.mono, clocks.machine, clocks.wall = 3.0, machine, WALL + jump
    second = await clocks.load(database)
    assert second.ran() == 60_000 + counted
    clocks.mono += 1.5
    assert second.ran() == 60_000 + counted + 1_500
    await database.close()


def test_machine_tells_its_start_and_the_time_since() -> None:
    boot, since = machine_time()
    again = machine_time()
    assert again[0] == boot
    assert again[1] >= since >= 0
