"""The frame of every command: help, errors, exit statuses, and what is imported for it."""

import subprocess
import sys
import time

import pytest

from guts import __version__
from guts.cli.root import COMMANDS
from guts.errors import ExitStatus
from tests.support.scripted_control import REPOSITORY
from tests.unit.cli.conftest import Guts

HEAVY = ("aiohttp", "sqlalchemy", "alembic", "nacl", "msgpack", "kademlia", "asyncio", "http.client")


def imported_by(*arguments: str) -> set[str]:
    """Return the modules that a command line imports, in a process of its own."""
    code = (
        "import sys; from guts.cli.root import run; status = run(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return set(done.stderr.split())


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_command_and_imports_none_of_them(guts: Guts, option: str) -> None:
    ran = guts(option)

    assert ran.status == 0
    assert all(f"  {name} " in ran.out for name in COMMANDS)
    modules = imported_by(option)
    assert "click" in modules
    assert not [module for module in HEAVY if module in modules]
    assert not [target for target, _ in COMMANDS.values() if target.partition(":")[0] in modules]


def test_commands_that_ask_the_node_never_import_its_side() -> None:
    modules = imported_by("node", "status")

    assert "http.client" in modules
    assert not {"aiohttp", "sqlalchemy", "nacl", "guts.app", "guts.node"} & modules


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_json(guts: Guts, name: str) -> None:
    ran = guts(name, "-h")
    assert ran.status == 0
    if "Commands:" not in ran.out:
        assert "--json" in ran.out
        return
    listed = ran.out.partition("Commands:")[2].split("\n")
    for subcommand in [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]:
        inner = guts(name, subcommand, "--help")
        assert inner.status == 0
        assert "--json" in inner.out, f"guts {name} {subcommand}"


def test_help_is_quick() -> None:
    def quickest(*arguments: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert quickest("-m", "guts", "--help") <= 15 * quickest("-c", "pass")


@pytest.mark.parametrize("group", ["id", "identity", "install", "known", "limits", "node", "peer", ("peer", "bans")])
def test_no_line_about_a_command_is_cut_off(guts: Guts, group: str | tuple[str, ...]) -> None:
    listed = guts(*([group] if isinstance(group, str) else group), "--help").out.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


def test_version_is_printed(guts: Guts) -> None:
    assert guts("--version").out == f"guts {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (("sed",), "there is no command 'sed'; did you mean 'seed'?", "guts --help"),
        (("status",), "there is no command 'status'; did you mean 'node status'?", "guts --help"),
        (("bans",), "there is no command 'bans'; did you mean 'peer bans'?", "guts --help"),
        (("zzz",), "there is no command 'zzz'", "guts --help"),
        (("seed",), "missing argument '(REPOSITORY|auth1…)...'", "guts seed --help"),
        (("ls", "--jsn"), "no such option '--jsn'", "guts ls --help"),
        (("node", "strat"), "no such command 'strat'", "guts node --help"),
        (("seed", "repo1", "--timeout", "0"), "invalid value for '--timeout'", "guts seed --help"),
    ],
)
def test_slip_of_the_keyboard_is_told_in_two_lines(
    guts: Guts, arguments: tuple[str, ...], says: str, hint: str
) -> None:
    ran = guts(*arguments)

    assert ran.status == ExitStatus.USAGE
    assert ran.out == ""
    error, hinted = ran.err.splitlines()
    assert error.startswith(f"error: {says}")
    assert hinted == f"hint: {hint}"


def test_error_is_one_json_object_when_asked_for(guts: Guts) -> None:
    ran = guts("node", "status", "--json")

    assert ran.status == ExitStatus.NODE_DOWN
    assert ran.error["code"] == "NODE_DOWN"
    assert ran.error["hint"] == "guts node start"
    assert ran.error["exit_status"] == ExitStatus.NODE_DOWN
    assert guts("seed", "--json", "node1x").error["code"] == "BAD_ID"
    assert guts("sed", "--json").error["code"] == "USAGE"


def test_bad_config_ends_with_its_own_status(guts: Guts) -> None:
    guts.home.mkdir()
    guts.paths.config_file.write_text("[network]\nlisten_adr = 'x'\n")
    ran = guts("node", "start")

    assert ran.status == ExitStatus.CONFIG
    assert ran.err.splitlines()[1] == "hint: did you mean network.listen_addr?"


def test_home_and_config_are_options_too(guts: Guts, tmp_path: object) -> None:
    ran = guts("--home", f"{tmp_path}/other", "node", "status")
    assert f"{tmp_path}/other/run/control.sock" in ran.err
    assert "there is no config file" in guts("--config", f"{tmp_path}/none.toml", "node", "start").err


@pytest.mark.parametrize("arguments", [(), ("node",), ("cluster",)])
def test_group_without_a_command_shows_its_help(guts: Guts, arguments: tuple[str, ...]) -> None:
    ran = guts(*arguments)

    assert (ran.status, ran.out) == (ExitStatus.USAGE, "")
    assert ran.err.startswith(f"Usage: {' '.join(('guts', *arguments))} [OPTIONS] COMMAND")
    assert "error" not in ran.err


@pytest.mark.parametrize("name", ["cluster", "dht", "id", "node", "peer"])
def test_line_that_help_has_for_a_subcommand_is_whole(guts: Guts, name: str) -> None:
    assert "..." not in guts(name, "--help").out.partition("Commands:")[2]


def test_bad_flag_is_told_by_the_setting(guts: Guts) -> None:
    ran = guts("node", "start", "--listen", "localhost:9000")

    assert ran.status == ExitStatus.CONFIG
    assert ran.err.startswith("error: network.listen_addr in the command line: 'localhost:9000'")


@pytest.mark.parametrize(
    "arguments",
    [
        ("node", "start"),
        ("cluster", "up", "2", "--dir", "{place}/cluster"),
        ("clone", f"guts://{REPOSITORY}", "{place}/copy"),
    ],
)
def test_place_that_takes_no_files_is_an_error_in_one_line(guts: Guts, arguments: tuple[str, ...]) -> None:
    guts.home.mkdir()
    place = guts.home / "state"
    place.touch()
    ran = guts(*[argument.format(place=place) for argument in arguments], "--json")

    assert (ran.status, ran.error["code"]) == (ExitStatus.FAILED, "DISK")
    assert str(place) in str(ran.error["message"])
