"""The control socket: who can open it, what a request may be, and how errors come back."""

import asyncio
import http.client
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from guts.addresses import BootstrapAddress
from guts.api.errors import HTTP_STATUS, ErrorObject, ReportedError
from guts.api.publication import MAX_HEADER_BYTES, PIECE_BYTES, UploadBroken
from guts.api.requests import DEFAULT_TIMEOUT, MAX_HINTS, MAX_SIZE_DIGITS, MAX_TIMEOUT, Json
from guts.api.routes import MAX_ASKED, MAX_BODY_BYTES
from guts.api.server import SocketBusy, SocketUnusable, control_server
from guts.cli.client import ControlClient, NodeDown, NodeSilent, UnsafeSocket
from guts.errors import ExitStatus, GutsError
from guts.ids import AuthorId, ObjectId
from tests.support.scripted_control import NODE, REPOSITORY, ScriptedControl, serving

TIMEOUT = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def control(path: Path) -> Iterator[ScriptedControl]:
    control = ScriptedControl()
    with serving(control, path):
        yield control


def exchange(path: Path, request: bytes) -> tuple[int, dict[str, object]]:
    """Send raw bytes and return status and JSON of the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(os.fspath(path))
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        value = json.loads(response.read())
        assert isinstance(value, dict)
        return response.status, value


def refused(path: Path, method: str, where: str, body: bytes = b"") -> ErrorObject:
    head = f"{method} {where} HTTP/1.1\r\nHost: guts\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    status, value = exchange(path, head + body)
    error = ErrorObject.from_json(value)
    assert error is not None
    assert status >= 400
    return error


def test_socket_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    with serving(ScriptedControl(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == []


def test_stale_socket_of_a_dead_node_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(os.fspath(path))
    with serving(ScriptedControl(), path):
        assert isinstance(ControlClient(path).get("/v1/status"), dict)


async def test_live_socket_is_left_to_its_node(control: ScriptedControl, path: Path) -> None:
    inode = path.stat().st_ino
    with pytest.raises(SocketBusy):
        async with control_server(ScriptedControl(), path):
            pass
    assert path.stat().st_ino == inode
    assert isinstance(await asyncio.to_thread(ControlClient(path).get, "/v1/status"), dict)


@pytest.mark.parametrize("mode", [0o750, 0o701])
async def test_folder_that_is_open_to_others_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(SocketUnusable, match="open to others") as caught:
        async with control_server(ScriptedControl(), path):
            pass
    assert caught.value.hint == f"chmod 700 {path.parent}"


async def test_file_in_the_place_of_the_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(SocketUnusable, match="not a socket"):
        async with control_server(ScriptedControl(), path):
            pass
    assert path.read_text() == "precious"


async def test_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SocketUnusable, match="too long"):
        async with control_server(ScriptedControl(), tmp_path / ("x" * 120)):
            pass


def test_client_names_a_node_that_is_down(path: Path) -> None:
    with pytest.raises(NodeDown) as caught:
        ControlClient(path).get("/v1/status")
    assert caught.value.exit_status is ExitStatus.NODE_DOWN
    assert caught.value.hint == "guts node start"

    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(os.fspath(path))
    with pytest.raises(NodeDown, match="refused"):
        ControlClient(path).get("/v1/status")


def test_client_does_not_trust_a_socket_that_others_could_have_made(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(UnsafeSocket):
        ControlClient(path).get("/v1/status")


PAST = f"/v1/repositories/{REPOSITORY}/past"
SYNC = f"/v1/repositories/{REPOSITORY}/sync"
SEEDING = f"/v1/repositories/{REPOSITORY}/seeding"
RECEIPTS = f"/v1/repositories/{REPOSITORY}/receipts"
AUTHOR = AuthorId(bytes(32))


def test_routes_reach_control_with_typed_arguments(control: ScriptedControl, path: Path) -> None:
    client = ControlClient(path)
    known = f"/v1/repositories/{REPOSITORY}"
    with pytest.raises(ReportedError):
        client.send("PUT", known + "/seeding", {"hints": [f"{NODE}@1.2.3.4:9"], "timeout": 2.5})
    with pytest.raises(ReportedError):
        client.get(known + "/refs?hint=1.2.3.4:9&hint=%5B::1%5D:9&timeout=1.5")
    with pytest.raises(ReportedError):
        client.get(known + "/evidence?hint=1.2.3.4:9")
    client.send("POST", known + "/past", {"refs": {"refs/heads/main": "01" * 20}, "hints": ["1.2.3.4:9"], "timeout": 2})
    client.send("DELETE", known + "/seeding")
    client.send("POST", known + "/sync", {"timeout": 3})
    for query in ("", f"?author={AUTHOR}&seq=7&replicas=64&timeout=2"):
        with pytest.raises(ReportedError):
            client.get(f"{known}/receipts{query}")
    client.send("POST", "/v1/peers", {"address": "[::1]:9", "timeout": 1})
    client.get(f"/v1/providers/{REPOSITORY}?timeout=4")
    client.get(known + f"/seeding?besides={'9' * MAX_SIZE_DIGITS}")
    client.send("POST", "/v1/stop")

    assert control.calls == [
        ("seed", REPOSITORY, (BootstrapAddress.parse(f"{NODE}@1.2.3.4:9"),), 2.5),
        ("refs", REPOSITORY, (BootstrapAddress("1.2.3.4", 9), BootstrapAddress("::1", 9)), 1.5),
        ("evidence", REPOSITORY, (BootstrapAddress("1.2.3.4", 9),), DEFAULT_TIMEOUT),
        ("past", REPOSITORY, {"refs/heads/main": ObjectId(b"\1" * 20)}, (BootstrapAddress("1.2.3.4", 9),), 2.0),
        ("unseed", REPOSITORY, False),
        ("sync", REPOSITORY, 3.0),
        ("receipts", REPOSITORY, None, None, 0, 60.0),
        ("receipts", REPOSITORY, AUTHOR, 7, 64, 2.0),
        ("connect", BootstrapAddress("::1", 9), 1.0),
        ("find_providers", REPOSITORY, 4.0),
        ("dry_run", REPOSITORY, (), DEFAULT_TIMEOUT, 10**MAX_SIZE_DIGITS - 1),
        ("stop",),
    ]


def test_error_keeps_code_hint_details_and_exit_status(control: ScriptedControl, path: Path) -> None:
    with pytest.raises(ReportedError) as caught:
        ControlClient(path).get(f"/v1/repositories/{REPOSITORY}")
    assert caught.value.told == ErrorObject(
        "NOT_FOUND",
        "there is no such repository here",
        "guts seed it first",
        {"repository": str(REPOSITORY)},
        ExitStatus.NOT_FOUND,
    )


def test_every_exit_status_of_an_error_has_an_http_status() -> None:
    assert set(HTTP_STATUS) == set(ExitStatus) - {ExitStatus.OK}


@pytest.mark.parametrize(
    ("method", "where", "body", "code", "says"),
    [
        ("GET", "/v2/status", b"", "BAD_REQUEST", "404"),
        ("PATCH", "/v1/status", b"", "BAD_REQUEST", "405"),
        ("GET", "/v1/repositories/repo1x", b"", "BAD_ID", "repo1x"),
        ("GET", f"/v1/repositories/{NODE}", b"", "BAD_ID", "is a node id; a repository id"),
        ("POST", SYNC, b"{", "BAD_REQUEST", "not JSON"),
        ("POST", SYNC, b"[" * 30_000, "BAD_REQUEST", "not JSON"),
        ("POST", SYNC, b"[]", "BAD_REQUEST", "not a JSON object"),
        ("POST", SYNC, b"\xff", "BAD_REQUEST", "not JSON"),
        ("POST", SYNC, b'{"timeout": "soon"}', "BAD_REQUEST", "timeout"),
        ("POST", SYNC, b'{"timeout": 0}', "BAD_REQUEST", "timeout"),
        ("POST", SYNC, b'{"timeout": NaN}', "BAD_REQUEST", "timeout"),
        ("POST", SYNC, f'{{"timeout": {MAX_TIMEOUT + 1}}}'.encode(), "BAD_REQUEST", "timeout"),
        ("GET", f"/v1/repositories/{REPOSITORY}/refs?hint=nowhere", b"", "BAD_ADDRESS", "nowhere"),
        ("POST", PAST, b"{}", "BAD_REQUEST", "refs is not an object"),
        ("POST", PAST, b'{"refs": {"refs/heads/main": "01"}}', "BAD_REQUEST", "40 hex digits"),
        ("POST", PAST, b'{"refs": {"refs/heads/main": null}}', "BAD_REQUEST", "oid"),
        ("GET", f"{SEEDING}?besides=-1", b"", "BAD_REQUEST", "besides"),
        ("GET", f"{SEEDING}?besides={'9' * (MAX_SIZE_DIGITS + 1)}", b"", "BAD_REQUEST", "besides"),
        ("GET", f"{RECEIPTS}?seq=7", b"", "BAD_REQUEST", "author"),
        ("GET", f"{RECEIPTS}?replicas=1", b"", "BAD_REQUEST", "author"),
        ("GET", f"{RECEIPTS}?author={NODE}", b"", "BAD_ID", "is a node id"),
        ("GET", f"{RECEIPTS}?author={AUTHOR}&replicas=65", b"", "BAD_REQUEST", "replicas"),
        ("GET", f"{RECEIPTS}?author={AUTHOR}&replicas=-1", b"", "BAD_REQUEST", "replicas"),
        ("GET", f"{RECEIPTS}?author={AUTHOR}&seq={2**63}", b"", "BAD_REQUEST", "seq"),
        ("GET", f"{RECEIPTS}?author={AUTHOR}&seq={'1' * 5000}", b"", "BAD_REQUEST", "seq"),
        ("GET", f"{RECEIPTS}?author={AUTHOR}&timeout=0", b"", "BAD_REQUEST", "timeout"),
        ("POST", "/v1/peers", b"{}", "BAD_REQUEST", "address"),
        ("POST", "/v1/peers", b'{"address": "nowhere"}', "BAD_ADDRESS", "nowhere"),
        ("GET", "/v1/peers/node1abc", b"", "BAD_ID", "node1abc"),
        ("DELETE", "/v1/bans", b"", "BAD_SUBJECT", "nobody"),
        ("DELETE", "/v1/bans?subject=192.0.2.1/24", b"", "BAD_SUBJECT", "192.0.2.1/24"),
        ("POST", "/v1/bans", b"{}", "BAD_REQUEST", "list"),
        ("POST", "/v1/bans", b'{"bans": []}', "BAD_REQUEST", "list"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "x", "seconds": null}]}', "BAD_SUBJECT", "x"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1", "seconds": 0}]}', "BAD_REQUEST", "seconds"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1", "seconds": 1e12}]}', "BAD_REQUEST", "seconds"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1", "seconds": NaN}]}', "BAD_REQUEST", "seconds"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1", "seconds": true}]}', "BAD_REQUEST", "seconds"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1"}]}', "BAD_REQUEST", "seconds"),
        ("POST", "/v1/bans", b'{"bans": [{"subject": 5, "seconds": 5}]}', "BAD_REQUEST", "subject"),
        (
            "POST",
            "/v1/bans",
            b'{"bans": [{"subject": "192.0.2.1", "seconds": 5, "reason": 5}]}',
            "BAD_REQUEST",
            "reason",
        ),
        ("POST", "/v1/bans", b'{"bans": [{"subject": "192.0.2.1", "seconds": 5}], "merge": 1}', "BAD_REQUEST", "merge"),
        ("POST", "/v1/publications/s/commit", b'{"signature": "zz"}', "BAD_REQUEST", "hex"),
        ("POST", "/v1/publications/s/commit", b'{"signature": "00"}', "BAD_REQUEST", "64 bytes"),
        ("POST", "/v1/publications", b"\0\0\0\x02[]", "BAD_REQUEST", "object"),
        ("POST", "/v1/publications", b"\0\0\0\x02{", "UPLOAD_BROKEN", "inside its header"),
        ("POST", "/v1/publications", b"\0", "UPLOAD_BROKEN", "inside its header"),
        ("POST", "/v1/publications", b"\0\0\0\x01{", "BAD_REQUEST", "not JSON"),
    ],
)
def test_bad_request_is_told_and_the_server_lives_on(
    control: ScriptedControl, path: Path, method: str, where: str, body: bytes, code: str, says: str
) -> None:
    error = refused(path, method, where, body)

    assert error.code == code
    assert says in error.message
    assert isinstance(ControlClient(path).get("/v1/status"), dict)
    assert control.calls == []


def test_body_of_the_largest_size_is_taken_and_no_larger(control: ScriptedControl, path: Path) -> None:
    client = ControlClient(path)
    padding = MAX_BODY_BYTES - len(json.dumps({"pad": ""}))
    client.send("POST", SYNC, {"pad": "x" * padding})
    with pytest.raises(ReportedError, match="413"):
        client.send("POST", SYNC, {"pad": "x" * (padding + 1)})


def test_hints_are_counted(control: ScriptedControl, path: Path) -> None:
    client = ControlClient(path)
    where = f"/v1/repositories/{REPOSITORY}/seeding"
    with pytest.raises(ReportedError, match="no replica found"):
        client.send("PUT", where, {"hints": ["1.2.3.4:9"] * MAX_HINTS})
    with pytest.raises(ReportedError, match="at most"):
        client.send("PUT", where, {"hints": ["1.2.3.4:9"] * (MAX_HINTS + 1)})


def test_refs_whose_past_is_asked_for_are_counted(control: ScriptedControl, path: Path) -> None:
    client = ControlClient(path)
    refs = {f"refs/heads/{number:0244}": "01" * 20 for number in range(MAX_ASKED)}
    client.send("POST", PAST, {"refs": refs})
    with pytest.raises(ReportedError, match="at most"):
        client.send("POST", PAST, {"refs": {**refs, "refs/heads/main": "01" * 20}})


def test_header_of_a_publication_is_bounded(control: ScriptedControl, path: Path) -> None:
    small = json.dumps({"pad": ""})
    for length, says in ((MAX_HEADER_BYTES, "inside its header"), (MAX_HEADER_BYTES + 1, "are allowed")):
        error = refused(path, "POST", "/v1/publications", length.to_bytes(4, "big") + small.encode())
        assert says in error.message


class Upload(ScriptedControl):
    """Consumes a pack as slowly as it is told to, and notes how its upload ended."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.largest = 0
        self.received = asyncio.Event()
        self.ended: asyncio.Future[GutsError] = asyncio.get_running_loop().create_future()
        self.total = 0

    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
        await self.go.wait()
        try:
            async for piece in pack:
                self.largest = max(self.largest, len(piece))
                self.total += len(piece)
                self.received.set()
        except UploadBroken as error:
            self.ended.set_result(error)
            raise
        return {"header": header, "total": self.total}


