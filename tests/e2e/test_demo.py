"""The demo, as a stranger runs it."""

import subprocess
from pathlib import Path

from tests.e2e.conftest import Guts


def demo_processes() -> set[str]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return {line for line in listed.splitlines() if "guts node run" in line and "guts-demo-" in line}


def test_demo_ends_with_everything_identical_and_nothing_left(tmp_path: Path, work: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    guts = Guts(tmp_path / "unused", TMPDIR=str(scratch), HOME=str(tmp_path))
    ran = guts("demo", work, "--json")

    result = ran.json
    assert result["identical"] is True
    assert (result["refs"], result["objects"]) == (2, 6)
    assert demo_processes() == set()
    assert list(scratch.iterdir()) == []
