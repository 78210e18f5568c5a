"""``Repositories``: the accepted state of every repository, on disk and in the database, kept as one."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Final

from guts.crash import crash_point
from guts.errors import GutsError, StorageFault, Unavailable
from guts.events import Accepted, Head, Known
from guts.git.command import Git
from guts.git.files import disk_faults
from guts.git.locks import RepositoryLocks, SharedHold
from guts.git.quarantine import Quarantine
from guts.git.repository import BareRepository, clean_up
from guts.ids import BadId, RepositoryId
from guts.node.acceptance import NewRecord, Verified
from guts.node.rebuilding import accept_again
from guts.store import objects as object_table
from guts.store import repositories as table
from guts.store.database import Database
from guts.store.history import Equivocation, Header
from guts.store.repositories import RepositorySummary, StoredRepository
from guts.store.transactions import CommitUnknown
from guts.trust.canonical_refs import CanonicalRefs, ancestor_questions, canonical_refs
from guts.trust.deltas import make_delta
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs

log = logging.getLogger(__name__)

SUFFIX = ".git"

SETTLED_AT_A_TIME: Final = 4
"""Repositories taken in at a time: each waits for the disk and for git, and may hold the records of many authors."""


def known_of(summary: RepositorySummary) -> Known:
    """Return what the service keeps of a stored repository."""
    heads = tuple((author, Head(seq, digest)) for author, (seq, digest) in sorted(summary.authors.items()))
    return Known(summary.epoch, summary.identity_hash, heads, tuple(sorted(summary.splits.items())), summary.fork)


class Repositories:
    """All repositories of one node.

    Args:
        root: the folder of bare repositories, ``repo1….git`` each.
    """

    def __init__(self, root: Path, database: Database, git: Git) -> None:
        self.database = database
        self._root = root
        self._git = git
        self._locks: dict[RepositoryId, RepositoryLocks] = {}
        self._creating: dict[RepositoryId, asyncio.Lock] = {}
        self._lost: set[RepositoryId] = set()
        self._committing: set[RepositoryId] = set()

    def path(self, repository: RepositoryId) -> Path:
        """Return where ``repository`` is, or would be; the name comes from the id alone."""
        return self._root / f"{repository}{SUFFIX}"

    def locks(self, repository: RepositoryId) -> RepositoryLocks:
        """Return the locks of ``repository``."""
        return self._locks.setdefault(repository, RepositoryLocks())

    async def open(self, repository: RepositoryId) -> BareRepository:
        """Raises: ``NotARepository``."""
        return await BareRepository.open(self.path(repository), self._git)

    async def stored(self, repository: RepositoryId) -> StoredRepository | None:
        """Return the accepted state of ``repository``, or ``None`` where nothing was accepted yet."""
        try:
            return await self.database.read(table.load, repository)
        except table.NotHeld:
            return None

    async def known(self, repository: RepositoryId) -> Known:
        """Return what the service keeps of a held repository. Raises: ``NotHeld``."""
        return known_of(await self.database.read(table.load_summary, repository))

    @contextlib.asynccontextmanager
    async def writing(self, repository: RepositoryId) -> AsyncIterator[tuple[BareRepository, SharedHold]]:
        """Enter with the repository, made where it is not there, and its pack lock held shared.

        A repository of which nothing is accepted in the end leaves no trace. Two first acceptances of one
        repository wait for each other.
        """
        if repository not in self._lost and await self.stored(repository) is not None:
            async with self.locks(repository).shared() as hold:
                yield await self.open(repository), hold
            return
        creating = self._creating.setdefault(repository, asyncio.Lock())
        async with creating, self.locks(repository).shared() as hold:
            self._committing.discard(repository)
            stored = await self.stored(repository)
            kept = await asyncio.to_thread(_is_worth_keeping, self.path(repository), stored is not None)
            if kept and self.is_lost(repository):
                # Its refs would vouch for objects that are gone; the next start looks again.
                await self.database.write(table.mark_unprojected, repository)
                await asyncio.to_thread((self.path(repository) / "packed-refs").unlink, missing_ok=True)
            bare = await BareRepository.create(self.path(repository), self._git)
            try:
                yield bare, hold
            finally:
                # Without a wait: the node may be stopping, and cancel this at any.
                if not kept and repository not in self._committing:
                    with disk_faults():
                        shutil.rmtree(bare.path)

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
    ) -> Accepted:
        """Make ``verified``, whose objects have been checked in ``quarantine``, the state of its repository.

        Args:
            seeding: whether the repository is followed from now on.

        Raises:
            Conflict: the state changed since ``verified`` was made; nothing of it was committed.
            StorageFault: the disk or the database failed; old or new state, never a mixture.
        """
        chain = verified.chain
        async with hold.commit():
            crash_point("commit-begun")
            # Canonical refs are made from all records: also another author's must not have come in between.
            if await self._generation(chain.repository) != verified.generation:
                raise table.Conflict(f"{chain.repository.short} has moved on")
            brought = await quarantine.migrate()
            # In threads: dozens of authors with thousands of refs each take seconds.
            questions = sorted(await asyncio.to_thread(ancestor_questions, chain, verified.records))
            answers = await bare.are_ancestors(questions) if questions else []
            ancestors = {pair for pair, answer in zip(questions, answers, strict=True) if answer}
            shown = await asyncio.to_thread(canonical_refs, chain, verified.records, ancestors)
            fresh = range(verified.first_new_document, chain.epoch + 1)
            lost = self.is_lost(chain.repository)
            written = verified.records.values() if lost else [new.record for new in verified.new]
            await bare.records.write_identities(
                {epoch: chain.documents[epoch] for epoch in (range(chain.epoch + 1) if lost else fresh)}
            )
            crash_point("identities-kept")
            await bare.records.write_proofs({author: proof.encode() for author, proof in verified.proofs.items()})
            if verified.fork is not None:
                await bare.records.write_fork(verified.fork.encoded)
            crash_point("proofs-kept")
            await bare.records.write_refs(
                {record.author: (record.header_bytes, record.entries_bytes) for record in written}
            )
            # The file of a record that is withdrawn stays: accepted again, it would not count any more than now.
            crash_point("signed-refs-kept")
            await bare.records.write_seeding(seeding=seeding)
            crash_point("seeding-kept")
            size = await bare.size()
            state = await asyncio.to_thread(_accepted, verified, shown, size, now_ms, seeding=seeding)
            generation = await self._write(state)
            crash_point("commit-accepted")
            await bare.project(shown.refs, shown.head)
            crash_point("commit-projected")
            await self.database.write(table.mark_projected, chain.repository, generation)
            crash_point("commit-marked")
            self._lost.discard(chain.repository)
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
        return Accepted(await self.known(chain.repository), news, proofs)

    async def _generation(self, repository: RepositoryId) -> int:
        try:
            return (await self.database.read(table.load_summary, repository)).generation
        except table.NotHeld:
            return 0

    async def _write(self, state: table.AcceptedState) -> int:
        # Whoever is cancelled here does not know: the transaction goes on in its thread.
        self._committing.add(state.repository)
        try:
            return await self.database.write(table.commit, state)
        except CommitUnknown:
            # As for who is cancelled: what may have been committed is not swept away.
            raise
        except StorageFault:
            self._committing.discard(state.repository)
            raise

    async def set_seeding(self, repository: RepositoryId, *, seeding: bool) -> None:
        """Follow a stored repository, or no longer; what is on disk stays.

        In its folder first: the database is the truth, and the folder says what to begin with where it is lost.

        Raises:
            NotHeld, StorageFault: it was not changed.
        """
        async with self.locks(repository).shared() as hold, hold.commit():
            if not self.is_lost(repository) and await asyncio.to_thread(self.path(repository).exists):
                await (await self.open(repository)).records.write_seeding(seeding=seeding)
            crash_point("seeding-changing")
            await self.database.write(table.set_seeding, repository, seeding=seeding)
            crash_point("seeding-changed")

    async def recover(self, now_ms: int) -> dict[RepositoryId, Known]:
        """Bring every repository to the state that the database says; return those that are seeded.

        One that the database does not know, for it was lost or put back from a copy, is accepted again from the
        records in its folder.

        One whose directory is gone or damaged is told to the operator and left out: the others are served, and
        seeding it again fetches it whole. To be called before anything else touches a repository.

        Raises:
            StorageFault: the database can't be read.
        """
        await asyncio.to_thread(self._root.mkdir, mode=0o700, parents=True, exist_ok=True)
        held: dict[RepositoryId, Known] = {}
        crash_point("recovery-begun")
        summaries = await self.database.read(table.load_summaries)
        paths = {summary.id: self.path(summary.id) for summary in summaries}
        if await self._settle_unknown(set(paths.values()), now_ms):
            summaries = await self.database.read(table.load_summaries)
        # In one go: thousands of turns of this loop would each wait for the processor where it is busy.
        cleaned = await asyncio.to_thread(_clean_up, paths)
        for summary in summaries:
            try:
                await self._recover(summary, cleaned.get(summary.id, []))
            except (StorageFault, Unavailable) as error:
                self._lost.add(summary.id)
                log.error("%s can't be served: %s; guts seed %s fetches it again", summary.name, error, summary.id)
                continue
            if summary.seeding:
                held[summary.id] = known_of(summary)
        return held

    async def _recover(self, summary: RepositorySummary, cleaned: list[str] | StorageFault) -> None:
        if isinstance(cleaned, StorageFault):
            raise cleaned
        for leftover in cleaned:
            log.info("%s: removed %s, left by an earlier run", summary.id.short, leftover)
        if not summary.projected:
            stored = await self.database.read(table.load, summary.id)
            bare = await self.open(summary.id)
            await bare.project(stored.canonical, summary.head or "refs/heads/main")
            await self.database.write(table.mark_projected, summary.id, summary.generation)

    async def _settle_unknown(self, known: Collection[Path], now_ms: int) -> int:
        """Take in what the database does not know; remove what a first fetch began: nothing signed is in it.

        Returns how many were taken in.
        """
        turns = asyncio.Semaphore(SETTLED_AT_A_TIME)

        async def settle(path: Path) -> bool:
            async with turns:
                if await asyncio.to_thread(_has_records, path):
                    return await self._take_in(path, now_ms)
                await BareRepository(path, self._git).delete()
                log.info("removed %s, begun by an earlier run", path.name)
                return False

        paths = await asyncio.to_thread(sorted, self._root.glob(f"*{SUFFIX}"))
        try:
            async with asyncio.TaskGroup() as tasks:
                settled = [tasks.create_task(settle(path)) for path in paths if path not in known]
        except* StorageFault as group:
            raise group.exceptions[0] from None
        if taken := sum(task.result() for task in settled):
            log.warning("repositories that the database did not know, taken in from their folders: %d", taken)
        return taken

    async def _take_in(self, path: Path, now_ms: int) -> bool:
        """Accept again what is in the repository at ``path``; tell whether that succeeded."""
        try:
            repository = RepositoryId.parse(path.name.removesuffix(SUFFIX))
        except BadId:
            log.warning("%s is no repository of this node; it is left as it is", path)
            return False
        try:
            bare = await self.open(repository)
            await asyncio.to_thread(clean_up, bare.path)
            documents, records = await bare.records.identities(), await bare.records.refs()
            proofs = [*await bare.records.proofs(), *await bare.records.fork()]
            verified, refused = await asyncio.to_thread(accept_again, repository, documents, records, proofs, now_ms)
            async with self.locks(repository).shared() as hold, bare.quarantine() as quarantine:
                await quarantine.check(verified.tips)
                seeding = await bare.records.seeding()
                await self.commit(bare, verified, quarantine, hold, now_ms, seeding=seeding)
        except GutsError as error:
            log.error("%s is left as it is: %s; moved away, guts seed %s fetches it again", path, error, repository)
            return False
        for author, why in refused.items():
            log.warning("%s: the record of %s is not accepted again: %s", repository.short, author.short, why)
        log.info("%s (%s) is in the database again", verified.chain.current.name, repository)
        crash_point("repository-taken-in")
        return True

    async def list_objects(self, repository: RepositoryId) -> None:
        """Write id, type and size of every object that is not told yet into the database.

        Derived data, off the critical path: pack by pack, and a pack is told when all of it is.

        Raises:
            StorageFault: git or the database failed; what is missing is told by the next run.
        """
        bare = await self.open(repository)
        # Another commit may bring a pack while these are told.
        while packs := await self.database.read(object_table.unlisted, repository, await bare.packs()):
            for pack in packs:
                await self._list_pack(repository, bare, pack)

    async def _list_pack(self, repository: RepositoryId, bare: BareRepository, pack: str) -> None:
        chunk: list[object_table.ObjectInfo] = []
        async with contextlib.aclosing(bare.objects([pack])) as found:
            async for info in found:
                kind = object_table.ObjectType[info.kind.upper()]
                chunk.append(object_table.ObjectInfo(info.id, kind, info.size))
                if len(chunk) >= object_table.CHUNK:
                    await self.database.write(object_table.insert, repository, chunk)
                    chunk = []
        await self.database.write(object_table.insert, repository, chunk)
        await self.database.write(object_table.mark_listed, repository, pack)


def _clean_up(paths: Mapping[RepositoryId, Path]) -> dict[RepositoryId, list[str] | StorageFault]:
    cleaned: dict[RepositoryId, list[str] | StorageFault] = {}
    for repository, path in paths.items():
        try:
            cleaned[repository] = clean_up(path)
        except StorageFault as error:
            cleaned[repository] = error
    return cleaned


def _accepted(
    verified: Verified, shown: CanonicalRefs, size: int, now_ms: int, *, seeding: bool
) -> table.AcceptedState:
    chain = verified.chain
    return table.AcceptedState(
        repository=chain.repository,
        name=chain.current.name,
        description=chain.current.description,
        documents=tuple(
            table.IdentityDocument(epoch, chain.history[epoch].hash, chain.documents[epoch])
            for epoch in range(verified.first_new_document, chain.epoch + 1)
        ),
        signed_refs=(*map(_new_signed_refs, verified.new), *map(_withdrawn, verified.withdrawn)),
        equivocations=tuple(
            Equivocation(author, proof.split_seq, proof.encode()) for author, proof in verified.proofs.items()
        ),
        canonical=shown.refs,
        head=shown.head,
        seeding=seeding,
        size=size,
        now_ms=now_ms,
        fork=verified.fork,
    )


def _new_signed_refs(new: NewRecord) -> table.NewSignedRefs:
    record, author, replaced = new.record, new.record.author, new.replaced
    return table.NewSignedRefs(
        author,
        table.SignedRefs(author, record.seq, record.hash, record.header_bytes, record.entries_bytes),
        (replaced.seq, replaced.hash) if replaced is not None else None,
        make_delta(replaced.entries, record.entries) if replaced is not None else None,
        tuple(Header(author, h.header.seq, h.header.hash, h.encoded) for h in new.bridge),
    )


def _withdrawn(record: SignedRefs) -> table.NewSignedRefs:
    return table.NewSignedRefs(record.author, None, (record.seq, record.hash), make_delta(record.entries, None))


def _is_worth_keeping(path: Path, stored: bool) -> bool:
    return path.exists() if stored else _has_records(path)


def _has_records(path: Path) -> bool:
    return any((path / "guts" / "refs").glob("auth1*"))
