"""``guts limits set`` on a running node: at once, over restarts, and taken back."""

import asyncio
from collections import Counter

import pytest

from guts.clock import Now
from guts.effects import Effect
from guts.events import ConnectionId, Event, MessageReceived
from guts.limits import DEFAULTS, BadLimit
from guts.node.driver import Driver
from guts.wire.messages import Error, ErrorCode, GetRefs, Refs
from tests.support.bad_peer import intruder
from tests.support.nodes import RunningNode, World, config_of


async def shown(node: RunningNode, name: str) -> tuple[object, object]:
    [row] = [row for row in await node.node.control.limits() if row["name"] == name]
    return row["value"], row["source"]


async def test_limits_are_changed_live_kept_over_a_restart_and_taken_back(world: World) -> None:
    node = await world.node("node")
    told = await node.node.control.set_limits({"serves": "7", "gossip_rate": 2.5, "bytes_burst": "1MiB"})
    assert [row["name"] for row in told] == ["gossip_rate", "bytes_burst", "serves"]
    assert [row["value"] for row in told] == [2.5, 1 << 20, 7]
    assert node.node.control._service.limits.values["serves"] == 7
    await node.stop()

    again = RunningNode(node.home, config_of(node.home))
    await again.start()
    world.nodes[0] = again
    assert await shown(again, "serves") == (7, "limits set")
    await again.node.control.set_limits({"serves": "default", "gossip_rate": "default"})
    assert await shown(again, "serves") == (DEFAULTS["serves"], "default")
    assert again.config.paths.limits_file.read_text().splitlines()[1:] == ["[limits]", "bytes_burst = 1048576"]
    await again.node.control.set_limits({"bytes_burst": "default"})
    assert not again.config.paths.limits_file.exists()


async def test_one_bad_change_leaves_all_as_it_was(world: World) -> None:
    node = await world.node("node", limits__git="5")
    for changes in ({"serves": "7", "gti": "7"}, {"serves": "7", "git": "many"}, {"serves": "7", "git": "6"}):
        with pytest.raises(BadLimit):
            await node.node.control.set_limits(changes)
    assert await shown(node, "serves") == (4, "default")
    assert await shown(node, "git") == (5, "command line")
    assert not node.config.paths.limits_file.exists()


async def test_peer_that_waits_by_the_old_limit_is_let_go_by_the_new_one(world: World) -> None:
    node = await world.node("node")
    await node.node.control.set_limits({"refs_burst": 1, "refs_rate": 1})
    async with intruder(node) as peer:
        for request in range(1, 3):
            peer.send(GetRefs(request, ()))
        await peer.expect(Refs)
        await peer.expect(Refs)
        rows = {row["name"]: row for row in await node.node.control.limits()}
        assert rows["refs_rate"]["bit"] == 1
        assert rows["refs_burst"]["peak"] == 1
        await node.node.control.set_limits({"refs_burst": "1000", "refs_rate": "1000"})
        for request in range(3, 203):
            peer.send(GetRefs(request, ()))
        for _ in range(200):
            await peer.expect(Refs)
        assert (await node.node.control.limits())[4]["bit"] == 1
    assert await node.reasons(peer.id) == []


async def test_connection_has_one_message_in_the_queue_however_many_it_sends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node("node")
    driver = node.node.control._driver
    # As if something always were before it: what is handled at once waits in no queue.
    monkeypatch.setattr(Driver, "_alarm", property(lambda _: None, lambda *_: None), raising=False)
    handle, most, seen = driver.service.handle, Counter[ConnectionId](), 0

    def watching(event: Event, now: Now) -> list[Effect]:
        nonlocal seen
        waiting = [each for each, _ in driver._queue._queue if isinstance(each, MessageReceived)]  # type: ignore[attr-defined]
        for connection, count in Counter(each.connection for each in waiting).items():
            most[connection] = max(most[connection], count)
        seen += isinstance(event, MessageReceived)
        return handle(event, now)

    monkeypatch.setattr(driver.service, "handle", watching)
    async with intruder(node) as one, intruder(node) as other:
        for number in range(500):
            for peer in (one, other):
                peer.send(Error(number, ErrorCode.BUSY))
            if number % 50 == 0:
                await asyncio.sleep(0)
        for peer in (one, other):
            peer.send(GetRefs(1, ()))
            await peer.expect(Refs)
    assert seen >= 1002
    assert set(most.values()) == {1}
