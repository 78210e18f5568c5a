"""git's own protocol through the control API: requests are bounded, answers are streamed, errors come first."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.addresses import BootstrapAddress
from guts.api.errors import ReportedError
from guts.api.git_answers import MAX_NOTE_CHARACTERS, MAX_NOTES, NOTE_HEADER
from guts.cli import client as cli_client
from guts.cli.client import ControlClient, NodeDown
from guts.errors import Unavailable
from guts.git.git_requests import MAX_ARCHIVE_BYTES, MAX_FETCH_BYTES
from tests.support.scripted_control import REPOSITORY, ScriptedControl, serving

TIMEOUT = 10.0
FETCH = f"/v1/repositories/{REPOSITORY}/upload-pack"
ARCHIVE = f"/v1/repositories/{REPOSITORY}/upload-archive"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def control(path: Path) -> Iterator[ScriptedControl]:
    control = ScriptedControl()
    with serving(control, path):
        yield control


def post(path: Path, where: str, body: bytes) -> tuple[list[str], bytes]:
    with ControlClient(path).stream(where, body, TIMEOUT) as answer:
        return answer.notes, b"".join(answer.pieces)


def test_request_and_answer_pass_as_they_are(control: ScriptedControl, path: Path) -> None:
    control.answer = [b"one", b"two" * 100_000]
    where = f"{ARCHIVE}?timeout=3"
    assert post(path, where, b"the request") == ([], b"one" + b"two" * 100_000)
    assert control.calls == [("upload_archive", REPOSITORY, b"the request", (), 3.0)]


def test_hints_and_timeout_reach_control_and_an_error_comes_before_the_first_byte(
    control: ScriptedControl, path: Path
) -> None:
    with pytest.raises(ReportedError) as caught:
        post(path, f"{FETCH}?hint=1.2.3.4:9&timeout=3", b"the request")
    assert caught.value.told.code == "NOT_FOUND"
    assert control.calls == [("upload_pack", REPOSITORY, b"the request", (BootstrapAddress.parse("1.2.3.4:9"),), 3.0)]


def test_error_at_the_first_piece_is_an_error_of_the_request(control: ScriptedControl, path: Path) -> None:
    control.answer = [Unavailable("nobody has it")]
    with pytest.raises(ReportedError, match="nobody has it"):
        post(path, ARCHIVE, b"")


def test_error_in_the_middle_cuts_the_answer_off(control: ScriptedControl, path: Path) -> None:
    control.answer = [b"begin", Unavailable("gone")]
    with pytest.raises(NodeDown):
        post(path, ARCHIVE, b"")


def test_reader_of_the_answer_that_is_gone_is_not_taken_for_the_node(control: ScriptedControl, path: Path) -> None:
    control.answer = [b"begin", b"more" * 100_000]

    def pass_on() -> None:
        with ControlClient(path).stream(ARCHIVE, b"", TIMEOUT) as answer:
            next(answer.pieces)
            raise BrokenPipeError  # as a write to git does, when git has ended

    with pytest.raises(BrokenPipeError):
        pass_on()


@pytest.mark.parametrize(("where", "limit"), [(FETCH, MAX_FETCH_BYTES), (ARCHIVE, MAX_ARCHIVE_BYTES)])
def test_request_has_at_most_its_limit(control: ScriptedControl, path: Path, where: str, limit: int) -> None:
    control.held.add(REPOSITORY)
    post(path, where, bytes(limit))
    with pytest.raises(ReportedError) as caught:
        post(path, where, bytes(limit + 1))
    assert caught.value.told.code == "BAD_GIT_REQUEST"
    assert len(control.calls) == 1


@pytest.mark.parametrize("more", [0, 1])
def test_notes_are_lines_of_any_script_and_bounded(control: ScriptedControl, path: Path, more: int) -> None:
    control.held.add(REPOSITORY)
    control.notes = ["ä\n✓" + "x" * (MAX_NOTE_CHARACTERS - 3 + more)] * (MAX_NOTES + more)
    notes, _ = post(path, FETCH, b"")
    assert notes == ["ä\n✓" + "x" * (MAX_NOTE_CHARACTERS - 3)] * MAX_NOTES


def test_client_and_server_mean_the_same_header() -> None:
    assert cli_client.NOTE_HEADER == NOTE_HEADER


async def test_command_that_goes_away_ends_its_answer(control: ScriptedControl, path: Path) -> None:
    control.answer = [bytes(1 << 20)] * 64
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"POST {ARCHIVE} HTTP/1.1\r\nHost: guts\r\nContent-Length: 0\r\n\r\n".encode())
    await reader.readexactly(1 << 20)
    writer.close()
    await writer.wait_closed()
    await asyncio.to_thread(control.answered.wait, TIMEOUT)
    assert control.answered.is_set()
