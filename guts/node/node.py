"""``Node``: everything started in order, and stopped in the reverse."""

import asyncio
import contextlib
import dataclasses
import functools
import ipaddress
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import guts
from guts.addresses import Address, BootstrapAddress, parse_subject
from guts.clock import Now
from guts.config import Config
from guts.config_values import Role
from guts.discovery.contact import DhtContact
from guts.discovery.endpoint import PortBusy, route_source
from guts.discovery.server import Discovery
from guts.effects import BanKept, KeptScore
from guts.errors import Unavailable
from guts.events import AddressesChanged, Known
from guts.git.command import Git
from guts.git.limits import DEFAULT_LIMITS
from guts.gossip.protocol import WANTS_REPOSITORIES, GossipProtocol
from guts.identity import SigningKey
from guts.ids import PeerId, RepositoryId
from guts.limits import Limits
from guts.net.dial import dial
from guts.net.handshake_limits import DEFAULT_HANDSHAKE_LIMITS, HandshakeLimits
from guts.net.listener import Listener
from guts.net.tcp import TcpConnection
from guts.node import dht_state
from guts.node.control import Control
from guts.node.dials import resolve
from guts.node.disk import Disk, space_of
from guts.node.driver import Driver
from guts.node.git_service import CAPABILITY, GitServer
from guts.node.limits import DEFAULT_PATIENCE, Patience
from guts.node.lock import DataDirectoryLock
from guts.node.persistence import Persistence
from guts.node.presence import Presence
from guts.node.publishing import Publishing
from guts.node.readings import Readings
from guts.node.rebuilding import open_database
from guts.node.recovery import recover
from guts.node.removal import Removals
from guts.node.repositories import Repositories
from guts.node.running_time import RunningTime
from guts.node.seeding import load_policy
from guts.node.transfers import Transfers
from guts.noise.keys import KeyPair
from guts.peers.book import StoredPeer
from guts.peers.greeting import Self
from guts.peers.manager import Limits as PeerLimits
from guts.peers.manager import PeerManager
from guts.peers.score import Scores
from guts.records import MAX_ADDRESSES
from guts.service.service import Service
from guts.store import peers as peer_table
from guts.store import scores as score_table
from guts.store.database import Database
from guts.store.seeding import DROPPED
from guts.sync.quotas import Quotas, Space
from guts.sync.reposync import RepoSync

PORT_TRIES: Final = 16
"""Free TCP ports tried until one is free for UDP too, where the operator asked for any."""

JOIN_RETRY: Final = 5.0
"""Seconds between attempts to join the DHT while nobody answers."""

SOMEWHERE: Final = ("192.0.2.1", "2001:db8::1")
"""Documentation addresses (RFC 5737, RFC 3849): the routes to them are the default routes. Nothing is sent."""

SOFTWARE: Final = f"guts/{guts.__version__}"


