"""Settings: three layers, names, units, and where files go."""

import os
from pathlib import Path

import pytest

from guts.addresses import Address, BootstrapAddress
from guts.config import (
    MAX_CONFIG_BYTES,
    MAX_CONNECTIONS,
    MAX_NETWORK_NAME_BYTES,
    MAX_REPOSITORIES,
    MAX_SOCKET_PATH_BYTES,
    BadConfig,
    Config,
    Paths,
)
from guts.errors import ExitStatus
from guts.ids import PeerId

SOMEBODY = PeerId(bytes(range(32)))


def load(
    home: Path, toml: str = "", flags: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> Config:
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(toml)
    return Config.load(flags or {}, {"GUTS_HOME": str(home), **(environ or {})})


def test_config_has_the_names_and_defaults_of_the_seed(tmp_path: Path) -> None:
    config = Config.load({}, {"GUTS_HOME": str(tmp_path)})

    network = config.network
    assert str(network.listen_addr) == "0.0.0.0:9000"
    assert network.bootstrap_nodes == ()
    assert network.max_connections == 50
    assert network.connection_timeout == 10.0
    assert network.keepalive_interval == 30.0
    assert network.keypair == tmp_path / "data/identity/node.key"
    assert config.storage.database_url == f"sqlite:///{tmp_path}/data/guts.db"


def test_config_file_gives_way_to_environment_and_environment_to_flags(tmp_path: Path) -> None:
    toml = '[network]\nlisten_addr = "127.0.0.1:1"\nmax_connections = 1\nkeepalive_interval = "1s"\n'
    environ = {"GUTS_NETWORK__LISTEN_ADDR": "127.0.0.1:2", "GUTS_NETWORK__MAX_CONNECTIONS": "2"}
    config = load(tmp_path, toml, {"network.listen_addr": "127.0.0.1:3"}, environ)

    assert config.network.listen_addr == Address("127.0.0.1", 3)
    assert config.network.max_connections == 2
    assert config.network.keepalive_interval == 1.0


def test_config_reads_lists_from_toml_and_from_commas(tmp_path: Path) -> None:
    expected = (BootstrapAddress("a.example", 9000), BootstrapAddress("1.2.3.4", 1, SOMEBODY))
    texts = [str(address) for address in expected]

    from_file = load(tmp_path, f"[network]\nbootstrap_nodes = {texts}\n")
    assert from_file.network.bootstrap_nodes == expected
    from_environ = load(tmp_path, environ={"GUTS_NETWORK__BOOTSTRAP_NODES": ", ".join(texts) + ","})
    assert from_environ.network.bootstrap_nodes == expected
    assert load(tmp_path, environ={"GUTS_NETWORK__BOOTSTRAP_NODES": ""}).network.bootstrap_nodes == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('"10s"', 10.0), ('"500ms"', 0.5), ('"1.5m"', 90.0), ('"2h"', 7200.0), ('"7d"', 604_800.0), ("3", 3.0)],
)
def test_config_reads_durations(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(tmp_path, f"[network]\nkeepalive_interval = {text}\n").network.keepalive_interval == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [('"2GiB"', 2 << 30), ('"500MB"', 500_000_000), ('"1 kB"', 1000), ("4096", 4096), ('"7B"', 7)],
)
def test_config_reads_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert load(tmp_path, f"[seeding]\nrepo_max = {text}\n").seeding.repo_max == size


