"""What names and ends of streams a peer could use to end a node."""

from guts.wire.messages import GetObjects, Objects, ObjectsStatus
from tests.adversarial.test_bad_asker import ALL, server, still_serves
from tests.support.bad_peer import intruder
from tests.support.nodes import World


async def test_node_survives_two_requests_that_name_one_stream(world: World) -> None:
    """The first answer ends the stream; a second one must not be written behind that end."""
    node, maintainer = await server(world)
    async with intruder(node) as peer:
        stream = peer.connection.open_stream()
        peer.send(GetObjects(1, maintainer.repository, stream.id, ALL, "", 0, 0))
        assert (await peer.expect(Objects)).status is ObjectsStatus.PACK_FOLLOWS
        peer.send(GetObjects(2, maintainer.repository, stream.id, ALL, "", 0, 0))
        await peer.is_dropped()
    assert await node.reasons(peer.id) == ["BAD_STREAM"]
    await still_serves(world, node, maintainer)
