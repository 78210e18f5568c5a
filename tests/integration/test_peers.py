"""Real nodes tell each other of nodes, leave in good order, and come back."""

import dataclasses

from guts.peers.state import PeerConnection
from guts.wire.messages import GoodbyeCode
from tests.support.nodes import RunningNode, World, eventually


def connection(node: RunningNode, other: RunningNode) -> PeerConnection | None:
    return node.node.control._service.peers.connection_to(other.id)


async def test_two_nodes_that_know_one_door_find_each_other(world: World) -> None:
    door = await world.node("door")
    one, other = [await world.node(name, doors=(door.hint,)) for name in ("one", "other")]
    await eventually(lambda: one.connected_to(other.id) and other.connected_to(one.id))
    assert any(a.node.control._service.peers.peers[b.id].reached for a, b in ((one, other), (other, one)))


async def test_node_that_stops_says_so_and_its_peers_come_back(world: World) -> None:
    door = await world.node("door")
    one = await world.node("one", doors=(door.hint,))
    await eventually(lambda: one.connected_to(door.id))
    met = connection(one, door)
    assert met is not None
    door.config = dataclasses.replace(
        door.config, network=dataclasses.replace(door.config.network, listen_addr=door.address)
    )
    id = door.id
    await door.stop()
    await eventually(lambda: not one.connected_to(id))
    assert met.farewell is not None
    assert (met.farewell.goodbye, met.farewell.retry_after_s) == (GoodbyeCode.SHUTTING_DOWN, 1)
    await door.start()
    await eventually(lambda: one.connected_to(id), 60.0)
