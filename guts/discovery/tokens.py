"""Write tokens: proof that a sender can receive at its address (BEP 5)."""

import hashlib
import hmac
import random
from typing import Final

from guts.discovery.contact import encode_address

TOKEN_BYTES: Final = 8
ROTATE_SECONDS: Final = 300.0
"""A token is good for the rest of this period and all of the next: 5 to 10 minutes."""


class WriteTokens:
    """Issues and checks tokens without remembering whom they were given to."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._period: int | None = None
        self._secrets = (b"", b"")

    def issue(self, ip: str, port: int, now: float) -> bytes:
        """Return the 8-byte token of an address at ``now`` (monotonic seconds)."""
        self._rotate(now)
        return _token(self._secrets[0], ip, port)

    def valid(self, token: bytes, ip: str, port: int, now: float) -> bool:
        """Tell whether ``token`` was issued to that address in this period or the one before."""
        self._rotate(now)
        return any(hmac.compare_digest(token, _token(secret, ip, port)) for secret in self._secrets)

    def _rotate(self, now: float) -> None:
        period = int(now // ROTATE_SECONDS)
        if period == self._period:
            return
        fresh = self._rng.randbytes(32)
        adjacent = self._period is not None and period == self._period + 1
        self._secrets = (fresh, self._secrets[0] if adjacent else self._rng.randbytes(32))
        self._period = period


def _token(secret: bytes, ip: str, port: int) -> bytes:
    return hashlib.blake2b(encode_address(ip, port), key=secret, digest_size=TOKEN_BYTES).digest()
