"""The composition root: a node, or a clone, from a config."""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from guts.addresses import BootstrapAddress
from guts.config import Config
from guts.git.child_watcher import watch_by_descriptor
from guts.git.files import disk_faults
from guts.identity import SigningKey
from guts.keystore import load_or_create_node_key
from guts.node.control import Control
from guts.node.node import Node, running


async def run_node(config: Config, *, ready: Callable[[Mapping[str, object]], None]) -> None:
    """Run a node until SIGTERM, SIGINT or ``guts node stop``; ``ready`` gets its status when it listens.

    Raises:
        UsageError, StorageFault: it can't start.
    """
    watch_by_descriptor()
    key = load_or_create_node_key(config.network.keypair)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(running(config, key, client=False, stop=stop))
        await stack.enter_async_context(_served(node, config.paths.control_socket))
        ready(await node.control.status())
        await stop.wait()


@contextlib.asynccontextmanager
async def client_node(config: Config, *, doors: tuple[BootstrapAddress, ...] = ()) -> AsyncIterator[Path]:
    """Run a client for as long as the context lasts; enter with the path of its control socket.

    It is a node of its own, with a throw-away key: it listens nowhere, answers nobody in the DHT, and keeps its files
    in a temporary folder that is gone at the end.

    Args:
        config: of the user; what it says of the network counts.
        doors: to the network, before those of ``config``.

    Raises:
        UsageError, StorageFault: it can't start.
    """
    with contextlib.ExitStack() as stack:
        with disk_faults():
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guts-client-")))
        paths = dataclasses.replace(config.paths, data=home / "data", state=home / "state", runtime=home / "run")
        network = dataclasses.replace(
            config.network, role="node", advertise=(), bootstrap_nodes=(*doors, *config.network.bootstrap_nodes)
        )
        storage = dataclasses.replace(config.storage, database_url=f"sqlite:///{paths.database}")
        private = dataclasses.replace(config, paths=paths, storage=storage, network=network)
        async with (
            running(private, SigningKey.generate(), client=True, stop=asyncio.Event()) as node,
            _served(node, paths.control_socket),
        ):
            yield paths.control_socket


@contextlib.asynccontextmanager
async def push_node(config: Config, *, doors: tuple[BootstrapAddress, ...] = ()) -> AsyncIterator[Path]:
    """Run this user's node, with its key and data, for as long as the context lasts; enter with its control socket.

    It listens nowhere: whoever wants what is pushed gets it over the connections that it makes. The socket is a private
    one, so that no other command takes this for a node that stays.

    Args:
        doors: to the network, before those of ``config``.

    Raises:
        AlreadyRunning: another process uses the data.
        UsageError, StorageFault: it can't start.
    """
    key = load_or_create_node_key(config.network.keypair)
    network = dataclasses.replace(config.network, bootstrap_nodes=(*doors, *config.network.bootstrap_nodes))
    config = dataclasses.replace(config, network=network)
    with contextlib.ExitStack() as stack:
        with disk_faults():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guts-push-")))
        control_socket = folder / "control.sock"
        async with (
            running(config, key, client=True, stop=asyncio.Event()) as node,
            _served(node, control_socket),
        ):
            yield control_socket


@contextlib.asynccontextmanager
async def _served(node: Node, control_socket: Path) -> AsyncIterator[None]:
    """Serve the control API of ``node`` for as long as the context lasts."""
    # 0.1 s of imports, in a thread: the node joins the network meanwhile.
    control_server = await asyncio.to_thread(_import_server)
    async with control_server(node.control, control_socket):
        yield


def _import_server() -> Callable[[Control, Path], AbstractAsyncContextManager[None]]:
    from guts.api.server import control_server  # noqa: PLC0415 (imports aiohttp)

    return control_server


@contextlib.contextmanager
def in_thread(node: AbstractAsyncContextManager[Path]) -> Iterator[Path]:
    """Run a node for a program without an event loop, in a thread; enter with what ``node`` is entered with.

    Raises: as ``node``; also what it ended in, where it did not live to the end.
    """
    # Its errors arrive as exceptions; nobody needs its log as well, nor that of what it is made of.
    logging.getLogger().addHandler(logging.NullHandler())
    loop, leave = asyncio.new_event_loop(), asyncio.Event()
    sockets: list[Path] = []
    begun = threading.Event()

    async def serve() -> None:
        watch_by_descriptor()
        async with node as control_socket:
            sockets.append(control_socket)
            begun.set()
            await leave.wait()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    with ThreadPoolExecutor(1, thread_name_prefix="guts-node") as threads:
        ended = threads.submit(work)
        ended.add_done_callback(lambda _: begun.set())
        try:
            begun.wait()
            if sockets:
                yield sockets[0]
        finally:
            # A loop that is closed has ended by itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(leave.set)
        ended.result()
