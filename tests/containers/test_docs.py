"""Every command of docs/containers.md is run, in order; README shows the first of them."""

import re
from pathlib import Path

import pytest

from guts.cli.ports import free_ports
from tests.containers.conftest import PORTS, ROOT
from tests.containers.engine import Docker
from tests.support import documents

pytestmark = pytest.mark.containers

DOCUMENT = ROOT / "docs" / "containers.md"


def test_commands_of_the_docs_run_as_written(docker: Docker, tmp_path: Path) -> None:
    script = documents.commands(DOCUMENT)
    environ = documents.workplace(tmp_path, docker.environ)
    for number, name in enumerate(PORTS, 9001):
        script = script.replace(f"127.0.0.1:{number}", f"127.0.0.1:{environ[name]}")
    script = script.replace("203.0.113.7:9000", f"127.0.0.1:{free_ports(1)[0]}")
    # Compose runs in the project, the rest beside my-project.
    script = re.sub(r"^docker compose .*", rf"(cd {ROOT} && \g<0>)", script, flags=re.MULTILINE)
    run = documents.run(script, tmp_path, {**environ, "GUTS_NETWORK__LISTEN_ADDR": "127.0.0.1:0"})
    if run.returncode != 0:
        documents.run("guts node stop; docker rm -f guts", tmp_path, environ)

    assert run.returncode == 0, run.stderr
    assert (tmp_path / "my-copy" / "file").read_text() == "text\n"
    assert not docker("volume", "ls", "--quiet", "--filter", "name=replica1")


def test_commands_of_the_readme_are_those_of_the_docs() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## In containers\n")[2].partition("\n## ")[0]
    shown = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0].splitlines()
    known = documents.commands(DOCUMENT).splitlines()
    assert shown
    assert [line for line in (line.partition("  ")[0] for line in shown) if line not in known] == []
