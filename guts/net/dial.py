"""``dial``: connect to an address and prove who is there; ``handshake`` is what ``Listener`` shares with it."""

import asyncio
import errno
import socket
from typing import ClassVar, Final

from guts.addresses import Address
from guts.errors import Unavailable
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.net import sockets
from guts.net.tcp import READ_BYTES, TcpConnection
from guts.noise.keys import KeyPair
from guts.wire.connection import Connection, Event, HandshakeCompleted
from guts.wire.secure import NOT_OUR_NETWORK, Direction, SecureChannel

CONNECT_TIMEOUT: Final = 5.0
HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds for the whole handshake, however its bytes trickle in (DESIGN §4.1; Syncthing 10, Radicle 6)."""


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
    sock = socket.socket(sockets.family(address), socket.SOCK_STREAM)
    try:
        sockets.configure(sock)
        await asyncio.get_running_loop().sock_connect(sock, (address.ip, address.port))
    except OSError as error:
        sock.close()
        if error.errno == errno.ETIMEDOUT:
            raise DialTimedOut(f"{address} did not answer") from None
        raise DialRefused(f"{address} can't be reached: {error.strerror or error}") from None
    except asyncio.CancelledError:
        sock.close()
        raise
    return sock


async def handshake(sock: socket.socket, channel: SecureChannel, remote: Address) -> TcpConnection:
    """Return the connection that ``channel`` establishes over ``sock``, which is closed if it does not.

    Raises:
        HandshakeClosed: the other side closed.
        PeerFault: the handshake failed.
    """
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=READ_BYTES)
    except BaseException:
        sock.close()
        raise
    connection = Connection(channel)
    try:
        peer, early = await _exchange(reader, writer, connection)
    except BaseException:
        writer.transport.abort()
        raise
    return TcpConnection(reader, writer, connection, direction=channel.direction, peer=peer, remote=remote, early=early)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
) -> tuple[PeerId, list[Event]]:
    """Exchange handshake messages; return who is there, and what came after the handshake already."""
    while True:
        # At most a few hundred bytes per handshake: the buffer always takes them.
        writer.write(connection.data_to_send(READ_BYTES))
        try:
            data = await reader.read(READ_BYTES)
        except OSError as error:
            raise HandshakeClosed(f"the connection broke in the handshake: {error.strerror}") from None
        if not data:
            raise HandshakeClosed(f"closed in the handshake: {NOT_OUR_NETWORK}")
        events = connection.receive_data(data)
        match events:
            case [HandshakeCompleted(peer), *early]:
                writer.write(connection.data_to_send(READ_BYTES))
                return peer, early
            case _:
                pass
