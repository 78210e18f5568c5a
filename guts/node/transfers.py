"""``Transfers``: the workers behind Fetch, Serve and LoadRefs. A pack goes from stream to git, never held whole."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import ClassVar, Final

from guts.clock import Now
from guts.effects import Candidate, Fetch, Terms
from guts.errors import GutsError, PeerFault, Severity, StorageFault, Unavailable
from guts.events import Accepted, Failed, FetchOutcome, Head, Incomplete, Known, NothingNew, Reason, VettedRecord
from guts.git.ancestry import NotHeld
from guts.git.command import GitTimedOut
from guts.git.quarantine import Quarantine
from guts.git.repository import NotARepository
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.net.stream import Stream
from guts.net.tcp import TcpConnection
from guts.node.acceptance import Held, MissingContext, Verified, follow, verify
from guts.node.disk import Disk
from guts.node.history import settle, with_headers
from guts.node.limits import Patience
from guts.node.pace import GaveWay, Giving, Pace, TransferStalled, received
from guts.node.repositories import Removed, Repositories
from guts.node.shared_packs import SharedPacks
from guts.store.accepted import Conflict
from guts.sync.policy import NotTaken, judge
from guts.trust.signed_refs import SignedRefs
from guts.wire.limits import MAX_OBJECT_IDS, SLICES_BYTES
from guts.wire.messages import (
    EncodedRefs,
    GetObjects,
    Objects,
    ObjectsStatus,
    ResetCode,
)

ALL_SLICES: Final = b"\xff" * SLICES_BYTES


IDS_SECONDS: Final = 10.0
"""For the first of the ids that follow a GetObjects, which were sent with it: a place for packs waits for them."""

IDS_BYTES_PER_SECOND: Final = 256 * 1024


OnVetted = Callable[[tuple[VettedRecord, ...]], Awaitable[None]]


class ForcedUnmarked(PeerFault):
    """A record moves a branch to a commit that does not contain the old one, and does not say that it means to.

    Only its author is to blame. News are passed on before their objects are here, and who lacks the older record takes
    this one: an author of many repositories could otherwise have every honest replica shut out.
    """

    code: ClassVar[str] = "FORCED_UNMARKED"
    severity: ClassVar[Severity] = Severity.NETWORK


class TooManyWants(Unavailable):
    """More refs are new than can be asked for at once."""

    code: ClassVar[str] = "TOO_MANY_WANTS"


@dataclasses.dataclass(eq=False, slots=True)
class _Receiving:
    """A transfer whose objects are coming.

    Attributes:
        scope: what of it may be broken off.
        error: why it is.
    """

    repository: RepositoryId
    maintainers: tuple[AuthorId, ...]
    scope: asyncio.Timeout
    error: GutsError | None = None

    def break_off(self, error: GutsError) -> None:
        """Break it off; once is enough."""
        if self.error is None:
            self.error = error
            self.scope.reschedule(0.0)


class Transfers:
    """The workers of one node; every method is run by the driver in a task of its own.

    Attributes:
        patience: how long others are waited for.
    """

    def __init__(
        self,
        repositories: Repositories,
        clock: Callable[[], Now],
        disk: Disk,
        patience: Patience,
        terms: Callable[[RepositoryId], Terms],
    ) -> None:
        """Args: ``terms``: says on which terms a repository is taken now. Raises: ``NoLongerFollowed``."""
        self._repositories = repositories
        self._clock = clock
        self._disk = disk
        self.patience = patience
        self._terms = terms
        self._receiving: set[_Receiving] = set()
        self._packs = SharedPacks(lambda: clock().mono)
        repositories.on_removed.append(self._packs.forget)

    # --- fetching -------------------------------------------------------------------------------------------

    async def fetch(self, effect: Fetch, connection: TcpConnection, vetted: OnVetted, pace: Pace) -> FetchOutcome:
        """Verify a candidate, get its objects, commit. Never raises but for bugs.

        Args:
            vetted: is told of the new records, before their objects are asked for.
            pace: how fast they have to come.
        """
        try:
            return await self._fetch(effect, connection, vetted, pace)
        except (MissingContext, Conflict):
            # Of the state as it is now, or was when the fetch began: to be asked for afresh.
            return Incomplete()
        except GutsError as error:
            return Failed(error)

    async def _fetch(self, effect: Fetch, connection: TcpConnection, vetted: OnVetted, pace: Pace) -> FetchOutcome:
        repository = effect.repository
        held = await self._repositories.held(repository)
        if held is not None and held.proofs:
            held = await with_headers(self._repositories.database, held)
        verified = await asyncio.to_thread(self._verify, repository, held, effect.candidate)
        if verified is None and held is not None and self._repositories.is_lost(repository):
            verified = follow(held, held.chain)
        if verified is None and held is not None and effect.terms.reason is None:
            return await self._revived(repository, held)
        if verified is None:
            return NothingNew(await self._repositories.known(repository) if held is not None else Known())
        try:
            return await self._receive(effect, connection, vetted, pace, held, verified)
        except Conflict:
            raise
        except (NotTaken, StorageFault) as error:
            return Failed(error, verified.chain.current.maintainers)

    async def _receive(
        self,
        effect: Fetch,
        connection: TcpConnection,
        vetted: OnVetted,
        pace: Pace,
        held: Held | None,
        verified: Verified,
    ) -> Accepted:
        """Get and commit what is verified, where this node takes it. Raises: ``GutsError``: why it does not."""
        repository, maintainers = effect.repository, verified.chain.current.maintainers
        self._judge(repository, maintainers)
        self._disk.check(repository, effect.claim if held is None else 0)
        verified = await settle(self._repositories.database, held, verified)
        if verified.new:
            await vetted(tuple(_vetted(new.record) for new in verified.new))
        async with contextlib.AsyncExitStack() as stack:
            bare, hold = await stack.enter_async_context(self._repositories.writing(repository))
            meter = stack.enter_context(self._disk.receiving(repository))
            is_whole = self._repositories.is_whole(bare, repository)
            quarantine = await stack.enter_async_context(bare.quarantine(is_whole=is_whole))
            tips = verified.tips
            missing = tips - await bare.has(tips)
            begun = self._clock().mono
            if len(missing) > MAX_OBJECT_IDS:
                raise TooManyWants(f"{len(missing)} new refs where one request holds {MAX_OBJECT_IDS}")
            async with self._while_wanted(repository, maintainers):
                if missing:
                    haves: list[ObjectId] = []
                    if held is not None and not self._repositories.is_lost(repository):
                        # Some are enough: each vouches for all that it reaches.
                        haves = sorted(held.tips)[:MAX_OBJECT_IDS]
                    try:
                        async with self._requested(
                            connection, effect.request, repository, missing, haves, pace
                        ) as chunks:
                            await quarantine.index(meter.metered(chunks))
                    except GitTimedOut:
                        raise TransferStalled(f"the pack took longer than {self.patience.transfer:g} s") from None
                seconds = self._clock().mono - begun
                await quarantine.check(tips)
                await check_forced(verified, quarantine)
            now_ms = self._clock().wall
            reason = self._judge(repository, maintainers)
            accepted = await self._repositories.commit(bare, verified, quarantine, hold, now_ms, reason=reason)
            received_bytes = quarantine.received_bytes
            return dataclasses.replace(
                accepted, maintainers=maintainers, pack_bytes=received_bytes, pack_seconds=seconds
            )

    async def _revived(self, repository: RepositoryId, held: Held) -> FetchOutcome:
        """Seed again what is still here, and what nobody has more of, if its maintainers are such."""
        maintainers = held.chain.current.maintainers
        reason = self._judge(repository, maintainers)
        await self._repositories.set_seeding(repository, seeding=True, reason=reason, now_ms=self._clock().wall)
        return Accepted(await self._repositories.known(repository), (), (), reason, maintainers)

    # --- what the operator chooses meanwhile ----------------------------------------------------------------

    def judge_again(self) -> None:
        """Break off what is being received on terms that are none any more: the operator changed the policy."""
        for receiving in self._receiving:
            try:
                self._judge(receiving.repository, receiving.maintainers)
            except GutsError as error:
                receiving.break_off(error)

    def _judge(self, repository: RepositoryId, maintainers: tuple[AuthorId, ...]) -> Reason:
        """Return why ``repository`` is taken now. Raises: ``NotTaken``, ``NoLongerFollowed``."""
        return judge(self._terms(repository), repository, maintainers)

    @contextlib.asynccontextmanager
    async def _while_wanted(self, repository: RepositoryId, maintainers: tuple[AuthorId, ...]) -> AsyncIterator[None]:
        """Run the body, as long as its repository is taken. Raises: ``NotTaken``, ``NoLongerFollowed``."""
        receiving = _Receiving(repository, maintainers, asyncio.timeout(None))
        try:
            async with receiving.scope:
                self._receiving.add(receiving)
                # It was waited for a lock since it was judged.
                self._judge(repository, maintainers)
                yield
        except TimeoutError:
            if receiving.error is not None and receiving.scope.expired():
                raise receiving.error from None
            raise
        finally:
            self._receiving.discard(receiving)

    def _verify(self, repository: RepositoryId, held: Held | None, candidate: Candidate) -> Verified | None:
        now_ms = self._clock().wall
        return verify(
            repository, held, candidate.documents, candidate.bridge, candidate.records, now_ms, candidate.proofs
        )

    @contextlib.asynccontextmanager
    async def _requested(
        self,
        connection: TcpConnection,
        request: int,
        repository: RepositoryId,
        wants: Collection[ObjectId],
        haves: Collection[ObjectId],
        pace: Pace,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Enter with the bytes of the pack that leads from ``haves`` to ``wants``, as the peer sends them."""
        stream = connection.open_stream()
        try:
            connection.send(GetObjects(request, repository, stream.id, ALL_SLICES, "", len(wants), len(haves)))
            try:
                async with asyncio.timeout(self.patience.stall):
                    await stream.write(b"".join(sorted(wants)) + b"".join(sorted(haves)))
                    await stream.end()
            except TimeoutError:
                raise TransferStalled("the peer does not take the request") from None
            yield received(stream, pace)
        finally:
            # After its end, a reset says nothing; before it, the peer need not go on.
            stream.reset(ResetCode.CANCELLED)

    # --- serving --------------------------------------------------------------------------------------------

    async def serve(
        self, request: GetObjects, connection: TcpConnection, wanted: Callable[[], bool]
    ) -> GutsError | None:
        """Answer a GetObjects with a pack; return why it failed, if it did.

        Args:
            wanted: tells whether another waits for the place that it has.
        """
        try:
            stream = connection.stream(request.stream)
        except GutsError as error:
            return error
        try:
            async with asyncio.timeout(min(self.patience.stall, ids_seconds(request))):
                wants = await _ids(stream, request.wants)
                haves = await _ids(stream, request.haves)
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(self._repositories.holding(request.repository))
                bare = await self._repositories.open(request.repository)
                chunks = await stack.enter_async_context(self._packs.pack(request.repository, bare, wants, haves))
                connection.send(Objects(request.request, ObjectsStatus.PACK_FOLLOWS, 0))
                giving = Giving(self.patience, wanted)
                async for chunk in chunks:
                    await giving.write(stream, chunk)
                async with asyncio.timeout(self.patience.stall):
                    await stream.end()
        except (NotHeld, NotARepository, Removed) as error:
            connection.send(Objects(request.request, ObjectsStatus.NOT_HELD, 0))
            stream.reset(ResetCode.NOT_FOUND)
            return error
        except GitTimedOut:
            stream.reset(ResetCode.LIMIT)
            return TransferStalled(f"the pack took longer than {self.patience.transfer:g} s")
        except TransferStalled as error:
            stream.reset(ResetCode.LIMIT if isinstance(error, GaveWay) else ResetCode.CANCELLED)
            return error
        except GutsError as error:
            stream.reset(ResetCode.INTERNAL_ERROR)
            return error
        except TimeoutError:
            stream.reset(ResetCode.CANCELLED)
            return TransferStalled("the peer does not take the pack")
        return None


