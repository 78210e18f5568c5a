"""``guts verify`` against mirrors that lie, served by a real ``git daemon``, over http, and by path."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
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
        case "unsigned symbolic":
            git(mirror, "update-ref", "refs/x/evil", "main~1")
            git(mirror, "symbolic-ref", "refs/heads/evil", "refs/x/evil")
            return "refs/heads/evil"
        case "forged HEAD on no branch":
            tree = git(mirror, "rev-parse", "main^{tree}")
            (mirror / "HEAD").write_text(git(mirror, "commit-tree", tree, "-p", "main", "-m", "evil") + "\n")
            return "HEAD"
        case "forged HEAD":
            git(mirror, "symbolic-ref", "HEAD", "refs/heads/side")
            return "HEAD"
    raise AssertionError(name)


LIES = (
    "forged",
    "forged tag",
    "stale",
    "withheld",
    "withheld tag",
    "unsigned",
    "unsigned symbolic",
    "forged HEAD",
    "forged HEAD on no branch",
)


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


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "path") for name in LIES), ("forged", "git"), ("stale", "http"), ("forged HEAD on no branch", "git")],
)
def test_mirror_that_lies_is_found_out(node: Node, published: Published, mirror: Path, name: str, how: str) -> None:
    ref = lie(mirror, name)
    with served(mirror, how) as url:
        assert verdicts(node(3), url) == {**HONEST, ref: name.split(maxsplit=1)[0]}


KINDS = ("working", "bare", "mirror", "shallow", "blobless", "single")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("honest", kind) for kind in KINDS),
        *(("forged", kind) for kind in KINDS),
        ("stale", "shallow"),
        ("unsigned", "working"),
    ],
)
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
    old = set(found.values()) & {"stale", "withheld"} and not set(found.values()) & {"forged", "unsigned"}
    tracked = kind not in ("bare", "mirror")
    assert ("hint: a clone that has not been fetched" in node(3)("verify", clone).err) == bool(old and tracked)
    if kind == "single":  # tags come only with what they point at
        expected = {ref: verdict for ref, verdict in expected.items() if ref in found or "tags" not in ref}
    assert found == expected


def lines(guts: Guts, *arguments: object) -> dict[str, str]:
    """Return what ``guts verify`` says of each ref that is not ok, without ages, which depend on the machine."""
    ran = guts("verify", *arguments)
    assert ran.status == ExitStatus.INTEGRITY, ran
    told = [line.partition(": ") for line in ran.out.splitlines()[:-1] if not line.startswith("ok: ")]
    return {
        rest.split()[0].removesuffix(":"): re.sub(r"\b\d+s\b|seq \d+", "N", f"{verdict}: {rest}")
        for verdict, _, rest in told
    }


def test_what_was_signed_once_is_stale_although_nothing_leads_from_it(node: Node, work: Path, tmp_path: Path) -> None:
    git(work, "branch", "gone", "HEAD~1")
    id = str(node(2)("publish", work, "--json").json["repository"])
    assert node(3)("seed", id).status == 0
    before = git(work, "rev-parse", "--short=7", "HEAD")
    git(tmp_path, "clone", "-q", "--mirror", str(node(2)("inspect", id, "--json").json["path"]), "old.git")
    git(work, "commit", "-q", "--amend", "-m", "another")
    git(work, "branch", "-D", "gone")
    assert node(2)("publish", work, "--force", "--prune").status == 0
    after = git(work, "rev-parse", "--short=7", "HEAD")

    who = f"{str(node(2)('id', 'show', '--json').json['author']['id'])[:12]}…"  # type: ignore[index]
    assert lines(node(2), tmp_path / "old.git", "--repository", id) == {
        "refs/heads/gone": f"stale: refs/heads/gone {git(work, 'rev-parse', '--short=7', 'HEAD~1')}: {who} signed "
        f"{git(work, 'rev-parse', '--short=7', 'HEAD~1')} (N, N ago), and since then {who} deleted it (N, N ago); "
        "older by N",
        "refs/heads/main": f"stale: refs/heads/main {before}: {who} signed {before} (N, N ago), and since then {who} "
        f"signed {after} (N, N ago); older by N",
    }


def test_texts_name_what_is_wrong_and_who_signed_what(node: Node, published: Published, mirror: Path) -> None:
    main = git(mirror, "rev-parse", "--short=7", "main")
    for name in ("forged", "withheld", "unsigned"):
        lie(mirror, name)
    evil, nine = (git(mirror, "rev-parse", "--short=7", ref) for ref in ("main", "v9"))
    side = git(published.work, "rev-parse", "--short=7", "side")
    who = f"{published.author[:12]}…"
    assert lines(node(3), mirror) == {
        "refs/heads/main": f"forged: refs/heads/main {evil}: nobody signed that; {who} signed {main} (N, N ago)",
        "refs/heads/side": f"withheld: refs/heads/side: {who} signed {side} (N, N ago), and it is not there",
        "refs/tags/v9": f"unsigned: refs/tags/v9 {nine}: signed, but as refs/heads/main",
    }


def test_object_that_stands_in_for_another_is_found_out(
    node: Node, published: Published, mirror: Path, tmp_path: Path
) -> None:
    main, evil = git(mirror, "rev-parse", "main"), git(mirror, "commit-tree", "main^{tree}", "-m", "evil")
    git(mirror, "replace", main, evil)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(mirror), str(clone))
    assert verdicts(node(3), clone)["refs/heads/main"] == "ok"
    git(clone, "fetch", "-q", "origin", "refs/replace/*:refs/replace/*")
    assert git(clone, "log", "-1", "--format=%s", "origin/main") == "evil"
    for where in (mirror, f"file://{mirror}", clone):
        ran = node(3)("verify", where)
        assert ran.status == ExitStatus.INTEGRITY
        said = f"nobody signed that; git shows it in the place of {main[:7]}"
        assert f"forged: refs/replace/{main} {evil[:7]}: {said}\n" in ran.out
    git(clone, "replace", "-d", main)
    (clone / ".git/info/grafts").write_text(f"{main} {evil}\n")
    assert verdicts(node(3), clone)["info/grafts"] == "forged"


def test_clone_of_a_mirror_whose_head_is_on_no_branch(
    node: Node, published: Published, mirror: Path, tmp_path: Path
) -> None:
    lie(mirror, "forged HEAD on no branch")
    evil, clone = git(mirror, "rev-parse", "--short=7", "HEAD"), tmp_path / "clone"
    git(tmp_path, "-c", "advice.detachedHead=false", "clone", "-q", f"file://{mirror}", str(clone))
    ran = node(3)("verify", clone)
    assert ran.status == ExitStatus.INTEGRITY
    assert f"unsigned: HEAD (detached) {evil}: on no branch, and in nothing that is signed\n" in ran.out
    for signed in ("origin/main", "origin/main~2", "v1", "v2"):
        git(clone, "switch", "-q", "--detach", signed)
        assert "HEAD (detached)" not in verdicts(node(3), clone)
    mine = commit(clone, "mine")[:7]
    ran = node(3)("verify", clone)
    assert ran.status == 0, ran
    assert f"local: HEAD (detached) {mine}: this clone's own, on no branch, and in nothing that is signed\n" in ran.out


def test_folder_that_was_pushed_to_is_a_mirror_too(
    node: Node, published: Published, mirror: Path, tmp_path: Path
) -> None:
    server = tmp_path / "server.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(server))
    git(mirror, "push", "-q", str(server), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
    git(server, "update-ref", "refs/pull/1/head", "main")
    ran = node(3)("verify", server, "--repository", published.id)
    assert [line.partition(" ")[0] for line in ran.out.splitlines()[:-1]] == ["ok:"] * 3 + ["withheld:"] + ["ok:"] * 2
    assert ran.out.splitlines()[-1].endswith("; 1 refs elsewhere, which nobody signs")


def test_work_of_ones_own_is_no_fault(node: Node, published: Published, mirror: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(mirror), str(clone))
    mine = commit(clone, "mine")[:7]
    git(clone, "switch", "-q", "-c", "idea")
    git(clone, "update-ref", "refs/notes/mine", "HEAD")
    git(clone, "update-ref", "refs/remotes/other/main", "HEAD")
    ran = node(3)("verify", clone)

    assert ran.status == 0, ran
    own = [line for line in ran.out.splitlines() if line.startswith("local")]
    assert own == [
        f"local: {ref} {mine}: this clone's own, not compared"
        for ref in ("refs/heads/idea", "refs/heads/main", "refs/notes/mine")
    ]


@pytest.mark.parametrize("name", ["honest", "stale", "forged"])
def test_verify_needs_no_node(
    cluster: LocalCluster, published: Published, mirror: Path, tmp_path: Path, name: str
) -> None:
    network = json.loads(Guts(cluster.member(2).home)("node", "status", "--json").out)["network"]
    stranger = Guts(
        tmp_path / "stranger",
        GUTS_NETWORK__NETWORK_NAME=network,
        GUTS_NETWORK__BOOTSTRAP_NODES=cluster.member(1).address,
    )
    ref = "" if name == "honest" else lie(mirror, name)
    with served(mirror, "git") as url:
        ran = stranger("verify", url, "--json")

    value = json.loads(ran.out)
    found = {ref["ref"]: ref["verdict"] for ref in value["refs"]}
    assert found == ({**HONEST, ref: name} if ref else HONEST), ran.err
    assert value["sources"] == 2
    assert "is new here: maintainers auth1" in ran.err
    assert [path.name for path in (tmp_path / "stranger").iterdir()] == ["data"]


def test_records_in_a_folder_are_enough(published: Published, mirror: Path, tmp_path: Path) -> None:
    offline = Guts(tmp_path / "offline", GUTS_NETWORK__NETWORK_NAME="nowhere")
    copy = tmp_path / "records"
    shutil.copytree(published.path / "guts", copy)
    assert verdicts(offline, mirror, "--records", copy) == HONEST
    assert verdicts(offline, mirror, "--records", published.path) == HONEST
    for name in ("forged", "withheld"):
        ref = lie(mirror, name)
        assert verdicts(offline, mirror, "--records", copy)[ref] == name
    git(mirror, "update-ref", "refs/heads/main", git(published.work, "rev-parse", "main~1"))
    # Stale is told by the objects of the node's own folder, where they are.
    assert verdicts(offline, mirror, "--records", published.path)["refs/heads/main"] == "stale"


def test_records_that_nobody_signed_are_refused(published: Published, mirror: Path, tmp_path: Path, work: Path) -> None:
    offline = Guts(tmp_path / "offline")
    copy = tmp_path / "records"
    shutil.copytree(published.path / "guts", copy)
    (record,) = (copy / "refs").iterdir()
    data = bytearray(record.read_bytes())
    data[-30] ^= 1
    record.write_bytes(data)
    ran = offline("verify", mirror, "--records", copy, "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.INTEGRITY, "BAD_RECORDS")

    other = "repo1" + published.id[5:]
    ran = offline("verify", mirror, "--records", tmp_path, "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.NOT_FOUND, "NO_RECORDS")
    assert offline("verify", mirror, "--repository", other, "--records", published.path).status == 0


def test_older_state_than_was_seen_is_loud(node: Node, work: Path, tmp_path: Path) -> None:
    id = str(node(2)("publish", work, "--json").json["repository"])
    path = Path(str(node(2)("inspect", id, "--json").json["path"]))
    old = tmp_path / "old"
    shutil.copytree(path / "guts", old)
    commit(work, "three")
    assert node(2)("publish", work).status == 0
    stranger = Guts(tmp_path / "stranger")
    assert stranger("verify", path, "--repository", id, "--records", path).status == 0
    ran = stranger("verify", path, "--repository", id, "--records", old)

    assert ran.status == ExitStatus.INTEGRITY
    assert "WARNING: THIS REPOSITORY HAS GONE BACK IN TIME!" in ran.err
    assert f"guts known forget {id}" in ran.err
    assert ran.out == ""
    assert stranger("known", "forget", id).status == 0
    assert "is new here" in stranger("verify", path, "--repository", id, "--records", old).err


def test_what_can_not_be_verified_is_named(node: Node, published: Published, mirror: Path, tmp_path: Path) -> None:
    def told(*arguments: object) -> tuple[int, object]:
        ran = node(3)("verify", *arguments, "--json")
        return ran.status, ran.error["code"]

    plain = tmp_path / "plain.git"
    git(tmp_path, "init", "-q", str(plain))
    assert told(plain) == (ExitStatus.USAGE, "NO_SUCH_REMOTE")
    git(plain, "remote", "add", "one", "https://example.invalid/one.git")
    assert told(plain) == (ExitStatus.NOT_FOUND, "WHICH_REPOSITORY")
    git(plain, "remote", "add", "two", f"https://example.invalid/{published.id}/two.git")
    assert told(plain) == (ExitStatus.USAGE, "NO_SUCH_REMOTE")
    assert told(plain, "--remote", "three") == (ExitStatus.USAGE, "NO_SUCH_REMOTE")
    assert told(tmp_path) == (ExitStatus.USAGE, "NOT_A_GIT_DIRECTORY")
    assert told("nowhere") == (ExitStatus.USAGE, "NOT_A_GIT_DIRECTORY")
    assert told(f"{tmp_path}/nowhere.git") == (ExitStatus.FAILED, "MIRROR_FAILED")
    assert told(f"guts://{published.id}") == (ExitStatus.USAGE, "USAGE")
    ran = node(3)("verify", plain, "--remote", "two", "--json")
    assert {ref["verdict"] for ref in json.loads(ran.out)["refs"]} == {"withheld"}
    unknown = "repo1" + "q" * 58
    assert told(mirror, "--repository", unknown)[1] == "BAD_ID"
