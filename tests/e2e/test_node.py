"""One node as a process: start, stop, and every reason not to start."""

import os
import signal
import socket
import sqlite3
import time
from pathlib import Path

from guts.cli.processes import Process
from guts.config import Paths
from guts.errors import ExitStatus
from guts.identity import SigningKey
from guts.keystore import KeyFile, KeyKind, write_key_file
from tests.e2e.conftest import Guts


def paths(guts: Guts) -> Paths:
    return Paths.from_environ(guts.environ)


def pid(guts: Guts) -> int:
    value = guts("node", "status", "--json").json["pid"]
    assert isinstance(value, int)
    return value


def test_node_starts_once_answers_and_stops(alone: Guts) -> None:
    down = alone("node", "status", "--json")
    assert (down.status, down.error["code"]) == (ExitStatus.NODE_DOWN, "NODE_DOWN")

    started = alone("node", "start", "--json").json
    again = alone("node", "start", "--json").json
    assert (again["id"], again["pid"]) == (started["id"], started["pid"])
    assert f"node    {started['id']}\n" in alone("id", "show").out
    process = Process.of(pid(alone))
    assert process is not None

    assert alone("node", "stop", "--json").json == {"stopped": True}
    assert not process.alive
    assert not paths(alone).control_socket.exists()
    assert alone("node", "stop", "--json").json == {"stopped": False}
    assert alone("node", "status").status == ExitStatus.NODE_DOWN


def test_node_comes_back_after_a_crash_with_the_same_key(alone: Guts) -> None:
    identity = alone("node", "start", "--json").json["id"]
    crashed = Process.of(pid(alone))
    assert crashed is not None
    assert crashed.signal(signal.SIGKILL)
    assert crashed.wait_gone(10)
    assert paths(alone).control_socket.exists()

    assert alone("node", "start", "--json").json["id"] == identity


def test_node_stops_on_a_signal(alone: Guts) -> None:
    alone("node", "start")
    process = Process.of(pid(alone))
    assert process is not None
    process.signal(signal.SIGTERM)
    assert process.wait_gone(10)
    assert not paths(alone).control_socket.exists()


def test_port_in_use_is_told_and_nothing_is_left(alone: Guts) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = alone("node", "start", "--listen", f"127.0.0.1:{port}", "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "PORT_BUSY")
    assert str(port) in str(ran.error["message"])
    assert ran.error["hint"]
    assert not paths(alone).control_socket.exists()


def test_udp_port_in_use_is_told(alone: Guts) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ran = alone("node", "start", "--listen", f"127.0.0.1:{port}", "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "PORT_BUSY")
    assert str(port) in str(ran.error["message"])


def test_second_node_on_one_data_directory_is_refused(alone: Guts, tmp_path: Path) -> None:
    alone("node", "start")
    xdg = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "x"), "XDG_STATE_HOME": str(tmp_path / "y")}
    second = Guts(tmp_path / "unused", **xdg, GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0")
    del second.environ["GUTS_HOME"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "guts").symlink_to(paths(alone).data)
    ran = second("node", "start", "--json")

    assert ran.status != 0
    assert ran.error["code"] == "ALREADY_RUNNING"
    assert str(pid(alone)) in str(ran.error["message"])


def test_locked_node_key_without_a_terminal_is_told(alone: Guts, tmp_path: Path) -> None:
    write_key_file(paths(alone).node_key, KeyFile.of(KeyKind.NODE, SigningKey(bytes(32)), "secret"))
    ran = alone("node", "start", "--json")
    assert ran.error["code"] == "KEY_LOCKED"
    assert "GUTS_PASSPHRASE_FILE" in str(ran.error["hint"])

    secret = tmp_path / "passphrase"
    secret.write_text("secret\n")
    alone.environ["GUTS_PASSPHRASE_FILE"] = str(secret)
    assert alone("node", "start", "--json").json["id"] == str(SigningKey(bytes(32)).peer_id)


def test_node_key_that_others_may_read_is_refused(alone: Guts) -> None:
    write_key_file(paths(alone).node_key, KeyFile.of(KeyKind.NODE, SigningKey(bytes(32)), None))
    paths(alone).node_key.chmod(0o644)
    ran = alone("node", "start", "--json")
    assert ran.error["code"] == "KEY_MODE"
    assert ran.error["hint"] == f"chmod 600 {paths(alone).node_key}"


def test_database_of_a_newer_version_is_left_alone(alone: Guts) -> None:
    alone("node", "start")
    alone("node", "stop")
    database = paths(alone).database
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    ran = alone("node", "start", "--json")

    assert ran.status != 0
    assert ran.error["code"] == "SCHEMA_NEWER"
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()


def test_bad_setting_is_told_before_anything_starts(alone: Guts) -> None:
    alone.environ["GUTS_NETWORK__MAX_CONECTIONS"] = "3"
    ran = alone("node", "start", "--json")
    del alone.environ["GUTS_NETWORK__MAX_CONECTIONS"]

    assert (ran.status, ran.error["code"]) == (ExitStatus.CONFIG, "BAD_CONFIG")
    assert not paths(alone).log_file.exists()


def test_node_with_a_long_home_answers_at_its_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("h" * 100)
    guts = Guts(home, GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0")
    assert paths(guts).control_socket.parent.name == f"guts-{os.geteuid()}"
    try:
        assert guts("node", "start").status == 0
        assert guts("node", "status").status == 0
    finally:
        guts("node", "stop")
    assert not paths(guts).control_socket.exists()


def test_log_is_private_and_in_its_place(alone: Guts) -> None:
    begun = time.time()
    alone("node", "start")
    log = paths(alone).log_file
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.stat().st_mtime >= begun - 1
