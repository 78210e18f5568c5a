"""The control API's client: HTTP over the Unix socket, with the standard library alone.

A socket is trusted because of where it is: in a folder that belongs to this user and is closed to others. The
client checks that before it connects, since the fallback folder is in ``/tmp``.
"""

import contextlib
import http.client
import json
import os
import select
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import unquote

from guts.api.errors import ErrorObject, ReportedError
from guts.cli.answer import BadAnswer
from guts.errors import ExitStatus, GutsError, UsageError

CONNECT_TIMEOUT: Final = 5.0
NO_SOCKET: Final = "there is no such socket"
ANSWER_MARGIN: Final = 10.0
"""Seconds on top of what the node was given, before the node itself counts as hanging."""

MAX_ANSWER_BYTES: Final = 384 << 20
"""A list of 10,000 repositories is 5 MB of JSON; the largest records of 64 authors, in base64, are 358 MB."""


NOTE_HEADER: Final = "Guts-Note"
"""A line for people that comes with a streamed answer, percent-encoded."""

PIECE_BYTES: Final = 1 << 20
"""Read at a time of a streamed answer."""


class NodeDown(GutsError):
    """No node answers on the control socket."""

    code: ClassVar[str] = "NODE_DOWN"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NODE_DOWN

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"no node answers on {path} ({reason})", hint="guts node start")


class UnsafeSocket(UsageError):
    """The control socket is in a folder where somebody else could have put it."""

    code: ClassVar[str] = "CONTROL_SOCKET"
    exit_status: ClassVar[ExitStatus] = ExitStatus.CONFIG


class NodeSilent(GutsError):
    """The node took a request and did not answer in time."""

    code: ClassVar[str] = "NODE_SILENT"
    exit_status: ClassVar[ExitStatus] = ExitStatus.TIMED_OUT


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that is read as it comes.

    Attributes:
        notes: lines for people.
        pieces: of the body, in order.
    """

    notes: list[str]
    pieces: Iterator[bytes]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("guts", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(self.timeout)


class ControlClient:
    """A client of the node whose control socket is at ``path``; each request is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, path: str, timeout: float = 30.0) -> object:
        """Return the answer to a GET; ``timeout`` (seconds) is the node's, see ``ANSWER_MARGIN``."""
        return self._request("GET", path, None, timeout)

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None, timeout: float = 30.0) -> object:
        """Return the answer to a request with a JSON body."""
        return self._request(method, path, json.dumps(dict(body or {})).encode(), timeout)

    @contextlib.contextmanager
    def stream(self, path: str, body: bytes, timeout: float) -> Iterator["Streamed"]:
        """Enter with the answer to a POST of bytes, as it comes; ``timeout`` (seconds) is for each piece of it.

        Raises: as ``get``; ``NodeDown`` also while pieces are taken: the node went away in the middle.
        """
        connection = self._connect(timeout)
        try:
            try:
                connection.request("POST", path, body, {"Content-Type": "application/octet-stream"})
            except (BrokenPipeError, ConnectionResetError):
                raise NodeDown(self._path, "it closed the connection") from None
            response = self._response(connection)
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                self._value(response)
            notes = response.headers.get_all(NOTE_HEADER, [])
            yield Streamed([unquote(note) for note in notes], self._pieces(response))
        finally:
            connection.close()

    def upload(self, path: str, header: Mapping[str, object], pack: Iterable[bytes], timeout: float) -> object:
        """Return the answer to a POST of ``header`` and ``pack``, sent in pieces as ``pack`` yields them.

        Raises: as ``get``; the node's error also when it refuses before everything was sent.
        """
        connection = self._connect(timeout)
        head = json.dumps(dict(header)).encode()
        try:
            connection.putrequest("POST", path)
            connection.putheader("Transfer-Encoding", "chunked")
            connection.putheader("Content-Type", "application/octet-stream")
            connection.endheaders()
            self._send_body(connection, len(head).to_bytes(4, "big") + head, pack)
            return self._answer(connection)
        finally:
            connection.close()

    def _request(self, method: str, path: str, body: bytes | None, timeout: float) -> object:
        connection = self._connect(timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            return self._answer(connection)
        except (BrokenPipeError, ConnectionResetError):
            raise NodeDown(self._path, "it closed the connection") from None
        finally:
            connection.close()

    def _connect(self, timeout: float) -> _UnixConnection:
        self._check_folder()
        connection = _UnixConnection(self._path, timeout + ANSWER_MARGIN)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            missing = isinstance(error, FileNotFoundError)
            reason = NO_SOCKET if missing else error.strerror or "it does not accept connections"
            raise NodeDown(self._path, reason) from None
        return connection

    def _check_folder(self) -> None:
        folder = self._path.parent
        try:
            status = folder.lstat()
        except FileNotFoundError:
            raise NodeDown(self._path, NO_SOCKET) from None
        except OSError as error:
            raise NodeDown(self._path, error.strerror or "its folder can't be looked at") from None
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o022:
            raise UnsafeSocket(f"{folder} is not this user's own folder: the socket in it is not trusted")

    def _send_body(self, connection: _UnixConnection, head: bytes, pack: Iterable[bytes]) -> None:
        try:
            connection.send(b"%x\r\n%b\r\n" % (len(head), head))
            for piece in pack:
                # The node answers early when it refuses; then nobody reads the rest.
                if select.select([connection.sock], [], [], 0)[0]:
                    return
                if piece:
                    connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return

    def _answer(self, connection: _UnixConnection) -> object:
        return self._value(self._response(connection))

    def _response(self, connection: _UnixConnection) -> http.client.HTTPResponse:
        with self._told():
            return connection.getresponse()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._told():
                piece = response.read1(PIECE_BYTES)
            if not piece:
                return
            yield piece

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in our own words what happens to a connection that is read from."""
        try:
            yield
        except TimeoutError:
            raise NodeSilent("the node has the request but does not answer", hint="guts node status") from None
        except (http.client.HTTPException, OSError):
            raise NodeDown(self._path, "it went away before it answered") from None

    def _value(self, response: http.client.HTTPResponse) -> object:
        with self._told():
            data = response.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            raise BadAnswer(f"is larger than {MAX_ANSWER_BYTES} bytes")
        if response.length:  # so much is missing; http.client says nothing of it
            raise NodeDown(self._path, "it went away before it answered")
        try:
            value: object = json.loads(data)
        except ValueError:
            if response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise BadAnswer(
                    f"is that it failed (status {response.status})", hint="its log says why: state/node.log"
                ) from None
            raise BadAnswer(f"is not JSON (status {response.status})") from None
        if response.status >= 400:
            told = ErrorObject.from_json(value)
            if told is None:
                raise BadAnswer(f"is an error of unknown form (status {response.status})")
            raise ReportedError(told)
        return value
