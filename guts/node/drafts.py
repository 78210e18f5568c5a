"""``Draft``: what a command, or a push, wants published; read from the JSON that it comes in."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from guts.errors import UsageError
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.trust.authoring import Copy
from guts.trust.updates import RefUpdate, Updates


class BadPublication(UsageError):
    """What a command wants published does not fit together."""

    code: ClassVar[str] = "BAD_PUBLICATION"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a command, or a push, wants to publish.

    Attributes:
        genesis: the signed genesis document, for a repository that the node does not hold.
    """

    repository: RepositoryId
    author: AuthorId
    genesis: bytes | None
    intent: Copy | Updates

    @classmethod
    def parse(cls, header: Mapping[str, object]) -> "Draft":
        """Return the draft that the JSON ``header`` of a publication describes (``guts.api.publication``).

        Raises:
            BadPublication, BadId: it describes none.
        """
        match header:
            case {"repository": str(repository), "author": str(author), "genesis": str() | None as genesis, **rest}:
                pass
            case _:
                raise BadPublication("not the header of a publication")
        try:
            document = base64.b64decode(genesis, validate=True) if genesis is not None else None
            intent = _updates(rest) if "updates" in rest else _copy(rest)
        except (binascii.Error, ValueError) as error:
            raise BadPublication(f"not the header of a publication: {error}") from None
        return cls(RepositoryId.parse(repository), AuthorId.parse(author), document, intent)


def _copy(header: Mapping[str, object]) -> Copy:
    match header:
        case {"refs": dict(refs), "head": str(head), "force": list(force)}:
            pass
        case _:
            raise BadPublication("not the header of a publication")
    return Copy(
        {str(name): ObjectId(bytes.fromhex(str(oid))) for name, oid in refs.items()},
        head,
        frozenset(str(name) for name in force),
        prune=header.get("prune") is True,
        move_head=header.get("move_head") is True,
    )


def _updates(header: Mapping[str, object]) -> Updates:
    match header:
        case {"updates": dict(updates), "head": str() | None as head}:
            pass
        case _:
            raise BadPublication("not the header of a push")
    refs = {}
    for name, update in updates.items():
        match update:
            case [str() | None as old, str() | None as new]:
                refs[str(name)] = RefUpdate(_oid(old), _oid(new))
            case _:
                raise BadPublication(f"not what a push does with a ref: {update!r}")
    return Updates(refs, head, force=header.get("force") is True, atomic=header.get("atomic") is True)


def _oid(text: str | None) -> ObjectId | None:
    return None if text is None else ObjectId(bytes.fromhex(text))
