"""Many identities of one attacker, who all want to be the victim's only peers: they come, come again, and lie."""

import hashlib
import itertools
import math
from collections.abc import Sequence

from guts.addresses import Address, BootstrapAddress
from guts.clock import Now
from guts.effects import Dial, Disconnect, Effect, Send
from guts.events import Connected, ConnectionId, DialFailed, Disconnected, Event, MessageReceived, Woke
from guts.identity import SigningKey
from guts.records import PeerRecord
from guts.wire.messages import GetPeers, Goodbye, Hello, HelloAck, Peers, Ping, Pong
from guts.wire.secure import Direction
from tests.support.simulator.world import World

AGAIN_AFTER = 10.0
"""Seconds until one that was not let in, or was sent away, comes again."""

_RECORD_LIFE_MS = 24 * 3_600_000


class Sybil:
    """One of them: it keeps the connection that it gets, and tells who asks of nobody but the others.

    Args:
        target: whom it dials; ``None``: it waits to be dialled.
        tells: records of the attacker's, signed.
    """

    def __init__(self, key: SigningKey, record: bytes, target: BootstrapAddress | None, tells: Sequence[bytes]) -> None:
        self._key = key
        self._record = record
        self._target = target
        self._tells = itertools.cycle([tuple(tells[i : i + 32]) for i in range(0, len(tells), 32)] or [()])
        self._again_at = 0.0 if target is not None else math.inf

    def deadline(self, now: float) -> float:
        return self._again_at

    def handle(self, event: Event, now: Now) -> list[Effect]:
        match event:
            case Woke() if self._target is not None and now.mono >= self._again_at:
                self._again_at = math.inf
                return [Dial(self._target)]
            case DialFailed() | Disconnected() if self._target is not None:
                self._again_at = now.mono + AGAIN_AFTER
            case Connected(direction=Direction.OUTBOUND, connection=connection):
                nonce = self._key.public[:8]
                return [Send(connection, Hello(1, 1, "guts/0.1.0", ("seed",), self._record, now.wall, nonce))]
            case MessageReceived(connection=connection, message=message):
                return self._said(connection, message, now)
            case _:
                pass
        return []

    def _said(self, connection: ConnectionId, message: object, now: Now) -> list[Effect]:
        match message:
            case Hello():
                ack = HelloAck(1, "guts/0.1.0", ("seed",), self._record, now.wall, self._key.public[:8])
                return [Send(connection, ack)]
            case Ping(nonce=nonce):
                return [Send(connection, Pong(nonce))]
            case GetPeers(request=request):
                return [Send(connection, Peers(request, next(self._tells)))]
            case Goodbye():
                return [Disconnect(connection, None)]
            case _:
                return []


def invade(
    world: World, where: Sequence[Address], victim: BootstrapAddress | None, *, claims: int = 0
) -> list[BootstrapAddress]:
    """Start an identity at each address of ``where``; return where they are.

    Args:
        victim: whom they dial.
        claims: of how many more nodes, that are nowhere, they tell.
    """
    wall = world.reading(world.hosts[0]).wall
    hosts = [world.add_host(address) for address in where]
    records = [PeerRecord.sign(host.key, (host.address,), ("seed",), 1, wall + _RECORD_LIFE_MS) for host in hosts]
    tells = [record.encoded for record in records]
    for number in range(claims):
        key = SigningKey(hashlib.sha256(b"nobody %d" % number).digest())
        nowhere = Address(f"77.{number >> 8 & 255}.{number & 255}.1", 9000)
        tells.append(PeerRecord.sign(key, (nowhere,), ("seed",), 1, wall + _RECORD_LIFE_MS).encoded)
    for host, record in zip(hosts, records, strict=True):
        world.start(host, Sybil(host.key, record.encoded, victim, tells))
    return [host.target for host in hosts]
