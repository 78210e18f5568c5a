"""A Docker Engine in a folder, and the ``docker`` command that speaks to it."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ENGINE = Path("/usr/sbin/dockerd")
COMMAND = Path("/usr/bin/docker")
"""Debian's, as ``prepare.sh`` installs them; other ones in the PATH may be wrappers of something else."""

PLUGINS = "cli-plugins"
BASE = "base.tar"
BASE_IMAGE = "python:3.11-slim-bookworm"
SIZE = "4g"
"""Most that it may take; about 1.2 GiB are used."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 60.0
COMMAND_TIMEOUT = 600.0
"""An image is built in half a minute, or in several on a machine that is busy."""


class Docker:
    """Runs ``docker`` against one engine, in ``folder``; ``environ`` is for whoever runs it some other way."""

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self.environ = environ
        self.folder = folder

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end, whatever that is."""
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )

    def __call__(self, *arguments: object) -> str:
        """Run it and return what it printed; it has to succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def running(prepared: Path, folder: Path, settings: Mapping[str, str]) -> Iterator[Docker]:
    """Run an engine that has the base image, for as long as the context lasts.

    Args:
        prepared: what ``prepare.sh`` filled.
        folder: where ``docker`` runs.
        settings: for the environment of ``docker``.
    """
    # Below /tmp, because the path of a Unix socket has to be short.
    scratch = Path(tempfile.mkdtemp(prefix="guts-engine-", dir="/tmp"))
    # In memory: nobody needs the images on a disk, where they take minutes to be synced and removed again.
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", scratch], check=True)
    commands = scratch / "bin"
    commands.mkdir()
    (commands / "docker").symlink_to(COMMAND)
    (scratch / "config").mkdir()
    (scratch / "config" / PLUGINS).symlink_to(prepared / PLUGINS)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUTS_", "DOCKER_", "COMPOSE_"))}
    address = f"unix://{scratch}/engine.sock"
    docker = Docker(
        {
            **kept,
            "DOCKER_HOST": address,
            "DOCKER_CONFIG": str(scratch / "config"),
            "DOCKER_BUILDKIT": "1",  # what newer commands take anyway
            "PATH": f"{commands}:{os.environ['PATH']}",
            **settings,
        },
        folder,
    )
    try:
        with (scratch / "log").open("wb") as log:
            engine = subprocess.Popen(
                [
                    ENGINE,
                    *("--data-root", scratch / "data", "--exec-root", scratch / "exec", "--pidfile", scratch / "pid"),
                    *("--host", address, "--iptables=false", "--ip-forward=false", "--bridge=none"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the tests, and these end the engine
            )
        try:
            _wait_ready(engine, docker, scratch / "log")
            docker("import", "-c", 'CMD ["python3"]', prepared / BASE, BASE_IMAGE)
            yield docker
        finally:
            _stop(engine, scratch)
    finally:
        _unmount(scratch)
        scratch.rmdir()


def _wait_ready(engine: subprocess.Popen[bytes], docker: Docker, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while docker.run("version").returncode != 0:
        assert engine.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _stop(engine: subprocess.Popen[bytes], scratch: Path) -> None:
    engine.terminate()
    try:
        engine.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        engine.kill()
        engine.wait()
    # An engine that ended well leaves nobody. Whoever is left names the folder, which is nobody else's.
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if f"{scratch}/".encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def _unmount(scratch: Path) -> None:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if f"{point}/".startswith(f"{scratch}/")]):
        subprocess.run(["umount", point], check=True)