def read_clock() -> Now:
    """Return both clocks as they are."""
    return Now(time.monotonic(), time.time_ns() // 1_000_000)


class Node:
    """A running node; made by ``running``.

    Attributes:
        control: what may be asked of it.
        repositories: what it holds.
    """

    def __init__(self, control: Control, repositories: Repositories) -> None:
        self.control = control
        self.repositories = repositories


@contextlib.asynccontextmanager
async def running(
    config: Config,
    key: SigningKey,
    *,
    client: bool,
    stop: asyncio.Event,
    patience: Patience = DEFAULT_PATIENCE,
    clock: Callable[[], Now] = read_clock,
    space: Callable[[Path], Space] = space_of,
    handshakes: HandshakeLimits = DEFAULT_HANDSHAKE_LIMITS,
) -> AsyncIterator[Node]:
    """Run a node for as long as the context lasts.

    Args:
        client: listen nowhere and answer nobody in the DHT: a node that lives for one command.
        stop: set when the operator asks for a graceful stop; the caller leaves the context then.
        space: tells how much of a file system is free.
        handshakes: how many strangers may begin one.

    Raises:
        UsageError: the operator can mend it (port in use, second node, newer database…).
        StorageFault: disk or database failed.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(DataDirectoryLock.acquire(config.paths.data).release)
        database = await open_database(config.storage.database_url, patience.database)
        stack.push_async_callback(database.close)
        git = Git(dataclasses.replace(DEFAULT_LIMITS, wall_seconds=patience.transfer))
        await git.check_version()
        repositories = Repositories(config.paths.repositories, database, git)
        held = await recover(repositories, clock().wall)
        # When nothing is under way any more that commits, or holds the lock of a repository.
        stack.push_async_callback(repositories.settle_all)
        tasks = await stack.enter_async_context(_tasks())
        yield await _start(
            config, key, client, stop, patience, clock, space, handshakes, database, repositories, held, tasks, stack
        )


@contextlib.asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Enter with a task group whose tasks are cancelled when the context is left, well or not."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            raise _Left
    except BaseExceptionGroup as group:
        errors = [error for error in group.exceptions if not isinstance(error, _Left)]
        if len(errors) > 1:
            raise
        if errors:
            raise errors[0] from None


class _Left(Exception):
    """The context was left."""


async def _start(
    config: Config,
    key: SigningKey,
    client: bool,
    stop: asyncio.Event,
    patience: Patience,
    clock: Callable[[], Now],
    space: Callable[[Path], Space],
    handshakes: HandshakeLimits,
    database: Database,
    repositories: Repositories,
    held: dict[RepositoryId, Known],
    tasks: asyncio.TaskGroup,
    stack: contextlib.AsyncExitStack,
) -> Node:
    rng = random.SystemRandom()
    network = config.network
    static = KeyPair.generate()
    discovery = Discovery(key=key, clock=clock, rng=rng, client_mode=client)
    dialler = functools.partial(dial, key=key, network=network.network_name, static=static)
    incoming: list[Callable[[TcpConnection], Awaitable[None]]] = []

    async def on_connection(connection: TcpConnection) -> None:
        await incoming[0](connection)

    running_time = await RunningTime.load(database, clock)
    now = clock()
    scores = await _scores(database, now, running_time.ran(), network.trusted_peers)
    listener: Listener | None = None
    advertised: tuple[Address, ...] = ()
    own_ips = await _own_ips(None if client else network.listen_addr.ip, network.bootstrap_nodes)
    if client:
        await discovery.listen("0.0.0.0", 0)  # noqa: S104 (asks only)
    else:
        listen = functools.partial(
            Listener.start,
            key=key,
            network=network.network_name,
            static=static,
            on_connection=on_connection,
            limits=handshakes,
            refuses=lambda address: peers.refuses(address, clock().mono),
        )
        listener = await _listen(network.listen_addr, listen, discovery)
        stack.callback(listener.close)
        advertised = network.advertise or tuple(Address(ip, listener.port) for ip in own_ips)[:MAX_ADDRESSES]
    stack.push_async_callback(discovery.close)

    presence = Presence(discovery, key, advertised, clock)
    policy = await load_policy(database, config, client=client)
    capabilities = _capabilities(client=client, role=network.role, curious=policy.takes_more)
    peers: PeerManager = PeerManager(
        Self(key.peer_id, SOFTWARE, capabilities, rng.randbytes(8)),
        presence.peer_record(capabilities).encoded,
        PeerLimits(network.max_connections, network.keepalive_interval),
        scores,
        await _known_peers(database),
        network.bootstrap_nodes,
        rng,
        (*own_ips, *(address.ip for address in network.advertise)),
    )
    limits = config.seeding
    disk = Disk(repositories, Quotas(limits.repo_max, limits.disk, limits.min_free), _monotonic(clock), space)
    removals = Removals(repositories, clock, limits.grace)
    await removals.load()
    for repository in [repository for repository in held if policy.blocks(repository)]:
        # Blocked in the last moment of an earlier run.
        await removals.stop_seeding(repository, DROPPED)
        del held[repository]
    sync = RepoSync(
        held,
        lambda repository: [state.id for state in peers.peers_with_repository(repository)],
        rng,
        now.mono,
        config.seeding.sync_interval,
        peers.preference,
        policy,
    )
    transfers = Transfers(repositories, clock, disk, patience, sync.terms)
    readings = Readings(repositories, clock, config.paths.data / "readings", config.seeding.repo_max, patience)
    await asyncio.to_thread(readings.clear)
    stack.callback(readings.clear)
    persistence = Persistence(database, removals, running_time.reading)
    driver = Driver(
        Service(peers, GossipProtocol(rng), sync, Limits(config.limits.values())),
        tasks,
        clock,
        dialler,
        presence,
        repositories,
        transfers,
        readings,
        GitServer(repositories, patience),
        persistence,
        network.connection_timeout,
    )
    incoming.append(driver.serve_connection)

    async def renewed(peer_record: bytes) -> None:
        await driver.post(AddressesChanged(peer_record))

    publishing = Publishing(repositories, clock, patience, policy, disk)
    stack.push_async_callback(publishing.close)

    contacts = await dht_state.restore(discovery, database, now.wall)
    presence.provide_all(held)
    stack.push_async_callback(_save_dht, discovery, database, clock)
    stack.push_async_callback(running_time.save, database)
    stack.push_async_callback(persistence.drain)
    stack.push_async_callback(driver.stop)
    tasks.create_task(persistence.run())
    tasks.create_task(removals.run())
    tasks.create_task(running_time.keep(database))
    tasks.create_task(driver.run())
    tasks.create_task(discovery.run())
    tasks.create_task(_join(presence, network.bootstrap_nodes, contacts))
    tasks.create_task(presence.run(capabilities, renewed))
    tasks.create_task(publishing.run())
    tasks.create_task(driver.settle_all(held))
    if listener is not None:
        tasks.create_task(listener.run())
        tasks.create_task(dht_state.keep(discovery, database, clock))
    listening = () if listener is None else (listener.address,)
    control = Control(
        config,
        driver,
        repositories,
        readings,
        publishing,
        presence,
        persistence,
        removals,
        disk,
        clock,
        patience,
        listening,
        stop.set,
    )
    return Node(control, repositories)


async def _scores(database: Database, now: Now, ran: int, trusted: frozenset[PeerId]) -> Scores:
    kept = [
        KeptScore(s.peer, s.value, s.ran, s.barred_until, s.banned, s.shut_outs, s.bans, s.repeats_until)
        for s in await database.read(score_table.load_scores)
    ]
    bans = [
        BanKept(parse_subject(ban.subject), ban.until, ban.made, ban.reason)
        for ban in await database.read(score_table.load_bans)
    ]
    return Scores(kept, now, ran, trusted, bans)


async def _listen(address: Address, listen: Callable[[Address], Awaitable[Listener]], discovery: Discovery) -> Listener:
    """Listen on one port number, TCP and UDP. Raises: ``UsageError``: it is in use."""
    for attempt in range(PORT_TRIES):
        listener = await listen(address)
        try:
            await discovery.listen(address.ip, listener.port)
        except PortBusy:
            listener.close()
            if address.port or attempt == PORT_TRIES - 1:
                raise
        else:
            return listener
    raise AssertionError("unreachable")


async def _known_peers(database: Database) -> list[StoredPeer]:
    """Return whom earlier runs met, with where and when each was reached last."""
    good: dict[PeerId, peer_table.GoodAddress] = {}
    for row in await database.read(peer_table.load_good_addresses):
        good.setdefault(row.peer, row)
    stored = []
    for peer in await database.read(peer_table.load_peers):
        known = StoredPeer(
            peer.id, peer.addresses, peer.last_seen, record=peer.record or b"", capabilities=peer.capabilities
        )
        if (where := good.get(peer.id)) is not None:
            addresses = tuple(dict.fromkeys((where.address, *peer.addresses)))
            known = dataclasses.replace(
                known, addresses=addresses, reached=True, last_good=where.last_good, failures=where.failures
            )
        stored.append(known)
    return stored


async def _own_ips(listening: str | None, bootstrap: tuple[BootstrapAddress, ...]) -> tuple[str, ...]:
    """Return this machine's own addresses, as far as it knows: those that it would call the doors from.

    Args:
        listening: ``None``: nowhere; then no name is looked up for it either.
    """
    if listening is not None and not ipaddress.ip_address(listening).is_unspecified:
        return (listening,)
    towards = list(SOMEWHERE)
    for target in bootstrap:
        with contextlib.suppress(Unavailable, ValueError):
            numeric = [str(ipaddress.ip_address(target.host))] if listening is None else []
            towards[:0] = numeric or [address.ip for address in await resolve(target)]
    return tuple(dict.fromkeys(source for ip in towards if (source := route_source(ip)) is not None))


async def _join(presence: Presence, bootstrap: tuple[BootstrapAddress, ...], contacts: list[DhtContact]) -> None:
    """Knock at the doors until the DHT is joined; the upkeep of ``discovery`` goes on from there."""
    while True:
        doors: list[tuple[str, int, PeerId | None]] = [*contacts]
        for target in bootstrap:
            with contextlib.suppress(Unavailable):
                doors += [(address.ip, target.port, target.peer) for address in await resolve(target)]
        joined = await presence.discovery.join(doors)
        presence.joined.set()
        if joined:
            return
        await asyncio.sleep(JOIN_RETRY)


def _capabilities(*, client: bool, role: Role, curious: bool) -> tuple[str, ...]:
    """Return what the node offers, and whether it wants to hear of repositories that it does not know."""
    if client:
        return ()
    if role == "bootstrap":
        return ("bootstrap",)
    return ("seed", CAPABILITY, *((WANTS_REPOSITORIES,) if curious else ()))


def _monotonic(clock: Callable[[], Now]) -> Callable[[], float]:
    return lambda: clock().mono


async def _save_dht(discovery: Discovery, database: Database, clock: Callable[[], Now]) -> None:
    await dht_state.save(discovery, database, clock().wall)
