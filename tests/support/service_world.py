"""A network of real services in virtual time: seeded latency, and workers for which a commit is a number.

Everything that decides is the code that runs in production; what is modelled is the edge. A repository is one author
and a counter: its record is the counter, a fetch takes a round trip to the holder, and a lookup finds who provides. The
same seed gives the same run, which ``digest`` shows.
"""

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import assert_never

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
    Effect,
    Fetch,
    FindProviders,
    GiveReceipt,
    LoadRefs,
    Look,
    Persist,
    Provide,
    Reply,
    ResetStream,
    Send,
    Serve,
    ServeGit,
    Withdraw,
    Withhold,
)
from guts.errors import Unavailable
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
    Head,
    Incomplete,
    Known,
    LookFinished,
    LookupFinished,
    MessageReceived,
    NothingNew,
    ProvidersFound,
    Published,
    RefsLoaded,
    Woke,
)
from guts.gossip.protocol import GossipProtocol
from guts.identity import SigningKey
from guts.ids import AuthorId, PeerId, RepositoryId
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.records import CommitReceipt, PeerRecord, ProviderRecord
from guts.service.service import Service
from guts.sync.reposync import RepoSync
from guts.wire import codec
from guts.wire.messages import EncodedRefs, Gossip, Message, Receipt, RecordQuery, RefsAnswer, RefsQuery, RefsStatus
from guts.wire.secure import Direction
from tests.support.peers import WALL

AUTHOR = AuthorId(b"a" * 32)
DOCUMENT = b"identity"
LIFE_MS = 24 * 3_600_000
MIN_LATENCY, MAX_LATENCY = 0.005, 0.05


def address(number: int) -> Address:
    """Return where a host listens: all are in one LAN."""
    return Address(f"10.0.0.{number}", 9000)


def header_hash(seq: int) -> bytes:
    """Return what stands for the hash of the record ``seq``."""
    return hashlib.sha256(str(seq).encode()).digest()


def known(seq: int) -> Known:
    """Return the state after the record ``seq``."""
    return Known(0, header_hash(0), ((AUTHOR, Head(seq, header_hash(seq))),))


def record(seq: int) -> EncodedRefs:
    """Return the record ``seq``."""
    return EncodedRefs(str(seq).encode(), b"entries")


def _written(effect: Effect) -> bytes:
    """Return the bytes of ``effect`` for the digest; a message has its own, and they are faster to make."""
    if isinstance(effect, Send):
        return str(effect.connection).encode() + codec.encode(effect.message)
    return repr(effect).encode()


@dataclass(eq=False)
class Link:
    """One connection: both ends, each with the id it has there."""

    ends: dict[int, ConnectionId]
    open: bool = True
    clear_at: dict[int, float] = field(default_factory=dict)

    def other(self, node: int) -> int:
        return next(end for end in self.ends if end != node)


@dataclass(eq=False)
class Host:
    """A node: its service, what is on its disk, and what it has read (newest seq per repository)."""

    number: int
    service: Service
    disk: dict[RepositoryId, int] = field(default_factory=dict)
    read: dict[RepositoryId, int] = field(default_factory=dict)
    replies: dict[CommandId, Reply] = field(default_factory=dict)
    links: dict[ConnectionId, Link] = field(default_factory=dict)
    wake: float = float("inf")


