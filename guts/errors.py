"""The four kinds of error, told apart by who must act.

::

    GutsError
    ├── PeerFault      a remote broke a rule: count it, disconnect
    ├── Unavailable    nobody's fault: timed out, refused, gone; try again later
    ├── StorageFault   ours: the operation fails, the old state is served
    └── UsageError     the person at the keyboard can mend it: say what, why, and the one command that helps

Concrete errors live in the module that raises them. A bug is an ``AssertionError`` and crashes.
"""

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Exit statuses of the commands; the one table (docs/commands.md lists it for people)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NODE_DOWN = 3
    NOT_FOUND = 4
    REFUSED = 5
    TIMED_OUT = 6
    INTEGRITY = 7
    QUOTA = 8
    CONFIG = 78


class Severity(IntEnum):
    """What one fault adds to a peer's score (docs/threats.md, "Scoring").

    Only what an honest peer can never do, on any network, is ``FATAL``. Timing and network trouble is
    ``NETWORK`` and costs nothing.
    """

    NETWORK = 0
    MINOR = 5
    SERIOUS = 25
    FATAL = 100


class GutsError(Exception):
    """Base of every error that Guts raises on purpose.

    Attributes:
        code: stable name in capitals, the same in text, JSON and docs.
        exit_status: what a command that ends with this error exits with.
        hint: the one command or step that helps, or ``None``.
    """

    code: ClassVar[str] = "FAILED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class PeerFault(GutsError):
    """A remote broke a rule of the protocol. Its text goes to counters and DEBUG logs, never to the peer."""

    code: ClassVar[str] = "PEER_FAULT"
    severity: ClassVar[Severity] = Severity.FATAL


class Unavailable(GutsError):
    """Something outside did not answer, refused or went away. Back off; nobody is punished."""

    code: ClassVar[str] = "UNAVAILABLE"


class StorageFault(GutsError):
    """Our own disk or database failed. The operation fails as a whole and the old state is served."""

    code: ClassVar[str] = "STORAGE"


class UsageError(GutsError):
    """The person who gave the command, or wrote the config, can mend it."""

    code: ClassVar[str] = "USAGE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.USAGE


class DiskFull(StorageFault):
    """There is no space left for what is to be written. What there was is as it was."""

    code: ClassVar[str] = "DISK_FULL"
    exit_status: ClassVar[ExitStatus] = ExitStatus.QUOTA

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="free some space, then try again: df -h shows where it is missing")
