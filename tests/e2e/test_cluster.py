"""``guts cluster``: up, ls, status, env, logs, kill, start, down."""

import os
import shlex
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from guts.cli import daemon
from guts.cli.local_cluster import ClusterFailed, LocalCluster
from guts.cli.processes import Process
from guts.errors import ExitStatus
from guts.node.lock import AlreadyRunning, DataDirectoryLock
from tests.e2e.conftest import Guts


def test_cluster_goes_up_loses_a_node_gets_it_back_and_goes_down(tmp_path: Path) -> None:
    guts = Guts(tmp_path / "unused")
    folder = tmp_path / "network"
    options = ("--dir", folder)
    try:
        up = guts("cluster", "up", 3, *options)
        assert up.status == 0, up.err
        assert "3 nodes ready" in up.out
        before = LocalCluster.load(folder)
        assert all(member.running for member in before.members)

        export = guts("cluster", "env", 3, *options).out
        name, _, home = shlex.split(export)[1].partition("=")
        assert (name, home) == ("GUTS_HOME", str(folder / "node3"))
        third = Guts(Path(home))
        identity = third("node", "status", "--json").json["id"]
        assert guts("cluster", "logs", 3, *options).out.count("\n") >= 1

        assert guts("cluster", "kill", 3, *options).out == "killed node 3\n"
        assert guts("cluster", "kill", 3, *options).out == "node 3 was not running\n"
        assert third("node", "status").status == ExitStatus.NODE_DOWN
        rows = guts("cluster", "status", *options).out.splitlines()
        assert [row.split()[1] for row in rows[1:]] == ["up", "up", "down"]

        assert guts("cluster", "start", 3, *options).status == 0
        again = third("node", "status", "--json").json
        assert again["id"] == identity
        assert again["listen"] == [f"127.0.0.1:{before.member(3).port}"]
        assert "3 nodes ready" in guts("cluster", "up", *options).out
        assert guts("cluster", "up", 4, *options, "--json").error["code"] == "BAD_CLUSTER"
        members = LocalCluster.load(folder).members
    finally:
        down = guts("cluster", "down", *options)
    assert down.out == "stopped 3 nodes\n"
    assert not any(member.running for member in members)
    assert guts("cluster", "down", "--wipe", *options).out == "stopped 0 nodes, wiped\n"
    assert not folder.exists()
    assert guts("cluster", "ls", *options, "--json").error["code"] == "NO_CLUSTER"


def test_cluster_sees_a_node_that_was_started_by_hand(tmp_path: Path) -> None:
    guts = Guts(tmp_path / "unused")
    folder = tmp_path / "network"
    options = ("--dir", folder)
    cluster = LocalCluster.create(folder, 3)
    second = Guts(cluster.member(2).home)
    try:
        assert second("node", "start").status == 0
        pid = second("node", "status", "--json").json["pid"]
        rows = guts("cluster", "ls", *options).out.splitlines()[1:]
        assert [row.replace(" (door)", "").split()[1] for row in rows] == ["down", str(pid), "down"]
        rows = guts("cluster", "status", *options).out.splitlines()[1:]
        assert [row.split()[1] for row in rows] == ["down", "up", "down"]
        assert guts("cluster", "start", 2, *options).err == "node 2 runs already\n"
        with pytest.raises(AlreadyRunning):
            cluster.wipe()
        assert cluster.member(2).home.is_dir()
        assert guts("cluster", "down", "--wipe", *options).out == "stopped 1 node, wiped\n"
        assert not folder.exists()
        assert Process.of(int(str(pid))) is None
    finally:
        cluster.stop()


def test_node_whose_port_was_taken_gets_another_and_is_still_found(tmp_path: Path) -> None:
    guts = Guts(tmp_path / "unused")
    folder = tmp_path / "network"
    cluster = LocalCluster.create(folder, 3)
    ports = [member.port for member in cluster.members]
    try:
        with socket.socket() as door, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
            door.bind(("127.0.0.1", ports[0]))
            door.listen()
            third.bind(("127.0.0.1", ports[2]))
            up = guts("cluster", "up", "--dir", folder)
        assert up.status == 0, up.err
        moved = LocalCluster.load(folder)
        assert [one.port == port for one, port in zip(moved.members, ports, strict=True)] == [False, True, False]
        door_at = moved.member(1).address
        for member in moved.members:
            config = (member.home / "config.toml").read_text()
            assert config.count(f'"127.0.0.1:{member.port}"') == 2
            assert member.index == 1 or door_at in config
        third_home = Guts(moved.member(3).home)
        assert third_home("peer", "connect", door_at).status == 0
    finally:
        LocalCluster.load(folder).stop()


def test_cluster_whose_ports_are_always_taken_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = LocalCluster.create(tmp_path / "network", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("guts.cli.local_cluster.free_ports", lambda *_: [taken.getsockname()[1]])
        with socket.socket() as first:
            first.bind(("127.0.0.1", cluster.member(1).port))
            first.listen()
            with pytest.raises(ClusterFailed, match="node 1 found its port taken 5 times") as failed:
                cluster.start()
    assert failed.value.hint == "guts cluster down --wipe, then guts cluster up"


def test_process_that_left_its_number_in_a_lock_is_not_taken_for_a_node(tmp_path: Path) -> None:
    cluster = LocalCluster.create(tmp_path / "network", 2)
    data = cluster.member(2).home / "data"
    data.mkdir(exist_ok=True)
    (data / "node.lock").write_text(f"{os.getpid()}\n")
    assert not cluster.member(2).running
    lock = DataDirectoryLock.acquire(data)
    assert cluster.member(2).process == Process.of(os.getpid())
    lock.release()
    assert not cluster.member(2).running


def test_cluster_signals_only_processes_that_it_started(tmp_path: Path) -> None:
    cluster = LocalCluster.create(tmp_path / "network", 2)
    ours = os.getpid()
    state = (cluster.folder / "cluster.json").read_text()
    # As if the node's process id had been taken over: by this very process, which must live on.
    (cluster.folder / "cluster.json").write_text(state.replace("null", f'[{ours}, "another time"]'))
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(AssertionError("signalled")))
    try:
        loaded = LocalCluster.load(cluster.folder)
        assert [member.running for member in loaded.members] == [False, False]
        assert loaded.stop() == 0
        assert not loaded.kill(2)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_cluster_whose_start_is_interrupted_knows_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = LocalCluster.create(tmp_path / "network", 3)
    spawn, last = daemon.spawn, cluster.member(3).home

    def interrupted(environ: Mapping[str, str]) -> daemon.Spawned:
        if environ["GUTS_HOME"] == str(last):
            raise KeyboardInterrupt
        return spawn(environ)

    monkeypatch.setattr(daemon, "spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cluster.start()

    assert LocalCluster.load(cluster.folder).stop() == 2


def test_cluster_wants_a_folder_of_its_own_and_a_possible_number(tmp_path: Path) -> None:
    guts = Guts(tmp_path / "unused")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")

    assert guts("cluster", "up", 3, "--dir", tmp_path / "mine", "--json").error["code"] == "BAD_CLUSTER"
    for count in (1, 65):
        ran = guts("cluster", "up", count, "--dir", tmp_path / "new", "--json")
        assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "BAD_CLUSTER")
    assert not (tmp_path / "new").exists()


def test_cluster_of_the_most_nodes_can_be_made(tmp_path: Path) -> None:
    cluster = LocalCluster.create(tmp_path / "network", 64)
    assert len({member.port for member in cluster.members}) == 64
    assert len({member.node_id for member in cluster.members}) == 64
