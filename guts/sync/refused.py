"""``RefusedRecords``: what was fetched, and is not taken for what its author signed: by git's fsck, or by our limits.

Every holder has the same, so it is not fetched from the next one at once. But no holder can be believed about it
either: one may add an object of its own that git refuses. So each refusal doubles the time until somebody is tried
again: up to a minute for who has not given it yet, so that many liars delay an honest holder by minutes together, and
up to ten for who gave it in vain. Who offers it in the meantime is remembered, and asked when that time is over.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.ids import PeerId
from guts.wire.messages import EncodedRefs

REFUSED_SECONDS: Final = 15.0
"""After the first refusal: a liar costs who follows a repository no more than trouble on a link does."""

MAX_UNTRIED_SECONDS: Final = 60.0
"""From the third on, for who has not given it yet: so much does each liar cost that is tried before an honest holder.
To look through a pack may take as long."""

MAX_REFUSED_SECONDS: Final = 600.0
"""From the seventh on, for who gave it in vain: as long as a peer at fault is left alone."""

REFUSED_KEPT: Final = 3600.0
"""Seconds after the last refusal for which it counts: longer than any pause, so that one follows the other."""

MAX_REFUSED: Final = 8
"""Offers remembered per repository; the one refused the longest ago is forgotten first."""

MAX_GIVERS: Final = 64
"""Peers remembered per offer that gave it in vain, the last ones: at a minute for each, an hour's worth. Who is
forgotten costs no more than a peer that has not been tried."""


def offer_id(records: Iterable[EncodedRefs]) -> bytes:
    """Return what an offer of ``records`` is known by, 32 bytes: in any order, and whatever comes with them."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(record.header).digest() for record in records))).digest()


@dataclass(frozen=True, slots=True)
class _Refusal:
    times: int
    at: float
    givers: tuple[PeerId, ...]


class RefusedRecords:
    """The refused offers of one repository. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._refusals: dict[bytes, _Refusal] = {}
        self._offering: dict[PeerId, bytes] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._refusals)

    def refuse(self, offer: bytes, giver: PeerId, now: float) -> None:
        """Remember that the offer of that id was refused, as ``giver`` gave it."""
        before = self._refusals.pop(offer, None)
        if before is None or now >= before.at + REFUSED_KEPT:
            before = _Refusal(0, now, ())
        givers = (*(peer for peer in before.givers if peer != giver), giver)[-MAX_GIVERS:]
        self._refusals[offer] = _Refusal(before.times + 1, now, givers)
        if len(self._refusals) > MAX_REFUSED:
            del self._refusals[next(iter(self._refusals))]

    def until(self, offer: bytes, peer: PeerId) -> float:
        """Return when the offer of that id may be fetched from ``peer``; 0.0 where it was not refused."""
        refusal = self._refusals.get(offer)
        if refusal is None:
            return 0.0
        longest = MAX_REFUSED_SECONDS if peer in refusal.givers else MAX_UNTRIED_SECONDS
        return refusal.at + min(REFUSED_SECONDS * 2.0 ** min(refusal.times - 1, 16), longest)

    def offered(self, offer: bytes, peer: PeerId) -> None:
        """Remember that ``peer``, which is connected, offers what may not be fetched from it yet."""
        self._offering[peer] = offer

    def gone(self, peer: PeerId) -> None:
        """Forget what ``peer`` offers: it is connected no more."""
        self._offering.pop(peer, None)

    def due_at(self) -> float:
        """Return when somebody may be asked again for what it offered; infinity: nobody offered anything."""
        return min((self.until(offer, peer) for peer, offer in self._offering.items()), default=math.inf)

    def due(self, now: float) -> list[PeerId]:
        """Return, once, the peers that may be asked again for what they offered."""
        due = [peer for peer, offer in self._offering.items() if self.until(offer, peer) <= now]
        for peer in due:
            del self._offering[peer]
        return due

    def clear(self) -> None:
        """Forget all: something was committed, and what is missing is another thing now."""
        self._refusals.clear()
        self._offering.clear()
