"""``Host``: one node: its program, its disk, its end of every connection; and how a ``Service`` is put together."""

import math
import random
from dataclasses import dataclass, field

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import Reply
from guts.events import CommandId, ConnectionId
from guts.gossip.protocol import GossipProtocol
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.peers.greeting import Self
from guts.peers.manager import Limits, PeerManager
from guts.peers.score import Scores
from guts.records import PeerRecord
from guts.service.service import Service
from guts.sync.reposync import RepoSync
from tests.support.simulator.disk import Disk
from tests.support.simulator.links import End, Link
from tests.support.simulator.program import Program
from tests.support.simulator.replica import Replica

LIFE_MS = 24 * 3_600_000
CAPABILITIES = ("seed",)


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's choices, the same for all unless a host is given others. Times are seconds."""

    ask_interval: float = 60.0
    keepalive: float = 30.0
    max_connections: int = 50
    doors: tuple[BootstrapAddress, ...] = ()


@dataclass(slots=True, eq=False)
class Host(End):
    """One node.

    Attributes:
        program: what runs there; ``None``: nothing does.
        dark: nothing that comes is answered, not even refused; a host that is only stopped refuses.
        skew_ms: by how much its wall clock is ahead.
        readings: what was read of repositories that it does not hold.
        replies: to the commands it was given.
        wake: when it is woken at the latest; ``alarm`` tells the one that counts from those before.
    """

    key: SigningKey = field(kw_only=True)
    address: Address = field(kw_only=True)
    settings: Settings = field(default_factory=Settings)
    program: Program | None = None
    dark: bool = False
    skew_ms: int = 0
    disk: Disk = field(default_factory=Disk)
    readings: dict[RepositoryId, Replica] = field(default_factory=dict)
    replies: dict[CommandId, Reply] = field(default_factory=dict)
    links: dict[ConnectionId, tuple["Link[Host]", int]] = field(default_factory=dict)
    wake: float = math.inf
    alarm: int = 0

    @property
    def service(self) -> Service:
        """The program of an honest host."""
        assert isinstance(self.program, Service)
        return self.program

    @property
    def target(self) -> BootstrapAddress:
        """Where it can be dialled."""
        return BootstrapAddress(self.address.ip, self.address.port, self.key.peer_id)


def make_record(host: Host, now: Now) -> bytes:
    """Return the PeerRecord that ``host`` signs now."""
    return PeerRecord.sign(host.key, (host.address,), CAPABILITIES, now.wall, now.wall + LIFE_MS).encoded


def make_service(host: Host, now: Now, rng: random.Random) -> Service:
    """Return the service of ``host`` as ``guts.node.node`` makes it at a start: from what is on the disk."""
    settings, disk = host.settings, host.disk
    peers = PeerManager(
        Self(host.key.peer_id, "guts/sim", CAPABILITIES, rng.randbytes(8)),
        make_record(host, now),
        Limits(settings.max_connections, settings.keepalive),
        Scores(disk.faults.values(), now, int(now.mono * 1000), frozenset(), disk.bans.values()),
        list(disk.peers.values()),
        settings.doors,
        rng,
        (host.address.ip,),
    )
    sync = RepoSync(
        disk.held(),
        lambda wanted: [state.id for state in peers.peers_with_repository(wanted)],
        rng,
        now.mono,
        settings.ask_interval,
        peers.preference,
    )
    return Service(peers, GossipProtocol(rng), sync)
