"""Answers to GetRefs that the owner of a repository has made to measure."""

import hashlib
import os

from guts.ids import AuthorId, RepositoryId
from guts.limits import DEFAULTS
from guts.node.refs_reader import RefsReader
from guts.store import repositories as table
from guts.store.accepted import AcceptedState, IdentityDocument, NewSignedRefs, SignedRefs
from guts.store.database import Database
from guts.wire import codec
from guts.wire.limits import MAX_QUERIES
from guts.wire.messages import GetRefs, Refs, RefsQuery
from tests.support.bad_peer import intruder
from tests.support.nodes import World, eventually

MAX_LOADS_PER_PEER = int(DEFAULTS["requests_per_peer"])

SMALL = 241
"""Bytes of the smallest identity document behind genesis."""


async def keep(database: Database, number: int, documents: int) -> RepositoryId:
    """Have ``documents`` small documents and one tiny record in the database, as a node that holds them has."""
    repository = RepositoryId(hashlib.sha256(b"%d" % number).digest())
    author = AuthorId(bytes(32))
    state = AcceptedState(
        repository=repository,
        name="x",
        description="",
        documents=tuple(IdentityDocument(epoch, os.urandom(32), os.urandom(SMALL)) for epoch in range(documents)),
        signed_refs=(NewSignedRefs(author, SignedRefs(author, 1, os.urandom(32), os.urandom(270), b"x"), None),),
        equivocations=(),
        canonical={},
        head="refs/heads/main",
        seeding=True,
        size=0,
        now_ms=0,
    )
    await database.write(table.commit, state)
    return repository


async def test_node_never_answers_with_more_values_than_a_message_holds(world: World) -> None:
    """Or whoever asked would ban it, for what the owner of the repositories did."""
    node = await world.node("node")
    database = node.node.repositories.database
    held = [await keep(database, number, 1000) for number in range(18)]
    asked = tuple(RefsQuery(repository, 0, b"", ()) for repository in held)
    asked += tuple(RefsQuery(RepositoryId(os.urandom(32)), 0, b"", ()) for _ in range(MAX_QUERIES - len(asked)))
    reader = RefsReader(database)
    cursor, documents = b"", 0
    for _ in range(4):
        answers, cursor = await reader.read(asked, cursor)
        documents += sum(len(answer.documents) for answer in answers)
        codec.decode(codec.encode(Refs(1, answers, cursor)))
        if not cursor:
            break
    assert documents >= 18_000


async def test_peer_that_floods_with_questions_waits_for_its_answers_alone(world: World) -> None:
    """Sixteen requests of one peer, 64 repositories each, stand behind each other and not before another peer's."""
    node = await world.node("node")
    database = node.node.repositories.database
    held = await keep(database, 1, 1000)
    loads: list[int] = []
    driver = node.node.control._driver
    read = driver._refs_reader.read

    async def counted(*asked: object) -> object:
        loads.append(len(loads) - ended[0])
        answer = await read(*asked)  # type: ignore[arg-type]
        ended[0] += 1
        return answer

    ended = [0]
    driver._refs_reader.read = counted  # type: ignore[method-assign,assignment]
    async with intruder(node) as flood, intruder(node) as honest:
        for number in range(1, MAX_LOADS_PER_PEER + 1):
            flood.send(GetRefs(number, tuple(RefsQuery(held, 0, b"", ()) for _ in range(MAX_QUERIES))))
        await eventually(lambda: bool(loads))
        honest.send(GetRefs(1, (RefsQuery(held, 1000, b"", ()),)))
        await honest.expect(Refs)
        assert ended[0] < MAX_LOADS_PER_PEER
    assert max(loads) <= 1
    await eventually(lambda: not driver._turns)
