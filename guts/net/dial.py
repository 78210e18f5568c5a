"""``dial``: connect to an address and prove who is there; ``handshake`` is what ``Listener`` shares with it."""

import asyncio
import contextlib
import errno
import os
import socket
from typing import ClassVar, Final

from guts.addresses import Address
from guts.errors import Unavailable
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.net import sockets
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from guts.wire.connection import Connection, Event, HandshakeCompleted
from guts.wire.secure import NOT_OUR_NETWORK, Direction, SecureChannel

CONNECT_TIMEOUT: Final = 5.0
HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for the whole handshake, however its bytes trickle in (DESIGN §4.1; Syncthing 10, Radicle 6)."""

HANDSHAKE_READ_BYTES: Final = 4096
"""A handshake message is at most 1,026 bytes."""


class DialRefused(Unavailable):
    """Nothing listens at the address, or the way there is closed."""

    code: ClassVar[str] = "DIAL_REFUSED"


class DialTimedOut(Unavailable):
    """The address, or the node there, did not answer in time."""

    code: ClassVar[str] = "DIAL_TIMED_OUT"


class HandshakeClosed(Unavailable):
    """The other side closed before the handshake was done."""

    code: ClassVar[str] = "HANDSHAKE_CLOSED"


async def dial(
    address: Address,
    *,
    key: SigningKey,
    network: str,
    static: KeyPair,
    expected: PeerId | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
) -> TcpConnection:
    """Return a connection to the node at ``address``.

    Args:
        address: where to.
        key: our node key.
        network: name of the network.
        static: our Noise static key, one per process.
        expected: who must be there; anyone else does not learn who we are.
        connect_timeout: seconds.
        handshake_timeout: seconds.

    Raises:
        DialRefused, DialTimedOut, HandshakeClosed: nobody there, or nobody we can talk to.
        PeerFault: someone else (``UnexpectedPeer``, ``MetSelf``), another network, or not a Guts node.
    """
    try:
        async with asyncio.timeout(connect_timeout):
            sock = await _connect(address)
    except TimeoutError:
        raise DialTimedOut(f"{address} did not answer in {connect_timeout:g} s") from None
    channel = SecureChannel(
        direction=Direction.OUTBOUND,
        network=network,
        key=key,
        static=static,
        ephemeral=KeyPair.generate,
        expected=expected,
    )
    try:
        async with asyncio.timeout(handshake_timeout):
            return await handshake(sock, channel, address)
    except TimeoutError:
        raise DialTimedOut(f"{address} did not finish the handshake in {handshake_timeout:g} s") from None


async def _connect(address: Address) -> socket.socket:
    with contextlib.ExitStack() as undo:
        try:
            # This fails too, where the machine has no such family (IPv6), or no descriptor left.
            sock = undo.enter_context(socket.socket(sockets.family(address), socket.SOCK_STREAM))
            sockets.configure(sock)
            await asyncio.get_running_loop().sock_connect(sock, (address.ip, address.port))
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                raise DialTimedOut(f"{address} did not answer") from None
            # asyncio puts words of its own in the place of the system's.
            reason = os.strerror(error.errno) if error.errno else error
            raise DialRefused(f"{address} can't be reached: {reason}") from None
        undo.pop_all()
    return sock


async def handshake(
    sock: socket.socket, channel: SecureChannel, remote: Address, received: bytes = b""
) -> TcpConnection:
    """Return the connection that ``channel`` establishes over ``sock``, which is closed if it does not.

    Args:
        received: what was read from ``sock`` already.

    Raises:
        HandshakeClosed: the other side closed.
        PeerFault: the handshake failed.
    """
    connection = Connection(channel)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        peer, early = await _exchange(sock, connection, received)
        undo.pop_all()
    return TcpConnection(sock, connection, direction=channel.direction, peer=peer, remote=remote, early=early)


async def receive_some(sock: socket.socket, most: int) -> bytes:
    """Return 1..``most`` bytes of a handshake. Raises: ``HandshakeClosed``: the other side closed; ``OSError``."""
    data = await asyncio.get_running_loop().sock_recv(sock, most)
    if not data:
        raise HandshakeClosed(f"closed in the handshake: {NOT_OUR_NETWORK}, or it bans this address")
    return data


async def _exchange(sock: socket.socket, connection: Connection, data: bytes) -> tuple[PeerId, list[Event]]:
    """Exchange handshake messages; return who is there, and what came after the handshake already."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            events = connection.receive_data(data)
            await loop.sock_sendall(sock, connection.data_to_send(HANDSHAKE_READ_BYTES))
            match events:
                case [HandshakeCompleted(peer), *early]:
                    return peer, early
                case _:
                    data = await receive_some(sock, HANDSHAKE_READ_BYTES)
    except OSError as error:
        raise HandshakeClosed(f"broke in the handshake: {error.strerror or error}") from None
