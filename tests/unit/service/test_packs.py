"""Who is served a pack now, who waits for a place or a commit, and who is sent away."""

import pytest

from guts.addresses import Address
from guts.effects import Effect, ResetStream, Send, Serve
from guts.errors import PeerFault, Unavailable
from guts.events import Connected, ConnectionId, ServeFinished, Woke
from guts.limits import DEFAULTS
from guts.service.admission import BUSY_RETRY_AFTER
from guts.service.serve_queue import (
    MAX_PARKED,
    MAX_PARKED_PER_PEER,
    MAX_WAITING,
    MAX_WAITING_PER_PEER,
    WAITING_SECONDS,
    Request,
    ServeQueue,
)
from guts.service.serving import ALL_SLICES
from guts.wire.messages import GetObjects, Objects, ObjectsStatus, ResetCode
from guts.wire.secure import Direction
from tests.support.peers import IDS, hello_of
from tests.unit.service.bench import Bench, R, S, known

MAX_SERVES, MAX_SERVES_PER_PEER = int(DEFAULTS["serves"]), int(DEFAULTS["serves_per_peer"])
MAX_SERVES_PER_NETWORK = int(DEFAULTS["serves_per_network"])
C1, C2, C3, C4, C5 = (ConnectionId(number) for number in range(1, 6))


class Fault(PeerFault):
    code = "FAULT"


def ask(request: int = 1) -> GetObjects:
    return GetObjects(request, R, 2 * request + 1, ALL_SLICES, "", 1, 0)


def serve(connection: ConnectionId, request: int = 1) -> list[Effect]:
    return [Serve(connection, ask(request))]


def busy(connection: ConnectionId, request: int) -> list[Effect]:
    return [
        Send(connection, Objects(request, ObjectsStatus.BUSY, BUSY_RETRY_AFTER)),
        ResetStream(connection, 2 * request + 1, ResetCode.LIMIT),
    ]


def holding(peers: int) -> Bench:
    bench = Bench({R: known(1)})
    for number in range(1, peers + 1):
        bench.call(number, number)
    return bench


def meet(bench: Bench, number: int, ip: str) -> None:
    """Let node ``number`` dial from ``ip``, and say hello."""
    where = Address(ip, 40_000)
    bench.handle(Connected(ConnectionId(number), Direction.INBOUND, IDS[number], where, None))
    bench.say(number, hello_of(number))


def test_one_peer_is_served_so_much_at_a_time_and_then_waits() -> None:
    bench = holding(1)
    for request in range(1, MAX_SERVES_PER_PEER + 1):
        assert bench.say(1, ask(request)) == serve(C1, request)
    for request in range(11, 11 + MAX_WAITING_PER_PEER):
        assert bench.say(1, ask(request)) == []
    assert bench.say(1, ask(20)) == busy(C1, 20)
    assert bench.handle(ServeFinished(C1, R, None)) == serve(C1, 11)
    assert bench.handle(ServeFinished(C1, R, None)) == serve(C1, 12)
    assert bench.say(1, ask(20)) == []


def test_two_peers_do_not_take_every_place() -> None:
    bench = holding(3)
    assert (MAX_SERVES, MAX_SERVES_PER_PEER) == (4, 2)
    assert bench.say(1, ask(1)) == serve(C1)
    assert bench.say(1, ask(2)) == serve(C1, 2)
    assert bench.say(2, ask(1)) == serve(C2)
    assert bench.say(2, ask(2)) == []
    assert bench.say(3, ask(1)) == serve(C3)


def test_fifth_follower_is_served_as_soon_as_there_is_a_place() -> None:
    bench = holding(5)
    for number in (1, 2, 3, 4):
        assert bench.say(number, ask()) == serve(ConnectionId(number))
    assert bench.say(5, ask()) == []
    bench.time = 0.4
    assert bench.handle(ServeFinished(C2, R, None)) == serve(C5)


