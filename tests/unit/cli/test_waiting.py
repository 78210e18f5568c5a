"""The line that tells that something goes on."""

import io
import threading

import pytest

from guts.cli import waiting as module
from guts.cli.waiting import waiting


class Terminal(io.StringIO):
    """Takes what is written to a terminal, and tells when ``wanted`` lines were."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted = wanted
        self.reached = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        if self.getvalue().count("\r") >= self.wanted:
            self.reached.set()


def test_terminal_shows_what_goes_on_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(4)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    parts = iter(range(1, 1_000))
    with waiting(lambda: f"part {next(parts)}"):
        assert terminal.reached.wait(10)

    blanks = " " * len("part 1, 0s")
    assert terminal.getvalue().startswith(f"\r\rpart 1, 0s\r{blanks}\rpart 2, 0s")
    assert terminal.getvalue().endswith(" \r")


def test_what_ends_soon_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(1)
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(KeyboardInterrupt), waiting(lambda: "part"):
        raise KeyboardInterrupt

    assert terminal.getvalue() == ""


def test_pipe_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    with waiting(lambda: "part"):
        assert threading.active_count() == 1

    assert pipe.getvalue() == ""
