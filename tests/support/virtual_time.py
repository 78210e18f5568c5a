"""An event loop whose time jumps to the next timer instead of waiting for it.

Ten virtual hours take as long as the work in them. A loop with nothing ready and nothing scheduled would hang
for ever; here it raises.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from guts.clock import Now

T = TypeVar("T")

WALL_START_MS = 1_800_000_000_000
"""Unix time at the start of every virtual world."""


class Stuck(AssertionError):
    """Everybody waits and nobody will ever wake up."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck("nothing is ready and nothing is scheduled")
            self.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def virtual_now() -> Now:
    """Return the time of the running loop as both clocks."""
    mono = asyncio.get_running_loop().time()
    return Now(mono, WALL_START_MS + int(mono * 1000))


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` in virtual time; an exception that reached the loop fails it."""
    reached: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reached.append(context))
        result = runner.run(main)
    assert not reached, reached
    return result