class World:
    """Some hosts, and the network between them.

    Attributes:
        lose: tells which messages are lost; gossip is the only kind that may be.
        cut: tells between which hosts nothing passes.
    """

    def __init__(self, hosts: int, seed: int, *, ask_interval: float = 60.0, keepalive: float = 30.0) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.lose: Callable[[int, int, Message], bool] = lambda source, to, message: False
        self.cut: Callable[[int, int], bool] = lambda source, to: False
        self.sent = 0
        self._digest = hashlib.sha256()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count(1)
        self._providers: dict[RepositoryId, dict[int, None]] = {}
        self._keys = [SigningKey(hashlib.sha256(f"{seed} {number}".encode()).digest()) for number in range(hosts)]
        self.hosts = [self._host(number, ask_interval, keepalive) for number in range(hosts)]
        for host in self.hosts:
            self._handle(host, Woke())

    def _host(self, number: int, ask_interval: float, keepalive: float) -> Host:
        key = self._keys[number]
        peer_record = PeerRecord.sign(key, (address(number),), ("seed",), 1, WALL + LIFE_MS).encoded
        rng = random.Random(self.rng.getrandbits(64))
        me = Self(key.peer_id, "guts/sim", ("seed",), rng.randbytes(8))
        peers = PeerManager(
            me, peer_record, Limits(50, keepalive), Scores([], self._reading()), (), (), rng, (address(number).ip,)
        )
        sync = RepoSync(
            {}, lambda wanted: [state.id for state in peers.peers_with_repository(wanted)], rng, 0.0, ask_interval
        )
        return Host(number, Service(peers, GossipProtocol(rng), sync))

    # --- what a test does -----------------------------------------------------------------------------------

    def peer(self, number: int) -> PeerId:
        """Return the id of a host."""
        return self._keys[number].peer_id

    def target(self, number: int) -> BootstrapAddress:
        """Return where a host is."""
        return BootstrapAddress(address(number).ip, 9000, self.peer(number))

    def command(self, number: int, command: Command) -> CommandId:
        """Give a command; ``hosts[number].replies`` has the answer some time later."""
        command_id = CommandId(next(self._count))
        self._handle(self.hosts[number], CommandReceived(command_id, command))
        return command_id

    def publish(self, number: int, repository: RepositoryId, seq: int) -> None:
        """Let the maintainer at a host sign and commit the record ``seq``."""
        host = self.hosts[number]
        host.disk[repository] = seq
        accepted = Accepted(known(seq), ((AUTHOR, Head(seq, header_hash(seq)), record(seq)),))
        self._handle(host, Published(repository, accepted))

    def disconnect(self, one: int, other: int) -> None:
        """Break every connection between two hosts."""
        for link in list(self.hosts[one].links.values()):
            if other in link.ends:
                self._break(link)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass; return how much did until ``until`` was true, or ``seconds``."""
        start, end = self.now, self.now + seconds
        while until is None or not until():
            wake = min(self.hosts, key=lambda host: host.wake)
            if not self._queue or wake.wake <= self._queue[0][0]:
                if wake.wake > end:
                    break
                self.now = max(self.now, wake.wake)
                self._handle(wake, Woke())
            else:
                if self._queue[0][0] > end:
                    break
                self.now, _, work = heapq.heappop(self._queue)
                work()
        else:
            return self.now - start
        self.now = end
        return seconds

    def seqs(self, repository: RepositoryId) -> list[int]:
        """Return the newest record that each host has on disk; 0 for none."""
        return [host.disk.get(repository, 0) for host in self.hosts]

    def digest(self) -> str:
        """Return the hash of every effect so far."""
        return self._digest.hexdigest()

    # --- the edge -------------------------------------------------------------------------------------------

    def _reading(self) -> Now:
        return Now(self.now, WALL + int(self.now * 1000))

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._count), work))

    def _post(self, host: Host, event: Event, seconds: float) -> None:
        self._later(seconds, lambda: self._handle(host, event))

    def _latency(self) -> float:
        return self.rng.uniform(MIN_LATENCY, MAX_LATENCY)

    def _handle(self, host: Host, event: Event) -> None:
        for effect in host.service.handle(event, self._reading()):
            self._digest.update(f"{self.now!r} {host.number} ".encode() + _written(effect))
            self._perform(host, effect)
        # As the driver does: timers are no finer than 10 ms.
        wake = host.service.deadline(self.now)
        host.wake = max(wake, self.now + 0.01)

    def _perform(self, host: Host, effect: Effect) -> None:
        match effect:
            case Send(connection=connection, message=message):
                self._send(host, connection, message)
            case Dial(target=target):
                self._later(self._latency(), lambda: self._dial(host, target))
            case Disconnect(connection=connection, goodbye=goodbye):
                if goodbye is not None:
                    self._send(host, connection, goodbye)
                if (link := host.links.get(connection)) is not None:
                    self._close(link, host)
            case FindProviders(repository=repository):
                self._find(host, repository)
            case Provide(repository=repository):
                self._providers.setdefault(repository, {})[host.number] = None
            case Withdraw(repository=repository):
                self._providers.get(repository, {}).pop(host.number, None)
            case LoadRefs():
                answers = tuple(self._answer(host, query) for query in effect.queries)
                self._post(host, RefsLoaded(effect.connection, effect.request, answers, b""), 0.001)
            case Fetch():
                self._fetch(host, effect)
            case Look():
                self._look(host, effect)
            case GiveReceipt(repository=repository, author=author, head=head):
                receipt = CommitReceipt.sign(
                    self._keys[host.number], repository, author, head.seq, head.hash, self._reading().wall
                )
                self._send(host, effect.connection, Receipt(effect.request, receipt.encoded))
            case Reply():
                host.replies[effect.command_id] = effect
            case Persist() | ResetStream() | Serve() | ServeGit() | Withhold():
                pass
            case _:
                assert_never(effect)

    def _send(self, host: Host, connection: ConnectionId, message: Message) -> None:
        link = host.links.get(connection)
        if link is None or not link.open:
            return
        self.sent += 1
        to = link.other(host.number)
        if self.cut(host.number, to) or (isinstance(message, Gossip) and self.lose(host.number, to, message)):
            return
        # In order, as TCP is.
        arrival = max(self.now + self._latency(), link.clear_at.get(to, 0.0))
        link.clear_at[to] = arrival
        self._later(arrival - self.now, lambda: self._deliver(link, to, message))

    def _deliver(self, link: Link, to: int, message: Message) -> None:
        host = self.hosts[to]
        if link.ends[to] in host.links:
            self._handle(host, MessageReceived(link.ends[to], message))

    def _dial(self, host: Host, target: BootstrapAddress) -> None:
        to = int(target.host.rpartition(".")[2])
        if to >= len(self.hosts) or to == host.number or self.cut(host.number, to):
            self._handle(host, DialFailed(target, Unavailable("nobody there")))
            return
        link = Link({number: ConnectionId(next(self._count)) for number in (host.number, to)})
        events = (
            Connected(link.ends[to], Direction.INBOUND, self.peer(host.number), address(host.number), None),
            Connected(link.ends[host.number], Direction.OUTBOUND, self.peer(to), address(to), target),
        )
        for number, event in zip((to, host.number), events, strict=True):
            self.hosts[number].links[link.ends[number]] = link
            self._handle(self.hosts[number], event)

    def _close(self, link: Link, by: Host) -> None:
        """``by`` closes: it is gone there at once, and at the other end after what is under way."""
        link.open = False
        to = link.other(by.number)
        wait = max(self.now + self._latency(), link.clear_at.get(to, 0.0)) - self.now
        self._later(0.0, lambda: self._gone(link, by.number, None))
        self._later(wait, lambda: self._gone(link, to, Unavailable("closed")))

    def _break(self, link: Link) -> None:
        link.open = False
        for number in link.ends:
            self._gone(link, number, Unavailable("broken"))

    def _gone(self, link: Link, number: int, error: Unavailable | None) -> None:
        host = self.hosts[number]
        if host.links.pop(link.ends[number], None) is not None:
            self._handle(host, Disconnected(link.ends[number], error))

    # --- workers --------------------------------------------------------------------------------------------

    def _find(self, host: Host, repository: RepositoryId) -> None:
        found: Iterable[int] = self._providers.get(repository, {})
        wall = self._reading().wall
        records = tuple(
            ProviderRecord.sign(self._keys[number], repository, (address(number),), 1, wall + LIFE_MS)
            for number in found
        )
        delay = 4 * self._latency()
        self._post(host, ProvidersFound(repository, records), delay)
        self._post(host, LookupFinished(repository, len(self.hosts)), delay + self._latency())

    def _answer(self, host: Host, query: RefsQuery | RecordQuery) -> RefsAnswer:
        seq = host.disk.get(query.repository)
        if seq is None or not host.service.sync.holds(query.repository):
            return RefsAnswer(query.repository, RefsStatus.NOT_HELD)
        if not isinstance(query, RefsQuery) or any(head.seq >= seq for head in query.known):
            return RefsAnswer(query.repository, RefsStatus.HELD)
        documents = (DOCUMENT,) if query.documents == 0 else ()
        return RefsAnswer(query.repository, RefsStatus.HELD, documents, (), (record(seq),))

    def _fetch(self, host: Host, effect: Fetch) -> None:
        self._later(2 * self._latency(), lambda: self._fetched(host, effect))

    def _fetched(self, host: Host, effect: Fetch) -> None:
        before = host.disk.get(effect.repository)
        [offered] = [int(found.header) for found in effect.candidate.records]
        link = host.links.get(effect.connection)
        if link is None or self.cut(host.number, link.other(host.number)):
            outcome: Accepted | NothingNew | Incomplete | Failed = Failed(Unavailable("the connection is gone"))
        elif before is None and not effect.candidate.documents:
            outcome = Incomplete()
        elif before is not None and before >= offered:
            outcome = NothingNew(known(before))
        else:
            host.disk[effect.repository] = offered
            outcome = Accepted(known(offered), ((AUTHOR, Head(offered, header_hash(offered)), record(offered)),))
        self._handle(host, FetchFinished(effect.fetch, effect.repository, effect.connection, outcome))

    def _look(self, host: Host, effect: Look) -> None:
        [offered] = [int(found.header) for found in effect.candidate.records]
        before = host.read.get(effect.repository, 0)
        outcome: Accepted | NothingNew = NothingNew(known(before))
        if offered > before:
            host.read[effect.repository] = offered
            outcome = Accepted(known(offered), ())
        self._post(host, LookFinished(effect.fetch, effect.repository, effect.connection, outcome), 0.001)
