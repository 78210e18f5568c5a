"""What a connection may say, and when: the checks before anything acts on a message, cheap to dear.

The state machine of a connection has two states. Before the hello only Hello (to the side that was dialled) and
HelloAck (to the dialler) may come; Goodbye may always come. After it, everything else may. Numbers under way are
bounded per peer and in all; what is above is answered "busy", which is no fault: requests cross on the wire.
"""

import ipaddress
from typing import ClassVar, Final

from guts.addresses import Address
from guts.errors import PeerFault, Severity
from guts.events import ConnectionId
from guts.peers.state import PeerConnection
from guts.wire.messages import Goodbye, Hello, HelloAck, Message

MAX_LOADS_PER_PEER: Final = 16
"""GetRefs of one peer being read from the store; an honest peer has two under way."""

MAX_SERVES_PER_PEER: Final = 2
MAX_SERVES: Final = 4
"""Packs being made at a time: each is a git child that fills a core."""

MAX_GIT_PER_PEER: Final = 2
MAX_GIT_PER_NETWORK: Final = 4
"""Of one /24 or /48 of the internet: whoever makes up a new key for each connection still has few addresses."""

MAX_GIT: Final = 8
"""Requests of git being answered at a time, each by a git child. They have places of their own, so that people who
clone don't keep other nodes from replicating, nor the reverse; most take milliseconds."""

BUSY_RETRY_AFTER: Final = 5
"""Seconds that a peer is asked to wait when this node is busy."""


class OutOfState(PeerFault):
    """A message that the state of its connection does not allow."""

    code: ClassVar[str] = "OUT_OF_STATE"
    severity: ClassVar[Severity] = Severity.FATAL


def admit(connection: PeerConnection, message: Message) -> None:
    """Raises: ``OutOfState``: ``message`` may not come in the state that ``connection`` is in."""
    if isinstance(message, Goodbye):
        return
    if isinstance(message, Hello | HelloAck) == connection.ready:
        raise OutOfState(f"{type(message).__name__} {'after' if connection.ready else 'before'} the hello")


def admit_unknown(connection: PeerConnection, message_type: int) -> None:
    """Raises: ``OutOfState``: not even a message of a later version may come before the hello."""
    if not connection.ready:
        raise OutOfState(f"a message of type {message_type} before the hello")


class Admission:
    """How many requests are being worked on, for whom."""

    def __init__(self) -> None:
        self._loads: dict[ConnectionId, int] = {}
        self._serves: dict[ConnectionId, int] = {}
        self._git: list[tuple[ConnectionId, str]] = []

    def begin_load(self, connection: ConnectionId) -> bool:
        """Count a GetRefs in; ``False`` where the peer has too many under way."""
        return _begin(self._loads, connection, MAX_LOADS_PER_PEER)

    def end_load(self, connection: ConnectionId) -> None:
        """Count a GetRefs out."""
        _end(self._loads, connection)

    def begin_serve(self, connection: ConnectionId) -> bool:
        """Count a GetObjects in; ``False`` where the peer or everybody has too many under way.

        The last free place is for a peer that has none: two identities with all they may have don't fill all.
        """
        places = MAX_SERVES - sum(self._serves.values()) - (connection in self._serves)
        return places > 0 and _begin(self._serves, connection, MAX_SERVES_PER_PEER)

    def end_serve(self, connection: ConnectionId) -> None:
        """Count a GetObjects out."""
        _end(self._serves, connection)

    def begin_git(self, connection: ConnectionId, address: Address) -> bool:
        """Count a GitService in; ``False`` where the peer, its network or everybody has too many under way."""
        network = network_of(address)
        peers = sum(under_way == connection for under_way, _ in self._git)
        neighbours = sum(network == other for _, other in self._git) if network else 0
        if len(self._git) >= MAX_GIT or peers >= MAX_GIT_PER_PEER or neighbours >= MAX_GIT_PER_NETWORK:
            return False
        self._git.append((connection, network))
        return True

    def end_git(self, connection: ConnectionId) -> None:
        """Count a GitService out."""
        self._git.remove(next(place for place in self._git if place[0] == connection))


def network_of(address: Address) -> str:
    """Return the /24 or /48 of a global address; of others "": in a LAN, or on one machine, many share a range."""
    ip = ipaddress.ip_address(address.ip)
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False)) if ip.is_global else ""


def _begin(counts: dict[ConnectionId, int], connection: ConnectionId, limit: int) -> bool:
    if counts.get(connection, 0) >= limit:
        return False
    counts[connection] = counts.get(connection, 0) + 1
    return True


def _end(counts: dict[ConnectionId, int], connection: ConnectionId) -> None:
    counts[connection] -= 1
    if not counts[connection]:
        del counts[connection]
