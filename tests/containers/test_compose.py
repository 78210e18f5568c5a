"""The cluster of docker-compose.yml, from the outside: who may do what in it, and what it keeps."""

import json
import re
import time
from pathlib import Path

import pytest

from guts.errors import ExitStatus
from guts.ids import RepositoryId
from tests.containers.conftest import ARRIVAL_TIMEOUT, NODES, REPLICAS, ROOT, Cluster
from tests.containers.engine import Docker
from tests.e2e.conftest import Guts, commit, two_commits
from tests.support.repositories import git

pytestmark = pytest.mark.containers

STOP_SECONDS = 20.0
"""Well below the 30 s of ``stop_grace_period``, after which a container would be killed."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with two commits and a tag."""
    return two_commits(tmp_path / "tool")


def publish(publisher: Guts, work: Path) -> tuple[str, str]:
    """Publish ``work``; return its id, and the bytes of the files that hold its refs at the publisher's."""
    repository = publisher("publish", work, "--json").json["repository"]
    folder = Path(str(publisher("inspect", repository, "--json").json["path"]))
    return str(repository), (folder / "HEAD").read_text() + (folder / "packed-refs").read_text()


def test_file_is_valid_and_a_slip_in_it_is_not(docker: Docker, tmp_path: Path) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    slips = [text.replace("read_only:", "readonly:"), text.replace("[default, database]", "[default, data]")]
    for number, changed in enumerate([text, *slips]):
        copy = tmp_path / f"{number}.yml"
        copy.write_text(changed)
        done = docker.run("compose", f"--file={copy}", "--profile=postgres", "config", "--quiet")
        assert (done.returncode == 0) == (changed == text), done.stderr
    assert len({text, *slips}) == 3

    plain = docker("compose", "config", "--services").split()
    assert sorted(plain) == ["bootstrap", "replica1", "replica2", "replica3"]
    services = docker("compose", "--profile=postgres", "config", "--services").split()
    assert sorted(services) == sorted([*NODES, "postgres"])


def test_image_holds_what_is_locked_and_nothing_to_build_with(docker: Docker) -> None:
    listing = docker("run", "--rm", "--entrypoint=ls", "guts-node", "/opt/guts/lib/python3.11/site-packages").split()
    found = {match[1] for name in listing if (match := re.fullmatch(r"(.+-.+)\.dist-info", name))}
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)

    assert {name.lower().replace("_", "-") for name in found} - {"guts-node-0.1.0"} <= {
        f"{name}-{version}" for name, version in locked
    }
    assert any(name.startswith("psycopg_binary-") for name in found)
    assert not {"pip", "setuptools", "hatchling", "pytest"} & set(listing)


def test_image_is_healthy_only_where_a_node_answers(docker: Docker) -> None:
    check = json.loads(docker("inspect", "--format={{json .Config.Healthcheck.Test}}", "guts-node"))
    assert check == ["CMD", "guts", "node", "status"]
    assert docker.run("run", "--rm", "guts-node", *check[2:]).returncode == ExitStatus.NODE_DOWN


def test_builder_is_given_what_the_image_is_made_of_and_nothing_else(docker: Docker, tmp_path: Path) -> None:
    recipe = tmp_path / "Dockerfile"
    recipe.write_text("FROM scratch\nCOPY . /\n")
    given = tmp_path / "given"
    docker("buildx", "build", "--quiet", f"--file={recipe}", f"--output=type=local,dest={given}", ROOT)

    assert sorted(path.name for path in given.iterdir()) == [
        *("LICENSE-APACHE", "LICENSE-MIT", "README.md", "guts", "migrations"),
        *("pyproject.toml", "requirements-dev.lock", "requirements.lock"),
    ]
    assert {path.suffix for path in given.rglob("*") if path.is_file() and path.parent != given} <= {
        ".py",
        ".mako",
        ".typed",
    }


def test_no_container_can_do_more_than_it_must(cluster: Cluster) -> None:
    for service in (*NODES, "postgres"):
        status = dict(
            line.split(":", 1) for line in cluster.run(service, "cat", "/proc/self/status").splitlines() if ":" in line
        )
        assert "0" not in status["Uid"].split() + status["Gid"].split(), service
        assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"].strip() == "1"
        assert cluster.inspect(service, "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}}") == "true false"
        root = [line.split()[3] for line in cluster.run(service, "cat", "/proc/mounts").splitlines() if " / " in line]
        assert root[-1].startswith("ro,"), root
        assert cluster.docker.run("compose", "--profile=postgres", "exec", "-T", service, "touch", "/x").returncode != 0
    for service in NODES:
        assert cluster.inspect(service, "{{.Config.User}}") == "10001:10001"
        assert cluster.run(service, "stat", "-c", "%a %u", "/data").split() == ["700", "10001"]


