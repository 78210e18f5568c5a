"""The two locks of a repository (DESIGN §7): the *pack lock* and the *commit mutex*.

- The **pack lock** is shared by whoever needs the packs to stay (serving, fetching, pushing), and exclusive for
  whoever deletes packs. A waiting exclusive holder goes before later shared ones, so it isn't starved. It is
  not re-entrant: a task that holds it and asks again may wait for itself.
- The **commit mutex** is short. It is taken through the pack lock held shared, so the order can't be reversed, and
  never across a wait for a peer or a person. No lock is ever upgraded.

Waiters are served in order of arrival; a waiter that is cancelled leaves no trace.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class SharedHold:
    """Proof that the pack lock is held shared; the way to the commit mutex."""

    def __init__(self, mutex: asyncio.Lock) -> None:
        self._mutex = mutex
        self._held = True

    @contextlib.asynccontextmanager
    async def commit(self) -> AsyncIterator[None]:
        """Hold the commit mutex."""
        assert self._held, "the pack lock was given back"
        async with self._mutex:
            yield

    def release(self) -> None:
        """Note that the pack lock was given back."""
        self._held = False


class RepositoryLocks:
    """The locks of one repository, in one event loop."""

    def __init__(self) -> None:
        self._mutex = asyncio.Lock()
        self._shared = 0
        self._exclusive = False
        self._waiting: deque[tuple[asyncio.Future[None], bool]] = deque()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[SharedHold]:
        """Hold the pack lock together with others."""
        await self._acquire(exclusive=False)
        hold = SharedHold(self._mutex)
        try:
            yield hold
        finally:
            hold.release()
            self._shared -= 1
            self._wake()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the pack lock alone."""
        await self._acquire(exclusive=True)
        try:
            yield
        finally:
            self._exclusive = False
            self._wake()

    @property
    def idle(self) -> bool:
        """Whether nobody holds or wants the pack lock."""
        return not (self._shared or self._exclusive or self._waiting)

    async def _acquire(self, *, exclusive: bool) -> None:
        if not self._waiting and self._free_for(exclusive):
            self._take(exclusive)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, exclusive)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # our turn came in the same moment: give it back
                self._give_back(exclusive)
            elif entry in self._waiting:
                self._waiting.remove(entry)
            self._wake()
            raise

    def _free_for(self, exclusive: bool) -> bool:
        return not self._exclusive and not (exclusive and self._shared)

    def _take(self, exclusive: bool) -> None:
        if exclusive:
            self._exclusive = True
        else:
            self._shared += 1

    def _give_back(self, exclusive: bool) -> None:
        if exclusive:
            self._exclusive = False
        else:
            self._shared -= 1

    def _wake(self) -> None:
        while self._waiting and self._free_for(self._waiting[0][1]):
            turn, exclusive = self._waiting.popleft()
            if not turn.cancelled():
                self._take(exclusive)
                turn.set_result(None)