async def test_pack_is_handed_on_in_pieces_with_back_pressure(path: Path) -> None:
    control, sent, size, count = Upload(), [0], 64 << 10, 512
    stalled = asyncio.Event()
    loop = asyncio.get_running_loop()

    def pack() -> Iterator[bytes]:
        for number in range(count):
            sent[0] += size
            if number == 8:
                loop.call_soon_threadsafe(stalled.set)
            yield bytes(size)

    async with control_server(control, path), asyncio.TaskGroup() as tasks:
        upload = tasks.create_task(
            asyncio.to_thread(ControlClient(path).upload, "/v1/publications", {"a": 1}, pack(), TIMEOUT)
        )
        await stalled.wait()
        before = -1
        while before != sent[0]:  # the sender stands still once every buffer on the way is full
            before = sent[0]
            await asyncio.sleep(0.05)
        assert sent[0] < count * size / 4
        control.go.set()
        answer = await upload

    assert answer == {"header": {"a": 1}, "total": count * size}
    assert control.largest <= PIECE_BYTES


async def test_upload_that_breaks_off_is_told_to_whoever_reads_it(path: Path) -> None:
    control = Upload()
    async with control_server(control, path):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /v1/publications HTTP/1.1\r\nHost: guts\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"6\r\n\0\0\0\x02{}\r\n4\r\nPACK\r\n")
        await writer.drain()
        control.go.set()
        await control.received.wait()
        writer.close()
        await writer.wait_closed()
        error = await control.ended
    assert error.code == "UPLOAD_BROKEN"


