"""The driver: what a peer says is handled at once where nothing is before it, and the timer goes off when it should."""

import asyncio
import math
from collections.abc import Callable

import pytest

from guts.clock import Now
from guts.effects import Effect
from guts.events import ConnectionId, Event, MessageReceived, UnknownMessageReceived, Woke
from guts.node.driver import Driver
from guts.service.admission import OutOfState
from guts.wire.messages import Ping, Pong
from tests.support.bad_peer import BadPeer, intruder
from tests.support.nodes import World, eventually


@pytest.fixture
async def driver(world: World) -> Driver:
    return (await world.node("node")).node.control._driver


async def idle(driver: Driver) -> None:
    await eventually(lambda: driver._alarm is not None and driver._queue.empty())


async def answered(peer: BadPeer, nonce: int) -> None:
    peer.send(Ping(nonce))
    while (await peer.expect(Pong)).nonce != nonce:
        pass


async def test_message_is_handled_at_once_where_nothing_is_before_it(
    world: World, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[Event] = []
    put = driver._queue.put

    async def watched(item: tuple[Event, asyncio.Future[None] | None]) -> None:
        queued.append(item[0])
        await put(item)

    monkeypatch.setattr(driver._queue, "put", watched)
    async with intruder(world.nodes[0]) as peer:
        for nonce in range(20):
            await idle(driver)
            await answered(peer, nonce)
    # One may have come in the moment that a timer was due.
    assert sum(isinstance(event, MessageReceived) for event in queued) < 5


async def test_message_waits_for_what_is_before_it(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    await idle(driver)
    handled: list[Event] = []

    def noted(event: Event, now: Now) -> list[Effect]:
        handled.append(event)
        return []

    monkeypatch.setattr(driver.service, "handle", noted)
    first = UnknownMessageReceived(ConnectionId(1), 1, 1)
    second = MessageReceived(ConnectionId(2), Ping(1), 1)
    posting = asyncio.create_task(driver.post(first))
    await asyncio.sleep(0)
    await driver._deliver(second)
    await posting
    assert [event for event in handled if not isinstance(event, Woke)] == [first, second]


async def test_message_that_comes_as_the_node_stops_is_handled_by_nobody(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await idle(driver)
    handled: list[Event] = []
    monkeypatch.setattr(driver, "_stopped", True)
    monkeypatch.setattr(driver, "_handle", handled.append)
    delivering = asyncio.create_task(driver._deliver(MessageReceived(ConnectionId(1), Ping(1), 1)))
    await asyncio.sleep(0)
    assert handled == []
    delivering.cancel()


async def test_alarm_goes_off_for_a_deadline_that_a_message_has_set(
    world: World, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle: Callable[[Event, Now], list[Effect]] = driver.service.handle
    deadline, woken = math.inf, asyncio.Event()

    def noted(event: Event, now: Now) -> list[Effect]:
        nonlocal deadline
        if isinstance(event, Woke) and now.mono >= deadline:
            woken.set()
        if isinstance(event, MessageReceived) and event.message == Ping(7):
            deadline = now.mono + 0.1
        return handle(event, now)

    async with intruder(world.nodes[0]) as peer:
        monkeypatch.setattr(driver.service, "deadline", lambda _: deadline)
        monkeypatch.setattr(driver.service, "handle", noted)
        await driver.post(Woke())
        await idle(driver)
        assert driver._alarm is not None
        far: Callable[[], float | None] = driver._alarm.when
        assert (far() or 0.0) > asyncio.get_running_loop().time() + 60
        await answered(peer, 7)
        # Of itself the node has something to do every 15 s.
        await asyncio.wait_for(woken.wait(), 5)


async def test_bug_in_the_service_is_no_fault_of_the_peer_whose_message_met_it(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(event: Event, now: Now) -> list[Effect]:
        raise OutOfState("as if a peer had done it")

    await idle(driver)
    with monkeypatch.context() as patch:
        patch.setattr(driver.service, "handle", broken)
        with pytest.raises(RuntimeError, match="the service failed"):
            await asyncio.wait_for(driver._deliver(MessageReceived(ConnectionId(1), Ping(1), 10)), 30)
