"""Scores and bans on running nodes: at once, over restarts, whatever the clocks say, and as the ledger tells it."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from guts.addresses import Address, parse_subject
from guts.api.errors import ErrorObject
from guts.cli.answer import Answer
from guts.clock import Now
from guts.errors import GutsError
from guts.events import WantedBan
from guts.ids import PeerId
from guts.net.dial import dial
from guts.node.node import read_clock
from guts.noise.keys import KeyPair
from guts.peers.score import BAN_SECONDS, HALF_LIFE, Scores
from guts.store import scores as score_table
from guts.sync.questions import UnsolicitedAnswer
from guts.wire.messages import Goodbye, GoodbyeCode, Refs, Subscribe
from tests.support.bad_peer import intruder
from tests.support.nodes import NETWORK, RunningNode, World, eventually

FOREVER = float("inf")


async def ban(node: RunningNode, who: str, seconds: float = FOREVER, reason: str = "") -> Answer:
    """Ban, as the command does."""
    return Answer.of(await node.node.control.ban([WantedBan(parse_subject(who), seconds, reason)], merge=False))


async def unban(node: RunningNode, who: str) -> None:
    """Unban, as the command does."""
    await node.node.control.unban(parse_subject(who))


async def rude(node: RunningNode, times: int) -> PeerId:
    """Let a peer answer what nobody asked, ``times`` times; return who it is."""
    async with intruder(node) as peer:
        for number in range(times):
            peer.send(Refs(number + 1, ()))
            await counted(node, peer.id, number + 1)
    return peer.id


async def counted(node: RunningNode, peer: PeerId, times: int) -> None:
    """Wait until ``node`` has counted as many faults of ``peer``."""

    async def are_there() -> bool:
        return len(await node.reasons(peer)) == times

    await eventually(are_there)


def scores(node: RunningNode) -> Scores:
    """Return the scores of a running node."""
    return node.node.control._service.peers.scores


def added_up(shown: Answer) -> float:
    """Add the ledger up as its reader would."""
    half_life = shown.seconds("half_life_s")
    changes = shown.objects("ledger")
    first = changes[0]
    total, ago = first.seconds("total"), first.seconds("ago_s")
    for row in changes[1:]:
        total = total * 0.5 ** ((ago - row.seconds("ago_s")) / half_life) + row.seconds("change")
        ago = row.seconds("ago_s")
        assert total == pytest.approx(row.seconds("total"), abs=0.01)
    return float(total * 0.5 ** (ago / half_life))


async def test_ledger_adds_up_to_the_score(world: World) -> None:
    node = await world.node("node")
    peer = await rude(node, 1)
    shown = Answer.of(await node.node.control.peer(peer))
    assert (shown.text("state"), shown.text("standing")) == ("not connected", "grey")
    again = await rude_again(node, peer)
    assert again.text("standing") == "shut out"
    assert again.seconds("left_s") == pytest.approx(600, abs=60)
    for told in (shown, again):
        assert added_up(told) == pytest.approx(told.seconds("score"), abs=0.01)
        assert told.seconds("half_life_s") == HALF_LIFE
    assert [row.text("reason") for row in again.objects("ledger")] == ["UNSOLICITED_ANSWER"] * 2
    assert [row.seconds("barred_s") for row in again.objects("ledger")] == [0.0, 600.0]
    await unban(node, str(peer))
    forgiven = Answer.of(await node.node.control.peer(peer))
    assert (forgiven.text("standing"), forgiven.seconds("score")) == ("ok", 0.0)
    assert added_up(forgiven) == pytest.approx(0.0, abs=0.01)
    assert [row.text("reason") for row in forgiven.objects("ledger")][-1] == "UNBANNED"


async def rude_again(node: RunningNode, peer: PeerId) -> Answer:
    """Count another serious fault of ``peer``; return what is shown of it."""
    for effect in scores(node).count(peer, UnsolicitedAnswer("x"), read_clock()):
        node.node.control._persistence.keep(effect.change)
    return Answer.of(await node.node.control.peer(peer))


async def test_peer_that_is_banned_is_told_at_once_and_not_let_in_until_it_is_unbanned(world: World) -> None:
    node = await world.node("node")
    async with intruder(node) as peer, intruder(node) as other:
        told = await ban(node, str(peer.id), 3_600.0, "spam")
        assert (told.number("changed"), told.number("closed")) == (1, 1)
        goodbye = await peer.expect(Goodbye)
        assert goodbye.code is GoodbyeCode.BANNED
        assert goodbye.retry_after_s == pytest.approx(3_600, abs=2)
        await peer.is_dropped()
        assert (await ban(node, str(peer.id), 3_600.0, "spam")).number("changed") == 0
        async with intruder(node, peer.key, hello=False) as again:
            await again.is_dropped()
            assert [goodbye.code for goodbye in again.goodbyes()] == [GoodbyeCode.BANNED]
        assert not other.closed
    shown = Answer.of(await node.node.control.peer(peer.id))
    assert (shown.text("standing"), shown.text("reason")) == ("banned by the operator", "spam")
    await unban(node, str(peer.id))
    async with intruder(node, peer.key):
        pass
    await unban(node, str(peer.id))


async def test_network_that_is_banned_gets_no_handshake(world: World) -> None:
    node = await world.node("node")
    async with intruder(node) as peer:
        assert (await ban(node, "127.0.0.0/8")).number("closed") == 1
        assert (await peer.expect(Goodbye)).code is GoodbyeCode.BANNED
        await peer.is_dropped()
    with pytest.raises(GutsError):
        await dial(node.address, key=peer.key, network=NETWORK, static=KeyPair.generate())
    with pytest.raises(GutsError) as caught:
        await unban(node, "127.0.0.1")
    assert caught.value.code == "STILL_BANNED"
    assert caught.value.hint == "guts peer unban 127.0.0.0/8"
    await unban(node, "127.0.0.0/8")
    async with intruder(node, peer.key):
        pass


async def test_trusted_peer_is_not_banned(world: World) -> None:
    first = await world.node("first")
    second = await world.node("second", network__trusted_peers=str(first.id))
    with pytest.raises(GutsError, match="trusted_peers"):
        await ban(second, str(first.id))
    assert Answer.of(await second.node.control.peer(first.id)).text("standing") == "trusted"
    told = await second.node.control.ban(
        [WantedBan(first.id, 60.0, ""), WantedBan(parse_subject("192.0.2.1"), 60.0, "")], merge=True
    )
    assert (told["changed"], told["skipped"]) == (1, 1)


async def test_nobody_is_known_who_never_came(world: World) -> None:
    node = await world.node("node")
    with pytest.raises(GutsError) as caught:
        await node.node.control.peer(PeerId(b"x" * 32))
    assert caught.value.code == "UNKNOWN_PEER"


def bans_of(rows: Sequence[object]) -> dict[str, float]:
    """Return the seconds that each ban lasts yet."""
    told = [Answer.of(row) for row in rows]
    return {row.text("subject"): row.seconds("left_s", FOREVER) for row in told}


@pytest.mark.parametrize("hours", [-24 * 3650, -1, 1, 24 * 3650])
async def test_s4_restart_keeps_bans_and_no_clock_ends_or_prolongs_them(world: World, hours: int) -> None:
    node = await world.node("node")
    async with intruder(node, hello=False) as peer:
        peer.send(Subscribe(()))
        await peer.is_dropped()
    short = PeerId(b"s" * 32)
    await ban(node, "192.0.2.0/24")
    await ban(node, "198.51.100.0/24", 7_200.0)
    await ban(node, str(short), 1.0)
    begun = time.monotonic()
    before = bans_of(await node.node.control.bans())
    assert before[str(peer.id)] == pytest.approx(BAN_SECONDS, abs=60)
    await node.stop()

    jump_ms = hours * 3_600_000
    node.clock = lambda: Now(time.monotonic(), time.time_ns() // 1_000_000 + jump_ms)
    await asyncio.sleep(max(0.0, begun + 1.0 - time.monotonic()))
    await node.start()
    after = bans_of(await node.node.control.bans())
    passed = time.monotonic() - begun
    # Time off counts, to the millisecond: the machine was not started anew. So the ban of a second is over.
    assert set(after) == {str(peer.id), "192.0.2.0/24", "198.51.100.0/24"}
    for who, left in after.items():
        assert left == pytest.approx(before[who] - passed, abs=0.5)
    async with intruder(node, peer.key, hello=False) as again:
        await again.is_dropped()
        assert [goodbye.code for goodbye in again.goodbyes()] == [GoodbyeCode.BANNED]
    assert scores(node).refuses(Address("192.0.2.77", 9000), time.monotonic())


async def test_list_of_one_node_is_taken_by_another_and_taking_it_again_changes_nothing(world: World) -> None:
    one, other = await world.node("one"), await world.node("other")
    await ban(one, "192.0.2.0/24", FOREVER, "spam")
    await ban(one, "198.51.100.7", 7_200.0)
    await ban(other, "198.51.100.7", 60.0)
    wanted = [
        WantedBan(parse_subject(row.text("subject")), row.seconds("left_s", FOREVER), row.text("reason"))
        for row in map(Answer.of, await one.node.control.bans())
    ]
    told = [Answer.of(await other.node.control.ban(wanted, merge=True)) for _ in range(2)]
    assert [(answer.number("changed"), answer.number("unchanged")) for answer in told] == [(2, 0), (0, 2)]
    assert bans_of(await other.node.control.bans()) == {
        "192.0.2.0/24": FOREVER,
        "198.51.100.7": pytest.approx(7_200, abs=5),
    }


async def neighbours(world: World) -> tuple[RunningNode, RunningNode]:
    """Return two nodes, of which the second has dialled the first."""
    first = await world.node("first")
    second = await world.node("second", doors=(first.hint,))
    await eventually(lambda: first.connected_to(second.id) and second.connected_to(first.id))
    return first, second


@pytest.mark.parametrize("by_dialler", [True, False])
async def test_network_that_is_let_in_again_is_connected_within_seconds(world: World, by_dialler: bool) -> None:
    first, second = await neighbours(world)
    banning, other = (second, first) if by_dialler else (first, second)
    await ban(banning, "127.0.0.0/8")
    await eventually(lambda: not banning.connected_to(other.id) and not other.connected_to(banning.id))
    await unban(banning, "127.0.0.0/8")
    await eventually(lambda: banning.connected_to(other.id), 8.0)


@pytest.mark.parametrize("by_dialler", [True, False])
@pytest.mark.parametrize("of_node", [True, False])
async def test_ban_of_a_second_is_over_after_a_second(world: World, by_dialler: bool, of_node: bool) -> None:
    first, second = await neighbours(world)
    banning, other = (second, first) if by_dialler else (first, second)
    begun = time.monotonic()
    await ban(banning, str(other.id) if of_node else "127.0.0.0/8", 1.0)
    await eventually(lambda: not banning.connected_to(other.id))
    await eventually(lambda: banning.connected_to(other.id), 8.0)
    assert time.monotonic() - begun >= 1.0


async def test_goodbye_to_who_comes_from_a_banned_network_says_for_how_long(world: World) -> None:
    node = await world.node("node")
    async with intruder(node) as peer:
        await ban(node, "127.0.0.0/8", 60.0)
        goodbye = await peer.expect(Goodbye)
        assert goodbye.code is GoodbyeCode.BANNED
        assert goodbye.retry_after_s == pytest.approx(60, abs=2)


async def test_trusted_peer_stays_and_comes_back_where_its_network_is_banned(world: World) -> None:
    first = await world.node("first")
    second = await world.node("second", doors=(first.hint,), network__trusted_peers=str(first.id))
    await eventually(lambda: second.connected_to(first.id) and first.connected_to(second.id))
    async with intruder(second) as stranger:
        assert (await ban(second, "127.0.0.0/8")).number("closed") == 1
        await stranger.is_dropped()
    assert second.connected_to(first.id)
    async with intruder(second, hello=False) as stranger:
        # It got a handshake, for the trusted peer may be at this address; and no more.
        await stranger.is_dropped()
        assert [goodbye.code for goodbye in stranger.goodbyes()] == [GoodbyeCode.BANNED]
    await first.stop()
    await eventually(lambda: not second.connected_to(first.id))
    await first.start()
    await eventually(lambda: second.connected_to(first.id))


async def test_nobody_bans_this_node_or_everybody(world: World) -> None:
    node = await world.node("node")
    for who, code in ((str(node.id), "OWN_NODE"), ("0.0.0.0/0", "BANS_TOO_MUCH"), ("::/0", "BANS_TOO_MUCH")):
        with pytest.raises(GutsError) as caught:
            await ban(node, who)
        assert caught.value.code == code
        assert caught.value.hint
    told = await node.node.control.ban([WantedBan(node.id, 60.0, "")], merge=True)
    assert (told["changed"], told["skipped"]) == (0, 1)
    assert await node.node.control.bans() == []


async def test_who_is_banned_is_told_for_how_long_and_what_helps(world: World) -> None:
    first, second = await world.node("first"), await world.node("second")
    await ban(first, str(second.id), 3_600.0)
    with pytest.raises(GutsError) as caught:
        await second.node.control.connect(first.hint, 10.0)
    told = ErrorObject.of(caught.value)
    assert told.message == "the node has banned this one; it may be asked again in 60 m"
    assert told.hint == "ask who runs it, or name another node that you know: guts://HOST:PORT/REPOSITORY"
    assert told.details == {"goodbye": "banned", "retry_after_s": 3_600, "by_this_node": False}
    with pytest.raises(GutsError, match="this node bans the other one") as caught:
        await first.node.control.connect(second.hint, 10.0)
    assert "guts peer unban" in str(caught.value.hint)
    await ban(first, "127.0.0.0/8")
    with pytest.raises(GutsError, match="or it bans this address"):
        await second.node.control.connect(first.hint, 10.0)


async def test_nothing_is_said_of_how_useful_a_peer_is_that_was_never_asked(world: World) -> None:
    first, second = await neighbours(world)
    assert (await first.node.control.peer(second.id))["usefulness"] is None


async def test_running_time_is_stored_with_every_ban(world: World) -> None:
    node = await world.node("node")

    async def stored() -> int:
        return (await node.node.repositories.database.read(score_table.load_running_time)).ran

    before = await stored()
    async with intruder(node, hello=False) as peer:
        peer.send(Subscribe(()))
        await peer.is_dropped()
    await eventually(node.node.control._persistence._queue.empty)
    await node.node.control._persistence.drain()
    after_fault = await stored()
    assert after_fault > before
    await ban(node, "192.0.2.0/24", 60.0)
    assert await stored() > after_fault
