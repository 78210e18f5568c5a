"""Answers to GetRefs that the owner of a repository has made to measure."""

import hashlib
import os

from guts.ids import AuthorId, RepositoryId
from guts.node.refs_reader import RefsReader
from guts.store import repositories as table
from guts.store.database import Database
from guts.wire import codec
from guts.wire.limits import MAX_QUERIES
from guts.wire.messages import Refs, RefsQuery
from tests.support.nodes import World

SMALL = 241
"""Bytes of the smallest identity document behind genesis."""


async def keep(database: Database, number: int, documents: int) -> RepositoryId:
    """Have ``documents`` small documents and one tiny record in the database, as a node that holds them has."""
    repository = RepositoryId(hashlib.sha256(b"%d" % number).digest())
    author = AuthorId(bytes(32))
    state = table.AcceptedState(
        repository=repository,
        name="x",
        description="",
        documents=tuple(table.IdentityDocument(epoch, os.urandom(32), os.urandom(SMALL)) for epoch in range(documents)),
        signed_refs=(
            table.NewSignedRefs(table.SignedRefs(author, 1, os.urandom(32), os.urandom(270), b"x"), None, ()),
        ),
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
