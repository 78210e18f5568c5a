"""What is known of one peer, and of one connection."""

from dataclasses import dataclass, field
from typing import ClassVar, Final

from guts.addresses import Address, BootstrapAddress
from guts.errors import Unavailable
from guts.events import ConnectionId
from guts.ids import PeerId, RepositoryId
from guts.peers.backoff import Backoff
from guts.peers.penalties import Stay
from guts.peers.usefulness import Usefulness
from guts.wire.messages import Goodbye, GoodbyeCode
from guts.wire.secure import Direction

MAX_REPOSITORIES_PER_PEER: Final = 20_000
"""Repositories that one peer may subscribe to or be known to hold: 32 bytes each, 640 kB at the most. What is above
is not noted: such a peer hears later, and is asked less often."""


_WHY: Final = {
    GoodbyeCode.SHUTTING_DOWN: "is shutting down",
    GoodbyeCode.NO_COMMON_VERSION: "speaks no version of the protocol that the other side speaks",
    GoodbyeCode.FULL: "has no free connection",
    GoodbyeCode.BANNED: "has banned the other side",
    GoodbyeCode.DUPLICATE: "keeps another connection between the two",
    GoodbyeCode.PROTOCOL_FAULT: "saw a fault of the protocol",
    GoodbyeCode.IDLE: "heard nothing for too long",
}


_TELLS_WHEN: Final = frozenset({GoodbyeCode.BANNED, GoodbyeCode.PROTOCOL_FAULT})
BANNED_HINT: Final = "ask who runs it, or name another node that you know: guts://HOST:PORT/REPOSITORY"
OWN_BAN_HINT: Final = "guts peer bans lists whom this node bans, guts peer unban lets in again"


class SaidGoodbye(Unavailable):
    """A connection was closed on purpose, by the peer or by this node. The peer's own text is not shown.

    Attributes:
        goodbye: why.
        retry_after_s: seconds that the other side is to stay away for at the least; 0: nothing was said of that.
        by_this_node: who said it.
    """

    code: ClassVar[str] = "SAID_GOODBYE"

    def __init__(self, goodbye: Goodbye, *, by_this_node: bool) -> None:
        text = f"{'this node' if by_this_node else 'the node'} {_WHY[goodbye.code]}"
        hint = None
        if goodbye.code is GoodbyeCode.BANNED:
            text = "this node bans the other one" if by_this_node else "the node has banned this one"
            hint = OWN_BAN_HINT if by_this_node else BANNED_HINT
        if goodbye.retry_after_s and goodbye.code in _TELLS_WHEN and not by_this_node:
            text += f"; it may be asked again in {_span(goodbye.retry_after_s)}"
        super().__init__(text, hint=hint)
        self.goodbye = goodbye.code
        self.retry_after_s = goodbye.retry_after_s
        self.by_this_node = by_this_node


def _span(seconds: int) -> str:
    """Return ``seconds``, or a little more, in the unit in which people say it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{-(-seconds // length)} {unit}"
    return f"{seconds} s"


@dataclass(slots=True)
class PeerConnection:
    """One authenticated connection.

    Attributes:
        dialled: the target, where we dialled it.
        opened_at, last_heard: monotonic seconds.
        ready: Hello and HelloAck are exchanged, and it is the one connection to this peer.
        was_ready: it has been ready once.
        extra: dialled for what the peer holds, beyond the connections that this node wants of its own accord.
        feeler: dialled only to see whether the address works.
        closing: we have told the driver to close it; what still comes over it is not looked at.
        farewell: why it was closed on purpose, and by whom.
        start_nonce: of the peer's process; another one later means that it restarted.
        clock_at_zero: what the peer's clock showed, by its hello, when our monotonic clock was at 0; Unix ms.
        pinged_at: monotonic seconds, of the last Ping; of the opening, where there was none.
        ping_after: seconds that it may be silent, drawn anew for each Ping.
        ping: nonce and send time of the Ping that has not been answered yet.
        rtt: seconds, of the last answered Ping.
    """

    id: ConnectionId
    direction: Direction
    peer: PeerId
    address: Address
    dialled: BootstrapAddress | None
    opened_at: float
    last_heard: float
    ready: bool = False
    was_ready: bool = False
    extra: bool = False
    feeler: bool = False
    closing: bool = False
    farewell: SaidGoodbye | None = None
    start_nonce: bytes = b""
    clock_at_zero: int = 0
    software: str = ""
    pinged_at: float = 0.0
    ping_after: float = 0.0
    ping: tuple[int, float] | None = None
    rtt: float | None = None


@dataclass(slots=True)
class PeerState:
    """One peer.

    Attributes:
        addresses: where it can be dialled, the best first: those we reached it at, then those it claims.
        connection: the ready connection, if there is one; it may be closing.
        last_seen: Unix ms; 0 = never.
        reached: we have dialled it with success, at whatever time.
        good: where that was, the last time.
        misses: dials that failed since, or ever.
        met: its place in the order in which the book met peers.
        stay: where it has been connected for long.
        record, record_seq, record_expires: its newest signed PeerRecord, verified; empty, -1 and 0 where there is
            none, and -1 and 0 where it is what the database kept.
        source: the network of who told of it, where that was not the peer itself by being dialled; "": the DHT.
        repositories: what it is known to hold: it answered for them, or a record signed by it says so.
        subscriptions: whose news it wants.
    """

    id: PeerId
    addresses: tuple[Address, ...] = ()
    connection: PeerConnection | None = None
    last_seen: int = 0
    reached: bool = False
    good: Address | None = None
    misses: int = 0
    met: int = 0
    stay: Stay | None = None
    record: bytes = b""
    record_seq: int = -1
    record_expires: int = 0
    source: str = ""
    repositories: set[RepositoryId] = field(default_factory=set)
    subscriptions: set[RepositoryId] = field(default_factory=set)
    capabilities: tuple[str, ...] = ()
    backoff: Backoff = field(default_factory=Backoff)
    usefulness: Usefulness = field(default_factory=Usefulness)

    def holds(self, repository: RepositoryId) -> None:
        """Note that the peer holds ``repository``; past the bound nothing more is noted."""
        if len(self.repositories) < MAX_REPOSITORIES_PER_PEER:
            self.repositories.add(repository)
