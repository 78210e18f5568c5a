"""A home of its own for every test, and a way to run commands in this process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from guts.cli.root import run
from guts.config import Paths
from guts.keystore import KeyFile, KeyKind, write_key_file
from tests.support.repositories import git
from tests.support.scripted_control import ScriptedControl, serving
from tests.unit.trust.world import ALICE


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """The result of a command that was given ``--json``."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, object]:
        """The error of a command that was given ``--json``; stdout stays empty then."""
        assert self.out == ""
        error = json.loads(self.err)["error"]
        assert isinstance(error, dict)
        return error


class Guts:
    """Runs commands with ``home`` as ``GUTS_HOME``."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.paths = Paths.from_environ({"GUTS_HOME": str(home)})
        self._capture = capture

    def __call__(self, *arguments: object) -> Ran:
        self._capture.readouterr()
        status = run([str(argument) for argument in arguments])
        out, err = self._capture.readouterr()
        return Ran(status, out, err)


@pytest.fixture
def guts(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Guts:
    home = tmp_path / "home"
    monkeypatch.setenv("GUTS_HOME", str(home))
    for name in ("GUTS_CONFIG", "GUTS_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return Guts(home, capsys)


@pytest.fixture
def control(guts: Guts) -> Iterator[ScriptedControl]:
    control = ScriptedControl()
    with serving(control, guts.paths.control_socket):
        yield control


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A git repository with a commit."""
    path = tmp_path / "tool"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "commit", "-q", "--allow-empty", "-m", "one")
    return path


@pytest.fixture
def repository(guts: Guts, control: ScriptedControl, work: Path) -> str:
    """A repository that Alice, whose key is the one in this home, has published from ``work``."""
    write_key_file(guts.paths.author_key, KeyFile.of(KeyKind.AUTHOR, ALICE, None))
    assert guts("publish", work).status == 0
    return git(work, "config", "guts.repository")
