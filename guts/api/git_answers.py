"""Requests of git's own protocol and their answers, which are streamed."""

from typing import Final
from urllib.parse import quote

import aiohttp
from aiohttp import web

from guts.api.publication import PIECE_BYTES, UploadBroken
from guts.errors import GutsError
from guts.git.git_requests import BadGitRequest
from guts.node.git_answers import GitAnswer

FETCH_TYPE: Final = "application/x-git-upload-pack-result"
ARCHIVE_TYPE: Final = "application/x-git-upload-archive-result"

NOTE_HEADER: Final = "Guts-Note"
MAX_NOTES: Final = 16
"""Lines for people before an answer: HTTP clients take a hundred headers at the most."""

MAX_NOTE_CHARACTERS: Final = 300


async def read_request(body: aiohttp.StreamReader, max_bytes: int) -> bytes:
    """Return the whole of a request's body.

    Raises:
        BadGitRequest: it has more than ``max_bytes``.
        UploadBroken: it breaks off.
    """
    parts: list[bytes] = []
    room = max_bytes + 1
    while room:
        try:
            part = await body.read(min(room, PIECE_BYTES))
        except (aiohttp.ClientPayloadError, web.RequestPayloadError, ConnectionError):
            raise UploadBroken("the request broke off") from None
        if not part:
            return b"".join(parts)
        parts.append(part)
        room -= len(part)
    raise BadGitRequest(f"a request of more than {max_bytes} bytes")


async def streamed(request: web.Request, answer: GitAnswer, content_type: str) -> web.StreamResponse:
    """Send ``answer``; back-pressure is git's own, as the command that asked reads.

    Raises:
        GutsError: before the first byte; later the response is cut off, which HTTP tells from its end.
    """
    chunk = await anext(answer.chunks, b"")
    response = web.StreamResponse()
    response.content_type = content_type
    for note in answer.notes[:MAX_NOTES]:
        response.headers.add(NOTE_HEADER, quote(note[:MAX_NOTE_CHARACTERS]))
    try:
        await response.prepare(request)
        while chunk:
            await response.write(chunk)
            chunk = await anext(answer.chunks, b"")
        await response.write_eof()
    except GutsError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionResetError:
        pass  # git went away, and says why itself
    return response
