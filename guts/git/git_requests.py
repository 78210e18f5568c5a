"""What a client of git asks of this node's git, judged before git sees it. Sans-IO.

git's own parsers face the world on every server; what is refused here is what costs more than it is worth, what
belongs to services that a node doesn't offer, and what no client sends. Requests are judged twice: by the node that
passes one on, so that no peer has a reason to complain, and by the node that answers it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from guts.errors import ExitStatus, PeerFault, UsageError
from guts.git.limits import KIB, MIB
from guts.git.pkt_line import Mark, Packet, Packets

MAX_FETCH_BYTES: Final = 12 * MIB
"""One ``fetch``: 200,000 wants of 50 bytes, which is what checking out a large tree asks for in a clone without blobs,
and 40,000 haves. git tells a few hundred haves at a time."""

MAX_ARCHIVE_BYTES: Final = 256 * KIB
"""One ``git archive --remote``: 64 arguments, more git does not take, of 4 KiB each, the longest path."""

MAX_FILTER_BYTES: Final = 256
"""A filter names itself and a number, or a handful of such: each part costs time for every object."""

MAX_DEEPEN_NOT: Final = 64
"""Refs of which the history is left out; people name one."""

INFINITE_DEPTH: Final = 0x7FFF_FFFF
"""What ``--unshallow`` asks for."""

_PIECE: Final = 64 * KIB

_ID: Final = rb"[0-9a-f]{40}"
_NUMBER: Final = rb"[0-9]{1,10}"
_CAPABILITY: Final = re.compile(rb"agent=[!-~]{0,255}|object-format=sha1")
_ARGUMENT: Final = re.compile(
    rb"want " + _ID + rb"|have " + _ID + rb"|shallow " + _ID + rb"|deepen " + _NUMBER + rb"|deepen-since " + _NUMBER
    + rb"|deepen-not [!-~\x80-\xff]{1,255}|filter [!-~]{1,%d}" % MAX_FILTER_BYTES
    + rb"|done|thin-pack|no-progress|include-tag|ofs-delta|deepen-relative|wait-for-done"
)  # fmt: skip
_WITH_VALUE: Final = (b"--format", b"--prefix", b"--mtime")
_SHOWN_BYTES: Final = 60


class BadGitRequest(PeerFault):
    """The bytes are no request of git's protocol, or a longer one than anybody needs."""

    code: ClassVar[str] = "BAD_GIT_REQUEST"
    exit_status: ClassVar[ExitStatus] = ExitStatus.USAGE


