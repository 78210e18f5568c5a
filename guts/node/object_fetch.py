"""A ``fetch`` of this node's own: objects of a repository that is not held, from one holder after the other."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence, Set
from typing import Final

from guts.errors import PeerFault, Unavailable
from guts.git.fetch_responses import BadGitAnswer, told
from guts.git.git_requests import FetchRequest
from guts.git.pkt_line import ERROR_BAND, PACK_BAND, Mark, Packets, encode
from guts.git.quarantine import Quarantine
from guts.ids import ObjectId
from guts.node.git_relay import Course, NoSourceAnswered, Source, relay

TIPS_ONLY: Final = "deepen 1"
WITHOUT_TREES: Final = "filter tree:0"
MAX_TIPS_BYTES: Final = 16 << 20
"""Tags and one commit of each, without anything below: 5,000 of both with the longest messages of people take half."""


async def fetch_objects(
    wants: Set[ObjectId],
    haves: Collection[ObjectId],
    options: Sequence[str],
    sources: Sequence[Source],
    quarantine: Quarantine,
    max_pack_bytes: int,
    busy: float,
    learn: Callable[[], Awaitable[bool]],
) -> None:
    """Fetch ``wants`` into ``quarantine``, from one of ``sources`` after the other until ``learn`` has all it needs.

    Args:
        max_pack_bytes: of all that was ever fetched into ``quarantine``.
        options: arguments of the request besides (gitprotocol-v2(5)).
        busy: seconds for a place at a source that is busy.
        learn: tells whether what came is enough.

    Raises:
        NoSourceAnswered: none of them gave all of it.
        StorageFault: our own side failed.
    """
    request = FetchRequest.parse(_request(wants, haves, options))
    limit = MAX_TIPS_BYTES if {TIPS_ONLY, WITHOUT_TREES} <= set(options) else max_pack_bytes
    reasons: list[str] = []
    for source in sources:
        try:
            async with contextlib.aclosing(relay([source], request, Course(), busy)) as pieces:
                # What sources gave before in vain counts too: no number of them fills the disk.
                await quarantine.index(_pack(pieces), min(limit, max_pack_bytes - quarantine.received_bytes))
            learned = await learn()
        except NoSourceAnswered as error:
            reasons += error.reasons
        except (PeerFault, Unavailable) as error:
            reasons.append(f"{source.name}: {error}")
        else:
            if learned:
                return
            # An honest one says that it has not all of it.
            await source.blame(BadGitAnswer("it leaves out some of what was asked for"))
            reasons.append(f"{source.name} leaves out some of what was asked for")
    raise NoSourceAnswered(reasons)


def _request(wants: Collection[ObjectId], haves: Collection[ObjectId], options: Sequence[str]) -> bytes:
    lines = [f"want {oid}" for oid in sorted(wants)]
    lines += [f"have {oid}" for oid in sorted(haves)]
    lines += [*options, "ofs-delta", "no-progress", "done"]
    head = encode(b"command=fetch\n") + encode(b"object-format=sha1\n") + Mark.DELIMITER.value
    return head + b"".join(encode(f"{line}\n".encode()) for line in lines) + Mark.FLUSH.value


async def _pack(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the pack in an answer. Raises: ``NoSourceAnswered``: it breaks off."""
    packets, begun = Packets(), False
    async for piece in pieces:
        for packet in packets.receive_data(piece):
            if not begun:
                begun = isinstance(packet, bytes) and packet.rstrip(b"\n") == b"packfile"
            elif isinstance(packet, bytes) and packet[0] == PACK_BAND:
                yield packet[1:]
            elif isinstance(packet, bytes) and packet[0] == ERROR_BAND:
                raise NoSourceAnswered([told(packet[1:])])
