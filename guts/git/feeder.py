"""A pipe into a child for bulk bytes, written by a thread.

git takes its input 4 KiB at a time. The event loop would be woken, and would write, for each of these; one
blocking write of a whole chunk leaves that to the kernel (docs/benchmarks.md says what it saves).
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from guts.git.command import pipe


class Feeder:
    """The pipe. Obtained from ``feeding``.

    Attributes:
        stdin: the end to start the child with.
    """

    def __init__(self, ends: contextlib.ExitStack, thread: ThreadPoolExecutor) -> None:
        self._ends = ends
        self.stdin, self._writer = pipe(ends)
        self._thread = thread

    def started(self) -> None:
        """Leave ``stdin`` to the child alone, so that its end ends a write."""
        os.close(self.stdin)
        self._ends.pop_all()
        self._ends.callback(os.close, self._writer)

    async def feed(self, data: bytes) -> bool:
        """Write ``data``, and return when the child has it or it waits in the pipe; ``False``: nobody reads it.

        Not to be called again before it has returned.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, _write_all, self._writer, data)

    def close(self) -> None:
        """Say that nothing more follows."""
        self._ends.close()


@contextlib.asynccontextmanager
async def feeding() -> AsyncIterator[Feeder]:
    """Enter with a pipe, outside of the child's context: a write that is under way ends when the child does."""
    with contextlib.ExitStack() as ends, ThreadPoolExecutor(1, "git-feeder") as thread:
        yield Feeder(ends, thread)


def _write_all(descriptor: int, data: bytes) -> bool:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        return False
    return True
