"""``Wires``: connections between hosts: dials, messages, goodbyes, resets, partitions."""

import math
from collections.abc import Callable
from typing import Any, Final

from guts.addresses import Address, BootstrapAddress
from guts.errors import GutsError, PeerFault
from guts.events import (
    Connected,
    ConnectionId,
    DialFailed,
    Disconnected,
    Event,
    MessageReceived,
    UnknownMessageReceived,
)
from guts.net.dial import DialRefused, DialTimedOut
from guts.net.tcp import ConnectionLost
from guts.wire import codec
from guts.wire.codec import UnknownMessage
from guts.wire.messages import Goodbye, Message, Ping, Pong
from guts.wire.secure import Direction, MetSelf, UnexpectedPeer
from tests.support.simulator.encoded import Encoder
from tests.support.simulator.engine import Engine, Work
from tests.support.simulator.host import Host
from tests.support.simulator.links import Link, LinkProfile
from tests.support.simulator.observer import Observer

CONNECTION_TIMEOUT: Final = 10.0
"""Seconds until a dial that nobody answers is given up; the default of the config."""

EPHEMERAL_PORT: Final = 40_000

BESIDE_CREDIT: Final = (Ping, Pong, Goodbye)
"""Messages that pass where others are withheld."""


class Wires:
    """Every connection of the world.

    Args:
        handle: gives an event to the program of a host.

    Attributes:
        hosts: by address.
        links: those of which an end is open, in the order in which they were made.
    """

    def __init__(
        self, engine: Engine, profile: LinkProfile, encoder: Encoder, handle: Callable[[Host, Event], None]
    ) -> None:
        self.profile = profile
        self.hosts: dict[tuple[str, int], Host] = {}
        self.links: dict[ConnectionId, Link[Host]] = {}
        self.observers: list[Observer] = []
        self.lose: Callable[[int, int, Message], bool] | None = None
        self._engine = engine
        self.encoder = encoder
        self._handle = handle
        self._last = 0

    # --- dials ----------------------------------------------------------------------------------------------

    def dial(self, host: Host, target: BootstrapAddress) -> None:
        """Have ``host`` dial ``target``; it hears of the end."""
        other = self.hosts.get((target.host, target.port))
        if other is None or other.dark or other.part != host.part:
            self._fail(host, target, CONNECTION_TIMEOUT, DialTimedOut("no answer"))
            return
        latency = self.profile.latency_between(self._engine.seed, host.number, other.number)
        if other.program is None:
            self._fail(host, target, 2 * latency, DialRefused("nobody listens there"))
        elif other is host:
            self._fail(host, target, 4 * latency, MetSelf("it is this node"))
        elif target.peer is not None and target.peer != other.key.peer_id:
            self._fail(host, target, 4 * latency, UnexpectedPeer(target.peer, other.key.peer_id))
        else:
            self._last += 2
            ids = (ConnectionId(self._last - 1), ConnectionId(self._last))
            link = Link((host, other), ids, latency)
            arrives = self._engine.now
            # SYN and its answer, the first two messages of the handshake.
            for side in (0, 1, 0, 1):
                arrives = link.transit(self._engine.rng, self.profile, side, 100, arrives, 0)
                if arrives > self._engine.now + CONNECTION_TIMEOUT:
                    self._fail(host, target, CONNECTION_TIMEOUT, DialTimedOut("no answer"))
                    return
            self._engine.call_at(arrives, self._open, link, target, host.program, other.program)

    def _fail(self, host: Host, target: BootstrapAddress, seconds: float, error: GutsError) -> None:
        self._engine.call_later(seconds, self._failed, host, host.program, DialFailed(target, error))

    def _failed(self, host: Host, program: object, event: DialFailed) -> None:
        if host.program is program:
            self._handle(host, event)

    def _open(self, link: Link[Host], target: BootstrapAddress, dialler: object, listener: object) -> None:
        host, other = link.hosts
        if host.program is not dialler:
            return
        if other.program is not listener or other.part != host.part:
            self._handle(host, DialFailed(target, ConnectionLost("the connection broke")))
            return
        self.links[link.ids[0]] = link
        host.links[link.ids[0]] = (link, 0)
        self.ship(link, 0, 100, 0, self._accept, link, listener)
        event = Connected(link.ids[0], Direction.OUTBOUND, other.key.peer_id, other.address, target)
        self._handle(host, event)

    def _accept(self, link: Link[Host], listener: object) -> None:
        host, other = link.hosts
        if other.program is not listener:
            self._unreachable(link, 1)
            return
        other.links[link.ids[1]] = (link, 1)
        port = EPHEMERAL_PORT + link.ids[0] % 20_000
        self._handle(
            other, Connected(link.ids[1], Direction.INBOUND, host.key.peer_id, Address(host.address.ip, port), None)
        )

    # --- what is sent ---------------------------------------------------------------------------------------

    def ship(self, link: Link[Host], side: int, size: int, lane: int, work: Work, *arguments: Any) -> float:
        """Have ``work`` done when ``size`` bytes that ``side`` sends now are there.

        Returns:
            When that is; infinity: nobody knows.
        """
        if link.stuck[side] or link.hosts[0].part != link.hosts[1].part:
            if not link.stuck[side]:
                link.stuck_since[side] = self._engine.now
            link.stuck[side].append((size, lane, work, arguments))
            return math.inf
        arrives = link.transit(self._engine.rng, self.profile, side, size, self._engine.now, lane)
        if arrives == math.inf:
            self.reset(link)
        else:
            self._engine.call_at(arrives, work, *arguments)
        return arrives

    def send(self, host: Host, connection: ConnectionId, message: Message) -> None:
        """Send a message, if the connection is still there."""
        found = host.links.get(connection)
        if found is None:
            return
        link, side = found
        size = len(self.encoder.encoded(message))
        other = link.hosts[1 - side].number
        for observer in self.observers:
            observer.sent(self._engine.now, host.number, other, message, size)
        if self.lose is None or not self.lose(host.number, other, message):
            self.ship(link, side, size, 0, self._deliver, link, 1 - side, message)

    def _deliver(self, link: Link[Host], side: int, message: Message) -> None:
        host, connection = link.hosts[side], link.ids[side]
        if connection not in host.links:
            self._unreachable(link, side)
            return
        if link.withheld[side] and not isinstance(message, BESIDE_CREDIT):
            link.withheld[side].append(message)
            return
        self._hand_over(link, side, message)

    def _hand_over(self, link: Link[Host], side: int, message: Message) -> None:
        host, connection = link.hosts[side], link.ids[side]
        for observer in self.observers:
            observer.delivered(self._engine.now, link.hosts[1 - side].number, host.number, message)
        self._handle(host, MessageReceived(connection, message, len(self.encoder.encoded(message))))

    def withhold(self, host: Host, connection: ConnectionId, seconds: float) -> None:
        """Hand no further message of ``connection`` to ``host`` for so long, but those that pass outside credit."""
        if (found := host.links.get(connection)) is not None:
            link, side = found
            if not link.withheld[side]:
                link.withheld[side].append(None)
            self._engine.call_later(seconds, self._release, link, side)

    def _release(self, link: Link[Host], side: int) -> None:
        """Hand over what has waited, up to a message for which the host withholds again."""
        waiting, link.withheld[side] = link.withheld[side][1:], []
        while waiting and link.ids[side] in link.hosts[side].links:
            self._hand_over(link, side, waiting.pop(0))
            if link.withheld[side]:
                link.withheld[side] += waiting
                return

    def send_bytes(self, host: Host, connection: ConnectionId, data: bytes) -> None:
        """Send ``data`` in the place of a message."""
        if (found := host.links.get(connection)) is not None:
            link, side = found
            self.ship(link, side, len(data), 0, self._deliver_bytes, link, 1 - side, data)

    def _deliver_bytes(self, link: Link[Host], side: int, data: bytes) -> None:
        host, connection = link.hosts[side], link.ids[side]
        if connection not in host.links:
            return
        try:
            message = codec.decode(data)
        except UnknownMessage as error:
            self._handle(host, UnknownMessageReceived(connection, error.type))
        except PeerFault as error:
            # As the real connection does: it ends, and the end says why.
            self.ship(link, side, 0, 0, self.gone, link, 1 - side, ConnectionLost("the connection broke"))
            self.gone(link, side, error)
        else:
            self._deliver(link, side, message)

    # --- ends -----------------------------------------------------------------------------------------------

    def close(self, host: Host, connection: ConnectionId, goodbye: Goodbye | None) -> None:
        """Close a connection: it is gone here at once, and at the other end after what is under way."""
        if goodbye is not None:
            self.send(host, connection, goodbye)
        if (found := host.links.get(connection)) is not None:
            link, side = found
            self._engine.call_later(0.0, self.gone, link, side, None)
            self.ship(link, side, 0, 0, self.gone, link, 1 - side, ConnectionLost("the peer closed the connection"))

    def reset(self, link: Link[Host]) -> None:
        """Break a connection, at both ends."""
        for side in (0, 1):
            self._engine.call_later(0.0, self.gone, link, side, ConnectionLost("the connection broke"))

    def gone(self, link: Link[Host], side: int, error: GutsError | None) -> None:
        """Let the host at ``side`` know that the connection is gone, if it does not yet."""
        host, connection = link.hosts[side], link.ids[side]
        if host.links.pop(connection, None) is None:
            return
        self._forget(link)
        self._handle(host, Disconnected(connection, error))

    def _forget(self, link: Link[Host]) -> None:
        if not any(connection in host.links for host, connection in zip(link.hosts, link.ids, strict=True)):
            self.links.pop(link.ids[0], None)

    def _unreachable(self, link: Link[Host], side: int) -> None:
        """Answer something for an end that is not there, as the kernel of that host does."""
        if not link.hosts[side].dark:
            self._engine.call_later(link.latency, self.gone, link, 1 - side, ConnectionLost("the connection broke"))

    def abandon(self, host: Host) -> None:
        """Take all connections from a host whose program has ended; the others hear of it unless the host is dark."""
        links, host.links = list(host.links.values()), {}
        for link, side in links:
            self._forget(link)
            if not host.dark:
                self.ship(link, side, 0, 0, self.gone, link, 1 - side, ConnectionLost("the peer closed the connection"))

    # --- partitions -----------------------------------------------------------------------------------------

    def healed(self) -> None:
        """Have what is stuck sent again, where both ends are in one part again."""
        for link in self.links.values():
            for side in (0, 1):
                if link.stuck[side]:
                    self._engine.call_at(link.retried_after(side, self._engine.now), self._retry, link, side)

    def _retry(self, link: Link[Host], side: int) -> None:
        if link.hosts[0].part == link.hosts[1].part:
            stuck, link.stuck[side] = link.stuck[side], []
            for size, lane, work, arguments in stuck:
                self.ship(link, side, size, lane, work, *arguments)
