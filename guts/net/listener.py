"""``Listener``: accepts connections and proves who is there before anyone else hears of them.

The order of checks, cheap to dear: is the address refused, does it come too often (both: closed at once), who has to go
for it (``HandshakeGate``), is the first message 32 bytes long, and has this second room for one more that is computed:
they wait their turn in order of arrival. Then the handshake. All of it has one deadline; none of it has an answer but
the handshake's.
"""

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Self, final

from guts.addresses import Address
from guts.errors import PeerFault, Unavailable, UsageError
from guts.identity import SigningKey
from guts.net import sockets
from guts.net.dial import HANDSHAKE_TIMEOUT, handshake, receive_some
from guts.net.handshake_limits import DEFAULT_HANDSHAKE_LIMITS, HandshakeGate, HandshakeLimits
from guts.net.tcp import TcpConnection
from guts.noise.keys import HandshakeFailed, KeyPair
from guts.wire.secure import LENGTH_BYTES, MESSAGE_1_BYTES, NOT_OUR_NETWORK, Direction, SecureChannel

BACKLOG: Final = 4096
"""Connections that the kernel keeps for us while we are busy, some KiB each; Linux' own limit, and Go's. Who finds no
room comes again after a second, then two: a flood that fills it for a moment would keep others out for longer."""

ACCEPT_PAUSE: Final = 0.5
"""Seconds to wait when the process is out of file descriptors or memory, until some connection ends."""

_LENGTH_OF_FIRST: Final = MESSAGE_1_BYTES.to_bytes(LENGTH_BYTES, "big")

_log = logging.getLogger(__name__)


class CannotListen(UsageError):
    """The listen address is not one of this machine, or not allowed."""

    code: ClassVar[str] = "CANNOT_LISTEN"


class PortBusy(CannotListen):
    """Another process listens on this port."""

    code: ClassVar[str] = "PORT_BUSY"


@dataclass(slots=True)
class HandshakeCounts:
    """What became of those who connected, since the start.

    Attributes:
        refused: closed at once: a refused address, or one that comes too often.
        begun: got a place.
        dropped: lost it to others.
        computed: sent a first message of the right form, and a key exchange was done for it.
        authenticated: proved who they are.
    """

    refused: int = 0
    begun: int = 0
    dropped: int = 0
    computed: int = 0
    authenticated: int = 0


def refuses_nobody(address: Address) -> bool:
    """Let every address in."""
    return False