def test_who_had_none_comes_before_who_waits_for_a_second() -> None:
    bench = holding(5)
    for number in (1, 2, 3, 4):
        bench.say(number, ask())
    assert bench.say(1, ask(2)) == []
    assert bench.say(2, ask(2)) == []
    assert bench.say(5, ask()) == []
    assert bench.handle(ServeFinished(C3, R, None)) == serve(C5)
    # The last place stays for whom none is served.
    assert bench.handle(ServeFinished(C4, R, None)) == []
    assert bench.handle(ServeFinished(C5, R, None)) == serve(C1, 2)


@pytest.mark.parametrize("ips", [("8.8.4.1", "8.8.4.2", "8.8.4.3"), ("2600:1::1", "2600:1:0:5::1", "2600:1:0:9::2")])
def test_b2_many_keys_of_one_network_have_two_places_and_others_the_rest(ips: tuple[str, str, str]) -> None:
    bench = Bench({R: known(1)})
    assert MAX_SERVES_PER_NETWORK == 2
    for number, ip in enumerate((*ips, "9.9.9.9", "7.7.7.7"), 1):
        meet(bench, number, ip)
    assert bench.say(1, ask()) == serve(C1)
    assert bench.say(2, ask()) == serve(C2)
    assert bench.say(3, ask()) == []
    assert bench.say(1, ask(2)) == []
    # Who came later, from elsewhere, has the places that are left.
    assert bench.say(4, ask()) == serve(C4)
    assert bench.say(5, ask()) == serve(C5)
    # A place of another network is none of theirs; one of their own is.
    assert bench.handle(ServeFinished(C4, R, None)) == []
    assert bench.handle(ServeFinished(C1, R, None)) == serve(C3)
    used = bench.service.admission.used(bench.time)
    assert used["serves_per_network"] == bench.service.limits.meters["serves_per_network"].peak == 2
    assert bench.service.limits.meters["serves_per_network"].bit > 0
    for connection in (C2, C3, C5, C1):
        bench.handle(ServeFinished(connection, R, None))
    assert bench.service.admission.used(bench.time)["serves_per_network"] == 0


def test_b2_place_is_wanted_by_who_could_have_it_and_by_nobody_else() -> None:
    bench = Bench({R: known(1)})
    for number, ip in enumerate(("8.8.4.1", "8.8.4.2", "9.9.9.9", "7.7.7.7", "8.8.4.3", "6.6.6.6"), 1):
        meet(bench, number, ip)
    wanted = bench.service.serving.wanted
    for number in (1, 2, 3):
        assert bench.say(number, ask()) == serve(ConnectionId(number))
    assert bench.say(5, ask()) == []
    # It waits for its own network, and nobody else can give it a place.
    assert [wanted(place) for place in (C1, C2, C3)] == [True, True, False]
    # The last place is for who has none; that who has one waits makes no other give way before there is room for it.
    assert bench.say(3, ask(2)) == []
    assert bench.say(4, ask()) == serve(C4)
    assert [wanted(place) for place in (C1, C2, C3, C4)] == [True, True, False, False]
    assert bench.say(6, ask()) == []
    assert [wanted(place) for place in (C1, C2, C3, C4)] == [True, True, True, True]
    bench.end(5)
    bench.end(6)
    assert not any(wanted(place) for place in (C1, C2, C3, C4))
    # A second request of its own is nobody's who waits.
    assert bench.say(1, ask(2)) == []
    assert not wanted(C1)


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.2.3", "fd00::1"])
def test_replicas_of_one_lan_or_machine_are_not_one_network(ip: str) -> None:
    bench = Bench({R: known(1)})
    for number in range(1, MAX_SERVES + 1):
        meet(bench, number, ip)
        assert bench.say(number, ask()) == serve(ConnectionId(number))


def test_who_waits_too_long_is_sent_away() -> None:
    bench = holding(5)
    for number in (1, 2, 3, 4):
        bench.say(number, ask())
    bench.time = 3.0
    bench.say(5, ask())
    bench.handle(Woke())
    assert bench.service.deadline(3.0) <= 3.0 + WAITING_SECONDS
    bench.time = 2.9 + WAITING_SECONDS
    assert bench.service.serving.tick(bench.time) == []
    bench.time = 3.0 + WAITING_SECONDS
    assert bench.service.serving.tick(bench.time) == busy(C5, 1)
    assert bench.handle(ServeFinished(C1, R, None)) == []


