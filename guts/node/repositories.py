"""``Repositories``: the accepted state of every repository, on disk and in the database, kept as one."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

from guts.crash import crash_point
from guts.errors import StorageFault, Unavailable
from guts.events import Accepted, Head, Known, Reason
from guts.git.command import Git
from guts.git.files import disk_faults, sync_directory
from guts.git.folder import has_refs
from guts.git.locks import RepositoryLocks, SharedHold
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository
from guts.ids import RepositoryId
from guts.node.acceptance import Held, NewRecord, Verified
from guts.node.held_states import HeldStates, following
from guts.store import accepted
from guts.store import repositories as table
from guts.store import seeding as seeding_table
from guts.store.accepted import (
    AcceptedState,
    Conflict,
    IdentityDocument,
    NewSignedRefs,
    NotHeld,
    RepositorySummary,
    StoredRepository,
)
from guts.store.database import Database
from guts.store.history import Equivocation, Header
from guts.store.transactions import CommitUnknown
from guts.trust.canonical_refs import CanonicalRefs, canonical_refs, shown_without_git
from guts.trust.deltas import make_delta
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs

log = logging.getLogger(__name__)

SUFFIX = ".git"

UNSURE = -1
"""In the place of a generation: of a commit that is under way, or broken off, only the database knows. What was read in
the meantime may be of before."""

REMOVED = ".removed-"
"""What the name of a folder begins with whose repository is not here any more."""


class Removed(Unavailable):
    """The repository was removed, by its operator, in the middle of this."""

    code: ClassVar[str] = "REMOVED"

    def __init__(self, repository: RepositoryId) -> None:
        super().__init__(f"{repository.short} is being removed")


def known_of(summary: RepositorySummary) -> Known:
    """Return what the service keeps of a stored repository."""
    heads = tuple((author, Head(seq, digest)) for author, (seq, digest) in sorted(summary.authors.items()))
    return Known(summary.epoch, summary.identity_hash, heads, tuple(sorted(summary.splits.items())), summary.fork)


class Repositories:
    """All repositories of one node.

    Attributes:
        root: the folder of bare repositories, ``repo1….git`` each.
        git: runs git's children, within this node's limits.
        sizes: bytes on the disk of each that is here.
        on_removed: each is told of a repository that is gone, before anybody can bring it back.
    """

    def __init__(self, root: Path, database: Database, git: Git) -> None:
        self.database = database
        self.root = root
        self.git = git
        self.sizes: dict[RepositoryId, int] = {}
        self.on_removed: list[Callable[[RepositoryId], None]] = []
        self._generations: dict[RepositoryId, int] = {}
        self._states = HeldStates()
        self._shown: dict[RepositoryId, int] = {}
        self._scopes: dict[RepositoryId, set[asyncio.Timeout]] = {}
        self._locks: dict[RepositoryId, RepositoryLocks] = {}
        self._creating: dict[RepositoryId, asyncio.Lock] = {}
        self._lost: set[RepositoryId] = set()
        self._committing: set[RepositoryId] = set()

    def path(self, repository: RepositoryId) -> Path:
        """Return where ``repository`` is, or would be; the name comes from the id alone."""
        return self.root / f"{repository}{SUFFIX}"

    def _aside(self, repository: RepositoryId) -> Path:
        return self.root / f"{REMOVED}{repository}"

    def at(self, path: Path) -> BareRepository:
        """Return the repository in the folder ``path``, which may be damaged."""
        return BareRepository(path, self.git)

    def locks(self, repository: RepositoryId) -> RepositoryLocks:
        """Return the locks of ``repository``."""
        return self._locks.setdefault(repository, RepositoryLocks())

    async def open(self, repository: RepositoryId) -> BareRepository:
        """Raises: ``NotARepository``."""
        return await BareRepository.open(self.path(repository), self.git)

    async def stored(self, repository: RepositoryId) -> StoredRepository | None:
        """Return the accepted state of ``repository``, or ``None`` where nothing was accepted yet."""
        try:
            return await self.database.read(table.load, repository)
        except NotHeld:
            return None

    async def held(self, repository: RepositoryId) -> Held | None:
        """Return what ``stored`` does, decoded; nothing in it may be changed."""
        if (held := self._states.get(repository, self._generations.get(repository))) is not None:
            return held
        stored = await self.stored(repository)
        if stored is None:
            return None
        held = await asyncio.to_thread(Held.of, stored)
        # Something else may have been committed since it was read.
        if self._generations.get(repository, held.generation) == held.generation:
            self._states.keep(held)
        return held

    async def known(self, repository: RepositoryId) -> Known:
        """Return what the service keeps of a held repository. Raises: ``NotHeld``."""
        return known_of(await self.database.read(table.load_summary, repository))

    @contextlib.asynccontextmanager
    async def writing(self, repository: RepositoryId) -> AsyncIterator[tuple[BareRepository, SharedHold]]:
        """Enter with the repository, made where it is not there, and its pack lock held shared.

        A repository of which nothing is accepted in the end leaves no trace. Two first acceptances of one
        repository wait for each other.
        """
        if repository not in self._lost and repository in self.sizes:
            async with self.holding(repository) as hold:
                yield await self.open(repository), hold
            return
        creating = self._creating.setdefault(repository, asyncio.Lock())
        async with creating, self.holding(repository) as hold:
            self._committing.discard(repository)
            stored = await self.stored(repository)
            kept = await asyncio.to_thread(_is_worth_keeping, self.path(repository), stored is not None)
            if kept and self.is_lost(repository):
                # Its refs would vouch for objects that are gone; the next start looks again.
                await self.database.write(table.mark_unprojected, repository)
                await asyncio.to_thread((self.path(repository) / "packed-refs").unlink, missing_ok=True)
                await asyncio.to_thread(self.at(self.path(repository)).records.mark_mended)
            try:
                yield await BareRepository.create(self.path(repository), self.git), hold
            finally:
                # Without a wait: the node may be stopping, and cancel this at any.
                if not kept and repository not in self._committing:
                    # Set aside first: a thread that was left behind may still write by the names in it.
                    aside = self._aside(repository)
                    _set_aside(self.path(repository), aside)
                    delete_folder(aside)

    def mark_lost(self, repository: RepositoryId) -> None:
        """Note that what was accepted of ``repository`` is no longer all on the disk; a new commit ends that."""
        self._lost.add(repository)

    def is_whole(self, bare: BareRepository, repository: RepositoryId) -> bool:
        """Tell whether every object of ``repository`` is there with all that it reaches: nothing was ever lost.

        What passed the checks of a quarantine is, and nothing else comes into a repository. Raises: ``DiskFault``.
        """
        return not self.is_lost(repository) and not bare.records.is_mended()

    def is_lost(self, repository: RepositoryId) -> bool:
        """Tell whether what was accepted of ``repository`` is no longer all on the disk."""
        return repository in self._lost

    async def commit(
        self,
        bare: BareRepository,
        verified: Verified,
        quarantine: Quarantine,
        hold: SharedHold,
        now_ms: int,
        *,
        seeding: bool = True,
        reason: Reason = Reason.EXPLICIT,
    ) -> Accepted:
        """Make ``verified``, whose objects have been checked in ``quarantine``, the state of its repository.

        Args:
            seeding: whether the repository is followed from now on.
            reason: why it is.

        Raises:
            Conflict: the state changed since ``verified`` was made; nothing of it was committed.
            StorageFault: the disk or the database failed; old or new state, never a mixture.
        """
        chain = verified.chain
        async with hold.commit():
            crash_point("commit-begun")
            # Canonical refs are made from all records: also another author's must not have come in between.
            if await self._generation(chain.repository) != verified.generation:
                raise Conflict(f"{chain.repository.short} has moved on")
            brought = await quarantine.migrate()
            # In threads: dozens of authors with thousands of refs each take seconds.
            questions, shown = await asyncio.to_thread(shown_without_git, chain, verified.records)
            if shown is None:
                answers = await bare.are_ancestors(questions, quarantine.parents)
                ancestors = {pair for pair, answer in zip(questions, answers, strict=True) if answer}
                shown = await asyncio.to_thread(canonical_refs, chain, verified.records, ancestors)
            fresh = range(verified.first_new_document, chain.epoch + 1)
            lost = self.is_lost(chain.repository)
            written = verified.records.values() if lost else [new.record for new in verified.new]
            # The file of a record that is withdrawn stays: accepted again, it would not count any more than now.
            await bare.records.keep(
                identities={epoch: chain.documents[epoch] for epoch in (range(chain.epoch + 1) if lost else fresh)},
                proofs={author: proof.encode() for author, proof in verified.proofs.items()},
                fork=verified.fork.encoded if verified.fork is not None else None,
                refs={record.author: (record.header_bytes, record.entries_bytes) for record in written},
                seeding=seeding,
            )
            state = await asyncio.to_thread(_accepted, bare, verified, shown, now_ms, seeding, reason)
            before = self._states.take(chain.repository)
            summary = await self._write(state)
            if (held := following(before, verified, summary.generation)) is not None:
                self._states.keep(held)
            crash_point("commit-accepted")
            await bare.project(shown.refs, shown.head, None if lost else quarantine.parents)
            crash_point("commit-projected")
            self._shown[chain.repository] = summary.generation
            self._lost.discard(chain.repository)
            self.sizes[chain.repository] = state.size
        log.debug("committed %s, packs %s", chain.repository.short, brought)
        news = tuple(
            (
                new.record.author,
                Head(new.record.seq, new.record.hash),
                EncodedRefs(new.record.header_bytes, new.record.entries_bytes),
            )
            for new in verified.new
        )
        proofs = tuple(
            (author, verified.proofs[author].split_seq, verified.proofs[author].encode())
            for author in sorted(verified.new_proofs)
        )
        return Accepted(known_of(summary), news, proofs, reason)

    async def settle(self, repository: RepositoryId) -> None:
        """Make durable what git's refs show since the last commit, and note it, so that the next start need not look.

        Not part of a commit, as nothing of it is lost without: the next start shows it again.

        Raises:
            StorageFault: it is left to the next commit, to the stop, or to the next start.
        """
        async with self.locks(repository).shared():
            if (generation := self._shown.get(repository)) is not None:
                await self.at(self.path(repository)).sync_refs()
                crash_point("refs-synced")
                await self.database.write(table.mark_projected, repository, generation)
                crash_point("commit-marked")
                if self._shown.get(repository) == generation:
                    del self._shown[repository]

    def is_settled(self, repository: RepositoryId) -> bool:
        """Tell whether nothing was committed since ``settle``."""
        return repository not in self._shown

    async def settle_all(self) -> None:
        """Do so for every repository, where that is possible: the node stops."""
        for repository in list(self._shown):
            with contextlib.suppress(StorageFault):
                await self.settle(repository)

    async def _generation(self, repository: RepositoryId) -> int:
        """Return how often something was accepted of ``repository``: from memory, as this node is the one writer."""
        if (known := self._generations.get(repository, UNSURE)) != UNSURE:
            return known
        stored = await self.database.read(table.load_generation, repository)
        return stored or 0

    async def _write(self, state: AcceptedState) -> RepositorySummary:
        # Whoever is cancelled here does not know: the transaction goes on in its thread.
        self._committing.add(state.repository)
        self._generations[state.repository] = UNSURE
        try:
            summary = await self.database.write(table.committed, state)
            self._generations[state.repository] = summary.generation
            return summary
        except CommitUnknown:
            # As for who is cancelled: what may have been committed is not swept away.
            raise
        except StorageFault:
            self._committing.discard(state.repository)
            raise

    @contextlib.asynccontextmanager
    async def holding(self, repository: RepositoryId) -> AsyncIterator[SharedHold]:
        """Hold the pack lock of ``repository`` together with others, until it is removed at once.

        Raises:
            Removed: it is; the body was broken off at a wait.
        """
        scope = asyncio.timeout(None)
        scopes = self._scopes.setdefault(repository, set())
        try:
            async with scope:
                scopes.add(scope)
                async with self.locks(repository).shared() as hold:
                    yield hold
        except TimeoutError:
            if scope.expired():
                raise Removed(repository) from None
            raise
        finally:
            scopes.discard(scope)
            if not scopes and self._scopes.get(repository) is scopes:
                del self._scopes[repository]

    async def remove(self, repository: RepositoryId, *, interrupt: bool) -> bool:
        """Remove a repository that is to be removed, from the disk and the database; tell whether it was.

        Args:
            interrupt: break off what is under way with it; else that is waited for.

        Raises:
            StorageFault: it is there, or it is begun and the next start goes on with it.
        """
        if interrupt:
            for scope in list(self._scopes.get(repository, ())):
                if scope.when() is None:
                    scope.reschedule(0.0)
        aside = self._aside(repository)
        async with self.locks(repository).exclusive():
            if not await self.database.read(seeding_table.is_to_be_removed, repository):
                return False
            crash_point("removal-begun")
            await asyncio.to_thread(_set_aside, self.path(repository), aside)
            crash_point("removal-set-aside")
            await self.database.write(seeding_table.removed, repository)
            crash_point("removal-committed")
            self.sizes.pop(repository, None)
            self._generations[repository] = UNSURE
            self._states.take(repository)
            self._shown.pop(repository, None)
            self._lost.discard(repository)
            for forget in self.on_removed:
                forget(repository)
            await asyncio.to_thread(delete_folder, aside)
        return True

    async def stop_seeding(self, repository: RepositoryId, reason: str, now_ms: int, remove_at: int) -> int | None:
        """Follow ``repository`` no longer, whether it is here or not; what is here is to be removed at ``remove_at``.

        Returns: when it is removed, which may be earlier; ``None``: there is nothing to be removed.

        Args:
            reason: as for ``guts.store.seeding.drop``.

        Raises:
            StorageFault: it was not changed.
        """
        async with self.locks(repository).shared() as hold, hold.commit():
            here = repository in self.sizes
            if here and not self.is_lost(repository):
                await (await self.open(repository)).records.write_seeding(seeding=False)
            crash_point("seeding-changing")
            at = remove_at if here else None
            removed_at = await self.database.write(seeding_table.drop, repository, reason, now_ms, at)
            crash_point("seeding-changed")
            return removed_at

    async def set_seeding(
        self, repository: RepositoryId, *, seeding: bool, reason: Reason = Reason.EXPLICIT, now_ms: int = 0
    ) -> None:
        """Follow a stored repository, for ``reason``, or no longer; what is on disk stays.

        In its folder first: the database is the truth, and the folder says what to begin with where it is lost.

        Raises:
            NotHeld, StorageFault: it was not changed.
        """
        async with self.locks(repository).shared() as hold, hold.commit():
            if not self.is_lost(repository) and await asyncio.to_thread(self.path(repository).exists):
                await (await self.open(repository)).records.write_seeding(seeding=seeding)
            crash_point("seeding-changing")
            await self.database.write(table.set_seeding, repository, seeding=seeding, reason=reason, now_ms=now_ms)
            crash_point("seeding-changed")


def _accepted(
    bare: BareRepository, verified: Verified, shown: CanonicalRefs, now_ms: int, seeding: bool, reason: Reason
) -> AcceptedState:
    chain = verified.chain
    return AcceptedState(
        repository=chain.repository,
        name=chain.current.name,
        description=chain.current.description,
        documents=tuple(
            IdentityDocument(epoch, chain.history[epoch].hash, chain.documents[epoch])
            for epoch in range(verified.first_new_document, chain.epoch + 1)
        ),
        signed_refs=(*map(_new_signed_refs, verified.new), *map(_withdrawn, verified.withdrawn)),
        equivocations=tuple(
            Equivocation(author, proof.split_seq, proof.encode()) for author, proof in verified.proofs.items()
        ),
        canonical=shown.refs,
        head=shown.head,
        seeding=seeding,
        size=bare.size(),
        now_ms=now_ms,
        generation=verified.generation,
        fork=verified.fork,
        reason=reason,
    )


def _new_signed_refs(new: NewRecord) -> NewSignedRefs:
    record, author, replaced = new.record, new.record.author, new.replaced
    return NewSignedRefs(
        author,
        accepted.SignedRefs(author, record.seq, record.hash, record.header_bytes, record.entries_bytes),
        (replaced.seq, replaced.hash) if replaced is not None else None,
        make_delta(replaced.entries, record.entries) if replaced is not None else None,
        tuple(Header(author, h.header.seq, h.header.hash, h.encoded) for h in new.bridge),
    )


def _withdrawn(record: SignedRefs) -> NewSignedRefs:
    return NewSignedRefs(record.author, None, (record.seq, record.hash), make_delta(record.entries, None))


def _set_aside(path: Path, aside: Path) -> None:
    with disk_faults():
        delete_folder(aside)
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            sync_directory(path.parent)


def delete_folder(path: Path) -> None:
    """Delete a folder, where it is there, with all that is in it. Raises: ``DiskFault``."""
    with disk_faults(), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _is_worth_keeping(path: Path, stored: bool) -> bool:
    return path.exists() if stored else has_refs(path)
