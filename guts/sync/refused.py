"""``RefusedRecords``: what was fetched, and is not taken for what its author signed: by git's fsck, or by our limits.

Every holder has the same, so it is not fetched from the next one at once. But no holder can be believed about it
either: one may add an object of its own that git refuses. So each refusal doubles the time until somebody is tried
again, and a liar delays an honest holder without keeping it out.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from guts.wire.messages import EncodedRefs

REFUSED_SECONDS: Final = 15.0
"""After the first refusal: a liar costs who follows a repository no more than trouble on a link does."""

MAX_REFUSED_SECONDS: Final = 600.0
"""After the seventh: as long as a peer at fault is left alone."""

REFUSED_KEPT: Final = 3600.0
"""Seconds after the last refusal for which it counts: longer than any pause, so that one follows the other."""

MAX_REFUSED: Final = 8
"""Offers remembered per repository; the one refused the longest ago is forgotten first."""


def offer_id(records: Iterable[EncodedRefs]) -> bytes:
    """Return what an offer of ``records`` is known by, 32 bytes: in any order, and whatever comes with them."""
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(record.header).digest() for record in records))).digest()


@dataclass(frozen=True, slots=True)
class _Refusal:
    times: int
    at: float
    until: float


class RefusedRecords:
    """The refused offers of one repository. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._refusals: dict[bytes, _Refusal] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._refusals)

    def refuse(self, offer: bytes, now: float) -> None:
        """Remember that the offer of that id was refused."""
        before = self._refusals.pop(offer, None)
        times = before.times + 1 if before is not None and now < before.at + REFUSED_KEPT else 1
        pause = min(REFUSED_SECONDS * 2.0 ** min(times - 1, 16), MAX_REFUSED_SECONDS)
        self._refusals[offer] = _Refusal(times, now, now + pause)
        if len(self._refusals) > MAX_REFUSED:
            del self._refusals[next(iter(self._refusals))]

    def until(self, offer: bytes) -> float:
        """Return when the offer of that id may be fetched again; 0.0 where it was not refused."""
        refusal = self._refusals.get(offer)
        return refusal.until if refusal is not None else 0.0

    def clear(self) -> None:
        """Forget all: something was committed, and what is missing is another thing now."""
        self._refusals.clear()
