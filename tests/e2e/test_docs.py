"""Every command in a ``console`` block of README and docs is run, in order, as somebody who reads them would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repositories import ENVIRONMENT, git

ROOT = Path(__file__).parents[2]
TIMEOUT = 180.0


def script(document: Path) -> str:
    """Return the commands of all ``console`` blocks: lines that begin with ``$``."""
    blocks = re.findall(r"^```console\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    return "\n".join(line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ "))


@pytest.mark.parametrize("name", ["README.md", "docs/commands.md", "docs/maintainers.md"])
def test_commands_of_the_docs_run_as_written(tmp_path: Path, name: str) -> None:
    project = tmp_path / "my-project"
    project.mkdir()
    git(project, "init", "-q", "-b", "main")
    (project / "file").write_text("text\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "Start")
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "guts"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m guts "$@"\n')
    command.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUTS_", "XDG_"))}
    environ = {
        **kept,
        **ENVIRONMENT,
        "HOME": str(tmp_path),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    run = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script(ROOT / name)],
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    leftovers = tmp_path / ".guts-cluster"
    if leftovers.exists():
        subprocess.run([command, "cluster", "down"], cwd=tmp_path, env=environ, check=True)

    assert run.returncode == 0, run.stderr
    assert not leftovers.exists()
