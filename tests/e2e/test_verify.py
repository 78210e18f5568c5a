"""``guts verify`` against mirrors that lie, served by a real ``git daemon``, over http, and by path."""

import contextlib
import functools
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from guts.cli.local_cluster import LocalCluster
from guts.errors import ExitStatus
from tests.e2e.conftest import Guts, commit
from tests.support.repositories import ENVIRONMENT, git

Node = Callable[[int], Guts]


@dataclass(frozen=True, slots=True)
class Published:
    """A repository that node 2 published and node 3 holds, and where it was copied from."""

    id: str
    work: Path
    path: Path
    author: str


@pytest.fixture(scope="module")
def published(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Two branches, two tags and a note; the record before the last had ``main`` a commit earlier."""
    work, node = tmp_path_factory.mktemp("work"), Guts(cluster.member(2).home)
    git(work, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        commit(work, name)
    git(work, "tag", "v1")
    git(work, "branch", "side", "HEAD~1")
    id = str(node("publish", work, "--json").json["repository"])
    commit(work, "three")
    git(work, "tag", "-a", "v2", "-m", "Two")
    git(work, "notes", "add", "-m", "A note")
    assert node("publish", work).status == 0
    assert Guts(cluster.member(3).home)("seed", id).status == 0
    inspected = node("inspect", id, "--json").json
    maintainers = inspected["maintainers"]
    assert isinstance(maintainers, list)
    return Published(id, work, Path(str(inspected["path"])), str(maintainers[0]))


@pytest.fixture
def mirror(published: Published, tmp_path: Path) -> Path:
    """A stranger's copy, honest at first; its name says which repository it is of."""
    path = tmp_path / "srv" / published.id / "tool.git"
    path.parent.mkdir(parents=True)
    git(tmp_path, "clone", "-q", "--mirror", str(published.path), str(path))
    git(path, "config", "uploadpack.allowFilter", "true")
    return path


def lie(mirror: Path, name: str) -> str:
    """Make ``mirror`` lie in the way of ``name``; return the ref that it lies about."""
    match name:
        case "forged":
            tree = git(mirror, "rev-parse", "main^{tree}")
            evil = git(mirror, "commit-tree", tree, "-p", "main", "-m", "evil")
            git(mirror, "update-ref", "refs/heads/main", evil)
            return "refs/heads/main"
        case "forged tag":
            git(mirror, "tag", "-f", "v1", "main")
            return "refs/tags/v1"
        case "stale":
            git(mirror, "update-ref", "refs/heads/main", "main~1")
            return "refs/heads/main"
        case "withheld":
            git(mirror, "update-ref", "-d", "refs/heads/side")
            return "refs/heads/side"
        case "withheld tag":
            git(mirror, "tag", "-d", "v2")
            return "refs/tags/v2"
        case "unsigned":
            git(mirror, "tag", "v9", "main~1")
            return "refs/tags/v9"
        case "forged HEAD":
            git(mirror, "symbolic-ref", "HEAD", "refs/heads/side")
            return "HEAD"
    raise AssertionError(name)


LIES = ("forged", "forged tag", "stale", "withheld", "withheld tag", "unsigned", "forged HEAD")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    port = free_port()
    options = ["--reuseaddr", "--export-all", f"--base-path={root}", "--listen=127.0.0.1", f"--port={port}"]
    with subprocess.Popen(
        ["git", "daemon", *options, str(root)], env=ENVIRONMENT, stderr=subprocess.DEVNULL, process_group=0
    ) as daemon:
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(daemon.pid, 15)
            daemon.wait()


@contextlib.contextmanager
def web_server(root: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def served(mirror: Path, how: str) -> Iterator[str]:
    root = mirror.parents[1]
    git(mirror, "update-server-info")
    with (
        contextlib.nullcontext(str(root))
        if how == "path"
        else (git_daemon if how == "git" else web_server)(root) as url
    ):
        yield f"{url}/{mirror.parent.name}/{mirror.name}" if how != "path" else str(mirror)


def verdicts(guts: Guts, *arguments: object) -> dict[str, str]:
    """Return what ``guts verify --json`` says of each ref, and check its exit status."""
    ran = guts("verify", *arguments, "--json")
    assert ran.out, ran.err
    value = json.loads(ran.out)
    found = {ref["ref"]: ref["verdict"] for ref in value["refs"]}
    good = set(found.values()) <= {"ok", "local"}
    assert value["ok"] == good
    assert ran.status == (0 if good else ExitStatus.INTEGRITY), ran
    return found


HONEST = {
    "HEAD": "ok",
    "refs/heads/main": "ok",
    "refs/heads/side": "ok",
    "refs/notes/commits": "ok",
    "refs/tags/v1": "ok",
    "refs/tags/v2": "ok",
}


@pytest.mark.parametrize("how", ["path", "git", "http"])
def test_honest_mirror_is_as_signed(node: Node, published: Published, mirror: Path, how: str) -> None:
    with served(mirror, how) as url:
        ran = node(3)("verify", url)

    assert ran.status == 0, ran.err
    main = git(published.work, "rev-parse", "--short=7", "main")
    line = next(line for line in ran.out.splitlines() if "ok: refs/heads/main" in line)
    assert line.startswith(f"ok: refs/heads/main {main} signed by {published.author[:12]}…, seq ")
    assert line.endswith("s old")
    assert ran.out.splitlines()[-1] == "6 ok; identity epoch 0; compared with 1 other holder"


@pytest.mark.parametrize("how", ["path", "git"])
@pytest.mark.parametrize("name", LIES)
def test_mirror_that_lies_is_found_out(node: Node, published: Published, mirror: Path, name: str, how: str) -> None:
    ref = lie(mirror, name)
    with served(mirror, how) as url:
        assert verdicts(node(3), url) == {**HONEST, ref: name.split(maxsplit=1)[0]}


@pytest.mark.parametrize("kind", ["working", "bare", "mirror", "shallow", "blobless", "single"])
@pytest.mark.parametrize("name", ["honest", "forged", "stale", "unsigned"])
def test_clone_of_a_mirror_is_compared(
    node: Node, published: Published, mirror: Path, tmp_path: Path, kind: str, name: str
) -> None:
    options = {
        "working": [],
        "bare": ["--bare"],
        "mirror": ["--mirror"],
        "shallow": ["--depth=1", "--no-single-branch"],
        "blobless": ["--filter=blob:none"],
        "single": ["--single-branch"],
    }[kind]
    ref = "" if name == "honest" else lie(mirror, name)
    clone = tmp_path / "clone"
    with served(mirror, "git") as url:
        git(tmp_path, "clone", "-q", *options, url, str(clone))
    expected = {ref: verdict for ref, verdict in HONEST.items() if kind == "mirror" or "notes" not in ref}
    if name != "honest":
        expected[ref] = name
    if kind == "single":
        del expected["refs/heads/side"]
    found = verdicts(node(3), clone)
    if kind in ("shallow", "single"):  # tags come only with what they point at
        found = {ref: verdict for ref, verdict in found.items() if verdict != "withheld"}
        expected = {ref: verdict for ref, verdict in expected.items() if ref in found}
    assert found == expected