def test_who_is_gone_waits_no_more() -> None:
    bench = holding(5)
    for number in (1, 2, 3, 4):
        bench.say(number, ask())
    bench.say(5, ask())
    bench.end(5)
    assert bench.handle(ServeFinished(C1, R, None)) == []
    # The end of a serve after that of its connection.
    bench.end(2)
    assert bench.handle(ServeFinished(C2, R, Fault("x"))) == []
    assert bench.say(1, ask(2)) == serve(C1, 2)
    assert bench.handle(ServeFinished(C3, R, Unavailable("x"))) == []


def test_what_is_no_longer_held_when_its_turn_comes_is_refused() -> None:
    bench = holding(5)
    for number in (1, 2, 3, 4):
        bench.say(number, ask())
    bench.say(5, ask())
    bench.service.sync.drop(R)
    assert bench.handle(ServeFinished(C1, R, None)) == [
        Send(C5, Objects(1, ObjectsStatus.NOT_HELD, 0)),
        ResetStream(C5, 3, ResetCode.NOT_FOUND),
    ]


# --- the queue alone ----------------------------------------------------------------------------------------


def wait(queue: ServeQueue, connection: int, network: str, request: int = 1) -> list[Request] | None:
    return queue.wait(ConnectionId(connection), network, ask(request), 0.0)


def order(queue: ServeQueue) -> list[int]:
    return [int(request.connection) for request in queue.in_turn()]


def test_networks_take_turns() -> None:
    queue = ServeQueue()
    for connection, network in ((1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")):
        wait(queue, connection, network)
    assert order(queue) == [1, 4, 5, 2, 3]
    queue.begin_waiting(queue.in_turn()[0])
    assert order(queue) == [4, 5, 2, 3]
    queue.end(ConnectionId(1))
    # Nobody of "a" is served any more, but it had its turn.
    assert order(queue) == [4, 5, 2, 3]
    for _ in range(2):
        request = queue.in_turn()[0]
        queue.begin_waiting(request)
        queue.end(request.connection)
    assert order(queue) == [2, 3]


def test_queue_holds_so_many_and_makes_room_for_who_has_few() -> None:
    queue = ServeQueue()
    for connection in range(MAX_WAITING - 2):
        assert wait(queue, connection, "many") == []
    assert wait(queue, 100, "few") == []
    assert wait(queue, 101, "few") == []
    assert wait(queue, 200, "many") is None
    gone = wait(queue, 102, "other")
    assert gone is not None
    assert [request.connection for request in gone] == [MAX_WAITING - 3]
    assert len(queue.in_turn()) == MAX_WAITING
    assert order(queue)[:3] == [0, 100, 102]


def test_queue_full_of_different_networks_takes_no_more() -> None:
    queue = ServeQueue()
    for connection in range(MAX_WAITING):
        assert wait(queue, connection, str(connection)) == []
    assert wait(queue, 100, "one more") is None


def test_one_peer_waits_for_so_many() -> None:
    queue = ServeQueue()
    for request in range(1, MAX_WAITING_PER_PEER + 1):
        assert wait(queue, 1, "a", request) == []
    assert wait(queue, 1, "a", 9) is None


@pytest.mark.parametrize("peers", [1, MAX_PARKED])
def test_so_many_wait_for_a_commit(peers: int) -> None:
    queue = ServeQueue()
    room = min(MAX_PARKED, peers * MAX_PARKED_PER_PEER)
    parked = [
        queue.park(ConnectionId(connection), "a", ask(request), 0.0)
        for request in range(1, 4)
        for connection in range(peers)
    ]
    assert parked == [True] * room + [False] * (3 * peers - room)
    assert queue.unpark(S) == []
    assert len(queue.unpark(R)) == room
    assert queue.unpark(R) == []
