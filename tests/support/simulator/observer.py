"""``Observer``: sees what happens in the world, and changes nothing."""

from guts.ids import RepositoryId
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import Message


class Observer:
    """Does nothing; a subclass overrides what it wants to see. Times are seconds, hosts are numbers."""

    def sent(self, time: float, source: int, target: int, message: Message, size: int) -> None:
        """A message of ``size`` bytes, as encoded, was sent."""

    def delivered(self, time: float, source: int, target: int, message: Message) -> None:
        """A message reached the program of ``target``."""

    def committed(self, time: float, host: int, repository: RepositoryId, record: SignedRefs) -> None:
        """``host`` has committed ``record``, its own or another's."""
