"""A network of processes that keep their tables on one PostgreSQL server, over TCP and over its socket; it crashes."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from guts.cli.local_cluster import LocalCluster
from tests.e2e.conftest import Guts, Ran, commit
from tests.support.postgres import Server
from tests.support.repositories import git

pytestmark = pytest.mark.postgres

SEED = 20
RESTARTS = 8
LONGEST_PUBLICATION = 0.7
ARRIVAL_TIMEOUT = 60.0
PUBLISHER, REPLICAS = 2, (3, 4)


class Network:
    """The cluster, and everything that its commands have said.

    Attributes:
        databases: name of each node's database, by the node's number.
        urls: how each node reaches it: odd numbers through the socket, even ones with the password.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self.said: list[str] = []
        self.cluster = LocalCluster.create(folder, 4)
        self.databases = {member.index: server.create() for member in self.cluster.members}
        self.urls = {
            index: server.tcp_url(name) if index % 2 == 0 else server.url(name)
            for index, name in self.databases.items()
        }
        for member in self.cluster.members:
            with (member.home / "config.toml").open("a") as config:
                config.write(f'[storage]\ndatabase_url = "{self.urls[member.index]}"\n[log]\nlevel = "debug"\n')

    def at(self, index: int, *arguments: object) -> Ran:
        """Run a command that speaks to a node."""
        return self.run(Guts(self.cluster.member(index).home), *arguments)

    def run(self, guts: Guts, *arguments: object) -> Ran:
        ran = guts(*arguments)
        self.said += [ran.out, ran.err]
        return ran

    def ask(self, index: int, query: str) -> list[tuple[object, ...]]:
        """Return what the database of a node says."""
        return self.server.execute(query, self.databases[index])

    def refs(self, index: int, repository: str) -> object:
        return self.at(index, "inspect", repository, "--json").json["canonical_refs"]

    def settle(self, repository: str, work: Path) -> None:
        """Wait until every replica shows the refs of ``work``."""
        lines = git(work, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        expected = dict(line.split(" ") for line in lines)
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        for index in (PUBLISHER, *REPLICAS):
            while self.refs(index, repository) != expected:
                assert time.monotonic() < deadline, f"node {index}"
                self.at(index, "sync", repository, "--timeout", 5)


@pytest.fixture(scope="module")
def network(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A door and three nodes, each with a database of its own."""
    network = Network(tmp_path_factory.mktemp("network") / "cluster", postgres_server)
    try:
        network.cluster.start()
        yield network
    finally:
        network.cluster.stop()
        for name in network.databases.values():
            postgres_server.drop(name)


def test_network_on_one_server_outlives_its_crashes_and_nothing_is_lost_or_doubled(
    network: Network, work: Path, tmp_path: Path
) -> None:
    server, cluster = network.server, network.cluster
    published = network.at(PUBLISHER, "publish", work, "--json")
    repository = str(published.json["repository"])
    for index in REPLICAS:
        assert network.at(index, "seed", repository).status == 0
    before = [member.process for member in cluster.members]

    print(f"seed {SEED}")
    rng = random.Random(SEED)
    with ThreadPoolExecutor(1) as pool:
        for number in range(RESTARTS):
            commit(work, f"news {number}")
            crashed = pool.submit(crash, server, rng.uniform(0.0, LONGEST_PUBLICATION))
            ran = network.at(PUBLISHER, "publish", work, "--json")
            crashed.result()
            assert ran.json["unchanged"] is False, ran.err
    network.settle(repository, work)

    # One commit for each publication, and one record for each, on every node.
    (newest,) = network.ask(PUBLISHER, "SELECT seq, hash FROM signed_refs")
    assert network.ask(PUBLISHER, "SELECT generation FROM repositories") == [(1 + RESTARTS,)]
    assert network.ask(PUBLISHER, "SELECT count(*), count(DISTINCT seq) FROM kept_records") == [(RESTARTS, RESTARTS)]
    for index in REPLICAS:
        assert network.ask(index, "SELECT seq, hash FROM signed_refs") == [newest]
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while network.ask(index, "SELECT projected FROM repositories") != [(True,)]:
            assert time.monotonic() < deadline, f"node {index} does not settle"
            time.sleep(0.1)
    for member in cluster.members:
        assert not list(member.home.rglob("guts.db*")), "nothing is in SQLite"

    # While nobody asks anything: the same processes go on when it is there again.
    crash(server, 0.0)
    copy = tmp_path / "copy"
    assert network.at(4, "clone", f"guts://{repository}/tool", copy).status == 0
    assert git(copy, "rev-parse", "HEAD") == git(work, "rev-parse", "HEAD")
    assert [member.process for member in cluster.members] == before
    assert all(member.running for member in cluster.members)

    # A node that is killed leaves its database to its successor, with all that is in it.
    for index in (PUBLISHER, 3):
        assert cluster.kill(index)
    cluster.start(PUBLISHER, 3)
    commit(work, "after all")
    assert network.at(PUBLISHER, "publish", work).status == 0
    network.settle(repository, work)

    for member in cluster.members:
        log = (member.home / "state" / "node.log").read_text()
        assert "Traceback" not in log
        assert " ERROR " not in log
    check_secret(network)


def test_second_node_on_a_database_is_refused_and_no_password_is_told(network: Network, tmp_path: Path) -> None:
    server = network.server
    wrong = f"postgresql://guts:sesame-wrong@127.0.0.1:{server.port}/{network.databases[2]}"
    in_query = f"{server.tcp_url('nowhere').replace(quote(server.password, safe=''), '')}?password=sesame"
    refused = [
        (network.urls[2], "DATABASE_IN_USE"),
        (network.urls[3], "DATABASE_IN_USE"),
        (server.tcp_url("nowhere"), "DATABASE_FAILED"),
        (wrong, "DATABASE_FAILED"),
        (in_query.replace("guts:@", "guts@"), "DATABASE_FAILED"),
    ]
    for number, (url, code) in enumerate(refused):
        home = tmp_path / f"thief{number}"
        thief = Guts(home, GUTS_NETWORK__LISTEN_ADDR="127.0.0.1:0", GUTS_STORAGE__DATABASE_URL=url)
        assert network.run(thief, "node", "start", "--json").error["code"] == code
        assert network.run(thief, "node", "run").status != 0
        network.said += [path.read_text(errors="replace") for path in home.rglob("*.log")]
    for index in network.databases:
        assert network.at(index, "node", "status", "--json").status == 0
        assert network.at(index, "node", "status").status == 0
        process = network.cluster.member(index).process
        assert process is not None
        network.said.append(Path(f"/proc/{process.pid}/cmdline").read_text())
    check_secret(network)


def crash(server: Server, after: float) -> None:
    """Stop the server as a crash would, ``after`` seconds from now, and start it again."""
    time.sleep(after)
    server.stop("immediate")
    server.start()


def check_secret(network: Network) -> None:
    """Look for the password in what was said, and in every file of the nodes but the config that says it."""
    files = [path for path in network.cluster.folder.rglob("*") if path.is_file() and path.name != "config.toml"]
    assert any(path.name == "node.log" for path in files)
    for text in (*network.said, *(path.read_text(errors="replace") for path in files)):
        assert "sesame" not in text
