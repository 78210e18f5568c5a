"""docs/commands.md against the code: every code, exit status, setting and command, and none that is gone."""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click

import guts
from guts.api.errors import ReportedError
from guts.cli.root import COMMANDS, root
from guts.config import LogConfig, NetworkConfig, SeedingConfig, StorageConfig
from guts.errors import ExitStatus, GutsError, PeerFault
from guts.limits import LIMITS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def section(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def descendants(kind: type[GutsError]) -> Iterator[type[GutsError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def test_every_error_code_is_in_the_docs_with_its_exit_status() -> None:
    for module in pkgutil.walk_packages(guts.__path__, "guts."):
        if "_migrations" not in module.name and module.name != "guts.__main__":
            importlib.import_module(module.name)
    expected: dict[str, set[int]] = {}
    for error in descendants(GutsError):
        if error.__module__.startswith("guts.") and not issubclass(error, PeerFault | ReportedError):
            expected.setdefault(error.code, set()).add(int(error.exit_status))
    expected["FAILED"] = {int(ExitStatus.FAILED)}

    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([\d, ]+) \|", section("Error codes"), re.MULTILINE)
    assert {code: {int(status) for status in statuses.split(",")} for code, statuses in rows} == expected
    assert [code for code, _ in rows] == sorted(expected)


def test_every_exit_status_is_in_the_docs() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", section("Exit statuses"), re.MULTILINE)
    assert {name: int(number) for number, name in rows} == {status.name: int(status) for status in ExitStatus}


def test_every_setting_is_in_the_docs() -> None:
    sections = {
        "network": NetworkConfig,
        "seeding": SeedingConfig,
        "storage": StorageConfig,
        "log": LogConfig,
    }
    expected = {f"{name}.{field.name}" for name, config in sections.items() for field in dataclasses.fields(config)}
    expected |= {f"limits.{name}" for name in LIMITS}
    assert set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", section("Settings"), re.MULTILINE)) == expected


def test_limits_in_the_docs_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `limits\.([a-z_]+)` \| `([^`]+)` \| (.+) \|$", section("Settings"), re.MULTILINE)
    assert rows == [(name, limit.example, limit.why) for name, limit in LIMITS.items()]


def test_every_command_and_its_own_options_are_in_the_docs() -> None:
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        subcommands = command.commands if isinstance(command, click.Group) else {"": command}
        for subname in subcommands:
            words = f"guts {name} {subname}".strip()
            assert words in DOCUMENT or f"`{subname}" in DOCUMENT, words
