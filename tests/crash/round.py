"""One operation of one node, which is killed in it, started again, looked at, and made to do it once more."""

import shutil
import time
from collections.abc import Mapping
from typing import ClassVar, Final

from tests.crash.state import State
from tests.crash.victim import Victim
from tests.crash.world import World

KILL_TIMEOUT: Final = 2.0
"""Seconds that a point may come after the command's end: what a node does a second after it has answered."""


class Round:
    """What a node does when it is killed.

    Attributes:
        already: code of the error that the command ends in where it was done before.
        longest: seconds; a random moment comes before them.
        points: crash points that the operation passes.
        quiet: nobody else speaks to the node.
        repeated: points that it passes several times, and up to how many of them.
        victim: the node.
    """

    points: ClassVar[tuple[str, ...]]
    quiet: ClassVar[bool] = True
    repeated: ClassVar[Mapping[str, int]] = {
        "files-written": 4, "file-renamed": 3, "transaction-written": 3, "transaction-committed": 3,
    }  # fmt: skip
    already: ClassVar[str] = ""
    longest: ClassVar[float] = 0.3
    victim: Victim

    def __init__(self, world: World) -> None:
        self.world = world
        self._others: list[Victim] = []
        self.prepare()

    def prepare(self) -> None:
        """Make what the operation begins with."""
        raise NotImplementedError

    def command(self) -> tuple[object, ...]:
        """Return the arguments of the command that is the operation; empty: the start of the node itself."""
        raise NotImplementedError

    def check(self, found: dict[str, State], *, done: bool) -> None:
        """Raises: ``AssertionError``: ``found`` is neither the old state nor, at the latest when ``done``, the new."""
        raise NotImplementedError

    def other(self, victim: Victim) -> Victim:
        """Start a node that lives as long as the round, and is not killed."""
        self._others.append(victim)
        victim.spawn()
        assert victim.ready()
        return victim

    def run(self, point: str | None) -> bool:
        """Do the operation, kill the node in it, look, and do it again; tell whether it was in it.

        Args:
            point: a crash point with its number; ``None``: at a random moment.
        """
        victim, command = self.victim, self.command()
        victim.spawn(point or "")
        reached = True
        if not command and point is None:
            time.sleep(self.world.rng.uniform(0.0, self.longest))
            victim.kill()
        elif victim.ready():
            reached = bool(command) and self._kill_in_operation(command, point)
            victim.kill()
        victim.spawn()
        assert victim.ready(), "the node starts again"
        self.check(victim.states(quiet=self.quiet, settled=True), done=False)
        if command:
            again = victim.guts(*command, "--json")
            well = again.status == 0 or again.error["code"] == self.already
            assert well, f"the operation, done again: {again.err}\n{victim.log}"
        self.check(victim.states(quiet=self.quiet), done=True)
        for node in (victim, *self._others):
            node.check_log()
            node.stop()
            shutil.rmtree(node.home)
        return reached

    def _kill_in_operation(self, command: tuple[object, ...], point: str | None) -> bool:
        victim = self.victim
        operation = victim.begin(*command)
        if point is None:
            time.sleep(self.world.rng.uniform(0.0, self.longest))
            victim.kill()
            return victim.end(operation).status != 0
        victim.end(operation)
        return victim.wait_killed(KILL_TIMEOUT)
