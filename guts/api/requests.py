"""What requests carry, parsed: bodies, ids, addresses, times."""

import json
from typing import Final

from aiohttp import web

from guts.addresses import BootstrapAddress
from guts.api.errors import BadRequest
from guts.ids import RepositoryId

MAX_HINTS: Final = 64
DEFAULT_TIMEOUT: Final = 60.0
MAX_TIMEOUT: Final = 86_400.0
"""Seconds. A first copy over a slow line takes hours; nobody waits for more than a day."""

MAX_SIZE_DIGITS: Final = 18
"""Of a number of bytes: an exbibyte and less."""

Json = dict[str, object]


def repository_of(request: web.Request) -> RepositoryId:
    """Return the repository in the path. Raises: ``BadId``."""
    return RepositoryId.parse(request.match_info["repository"])


async def body_of(request: web.Request) -> Json:
    """Return the JSON object in the body; an empty body is an empty one. Raises: ``BadRequest``."""
    data = await request.read()
    if not data:
        return {}
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def text_of(value: object, name: str) -> str:
    """Return the text ``value`` of the field ``name``. Raises: ``BadRequest``."""
    if not isinstance(value, str):
        raise BadRequest(f"{name} is missing, or not a text")
    return value


def search_of(request: web.Request) -> tuple[list[BootstrapAddress], float]:
    """Return where to look for holders beside the DHT, and how long, from ``?hint=HOST:PORT…&timeout=SECONDS``."""
    return addresses_of(request.query.getall("hint", [])), timeout_of(request.query.get("timeout"))


def bytes_of(request: web.Request, name: str) -> int:
    """Return a number of bytes from the query, 0 where it is missing. Raises: ``BadRequest``."""
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_SIZE_DIGITS:
        raise BadRequest(f"{name} is no number of bytes")
    return int(text)


def addresses_of(hints: object) -> list[BootstrapAddress]:
    """Return the addresses in a list of texts. Raises: ``BadRequest``, ``BadAddress``."""
    if not isinstance(hints, list) or len(hints) > MAX_HINTS:
        raise BadRequest(f"hints is not a list of at most {MAX_HINTS} addresses")
    return [BootstrapAddress.parse(text_of(hint, "hint")) for hint in hints]


def timeout_of(value: object) -> float:
    """Return a number of seconds; ``None``: the default. Raises: ``BadRequest``."""
    if value is None:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise BadRequest(f"timeout is not a number of seconds up to {MAX_TIMEOUT:.0f}")
    return seconds