def test_config_reads_what_a_node_takes_on(tmp_path: Path) -> None:
    seeding = load(tmp_path, "").seeding
    assert (seeding.repositories, seeding.max_repositories, seeding.disk) == (False, 1_000, 50 << 30)
    assert (seeding.min_free, seeding.grace) == (None, 86_400.0)
    text = '[seeding]\nrepositories = true\nmax_repositories = 0\ndisk = "1TB"\nmin_free = 0\ngrace = 0\n'
    seeding = load(tmp_path, text).seeding
    assert (seeding.repositories, seeding.max_repositories, seeding.disk) == (True, 0, 10**12)
    assert (seeding.min_free, seeding.grace) == (0, 0.0)
    highest = load(tmp_path, f'[seeding]\nrepositories = "false"\nmax_repositories = {MAX_REPOSITORIES}\n').seeding
    assert (highest.repositories, highest.max_repositories) == (False, MAX_REPOSITORIES)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('seeding.repositories = "yes"', "neither true nor false"),
        ("seeding.repositories = 1", "neither true nor false"),
        ("seeding.max_repositories = -1", "whole number"),
        (f"seeding.max_repositories = {MAX_REPOSITORIES + 1}", "whole number"),
        ('seeding.grace = "99ms"', "0.1s to 7d"),
        ('seeding.grace = "8d"', "0.1s to 7d"),
        ('network.keepalive_interval = "10 parsecs"', "network.keepalive_interval"),
        ("network.keepalive_interval = true", "network.keepalive_interval"),
        ('network.keepalive_interval = "99ms"', "0.1s to 7d"),
        ('network.keepalive_interval = "8d"', "0.1s to 7d"),
        ('network.listen_addr = "9000"', "host:port"),
        ('network.listen_addr = "localhost:9000"', "numeric"),
        ('network.advertise = ["1.2.3.4:0"]', "port"),
        ('network.bootstrap_nodes = ["node1abc@1.2.3.4:9000"]', "node1abc"),
        ("network.bootstrap_nodes = 5", "list"),
        ('network.trusted_peers = ["node1abc"]', "node1abc"),
        ("network.max_connections = 0", "whole number"),
        (f"network.max_connections = {MAX_CONNECTIONS + 1}", "whole number"),
        ('network.role = "king"', "king"),
        ('network.network_name = ""', "text"),
        (f'network.network_name = "{"n" * (MAX_NETWORK_NAME_BYTES + 1)}"', "64"),
        ('seeding.repo_max = "2 GiBs"', "size"),
        ('seeding.repo_max = "1048577TiB"', "out of range: 0 to 1048576TiB"),
        ('log.level = "loud"', "loud"),
        ("storage.database_url = 3", "text"),
        ("[network", "TOML"),
    ],
)
def test_config_refuses_a_bad_value_and_names_the_file(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(tmp_path, toml)

    assert says in str(caught.value)
    assert str(tmp_path / "config.toml") in str(caught.value)
    assert caught.value.exit_status is ExitStatus.CONFIG


def test_config_names_trusted_peers(tmp_path: Path) -> None:
    friend = PeerId(b"F" * 32)
    assert load(tmp_path, "").network.trusted_peers == frozenset()
    assert load(tmp_path, f'network.trusted_peers = ["{friend}"]').network.trusted_peers == {friend}


def test_config_takes_limits_at_their_edge(tmp_path: Path) -> None:
    name = "n" * MAX_NETWORK_NAME_BYTES
    config = load(tmp_path, f'[network]\nmax_connections = {MAX_CONNECTIONS}\nnetwork_name = "{name}"\n').network

    assert (config.max_connections, config.network_name) == (MAX_CONNECTIONS, name)


@pytest.mark.parametrize(
    ("toml", "environ", "near"),
    [
        ("[network]\nmax_conections = 3", {}, "network.max_connections"),
        ("[netwrk]\nmax_connections = 3", {}, "network.max_connections"),
        ("[netwrk]\n", {}, None),
        ("listen_addr = 'x'", {}, "network.listen_addr"),
        ("", {"GUTS_NETWORK__LISTEN": "1.2.3.4:5"}, "network.listen_addr"),
        ("[zzzz]\nqqqq = 3", {}, None),
    ],
)
def test_config_names_the_setting_nearest_to_an_unknown_one(
    tmp_path: Path, toml: str, environ: dict[str, str], near: str | None
) -> None:
    with pytest.raises(BadConfig, match="there is no setting") as caught:
        load(tmp_path, toml, environ=environ)

    assert ("GUTS_NETWORK__LISTEN" if environ else "config.toml") in str(caught.value)
    if near:
        assert caught.value.hint == f"did you mean {near}?"


def test_config_refuses_a_file_that_is_not_there_only_when_it_was_named(tmp_path: Path) -> None:
    environ = {"GUTS_HOME": str(tmp_path)}
    Config.load({}, environ)

    with pytest.raises(BadConfig, match="there is no config file"):
        Config.load({}, environ | {"GUTS_CONFIG": str(tmp_path / "missing.toml")})


def test_config_reads_a_file_of_the_largest_size_and_no_larger(tmp_path: Path) -> None:
    load(tmp_path, "#" * MAX_CONFIG_BYTES)
    with pytest.raises(BadConfig, match="larger"):
        load(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))


