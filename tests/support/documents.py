"""Runs the commands that a document shows, as somebody would who reads it and types them."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.repositories import ENVIRONMENT, git

TIMEOUT = 300.0


def commands(document: Path) -> str:
    """Return the commands of all ``console`` blocks: lines that begin with ``$``."""
    blocks = re.findall(r"^```console\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n".join(line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ "))


def workplace(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Make the folder ``my-project`` in ``home``; return an environment that has ``guts`` and git's helper."""
    project = home / "my-project"
    project.mkdir()
    git(project, "init", "-q", "-b", "main")
    (project / "file").write_text("text\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "Start")
    folder = home / "bin"
    folder.mkdir()
    command = folder / "guts"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m guts "$@"\n')
    command.chmod(0o755)
    (folder / "git-remote-guts").symlink_to(Path(sys.executable).parent / "git-remote-guts")
    kept = {name: value for name, value in environ.items() if not name.startswith(("GUTS_", "XDG_"))}
    return {**kept, **ENVIRONMENT, "HOME": str(home), "PATH": f"{folder}:{environ['PATH']}"}


def run(script: str, folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in ``folder``, up to the first command that fails."""
    return subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
