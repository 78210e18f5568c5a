"""``Driver``: one queue of events, one consumer, one timer; it runs what the service decides.

The queue is bounded. Whoever posts waits while it is full. A connection has one message in it at the most: its next
one is taken when the service has handled that, and not before the time for which the service withholds it, so whoever
floods waits in a line of its own. A message that finds nobody before it is handled in the turn of the event loop that
brought it: most do, and the way through the queue costs as much again. The driver itself posts nothing while it handles
an event.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import ClassVar, Final, assert_never

from guts.addresses import BootstrapAddress
from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
    Effect,
    Fetch,
    FindProviders,
    GiveReceipt,
    Hurry,
    LoadRefs,
    Look,
    Persist,
    Provide,
    Reply,
    ResetStream,
    Result,
    Send,
    Serve,
    ServeGit,
    Withdraw,
    Withhold,
)
from guts.errors import GutsError, PeerFault, StorageFault, Unavailable
from guts.events import (
    Accepted,
    Command,
    CommandId,
    CommandReceived,
    Connected,
    ConnectionId,
    DialFailed,
    Disconnected,
    Event,
    Failed,
    FetchFinished,
    FetchId,
    FetchOutcome,
    GitServed,
    LookFinished,
    LookupFinished,
    MessageReceived,
    ProvidersFound,
    RefsLoaded,
    ServeFinished,
    SourceFailed,
    UnknownMessageReceived,
    Vetted,
    VettedRecord,
    Woke,
)
from guts.ids import RepositoryId
from guts.net.stream import StreamFailed
from guts.net.tcp import TcpConnection
from guts.node.dials import DialAddress, reach
from guts.node.git_service import GitServer
from guts.node.object_listing import list_objects
from guts.node.pace import Pace
from guts.node.persistence import Persistence
from guts.node.presence import Presence
from guts.node.readings import Readings
from guts.node.refs_reader import RefsReader
from guts.node.repositories import Repositories
from guts.node.transfers import Transfers
from guts.service.service import Service
from guts.sync.quotas import DiskLow
from guts.wire.codec import UnknownMessage
from guts.wire.messages import Goodbye, Message, Receipt, RefsAnswer

log = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1024
"""Events waiting for the service: a few milliseconds of its work."""

MIN_WAIT: Final = 0.01
"""Seconds: timers are no finer, so that a deadline that is missed by a hair costs one turn, not a hundred."""

MAX_WAIT: Final = 3600.0
MAX_LOADS: Final = 8
"""Answers to GetRefs being put together at a time, 4 MiB each and what they are read from; others wait their turn."""

SETTLE_DELAY: Final = 1.0
"""Seconds after a commit before its refs are synced and its objects told to the database: those who come for what is
new go first. It is a fifth of the work between a publication and the receipts of three replicas, and nobody waits for
it; of many commits in a second it is done once."""

CLOSE_TIMEOUT: Final = 2.0
"""Seconds for all connections together to say goodbye at the end."""


class Gone(Unavailable):
    """The connection went away before the work over it began."""

    code: ClassVar[str] = "CONNECTION_LOST"


class Driver:
    """The edge between decisions and the world. Every method is called on one event loop."""

    def __init__(
        self,
        service: Service,
        tasks: asyncio.TaskGroup,
        clock: Callable[[], Now],
        dial: DialAddress,
        presence: Presence,
        repositories: Repositories,
        transfers: Transfers,
        readings: Readings,
        git_server: GitServer,
        persistence: Persistence,
        connection_timeout: float,
    ) -> None:
        """Args: ``connection_timeout``: seconds for name, connect and handshake of a dial together."""
        self.service = service
        self._tasks = tasks
        self._clock = clock
        self._dial = dial
        self._presence = presence
        self._repositories = repositories
        self.transfers = transfers
        self._readings = readings
        self._git_server = git_server
        self._refs_reader = RefsReader(repositories.database)
        self._persistence = persistence
        self._connection_timeout = connection_timeout
        self._queue: asyncio.Queue[tuple[Event, asyncio.Future[None] | None]] = asyncio.Queue(QUEUE_LIMIT)
        self._connections: dict[ConnectionId, TcpConnection] = {}
        self._replies: dict[CommandId, asyncio.Future[Result]] = {}
        self._paces: dict[FetchId, Pace] = {}
        self._settling: set[RepositoryId] = set()
        self._stopped = False
        self._loads = asyncio.Semaphore(MAX_LOADS)
        self._turns: dict[ConnectionId, asyncio.Lock] = {}
        self._last_id = 0
        self._next_wake = 0.0
        self._alarm: asyncio.Timeout | None = None

    # --- in -------------------------------------------------------------------------------------------------

    async def post(self, event: Event) -> None:
        """Queue ``event``; waits while the queue is full."""
        await self._queue.put((event, None))

    async def _deliver(self, event: MessageReceived | UnknownMessageReceived) -> None:
        """Have the service handle what a peer said; returns when it has."""
        if self._alarm is not None and self._queue.empty() and not self._stopped:
            try:
                self._rearm(self._handle(event))
            except (GutsError, OSError) as error:
                # Not to be taken for a fault of that peer, nor of its connection.
                raise RuntimeError("the service failed") from error
            return
        handled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((event, handled))
        await handled

    async def execute(self, command: Command) -> Result:
        """Let the service carry ``command`` out and return its answer. Raises: ``GutsError``: what it ended in."""
        command_id = CommandId(self._next_id())
        reply: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._replies[command_id] = reply
        try:
            await self.post(CommandReceived(command_id, command))
            return await reply
        finally:
            del self._replies[command_id]

    def connection(self, connection: ConnectionId) -> TcpConnection | None:
        """Return an open connection by its id."""
        return self._connections.get(connection)

    async def source_failed(self, connection: ConnectionId, error: PeerFault) -> None:
        """Have ``error``, which was in what a peer answered to git, counted against that peer."""
        await self.post(SourceFailed(connection, error))

    async def serve_connection(self, connection: TcpConnection, dialled: BootstrapAddress | None = None) -> None:
        """Run ``connection`` until it ends: one ``Connected`` first, one ``Disconnected`` last."""
        connection_id = ConnectionId(self._next_id())
        self._connections[connection_id] = connection
        self._turns[connection_id] = asyncio.Lock()
        await self.post(Connected(connection_id, connection.direction, connection.peer, connection.remote, dialled))

        async def on_message(message: Message | UnknownMessage) -> None:
            size = connection.take_charge()
            if isinstance(message, UnknownMessage):
                await self._deliver(UnknownMessageReceived(connection_id, message.type, size))
            else:
                await self._deliver(MessageReceived(connection_id, message, size))

        try:
            await connection.run(on_message)
        finally:
            del self._connections[connection_id]
            del self._turns[connection_id]
        await self.post(Disconnected(connection_id, connection.closed_by))

    async def run(self) -> None:
        """Handle events and timers until cancelled."""
        while True:
            event, handled = await self._next_event()
            self._handle(event)
            if handled is not None and not handled.done():
                handled.set_result(None)

    def _handle(self, event: Event) -> float:
        """Do what the service decides about ``event``; return when that was (monotonic seconds)."""
        now = self._clock()
        for effect in self.service.handle(event, now):
            self._perform(effect)
        return now.mono

    async def _next_event(self) -> tuple[Event, asyncio.Future[None] | None]:
        now = self._clock().mono
        wait = self._wait(now)
        if wait == 0.0 and now >= self._next_wake:
            # Time goes first where both are due, or a steady stream of messages would stop every timer.
            self._next_wake = now + MIN_WAIT
            await asyncio.sleep(0)
            return Woke(), None
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(max(wait, MIN_WAIT)) as self._alarm:
                return await self._queue.get()
        except TimeoutError:
            return Woke(), None
        finally:
            self._alarm = None

    def _rearm(self, now: float) -> None:
        """Have the alarm go off no later than the service wants to be woken; earlier does no harm."""
        when = asyncio.get_running_loop().time() + max(self._wait(now), MIN_WAIT)
        if self._alarm is not None and when < (self._alarm.when() or 0.0):
            self._alarm.reschedule(when)

    def _wait(self, now: float) -> float:
        """Return the seconds until the service wants to be woken."""
        return min(max(self.service.deadline(now) - now, 0.0), MAX_WAIT)

    async def stop(self) -> None:
        """Dial no more, say goodbye to every peer and close every connection; ``CLOSE_TIMEOUT`` at the most."""
        self._stopped = True
        goodbye = self.service.peers.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT), asyncio.TaskGroup() as tasks:
                for connection in list(self._connections.values()):
                    tasks.create_task(connection.close(goodbye))

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.create_task(work)

    # --- out ------------------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(connection=connection_id, message=message):
                if (connection := self._connections.get(connection_id)) is not None:
                    connection.send(message)
            case Disconnect(connection=connection_id, goodbye=goodbye):
                if (connection := self._connections.get(connection_id)) is not None:
                    self._spawn(_close(connection, goodbye))
            case Withhold(connection=connection_id, seconds=seconds, pause=pause):
                if (connection := self._connections.get(connection_id)) is not None:
                    connection.withhold(seconds, pause=pause)
            case Dial():
                self._spawn(self._dial_target(effect))
            case ResetStream(connection=connection_id, stream=stream, code=code):
                if (connection := self._connections.get(connection_id)) is not None:
                    with contextlib.suppress(StreamFailed, PeerFault):
                        connection.stream(stream).reset(code)
            case FindProviders(repository=repository):
                self._spawn(self._find_providers(repository))
            case Provide(repository=repository):
                self._presence.provide(repository)
            case Withdraw(repository=repository):
                self._presence.withdraw(repository)
            case LoadRefs():
                self._spawn(self._load_refs(effect))
            case Fetch():
                self._spawn(self._fetch(effect))
            case Hurry(fetch=fetch, seconds=seconds):
                if (pace := self._paces.get(fetch)) is not None:
                    pace.hurry(seconds)
            case Look():
                self._spawn(self._look(effect))
            case Serve():
                self._spawn(self._serve(effect))
            case ServeGit():
                self._spawn(self._serve_git(effect))
            case GiveReceipt(connection=connection_id, repository=repository, author=author, head=head):
                if (connection := self._connections.get(connection_id)) is not None:
                    receipt = self._presence.receipt(repository, author, head)
                    connection.send(Receipt(effect.request, receipt.encoded))
            case Persist(change=change):
                self._persistence.keep(change)
            case Reply():
                self._reply(effect)
            case _:
                assert_never(effect)

    def _reply(self, effect: Reply) -> None:
        reply = self._replies.get(effect.command_id)
        if reply is None or reply.done():
            return
        if isinstance(effect.result, GutsError):
            reply.set_exception(effect.result)
        else:
            reply.set_result(effect.result)

    # --- tasks ----------------------------------------------------------------------------------------------

    async def _dial_target(self, effect: Dial) -> None:
        try:
            connection = await reach(effect, self._dial, self._connection_timeout)
        except (PeerFault, Unavailable) as error:
            log.debug("dial of %s failed: %s", effect.target, error)
            await self.post(DialFailed(effect.target, error))
            return
        if self._stopped:
            # Made in the moment of the stop: a race that is won then forgets that it was cancelled.
            await connection.close()
            return
        self._spawn(self._presence.met(connection.remote, connection.peer))
        await self.serve_connection(connection, effect.target)

    async def _find_providers(self, repository: RepositoryId) -> None:
        discovery = self._presence.discovery
        await self._presence.joined.wait()
        async with contextlib.aclosing(discovery.find_providers(repository)) as records:
            async for record in records:
                await self.post(ProvidersFound(repository, (record,)))
        await self.post(LookupFinished(repository, discovery.last_lookup.asked, self.service.peers.knows_nobody))

    async def _load_refs(self, effect: LoadRefs) -> None:
        answers: tuple[RefsAnswer, ...] = ()
        cursor = b""
        try:
            answers, cursor = await self._read_refs(effect)
        except StorageFault as error:
            log.error("can't read refs: %s", error)
        await self.post(RefsLoaded(effect.connection, effect.request, answers, cursor))

    async def _read_refs(self, effect: LoadRefs) -> tuple[tuple[RefsAnswer, ...], bytes]:
        """Read for one request of a peer at a time: who asks for much waits for it alone. Raises: ``StorageFault``."""
        turn = self._turns.get(effect.connection)
        if turn is not None:
            async with turn:
                if effect.connection in self._connections:
                    async with self._loads:
                        return await self._refs_reader.read(effect.queries, effect.cursor)
        return (), b""

    async def _fetch(self, effect: Fetch) -> None:
        async def vetted(records: tuple[VettedRecord, ...]) -> None:
            await self.post(Vetted(effect.fetch, effect.repository, effect.connection, records))

        connection = self._connections.get(effect.connection)
        if connection is None:
            outcome: FetchOutcome = Failed(Gone("the connection is gone"))
        else:
            pace = self._paces[effect.fetch] = Pace(self.transfers.patience)
            try:
                outcome = await self.transfers.fetch(effect, connection, vetted, pace)
            finally:
                del self._paces[effect.fetch]
        match outcome:
            case Failed(error=DiskLow()):
                # Told once, where it was seen.
                pass
            case Failed(error=StorageFault() as error):
                log.error("can't store %s: %s", effect.repository.short, error)
            case Accepted():
                self.settle(effect.repository)
        await self.post(FetchFinished(effect.fetch, effect.repository, effect.connection, outcome))

    async def _look(self, effect: Look) -> None:
        connection = self._connections.get(effect.connection)
        outcome: FetchOutcome = Failed(Gone("the connection is gone"))
        if connection is not None:
            outcome = await self._readings.look(effect, connection.peer)
        await self.post(LookFinished(effect.fetch, effect.repository, effect.connection, outcome))

    async def _serve(self, effect: Serve) -> None:
        connection = self._connections.get(effect.connection)
        error: GutsError | None = Gone("the connection is gone")
        if connection is not None:
            wanted = functools.partial(self.service.serving.wanted, effect.connection)
            error = await self.transfers.serve(effect.request, connection, wanted)
        if isinstance(error, StorageFault):
            log.error("can't serve %s: %s", effect.request.repository.short, error)
        await self.post(ServeFinished(effect.connection, effect.request.repository, error))

    async def _serve_git(self, effect: ServeGit) -> None:
        connection = self._connections.get(effect.connection)
        error: GutsError | None = Gone("the connection is gone")
        if connection is not None:
            error = await self._git_server.serve(effect.request, connection)
        if isinstance(error, StorageFault):
            log.error("can't answer git about %s: %s", effect.request.repository.short, error)
        await self.post(GitServed(effect.connection, error))

    def settle(self, repository: RepositoryId) -> None:
        """Have done soon what a commit of ``repository`` did not wait for, unless that is under way."""
        if repository not in self._settling:
            self._settling.add(repository)
            self._spawn(self._settle(repository, SETTLE_DELAY))

    async def settle_all(self, held: Iterable[RepositoryId]) -> None:
        """Do what an earlier run left undone, one repository after the other."""
        for repository in held:
            if repository not in self._settling:
                self._settling.add(repository)
                await self._settle(repository, 0.0)

    async def _settle(self, repository: RepositoryId, delay: float) -> None:
        try:
            await asyncio.sleep(delay)
            await self._repositories.settle(repository)
            await list_objects(self._repositories, repository)
        except StorageFault as error:
            # Removed meanwhile: as the operator wanted.
            level = logging.WARNING if repository in self._repositories.sizes else logging.DEBUG
            log.log(level, "can't sync the refs of %s, or list its objects: %s", repository.short, error)
            return
        finally:
            self._settling.discard(repository)
        if not self._repositories.is_settled(repository):
            # Committed while this was under way: to list a large repository takes minutes.
            self.settle(repository)


async def _close(connection: TcpConnection, goodbye: Goodbye | None) -> None:
    await connection.close(goodbye)
