"""``Transfers``: what Fetch, Look and Serve do with made-up git. What is judged is judged by the product's code.

A Fetch whose objects are missing sends a real GetObjects, which the service of the other side admits or refuses; the
pack is the commits between wants and haves, and takes its time over the link.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from guts.clock import Now
from guts.effects import Candidate, Fetch, Look, Serve
from guts.errors import GutsError
from guts.events import (
    Accepted,
    ConnectionId,
    Event,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    Head,
    Incomplete,
    Known,
    LookFinished,
    NothingNew,
    ServeFinished,
    Vetted,
    VettedRecord,
)
from guts.git.ancestry import NotHeld
from guts.git.faults import MissingObjects
from guts.ids import ObjectId, RepositoryId
from guts.net.stream import StreamFailed
from guts.net.tcp import ConnectionLost
from guts.node.acceptance import MissingContext, Verified, verify
from guts.node.history import settle_at_hand
from guts.node.limits import DEFAULT_PATIENCE
from guts.node.pace import TransferStalled
from guts.node.transfers import ALL_SLICES, ForcedUnmarked
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs, GetObjects, Objects, ObjectsStatus
from tests.support.simulator.commits import COMMIT_BYTES, Commits
from tests.support.simulator.disk import Copy
from tests.support.simulator.engine import Engine
from tests.support.simulator.host import Host
from tests.support.simulator.links import Link
from tests.support.simulator.replica import Replica
from tests.support.simulator.wires import Wires

VERIFY_SECONDS: Final = 0.001
PACK_SECONDS: Final = 0.01
COMMIT_SECONDS: Final = 0.02
"""What the work takes on a machine that does little else (docs/benchmarks.md)."""

PACK_OVERHEAD: Final = 200


@dataclass(slots=True, eq=False)
class Job:
    """A Fetch under way.

    Attributes:
        program: that it is for; after a restart nobody waits for it.
        began: the pack has begun to come.
    """

    host: Host
    program: object
    effect: Fetch
    verified: Verified
    began: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """A GetObjects as the stream carries it: ids that have come, and what waits for them."""

    wants: tuple[ObjectId, ...] | None = None
    haves: tuple[ObjectId, ...] = ()
    serve: Serve | None = None


class Transfers:
    """The workers of all hosts.

    Args:
        commits: of every repository.
        handle: gives an event to the program of a host.
    """

    def __init__(
        self,
        engine: Engine,
        wires: Wires,
        commits: Callable[[RepositoryId], Commits],
        reading: Callable[[Host], Now],
        handle: Callable[[Host, Event], None],
    ) -> None:
        self._engine = engine
        self._wires = wires
        self._commits = commits
        self._reading = reading
        self._handle = handle
        self._jobs: dict[tuple[ConnectionId, int], Job] = {}
        self._requests: dict[tuple[ConnectionId, int], Request] = {}
        self._streams: dict[ConnectionId, int] = {}

    # --- judging --------------------------------------------------------------------------------------------

    def fetch(self, host: Host, effect: Fetch) -> None:
        """Verify what was offered, and get its objects."""
        self._engine.call_later(VERIFY_SECONDS, self._fetch, host, host.program, effect)

    def _fetch(self, host: Host, program: object, effect: Fetch) -> None:
        if host.program is not program:
            return
        if effect.connection not in host.links:
            self._finished(host, effect, Failed(ConnectionLost("the connection is gone")))
            return
        copy = host.disk.copies.get(effect.repository)
        verified = self._judge(host, copy.replica if copy is not None else None, effect.repository, effect.candidate)
        if not isinstance(verified, Verified):
            self._finished(host, effect, verified)
            return
        if verified.new:
            vetted = tuple(_vetted(new.record) for new in verified.new)
            self._handle(host, Vetted(effect.fetch, effect.repository, effect.connection, vetted))
        job = Job(host, program, effect, verified)
        missing = self._commits(effect.repository).missing(verified.tips, copy.commits if copy is not None else 0)
        if missing:
            haves = tuple(sorted(copy.replica.held().tips)) if copy is not None else ()
            self._request(job, tuple(missing), haves)
        else:
            self._received(job, 0)

    def look(self, host: Host, effect: Look) -> None:
        """Verify what was told about a repository that is not held, and keep it."""
        self._engine.call_later(VERIFY_SECONDS, self._look, host, host.program, effect)

    def _look(self, host: Host, program: object, effect: Look) -> None:
        if host.program is not program:
            return
        reading = host.readings.get(effect.repository)
        verified = self._judge(host, reading, effect.repository, effect.candidate)
        outcome: FetchOutcome
        if isinstance(verified, Verified):
            reading = host.readings.setdefault(effect.repository, Replica(verified.chain))
            reading.take(verified)
            outcome = Accepted(reading.known(), ())
        else:
            outcome = verified
        self._handle(host, LookFinished(effect.fetch, effect.repository, effect.connection, outcome))

    def _judge(
        self, host: Host, replica: Replica | None, repository: RepositoryId, candidate: Candidate
    ) -> Verified | FetchOutcome:
        held = replica.held() if replica is not None else None
        wall = self._reading(host).wall
        try:
            verified = verify(
                repository, held, candidate.documents, candidate.bridge, candidate.records, wall, candidate.proofs
            )
        except MissingContext:
            return Incomplete()
        except GutsError as error:
            return Failed(error)
        if verified is None:
            return NothingNew(replica.known() if replica is not None else Known())
        return verified if held is not None else settle_at_hand(verified)

    # --- asking for a pack ----------------------------------------------------------------------------------

    def _request(self, job: Job, wants: tuple[ObjectId, ...], haves: tuple[ObjectId, ...]) -> None:
        effect = job.effect
        stream = self.ask(job.host, effect.connection, effect.request, effect.repository, wants, haves)
        self._jobs[effect.connection, stream] = job
        self._engine.call_later(DEFAULT_PATIENCE.first_byte, self._stalled, effect.connection, stream, job, False)
        self._engine.call_later(DEFAULT_PATIENCE.transfer, self._stalled, effect.connection, stream, job, True)

    def ask(
        self,
        host: Host,
        connection: ConnectionId,
        request: int,
        repository: RepositoryId,
        wants: tuple[ObjectId, ...],
        haves: tuple[ObjectId, ...],
    ) -> int:
        """Send a GetObjects and the ids that follow it; return the stream."""
        _, side = host.links[connection]
        stream = self._streams[connection] = self._streams.get(connection, -1 if side == 0 else 0) + 2
        message = GetObjects(request, repository, stream, ALL_SLICES, "", len(wants), len(haves))
        self._wires.send(host, connection, message)
        self.send_ids(host, connection, stream, wants, haves)
        return stream

    def send_ids(
        self,
        host: Host,
        connection: ConnectionId,
        stream: int,
        wants: tuple[ObjectId, ...],
        haves: tuple[ObjectId, ...],
    ) -> None:
        """Send the ids that follow a GetObjects on its stream."""
        if (found := host.links.get(connection)) is not None:
            link, side = found
            size = ObjectId.LENGTH * (len(wants) + len(haves))
            self._wires.ship(link, side, size, 0, self._ids_came, link, 1 - side, stream, wants, haves)

    def hurry(self, host: Host, fetch: FetchId, seconds: float) -> None:
        """Give a transfer up if its pack does not begin in ``seconds``."""
        for (connection, stream), job in self._jobs.items():
            if job.program is host.program and job.effect.fetch == fetch:
                self._engine.call_later(seconds, self._stalled, connection, stream, job, False)

    def _stalled(self, connection: ConnectionId, stream: int, job: Job, began: bool) -> None:
        if job.began == began and self._jobs.get((connection, stream)) is job:
            del self._jobs[connection, stream]
            self._fail(job, TransferStalled("no pack in time"))

    def _fail(self, job: Job, error: GutsError) -> None:
        self._finished_for(job, Failed(error))

    def lost(self, host: Host, connection: ConnectionId) -> None:
        """End what ``host`` had under way over a connection that is gone."""
        for key in [key for key in self._jobs if key[0] == connection]:
            self._fail(self._jobs.pop(key), ConnectionLost("the connection is gone"))
        for key in [key for key in self._requests if key[0] == connection]:
            request = self._requests.pop(key)
            if request.serve is not None and request.wants is None:
                self._served(host, host.program, request.serve, ConnectionLost("the connection is gone"))
        self._streams.pop(connection, None)

    # --- serving --------------------------------------------------------------------------------------------

    def _ids_came(
        self, link: Link[Host], side: int, stream: int, wants: tuple[ObjectId, ...], haves: tuple[ObjectId, ...]
    ) -> None:
        host, connection = link.hosts[side], link.ids[side]
        if connection not in host.links:
            return
        request = self._requests.setdefault((connection, stream), Request())
        request.wants, request.haves = wants, haves
        if request.serve is not None:
            self._begin(host, request.serve)

    def serve(self, host: Host, effect: Serve) -> None:
        """Answer a GetObjects that was admitted, once its ids are here."""
        key = (effect.connection, effect.request.stream)
        request = self._requests.setdefault(key, Request())
        request.serve = effect
        if request.wants is not None:
            self._begin(host, effect)
        else:
            self._engine.call_later(DEFAULT_PATIENCE.stall, self._no_ids, host, host.program, effect, request)

    def _no_ids(self, host: Host, program: object, effect: Serve, request: Request) -> None:
        key = (effect.connection, effect.request.stream)
        if request.wants is None and self._requests.get(key) is request:
            del self._requests[key]
            self._served(host, program, effect, TransferStalled("the ids do not come"))

    def _begin(self, host: Host, effect: Serve) -> None:
        self._engine.call_later(PACK_SECONDS, self._pack, host, host.program, effect)

    def _pack(self, host: Host, program: object, effect: Serve) -> None:
        if host.program is not program:
            return
        request = self._requests.pop((effect.connection, effect.request.stream), None)
        found = host.links.get(effect.connection)
        if found is None or request is None or request.wants is None:
            self._served(host, program, effect, ConnectionLost("the connection is gone"))
            return
        link, _ = found
        repository = effect.request.repository
        commits, copy = self._commits(repository), host.disk.copies.get(repository)
        missing = commits.missing(request.wants, copy.commits if copy is not None else 0)
        if copy is None or missing:
            self._wires.send(host, effect.connection, Objects(effect.request.request, ObjectsStatus.NOT_HELD, 0))
            self.reset_stream(host, effect.connection, effect.request.stream)
            self._served(host, program, effect, NotHeld(missing))
            return
        known = commits.closure(have for have in request.haves if commits.holds(have, copy.commits))
        pack = commits.closure(request.wants) & ~known
        self._wires.send(host, effect.connection, Objects(effect.request.request, ObjectsStatus.PACK_FOLLOWS, 0))
        size = PACK_OVERHEAD + pack.bit_count() * COMMIT_BYTES
        arrives = self.send_pack(host, effect.connection, effect.request.stream, pack, size)
        written = min(arrives - link.latency, self._engine.now + DEFAULT_PATIENCE.transfer)
        self._engine.call_at(written, self._served, host, program, effect, None)

    def _served(self, host: Host, program: object, effect: Serve, error: GutsError | None) -> None:
        if host.program is program:
            self._handle(host, ServeFinished(effect.connection, effect.request.repository, error))

    def send_pack(self, host: Host, connection: ConnectionId, stream: int, commits: int, size: int) -> float:
        """Send a pack on a stream of the other side; return when it is there."""
        link, side = host.links[connection]
        key = (link.ids[1 - side], stream)
        self._wires.ship(link, side, 0, 1, self._pack_begins, key)
        return self._wires.ship(link, side, size, 1, self._pack_ends, key, commits)

    def reset_stream(self, host: Host, connection: ConnectionId, stream: int) -> None:
        """Refuse a stream of the other side."""
        self._requests.pop((connection, stream), None)
        if (found := host.links.get(connection)) is not None:
            link, side = found
            self._wires.ship(link, side, 0, 0, self._stream_reset, (link.ids[1 - side], stream))

    # --- what comes -----------------------------------------------------------------------------------------

    def _pack_begins(self, key: tuple[ConnectionId, int]) -> None:
        if (job := self._jobs.get(key)) is not None:
            job.began = True

    def _pack_ends(self, key: tuple[ConnectionId, int], commits: int) -> None:
        if (job := self._jobs.pop(key, None)) is not None:
            self._received(job, commits)

    def _stream_reset(self, key: tuple[ConnectionId, int]) -> None:
        if (job := self._jobs.pop(key, None)) is not None:
            self._fail(job, StreamFailed("the peer gave the stream up"))

    def _received(self, job: Job, pack: int) -> None:
        self._engine.call_later(COMMIT_SECONDS, self._commit, job, pack)

    def _commit(self, job: Job, pack: int) -> None:
        host, verified = job.host, job.verified
        if host.program is not job.program:
            return
        repository = verified.chain.repository
        commits, copy = self._commits(repository), host.disk.copies.get(repository)
        here = pack | (copy.commits if copy is not None else 0)
        error = self._fault(commits, verified, here)
        if error is not None:
            self._fail(job, error)
        elif verified.generation != (copy.replica.generation if copy is not None else 0):
            self._finished_for(job, Incomplete())
        else:
            self._finished_for(job, self.commit(host, verified, here))

    @staticmethod
    def _fault(commits: Commits, verified: Verified, here: int) -> GutsError | None:
        if commits.closure(verified.tips) & ~here or commits.missing(verified.tips, here):
            return MissingObjects("a tip is not in the pack")
        for change in (change for new in verified.new for change in new.changes() if not change.allowed):
            if change.new is None or (change.old, change.new) not in commits:
                return ForcedUnmarked("a ref is moved without a mark")
        return None

    def commit(self, host: Host, verified: Verified, commits: int) -> Accepted:
        """Make ``verified`` what ``host`` holds."""
        repository = verified.chain.repository
        copy = host.disk.copies.get(repository)
        if copy is None:
            copy = host.disk.copies[repository] = Copy(Replica(verified.chain), 0)
        copy.replica.take(verified)
        copy.commits |= commits
        copy.seeding = True
        for observer in self._wires.observers:
            for new in verified.new:
                observer.committed(self._engine.now, host.number, repository, new.record)
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
        return Accepted(copy.replica.known(), news, proofs)

    def _finished_for(self, job: Job, outcome: FetchOutcome) -> None:
        if job.host.program is job.program:
            self._finished(job.host, job.effect, outcome)

    def _finished(self, host: Host, effect: Fetch, outcome: FetchOutcome) -> None:
        self._handle(host, FetchFinished(effect.fetch, effect.repository, effect.connection, outcome))


def _vetted(record: SignedRefs) -> VettedRecord:
    encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
    return VettedRecord(record.author, Head(record.seq, record.hash), encoded, record.header.time_ms)
