"""The control client against servers that are not what they should be."""

import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from guts.api.requests import Json
from guts.cli import client
from guts.cli.answer import BadAnswer
from guts.cli.client import ControlClient, NodeDown
from tests.support.scripted_control import ScriptedControl, serving


@contextlib.contextmanager
def answering(path: Path, reply: Callable[[socket.socket], None]) -> Iterator[ControlClient]:
    """A server for one connection that does ``reply`` and closes."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(os.fspath(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                reply(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ControlClient(path)
        finally:
            thread.join(10)


def saying(data: bytes) -> Callable[[socket.socket], None]:
    def reply(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(data)

    return reply


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (http(b"not json"), "is not JSON"),
        (http(b"\xff"), "is not JSON"),
        (b"HTTP/1.1 200", "is not JSON"),
        (http(b"Internal", "500 Internal Server Error"), "is that it failed"),
        (http(b"{}", "500 Internal Server Error"), "unknown form"),
    ],
)
def test_answer_that_is_none_is_a_bad_answer(tmp_path: Path, data: bytes, says: str) -> None:
    with answering(tmp_path / "run" / "s", saying(data)) as control, pytest.raises(BadAnswer, match=says):
        control.get("/v1/status")


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-hello\r\n", http(b"{}")[:-1]])
def test_node_that_goes_away_before_it_answered_is_down(tmp_path: Path, data: bytes) -> None:
    with answering(tmp_path / "run" / "s", saying(data)) as control, pytest.raises(NodeDown, match="went away"):
        control.get("/v1/status")


def test_socket_that_cannot_be_looked_at_is_told_from_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeDown, match="there is no such socket"):
        ControlClient(tmp_path / "run" / "s").get("/v1/status")
    with pytest.raises(NodeDown, match="Not a directory"):
        ControlClient(tmp_path / "file" / "run" / "s").get("/v1/status")


def test_node_that_goes_away_during_an_upload_is_down(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(65_536)

    with answering(tmp_path / "run" / "s", saying(b"")) as control, pytest.raises(NodeDown):
        control.upload("/v1/publications", {}, endless(), 5.0)


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_answer_of_the_largest_size_is_read_and_no_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int, fits: bool
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100)
    body = b'"' + b"x" * (98 + extra) + b'"'
    with answering(tmp_path / "run" / "s", saying(http(body))) as control:
        if fits:
            assert control.get("/") == "x" * 98
        else:
            with pytest.raises(BadAnswer, match="larger"):
                control.get("/")


def test_upload_passes_over_empty_pieces(tmp_path: Path) -> None:
    class Counting(ScriptedControl):
        async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
            return {"pack": b"".join([piece async for piece in pack]).decode()}

    with serving(Counting(), tmp_path / "run" / "s"):
        answer = ControlClient(tmp_path / "run" / "s").upload(
            "/v1/publications", {}, iter([b"", b"PA", b"", b"CK"]), 5.0
        )
    assert answer == {"pack": "PACK"}
