"""The package's ``Server``, reduced to what Guts uses of it: a socket with a protocol on it.

Its values, crawls and pickled state are refused: ``Discovery`` has records, lookups and plain state instead.
"""

import errno
import functools
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Final, NoReturn

from kademlia.network import Server

from guts.addresses import Address
from guts.clock import Now
from guts.discovery.contact import AddressPolicy
from guts.discovery.limits import ALPHA, BUCKET_SIZE
from guts.discovery.protocol import DiscoveryProtocol
from guts.discovery.routing import RoutingTable
from guts.discovery.store import RecordStore
from guts.discovery.tokens import WriteTokens
from guts.discovery.transport import DatagramSender
from guts.errors import UsageError
from guts.identity import SigningKey

_PACKAGE_LOGGERS: Final = (
    "kademlia.crawling",
    "kademlia.network",
    "kademlia.protocol",
    "rpcudp.protocol",
)


class PortBusy(UsageError):
    """Another program, perhaps another node, has the UDP port."""

    code: ClassVar[str] = "PORT_BUSY"


class BadListenAddress(UsageError):
    """The address to listen on is not this machine's, or may not be used."""

    code: ClassVar[str] = "BAD_LISTEN_ADDRESS"


class _Demote(logging.Filter):
    """Whatever the package has to say is for debugging: remotes can make it say it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.levelno = logging.DEBUG
        record.levelname = logging.getLevelName(logging.DEBUG)
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_DEMOTE: Final = _Demote()


def cap_package_loggers() -> None:
    """Let nothing that the package logs come out above DEBUG."""
    for name in _PACKAGE_LOGGERS:
        logging.getLogger(name).addFilter(_DEMOTE)


def route_source(ip: str) -> str | None:
    """Return the address that this machine would send from to ``ip``; ``None``: no way there. Sends nothing."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        # All three fail in the same way where there is no such family, no route or no descriptor left.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((ip, 9))
            source: str = probe.getsockname()[0]
    except OSError:
        return None
    return source


class Endpoint(Server):  # type: ignore[misc]  # the package has no types
    """One UDP socket, or one attachment to a simulated network."""

    def __init__(
        self,
        *,
        key: SigningKey,
        clock: Callable[[], Now],
        router: RoutingTable,
        store: RecordStore,
        tokens: WriteTokens,
        policy: AddressPolicy,
        counters: Counter[str],
        client_mode: bool,
    ) -> None:
        super().__init__(ksize=BUCKET_SIZE, alpha=ALPHA, node_id=bytes(router.own), storage=store)
        # ``Server`` tests the storage for truth, and an empty one is false.
        self.storage = store
        self._make_protocol = functools.partial(
            DiscoveryProtocol,
            key=key,
            clock=clock,
            router=router,
            tokens=tokens,
            policy=policy,
            counters=counters,
            client_mode=client_mode,
        )

    async def open(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            PortBusy, BadListenAddress: the operator can mend it.
        """
        mapped = ipaddress.ip_address(host) == ipaddress.IPv6Address("::")
        self.protocol_class = functools.partial(self._make_protocol, mapped=mapped)
        try:
            await self.listen(port, interface=host)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortBusy(
                    f"UDP port {port} on {host} is in use: another node or program listens there",
                    hint=f"stop that, or listen elsewhere: guts node start --listen {Address(host, 0)}",
                ) from None
            raise BadListenAddress(f"can't listen on {host} port {port} (UDP): {error.strerror}") from None
        opened: int = self.transport.get_extra_info("sockname")[1]
        return opened

    def attach(self, transport: DatagramSender) -> DiscoveryProtocol:
        """Use ``transport`` instead of a socket; datagrams go into the returned protocol."""
        protocol = self._make_protocol(self.node, self.storage, self.ksize, mapped=False)
        protocol.connection_made(transport)
        self.protocol = protocol
        return protocol

    def stop(self) -> None:
        """Close the socket and forget what was asked through it."""
        if self.protocol is not None:
            self.protocol.transport.close()

    def refresh_table(self, interval: float = 0.0) -> None:
        """Do nothing: ``Discovery.run`` refreshes, and in a task that somebody owns."""

    async def get(self, key: object) -> NoReturn:
        """Refuse: values without owners."""
        raise AssertionError("Guts stores records, not values")

    async def set(self, key: object, value: object) -> NoReturn:
        """Refuse: values without owners."""
        raise AssertionError("Guts stores records, not values")

    def save_state(self, fname: object) -> NoReturn:
        """Refuse: pickle."""
        raise AssertionError("Guts keeps its state in SQL")

    @classmethod
    async def load_state(cls, fname: object, port: object, interface: object = None) -> NoReturn:
        """Refuse: pickle runs what is in the file."""
        raise AssertionError("Guts keeps its state in SQL")
