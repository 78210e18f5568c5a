"""``git receive-pack``'s side of a push, protocol v0 (gitprotocol-pack(5)), towards ``git send-pack``.

Refs are advertised, commands and push options read, the pack handed on as it comes, and each ref answered. What is done
with them is ``guts.remote_helper.push``'s. Whatever goes wrong once git has begun to send, git gets to hear it on the
side-band and as a refusal of every ref: the pack is read to its end, since git takes a closed pipe for a crash.
"""

import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import UnsupportedOperation
from typing import BinaryIO, ClassVar, Final, Protocol

import guts
from guts.api.errors import ReportedError
from guts.errors import ExitStatus, GutsError, UsageError
from guts.git.pkt_line import PACK_BAND, PROGRESS_BAND, Mark, encode, on_band, read_packet
from guts.remote_helper.talk import printable

NO_OBJECT: Final = "0" * 40
CAPABILITIES: Final = (
    "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options object-format=sha1"
)
MAX_COMMANDS: Final = 20_000
"""A push that deletes 5,000 refs, makes 5,000 others and has as many again that are refused."""

MAX_OPTIONS: Final = 100
MAX_REASON_CHARACTERS: Final = 200
"""Beside a ref, in one line of a terminal or two."""

PIECE_BYTES: Final = 1 << 16
"""Of the pack, at a time: what a pipe holds."""

_REASONS: Final = {
    "BAD_PUBLICATION": "objects refused",
    "NODE_DOWN": "the node is gone",
    "WRONG_BODY": "not what was asked for",
}
"""A few words for errors whose code does not say it; the others' are their codes."""


class BadPush(UsageError):
    """git sends something else than a push."""

    code: ClassVar[str] = "BAD_GIT_REQUEST"


@dataclass(frozen=True, slots=True)
class Command:
    """What shall become of one ref; ids as text, ``None``: there is, or shall be, none."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """One push, but for its pack.

    Attributes:
        commands: in the order in which git sent them.
        options: of ``git push -o``.
        pack: the bytes that follow, in pieces; empty where nothing but deletions was asked for.
        gone: tells whether git has gone away, and nobody waits for an answer.
    """

    commands: list[Command]
    options: list[str]
    atomic: bool
    pack: Iterator[bytes]
    gone: Callable[[], bool]


@dataclass(slots=True)
class Outcome:
    """What became of the commands.

    Attributes:
        refused: ref to a reason in a few words.
        status: that of this program at the end; git fails with it, whatever it was told of the refs.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    status: ExitStatus = ExitStatus.OK


