"""git's side of the conversation (gitremote-helpers(7)), up to ``connect``; and how it ends."""

import io
import signal
from pathlib import Path

import pytest

from guts.ids import RepositoryId
from guts.remote_helper import helper
from guts.remote_helper.helper import GIT_FATAL, run

URL = f"guts://{RepositoryId(bytes(32))}/tool"


@pytest.fixture(autouse=True)
def no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUTS_HOME", str(tmp_path))


def conversed(*lines: str, url: str = URL) -> tuple[int, str]:
    out = io.BytesIO()
    status = run(["origin", url], io.BytesIO("".join(f"{line}\n" for line in lines).encode()), out)
    return status, out.getvalue().decode()


def test_capabilities_are_option_and_connect() -> None:
    assert conversed("capabilities", "") == (0, "option\nconnect\n\n")


def test_verbosity_is_understood_and_other_options_are_not() -> None:
    assert conversed("option verbosity 2", "option progress true", "option verbosity x", "") == (
        0,
        "ok\nunsupported\nunsupported\n",
    )


@pytest.mark.parametrize("arguments", [[], ["origin"], ["origin", URL, "more"]])
def test_who_types_it_is_told_what_it_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments, io.BytesIO(), io.BytesIO()) == GIT_FATAL
    assert capsys.readouterr().err == (
        "fatal: git-remote-guts is started by git, with a remote and its URL\nhint: git clone guts://REPOSITORY\n"
    )


def test_mistyped_id_is_named_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = conversed("capabilities", url=URL.replace("repo1", "repo1z"))
    assert (status, out) == (GIT_FATAL, "")
    assert "fatal: " in capsys.readouterr().err


def test_unknown_command_and_service_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert conversed("import refs/heads/main")[0] == GIT_FATAL
    assert conversed("connect git-daemon")[0] == GIT_FATAL
    assert "there is no service 'git-daemon'" in capsys.readouterr().err


@pytest.mark.parametrize("ignored", [False, True])
def test_interrupts_that_belong_together_count_once_and_none_where_the_shell_ignores_them(ignored: bool) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
        helper._interrupted_once()
        if ignored:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
