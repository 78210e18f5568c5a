"""Where a node can be dialled, and the URL of a repository."""

import contextlib
import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from guts.errors import ExitStatus, UsageError
from guts.ids import PeerId, RepositoryId

TRANSPORT_TCP: Final = "tcp"

NON_GLOBAL_RANGES: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)
"""An address in one of them means something only to nodes in the same one."""


@functools.lru_cache(maxsize=8192)
def non_global_range(ip: str) -> int | None:
    """Return which of ``NON_GLOBAL_RANGES`` the numeric address ``ip`` is in; ``None``: in none of them."""
    address = ipaddress.ip_address(ip)
    return next((index for index, block in enumerate(NON_GLOBAL_RANGES) if address in block), None)


def neighbours(ip: str, other: str) -> bool:
    """Tell whether both addresses are of one non-global range: loopback, a LAN, a compose network."""
    found = non_global_range(ip)
    return found is not None and found == non_global_range(other)


class BadAddress(UsageError):
    """A text that should be ``host:port`` (or a ``guts://`` URL) is not one."""

    code: ClassVar[str] = "BAD_ADDRESS"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A numeric address; never a host name, so nothing a peer sent is ever resolved.

    Attributes:
        ip: canonical text of an IPv4 or IPv6 address.
        port: 1..65535 (0 only in a listen address: "any free port").
        transport: ``"tcp"``.
    """

    ip: str
    port: int
    transport: str = TRANSPORT_TCP

    def __post_init__(self) -> None:
        """Raises: ``ValueError``: not a canonical numeric address, or the port is out of range."""
        if str(ipaddress.ip_address(self.ip)) != self.ip:
            raise ValueError(f"{self.ip!r} is not the canonical text of an address")
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port {self.port} is out of range")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address that ``text`` (``1.2.3.4:9000`` or ``[::1]:9000``) spells.

        Raises:
            BadAddress: it spells none, or has a host name where a number is needed.
        """
        host, port = split_host_port(text)
        try:
            return cls(str(ipaddress.ip_address(host)), port)
        except ValueError:
            raise BadAddress(f"{text!r} needs a numeric IP address, not {host!r}") from None

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def split_host_port(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        BadAddress: no host, no port, or a port outside 0..65535.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^\[\]:/@\s]+)):([0-9]{1,5})", text.strip())
    if match is None or int(match[3]) > 65_535:
        raise BadAddress(f"{text!r} is not an address: host:port or [v6]:port is needed")
    return match[1] or match[2], int(match[3])


@dataclass(frozen=True, slots=True)
class BootstrapAddress:
    """``[node1…@]host:port`` as an operator writes it; the id, where given, is checked on every dial."""

    host: str
    port: int
    peer: PeerId | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises: ``BadAddress`` or ``guts.ids.BadId``."""
        peer, separator, address = text.strip().rpartition("@")
        host, port = split_host_port(address)
        return cls(host, port, PeerId.parse(peer) if separator else None)

    def __str__(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{self.peer}@{where}" if self.peer is not None else where


@dataclass(frozen=True, slots=True)
class RepositoryUrl:
    """``guts://[host:port/]repo1…[/name]``: the name is cosmetic and last, so git names the directory so."""

    repository: RepositoryId
    name: str | None = None
    hint: BootstrapAddress | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a URL, or a bare ``repo1…[/name]``, names.

        Raises:
            BadAddress: not such a URL.
            guts.ids.BadId: the id in it is mistyped or of another kind.
        """
        rest = text.strip()
        if rest.lower().startswith("guts:"):
            rest = rest[5:].lstrip("/")
        elif "://" in rest:
            raise BadAddress(f"{text!r} is not a guts:// URL")
        parts = [part for part in rest.split("/") if part]
        hint = None
        if len(parts) > 1 and re.search(r":\d+$", parts[0]):
            hint = BootstrapAddress.parse(parts.pop(0))
        if not parts or len(parts) > 2:
            raise BadAddress(f"{text!r} is not guts://[host:port/]repo1…[/name]")
        name = parts[1].removesuffix(".git") if len(parts) == 2 else None
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise BadAddress(f"{name!r} can't be the name in a URL: letters, digits, '.', '_' and '-' only")
        # People add .git out of habit, to the id too.
        return cls(RepositoryId.parse(parts[0].removesuffix(".git")), name, hint)

    def __str__(self) -> str:
        parts = [str(self.hint)] if self.hint else []
        return "guts://" + "/".join([*parts, str(self.repository), *([self.name] if self.name else [])])


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
BanSubject = PeerId | Network
"""Who is banned: a node's key, or every address of a network."""


def is_ip(host: str) -> bool:
    """Tell whether ``host`` is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class BadSubject(UsageError):
    """A text that should name whom to ban names neither a node nor addresses."""

    code: ClassVar[str] = "BAD_SUBJECT"


def parse_subject(text: str) -> BanSubject:
    """Return the node (``node1…``), address or network (``192.0.2.0/24``) that ``text`` names.

    Raises:
        BadSubject: neither; also a network with bits beyond its length, which may be a slip.
        guts.ids.BadId: an id is mistyped.
    """
    if text.startswith("node1"):
        return PeerId.parse(text)
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        hint = "a node's id (node1…), an IP address, or a network such as 192.0.2.0/24"
        if text.startswith(("auth1", "repo1")):
            hint = "repositories and authors are blocked: guts block, guts unblock"
        with contextlib.suppress(ValueError):
            meant = ipaddress.ip_network(text, strict=False)
            shortest = SHORTEST[meant.version]
            large = meant.prefixlen < shortest
            hint = f"a banned network has at least /{shortest}" if large else f"did you mean {meant}?"
        raise BadSubject(f"{text!r} names nobody who could be banned", hint=hint) from None
    return network


SHORTEST: Final = {4: 8, 6: 16}
"""Bits of a network that may be banned, at least: registries get nothing larger, 0.0.0.0/0 is a slip."""


class BansTooMuch(UsageError):
    """A ban would be of most of the internet."""

    code: ClassVar[str] = "BANS_TOO_MUCH"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, subject: Network) -> None:
        shortest = SHORTEST[subject.version]
        super().__init__(
            f"{subject} is too much of IPv{subject.version}: the node would hardly know anybody any more",
            hint=f"a banned network has at least /{shortest}; bans of single nodes are by id: guts peer ban node1…",
        )


def check_size(subject: BanSubject) -> None:
    """Raises: ``BansTooMuch``: a network that is larger than ``SHORTEST`` allows."""
    if not isinstance(subject, PeerId) and subject.prefixlen < SHORTEST[subject.version]:
        raise BansTooMuch(subject)


def subject_text(subject: BanSubject) -> str:
    """Return the one way to write ``subject``: an address without its length, a network with it."""
    if isinstance(subject, PeerId) or subject.num_addresses > 1:
        return str(subject)
    return str(subject.network_address)
