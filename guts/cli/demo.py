"""``guts demo``: a repository travels between processes, before your eyes.

Everything is done as a person would do it, by running the commands of Guts and plain git, each node with a home of its
own.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import click

from guts.api.errors import ErrorObject, ReportedError
from guts.cli.answer import Answer
from guts.cli.session import Session, emit, json_option, pass_session, say, table
from guts.errors import ExitStatus, GutsError

if TYPE_CHECKING:  # brings PyNaCl along
    from guts.cli.demo_repository import Contents
    from guts.cli.local_cluster import LocalCluster

DOOR: Final = 1
REPLICAS: Final = (2, 3, 4)
PUBLISHER: Final = 5
COMMAND_TIMEOUT: Final = 900.0
ARRIVAL_TIMEOUT: Final = 30.0
POLL_INTERVAL: Final = 0.01


class DemoFailed(GutsError):
    """Something did not happen as it should; the demo is a test as well."""

    code: ClassVar[str] = "DEMO_FAILED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY


@click.command()
@click.argument("repository", metavar="[REPOSITORY]", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--repo", metavar="PATH", type=click.Path(exists=True, path_type=Path), help="As REPOSITORY.")
@json_option
@pass_session
def demo(session: Session, as_json: bool, repository: Path | None, repo: Path | None) -> None:
    """Watch a repository travel: one door, three replicas and a publisher, as separate processes.

    Publishes a clone of REPOSITORY (default: of the checkout here), finds and replicates it, stops the publisher,
    clones from the replicas with plain git, compares everything, pushes a commit and pulls it. Nothing is left behind.
    """
    from guts.cli.local_cluster import LocalCluster

    origin = repository or repo
    # An end by signal must clean up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="guts-demo-") as scratch:
        folder = Path(scratch)
        cluster = LocalCluster.create(folder / "cluster", PUBLISHER)
        show = _Demo(folder, cluster, as_json)
        try:
            show.run(origin.absolute() if origin else None)
        finally:
            cluster.stop()
    rows = [(what, f"{seconds:.2f} s") for what, seconds in show.times]
    emit(
        as_json,
        {**show.result, "steps": [{"step": what, "seconds": round(seconds, 3)} for what, seconds in show.times]},
        ["", *table(("STEP", "TIME"), rows), "", "everything identical; nothing is left running"],
    )


class _Demo:
    """One run; ``times`` and ``result`` fill as it goes."""

    def __init__(self, folder: Path, cluster: "LocalCluster", quiet: bool) -> None:
        self.times: list[tuple[str, float]] = []
        self.result: dict[str, object] = {}
        self._folder = folder
        self._source = folder / "work" / "tool"
        self._cluster = cluster
        self._quiet = quiet

    def run(self, origin: Path | None) -> None:
        """Play all steps. Raises: ``DemoFailed``, and what a command that fails says."""
        from guts.cli.demo_repository import prepare

        self._source.parent.mkdir()
        self._say(f"the repository: {prepare(origin, self._source)}")
        with self._step("five nodes start: a door, three replicas, a publisher"):
            self._cluster.start()
        with self._step("the publisher signs and publishes"):
            published = self._guts(PUBLISHER, "publish", str(self._source))
        repository = published.text("repository")
        self.result["repository"] = repository
        with self._step("a replica finds it by its id in the DHT"):
            found = self._guts(REPLICAS[0], "dht", "find-repo", repository)
        self._expect(len(found.objects("providers")) >= 1, "the DHT names no provider")
        for replica in REPLICAS:
            with self._step(f"replica {replica - 1}, given only the id, replicates it"):
                self._guts(replica, "seed", repository)
        original = self._compare_replicas(repository)
        with self._step("the publisher stops"):
            self._cluster.stop(PUBLISHER)
        clone = self._clone(repository)
        self._compare_clone(original, clone)
        with self._step("the publisher returns"):
            self._cluster.start(PUBLISHER)
        self._new_commit(repository, clone)

    def _compare_replicas(self, repository: str) -> "Contents":
        from guts.cli.demo_repository import contents

        original = contents(self._source)
        self.result |= {"refs": len(original.refs), "objects": len(original.objects)}
        for replica in REPLICAS:
            refs = self._inspect(replica, repository).object("canonical_refs").json
            held = {name: oid for name, oid in refs.items() if name.startswith(("refs/heads/", "refs/tags/"))}
            self._expect(held == original.refs, f"the refs of replica {replica - 1} differ")
        return original

    def _clone(self, repository: str) -> Path:
        """Clone as a stranger who has no node and knows nothing but the door."""
        clone = self._folder / "clone"
        with self._step("a stranger without a node: git clone guts://…"):
            self._git(self._stranger(), self._folder, "clone", "--quiet", f"guts://{repository}", str(clone))
        return clone

    def _stranger(self) -> dict[str, str]:
        from guts.config import Config

        door = self._cluster.member(DOOR)
        network = Config.load({}, door.environ({})).network
        return {
            **door.environ(os.environ),
            "GUTS_HOME": str(self._folder / "stranger"),
            "GUTS_NETWORK__NETWORK_NAME": network.network_name,
            "GUTS_NETWORK__BOOTSTRAP_NODES": door.address,
        }

    def _compare_clone(self, original: "Contents", clone: Path) -> None:
        from guts.cli.demo_repository import cloned_contents

        with self._step(f"comparing {len(original.refs)} refs and {len(original.objects)} objects"):
            copy = cloned_contents(clone)
        self._expect(copy.refs == original.refs, "the clone's refs differ from the original's")
        self._expect(copy.objects == original.objects, "the clone's objects differ from the original's")
        self.result["identical"] = True

    def _new_commit(self, repository: str, clone: Path) -> None:
        from guts.cli.demo_repository import commit, head_of

        oid = commit(self._source, "ARRIVED", "News travels.\n")
        branch = self._inspect(PUBLISHER, repository).text("head")
        environ = self._cluster.member(PUBLISHER).environ(os.environ)
        with self._step("the publisher: git push, until three replicas have signed a receipt"):
            push = ["push", "-o", f"guts.replicas={len(REPLICAS)}", "-o", "guts.strict", "guts", f"HEAD:{branch}"]
            self._git(environ, self._source, *push)
        for replica in REPLICAS:
            self._wait_for(oid, branch, repository, replica)
        with self._step("the stranger: git pull"):
            self._git(self._stranger(), clone, "pull", "--quiet", "--ff-only")
        self._expect(head_of(clone) == oid, "the stranger did not get the new commit")
        self._say(f"  {oid[:12]} has arrived everywhere")

    def _inspect(self, index: int, repository: str) -> Answer:
        from guts.cli.client import ControlClient
        from guts.config import Paths

        paths = Paths.from_environ(self._cluster.member(index).environ({}))
        return Answer.of(ControlClient(paths.control_socket).get(f"/v1/repositories/{repository}"))

    def _guts(self, index: int, *arguments: str) -> Answer:
        return _run(self._cluster.member(index).environ(os.environ), *arguments)

    def _git(self, environ: Mapping[str, str], where: Path, *arguments: str) -> None:
        """Run plain git, which finds ``git-remote-guts`` beside this ``guts``. Raises: ``DemoFailed``."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(
            ["git", *arguments],
            cwd=where,
            env={**environ, "PATH": path, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )
        for line in done.stderr.splitlines():
            self._say(f"  {line}")
        self._expect(done.returncode == 0, f"git {arguments[0]} ended with status {done.returncode}: {done.stderr}")

    @contextlib.contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self._say(what)
        begun = time.monotonic()
        yield
        self.times.append((what, time.monotonic() - begun))

    def _wait_for(self, oid: str, branch: str, repository: str, replica: int) -> None:
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while self._inspect(replica, repository).object("canonical_refs").json.get(branch) != oid:
            self._expect(
                time.monotonic() < deadline,
                f"the new commit did not reach replica {replica - 1} within {ARRIVAL_TIMEOUT:.0f} s",
            )
            time.sleep(POLL_INTERVAL)

    def _expect(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise DemoFailed(otherwise)

    def _say(self, text: str) -> None:
        if not self._quiet:
            say(text)


def _run(environ: Mapping[str, str], *arguments: str) -> Answer:
    """Run a command in a process of its own and return its result. Raises: ``ReportedError``: its error."""
    done = subprocess.run(
        [sys.executable, "-m", "guts", *arguments, "--json"],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT,
    )
    if done.returncode == 0:
        return Answer.of(json.loads(done.stdout))
    for line in reversed(done.stderr.splitlines()):
        with contextlib.suppress(ValueError):
            told = ErrorObject.from_json(json.loads(line))
            if told is not None:
                raise ReportedError(told)
    raise DemoFailed(f"guts {arguments[0]} ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
