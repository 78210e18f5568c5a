"""A person at a desk: a home with a node in this process, an author key, a working repository, and stock git."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from guts.addresses import BootstrapAddress
from guts.api.server import control_server
from guts.git.source import REMOTE
from guts.keystore import KeyFile, KeyKind, write_key_file
from tests.support.nodes import Maintainer, RunningNode, World
from tests.support.repositories import ENVIRONMENT
from tests.support.repositories import git as plain_git

GIT_TIMEOUT = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a git process ended; ``remote``: what the other side said, a line each."""

    status: int
    err: str

    @property
    def remote(self) -> list[str]:
        lines = self.err.replace("\r", "\n").splitlines()
        return [line.removeprefix("remote: ").rstrip() for line in lines if line.startswith("remote: ")]

    @property
    def rejected(self) -> dict[str, str]:
        """Why git says that each ref was not pushed, by its name there."""
        lines = [line for line in self.err.splitlines() if line.startswith(" ! ")]
        return {line.partition(" (")[0].split()[-1]: line.partition(" (")[2].rstrip(")") for line in lines}


class Desk:
    """Runs git in ``maintainer``'s repository, whose remote ``guts`` is on ``node``."""

    def __init__(self, node: RunningNode, maintainer: Maintainer, **environ: str) -> None:
        self.node = node
        self.maintainer = maintainer
        commands = Path(sys.executable).parent
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "TMPDIR") if name in os.environ}
        self.environ = {
            **ENVIRONMENT,
            **kept,
            "PATH": f"{commands}{os.pathsep}{ENVIRONMENT['PATH']}",
            "GUTS_HOME": str(node.home),
            "GIT_TERMINAL_PROMPT": "0",
            **environ,
        }

    @property
    def path(self) -> Path:
        return self.maintainer.path

    @property
    def bare(self) -> Path:
        """The node's folder of the repository."""
        return self.node.bare(self.maintainer.repository)

    def sit_down(self, *, key: bool = True) -> None:
        """Put the author key into the home, and the remote into the repository."""
        if key:
            file = KeyFile.of(KeyKind.AUTHOR, self.maintainer.key, None)
            write_key_file(self.node.config.paths.author_key, file)
        plain_git(self.path, "remote", "add", REMOTE, str(self.maintainer.url))
        self.configure()

    def configure(self, *doors: BootstrapAddress) -> None:
        """Write what a node that is run for one push has to know."""
        network = self.node.config.network
        lines = [
            "[network]",
            f'network_name = "{network.network_name}"',
            'listen_addr = "127.0.0.1:0"',
            f"bootstrap_nodes = {json.dumps([str(door) for door in doors])}",
        ]
        (self.node.home / "config.toml").write_text("\n".join([*lines, ""]))

    async def begin(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """Start git; it is a process group of its own."""
        return await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            cwd=self.path,
            env={**self.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def end(self, process: asyncio.subprocess.Process) -> Ended:
        """Wait for git."""
        try:
            async with asyncio.timeout(GIT_TIMEOUT):
                _, err = await process.communicate()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode is not None
        return Ended(process.returncode, err.decode())

    async def git(self, *arguments: str, **environ: str) -> Ended:
        """Run git, which may fail."""
        return await self.end(await self.begin(*arguments, **environ))

    async def push(self, *arguments: str, **environ: str) -> Ended:
        """Run ``git push`` to the node, which may fail."""
        return await self.git(
            "push",
            *[a for a in arguments if a.startswith("-")],
            REMOTE,
            *[a for a in arguments if not a.startswith("-")],
            **environ,
        )

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Serve the node's control API for as long as the context lasts."""
        async with control_server(self.node.node.control, self.node.config.paths.control_socket):
            yield


@contextlib.asynccontextmanager
async def a_desk(world: World, name: str = "desk", **environ: str) -> AsyncIterator[Desk]:
    """Enter with a new desk, whose repository has been published."""
    node, maintainer = await world.node(name), world.maintainer(f"{name}-tool")
    desk = Desk(node, maintainer, **environ)
    desk.sit_down()
    await maintainer.publish(node)
    async with desk.answering():
        yield desk
