"""``guts limits``: what is shown, what is sent, and what is refused before anything is."""

import click
import pytest

from guts.api.requests import Json
from guts.cli.completing import limit_settings
from guts.errors import ExitStatus
from tests.support.scripted_control import ScriptedControl, limit_row
from tests.unit.cli.conftest import Guts


def test_limits_are_listed_with_their_use(guts: Guts, control: ScriptedControl) -> None:
    lines = guts("limits", "show").out.splitlines()
    assert lines[0].split() == ["NAME", "VALUE", "UNIT", "FROM", "USED", "PEAK", "BIT", "OF"]
    assert lines[1].split()[:6] == ["gossip_rate", "10", "messages/s", "default", "-", "-"]
    assert lines[2].split()[:10] == ["bytes_burst", "32MiB", "bytes", "limits", "set", "1.0", "MiB", "1.0", "MiB", "3"]
    rows = guts("limits", "show", "--json").json
    assert isinstance(rows, list)
    assert rows[1]["value"] == 32 << 20


def test_limits_are_set_together(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("limits", "set", "serves=7", "gossip_rate=default")
    assert ran.status == ExitStatus.OK
    assert control.calls[0] == ("set_limits", {"serves": "7", "gossip_rate": "default"})
    assert ran.out.splitlines()[1].split()[:2] == ["serves", "7"]
    assert "after a restart" in ran.err


def test_limit_that_is_never_reached_is_told(
    guts: Guts, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def limits() -> list[Json]:
        return [limit_row("git", 8, "default"), limit_row("git_per_peer", 20, "limits set")]

    monkeypatch.setattr(control, "limits", limits)
    for command in (("show",), ("set", "git_per_peer=20")):
        ran = guts("limits", *command)
        assert "hint: limits.git_per_peer (20) is above limits.git (8), which holds as well\n" in ran.err


def test_completion_offers_names_and_what_they_are_by_default() -> None:
    def offered(incomplete: str) -> list[str]:
        command = click.Command("set")
        return [item.value for item in limit_settings(click.Context(command), click.Argument(["x"]), incomplete)]

    assert offered("git") == ["git=", "git_per_peer=", "git_per_network="]
    assert offered("git=") == ["git=8", "git=default"]
    assert offered("nothing=") == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("gosip_rate=1", "did you mean gossip_rate?"),
        ("gossip_rate", "guts limits set gossip_rate=10"),
        ("gossip_rate=", "has no value"),
        ("=1", "no limit ''"),
    ],
)
def test_slips_are_told_before_the_node_is_asked(guts: Guts, control: ScriptedControl, setting: str, says: str) -> None:
    ran = guts("limits", "set", setting)
    assert ran.status == ExitStatus.USAGE
    assert says in ran.err
    ran = guts("limits", "set", setting, "--json")
    assert ran.error["code"] == "BAD_LIMIT"
    assert control.calls == []


def test_limit_that_is_set_twice_is_a_slip(guts: Guts, control: ScriptedControl) -> None:
    assert "twice" in guts("limits", "set", "serves=1", "serves=2").err
    assert control.calls == []
