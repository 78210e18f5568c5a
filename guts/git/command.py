"""The one door through which every git child of a node passes.

A child gets an argument list, never a shell; an environment built from nothing; limits of memory, processor
time, file size and life; and a process group of its own, which is killed and reaped however the caller leaves.
What a peer sent reaches git on stdin only.

The limits are set with ``prlimit`` from outside, right after the spawn and before the first byte is written to
the child's stdin. ``preexec_fn`` would run Python between fork and exec, which may deadlock in a process with
threads and makes every spawn a full fork; a wrapper program would cost an exec. Where the system has no
``prlimit`` (it is Linux's) ``GIT_ALLOC_LIMIT`` and the wall limit remain.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import DiskFull, StorageFault, UsageError
from guts.git.limits import DEFAULT_LIMITS, MIB, GitLimits

MINIMUM_VERSION: Final = (2, 34)

_PIPE_BYTES: Final = MIB  # what Linux lets anyone ask for; fewer switches between git and us

_KEPT_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")
_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ALLOW_PROTOCOL": "none",
}
_CONFIG: Final = (
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.bigFileThreshold=32m",
    "core.packedGitLimit=1g",
    "core.deltaBaseCacheLimit=128m",
)
_SYSTEM_ERRORS: Final = tuple(": " + os.strerror(number) for number in sorted(errno.errorcode))
_FULL_ERRORS: Final = tuple(": " + os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
_FSCK: Final = re.compile(r"^(?:error: object [0-9a-f]{40}: \w+: |fatal: fsck error in packed object)", re.MULTILINE)
_VERSION: Final = re.compile(rb"git version (\d+)\.(\d+)")


class GitMissing(UsageError):
    """There is no git program here, or one that is too old."""

    code: ClassVar[str] = "GIT_MISSING"


class CannotStart(StorageFault):
    """The machine has no process, memory or descriptor left for a git child."""

    code: ClassVar[str] = "GIT_NOT_STARTED"


class GitFailed(StorageFault):
    """A git child ended otherwise than well.

    Attributes:
        command: git's subcommand.
        status: exit status; negative is the number of the signal that ended it.
        stderr: the first bytes of what it said.
    """

    code: ClassVar[str] = "GIT_FAILED"

    def __init__(self, command: str, status: int, stderr: str) -> None:
        super().__init__(f"git {command} ended with status {status}: {stderr.strip()[-300:]}")
        self.command = command
        self.status = status
        self.stderr = stderr

    @property
    def is_ours(self) -> bool:
        """Whether the machine failed, rather than the data: a system call's error, or a foreign signal.

        git ends the line about a failed system call with the system's own words for it.
        """
        if self.status < 0:
            return -self.status not in (signal.SIGXCPU, signal.SIGXFSZ)
        return any(line.endswith(_SYSTEM_ERRORS) for line in self.stderr.splitlines())

    @property
    def is_full(self) -> bool:
        """Whether there was no space left on the disk, in the system's own words for it."""
        return any(line.endswith(_FULL_ERRORS) for line in self.stderr.splitlines())

    @property
    def is_fsck(self) -> bool:
        """Whether git could read what was sent, and its fsck refused an object of it."""
        return self.status > 0 and _FSCK.search(self.stderr) is not None

    @property
    def is_limit(self) -> bool:
        """Whether git met one of its limits (memory, processor time, file size, input size)."""
        if self.status < 0:
            return -self.status in (signal.SIGXCPU, signal.SIGXFSZ)
        return re.search(r"attempting to allocate|Out of memory|maximum allowed size", self.stderr) is not None


class GitTimedOut(GitFailed):
    """A git child lived longer than the wall limit."""

    code: ClassVar[str] = "GIT_TIMED_OUT"

    def __init__(self, command: str) -> None:
        super().__init__(command, -signal.SIGKILL, "wall limit")


class _Head(asyncio.Protocol):
    """Keeps the first bytes of a stream and drops the rest, so that a child can always write."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._data += data[: self._limit - len(self._data)]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    @property
    def text(self) -> str:
        """What it said; of what a peer's objects made it say, nothing moves a terminal."""
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in self._data.decode(errors="replace"))


class Child:
    """A running git. Obtained from ``Git.start`` only, which ends it."""

    def __init__(
        self, command: str, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader, stderr: _Head
    ) -> None:
        self.stdout = stdout
        self._command = command
        self._process = process
        self._stderr = stderr

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def write(self, data: bytes) -> None:
        """Queue ``data``, a few MiB at the most, for the child's stdin; ``guts.git.feeder`` is for more."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    def close_stdin(self) -> None:
        """Say that nothing more follows (once all queued bytes are written)."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finish(self, accept: Sequence[int] = (0,)) -> int:
        """Wait for the end and return the exit status.

        Raises:
            GitFailed: the status is not one of ``accept``.
        """
        status = await self._process.wait()
        await self._stderr.closed
        if status not in accept:
            failed = GitFailed(self._command, status, self._stderr.text)
            if failed.is_full:
                raise DiskFull(str(failed)) from failed
            raise failed
        return status


