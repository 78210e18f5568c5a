"""Repositories for tests and benchmarks: made by ``git fast-import``, the same for the same seed."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

_WORDS = [
    f"{verb}_{noun}" for verb in ("read", "send", "open", "make", "find") for noun in ("file", "peer", "key", "row")
]
_DIRECTORIES = ("src", "src/net", "src/store", "src/store/sql", "docs", "tests/unit", "tests/data", "tools")

# Author, clock and configuration of whoever runs this must not show in the ids.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def git(path: Path, *arguments: str, data: bytes = b"") -> str:
    """Run git in ``path`` and return what it printed, stripped."""
    done = subprocess.run(["git", *arguments], cwd=path, env=ENVIRONMENT, input=data, check=True, capture_output=True)
    return done.stdout.decode().strip()


def make_repository(path: Path, objects: int, seed: int, *, bare: bool = True) -> Path:
    """Make a repository of about ``objects`` objects: branches, tags, deltas, and a share of incompressible bytes.

    A commit changes one to three files of a tree that grows with the history, so that each brings about six
    objects; 1,000 bytes per object come out on disk where there are many.
    """
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main", *(["--bare"] if bare else []))
    with subprocess.Popen(
        ["git", "fast-import", "--quiet", "--done"], cwd=path, env=ENVIRONMENT, stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for piece in _stream(objects, random.Random(seed)):
            process.stdin.write(piece)
        process.stdin.close()
        assert process.wait() == 0
    if not bare:
        git(path, "reset", "-q", "--hard")
    return path


def _stream(objects: int, rng: random.Random) -> Iterator[bytes]:
    files: dict[str, list[str]] = {}
    count = number = 0
    while count < objects:
        number += 1
        yield b"commit refs/heads/main\nmark :%d\n" % number
        yield b"committer A <a@example.org> %d +0000\n" % (1_600_000_000 + number * 60)
        message = f"Change {number}: {rng.choice(_WORDS)}\n".encode()
        yield b"data %d\n%s\n" % (len(message), message)
        if number > 1:
            yield b"from :%d\n" % (number - 1)
        touched = set()
        for _ in range(rng.randint(1, 3)):
            # Work goes on in one of 12 packages of each generation; directories stay as small as people keep them.
            generation = rng.randrange(1 + number // 1_500)
            directory = f"{rng.choice(_DIRECTORIES)}/part{generation}"
            name = f"{directory}/{rng.choice(_WORDS)}.py"
            touched.add(name)
            data = (
                _edit(files.setdefault(name, []), rng)
                if rng.random() < 0.93
                else rng.randbytes(rng.randint(4_000, 50_000))
            )
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data)
            count += 1 + directory.count("/")
        count += 1 + 1 + len(touched)
        if number % 500 == 0:
            tag = b"v%d" % number
            yield b"tag %s\nfrom :%d\ntagger A <a@example.org> %d +0000\ndata 2\nv\n\n" % (tag, number, 1_600_000_000)
        if number % 300 == 0:
            yield b"reset refs/heads/topic-%d\nfrom :%d\n\n" % (number, number - 1)
    yield b"done\n"


def _edit(lines: list[str], rng: random.Random) -> bytes:
    for _ in range(rng.randint(2, 12) if lines else 60):
        line = f"    {rng.choice(_WORDS)}({rng.randrange(10**6)}, {rng.choice(_WORDS)!r})  # {rng.random()}"
        if len(lines) > 300 or (lines and rng.random() < 0.5):
            lines[rng.randrange(len(lines))] = line
        else:
            lines.insert(rng.randrange(len(lines) + 1), line)
    return ("\n".join(lines) + "\n").encode()
