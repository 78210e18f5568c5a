"""What is measured: traffic by host, and how news of one repository spreads."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from guts.gossip.envelope import open_envelope
from guts.ids import RepositoryId
from guts.trust.signed_refs import SignedRefs
from guts.wire.messages import Gossip, Message, NewCommit, Refs
from tests.support.simulator.observer import Observer
from tests.support.simulator.project import Project
from tests.support.simulator.world import World


class Traffic(Observer):
    """Messages and bytes that were sent, in all, by kind and by host."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.by_kind: Counter[str] = Counter()
        self.messages_of: Counter[int] = Counter()
        self.bytes_of: Counter[int] = Counter()

    def sent(self, time: float, source: int, target: int, message: Message, size: int) -> None:
        self.messages += 1
        self.bytes += size
        self.by_kind[type(message).__name__] += 1
        self.messages_of[source] += 1
        self.bytes_of[source] += size


@dataclass(slots=True)
class Journey:
    """How one record spread. Times are seconds since it was signed, by host; where it was signed is none of them.

    Attributes:
        at: when it was signed, in seconds of the run.
        home: where.
        heard: when its bytes first came.
        committed: when it was committed.
        copies: how often its bytes came, to all together: by gossip, and in answers.
        pulled: of these, in answers.
    """

    at: float
    home: int
    heard: dict[int, float] = field(default_factory=dict)
    committed: dict[int, float] = field(default_factory=dict)
    copies: int = 0
    pulled: int = 0


class Spread(Observer):
    """How the records of one repository spread.

    Attributes:
        journeys: by hash, in the order in which they were signed.
    """

    def __init__(self, repository: RepositoryId) -> None:
        self.journeys: dict[bytes, Journey] = {}
        self._repository = repository
        self._hashes: dict[bytes, bytes] = {}
        self._opened: dict[bytes, bytes] = {}

    def forget(self) -> None:
        """Begin anew: what is under way is not looked at."""
        self.journeys.clear()

    def signed(self, time: float, home: int, record: SignedRefs) -> None:
        """Note that ``record`` was signed at the host ``home``."""
        self.journeys[record.hash] = Journey(time, home)
        self._hashes[record.header_bytes] = record.hash

    def delivered(self, time: float, source: int, target: int, message: Message) -> None:
        if isinstance(message, Gossip):
            self._heard(time, target, self._carried(message), pulled=False)
        elif isinstance(message, Refs):
            for answer in message.answers:
                for record in answer.records:
                    self._heard(time, target, self._hashes.get(record.header, b""), pulled=True)

    def committed(self, time: float, host: int, repository: RepositoryId, record: SignedRefs) -> None:
        journey = self.journeys.get(record.hash)
        if journey is not None and host != journey.home:
            journey.committed.setdefault(host, time - journey.at)

    def _carried(self, message: Gossip) -> bytes:
        """Return the hash of the record that ``message`` carries; empty: it carries none."""
        found = self._opened.get(message.data)
        if found is None:
            news = open_envelope(message)
            found = news.hash if isinstance(news, NewCommit) and news.record is not None else b""
            self._opened[message.data] = found
        return found

    def _heard(self, time: float, host: int, digest: bytes, *, pulled: bool) -> None:
        journey = self.journeys.get(digest)
        if journey is not None and host != journey.home:
            journey.copies += 1
            journey.pulled += pulled
            journey.heard.setdefault(host, time - journey.at)


class Waiting(Observer):
    """Which hosts lack the newest record of whom.

    Attributes:
        lacking: pairs of a host and the hash of a record.
    """

    def __init__(self, world: World, project: Project) -> None:
        newest = {author: record.hash for author, record in project.last.items()}
        self.lacking = {
            (host.number, digest)
            for host in world.hosts
            for author, digest in newest.items()
            if host.disk.copies[project.id].replica.newest.get(author) != project.last[author]
        }

    def committed(self, time: float, host: int, repository: RepositoryId, record: SignedRefs) -> None:
        self.lacking.discard((host, record.hash))


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that ``share`` of ``values`` are not above; infinity of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.inf
