"""``Program``: what runs on a host. A ``Service`` is one; so is whatever a test makes up to be hostile.

A hostile program gets the same events and returns effects, those of the product and the ones here, with which it says
what no service would.
"""

from dataclasses import dataclass
from typing import Protocol

from guts.clock import Now
from guts.effects import Effect
from guts.events import ConnectionId, Event
from guts.ids import ObjectId
from guts.wire.messages import GetObjects


@dataclass(frozen=True, slots=True)
class SendBytes:
    """Send ``data`` where a message is due; the other side decodes it."""

    connection: ConnectionId
    data: bytes


@dataclass(frozen=True, slots=True)
class AskObjects:
    """Send ``request``, and on its stream the ids of ``wants`` and ``haves``; ``None``: nothing on the stream, ever."""

    connection: ConnectionId
    request: GetObjects
    wants: tuple[ObjectId, ...] | None
    haves: tuple[ObjectId, ...] = ()


@dataclass(frozen=True, slots=True)
class SendPack:
    """Send a pack on a stream that the peer opened.

    Attributes:
        commits: what is in it, a bit for each (``Commits``).
        size: bytes.
    """

    connection: ConnectionId
    stream: int
    commits: int
    size: int


Act = Effect | SendBytes | AskObjects | SendPack


class Program(Protocol):
    """One event in, a list of acts out."""

    def handle(self, event: Event, now: Now) -> list[Act] | list[Effect]:
        """Return what to do about ``event``, in order."""
        ...

    def deadline(self, now: float) -> float:
        """Return when a ``Woke`` is wanted at the latest (monotonic seconds); infinity for never."""
        ...
