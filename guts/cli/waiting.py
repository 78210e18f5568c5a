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

_CLEAR: Final = "\r\x1b[K"


@contextlib.contextmanager
def waiting(text: Callable[[], str]) -> Iterator[None]:
    """Show ``text`` and how long it has been while the body runs; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    begun = time.monotonic()
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(INTERVAL):
            sys.stderr.write(f"{_CLEAR}{text()}, {span_text(time.monotonic() - begun)}")
            sys.stderr.flush()

    thread = threading.Thread(target=show, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if time.monotonic() - begun >= INTERVAL:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
