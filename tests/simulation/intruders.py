"""Hostile programs that dial one node, introduce themselves, and then do what their test wants."""

import math
from collections.abc import Callable, Sequence

from guts.addresses import Address
from guts.clock import Now
from guts.effects import Dial, Send
from guts.events import Connected, ConnectionId, DialFailed, Disconnected, Event, MessageReceived, Woke
from guts.ids import PeerId
from guts.records import PeerRecord
from guts.wire.messages import GetRefs, Goodbye, Hello, HelloAck, Message, Ping, Pong, Refs
from tests.support.simulator.host import LIFE_MS, Host
from tests.support.simulator.program import Act, SendBytes
from tests.support.simulator.world import World

Deed = Message | bytes
"""A message, or what comes in the place of one."""


class Intruder:
    """One hostile node.

    Attributes:
        heard: every message that came.
        served: bytes of the Refs among them.
        said: bytes that it has sent but for its hello.
        ended: how often a connection ended.
    """

    def __init__(self, world: World, host: Host, victim: int, *, hello: bool = True) -> None:
        self.world, self.host, self.victim, self._hello = world, host, victim, hello
        self.connection: ConnectionId | None = None
        self.heard: list[Message] = []
        self.served = self.said = self.ended = 0
        self.answer: Callable[[Message], Sequence[Deed]] = lambda message: ()
        self._dialled = self._ready = False
        self._waiting: list[Deed] = []

    @property
    def id(self) -> PeerId:
        """Who it is."""
        return self.host.key.peer_id

    def start(self) -> None:
        """Dial."""
        self.world.start(self.host, self)

    def do(self, *deeds: Deed) -> None:
        """Do ``deeds`` now, or when the hello is exchanged."""
        self._waiting += deeds
        self.world._handle(self.host, Woke())

    def goodbyes(self) -> list[Goodbye]:
        """Return what the node said when it left."""
        return [message for message in self.heard if isinstance(message, Goodbye)]

    def hello(self, now: Now, **other: bytes) -> Hello:
        """Return an honest Hello, or one with another's record."""
        record = PeerRecord.sign(self.host.key, (), ("seed",), 1, now.wall + LIFE_MS).encoded
        return Hello(1, 1, "bad/1", ("seed",), other.get("record", record), now.wall, b"8 bytes!")

    def handle(self, event: Event, now: Now) -> list[Act]:
        """As ``Program``."""
        match event:
            case Woke() if not self._dialled:
                self._dialled = True
                return [Dial(self.world.target(self.victim))]
            case Connected(connection=connection):
                self.connection = connection
                if self._hello:
                    return [Send(connection, self.hello(now))]
                self._ready = True
            case MessageReceived(message=message, size=size):
                self.heard.append(message)
                self.served += size if isinstance(message, Refs) else 0
                self._ready = self._ready or isinstance(message, HelloAck)
                if isinstance(message, Ping) and self.connection is not None:
                    return [Send(self.connection, Pong(message.nonce))]
                self._waiting += self.answer(message)
            case Disconnected() | DialFailed():
                self.connection, self._ready = None, False
                self.ended += 1
            case _:
                pass
        return self._acts()

    def deadline(self, now: float) -> float:
        """As ``Program``."""
        return math.inf

    def _acts(self) -> list[Act]:
        if self.connection is None or not self._ready:
            return []
        deeds, self._waiting = self._waiting, []
        acts: list[Act] = []
        for deed in deeds:
            self.said += len(deed if isinstance(deed, bytes) else self.world.wires.encoder.encoded(deed))
            acts.append(SendBytes(self.connection, deed) if isinstance(deed, bytes) else Send(self.connection, deed))
        return acts


def intruder(world: World, victim: int, where: Address | None = None, *, hello: bool = True) -> Intruder:
    """Return a hostile node that is about to dial ``victim``."""
    made = Intruder(world, world.add_host(where), victim, hello=hello)
    made.start()
    return made


def asked(heard: Sequence[Message]) -> list[GetRefs]:
    """Return the questions among ``heard``."""
    return [message for message in heard if isinstance(message, GetRefs)]