class UnsupportedGitRequest(UsageError):
    """A request of git's that this version does not answer: another command, or an argument that it doesn't know."""

    code: ClassVar[str] = "UNSUPPORTED_GIT_REQUEST"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One ``fetch`` of protocol v2 (gitprotocol-v2(5)), complete in itself.

    Attributes:
        data: the request as it is, up to and with its flush.
        has_some: the client says that it holds something.
        is_done: the client has said all: a pack is to follow.
        is_partial: a filter leaves objects out.
        is_shallow: the client is shallow, or asks for more or less depth; so the answer tells of that.
        cuts: the client asks for history to end somewhere.
        uncut: wants with which history can't end: a depth of two or more is counted from each of them.
    """

    data: bytes
    has_some: bool = False
    is_done: bool = False
    is_partial: bool = False
    is_shallow: bool = False
    cuts: bool = False
    uncut: frozenset[bytes] = field(default=frozenset(), compare=False)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the request in ``data``; takes a second for the longest.

        Raises:
            BadGitRequest, BadPacket: it is none.
            UnsupportedGitRequest: it asks for more than a node answers.
        """
        if len(data) > MAX_FETCH_BYTES:
            raise BadGitRequest(f"a request of {len(data)} bytes where {MAX_FETCH_BYTES} are allowed")
        packets = _packets(data)
        command = next(packets, Mark.FLUSH)
        if isinstance(command, Mark):
            raise BadGitRequest("a request without a command")
        if command.rstrip(b"\n") != b"command=fetch":
            raise UnsupportedGitRequest(f"the command {_shown(command)} is not answered here")
        for packet in packets:
            if isinstance(packet, Mark):
                break
            if _CAPABILITY.fullmatch(packet.rstrip(b"\n")) is None:
                raise UnsupportedGitRequest(f"the capability {_shown(packet)} is not known here")
        else:
            packet = Mark.FLUSH
        if packet is not Mark.DELIMITER:
            raise BadGitRequest("a fetch without arguments")
        deepen_not, depth, seen, wants = 0, 0, set(), set()
        for argument in packets:
            if isinstance(argument, Mark):
                raise BadGitRequest("a delimiter among the arguments")
            if _ARGUMENT.fullmatch(argument.removesuffix(b"\n")) is None:
                raise UnsupportedGitRequest(f"the argument {_shown(argument)} is not known here")
            word, _, value = argument.removesuffix(b"\n").partition(b" ")
            deepen_not += word == b"deepen-not"
            if word == b"want":
                wants.add(value)
            elif word == b"deepen":
                depth = int(value)
            seen.add(b"unshallow" if word == b"deepen" and int(value) >= INFINITE_DEPTH else word)
        if b"want" not in seen:
            raise BadGitRequest("a fetch that wants nothing")
        if deepen_not > MAX_DEEPEN_NOT:
            raise UnsupportedGitRequest(f"{deepen_not} refs to leave out where {MAX_DEEPEN_NOT} are allowed")
        cuts = not seen.isdisjoint((b"deepen", b"deepen-since", b"deepen-not"))
        from_wants = depth > 1 and seen.isdisjoint((b"deepen-relative", b"deepen-since", b"deepen-not"))
        return cls(
            data,
            has_some=b"have" in seen,
            is_done=b"done" in seen,
            is_partial=b"filter" in seen,
            is_shallow=cuts or not seen.isdisjoint((b"shallow", b"unshallow")),
            cuts=cuts,
            uncut=frozenset(wants) if from_wants else frozenset(),
        )


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """One request of ``git archive --remote``: lines ``argument …`` and a flush.

    Attributes:
        data: the request as it is.
        tree: name of the ref that is asked for, as the user gave it, without a path in it; empty where there is none.
    """

    data: bytes
    tree: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the request in ``data``. Which arguments are allowed is git's own, cautious, decision.

        Raises:
            BadGitRequest, BadPacket: it is none.
        """
        if len(data) > MAX_ARCHIVE_BYTES:
            raise BadGitRequest(f"a request of {len(data)} bytes where {MAX_ARCHIVE_BYTES} are allowed")
        arguments: list[bytes] = []
        for packet in _packets(data):
            if isinstance(packet, Mark) or not packet.startswith(b"argument "):
                raise BadGitRequest("a line that is no argument")
            arguments.append(packet.removeprefix(b"argument ").removesuffix(b"\n"))
        return cls(data, _tree(arguments))


def _tree(arguments: list[bytes]) -> str:
    """Return the ref in the arguments of ``git archive``: the first that is no option, nor the value of one."""
    words = iter(arguments)
    for word in words:
        if word in _WITH_VALUE:
            next(words, b"")
        elif not word.startswith(b"-"):
            return word.partition(b":")[0].decode(errors="replace")
    return ""


def _packets(data: bytes) -> Iterator[Packet]:
    """Yield the packets of a request up to its flush, and see that nothing follows it."""
    packets = Packets()
    ended = False
    for start in range(0, len(data), _PIECE):
        for packet in packets.receive_data(data[start : start + _PIECE]):
            if ended:
                raise BadGitRequest("bytes follow the request")
            if packet is Mark.FLUSH:
                ended = True
            else:
                yield packet
    if packets.inside or not ended:
        raise BadGitRequest("bytes follow the request" if ended else "a request without an end")


def _shown(packet: bytes) -> str:
    """Return a line of a request as it may be told: short, and without what moves a terminal."""
    return repr(packet[:_SHOWN_BYTES].rstrip(b"\n").decode(errors="replace"))
