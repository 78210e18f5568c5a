"""Contacts: who lives where, in 26 or 38 bytes, and which of them may be contacted at all.

A contact on the wire is fixed-size binary, so there is no host name to resolve and no port that a socket
refuses. What remains, an address that is nobody's or somebody else's business, ``AddressPolicy`` refuses.
"""

import functools
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from guts.addresses import non_global_range
from guts.discovery.keys import Key
from guts.discovery.limits import BUCKET_SIZE, MIN_GLOBAL_PORT
from guts.errors import PeerFault
from guts.ids import PeerId

_PORT_BYTES: Final = 2
V4_BYTES: Final = Key.LENGTH + 4 + _PORT_BYTES
V6_BYTES: Final = Key.LENGTH + 16 + _PORT_BYTES


class InvalidContacts(PeerFault):
    """A list of contacts is not made of whole contacts, or is longer than any answer may be."""

    code = "INVALID_CONTACTS"


class DhtContact(NamedTuple):
    """What the caller gives to join, and stores to join again: a numeric address, and the id where known."""

    ip: str
    port: int
    peer: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """A node at an address; ``peer`` once it has proven itself there.

    Attributes:
        ip: canonical text of an IPv4 or IPv6 address.
        port: UDP port, 1..65535.
    """

    key: Key
    ip: str
    port: int
    peer: PeerId | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where to send to."""
        return self.ip, self.port


class _Facts(NamedTuple):
    packed: bytes
    is_global: bool
    range: int | None


@functools.lru_cache(maxsize=8192)
def _facts(ip: str) -> _Facts:
    address = ipaddress.ip_address(ip)
    return _Facts(address.packed, address.is_global and not address.is_multicast, non_global_range(ip))


def normal_ip(ip: str) -> str:
    """Return ``ip`` as a socket reports it in canonical text: IPv4-mapped IPv6 becomes IPv4, no scope."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def packed_ip(ip: str) -> bytes:
    """Return the 4 or 16 bytes of ``ip``."""
    return _facts(ip).packed


def address_group(ip: str) -> bytes:
    """Return the /24 of an IPv4 or the /48 of an IPv6 address: who holds one address often holds them all."""
    packed = _facts(ip).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


def encode_address(ip: str, port: int) -> bytes:
    """Return 6 or 18 bytes: the address and the port, big endian."""
    return packed_ip(ip) + port.to_bytes(_PORT_BYTES, "big")


def encode_contacts(contacts: Iterable[Contact]) -> tuple[bytes, bytes]:
    """Return the IPv4 contacts (26 bytes each) and the IPv6 contacts (38 bytes each)."""
    v4, v6 = bytearray(), bytearray()
    for contact in contacts:
        blob = contact.key + encode_address(contact.ip, contact.port)
        (v4 if len(blob) == V4_BYTES else v6).extend(blob)
    return bytes(v4), bytes(v6)


def decode_contacts(v4: bytes, v6: bytes) -> tuple[Contact, ...]:
    """Return the contacts in both lists; IPv4 written as IPv6 and port 0 are left out.

    Raises:
        InvalidContacts: a length that is not a whole number of contacts, or more than ``BUCKET_SIZE``.
    """
    if len(v4) % V4_BYTES or len(v6) % V6_BYTES:
        raise InvalidContacts("not a whole number of contacts")
    if len(v4) // V4_BYTES + len(v6) // V6_BYTES > BUCKET_SIZE:
        raise InvalidContacts(f"more than {BUCKET_SIZE} contacts")
    blobs = [v4[i : i + V4_BYTES] for i in range(0, len(v4), V4_BYTES)]
    blobs += [v6[i : i + V6_BYTES] for i in range(0, len(v6), V6_BYTES)]
    return tuple(contact for blob in blobs if (contact := _decode_one(blob)) is not None)


def _decode_one(blob: bytes) -> Contact | None:
    address = ipaddress.ip_address(blob[Key.LENGTH : -_PORT_BYTES])
    port = int.from_bytes(blob[-_PORT_BYTES:], "big")
    if port == 0 or (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None):
        return None
    return Contact(Key(blob[: Key.LENGTH]), str(address), port)


class AddressPolicy:
    """Which addresses this node contacts, and which ones the diversity limits spare.

    A global address is contacted; one of a non-global range only when this node has an address in that range
    too (a compose network, a LAN, loopback). Inside such a range diversity limits mean nothing, since one
    operator owns it all.
    """

    def __init__(self, own_address_towards: Callable[[str], str | None]) -> None:
        """Take what answers "from which of its addresses would this node send to that one?"."""
        self._own_address_towards = own_address_towards
        self._inside: dict[int, bool] = {}
        self._lengths: tuple[int, ...] = (4, 16)

    def use(self, *, ipv4: bool, ipv6: bool) -> None:
        """Say which families the socket reaches; contacts of another one are not asked."""
        self._lengths = (4,) * ipv4 + (16,) * ipv6

    def is_local(self, ip: str) -> bool:
        """Tell whether ``ip`` is in a non-global range that this node itself is in."""
        index = _facts(ip).range
        if index is None:
            return False
        if index not in self._inside:
            own = self._own_address_towards(ip)
            if own is None:
                return False
            self._inside[index] = _facts(own).range == index
        return self._inside[index]

    def forget(self) -> None:
        """Look afresh at the next question: interfaces come and go."""
        self._inside.clear()

    def allows(self, ip: str, port: int) -> bool:
        """Tell whether a contact that some peer named may be sent a request."""
        facts = _facts(ip)
        if len(facts.packed) not in self._lengths:
            return False
        if facts.is_global:
            return port >= MIN_GLOBAL_PORT
        return port > 0 and self.is_local(ip)

    def may_tell(self, asker_ip: str, ip: str) -> bool:
        """Tell whether ``ip`` means the same at ``asker_ip`` as here: global ones do, others inside their range."""
        facts = _facts(ip)
        return facts.is_global or facts.range == _facts(asker_ip).range