class Checking(ScriptedControl):
    """Has a whole pack, and is not done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.received = asyncio.Event()
        self.go = asyncio.Event()
        self.forgotten = asyncio.Event()

    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
        async for _ in pack:
            pass
        self.received.set()
        await self.go.wait()
        return {"session": "s"}

    async def forget(self, session: str) -> Json:
        assert session == "s"
        self.forgotten.set()
        return {}


@pytest.mark.parametrize("leaves", [True, False])
async def test_session_of_who_left_while_it_was_prepared_is_forgotten(path: Path, leaves: bool) -> None:
    control = Checking()
    async with control_server(control, path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /v1/publications HTTP/1.1\r\nHost: guts\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"6\r\n\0\0\0\x02{}\r\n4\r\nPACK\r\n0\r\n\r\n")
        await control.received.wait()
        if leaves:
            writer.close()
            await writer.wait_closed()
            for _ in range(10):  # turns of the loop, in which the server sees it
                await asyncio.sleep(0)
        control.go.set()
        if leaves:
            async with asyncio.timeout(TIMEOUT):
                await control.forgotten.wait()
        else:
            assert b"200 OK" in await reader.readline()
            assert not control.forgotten.is_set()
            writer.close()


class Refusing(ScriptedControl):
    """Refuses before it has read anything of the pack."""

    async def prepare(self, header: Json, pack: AsyncIterator[bytes]) -> Json:
        raise UploadBroken("enough of this")


def test_client_hears_a_refusal_before_it_has_sent_everything(path: Path) -> None:
    sent = [0]

    def endless() -> Iterator[bytes]:
        while True:
            sent[0] += 1
            yield bytes(64 << 10)

    with serving(Refusing(), path), pytest.raises(ReportedError, match="enough of this"):
        ControlClient(path).upload("/v1/publications", {}, endless(), TIMEOUT)
    assert sent[0] < 10_000


class Broken(ScriptedControl):
    """Has a bug."""

    async def status(self) -> Json:
        raise AssertionError("a bug")


def test_bug_in_the_node_is_an_answer_too(path: Path) -> None:
    with serving(Broken(), path), pytest.raises(GutsError, match="status 500"):
        ControlClient(path).get("/v1/status")


class Silent(ScriptedControl):
    """Takes a request and never answers."""

    async def status(self) -> Json:
        await asyncio.Event().wait()
        raise AssertionError


def test_client_gives_up_on_a_node_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guts.cli.client.ANSWER_MARGIN", 0.05)
    monkeypatch.setattr("guts.api.server.STOP_GRACE", 0.05)
    with serving(Silent(), path), pytest.raises(NodeSilent):
        ControlClient(path).get("/v1/status", timeout=0.05)


@pytest.mark.parametrize("kind", ["file", "symlink"])
async def test_folder_that_is_none_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    if kind == "file":
        path.parent.write_text("precious")
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SocketUnusable):
        async with control_server(ScriptedControl(), path):
            pass
    assert not (tmp_path / "elsewhere" / path.name).exists()


def test_end_leaves_a_socket_that_another_node_has_put_in_its_place(path: Path) -> None:
    with serving(ScriptedControl(), path):
        path.rename(path.with_name("moved away"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(os.fspath(path))
    assert path.is_socket()
