"""What a person reads: lines on stderr, the only thing that git shows of this program."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Final

from guts.api.errors import ERROR_FILE, ErrorObject
from guts.errors import GutsError

MAX_LINE_CHARACTERS: Final = 2000
"""A line for people: a few names, paths and ids. What a node says may be longer, and a pkt-line has 65,516 bytes."""

MAX_ERROR_CHARACTERS: Final = 16_000
"""Of one error that git shows: however they are encoded, they fit into one pkt-line."""


def printable(text: str, limit: int = MAX_LINE_CHARACTERS) -> str:
    """Return what a node or peer says as one line that moves no terminal, cut to ``limit`` characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


class Talk:
    """Lines on stderr.

    Attributes:
        verbosity: as git's ``-v`` and ``-q`` have it: 1 is usual, 0 is quiet, more is more.
    """

    def __init__(self) -> None:
        self.verbosity = 1

    def note(self, text: str) -> None:
        """Say one thing that is worth knowing; ``-q`` silences it."""
        if self.verbosity > 0:
            self._say(f"guts: {text}")

    def detail(self, text: str) -> None:
        """Say what only ``-v`` asks for."""
        if self.verbosity > 1:
            self._say(f"guts: {text}")

    def warning(self, text: str) -> None:
        """Say what should not be missed, also by who is quiet."""
        self._say(f"warning: {text}")

    def fatal(self, error: GutsError) -> None:
        """Say why it ends here, and what helps: to the command that runs git, where one asks for it, else here."""
        told = ErrorObject.of(error)
        if path := os.environ.get(ERROR_FILE):
            with contextlib.suppress(OSError):
                Path(path).write_text(json.dumps(told.to_json()))
                return
        self._say(f"fatal: {told.message}")
        if told.hint:
            self._say(f"hint: {told.hint}")

    def through_git(self, error: GutsError) -> str | None:
        """Return what git is to say of why it ends here; ``None``: the command that runs git asks to be told itself."""
        if os.environ.get(ERROR_FILE):
            return None
        told = ErrorObject.of(error)
        text = told.message + (f"\nhint: {told.hint}" if told.hint else "")
        return "\n".join(map(printable, text.splitlines()))[:MAX_ERROR_CHARACTERS]

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()
