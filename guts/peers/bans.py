"""``OperatorBans``: whom the operator wants kept out, by key or by address."""

import functools
import ipaddress
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.addresses import Address, BanSubject, Network, check_size
from guts.effects import BanKept, BanLifted, Persist
from guts.errors import ExitStatus, UsageError
from guts.ids import PeerId

MAX_BANS: Final = 50_000
"""Lists of networks that people share have some thousand lines; each costs about 500 bytes of memory."""

MAX_REASON_BYTES: Final = 200
SAME_END: Final = 2.0
"""Seconds within which two ends of a ban are one: what a list tells in ms of a clock is counted on another one here."""


class TooManyBans(UsageError):
    """There are as many bans as a node keeps."""

    code: ClassVar[str] = "TOO_MANY_BANS"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class BadReason(UsageError):
    """The reason of a ban is too long, or no line of text."""

    code: ClassVar[str] = "BAD_REASON"


@dataclass(frozen=True, slots=True)
class OperatorBan:
    """One ban.

    Attributes:
        until: monotonic seconds; infinity: for good.
        made: Unix ms, for people.
    """

    subject: BanSubject
    until: float
    made: int
    reason: str


class OperatorBans:
    """Every ban by the operator that has not ended. Times are monotonic seconds.

    Attributes:
        next_end: no ban ends earlier; one that did may have been lifted, or made longer.
    """

    def __init__(self, stored: Iterable[BanKept], zero: float) -> None:
        """Args: ``zero``: when the node's running time began."""
        self._zero = zero
        self._bans: dict[BanSubject, OperatorBan] = {}
        self._lengths: dict[tuple[int, int], int] = {}
        self.next_end = math.inf
        for kept in stored:
            until = math.inf if kept.until is None else zero + kept.until / 1000
            self._put(OperatorBan(kept.subject, until, kept.made, kept.reason))

    def __iter__(self) -> Iterator[OperatorBan]:
        return iter(self._bans.values())

    def get(self, subject: BanSubject, now: float) -> OperatorBan | None:
        """Return the ban of exactly ``subject`` that is in force at ``now``."""
        ban = self._bans.get(subject)
        return ban if ban is not None and ban.until > now else None

    def of_address(self, address: Address, now: float) -> OperatorBan | None:
        """Return the ban, of those of networks that ``address`` is in, that ends last."""
        return self.around(network_around(address.ip, ALL_BITS), now)

    def around(self, part: Network, now: float) -> OperatorBan | None:
        """Return the ban, of those of networks that ``part`` lies in, that ends last."""
        bans = [ban for network in self._networks(part) if (ban := self.get(network, now)) is not None]
        return max(bans, key=lambda ban: ban.until, default=None)

    def ban(self, wanted: OperatorBan, now: float, *, merge: bool) -> list[Persist]:
        """Take ``wanted`` in; nothing where that changes nothing.

        Args:
            merge: an earlier ban that ends later stays.

        Raises:
            TooManyBans: there is no room, also without those that have ended.
            BansTooMuch: see ``check_size``.
            BadReason: the reason is no line of at most ``MAX_REASON_BYTES``.
        """
        if not wanted.reason.isprintable() or len(wanted.reason.encode()) > MAX_REASON_BYTES:
            raise BadReason(f"a reason is a line of at most {MAX_REASON_BYTES} bytes")
        check_size(wanted.subject)
        known = self.get(wanted.subject, now)
        if known is not None and self._stays(known, wanted, merge=merge):
            return []
        if known is None and len(self._bans) >= MAX_BANS:
            self.ended(now)
            if len(self._bans) >= MAX_BANS:
                raise TooManyBans(f"a node keeps {MAX_BANS} bans", hint="guts peer bans lists them")
        self._put(wanted)
        until = None if wanted.until == math.inf else round((wanted.until - self._zero) * 1000)
        return [Persist(BanKept(wanted.subject, until, wanted.made, wanted.reason))]

    def lift(self, subject: BanSubject) -> list[Persist]:
        """End the ban of exactly ``subject``; nothing where there is none."""
        if subject not in self._bans:
            return []
        self._remove(subject)
        return [Persist(BanLifted(subject))]

    def ended(self, now: float) -> list[BanSubject]:
        """Forget the bans that have ended since the last call; return of whom they were."""
        if now < self.next_end:
            return []
        ended = [ban.subject for ban in self if ban.until <= now]
        for subject in ended:
            self._remove(subject)
        self.next_end = min((ban.until for ban in self), default=math.inf)
        return ended

    @staticmethod
    def _stays(known: OperatorBan, wanted: OperatorBan, *, merge: bool) -> bool:
        same = known.until == wanted.until or abs(known.until - wanted.until) <= SAME_END
        if merge:
            return same or known.until > wanted.until
        return same and known.reason == wanted.reason

    def _put(self, ban: OperatorBan) -> None:
        if ban.subject not in self._bans and not isinstance(ban.subject, PeerId):
            length = ban.subject.version, ban.subject.prefixlen
            self._lengths[length] = self._lengths.get(length, 0) + 1
        self._bans[ban.subject] = ban
        self.next_end = min(self.next_end, ban.until)

    def _remove(self, subject: BanSubject) -> None:
        del self._bans[subject]
        if not isinstance(subject, PeerId):
            length = subject.version, subject.prefixlen
            self._lengths[length] -= 1
            if not self._lengths[length]:
                del self._lengths[length]

    def _networks(self, part: Network) -> Iterator[Network]:
        """Yield the networks around ``part`` of every length that a ban has: a dozen, where there are thousands."""
        for version, length in self._lengths:
            if version == part.version and length <= part.prefixlen:
                yield network_around(str(part.network_address), length)


ALL_BITS: Final = 128


@functools.lru_cache(maxsize=8192)
def network_around(ip: str, length: int) -> Network:
    """Return the network of ``length`` bits that the address ``ip`` is in, at most the address itself.

    An IPv4 address that is written as IPv6 (RFC 4291 §2.5.5.2), as a socket for both may show it, is the IPv4 one.
    """
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False)
