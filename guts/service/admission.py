"""What a peer may say, and when: the checks before anything acts on a message, cheap to dear.

1. size and form: the codec's, and a fault;
2. the state of the connection, and a fault: before the hello only Hello (to the side that was dialled) and HelloAck (to
   the dialler) may come, after it everything else; Goodbye may always come;
3. the rates of the peer (``guts.peers.rates``): what is above them is handled, and then the peer waits;
4. whether this node holds what is asked for: answered "not held";
5. requests under way, per peer, per network and in all: answered "busy", which is no fault, since who asks can't know
   what others ask for, and learns of the answer later than it is given;
6. dear work: the store, git, signatures. What is signed has a type of its own once it is verified (``PeerRecord``,
   ``CommitReceipt``); workers verify the rest before the service sees it.

A message that has passed the first three is an ``Admitted``. Handlers in this package take nothing else, and nobody
else makes one, so what has not passed does not get there: the type checker says so.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Generic, TypeVar, final

from guts.addresses import Address
from guts.effects import Effect, Withhold
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId, MessageReceived, UnknownMessageReceived
from guts.limits import Limits
from guts.peers.networks import public_prefix
from guts.peers.rates import MessageClass, Rates, class_of
from guts.peers.state import PeerConnection
from guts.wire.messages import Goodbye, Hello, HelloAck, Message, Ping, Pong

BUSY_RETRY_AFTER: Final = 5
"""Seconds that a peer is asked to wait when this node is busy."""

M_co = TypeVar("M_co", covariant=True)
N = TypeVar("N")


class OutOfState(PeerFault):
    """A message that the state of its connection does not allow."""

    code: ClassVar[str] = "OUT_OF_STATE"
    severity: ClassVar[Severity] = Severity.FATAL


@final
class Admitted(Generic[M_co]):
    """A message that may be acted on; only this module makes one.

    Attributes:
        message: from the peer at the other end of the connection that comes with it.
    """

    __slots__ = ("message",)

    def __init__(self, message: M_co) -> None:
        self.message: M_co = message

    def of(self, message: N) -> "Admitted[N]":
        """Return the same with the type that ``message``, which is the one in here, was found to have."""
        inside: object = self.message
        assert message is inside
        return Admitted(message)

    def opened(self, open_envelope: Callable[[M_co], N]) -> "Admitted[N]":
        """Return the message inside of this one."""
        return Admitted(open_envelope(self.message))


class Admission:
    """Who may be served what now: the rates, and the requests being worked on.

    Args:
        limits: how much.
        rates: how fast.
    """

    def __init__(self, limits: Limits, rates: Rates) -> None:
        self._limits = limits
        self._rates = rates
        self._loads: dict[ConnectionId, int] = {}
        self._serves: dict[ConnectionId, int] = {}
        self._serves_in: Counter[str] = Counter()
        self._git: list[tuple[ConnectionId, str]] = []

    def change(self, values: Mapping[str, float]) -> None:
        """Go by other limits from now on."""
        self._limits.values = dict(values)
        self._rates.changed()

    # --- messages -------------------------------------------------------------------------------------------

    def admit(
        self, connection: PeerConnection, event: MessageReceived, now: float
    ) -> tuple[Admitted[Message], list[Effect]]:
        """Return the message, and what makes its sender wait where it has said too much.

        Raises: ``OutOfState``: it may not come in the state that ``connection`` is in.
        """
        message = event.message
        if not isinstance(message, Goodbye) and isinstance(message, Hello | HelloAck) == connection.ready:
            raise OutOfState(f"{type(message).__name__} {'after' if connection.ready else 'before'} the hello")
        outside_credit = isinstance(message, Ping | Pong | Goodbye)
        return Admitted(message), self._spend(connection, class_of(message), event.size, now, pause=outside_credit)

    def admit_unknown(self, connection: PeerConnection, event: UnknownMessageReceived, now: float) -> list[Effect]:
        """Return what makes the sender of a message of a later version wait where it has said too much.

        Raises: ``OutOfState``: it came before the hello.
        """
        if not connection.ready:
            raise OutOfState(f"a message of type {event.message_type} before the hello")
        return self._spend(connection, MessageClass.CONTROL, event.size, now, pause=False)

    def _spend(
        self, connection: PeerConnection, kind: MessageClass, size: int, now: float, *, pause: bool
    ) -> list[Effect]:
        seconds = self._rates.spend(connection.peer, connection.address.ip, kind, size, now)
        return [Withhold(connection.id, seconds, pause)] if seconds else []

    # --- requests under way ---------------------------------------------------------------------------------

    def begin_load(self, connection: ConnectionId) -> bool:
        """Count a GetRefs in; ``False`` where the peer has too many requests under way."""
        return self._has_room(connection) and _begin(self._loads, connection)

    def end_load(self, connection: ConnectionId) -> None:
        """Count a GetRefs out."""
        _end(self._loads, connection)

    def begin_serve(self, connection: ConnectionId, network: str) -> bool:
        """Count a GetObjects in; ``False`` where the peer, its network or everybody has too many under way.

        The last free place is for a peer that has none: two identities with all they may have don't fill all.

        Args:
            network: of the internet, that the peer is in; "": it is nearby, where many share a range.
        """
        room = (
            self._has_room(connection)
            and self._below("serves_per_peer", self._serves.get(connection, 0))
            and (not network or self._below("serves_per_network", self._serves_in[network]))
            and self._below("serves", sum(self._serves.values()) + (connection in self._serves))
            and _begin(self._serves, connection)
        )
        if room and network:
            self._serves_in[network] += 1
        return room

    def would_serve(self, connection: ConnectionId, network: str, freed: str) -> bool:
        """Tell whether ``begin_serve`` had room if a place given for the network ``freed``, of another, were free."""
        highest = self._limits.values
        neighbours = self._serves_in[network] - (network == freed)
        under_way = sum(self._serves.values()) - 1 + (connection in self._serves)
        return (
            self._under_way(connection) < highest["requests_per_peer"]
            and self._serves.get(connection, 0) < highest["serves_per_peer"]
            and (not network or neighbours < highest["serves_per_network"])
            and under_way < highest["serves"]
        )

    def end_serve(self, connection: ConnectionId, network: str) -> None:
        """Count a GetObjects out, which ``begin_serve`` has counted in."""
        _end(self._serves, connection)
        if network:
            self._serves_in[network] -= 1
            self._serves_in += Counter()

    def begin_git(self, connection: ConnectionId, address: Address) -> bool:
        """Count a GitService in; ``False`` where the peer, its network or everybody has too many under way."""
        network = public_prefix(address.ip)
        neighbours = sum(network == other for _, other in self._git) if network else 0
        room = (
            self._has_room(connection)
            and self._below("git_per_peer", sum(under_way == connection for under_way, _ in self._git))
            and (not network or self._below("git_per_network", neighbours))
            and self._below("git", len(self._git))
        )
        if room:
            self._git.append((connection, network))
        return room

    def end_git(self, connection: ConnectionId) -> None:
        """Count a GitService out."""
        self._git.remove(next(place for place in self._git if place[0] == connection))

    def used(self, now: float) -> dict[str, float]:
        """Return how much of each limit is used now; of those per peer, by the peer that uses most."""
        git = [connection for connection, _ in self._git]
        networks = [network for _, network in self._git if network]
        connections = {*self._loads, *self._serves, *git}
        return {
            **self._rates.used(now),
            "requests_per_peer": max((self._under_way(each) for each in connections), default=0),
            "serves": sum(self._serves.values()),
            "serves_per_peer": max(self._serves.values(), default=0),
            "serves_per_network": max(self._serves_in.values(), default=0),
            "git": len(git),
            "git_per_peer": max((git.count(each) for each in git), default=0),
            "git_per_network": max((networks.count(each) for each in networks), default=0),
        }

    def _under_way(self, connection: ConnectionId) -> int:
        git = sum(under_way == connection for under_way, _ in self._git)
        return self._loads.get(connection, 0) + self._serves.get(connection, 0) + git

    def _has_room(self, connection: ConnectionId) -> bool:
        return self._below("requests_per_peer", self._under_way(connection))

    def _below(self, name: str, count: int) -> bool:
        """Tell whether one more than ``count`` is within a limit."""
        if count >= self._limits.values[name]:
            self._limits.bit(name)
            return False
        self._limits.used(name, count + 1)
        return True


def _begin(counts: dict[ConnectionId, int], connection: ConnectionId) -> bool:
    counts[connection] = counts.get(connection, 0) + 1
    return True


def _end(counts: dict[ConnectionId, int], connection: ConnectionId) -> None:
    counts[connection] -= 1
    if not counts[connection]:
        del counts[connection]
