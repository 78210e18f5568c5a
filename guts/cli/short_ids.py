"""Ids as tables show them, cut short: accepted where the running node knows one id that begins so."""

import os
import re
from typing import TYPE_CHECKING, Final

import click

from guts.cli.answer import Answer, answers
from guts.cli.session import Session
from guts.ids import AuthorId, BadId, PeerId, RepositoryId

if TYPE_CHECKING:  # as in guts.cli.session
    from guts.cli.client import ControlClient

    _ParamType = click.ParamType[object]
else:  # of click 8.2 it takes no type
    _ParamType = click.ParamType

MIN_LENGTH: Final = 12
"""Characters, as many as tables show: 35 bits, so that two of 1,000 ids begin alike once in 70,000 networks."""

WHOLE_LENGTH: Final = 63
MAX_NAMED: Final = 5
_BEGINNING: Final = re.compile(
    rf"(?:{PeerId.prefix}|{AuthorId.prefix}|{RepositoryId.prefix})1[qpzry9x8gf2tvdw0s3jn54khce6mua7l]+"
)
_LISTS: Final = {
    PeerId.prefix: "guts peer ls --json",
    AuthorId.prefix: "guts seeding --json",
    RepositoryId.prefix: "guts ls --json",
}


class _KnownId(_ParamType):
    """The type of an argument that may be an id; everything but the beginning of one stays as it is."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return the whole id that ``value`` begins. Raises: ``BadId``: none is known, or several."""
        session = ctx.find_object(Session) if ctx else None
        if session is None or not isinstance(value, str):
            return value
        beginning = value.removesuffix("…")
        if not MIN_LENGTH <= len(beginning) < WHOLE_LENGTH or not _BEGINNING.fullmatch(beginning):
            return value
        return value if os.path.isdir(value) else _whole(session.client(), beginning)


KNOWN_ID: Final = _KnownId()


def _whole(client: "ControlClient", beginning: str) -> str:
    from guts.cli.client import NodeDown

    prefix = beginning[:4]
    hint = f"{_LISTS[prefix]} shows whole ids"
    try:
        known = sorted(id_ for id_ in _known(client, prefix) if id_.startswith(beginning))
    except NodeDown:
        raise BadId(beginning, "is mistyped or cut short, and no node runs that may know it", hint=hint) from None
    if not known:
        raise BadId(beginning, "is mistyped or cut short, and begins no id that this node knows", hint=hint)
    if len(known) > 1:
        more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
        raise BadId(beginning, f"begins several ids: {', '.join(known[:MAX_NAMED])}{more}", hint="give more of it")
    return known[0]


def _known(client: "ControlClient", prefix: str) -> set[str]:
    """Return the ids of one kind that the node lists anywhere."""
    if prefix == PeerId.prefix:
        peers = [known.text("peer") for known in answers(client.get("/v1/peers"))]
        return {*peers, *(row.text("subject") for row in answers(client.get("/v1/bans")))}
    policy = Answer.of(client.get("/v1/seeding"))
    found = {row.text("id") for row in policy.objects("blocked")}
    held = policy.objects("repositories")
    if prefix == AuthorId.prefix:
        owners = [owner.text("author") for owner in policy.objects("owners")]
        return {*found, *owners, *(author for one in held for author in one.texts("owners"))}
    listed = [*held, *answers(client.get("/v1/repositories"))]
    return {*found, *policy.texts("declined"), *(one.text("id") for one in listed)}
