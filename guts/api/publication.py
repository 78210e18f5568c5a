"""The streamed body of a publication: a JSON header and a pack of any size.

The header has ``repository``, ``author``, ``genesis`` (base64, where the node does not hold it, or null), and

- of ``guts publish``, a whole copy: ``refs`` {name: oid}, ``head``, ``move_head``, ``force`` [name], ``prune``;
- of a push: ``updates`` {name: [old oid or null, new oid or null]}, ``head`` (or null), ``force``, ``atomic``.
"""

import json
from collections.abc import AsyncIterator
from typing import ClassVar, Final

import aiohttp
from aiohttp import web

from guts.errors import Unavailable, UsageError

HEADER_LENGTH_BYTES: Final = 4
MAX_HEADER_BYTES: Final = 8 << 20
"""5,000 refs with names of 255 bytes and two ids are 4.3 MB as JSON, where the names are of letters that it writes as
``\\u0000``; a genesis document of 64 KiB is 88 kB in base64."""

PIECE_BYTES: Final = 256 << 10
"""Read at a time: far more than a pipe takes, far less than anybody notices."""


class BadPublication(UsageError):
    """The body is not a header and a pack."""

    code: ClassVar[str] = "BAD_REQUEST"


class UploadBroken(Unavailable):
    """The command went away before its pack was here."""

    code: ClassVar[str] = "UPLOAD_BROKEN"


async def read_header(body: aiohttp.StreamReader) -> dict[str, object]:
    """Return the JSON header at the start of ``body``.

    Raises:
        BadPublication: too long, not JSON, or not an object.
        UploadBroken: the body ended inside of it.
    """
    length = int.from_bytes(await _exactly(body, HEADER_LENGTH_BYTES), "big")
    if length > MAX_HEADER_BYTES:
        raise BadPublication(f"a header of {length} bytes; {MAX_HEADER_BYTES} are allowed")
    try:
        header = json.loads(await _exactly(body, length))
    except (ValueError, RecursionError) as error:
        raise BadPublication(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise BadPublication("the header is not a JSON object")
    return header


async def pack_bytes(body: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the rest of ``body`` in pieces of at most ``PIECE_BYTES``.

    aiohttp stops reading the socket while nobody takes pieces, so memory stays small whatever the size.

    Raises:
        UploadBroken: the body breaks off.
    """
    while piece := await _read(body):
        yield piece


async def _read(body: aiohttp.StreamReader) -> bytes:
    try:
        return await body.read(PIECE_BYTES)
    except (aiohttp.ClientPayloadError, web.RequestPayloadError, ConnectionError):
        raise UploadBroken("the upload broke off") from None


async def _exactly(body: aiohttp.StreamReader, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        try:
            part = await body.read(length)
        except (aiohttp.ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise UploadBroken("the upload broke off") from None
        if not part:
            raise UploadBroken("the upload ended inside its header")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
