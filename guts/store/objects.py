"""Metadata of git objects: derived, written in chunks after the commit, replaced or counted as a whole."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final, final

from sqlalchemy import Connection, bindparam, func, select

from guts.ids import ObjectId, RepositoryId
from guts.store.accepted import NotHeld
from guts.store.dialect import insert_or_ignore
from guts.store.schema import REPOSITORY, listed_packs, objects, of, repositories

CHUNK: Final = 10_000
"""Objects per transaction: about 0.1 s of the writer, so that a commit never waits long behind them."""

_SELECT_NUMBER: Final = select(repositories.c.number).where(repositories.c.id == REPOSITORY)
_SELECT_LISTED: Final = select(listed_packs.c.pack).where(listed_packs.c.repository == bindparam("number"))


class ObjectType(IntEnum):
    """Types of git objects, with the numbers that packs use (gitformat-pack(5))."""

    COMMIT = 1
    TREE = 2
    BLOB = 3
    TAG = 4


@final
@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object.

    Attributes:
        size: bytes of its content, inflated.
    """

    id: ObjectId
    type: ObjectType
    size: int


@final
@dataclass(frozen=True, slots=True)
class ObjectTotals:
    """How many objects of one type there are, and the sum of their sizes in bytes."""

    count: int
    size: int


def chunks(found: Iterable[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """Yield ``found`` in lists of at most ``CHUNK``: one ``insert`` and one transaction each."""
    iterator = iter(found)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def insert(connection: Connection, repository: RepositoryId, chunk: Iterable[ObjectInfo]) -> None:
    """Add the objects of ``chunk``; those that are known already stay as they are.

    Raises:
        NotHeld: the repository is not, or no longer, here.
    """
    number = _number(connection, repository)
    # In order of the key, so that neighbours share pages of the tree.
    ordered = sorted(chunk, key=lambda info: info.id)
    rows = [{"repository": number, "id": o.id, "type": int(o.type), "size": o.size} for o in ordered]
    insert_or_ignore(connection, objects, rows)


def unlisted(connection: Connection, repository: RepositoryId, packs: Iterable[str]) -> list[str]:
    """Return those of ``packs`` (names) whose objects are not, or not all, told yet.

    Raises:
        NotHeld: the repository is not here.
    """
    number = _number(connection, repository)
    listed = set(connection.scalars(_SELECT_LISTED, {"number": number}))
    return [pack for pack in packs if pack not in listed]


def mark_listed(connection: Connection, repository: RepositoryId, pack: str) -> None:
    """Note that all objects of ``pack`` are told.

    Raises:
        NotHeld: the repository is not here.
    """
    number = _number(connection, repository)
    insert_or_ignore(connection, listed_packs, [{"repository": number, "pack": pack}])


def insert_last(connection: Connection, repository: RepositoryId, chunk: Iterable[ObjectInfo], pack: str) -> None:
    """Add the objects of ``chunk``, the last ones of ``pack``, and note that all of it is told. Raises: ``NotHeld``."""
    insert(connection, repository, chunk)
    mark_listed(connection, repository, pack)


def totals(connection: Connection, repository: RepositoryId) -> Mapping[ObjectType, ObjectTotals]:
    """Return the totals of every type that occurs.

    Raises:
        NotHeld: the repository is not here.
    """
    number = _number(connection, repository)
    rows = connection.execute(
        select(objects.c.type, func.count(), func.sum(objects.c.size))
        .where(objects.c.repository == number)
        .group_by(objects.c.type)
        .order_by(objects.c.type)
    )
    return {ObjectType(kind): ObjectTotals(count, int(size)) for kind, count, size in rows}


def find(connection: Connection, repository: RepositoryId, id: ObjectId) -> ObjectInfo | None:
    """Return what is known of one object.

    Raises:
        NotHeld: the repository is not here.
    """
    number = _number(connection, repository)
    row = connection.execute(
        select(objects.c.type, objects.c.size).where(objects.c.repository == number, objects.c.id == id)
    ).one_or_none()
    return None if row is None else ObjectInfo(id, ObjectType(row.type), row.size)


def _number(connection: Connection, repository: RepositoryId) -> int:
    number = connection.scalar(_SELECT_NUMBER, of(repository))
    if number is None:
        raise NotHeld(f"{repository.short}… is not held here")
    return number
