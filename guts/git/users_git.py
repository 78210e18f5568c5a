"""git as a person runs it: with their settings, on their terminal."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

STDERR: Final = 2
"""The descriptor: stdout is for what the command of ours answers."""


def run(arguments: Sequence[str], environ: Mapping[str, str], where: Path | None = None) -> int:
    """Let git do something in ``where``; return its exit status. What it says goes to stderr."""
    return subprocess.run(["git", *arguments], cwd=where, env=environ, stdout=STDERR, check=False).returncode


def clone(url: str, target: Path, environ: Mapping[str, str], *, quiet: bool) -> int:
    """Let git clone ``url``; return its exit status. What it and its remote helper say goes to stderr."""
    options = ["--quiet"] if quiet else []
    return run(["clone", *options, "--", url, str(target)], environ)


def contents(target: Path) -> tuple[int, str]:
    """Return the number of branches and tags that a clone has from its origin, and the full name of its branch."""
    refs = _answer(target, "for-each-ref", "--format=%(refname)", "refs/tags", "refs/remotes/origin")
    names = [name for name in refs.splitlines() if name != "refs/remotes/origin/HEAD"]
    return len(names), _answer(target, "symbolic-ref", "HEAD").strip()


def _answer(target: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=target, stdout=subprocess.PIPE, text=True, check=True).stdout
