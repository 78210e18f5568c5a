"""What was read of repositories that this node does not hold: verified in memory, kept for a while.

A reading believes signatures and nothing else. What holders tell is merged: the longest identity chain, the newest
record of each author, proofs of two histories. A later reading of the same repository goes on from there, so that a
holder that tells of less is told apart, and never listened to.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from guts.clock import Now
from guts.effects import Candidate, Look
from guts.errors import GutsError, PeerFault
from guts.events import Accepted, Failed, FetchOutcome, Head, Incomplete, Known, NothingNew
from guts.git.repository import BareRepository
from guts.ids import AuthorId, ObjectId, PeerId, RepositoryId
from guts.node.acceptance import Held, MissingContext, Verified, verify
from guts.node.git_relay import Source
from guts.node.history import settle_at_hand
from guts.node.limits import Patience
from guts.node.repositories import SUFFIX, Repositories
from guts.node.scratch import Scratch
from guts.node.shallow_copy import empty_copy, shallow_copy
from guts.trust.signed_refs import SignedHeader

MAX_KEPT: Final = 16
"""Readings that are kept: those of the repositories that somebody works with, in an hour."""

MAX_KEPT_BYTES: Final = 64 << 20
"""Of the records and documents in them: sixteen repositories whose one maintainer signs the most that is allowed."""

KEEP_SECONDS: Final = 3600.0
"""Since it was last used: a ``git clone --filter=blob:none`` asks for blobs as long as its user looks around."""


@dataclass(slots=True, eq=False)
class Reading:
    """What is known of a repository that is not held.

    Attributes:
        held: the verified state; ``None``: nothing yet.
        told: the newest seq of each author that a holder told of, as far as it was true.
        faults: holders that told what no honest one tells, and what that was.
        used: monotonic seconds.
        scratch: objects that were fetched to tell its refs.
        users: who works with it now; it is not forgotten before they are done.
        merging: held by whoever changes ``held``.
    """

    repository: RepositoryId
    scratch: Scratch
    used: float
    held: Held | None = None
    told: dict[PeerId, dict[AuthorId, int]] = field(default_factory=dict)
    faults: dict[PeerId, str] = field(default_factory=dict)
    users: int = 0
    merging: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def known(self) -> Known:
        """What the service is told of it."""
        held = self.held
        if held is None:
            return Known()
        heads = tuple((author, Head(record.seq, record.hash)) for author, record in sorted(held.records.items()))
        splits = tuple((author, proof.split_seq) for author, proof in sorted(held.proofs.items()))
        return Known(held.chain.epoch, held.chain.hash, heads, splits, 0 if held.fork is None else held.fork.epoch)

    @property
    def size(self) -> int:
        """Bytes of the records and documents."""
        if self.held is None:
            return 0
        records = sum(len(r.header_bytes) + len(r.entries_bytes) for r in self.held.records.values())
        return records + sum(map(len, self.held.chain.documents))

    def behind(self, peer: PeerId) -> bool:
        """Tell whether a newer record is known than the newest that ``peer`` told of."""
        told = self.told.get(peer)
        if told is None or self.held is None:
            return False
        return any(record.seq > told.get(author, 0) for author, record in self.held.records.items())


class Readings:
    """The readings of one node, those used last. ``look`` is run by the driver, in a task of its own.

    Args:
        folder: of what is fetched for readings; nothing else is in it.
        max_pack_bytes: of one fetch.
    """

    def __init__(
        self,
        repositories: Repositories,
        clock: Callable[[], Now],
        folder: Path,
        max_pack_bytes: int,
        patience: Patience,
    ) -> None:
        self._repositories = repositories
        self._clock = clock
        self._folder = folder
        self._max_pack_bytes = max_pack_bytes
        self._patience = patience
        self._kept: dict[RepositoryId, Reading] = {}

    def clear(self) -> None:
        """Forget every reading, and what an earlier run has left on the disk."""
        self._kept.clear()
        # Work that still goes on there fails by itself; what stays is tried again at the next start.
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def using(self, repository: RepositoryId) -> Iterator[Reading]:
        """Enter with the reading of ``repository``, begun where there is none; it is kept at least until the end."""
        self._forget_old()
        reading = self._kept.get(repository)
        if reading is None:
            folder = self._folder / f"{repository}{SUFFIX}"
            scratch = Scratch(folder, self._repositories.git, self._max_pack_bytes, self._patience.busy)
            reading = self._kept[repository] = Reading(repository, scratch, self._clock().mono)
        reading.users += 1
        try:
            yield reading
        finally:
            reading.users -= 1
            reading.used = self._clock().mono
            # The one used last comes last.
            self._kept.pop(repository, None)
            self._kept[repository] = reading
            self._forget_old()

    def shallow_copy(
        self, ref: str, oid: ObjectId, head: str, sources: Sequence[Source]
    ) -> AbstractAsyncContextManager[BareRepository]:
        """See ``guts.node.shallow_copy``."""
        git, busy = self._repositories.git, self._patience.busy
        return shallow_copy(self._folder, git, ref, oid, head, sources, self._max_pack_bytes, busy)

    def empty_copy(self) -> AbstractAsyncContextManager[BareRepository]:
        """See ``guts.node.shallow_copy``."""
        return empty_copy(self._folder, self._repositories.git)

    def _forget_old(self) -> None:
        now = self._clock().mono
        count, size = 0, 0
        for reading in reversed(list(self._kept.values())):
            count, size = count + 1, size + reading.size
            old = now - reading.used > KEEP_SECONDS or count > MAX_KEPT or (size > MAX_KEPT_BYTES and count > 1)
            if not reading.users and (old or reading.held is None):
                del self._kept[reading.repository]
                reading.scratch.close()

    async def start(self, reading: Reading) -> Known:
        """Return what ``reading`` goes on from: also what was accepted here once and is not all on the disk any more.

        What holders told until now is forgotten: they may have more today, and would tell only what is newer.

        Raises:
            StorageFault: the database failed.
        """
        async with reading.merging:
            reading.told.clear()
            reading.faults.clear()
            if reading.held is None:
                reading.held = await self._repositories.held(reading.repository)
        return reading.known

    async def look(self, effect: Look, peer: PeerId) -> FetchOutcome:
        """Judge what ``peer`` told, and merge it. Never raises but for bugs."""
        with self.using(effect.repository) as reading:
            try:
                async with reading.merging:
                    return await self._merge(reading, effect.candidate, peer)
            except MissingContext:
                return Incomplete()
            except GutsError as error:
                if isinstance(error, PeerFault):
                    reading.faults[peer] = str(error)
                return Failed(error)

    async def _merge(self, reading: Reading, candidate: Candidate, peer: PeerId) -> FetchOutcome:
        verified = await asyncio.to_thread(self._verify, reading, candidate)
        if verified is not None:
            verified = settle_at_hand(verified)
            if not verified.records and not verified.proofs:
                # Documents alone: whoever tells no more keeps the rest back.
                verified = None
        if verified is not None:
            before = reading.held
            reading.held = Held(
                verified.chain,
                verified.records,
                verified.proofs,
                fork=verified.fork or (before.fork if before is not None else None),
            )
        held = reading.held
        if held is None:
            return NothingNew(Known())
        told: dict[AuthorId, int] = {}
        for header in (SignedHeader.decode(record.header).header for record in candidate.records):
            record = held.records.get(header.author)
            # What was not accepted says nothing about how far its teller is.
            if record is not None and header.seq <= record.seq:
                told[header.author] = max(header.seq, told.get(header.author, 0))
        reading.told[peer] = {**reading.told.get(peer, {}), **told}
        if verified is None:
            return NothingNew(reading.known)
        proofs = tuple((a, verified.proofs[a].split_seq, verified.proofs[a].encode()) for a in verified.new_proofs)
        return Accepted(reading.known, (), proofs)

    def _verify(self, reading: Reading, candidate: Candidate) -> Verified | None:
        return verify(
            reading.repository,
            reading.held,
            candidate.documents,
            candidate.bridge,
            candidate.records,
            self._clock().wall,
            candidate.proofs,
        )
