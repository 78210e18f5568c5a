"""What a person reads: lines on stderr, the only thing that git shows of this program."""

import contextlib
import json
import os
import sys
from pathlib import Path

from guts.api.errors import ERROR_FILE, ErrorObject
from guts.errors import GutsError


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

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
