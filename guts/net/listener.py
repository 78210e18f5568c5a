"""``Listener``: accepts connections and proves who is there before anyone else hears of them."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, Self, final

from guts.addresses import Address
from guts.errors import PeerFault, Unavailable, UsageError
from guts.identity import SigningKey
from guts.net import sockets
from guts.net.dial import HANDSHAKE_TIMEOUT, handshake
from guts.net.tcp import TcpConnection
from guts.noise.keys import KeyPair
from guts.wire.secure import Direction, SecureChannel

MAX_HANDSHAKES: Final = 64
"""Handshakes in progress; one more drops the oldest, so that silent connections can't keep others out."""

BACKLOG: Final = 128
"""Connections that the kernel keeps for us while we are busy."""

ACCEPT_PAUSE: Final = 0.5
"""Seconds to wait when the process is out of file descriptors or memory, until some connection ends."""

_log = logging.getLogger(__name__)


class CannotListen(UsageError):
    """The listen address is not one of this machine, or not allowed."""

    code: ClassVar[str] = "CANNOT_LISTEN"


class PortBusy(CannotListen):
    """Another process listens on this port."""

    code: ClassVar[str] = "PORT_BUSY"


@final
class Listener:
    """A listening socket and the handshakes of those who knock.

    Attributes:
        address: where it listens, with the real port.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        key: SigningKey,
        network: str,
        static: KeyPair,
        on_connection: Callable[[TcpConnection], Awaitable[None]],
        handshake_timeout: float,
        max_handshakes: int,
    ) -> None:
        """Use ``Listener.start``."""
        self.address = sockets.address_of(sock.getsockname())
        self._socket = sock
        self._key = key
        self._network = network
        self._static = static
        self._on_connection = on_connection
        self._handshake_timeout = handshake_timeout
        self._max_handshakes = max_handshakes
        self._handshakes: dict[asyncio.Task[None], None] = {}  # oldest first
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
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_handshakes: int = MAX_HANDSHAKES,
    ) -> Self:
        """Listen at ``address`` (port 0: any free one). Nobody is accepted before ``run``.

        Args:
            address: numeric; ``0.0.0.0`` and ``::`` are all interfaces of that family.
            key: our node key.
            network: name of the network.
            static: our Noise static key, one per process.
            on_connection: gets each authenticated connection in a task of its own, and runs it.
            handshake_timeout: seconds.
            max_handshakes: in progress at a time.

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
            handshake_timeout=handshake_timeout,
            max_handshakes=max_handshakes,
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
        for task in self._handshakes:
            task.cancel()

    async def _accept(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._accept_one(tasks)

    async def _accept_one(self, tasks: asyncio.TaskGroup) -> None:
        try:
            sock, name = await asyncio.get_running_loop().sock_accept(self._socket)
        except OSError as error:
            # ECONNABORTED: whoever knocked has gone. Anything else will not be better at once.
            if error.errno != errno.ECONNABORTED:
                await asyncio.sleep(ACCEPT_PAUSE)
            return
        if len(self._handshakes) >= self._max_handshakes:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        self._unserved.add(sock)
        serving = tasks.create_task(self._serve(sock, sockets.address_of(name)))
        serving.add_done_callback(lambda _: self._drop_unserved(sock))
        self._handshakes[serving] = None

    def _drop_unserved(self, sock: socket.socket) -> None:
        # A task that is cancelled before its first step runs none of its own lines, so none that closes.
        if sock in self._unserved:
            self._unserved.remove(sock)
            sock.close()

    async def _serve(self, sock: socket.socket, remote: Address) -> None:
        self._unserved.discard(sock)
        try:
            connection = await self._authenticate(sock, remote)
        finally:
            self._handshakes.pop(_this_task(), None)
        if connection is not None:
            await self._on_connection(connection)

    async def _authenticate(self, sock: socket.socket, remote: Address) -> TcpConnection | None:
        channel = SecureChannel(
            direction=Direction.INBOUND,
            network=self._network,
            key=self._key,
            static=self._static,
            ephemeral=KeyPair.generate,
        )
        try:
            sockets.configure(sock)
            async with asyncio.timeout(self._handshake_timeout):
                return await handshake(sock, channel, remote)
        except (PeerFault, Unavailable, OSError, TimeoutError) as failure:
            _log.debug("no handshake with %s: %s", remote, failure or type(failure).__name__)
            return None
        finally:
            if not channel.established:
                sock.close()  # where no transport has it yet; twice is harmless


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("not in a task")
    return task


def _cannot_listen(address: Address, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return PortBusy(
            f"{address} is in use: another node or program listens there",
            hint=f"stop that, or listen elsewhere: guts node start --listen {Address(address.ip, 0)}",
        )
    return CannotListen(
        f"can't listen at {address}: {error.strerror}", hint="set listen_addr to an address of this machine"
    )
