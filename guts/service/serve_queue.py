"""``ServeQueue``: requests for packs that wait for a place, or for a commit of this node's own.

Two kinds wait. Who was told of a record that is not committed here yet, and asks for its objects, waits for the commit:
the answer comes a round trip earlier than that to a second request would. And who finds every place taken waits for
one; networks take turns, so that nobody's many requests, or identities, keep the others out.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from guts.events import ConnectionId
from guts.ids import RepositoryId
from guts.wire.messages import GetObjects

MAX_PARKED: Final = 64
"""Requests that wait for a commit: each holds a stream with at most 1 MiB of ids."""

MAX_PARKED_PER_PEER: Final = 2
"""As many as are served to one peer at a time."""

PARKED_SECONDS: Final = 10.0
"""A small push is committed within a second; who waits for a large one does so better than with its place held."""

MAX_WAITING: Final = 64
"""Requests that wait for a place: 20 seconds of work, where each takes about a second on one of four places."""

MAX_WAITING_PER_PEER: Final = 2
WAITING_SECONDS: Final = 20.0
"""Well within the 60 s in which who asks wants the first byte."""


@dataclass(frozen=True, slots=True)
class Request:
    """A GetObjects that waits.

    Attributes:
        network: of the internet, that who asks is in; "": it is nearby, where many share a range.
        deadline: monotonic seconds.
    """

    connection: ConnectionId
    network: str
    message: GetObjects
    deadline: float

    @property
    def turn(self) -> str:
        """Whose turn it counts as."""
        return _turn(self.connection, self.network)


class ServeQueue:
    """The requests that wait, and who had a turn; which of them may begin is for the caller to say."""

    def __init__(self) -> None:
        self._parked: list[Request] = []
        self._waiting: list[Request] = []
        self._served: list[tuple[ConnectionId, str]] = []
        self._last_turn: dict[str, int] = {}
        self._turns = 0

    def deadline(self) -> float:
        """Return when ``expired`` has something (monotonic seconds); infinity for never."""
        return min((request.deadline for request in (*self._parked, *self._waiting)), default=math.inf)

    # --- for a commit ---------------------------------------------------------------------------------------

    def park(self, connection: ConnectionId, network: str, message: GetObjects, now: float) -> bool:
        """Let a request wait for the commit of its repository; ``False`` where there is no room."""
        of_peer = sum(request.connection == connection for request in self._parked)
        if len(self._parked) >= MAX_PARKED or of_peer >= MAX_PARKED_PER_PEER:
            return False
        self._parked.append(Request(connection, network, message, now + PARKED_SECONDS))
        return True

    def unpark(self, repository: RepositoryId) -> list[Request]:
        """Take out the requests that waited for ``repository``, in the order in which they came."""
        found = [request for request in self._parked if request.message.repository == repository]
        self._parked = [request for request in self._parked if request.message.repository != repository]
        return found

    # --- for a place ----------------------------------------------------------------------------------------

    def wait(self, connection: ConnectionId, network: str, message: GetObjects, now: float) -> list[Request] | None:
        """Let a request wait for a place; ``None`` where there is no room for it.

        Where all is full, the newest request of the network with the most gives way to one of a network with fewer.

        Returns:
            What gave way.
        """
        if sum(request.connection == connection for request in self._waiting) >= MAX_WAITING_PER_PEER:
            return None
        gone: list[Request] = []
        if len(self._waiting) >= MAX_WAITING:
            counts = Counter(request.turn for request in self._waiting)
            most, count = counts.most_common(1)[0]
            if counts[_turn(connection, network)] + 1 >= count:
                return None
            gone = [[request for request in self._waiting if request.turn == most][-1]]
            self._waiting.remove(gone[0])
        self._waiting.append(Request(connection, network, message, now + WAITING_SECONDS))
        return gone

    @property
    def waiting(self) -> Sequence[Request]:
        """Those that wait for a place, in the order in which they came."""
        return self._waiting

    def network(self, connection: ConnectionId) -> str:
        """Return the network that a place of ``connection`` was given for."""
        return next(network for served, network in self._served if served == connection)

    def in_turn(self) -> list[Request]:
        """Return those that wait for a place, in the order in which they may have one: who has none served first."""
        places = Counter(_turn(*place) for place in self._served)
        ranked: list[tuple[tuple[int, int], Request]] = []
        for request in self._waiting:
            # The second of one network that waits comes after the first of every other, and so on.
            ranked.append(((places[request.turn], self._last_turn.get(request.turn, 0)), request))
            places[request.turn] += 1
        return [request for _, request in sorted(ranked, key=lambda item: item[0])]

    def begin(self, connection: ConnectionId, network: str) -> None:
        """Note that a place was given to ``connection``."""
        self._turns += 1
        self._served.append((connection, network))
        self._last_turn[_turn(connection, network)] = self._turns

    def begin_waiting(self, request: Request) -> None:
        """Note that a place was given to ``request``, which waited for one."""
        self._waiting.remove(request)
        self.begin(request.connection, request.network)

    def refuse(self, request: Request) -> None:
        """Take out ``request``, which is not to be served."""
        self._waiting.remove(request)

    def end(self, connection: ConnectionId) -> str:
        """Note that a place of ``connection`` is free again; return the network that it was given for."""
        place = next(place for place in self._served if place[0] == connection)
        self._served.remove(place)
        self._forget_turns()
        return place[1]

    # --- ends -----------------------------------------------------------------------------------------------

    def expired(self, now: float) -> list[Request]:
        """Take out the requests whose time is over at ``now`` (monotonic seconds)."""
        late = [request for request in (*self._parked, *self._waiting) if request.deadline <= now]
        self._keep(lambda request: request.deadline > now)
        return late

    def gone(self, connection: ConnectionId) -> None:
        """Forget what came over a connection that is gone."""
        self._keep(lambda request: request.connection != connection)

    def _keep(self, wanted: Callable[[Request], bool]) -> None:
        self._parked = [request for request in self._parked if wanted(request)]
        self._waiting = [request for request in self._waiting if wanted(request)]
        self._forget_turns()

    def _forget_turns(self) -> None:
        concerned = {_turn(*place) for place in self._served} | {request.turn for request in self._waiting}
        self._last_turn = {whose: turn for whose, turn in self._last_turn.items() if whose in concerned}


def _turn(connection: ConnectionId, network: str) -> str:
    return network or str(connection)
