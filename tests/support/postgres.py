"""A real PostgreSQL server for tests, in a folder of its own; and a way to lose a connection to it at a chosen moment.

The server trusts whoever reaches its Unix socket, in a folder of its own, and asks for a password over TCP, on a free
port of loopback. It refuses to run as root: started by root it runs as ``postgres``, or as ``nobody``.

``python -m tests.support.postgres`` tells whether there are server programs.
"""

import contextlib
import itertools
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest

from guts.store import dialect

ADMIN = "postgres"
"""The database that every server has."""

HOST = "127.0.0.1"

FAST = f"-c fsync=off -c full_page_writes=off -c max_connections=50 -c listen_addresses={HOST}"
"""A killed server loses nothing that the kernel has; only a killed machine would."""

START_TIMEOUT = 60.0


def programs() -> Path | None:
    """Return the folder of the server's programs, the newest of those that are installed."""
    found = [Path(path).parent for path in (shutil.which("pg_ctl"),) if path is not None]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "pg_ctl").exists()), None)


class Server:
    """A running server with an empty cluster.

    Attributes:
        password: of the user ``guts``, with signs that a URL has to escape.
        port: of TCP; the name of the Unix socket has it too.
    """

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._numbers = itertools.count(1)
        self._user = _server_user()
        if self._user is not None:
            shutil.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self.password = f"sesame/@:%{secrets.token_hex(8)}"
        self.port = _free_port()
        passwords = folder / "password"
        passwords.write_text(self.password)
        # Without the zone it would be looked for; "C" sorts by bytes, as SQLite does.
        authentication = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={passwords}")
        self._run("initdb", "-U", "guts", *authentication, "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()

    @property
    def socket(self) -> Path:
        """The Unix socket, as libpq finds it in the folder that takes the place of a host name."""
        return self.folder / f".s.PGSQL.{self.port}"

    def _run(self, program: str, *arguments: str) -> None:
        user = self._user
        done = subprocess.run(
            [self._binaries / program, "-D", self.folder / "data", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            user=user.pw_uid if user is not None else None,
            group=user.pw_gid if user is not None else None,
            extra_groups=[] if user is not None else None,
            text=True,
            check=False,
            timeout=START_TIMEOUT,
        )
        log = self.folder / "log"
        assert done.returncode == 0, done.stdout or (log.read_text() if log.exists() else program)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run(
            "pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", f"{FAST} -p {self.port} -k {self.folder}", "start"
        )

    def stop(self, mode: Literal["fast", "immediate"] = "immediate") -> None:
        """Stop it: ``fast`` ends every session, ``immediate`` is a crash."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def url(self, database: str, host: Path | None = None) -> str:
        """Return the URL of one of its databases, through the socket in ``host`` where one is given."""
        return f"postgresql:///{database}?host={host or self.folder}&port={self.port}&user=guts"

    def tcp_url(self, database: str) -> str:
        """Return the URL of one of its databases, over TCP, with the password."""
        return f"postgresql://guts:{quote(self.password, safe='')}@{HOST}:{self.port}/{database}"

    def create(self) -> str:
        """Return the name of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def execute(self, statement: str, database: str = ADMIN) -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own and return its rows."""
        engine = dialect.create_single(dialect.parse_url(self.url(database)))
        try:
            with engine.connect() as connection:
                result = connection.exec_driver_sql(statement)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine.dispose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _server_user() -> pwd.struct_passwd | None:
    """Return whom root starts the server as."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


@contextlib.contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """Run a server for as long as the context lasts."""
    # Not below pytest's folder: that is closed to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="guts-pg-"))
    try:
        server = Server(folder, binaries)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


Mishap = Literal["before", "after", "late"]


class Cutter:
    """Stands between a node and the server, and cuts the connection at the next COMMIT of a write.

    ``before``: the server never sees the COMMIT. ``after``: it does, and its answer is lost. ``late``: the node's
    side is cut first, and the server sees the COMMIT only after ``release``.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = folder
        self.cuts = 0
        self._upstream = server.socket
        self._mishap: Mishap | None = None
        self._release = threading.Event()
        self._held = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / server.socket.name))
        self._listener.listen()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def arm(self, mishap: Mishap) -> None:
        """Have the next COMMIT go wrong."""
        self._release.clear()
        self._held.clear()
        self._mishap = mishap

    def wait_held(self) -> bool:
        """Wait until a late COMMIT is held back."""
        return self._held.wait(10)

    def release(self) -> None:
        """Let a late COMMIT through."""
        self._release.set()

    def close(self) -> None:
        """Take no more connections and wait for those that are left; the node has closed its own before."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            self._sockets += (client, upstream)
            try:
                upstream.connect(str(self._upstream))
            except OSError:
                _end(client)
                continue
            for target in (self._to_server, self._to_client):
                thread = threading.Thread(target=target, args=(client, upstream))
                self._threads.append(thread)
                thread.start()

    def _to_server(self, client: socket.socket, upstream: socket.socket) -> None:
        reads = False
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                # Readers' transactions end with one too; their connections are theirs alone.
                reads = reads or b"READ ONLY" in data
                # psycopg sends COMMIT as a message of its own.
                if b"COMMIT\0" in data and not reads and self._mishap is not None:
                    self._cut(client, upstream, data)
                    break
                upstream.sendall(data)
        _end(upstream)

    def _cut(self, client: socket.socket, upstream: socket.socket, data: bytes) -> None:
        mishap, self._mishap = self._mishap, None
        self.cuts += 1
        if mishap == "before":
            _end(upstream)
        # What the server still says goes nowhere.
        _end(client)
        if mishap == "late":
            self._held.set()
            assert self._release.wait(10)
        if mishap != "before":
            upstream.sendall(data)

    def _to_client(self, client: socket.socket, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65_536):
                with contextlib.suppress(OSError):
                    client.sendall(data)
        _end(client)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A running server, one for the whole run."""
    binaries = programs()
    if binaries is None:
        pytest.skip("no PostgreSQL server programs here (initdb, pg_ctl); `make test-postgres` installs them")
    with running(binaries) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Server) -> Iterator[str]:
    """The name of a new, empty database."""
    name = postgres_server.create()
    yield name
    postgres_server.drop(name)


@pytest.fixture
def cutter(postgres_server: Server) -> Iterator[Cutter]:
    """What loses connections to the server."""
    folder = Path(tempfile.mkdtemp(prefix="guts-cut-"))
    cutter = Cutter(postgres_server, folder)
    try:
        yield cutter
        cutter.close()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    if programs() is None:
        sys.exit("no PostgreSQL server programs here (initdb, pg_ctl)")
