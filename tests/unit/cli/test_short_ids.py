"""Ids that are cut short, as tables show them."""

import pytest

from guts.addresses import parse_subject
from guts.api.requests import Json
from guts.errors import ExitStatus
from guts.ids import AuthorId, PeerId, RepositoryId
from tests.support.scripted_control import NODE, ScriptedControl
from tests.unit.cli.conftest import Guts

ALIKE = [str(PeerId(bytes(range(32)))), str(PeerId(bytes([*range(31), 0])))]
"""Two ids that begin alike."""


@pytest.mark.parametrize("beginning", [NODE[:12], NODE[:12] + "…", NODE[:30], NODE[:-1]])
def test_beginning_of_a_peer_is_taken_for_it(guts: Guts, control: ScriptedControl, beginning: str) -> None:
    assert guts("peer", "show", beginning).status == 0
    assert control.calls == [("peer", PeerId.parse(NODE))]
    assert guts("peer", "ban", beginning).out.startswith(f"banned {NODE} for 24h")
    guts("peer", "unban", beginning)
    assert control.calls[-1] == ("unban", parse_subject(NODE))


def test_beginning_of_a_repository_is_taken_for_it(guts: Guts, control: ScriptedControl, repository: str) -> None:
    for command in (("inspect",), ("maintainers", "ls"), ("sync",), ("dht", "find-repo")):
        whole = guts(*command, repository, "--json")
        assert whole.status == 0
        assert guts(*command, repository[:12] + "…", "--json").json == whole.json


@pytest.mark.parametrize("beginning", [NODE[:11], "node1" + "q" * 7, NODE[:12] + "b"])
def test_what_begins_nothing_is_told_with_where_whole_ids_are(
    guts: Guts, control: ScriptedControl, beginning: str
) -> None:
    ran = guts("peer", "show", beginning, "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "BAD_ID")
    if beginning.endswith("qqqq"):
        assert "begins no id that this node knows" in str(ran.error["message"])
        assert ran.error["hint"] == "guts peer ls --json shows whole ids"
    assert control.calls == []


def test_beginning_of_two_names_both(guts: Guts, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch) -> None:
    async def peers() -> list[Json]:
        return [{"peer": peer, "state": "known"} for peer in ALIKE]

    monkeypatch.setattr(control, "peers", peers)
    ran = guts("peer", "show", NODE[:12], "--json")
    assert ran.error["code"] == "BAD_ID"
    assert all(peer in str(ran.error["message"]) for peer in ALIKE)


def test_without_a_node_it_is_told_that_none_runs(guts: Guts) -> None:
    error = guts("peer", "show", NODE[:12], "--json").error
    assert error["code"] == "BAD_ID"
    assert "no node runs" in str(error["message"])


def test_followed_authors_and_blocked_ids_are_known_by_their_beginnings(
    guts: Guts, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    author, repository = str(AuthorId(bytes(32))), str(RepositoryId(bytes(32)))
    policy = control.policy

    async def told() -> Json:
        return {**await policy(), "owners": [{"author": author}], "blocked": [{"id": repository}]}

    monkeypatch.setattr(control, "policy", told)
    assert author in guts("unfollow", author[:12]).out
    assert repository in guts("unblock", repository[:12]).out
