"""``SharedPacks``: a pack for which several replicas ask with the same ids is made once.

Those who follow a repository hold the same and lack the same when news of it arrive, so they ask alike, and one pack
answers them all: what leads from ``haves`` to ``wants`` stays the same whatever is committed later. A small one is kept
for a moment; of a large one each gets its own, straight from git.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from guts.git.repository import BareRepository
from guts.ids import ObjectId, RepositoryId

MAX_PACK_BYTES: Final = 256 * 1024
"""Length of a pack that is kept; a push that many fetch at once is mostly some kilobytes."""

MAX_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Of all packs that are kept; the oldest go first."""

KEPT_SECONDS: Final = 30.0
"""News reach everybody within seconds; who comes later has a pack made again."""

SHARED_SECONDS: Final = 0.5
"""For which who asks alike waits for the pack that is being made: a small one takes tens of milliseconds. What takes
longer to count is large, or would have each wait for the counting twice."""


@dataclass(frozen=True, slots=True)
class _Kept:
    repository: RepositoryId
    data: bytes
    until: float


class SharedPacks:
    """The packs of one node that were asked for just now."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Args: ``monotonic``: seconds of a clock that only goes forward."""
        self._monotonic = monotonic
        self._kept: dict[bytes, _Kept] = {}
        self._bytes = 0
        self._making: dict[bytes, asyncio.Event] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept now."""
        return self._bytes

    def forget(self, repository: RepositoryId) -> None:
        """Keep nothing of ``repository``: it was removed, and is being read by nobody."""
        for key, kept in list(self._kept.items()):
            if kept.repository == repository:
                self._drop(key)

    @contextlib.asynccontextmanager
    async def pack(
        self, repository: RepositoryId, bare: BareRepository, wants: Sequence[ObjectId], haves: Sequence[ObjectId]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with the bytes of a pack. Args, Raises: as ``BareRepository.pack``."""
        key = _key(repository, wants, haves)
        if (made := self._making.get(key)) is not None:
            # If nothing comes of it, or not soon, this one is on its own.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHARED_SECONDS):
                    await made.wait()
        self._forget_old()
        if (kept := self._kept.get(key)) is not None:
            yield _again([kept.data])
            return
        mine = key not in self._making
        made = self._making.setdefault(key, asyncio.Event())
        try:
            async with bare.pack(wants, haves) as chunks:
                head, whole = await _begin(chunks)
                if whole:
                    self._keep(key, repository, b"".join(head))
                if mine:
                    self._end(key)
                yield _again(head) if whole else _again(head, chunks)
        finally:
            if mine:
                self._end(key)

    def _end(self, key: bytes) -> None:
        if (made := self._making.pop(key, None)) is not None:
            made.set()

    def _keep(self, key: bytes, repository: RepositoryId, data: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = _Kept(repository, data, self._monotonic() + KEPT_SECONDS)
            self._bytes += len(data)
            self._forget_old()

    def _drop(self, key: bytes) -> None:
        self._bytes -= len(self._kept.pop(key).data)

    def _forget_old(self) -> None:
        now = self._monotonic()
        # In order of their ends, as all are kept for as long.
        for key, kept in list(self._kept.items()):
            if kept.until > now and self._bytes <= MAX_KEPT_BYTES:
                break
            self._drop(key)
        if self._kept and self._timer is None:
            # Nobody may ask again.
            wait = next(iter(self._kept.values())).until - now
            self._timer = asyncio.get_running_loop().call_later(wait, self._in_time)

    def _in_time(self) -> None:
        self._timer = None
        self._forget_old()


def _key(repository: RepositoryId, wants: Sequence[ObjectId], haves: Sequence[ObjectId]) -> bytes:
    counted = len(wants).to_bytes(8, "big")
    return hashlib.sha256(b"".join([repository, counted, *sorted(wants), *sorted(haves)])).digest()


async def _begin(chunks: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """Return the first chunks, and whether these are all: no more than may be kept are read."""
    head: list[bytes] = []
    size = 0
    async for chunk in chunks:
        head.append(chunk)
        size += len(chunk)
        if size > MAX_PACK_BYTES:
            return head, False
    return head, True


async def _again(head: Sequence[bytes], rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    for chunk in head:
        yield chunk
    if rest is not None:
        async for chunk in rest:
            yield chunk
