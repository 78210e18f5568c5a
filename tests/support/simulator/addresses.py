"""Where hosts are, and with which key."""

import hashlib

from guts.addresses import Address
from guts.identity import SigningKey

PORT = 9000


def address(number: int, *, within: int = 1) -> Address:
    """Return an address that looks like one of the internet, each ``number`` in a /24 of its own; 0 to 65,535.

    Args:
        within: which one in that network, 1 to 254.
    """
    return Address(f"20.{number >> 8}.{number & 255}.{within}", PORT)


def host_key(seed: int, number: int) -> SigningKey:
    """Return the key of a host."""
    return SigningKey(hashlib.sha256(b"host %d %d" % (seed, number)).digest())