def test_ports_are_published_on_loopback_only(cluster: Cluster) -> None:
    for service in REPLICAS:
        bindings = cluster.inspect(service, "{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}} {{end}}{{end}}")
        assert bindings.split() == ["127.0.0.1", "127.0.0.1"], service
    for service in ("bootstrap", "postgres"):
        assert cluster.inspect(service, "{{.HostConfig.PortBindings}}") == "map[]"


def test_repository_of_the_host_travels_through_the_cluster(
    cluster: Cluster, publisher: Guts, work: Path, tmp_path: Path
) -> None:
    repository, refs = publish(publisher, work)
    # Replica 1 fetches over the connection that the publisher dialled, two from replica 1, and one finds it in the DHT.
    cluster.guts("replica1", "seed", repository)
    for service in ("replica2", "replica3"):
        cluster.guts(service, "seed", f"guts://replica1:9000/{repository}")
    provider = str(cluster.guts("replica1", "node", "status")["id"])
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    while provider not in json.dumps(cluster.guts("replica-postgres", "dht", "find-repo", repository)):
        assert time.monotonic() < deadline
    cluster.guts("replica-postgres", "seed", repository)
    for service in REPLICAS:
        cluster.wait_for_refs(service, repository, refs)
    me = str(publisher("node", "status", "--json").json["id"])
    peers = {
        peer["peer"]: peer["direction"] for peer in json.loads(cluster.run("replica1", "guts", "peer", "ls", "--json"))
    }
    assert peers[me] == "inbound"

    # News travels by itself, and misses a replica that is dead: killed, not restarted.
    cluster.compose("kill", "replica2")
    commit(work, "three")
    same, newer = publish(publisher, work)
    assert same == repository
    assert newer != refs
    for service in REPLICAS:
        if service != "replica2":
            cluster.wait_for_refs(service, repository, newer)
    assert cluster.inspect("replica2", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    # The others have to help it: the publisher is gone when it comes back.
    assert publisher("node", "stop").status == 0
    cluster.compose("start", "replica2")
    cluster.wait_for_refs("replica2", repository, newer)

    stranger = Guts(tmp_path / "stranger")
    for service in ("replica2", "replica-postgres"):
        copy = tmp_path / service
        cloned = stranger("clone", f"guts://{cluster.address(service)}/{repository}", copy)
        assert cloned.status == 0, cloned.err
        assert git(copy, "rev-parse", "HEAD", "v1") == git(work, "rev-parse", "HEAD", "v1")

    query = f"SELECT count(*) FROM repositories WHERE id = decode('{RepositoryId.parse(repository).hex()}', 'hex')"
    rows = cluster.run("postgres", "psql", "-h", "/var/run/postgresql", "-U", "guts", "-Atc", query, "guts")
    assert rows.strip() == "1"
    assert "guts.db" not in cluster.run("replica-postgres", "ls", "/data/data")


def test_database_is_reached_by_its_replica_only(cluster: Cluster) -> None:
    networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    members = {service: cluster.inspect(service, networks).split() for service in (*NODES, "postgres")}
    assert [service for service in members if "guts-test_database" in members[service]] == [
        "replica-postgres",
        "postgres",
    ]
    assert members["postgres"] == ["guts-test_database"]
    assert cluster.docker("network", "inspect", "--format={{.Internal}}", "guts-test_database").strip() == "true"


def test_node_that_crashed_is_started_again(cluster: Cluster, publisher: Guts, work: Path) -> None:
    repository, refs = publish(publisher, work)
    cluster.guts("replica1", "seed", repository)
    count = int(cluster.inspect("replica1", "{{.RestartCount}}"))
    cluster.run("replica1", "sh", "-c", f"kill -9 {cluster.guts('replica1', 'node', 'status')['pid']}")
    deadline = time.monotonic() + ARRIVAL_TIMEOUT
    while int(cluster.inspect("replica1", "{{.RestartCount}}")) == count:
        assert time.monotonic() < deadline
    cluster.up()

    assert cluster.guts("replica1", "inspect", repository)["seeding"] is True
    assert cluster.refs("replica1", repository) == refs


def test_stop_is_graceful_and_volumes_keep_everything(cluster: Cluster, publisher: Guts, work: Path) -> None:
    repository, refs = publish(publisher, work)
    cluster.guts("replica1", "seed", repository)
    identity = cluster.guts("replica1", "node", "status")["id"]

    begun = time.monotonic()
    cluster.compose("stop")
    assert time.monotonic() - begun < STOP_SECONDS
    for service in (*NODES, "postgres"):
        assert cluster.inspect(service, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false", service
    cluster.compose("down")
    cluster.compose("up", "--detach", "--wait", "replica1")
    assert cluster.guts("replica1", "node", "status")["id"] == identity
    assert cluster.refs("replica1", repository) == refs
