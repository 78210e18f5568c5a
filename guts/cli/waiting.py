"""What a person sees while a command waits: one line on the terminal, rewritten every second, gone at the end."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from guts.cli.session import span_text

INTERVAL: Final = 1.0
"""Seconds between two looks; what ends sooner shows nothing."""


@contextlib.contextmanager
def waiting(text: Callable[[], str]) -> Iterator[None]:
    """Show ``text`` and how long it has been while the body runs; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    begun = time.monotonic()
    ended = threading.Event()
    width = 0

    def write(line: str) -> None:
        nonlocal width
        # Blanks, since not every terminal knows a sequence that clears a line.
        sys.stderr.write(f"\r{' ' * width}\r{line}")
        sys.stderr.flush()
        width = len(line)

    def show() -> None:
        while not ended.wait(INTERVAL):
            write(f"{text()}, {span_text(time.monotonic() - begun)}")

    thread = threading.Thread(target=show, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if width:
            write("")
