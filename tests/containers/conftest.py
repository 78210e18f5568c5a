"""The image, and a running cluster with every profile."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guts.cli.ports import free_ports
from tests.containers import engine
from tests.containers.engine import Docker
from tests.e2e.conftest import Guts

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PREPARED = ROOT / "build" / "containers"
NODES = ("bootstrap", "replica1", "replica2", "replica3", "replica-postgres")
REPLICAS = NODES[1:]
PORTS = ("REPLICA1_PORT", "REPLICA2_PORT", "REPLICA3_PORT", "REPLICA_POSTGRES_PORT")
ARRIVAL_TIMEOUT = 60.0


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A running engine with the two images of docker-compose.yml, built as its users build them."""
    if not (PREPARED / engine.BASE).exists():
        pytest.skip("nothing is prepared; `make test-containers` does that")
    settings = {
        "COMPOSE_PROJECT_NAME": "guts-test",
        "COMPOSE_FILE": f"docker-compose.yml:{HERE / 'engine.yml'}",
        **dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)),
    }
    with engine.running(PREPARED, ROOT, settings) as docker:
        database = subprocess.Popen(
            [engine.COMMAND, "build", "--quiet", "--network=host", "--tag=postgres:17-bookworm", HERE / "postgres"],
            env=docker.environ,
            stdout=subprocess.DEVNULL,
        )
        try:
            docker("compose", "build", "--quiet")
        finally:
            status = database.wait(engine.COMMAND_TIMEOUT)
        assert status == 0
        try:
            yield docker
        finally:
            # Links and mounts go with the containers, so these go before the engine.
            docker("compose", "--profile=postgres", "down", "--volumes")


class Cluster:
    """The services of docker-compose.yml, all profiles."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    def compose(self, *arguments: object) -> str:
        """Run ``docker compose`` and return what it printed."""
        return self.docker("compose", "--profile=postgres", *arguments)

    def up(self) -> None:
        """Start whatever is down; every service is healthy then."""
        self.compose("up", "--detach", "--wait")

    def run(self, service: str, *command: object) -> str:
        """Run a command in a service's container and return what it printed."""
        return self.compose("exec", "-T", service, *command)

    def guts(self, service: str, *arguments: object) -> dict[str, object]:
        """Run ``guts … --json`` in a container and return its result."""
        value = json.loads(self.run(service, "guts", *arguments, "--json"))
        assert isinstance(value, dict)
        return value

    def address(self, service: str) -> str:
        """Return where the host reaches a replica."""
        return self.compose("port", service, 9000).strip()

    def inspect(self, service: str, template: str) -> str:
        """Return what the engine says of a service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return self.docker("inspect", "--format", template, container).strip()

    def refs(self, service: str, repository: str) -> str:
        """Return the bytes of the files that hold a repository's refs; nothing where there are none."""
        folder = f"/data/data/repos/{repository}.git"
        command = ("exec", "-T", service, "cat", f"{folder}/HEAD", f"{folder}/packed-refs")
        return self.docker.run("compose", "--profile=postgres", *command).stdout

    def wait_for_refs(self, service: str, repository: str, refs: str) -> None:
        """Wait until a replica has exactly these."""
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while (found := self.refs(service, repository)) != refs:
            assert time.monotonic() < deadline, f"{service} has\n{found}\nand not\n{refs}"
            time.sleep(0.2)


@pytest.fixture
def cluster(docker: Docker) -> Cluster:
    """The cluster, one for the whole run, with every service up and healthy."""
    cluster = Cluster(docker)
    cluster.up()
    return cluster


@pytest.fixture
def publisher(cluster: Cluster, tmp_path: Path) -> Iterator[Guts]:
    """A node on the host, whom no container can dial; it has dialled replica 1."""
    guts = Guts(tmp_path / "home")
    started = guts("node", "start", "--listen", "127.0.0.1:0", "--bootstrap", cluster.address("replica1"))
    assert started.status == 0, started.err
    assert guts("peer", "connect", cluster.address("replica1")).status == 0
    yield guts
    assert guts("node", "stop").status == 0
