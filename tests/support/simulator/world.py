"""``World``: what tests and scenarios use; see the package's docstring."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, assert_never

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import (
    Dial,
    Disconnect,
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
    Send,
    Serve,
    ServeGit,
    Withdraw,
    Withhold,
)
from guts.events import (
    AddressesChanged,
    Command,
    CommandId,
    CommandReceived,
    Connect,
    Disconnected,
    Event,
    GitServed,
    Published,
    RefsLoaded,
    Woke,
)
from guts.ids import PeerId, RepositoryId
from guts.node.acceptance import verify
from guts.records import CommitReceipt
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import EncodedRefs, Receipt
from tests.support.simulator.addresses import address, host_key
from tests.support.simulator.commits import Commits
from tests.support.simulator.encoded import Encoder
from tests.support.simulator.engine import Engine
from tests.support.simulator.host import Host, Settings, make_record, make_service
from tests.support.simulator.links import Access, LinkProfile
from tests.support.simulator.observer import Observer
from tests.support.simulator.program import Act, AskObjects, Program, SendBytes, SendPack
from tests.support.simulator.project import Project
from tests.support.simulator.providers import Providers
from tests.support.simulator.transfers import Transfers
from tests.support.simulator.wires import Wires

WALL: Final = 1_800_000_000_000
"""Unix ms at the start of every world."""

MIN_WAIT: Final = 0.01
"""Seconds: timers are no finer, as with the driver."""

LOAD_SECONDS: Final = 0.001
RENEW_EVERY: Final = 6 * 3600.0


class World:
    """Some hosts, and the network between them.

    Attributes:
        hosts: by number; those added later come behind.
        projects: every repository.
    """

    def __init__(
        self,
        hosts: int,
        seed: int,
        links: LinkProfile | None = None,
        settings: Settings | None = None,
        *,
        running: bool = True,
    ) -> None:
        """Args: ``running``: start a service on each host; else nothing runs there yet."""
        self.engine = Engine(seed)
        self.rng = self.engine.rng
        self.links = links or LinkProfile()
        self.settings = settings or Settings()
        self.hosts: list[Host] = []
        self.projects: dict[RepositoryId, Project] = {}
        self.wires = Wires(self.engine, self.links, Encoder(), self._handle)
        self.providers = Providers(self.engine, self.links.latency, self.reading, self._handle)
        self.transfers = Transfers(self.engine, self.wires, self._commits, self.reading, self._handle)
        self._encoder = self.wires.encoder
        self._last_command = 0
        for _ in range(hosts):
            host = self.add_host()
            if running:
                self.start(host)

    # --- hosts ----------------------------------------------------------------------------------------------

    def add_host(
        self, where: Address | None = None, access: Access | None = None, settings: Settings | None = None
    ) -> Host:
        """Return a new host, on which nothing runs yet."""
        number = len(self.hosts)
        host = Host(
            number,
            access or Access(),
            key=host_key(self.engine.seed, number),
            address=where or address(number),
            settings=settings or self.settings,
        )
        self.hosts.append(host)
        self.wires.hosts[host.address.ip, host.address.port] = host
        if host.access.stall:
            self.engine.call_later(self.rng.expovariate(1 / host.access.stall_every), self._stall, host)
        return host

    def start(self, host: Host, program: Program | None = None) -> None:
        """Start ``program`` on ``host``, or a service, from what is on its disk."""
        assert host.program is None, "something runs there already"
        host.dark = False
        rng = random.Random(self.rng.getrandbits(64))
        host.program = program or make_service(host, self.reading(host), rng)
        for repository in host.disk.held():
            self.providers.provide(host, repository)
        if program is None:
            self.engine.call_later(RENEW_EVERY, self._renew, host, host.program)
        self._handle(host, Woke())

    def _renew(self, host: Host, program: Program) -> None:
        """Have a service say a new PeerRecord before the old one is too old, as ``guts.node.presence`` does."""
        if host.program is program:
            self._handle(host, AddressesChanged(make_record(host, self.reading(host))))
            self.engine.call_later(RENEW_EVERY, self._renew, host, program)

    def stop(self, host: Host, *, dark: bool = False) -> None:
        """Kill what runs on ``host``; what is on its disk stays.

        Args:
            dark: the machine goes with it: nobody is told, and nothing is answered any more.
        """
        host.program, host.dark = None, dark
        host.alarm += 1
        host.wake = math.inf
        host.readings.clear()
        for connection in list(host.links):
            self.transfers.lost(host, connection)
        self.wires.abandon(host)
        for repository in host.disk.copies:
            self.providers.withdraw(host, repository)

    def _stall(self, host: Host) -> None:
        host.stalled_until = self.engine.now + host.access.stall
        wait = host.access.stall + self.rng.expovariate(1 / host.access.stall_every)
        self.engine.call_later(wait, self._stall, host)

    def peer(self, number: int) -> PeerId:
        """Return the id of a host."""
        return self.hosts[number].key.peer_id

    def target(self, number: int) -> BootstrapAddress:
        """Return where a host is."""
        return self.hosts[number].target

    def reading(self, host: Host) -> Now:
        """Return what both clocks of ``host`` show."""
        return Now(self.engine.now, WALL + int(self.engine.now * 1000) + host.skew_ms)

    # --- what a test does -----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.engine.now

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass; return how much did until ``until`` was true, or ``seconds``."""
        return self.engine.run(seconds, until)

    def digest(self) -> str:
        """Return the hash of every act so far."""
        return self.engine.digest()

    def observe(self, *observers: Observer) -> None:
        """Let ``observers`` see what happens from now on."""
        self.wires.observers.extend(observers)

    def command(self, number: int, command: Command) -> CommandId:
        """Give a command; ``hosts[number].replies`` has the answer some time later."""
        self._last_command += 1
        command_id = CommandId(self._last_command)
        self._handle(self.hosts[number], CommandReceived(command_id, command))
        return command_id

    def act(self, number: int, *acts: Act) -> None:
        """Have a host do something beside what its program decides: for hostile ones, which a test leads by hand."""
        host = self.hosts[number]
        self.engine.record(f"{self.now!r} {number} ".encode())
        for act in acts:
            self._perform(host, act)

    def connect(self, one: int, other: int) -> None:
        """Have ``one`` dial ``other``."""
        self.command(one, Connect(self.target(other), 10.0))

    def connect_randomly(self, degree: float = 8.0, hosts: Sequence[int] | None = None) -> None:
        """Have pairs of hosts, drawn at random, connect: a ring through all, and as many others as make the degree.

        Args:
            degree: mean number of connections of a host, at least 2.
            hosts: all of them, unless told.
        """
        numbers = list(range(len(self.hosts)) if hosts is None else hosts)
        self.rng.shuffle(numbers)
        pairs = {frozenset((one, other)) for one, other in zip(numbers, [*numbers[1:], numbers[0]], strict=True)}
        wanted = min(round(len(numbers) * degree / 2), len(numbers) * (len(numbers) - 1) // 2)
        while len(pairs) < wanted:
            pairs.add(frozenset(self.rng.sample(numbers, 2)))
        for one, other in sorted(tuple(sorted(pair)) for pair in pairs if len(pair) == 2):
            self.connect(*((one, other) if self.rng.random() < 0.5 else (other, one)))

    def disconnect(self, one: int, other: int) -> None:
        """Break every connection between two hosts."""
        hosts = {self.hosts[one], self.hosts[other]}
        for link in [link for link in self.wires.links.values() if set(link.hosts) == hosts]:
            self.wires.reset(link)

    def partition(self, parts: Iterable[Sequence[int]]) -> None:
        """Cut the net: each of ``parts`` for itself, and all that are in none of them together."""
        for host in self.hosts:
            host.part = 0
        for number, part in enumerate(parts, 1):
            for member in part:
                self.hosts[member].part = number

    def heal(self) -> None:
        """Make the net one again."""
        self.partition(())
        self.wires.healed()

    # --- repositories ---------------------------------------------------------------------------------------

    def project(self, maintainers: int = 1) -> Project:
        """Return a new repository, which nobody holds yet."""
        project = Project(len(self.projects), maintainers, WALL)
        self.projects[project.id] = project
        return project

    def _commits(self, repository: RepositoryId) -> Commits:
        return self.projects[repository].commits

    def place(self, project: Project, numbers: Iterable[int]) -> SignedRefs:
        """Sign a first record, and put it on the disks of hosts on which nothing runs yet."""
        record = project.push(None, project.maintainers[0], WALL)
        encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
        verified = verify(project.id, None, project.chain.documents, (), (encoded,), WALL)
        assert verified is not None, "what an honest maintainer signs is accepted"
        for number in numbers:
            assert self.hosts[number].program is None, "something runs there already"
            self.transfers.commit(self.hosts[number], verified, project.commits.closure(record.tips()))
        return record

    def publish(self, number: int, project: Project, author: int = 0, ref: str | None = None) -> SignedRefs:
        """Let a maintainer at a host add a commit to ``ref`` (the main branch), sign and commit."""
        host = self.hosts[number]
        copy = host.disk.copies.get(project.id)
        replica = copy.replica if copy is not None else None
        now = self.reading(host).wall
        record = project.push(replica, project.maintainers[author], now, *(() if ref is None else (ref,)))
        encoded = EncodedRefs(record.header_bytes, record.entries_bytes)
        held = replica.held() if replica is not None else None
        documents = () if replica is not None else project.chain.documents
        verified = verify(project.id, held, documents, (), (encoded,), now)
        assert verified is not None, "what an honest maintainer signs is accepted"
        accepted = self.transfers.commit(host, verified, project.commits.closure(record.tips()))
        self._handle(host, Published(project.id, accepted))
        return record

    def versions(self, project: Project) -> list[int]:
        """Return the number of the newest record that each host has on disk; 0 for none."""
        copies = (host.disk.copies.get(project.id) for host in self.hosts)
        return [0 if copy is None else project.version(copy.replica) for copy in copies]

    # --- the edge -------------------------------------------------------------------------------------------

    def _handle(self, host: Host, event: Event) -> None:
        program = host.program
        if program is None:
            return
        if isinstance(event, Disconnected):
            self.transfers.lost(host, event.connection)
        engine = self.engine
        acts = program.handle(event, Now(engine.now, WALL + int(engine.now * 1000) + host.skew_ms))
        if acts:
            engine.record(f"{engine.now!r} {host.number} ".encode())
            for act in acts:
                self._perform(host, act)
        wake = program.deadline(engine.now)
        if wake < host.wake:
            self._arm(host, wake)

    def _arm(self, host: Host, wake: float) -> None:
        host.wake = max(wake, self.engine.now + MIN_WAIT)
        host.alarm += 1
        self.engine.call_at(host.wake, self._alarm, host, host.alarm)

    def _alarm(self, host: Host, alarm: int) -> None:
        if alarm != host.alarm or host.program is None:
            return
        host.wake = math.inf
        wake = host.program.deadline(self.engine.now)
        if wake <= self.engine.now:
            self._handle(host, Woke())
        elif wake < math.inf:
            # Something else came first.
            self._arm(host, wake)

    def _perform(self, host: Host, act: Act) -> None:
        if isinstance(act, Send):
            self.engine.record(self._encoder.encoded(act.message))
            self.wires.send(host, act.connection, act.message)
            return
        self.engine.record(_written(act))
        match act:
            case Dial(target=target):
                self.wires.dial(host, target)
            case Disconnect(connection=connection, goodbye=goodbye):
                self.wires.close(host, connection, goodbye)
            case Withhold(connection=connection, seconds=seconds):
                self.wires.withhold(host, connection, seconds)
            case FindProviders(repository=repository):
                self.providers.find(host, repository)
            case Provide(repository=repository):
                self.providers.provide(host, repository)
            case Withdraw(repository=repository):
                self.providers.withdraw(host, repository)
            case LoadRefs():
                self.engine.call_later(LOAD_SECONDS, self._load, host, host.program, act)
            case Fetch():
                self.transfers.fetch(host, act)
            case Hurry(fetch=fetch, seconds=seconds):
                self.transfers.hurry(host, fetch, seconds)
            case Look():
                self.transfers.look(host, act)
            case Serve():
                self.transfers.serve(host, act)
            case ServeGit():
                # No host asks for it: the remote helper does, and it is not simulated.
                self.engine.call_later(LOAD_SECONDS, self._handle, host, GitServed(act.connection, None))
            case ResetStream(connection=connection, stream=stream):
                self.transfers.reset_stream(host, connection, stream)
            case GiveReceipt(repository=repository, author=author, head=head):
                wall = self.reading(host).wall
                receipt = CommitReceipt.sign(host.key, repository, author, head.seq, head.hash, wall)
                self.wires.send(host, act.connection, Receipt(act.request, receipt.encoded))
            case Persist(change=change):
                host.disk.keep(change)
            case Reply():
                host.replies[act.command_id] = act
            case SendBytes(connection=connection, data=data):
                self.wires.send_bytes(host, connection, data)
            case AskObjects(connection=connection, request=request):
                self.wires.send(host, connection, request)
                if act.wants is not None:
                    self.transfers.send_ids(host, connection, request.stream, act.wants, act.haves)
            case SendPack(connection=connection, stream=stream):
                if connection in host.links:
                    self.transfers.send_pack(host, connection, stream, act.commits, act.size)
            case _:
                assert_never(act)

    def _load(self, host: Host, program: object, effect: LoadRefs) -> None:
        if host.program is program:
            answers = tuple(host.disk.answer(query) for query in effect.queries)
            self._handle(host, RefsLoaded(effect.connection, effect.request, answers, b""))


def _written(act: Act) -> bytes:
    """Return the bytes of ``act`` for the digest; long ones by what tells them apart."""
    match act:
        case Fetch() | Look():
            heads = b" ".join(record.header for record in act.candidate.records)
            return b"%d %d %s %s" % (act.fetch, act.connection, act.repository, heads)
        case Persist():
            return type(act.change).__name__.encode()
        case _:
            return repr(act).encode()
