"""Every command in a ``console`` block of README and docs is run, in order, as somebody who reads them would."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import documents

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/commands.md", "docs/git.md", "docs/maintainers.md"])
def test_commands_of_the_docs_run_as_written(tmp_path: Path, name: str) -> None:
    environ = documents.workplace(tmp_path, os.environ)
    run = documents.run(documents.commands(ROOT / name), tmp_path, environ)
    leftovers = tmp_path / ".guts-cluster"
    if leftovers.exists():
        command = tmp_path / "bin" / "guts"
        subprocess.run([command, "cluster", "down"], cwd=tmp_path, env=environ, check=True)

    assert run.returncode == 0, run.stderr
    assert not leftovers.exists()
