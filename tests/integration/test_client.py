"""A client that lives for one command, and is a node behind the same control API."""

import asyncio
import contextlib
import os
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from guts.api.errors import ReportedError
from guts.app import client_node, in_thread, push_node
from guts.cli.answer import Answer
from guts.cli.client import ControlClient, NodeDown
from guts.config import Config
from guts.git.command import Git
from guts.git.files import DiskFault
from tests.support.nodes import World, config_of, eventually


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made, ``tmp_path`` aside: with a short path, since that of a socket has 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_client_in_a_thread_answers_on_a_private_socket_and_leaves_nothing(temporary: Path, config: Config) -> None:
    with in_thread(client_node(config)) as socket:
        assert socket.is_relative_to(temporary)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        status = Answer.of(ControlClient(socket).get("/v1/status"))
        assert (status.text("network"), status.texts("listen")) == (config.network.network_name, [])
        assert status.number("pid") == os.getpid()
    assert os.listdir(temporary) == []
    assert not config.paths.data.exists()
    with pytest.raises(NodeDown):
        ControlClient(socket).get("/v1/status")


def test_client_without_a_place_for_its_files_says_so(temporary: Path, config: Config) -> None:
    tempfile.tempdir = str(temporary / "missing")
    with pytest.raises(DiskFault, match="missing"), in_thread(client_node(config)):
        pass


def test_interrupted_command_leaves_nothing_of_its_client(temporary: Path, config: Config) -> None:
    with pytest.raises(KeyboardInterrupt), in_thread(client_node(config)):
        raise KeyboardInterrupt
    assert os.listdir(temporary) == []


async def test_client_reads_what_a_node_holds_by_the_nodes_address_alone(world: World, config: Config) -> None:
    publisher, maintainer = await world.node("publisher"), world.maintainer()
    await maintainer.publish(publisher)
    async with client_node(config, doors=(publisher.hint,)) as socket:
        path = f"/v1/repositories/{maintainer.repository}/refs?timeout=20"
        told = Answer.of(await asyncio.to_thread(ControlClient(socket).get, path))
    (ref,) = told.objects("refs")
    assert (ref.text("ref"), ref.text("oid")) == ("refs/heads/main", str(maintainer.tip()))
    assert (told.flag("held"), told.number("sources")) == (False, 1)


async def test_push_node_finds_holders_through_a_door_that_holds_nothing(world: World, config: Config) -> None:
    """The door is that of a URL: nothing in the config leads there."""
    door = await world.node("door", network__role="bootstrap")
    publisher, maintainer = await world.node("publisher", doors=(door.hint,)), world.maintainer()
    await maintainer.publish(publisher)
    path = f"/v1/repositories/{maintainer.repository}/refs?timeout=20"

    async def found() -> bool:
        with contextlib.suppress(ReportedError):
            return bool(await asyncio.to_thread(client.get, path))
        return False

    async with push_node(config, doors=(door.hint,)) as socket:
        client = ControlClient(socket)
        await eventually(found)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The settings of a user who runs no node."""
    return config_of(tmp_path / "home")


def test_git_children_take_no_thread_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    @contextlib.asynccontextmanager
    async def asks_git() -> AsyncIterator[Path]:
        await Git().check_version()
        yield Path()

    monkeypatch.setattr(threading.Thread, "start", noted)
    with in_thread(asks_git()):
        pass
    assert [name.partition("_")[0] for name in started] == ["guts-node"]
