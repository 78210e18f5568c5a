"""The few objects without which the refs of a repository that is not held can't be told.

Which of two commits contains the other, and what an annotated tag points at, stands in commits and tags alone. They are
fetched from those who hold the repository, into a bare repository in a folder of its own. Their ids are the hashes of
what they say, so it does not matter who sends them: who leaves one out is passed over.

Holders that have not heard of each other's newest records have different objects. So what can't be had from one of them
at once is fetched record by record: whoever tells a record has what it names.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence, Set
from pathlib import Path
from typing import Final

from guts.errors import PeerFault, Unavailable
from guts.git import tags
from guts.git.ancestry import NotHeld
from guts.git.command import Git, GitFailed
from guts.git.fetch_responses import told
from guts.git.git_requests import FetchRequest
from guts.git.objects import id_lines
from guts.git.pkt_line import ERROR_BAND, PACK_BAND, Mark, Packets, encode
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import ObjectId
from guts.node.git_relay import NoSourceAnswered, Source, relay

_TIPS_ONLY: Final = b"deepen 1\n"

_Learn = Callable[[Quarantine, Collection[ObjectId]], Awaitable[bool]]


class Scratch:
    """The objects of one reading. Each is checked against its id when it comes; none is ever served.

    Args:
        folder: made when something is first needed, and gone after ``close``.
        max_pack_bytes: of one fetch.
        busy: seconds for a place at a source that is busy.
    """

    def __init__(self, folder: Path, git: Git, max_pack_bytes: int, busy: float) -> None:
        self._folder = folder
        self._git = git
        self._max_pack_bytes = max_pack_bytes
        self._busy = busy
        self._quarantine: Quarantine | None = None
        self._turn = asyncio.Lock()
        self._peeled: dict[ObjectId, ObjectId | None] = {}
        self._complete: set[ObjectId] = set()

    async def peel(
        self, ids: Set[ObjectId], records: Sequence[Set[ObjectId]], sources: Sequence[Source]
    ) -> dict[ObjectId, ObjectId]:
        """Return what those of ``ids`` that are annotated tags finally point at.

        Args:
            records: the objects that each record names.

        Raises:
            NoSourceAnswered: none of ``sources`` has given all of them.
            StorageFault: our own side failed.
        """
        async with self._turn:
            if unknown := ids - self._peeled.keys():
                await self._fetch(unknown, _TIPS_ONLY, records, sources, self._learn_targets)
        return {id_: target for id_ in ids if (target := self._peeled[id_]) is not None}

    async def are_ancestors(
        self,
        pairs: Sequence[tuple[ObjectId, ObjectId]],
        records: Sequence[Set[ObjectId]],
        sources: Sequence[Source],
    ) -> list[bool]:
        """Return for each pair (old, new) whether ``new`` contains ``old``. Args, Raises: as ``peel``."""
        async with self._turn:
            tips = {id_ for pair in pairs for id_ in pair}
            if unknown := tips - self._complete:
                await self._fetch(unknown, b"", records, sources, self._learn_history)
            return await (await self._opened()).are_ancestors(pairs)

    def close(self) -> None:
        """Remove what was fetched."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _opened(self) -> Quarantine:
        if self._quarantine is None:
            bare = await BareRepository.create(self._folder, self._git)
            self._quarantine = await bare.quarantine().__aenter__()
        return self._quarantine

    async def _fetch(
        self,
        wants: Set[ObjectId],
        depth: bytes,
        records: Sequence[Set[ObjectId]],
        sources: Sequence[Source],
        learn: _Learn,
    ) -> None:
        try:
            await self._fetch_part(wants, depth, sources, learn)
        except NoSourceAnswered:
            parts = [part for record in records if (part := wants & record)]
            if len(parts) <= 1:
                raise
            for part in parts:
                await self._fetch_part(part, depth, sources, learn)

    async def _fetch_part(self, wants: Set[ObjectId], depth: bytes, sources: Sequence[Source], learn: _Learn) -> None:
        """Fetch ``wants`` from one of ``sources`` after the other, until ``learn`` finds all that it needs."""
        quarantine = await self._opened()
        request = FetchRequest.parse(_request(wants, () if depth else self._complete, depth))
        reasons: list[str] = []
        for source in sources:
            try:
                async with contextlib.aclosing(relay([source], request, [], self._busy)) as pieces:
                    await quarantine.index(_pack(pieces), self._max_pack_bytes)
            except NoSourceAnswered as error:
                reasons += error.reasons
                continue
            except (PeerFault, Unavailable) as error:
                reasons.append(f"{source.name}: {error}")
                continue
            if await learn(quarantine, wants):
                return
            reasons.append(f"{source.name} leaves out some of what was asked for")
        raise NoSourceAnswered(reasons)

    async def _learn_targets(self, quarantine: Quarantine, wants: Collection[ObjectId]) -> bool:
        try:
            found = await tags.targets(self._git, quarantine.environment, wants)
        except NotHeld:
            return False
        self._peeled.update({id_: found.get(id_) for id_ in wants})
        return True

    async def _learn_history(self, quarantine: Quarantine, wants: Collection[ObjectId]) -> bool:
        walk = ["rev-list", "--count", "--stdin"]
        try:
            await self._git.run(walk, environment=quarantine.environment, data=id_lines(wants))
        except GitFailed as error:
            if error.is_ours:
                raise
            return False
        self._complete.update(wants)
        return True


def _request(wants: Collection[ObjectId], haves: Collection[ObjectId], depth: bytes) -> bytes:
    """Return a ``fetch`` (gitprotocol-v2(5)) of commits and tags, without trees and blobs."""
    lines = [f"want {oid}\n".encode() for oid in sorted(wants)]
    lines += [f"have {oid}\n".encode() for oid in sorted(haves)]
    lines += [b"filter tree:0\n", b"ofs-delta\n", b"no-progress\n", *([depth] if depth else ()), b"done\n"]
    head = encode(b"command=fetch\n") + encode(b"object-format=sha1\n") + Mark.DELIMITER.value
    return head + b"".join(map(encode, lines)) + Mark.FLUSH.value


async def _pack(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the pack in an answer. Raises: ``NoSourceAnswered``: it breaks off."""
    packets, begun = Packets(), False
    async for piece in pieces:
        for packet in packets.receive_data(piece):
            if not begun:
                begun = isinstance(packet, bytes) and packet.rstrip(b"\n") == b"packfile"
            elif isinstance(packet, bytes) and packet[0] == PACK_BAND:
                yield packet[1:]
            elif isinstance(packet, bytes) and packet[0] == ERROR_BAND:
                raise NoSourceAnswered([told(packet[1:])])