def test_paths_are_all_under_guts_home(tmp_path: Path) -> None:
    paths = Paths.from_environ({"GUTS_HOME": str(tmp_path), "XDG_DATA_HOME": "/elsewhere", "HOME": "/root"})

    for path in (paths.config_file, paths.node_key, paths.repositories, paths.log_file, paths.control_socket):
        assert path.is_relative_to(tmp_path)


def test_paths_follow_xdg_and_ignore_relative_values() -> None:
    environ = {"HOME": "/home/a", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_STATE_HOME": "x"}
    paths = Paths.from_environ(environ)

    assert paths.config_file == Path("/home/a/.config/guts/config.toml")
    assert paths.data == Path("/d/guts")
    assert paths.state == Path("/home/a/.local/state/guts")
    assert paths.control_socket == Path("/run/user/1/guts/control.sock")
    assert Paths.from_environ({"HOME": "/home/a"}).runtime == Path("/home/a/.local/state/guts/run/guts")


def test_control_socket_gets_a_short_name_only_where_it_is_too_long() -> None:
    def socket_for(length: int) -> Path:
        fixed = len("/" + "/run/control.sock")
        return Paths.from_environ({"GUTS_HOME": "/" + "h" * (length - fixed)}).control_socket

    assert len(str(socket_for(MAX_SOCKET_PATH_BYTES))) == MAX_SOCKET_PATH_BYTES
    short = socket_for(MAX_SOCKET_PATH_BYTES + 1)
    assert short.parent == Path(f"/tmp/guts-{os.geteuid()}")
    assert len(str(short)) < MAX_SOCKET_PATH_BYTES
    assert short != socket_for(MAX_SOCKET_PATH_BYTES + 2)


def test_limits_come_from_the_file_then_from_what_was_set_then_from_environment_and_flags(tmp_path: Path) -> None:
    toml = "[limits]\nserves = 1\nserves_per_peer = 1\ngit = 1\ngit_per_peer = 1\n"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "limits.toml").write_text("[limits]\nserves_per_peer = 3\ngit = 3\ngit_per_peer = 3\n")
    environ = {"GUTS_LIMITS__GIT": "4", "GUTS_LIMITS__GIT_PER_PEER": "4"}
    limits = load(tmp_path, toml, {"limits.git_per_peer": "5"}, environ).limits
    values = limits.values()
    assert [values[name] for name in ("serves", "serves_per_peer", "git", "git_per_peer")] == [1, 3, 4, 5]
    sources = [limits.source(name) for name in ("serves", "serves_per_peer", "git", "git_per_peer", "refs_rate")]
    assert sources == ["config file", "limits set", "environment", "command line", "default"]


@pytest.mark.parametrize(
    ("toml", "says", "hint"),
    [
        ("[limits]\ngosip_rate = 1\n", "gosip_rate", "did you mean gossip_rate?"),
        ("[limits]\ngossip_rate = 0\n", "gossip_rate", "such as 10"),
        ("[limit]\ngossip_rate = 0\n", "limit.gossip_rate", "did you mean limits.gossip_rate?"),
    ],
)
def test_limit_that_is_none_is_refused_with_where_it_is(tmp_path: Path, toml: str, says: str, hint: str) -> None:
    with pytest.raises(BadConfig, match=says) as refused:
        load(tmp_path, toml)
    assert "config.toml" in str(refused.value)
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("# by hand\n[limits]\ngit = 3\nxyzzy = 1\n", "no limit 'xyzzy'", "delete line 4 of {file}"),
        ('[limits]\nserves = "many"\n', "'many' is not a whole number", "delete line 2 of {file}"),
        ("limits = {gti = 3}\n", "no limit 'gti'", "delete gti from {file}"),
        ("[limits\n", "is not TOML", "guts limits set wrote it; delete {file} to go by the other limits again"),
    ],
)
def test_broken_file_of_limits_is_mended_without_the_node(tmp_path: Path, text: str, says: str, hint: str) -> None:
    file = tmp_path / "data" / "limits.toml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(BadConfig, match=says) as refused:
        load(tmp_path, "")
    assert str(file) in str(refused.value)
    assert refused.value.hint == hint.format(file=file)


def test_config_that_is_not_text_is_told_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "limits.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="is not TOML: it is not UTF-8 text"):
        load(tmp_path, "")


def test_section_of_limits_may_be_empty(tmp_path: Path) -> None:
    assert load(tmp_path, "[limits]\n").limits.source("serves") == "default"
