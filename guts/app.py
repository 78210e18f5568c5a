"""The composition root: a node, or a clone, from a config."""

import asyncio
import contextlib
import dataclasses
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from guts.addresses import BootstrapAddress, RepositoryUrl
from guts.api.server import control_server
from guts.config import Config
from guts.git.source import clone_from
from guts.identity import SigningKey
from guts.keystore import load_or_create_node_key
from guts.node.node import running

CLONE_TIMEOUT: Final = 24 * 3600.0
"""Seconds. A large repository over a slow line; progress is watched elsewhere (``guts.node.transfers``)."""


async def run_node(config: Config, *, ready: Callable[[Mapping[str, object]], None]) -> None:
    """Run a node until SIGTERM, SIGINT or ``guts node stop``; ``ready`` gets its status when it listens.

    Raises:
        UsageError, StorageFault: it can't start.
    """
    key = load_or_create_node_key(config.network.keypair)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(running(config, key, client=False, stop=stop))
        await stack.enter_async_context(control_server(node.control, config.paths.control_socket))
        ready(await node.control.status())
        await stop.wait()


@contextlib.contextmanager
def push_node(config: Config) -> Iterator[Path]:
    """Run this user's node, with its key and data, in a thread; enter with its control socket when it answers there.

    It listens nowhere: whoever wants what is pushed gets it over the connections that it makes. The socket is a private
    one, so that no other command takes this for a node that stays.

    Raises:
        AlreadyRunning: another process uses the data.
        UsageError, StorageFault, OSError: it can't run.
    """
    key = load_or_create_node_key(config.network.keypair)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    answers: Future[None] = Future()

    async def serve(socket: Path) -> None:
        async with running(config, key, client=True, stop=stop) as node, control_server(node.control, socket):
            answers.set_result(None)
            await stop.wait()

    def run(socket: Path) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve(socket))

    with tempfile.TemporaryDirectory(prefix="guts-push-") as folder, ThreadPoolExecutor(1) as threads:
        socket = Path(folder) / "control.sock"
        ended = threads.submit(run, socket)
        try:
            wait([answers, ended], return_when=FIRST_COMPLETED)
            if ended.done():
                ended.result()
            yield socket
        finally:
            with contextlib.suppress(RuntimeError):  # it has ended, and its loop is closed
                loop.call_soon_threadsafe(stop.set)
        ended.result()


async def clone(
    config: Config, url: RepositoryUrl, target: Path, *, near: BootstrapAddress | None = None
) -> dict[str, object]:
    """Make a verified working clone of ``url`` at ``target``; return what came of it.

    A node of its own does it, which lives only as long as this: with a throw-away key, without a listener, its files
    in a temporary folder beside ``target``.

    Args:
        near: a running node of this user: asked first, and a door to the network.

    Raises:
        NoProviders, ProvidersUnreachable: it can't be had.
        UsageError, StorageFault, OSError: it can't be put where it should go.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".guts-clone-", dir=target.parent) as scratch:
        home = Path(scratch)
        paths = dataclasses.replace(config.paths, data=home / "data", state=home / "state", runtime=home / "run")
        private = dataclasses.replace(
            config,
            paths=paths,
            storage=dataclasses.replace(config.storage, database_url=f"sqlite:///{paths.database}"),
            network=dataclasses.replace(
                config.network,
                role="node",
                advertise=(),
                bootstrap_nodes=((near,) if near is not None else ()) + config.network.bootstrap_nodes,
            ),
        )
        hints = [hint for hint in (near, url.hint) if hint is not None]
        async with running(private, SigningKey.generate(), client=True, stop=asyncio.Event()) as node:
            result = await node.control.seed(url.repository, hints, CLONE_TIMEOUT)
            inspected = await node.control.inspect(url.repository)
            plain = RepositoryUrl(url.repository, url.name)
            await clone_from(node.repositories.path(url.repository), target, str(plain), repository=str(url.repository))
    return {**result, "directory": str(target), "refs": inspected["refs"], "head": inspected["head"]}
