"""The answer to a ``fetch`` of protocol v2, checked as it comes, before it is passed on. Sans-IO.

What a source says of objects is checked by git, which counts their hashes. Checked here is what git takes on trust, or
prints: that history ends nowhere unless the client asked for that (a source that says it is shallow would have history
cut off in silence), that nothing leads to other places (``packfile-uris``), that a pack is begun as one, and not with
no objects for a client that has none; and what a terminal is told.
"""

import re
import struct
from typing import ClassVar, Final

from guts.errors import PeerFault, Severity, Unavailable
from guts.git.git_requests import MAX_FETCH_BYTES, FetchRequest
from guts.git.limits import MIB
from guts.git.pkt_line import ERROR_BAND, PACK_BAND, PROGRESS_BAND, Mark, Packet, Packets, encode, on_band

MAX_HEADER_BYTES: Final = MAX_FETCH_BYTES
"""Sections before the pack: an acknowledgment is as long as the have that it answers."""

MAX_PROGRESS_BYTES: Final = MIB
"""What is told while a pack is made and sent: a line of 60 bytes a second for four hours."""

MAX_REASON_CHARACTERS: Final = 200

_SECTION: Final = re.compile(rb"acknowledgments|shallow-info|packfile")
_LINES: Final = {
    b"acknowledgments": re.compile(rb"NAK|ready|ACK [0-9a-f]{40}"),
    b"shallow-info": re.compile(rb"(?:un)?shallow [0-9a-f]{40}"),
}
_UNPRINTABLE: Final = re.compile(rb"[^ -~\n\r\t]")
_PACK_HEADER: Final = struct.Struct(">4sII")


class BadGitAnswer(PeerFault):
    """A source answers as git never does over a whole repository, or gives nothing of what it was asked for."""

    code: ClassVar[str] = "BAD_GIT_ANSWER"
    severity: ClassVar[Severity] = Severity.SERIOUS


class CutShort(Unavailable):
    """An answer ended before its end."""

    code: ClassVar[str] = "ANSWER_CUT_SHORT"


class SourceError(Unavailable):
    """A source said that, and perhaps why, it can't answer."""

    code: ClassVar[str] = "SOURCE_ERROR"


class FetchResponse:
    """Takes an answer in pieces of any length and gives what may be passed on.

    Attributes:
        header: the sections up to and with the line ``packfile``, or up to the flush where no pack follows; empty
            until they are complete.
        pack_bytes: of the pack, so far.
        whole: the answer has ended as it should.
    """

    def __init__(self, request: FetchRequest) -> None:
        self.header = b""
        self.pack_bytes = 0
        self.whole = False
        self._request = request
        self._packets = Packets()
        self._sections: list[bytes] = []
        self._section = b""
        self._seen: set[bytes] = set()
        self._header_bytes = 0
        self._progress_bytes = 0
        self._pack_start: bytes | None = b""

    def receive_data(self, data: bytes) -> bytes:
        """Return what is to be passed on after ``header``: pkt-lines of a side-band, and the flush at the end.

        Raises:
            BadGitAnswer, BadPacket: this is no answer to the request.
            SourceError: the source can't answer.
        """
        passed: list[bytes] = []
        for packet in self._packets.receive_data(data):
            if self.whole:
                raise BadGitAnswer("it goes on after the end of its answer")
            if self.header:
                self._banded(packet, passed)
            else:
                self._headed(packet)
        return b"".join(passed)

    def receive_eof(self) -> None:
        """Raises: ``CutShort``."""
        if not self.whole:
            raise CutShort(f"it ended in the middle, after {self.pack_bytes} bytes of the pack")

    def _headed(self, packet: Packet) -> None:
        if isinstance(packet, bytes):
            line = packet.removesuffix(b"\n")
            if line.startswith(b"ERR "):
                raise SourceError(told(line[4:]))
            if self._section:
                self._line(line)
            else:
                self._begin_section(line)
            self._sections.append(encode(packet))
        else:
            if packet is Mark.RESPONSE_END or not self._section:
                raise BadGitAnswer("a packet is out of place")
            self._section = b""
            self.whole = packet is Mark.FLUSH
            self._sections.append(packet.value)
        self._header_bytes += len(self._sections[-1])
        if self._header_bytes > MAX_HEADER_BYTES:
            raise BadGitAnswer(f"it says more than {MAX_HEADER_BYTES} bytes before the pack")
        if self.whole and self._request.is_done:
            raise BadGitAnswer("it gives no pack")
        if self.whole or self._section == b"packfile":
            self.header = b"".join(self._sections)
            self._sections.clear()

    def _begin_section(self, name: bytes) -> None:
        if _SECTION.fullmatch(name) is None or name in self._seen:
            raise BadGitAnswer(f"it has a section {told(name)!r}, which nobody asked for")
        if name == b"shallow-info" and not self._request.is_shallow:
            raise BadGitAnswer("it says that its history is cut off")
        self._section = name
        self._seen.add(name)

    def _line(self, line: bytes) -> None:
        if _LINES[self._section].fullmatch(line) is None:
            raise BadGitAnswer(f"{told(line)!r} is out of place")
        if line.startswith(b"shallow ") and (not self._request.cuts or line[8:] in self._request.uncut):
            raise BadGitAnswer("it says that its history is cut off")

    def _banded(self, packet: Packet, passed: list[bytes]) -> None:
        if isinstance(packet, Mark):
            if packet is not Mark.FLUSH or self._pack_start is not None:
                raise BadGitAnswer("it ends without a pack")
            self.whole = True
            passed.append(packet.value)
            return
        band, data = int.from_bytes(packet[:1], "big"), packet[1:]
        if band == PACK_BAND:
            self._pack(data, passed)
        elif band == PROGRESS_BAND:
            self._progress_bytes += len(packet)
            if self._progress_bytes > MAX_PROGRESS_BYTES:
                raise BadGitAnswer("it talks too much")
            passed.append(encode(packet[:1] + _UNPRINTABLE.sub(b"?", data)))
        elif band == ERROR_BAND:
            raise SourceError(told(data))
        else:
            raise BadGitAnswer("a packet is on no band")

    def _pack(self, data: bytes, passed: list[bytes]) -> None:
        if self._pack_start is not None and data:
            data = self._pack_start + data
            if len(data) < _PACK_HEADER.size:
                self._pack_start = data
                return
            magic, version, objects = _PACK_HEADER.unpack_from(data)
            if (magic, version) != (b"PACK", 2):
                raise BadGitAnswer("what it gives is no pack")
            if not objects and not self._request.has_some and not self._request.is_partial:
                raise BadGitAnswer("it gives none of the objects")
            self._pack_start = None
        self.pack_bytes += len(data)
        passed.extend(on_band(PACK_BAND, data) if data else (encode(bytes((PACK_BAND,))),))


def told(text: bytes) -> str:
    """Return what a source says as it may be shown: one short line of printable characters."""
    shown = " ".join(_UNPRINTABLE.sub(b"?", text).decode("ascii").split())
    return shown[:MAX_REASON_CHARACTERS]