def ids_seconds(request: GetObjects) -> float:
    """Return the seconds in which the ids of ``request`` have to come."""
    return IDS_SECONDS + (request.wants + request.haves) * ObjectId.LENGTH / IDS_BYTES_PER_SECOND


def _vetted(record: SignedRefs) -> VettedRecord:
    encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
    return VettedRecord(record.author, Head(record.seq, record.hash), encoded, record.header.time_ms)


async def check_forced(verified: Verified, quarantine: Quarantine) -> None:
    """Raises: ``ForcedUnmarked``: a new record moves a ref back or aside, or deletes it, without saying so."""
    unmarked = [change for new in verified.new for change in new.changes() if not change.allowed]
    if any(change.new is None for change in unmarked):
        raise ForcedUnmarked("a ref is deleted without a mark")
    pairs = [(change.old, change.new) for change in unmarked if change.new is not None]
    if not all(await quarantine.are_ancestors(pairs)):
        raise ForcedUnmarked("a ref is moved to a commit that does not contain the old one, without a mark")


async def _ids(stream: Stream, count: int) -> list[ObjectId]:
    data = await stream.readexactly(count * ObjectId.LENGTH)
    return [ObjectId(data[start : start + ObjectId.LENGTH]) for start in range(0, len(data), ObjectId.LENGTH)]
