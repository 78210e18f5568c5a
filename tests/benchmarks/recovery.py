"""How long a node that was killed takes until it serves all its repositories again.

    python -m tests.benchmarks.recovery [runs]

A home with 1,000 small repositories: each a folder with a pack, an identity document and a signed record of its own.
First the node is started without a database, and makes one from the folders. Then it is killed with SIGKILL and started
again, several times. What is measured begins with the start of the process and ends with the answer on the control
socket that all are held; then every one is in the list, with its refs, and one of them is cloned.
"""

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from guts.canonical import encode
from guts.cli import daemon
from guts.cli.answer import Answer
from guts.cli.client import ControlClient
from guts.config import Paths
from guts.identity import SigningKey, domain
from guts.ids import ObjectId
from guts.trust.authoring import prepare_refs
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import NONCE_LENGTH, IdentityDocument
from guts.trust.signed_refs import KIND
from tests.benchmarks.figure import Figure, show
from tests.e2e.conftest import Guts
from tests.support.repositories import git

RUNS = 5
REPOSITORIES = 1_000
REF = "refs/heads/main"
START_TIMEOUT = 1_800.0


def make_home(folder: Path, count: int) -> Guts:
    """Make a home with ``count`` repositories and no database; return what runs commands there."""
    home = Guts(folder / "home", GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0")
    root = Paths.from_environ(home.environ).repositories
    root.mkdir(parents=True)
    author = SigningKey.generate()
    template = folder / "template"
    git(folder, "init", "-q", "--bare", "--template=", "-b", "main", str(template))
    for kind in ("identity", "refs"):
        (template / "guts" / kind).mkdir(parents=True)
    for number in range(count):
        path = folder / "next"
        shutil.copytree(template, path)
        tip = _fill(path, number)
        chain = _chain(author, f"repository-{number}")
        unsigned = prepare_refs(chain, author.author_id, None, {REF: tip}, REF, time.time_ns() // 1_000_000)
        assert unsigned is not None
        record = unsigned.attach(author.author_id, author.sign(domain(KIND), unsigned.body))
        (path / "guts" / "identity" / "00000000").write_bytes(chain.documents[0])
        (path / "guts" / "refs" / str(author.author_id)).write_bytes(
            encode([record.header_bytes, record.entries_bytes])
        )
        path.rename(root / f"{chain.repository}.git")
    return home


def _fill(path: Path, number: int) -> ObjectId:
    """Put two commits into one pack; return the tip."""
    stream = b""
    for step in range(2):
        data = f"{number} {step}\n".encode() * 50
        stream += b"commit refs/heads/main\nmark :%d\ncommitter A <a@example.org> %d +0000\n" % (
            step + 1,
            1_700_000_000 + number,
        )
        stream += b"data 2\nm\n" + (b"from :1\n" if step else b"")
        stream += b"M 100644 inline src/file%d\ndata %d\n%s\n" % (step, len(data), data)
    marks = path / "marks"
    git(path, "-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", f"--export-marks={marks}", data=stream)
    tip = ObjectId(bytes.fromhex(dict(line.split(" ") for line in marks.read_text().splitlines())[":2"]))
    marks.unlink()
    shutil.rmtree(path / "refs" / "heads")
    (path / "refs" / "heads").mkdir()
    return tip


def _chain(author: SigningKey, name: str) -> IdentityChain:
    genesis = IdentityDocument.genesis(
        name=name,
        description="",
        default_branch="main",
        maintainers=(author.author_id,),
        created_ms=time.time_ns() // 1_000_000,
        nonce=secrets.token_bytes(NONCE_LENGTH),
    )
    return IdentityChain.from_documents([genesis.sign(author)])


@contextmanager
def started(environ: Mapping[str, str], count: int) -> Iterator[tuple[float, Answer]]:
    """Enter with a node that holds ``count`` repositories: seconds since its start, and its status; kill it at last."""
    begun = time.monotonic()
    node = daemon.spawn(environ)
    try:
        status = daemon.wait_ready(node, START_TIMEOUT)
        took = time.monotonic() - begun
        assert status.number("repositories") == count
        yield took, status
    finally:
        os.kill(node.pid, signal.SIGKILL)
        os.waitpid(node.pid, 0)


def check(environ: Mapping[str, str], count: int) -> None:
    """Look at every repository in the list. Raises: ``AssertionError``: one is not served."""
    answer = ControlClient(Paths.from_environ(environ).control_socket).get("/v1/repositories")
    assert isinstance(answer, list)
    held = [Answer.of(entry) for entry in answer]
    assert len(held) == count
    assert all(entry.flag("seeding") and entry.number("refs") == 1 for entry in held)


def measure(runs: int = RUNS, count: int = REPOSITORIES) -> list[Figure]:
    """Run everything; return the figures."""
    with tempfile.TemporaryDirectory(prefix="guts-bench-") as name:
        folder = Path(name)
        guts = make_home(folder, count)
        with started(guts.environ, count) as (rebuilt, _):
            check(guts.environ, count)
        recovered = []
        for _ in range(runs):
            with started(guts.environ, count) as (took, status):
                check(guts.environ, count)
                recovered.append(took)
                near = f"{status.text('id')}@{status.texts('listen')[0]}"
                repository = next(Paths.from_environ(guts.environ).repositories.iterdir()).stem
                copy = folder / f"copy-{took}"
                cloned = guts("clone", f"guts://{near.partition('@')[2]}/{repository}/copy", copy)
                assert cloned.status == 0, cloned.err
                assert git(copy, "rev-list", "--count", "HEAD") == "2"
    return [
        Figure(f"start after SIGKILL, {count:,} repositories", "s", recovered, 10, "at most"),
        Figure(f"the same without the database ({count:,})", "s", [rebuilt], 300, "at most", 0),
    ]


def main() -> None:
    """Run from the command line."""
    show(measure(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))


if __name__ == "__main__":
    main()