class Reporter:
    """What a person reads of a push, on git's side-band: ``remote: …``.

    git says ``quiet`` whenever stderr is no terminal: it asks for no progress, of which there is none. So these lines
    are always there, as those of a server's hooks are.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def success(self, text: str) -> None:
        """Say what was reached."""
        self._line(f"success: {text}")

    def warning(self, text: str) -> None:
        """Say what should not be missed."""
        self._line(f"warning: {text}")

    def error(self, error: GutsError) -> None:
        """Say why nothing was done, and what helps."""
        self.failure(str(error), hint=error.hint)

    def failure(self, text: str, *, hint: str | None) -> None:
        """Say what failed, and what helps."""
        self._line(f"error: {text}")
        if hint:
            self.hint(hint)

    def hint(self, text: str) -> None:
        """Say what helps."""
        self._line(f"hint: {text}")

    def _line(self, text: str) -> None:
        # New git takes control characters for an attack, and names of refs have none.
        for line in text.splitlines():
            self._write(f"{printable(line)}\n".encode())


class Pusher(Protocol):
    """Does what a push asks for."""

    def __call__(self, request: Request, reporter: Reporter) -> Outcome:
        """Do it. Raises: ``GutsError``: nothing of it was done."""


class ReceivePack:
    """One conversation with ``git push``."""

    def __init__(self, refs: Mapping[str, str], git_in: BinaryIO, git_out: BinaryIO) -> None:
        self._refs = refs
        self._git_in = git_in
        self._git_out = git_out

    def serve(self, push: Pusher) -> ExitStatus:
        """Advertise the refs, let ``push`` do what git then asks for, and return the exit status.

        Raises:
            BadPush, BadPacket: git sends no push.
            BrokenPipeError: git went away.
        """
        self._advertise()
        commands, capabilities = self._commands()
        if not commands:
            return ExitStatus.OK  # git found nothing to do
        options = self._options() if "push-options" in capabilities else []
        pack = self._pack() if any(command.new is not None for command in commands) else iter(())
        request = Request(commands, options, "atomic" in capabilities, pack, self._gone)
        banded = "side-band-64k" in capabilities
        reporter = Reporter(self._tell if banded else _nowhere)
        try:
            outcome = push(request, reporter)
        except GutsError as error:
            reporter.error(error)
            outcome = Outcome(dict.fromkeys((command.ref for command in commands), reason_of(error)))
        for _ in pack:
            pass
        if {"report-status", "report-status-v2"} & capabilities:
            self._report(commands, outcome, banded)
        return outcome.status

    def _advertise(self) -> None:
        first = f"\0{CAPABILITIES} agent=guts/{guts.__version__}"
        lines = [f"{oid} {ref}" for ref, oid in sorted(self._refs.items(), key=lambda item: item[0].encode())]
        lines = lines or [f"{NO_OBJECT} capabilities^{{}}"]
        lines[0] += first
        self._write(*(encode(f"{line}\n".encode()) for line in lines), Mark.FLUSH.value)

    def _commands(self) -> tuple[list[Command], set[str]]:
        commands: list[Command] = []
        capabilities: set[str] = set()
        for line in self._lines(MAX_COMMANDS, may_be_gone=True):
            if line.startswith(b"shallow "):
                continue  # the objects tell whether something is missing
            text, _, words = line.partition(b"\0")
            if words:
                capabilities.update(words.decode(errors="replace").split())
            match text.decode(errors="surrogateescape").rstrip("\n").split(" ", 2):
                case [old, new, ref] if _is_id(old) and _is_id(new):
                    commands.append(Command(ref, _oid(old), _oid(new)))
                case _:
                    raise BadPush(f"git sends {line[:200]!r}, which this remote does not understand")
        if len({command.ref for command in commands}) != len(commands):
            raise BadPush("git sends two commands for one ref")
        return commands, capabilities

    def _options(self) -> list[str]:
        return [line.decode(errors="replace").rstrip("\n") for line in self._lines(MAX_OPTIONS)]

    def _lines(self, limit: int, *, may_be_gone: bool = False) -> Iterator[bytes]:
        """Yield packets up to the next flush. Raises: ``BadPush``: there are too many, or git stops in the middle.

        Args:
            may_be_gone: instead of them git may have closed its end.
        """
        count = 0
        while isinstance(packet := read_packet(self._git_in.read), bytes):
            count += 1
            if count > limit:
                raise BadPush(f"git sends more than {limit} lines")
            yield packet
        if packet is not Mark.FLUSH and not (packet is None and may_be_gone and not count):
            raise BadPush("git went away, or sends what has no place in a push")

    def _pack(self) -> Iterator[bytes]:
        # git closes its end behind the pack; nothing else says where that ends.
        while piece := self._git_in.read(PIECE_BYTES):
            yield piece

    def _gone(self) -> bool:
        # A pack that was begun comes whole also when git is killed: its pack-objects goes on.
        try:
            descriptor = self._git_out.fileno()
        except UnsupportedOperation:
            return False  # no pipe
        poll = select.poll()
        poll.register(descriptor, 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))

    def _report(self, commands: Iterable[Command], outcome: Outcome, banded: bool) -> None:
        lines = ["unpack ok\n"]
        for command in commands:
            reason = outcome.refused.get(command.ref)
            lines.append(
                f"ok {command.ref}\n"
                if reason is None
                else f"ng {command.ref} {printable(reason, MAX_REASON_CHARACTERS)}\n"
            )
        report = b"".join(encode(line.encode(errors="surrogateescape")) for line in lines) + Mark.FLUSH.value
        self._write(*(on_band(PACK_BAND, report) if banded else [report]), *([Mark.FLUSH.value] if banded else []))

    def _tell(self, data: bytes) -> None:
        self._write(*on_band(PROGRESS_BAND, data))

    def _write(self, *packets: bytes) -> None:
        self._git_out.write(b"".join(packets))
        self._git_out.flush()


def reason_of(error: GutsError) -> str:
    """Return a few words that git shows beside a ref."""
    code = error.told.code if isinstance(error, ReportedError) else error.code
    return _REASONS.get(code, code.lower().replace("_", " "))


def _is_id(text: str) -> bool:
    return len(text) == len(NO_OBJECT) and set(text) <= set("0123456789abcdef")


def _oid(text: str) -> str | None:
    return None if text == NO_OBJECT else text


def _nowhere(_: bytes) -> None:
    """Take what an old git has no band for."""