class Git:
    """Runs git. Immutable: one serves all repositories of a node.

    Args:
        limits: what each child may cost.
        executable: the program; a path or a name to look up.
    """

    def __init__(self, limits: GitLimits = DEFAULT_LIMITS, executable: str = "git") -> None:
        self.limits = limits
        self.executable = executable

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a child: nothing of the caller's but where programs are found."""
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        return kept | _ENVIRONMENT | {"GIT_ALLOC_LIMIT": str(self.limits.alloc_bytes)}

    @contextlib.asynccontextmanager
    async def start(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        config: Sequence[str] = (),
        stdin: int | None = None,
        stdout: int | None = None,
        cwd: Path | None = None,
    ) -> AsyncIterator[Child]:
        """Start ``git <arguments>``; on leaving, it has ended, and is killed first if need be.

        Args:
            arguments: subcommand and options; never anything that a peer sent.
            environment: added to ``environment()``.
            config: ``key=value`` settings for this child.
            stdin: descriptor to read from; ``None``: what ``Child.write`` is given.
            stdout: descriptor to write to; ``None``: ``Child.stdout``.
            cwd: working directory.

        Raises:
            GitMissing: there is no such program.
            CannotStart: the machine is at a limit of its own.
            GitTimedOut: the wall limit passed before the body was left.
        """
        settings = [word for setting in (*_CONFIG, *config) for word in ("-c", setting)]
        with contextlib.ExitStack() as descriptors:
            try:
                out_read, out_write = pipe(descriptors)
                err_read, err_write = pipe(descriptors)
                process = await asyncio.create_subprocess_exec(
                    self.executable,
                    *settings,
                    *arguments,
                    stdin=asyncio.subprocess.PIPE if stdin is None else stdin,
                    stdout=out_write if stdout is None else stdout,
                    stderr=err_write,
                    env=self.environment() | dict(environment or {}),
                    cwd=cwd,
                    process_group=0,
                )
            except FileNotFoundError:
                hint = f"install git {'.'.join(map(str, MINIMUM_VERSION))} or newer"
                raise GitMissing(f"there is no program {self.executable!r} here", hint=hint) from None
            except OSError as error:
                raise CannotStart(f"git {arguments[0]} can't be started: {error.strerror or error}") from error
            try:
                self._limit(process.pid)
                loop = asyncio.get_running_loop()
                reader = asyncio.StreamReader(limit=_PIPE_BYTES)
                out_transport, _ = await loop.connect_read_pipe(
                    lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(out_read), "rb", 0)
                )
                err_transport, stderr = await loop.connect_read_pipe(
                    lambda: _Head(self.limits.stderr_bytes), os.fdopen(os.dup(err_read), "rb", 0)
                )
                descriptors.close()
                try:
                    async with asyncio.timeout(self.limits.wall_seconds) as wall:
                        yield Child(arguments[0], process, reader, stderr)
                except TimeoutError:
                    if not wall.expired():
                        raise
                    raise GitTimedOut(arguments[0]) from None
                finally:
                    out_transport.close()
                    err_transport.close()
            finally:
                await _end(process)

    async def run(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        config: Sequence[str] = (),
        data: bytes = b"",
        accept: Sequence[int] = (0,),
        cwd: Path | None = None,
    ) -> bytes:
        """Run git to its end with ``data`` on stdin and return its stdout, which must be small.

        Raises:
            GitFailed: the exit status is not one of ``accept``.
        """
        async with self.start(arguments, environment=environment, config=config, cwd=cwd) as child:
            child.write(data)
            child.close_stdin()
            output = await child.stdout.read()
            await child.finish(accept)
            return output

    async def check_version(self) -> tuple[int, int]:
        """Return git's version.

        Raises:
            GitMissing: no git, or one older than ``MINIMUM_VERSION``.
        """
        return parse_version(await self.run(["version"]))

    def _limit(self, pid: int) -> None:
        if sys.platform != "linux":
            return
        wanted = {
            resource.RLIMIT_AS: self.limits.memory_bytes,
            resource.RLIMIT_CPU: self.limits.cpu_seconds,
            resource.RLIMIT_FSIZE: self.limits.file_bytes,
            resource.RLIMIT_CORE: 0,
        }
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            for kind, limit in wanted.items():
                _, hard = resource.prlimit(pid, kind)
                # The hard limit stays: at a hard limit of processor time Linux sends SIGKILL, at the soft
                # one SIGXCPU, which tells this end from others.
                soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
                resource.prlimit(pid, kind, (soft, hard))


def parse_version(output: bytes) -> tuple[int, int]:
    """Return the version in ``output`` of ``git version``.

    Raises:
        GitMissing: it is older than ``MINIMUM_VERSION``, or not git's.
    """
    match = _VERSION.match(output)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < MINIMUM_VERSION:
        needed = ".".join(map(str, MINIMUM_VERSION))
        found = output.decode(errors="replace").strip()
        raise GitMissing(f"git {needed} or newer is needed, and this is {found!r}", hint="install a newer git")
    return version


def pipe(descriptors: contextlib.ExitStack) -> tuple[int, int]:
    """Return the (reading, writing) ends of a large pipe; ``descriptors`` closes them."""
    ends = os.pipe()
    for end in ends:
        descriptors.callback(os.close, end)
    if sys.platform == "linux":
        with contextlib.suppress(PermissionError):  # a user's total of pipe memory is bounded
            fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