@final
class Listener:
    """A listening socket and the handshakes of those who knock.

    Attributes:
        address: where it listens, with the real port.
        counts: what became of those who connected.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        key: SigningKey,
        network: str,
        static: KeyPair,
        on_connection: Callable[[TcpConnection], Awaitable[None]],
        limits: HandshakeLimits,
        refuses: Callable[[Address], bool],
    ) -> None:
        """Use ``Listener.start``."""
        self.address = sockets.address_of(sock.getsockname())
        self._socket = sock
        self._key = key
        self._network = network
        self._static = static
        self._on_connection = on_connection
        self._refuses = refuses
        self.counts = HandshakeCounts()
        self._gate = HandshakeGate(limits)
        self._numbers = itertools.count()
        self._handshakes: dict[int, asyncio.Task[None]] = {}
        self._computing = asyncio.Lock()
        self._unserved: set[socket.socket] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def start(
        cls,
        address: Address,
        *,
        key: SigningKey,
        network: str,
        static: KeyPair,
        on_connection: Callable[[TcpConnection], Awaitable[None]],
        limits: HandshakeLimits = DEFAULT_HANDSHAKE_LIMITS,
        refuses: Callable[[Address], bool] = refuses_nobody,
    ) -> Self:
        """Listen at ``address`` (port 0: any free one). Nobody is accepted before ``run``.

        Args:
            address: numeric; ``0.0.0.0`` and ``::`` are all interfaces of that family.
            key: our node key.
            network: name of the network.
            static: our Noise static key, one per process.
            on_connection: gets each authenticated connection in a task of its own, and runs it.
            limits: how many handshakes at a time, and how often.
            refuses: tells whether an address may not even begin one.

        Raises:
            PortBusy, CannotListen: the operator has to choose another address.
        """
        sock = socket.socket(sockets.family(address), socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address.ip, address.port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise _cannot_listen(address, error) from None
        return cls(
            sock,
            key=key,
            network=network,
            static=static,
            on_connection=on_connection,
            limits=limits,
            refuses=refuses,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.address.port

    async def run(self) -> None:
        """Accept until ``close``; then return when every connection's ``on_connection`` has.

        What ``on_connection`` raises is a bug and passes through.
        """
        async with asyncio.TaskGroup() as tasks:
            if not self._closed:
                self._accepting = tasks.create_task(self._accept(tasks))
                # Closed when no wait for it is left, so that the loop never watches another file by its number.
                self._accepting.add_done_callback(lambda _: self._socket.close())

    def close(self) -> None:
        """Stop listening, and drop handshakes in progress. Connections go on until whoever has them closes."""
        self._closed = True
        if self._accepting is None:
            self._socket.close()
        else:
            self._accepting.cancel()
        for task in self._handshakes.values():
            task.cancel()

    async def _accept(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._accept_one(tasks)
            await asyncio.sleep(0)  # where many wait, accepting never does: others get their turn between any two

    async def _accept_one(self, tasks: asyncio.TaskGroup) -> None:
        try:
            sock, name = await self._next()
        except OSError as error:
            # ECONNABORTED: whoever knocked has gone. Anything else will not be better at once.
            if error.errno != errno.ECONNABORTED:
                await asyncio.sleep(ACCEPT_PAUSE)
            return
        remote = sockets.address_of(name)
        try:
            own = sockets.address_of(sock.getsockname())
        except OSError:  # some systems have no name for a socket whose other end has gone
            sock.close()
            return
        if self._refuses(remote) or not self._gate.may_begin(remote.ip, own.ip, _now()):
            self.counts.refused += 1
            sock.close()
            return
        number = next(self._numbers)
        self._drop(self._gate.begin(number, remote.ip, own.ip))
        self.counts.begun += 1
        self._unserved.add(sock)
        serving = tasks.create_task(self._serve(number, sock, remote))
        serving.add_done_callback(lambda _: self._drop_unserved(sock))
        self._handshakes[number] = serving

    async def _next(self) -> tuple[socket.socket, sockets.Name]:
        """Return who knocks, and from where. Raises: ``OSError``."""
        # Not loop.sock_accept: cancelled when somebody has just been accepted, it leaves a socket that nobody closes.
        while True:
            try:
                sock, name = self._socket.accept()
            except BlockingIOError:
                await self._knock()
            else:
                sock.setblocking(False)
                return sock, name

    async def _knock(self) -> None:
        loop = asyncio.get_running_loop()
        knocked = asyncio.Event()
        loop.add_reader(self._socket, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(self._socket)

    def _drop(self, number: int | None) -> None:
        if number is not None:
            self.counts.dropped += 1
            self._handshakes.pop(number).cancel()

    def _drop_unserved(self, sock: socket.socket) -> None:
        # A task that is cancelled before its first step runs none of its own lines, so none that closes.
        if sock in self._unserved:
            self._unserved.remove(sock)
            sock.close()

    async def _serve(self, number: int, sock: socket.socket, remote: Address) -> None:
        self._unserved.discard(sock)
        try:
            connection = await self._authenticate(sock, remote)
        finally:
            self._gate.end(number)
            self._handshakes.pop(number, None)
        if connection is not None:
            self.counts.authenticated += 1
            await self._on_connection(connection)

    async def _authenticate(self, sock: socket.socket, remote: Address) -> TcpConnection | None:
        connection: TcpConnection | None = None
        try:
            sockets.configure(sock)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                first = await _first_message(sock)
                await self._turn_to_compute()
                connection = await handshake(sock, self._channel(), remote, first)
        except (PeerFault, Unavailable, OSError, TimeoutError) as failure:
            _log.debug("no handshake with %s: %s", remote, failure or type(failure).__name__)
        finally:
            if connection is None:
                sock.close()  # where no transport has it yet; twice is harmless
        return connection

    def _channel(self) -> SecureChannel:
        return SecureChannel(
            direction=Direction.INBOUND,
            network=self._network,
            key=self._key,
            static=self._static,
            ephemeral=KeyPair.generate,
        )

    async def _turn_to_compute(self) -> None:
        async with self._computing:  # first come, first served
            while (wait := self._gate.wait_to_compute(_now())) > 0.0:  # noqa: ASYNC110 (for time to pass)
                await asyncio.sleep(wait)
        self.counts.computed += 1


async def _first_message(sock: socket.socket) -> bytes:
    """Return the first message with its length: what a stranger may say before anything is computed for him.

    Raises:
        HandshakeFailed: its length is another one.
        HandshakeClosed, OSError: the other side closed.
    """
    data = b""
    while len(data) < LENGTH_BYTES + MESSAGE_1_BYTES:
        data += await receive_some(sock, LENGTH_BYTES + MESSAGE_1_BYTES - len(data))
        if not data.startswith(_LENGTH_OF_FIRST[: len(data)]):
            raise HandshakeFailed(f"another first message: {NOT_OUR_NETWORK}")
    return data


def _now() -> float:
    return asyncio.get_running_loop().time()


def _cannot_listen(address: Address, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return PortBusy(
            f"{address} is in use: another node or program listens there",
            hint=f"stop that, or listen elsewhere: guts node start --listen {Address(address.ip, 0)}",
        )
    return CannotListen(
        f"can't listen at {address}: {error.strerror}", hint="set listen_addr to an address of this machine"
    )
