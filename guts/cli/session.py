"""What every command has at hand: the environment, the paths, the node."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Self, TypeVar

from guts.config import Config, Paths

if TYPE_CHECKING:  # http.client costs 25 ms, and half of the commands need no node
    from guts.cli.client import ControlClient

F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")
R = TypeVar("R")

MAX_INSTANT_MS: Final = 253_402_300_799_999
"""The end of the year 9999, past which ``datetime`` knows no time."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a command.

    Attributes:
        environ: the environment, with ``--home`` and ``--config`` put in.
    """

    environ: Mapping[str, str]

    @classmethod
    def of(cls, home: str | None, config: str | None) -> Self:
        """Return the session of this process with these options of the command line."""
        environ = dict(os.environ)
        if home is not None:
            environ["GUTS_HOME"] = home
        if config is not None:
            environ["GUTS_CONFIG"] = config
        return cls(environ)

    @property
    def paths(self) -> Paths:
        """Where this user's node keeps its things."""
        return Paths.from_environ(self.environ)

    def config(self, flags: Mapping[str, str] | None = None) -> Config:
        """Return the settings. Raises: ``guts.config.BadConfig``."""
        return Config.load(flags or {}, self.environ)

    def client(self) -> "ControlClient":
        """Return a client of the running node; it connects with the first request."""
        from guts.cli.client import ControlClient

        return ControlClient(self.paths.control_socket)


def pass_session(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Give a command the session as its first argument."""
    # Late, as below: the remote helper, which git starts for every command, has a session and needs no click.
    import click

    return click.make_pass_decorator(Session)(command)


def json_option(command: F) -> F:
    """Add ``--json``."""
    import click

    return click.option("--json", "as_json", is_flag=True, help="Write one JSON value to stdout.")(command)


def timeout_option(default: float) -> Callable[[F], F]:
    """Add ``--timeout SECONDS``."""
    import click

    from guts.cli.timeouts import TIMEOUT

    return click.option(
        "--timeout",
        type=TIMEOUT,
        default=default,
        show_default=True,
        metavar="SECONDS",
        help="Give up after so long.",
    )


def emit(as_json: bool, value: object, text: str | Iterable[str]) -> None:
    """Write a result to stdout: ``value`` as JSON, or ``text``."""
    if as_json:
        print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))
    elif isinstance(text, str):
        print(text)
    else:
        for line in text:
            print(line)
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line for people to stderr."""
    print(text, file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines, headings first; no rows, no lines."""
    if not rows:
        return []
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def count_text(count: int, what: str) -> str:
    """Return how many there are as people say it: ``1 node``, ``2 nodes``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def span_text(seconds: float) -> str:
    """Return a span of time as people read it: ``3m 20s``."""
    whole = max(0, int(seconds))
    for unit, length, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // part}{smaller}"
    return f"{whole}s"


def age_text(when_ms: int | None) -> str:
    """Return how long ago a Unix time in milliseconds was, or ``never``."""
    return "never" if not when_ms else f"{span_text(time.time() - when_ms / 1000)} ago"


def instant_text(when_ms: int) -> str:
    """Return a Unix time in milliseconds as people read it: ``2026-11-22 13:34:20 UTC (3m 20s ago)``."""
    if when_ms > MAX_INSTANT_MS:
        return "after the year 9999"
    return f"{datetime.fromtimestamp(when_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC ({age_text(when_ms)})"
