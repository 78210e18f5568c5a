"""Commands that ask a node: what they send, what they print, and how bad input is named."""

import json
import stat
from pathlib import Path

import pytest

from guts.addresses import BootstrapAddress
from guts.cli.client import ControlClient
from guts.cli.root import INTERRUPTED
from guts.errors import ExitStatus
from guts.ids import PeerId
from tests.support.scripted_control import NODE, REPOSITORY, ScriptedControl
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, MAIN, chain, oid, publish


def test_status_shows_the_node(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("node", "status")

    assert ran.status == 0
    assert f"node          {NODE}" in ran.out
    assert "2 outbound, 1 inbound, 7 in the DHT table" in ran.out
    assert "1h 1m" in ran.out
    assert guts("node", "status", "--json").json == json.loads(guts("node", "status", "--json").out)


def test_start_leaves_a_running_node_alone(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("node", "start")

    assert ran.status == 0
    assert ran.err == "the node runs already\n"
    assert NODE in ran.out
    assert "stays as it is until guts node stop" in guts("node", "start", "--listen", "127.0.0.1:7").err


def test_stop_is_fine_where_nothing_runs(guts: Guts) -> None:
    ran = guts("node", "stop", "--json")
    assert (ran.status, ran.json) == (0, {"stopped": False})


def test_seed_sends_the_address_that_a_url_carries(guts: Guts, control: ScriptedControl) -> None:
    url = f"guts://10.0.0.1:9000/{REPOSITORY}/tool"
    ran = guts("seed", url, "--from", f"{NODE}@10.0.0.2:9", "--timeout", "7")

    hints = (BootstrapAddress.parse(f"{NODE}@10.0.0.2:9"), BootstrapAddress("10.0.0.1", 9000))
    assert control.calls == [("seed", REPOSITORY, hints, 7.0)]
    assert ran.status == ExitStatus.NOT_FOUND
    assert ran.err == "error: no replica found\nhint: is the id right?\n"


def test_seed_that_is_interrupted_says_that_the_node_goes_on(
    guts: Guts, control: ScriptedControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlClient, "send", interrupted)
    ran = guts("seed", REPOSITORY)

    assert ran.status == INTERRUPTED
    assert f"the node goes on with it; guts unseed {REPOSITORY} ends that" in ran.err


def test_unseed_and_sync_name_what_they_did(guts: Guts, control: ScriptedControl) -> None:
    fate = f"it is removed from the disk in 1d 0h (at once: guts unseed {REPOSITORY} --now)"
    assert guts("unseed", REPOSITORY).out == f"no longer seeding {REPOSITORY}; {fate}\n"
    assert guts("unseed", REPOSITORY, "--now").out == f"no longer seeding {REPOSITORY}; removed from the disk\n"
    assert guts("sync", REPOSITORY).out == f"{REPOSITORY}  synced in 0.10 s\n"


def test_sync_of_all_says_of_each_why_it_failed(guts: Guts, control: ScriptedControl) -> None:
    chains = [chain(ALICE, name=name) for name in ("one", "two")]
    one, two = (known.repository for known in chains)
    for known in chains:
        control.chains[known.repository] = known
        control.records[known.repository] = publish(known, ALICE, None, {MAIN: oid(1)})
    assert guts("sync").status == 0
    control.alone = {one}
    ran = guts("sync")
    assert ran.status == ExitStatus.FAILED
    assert ran.out.splitlines() == [
        f"{one}  no replica found",
        "  hint: is the id right?",
        f"{two}  synced in 0.10 s",
    ]
    failed = {
        "repository": str(one),
        "error": "NO_PROVIDERS",
        "message": "no replica found",
        "hint": "is the id right?",
    }
    assert guts("sync", "--json").json == {"repositories": [failed, {"repository": str(two), "seconds": 0.1}]}
    assert guts("sync", one, "--json").error["code"] == "NO_PROVIDERS"


@pytest.mark.parametrize("command", ["seed", "unseed", "sync", "inspect"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (str(REPOSITORY)[:-1] + "q", "mistyped or cut short"),
        (str(REPOSITORY)[:11], "mistyped or cut short"),
        (str(REPOSITORY)[:-2] + "q", "begins no id that this node knows"),
        (str(PeerId(bytes(32))), "is a node id; a repository id (repo1…) is needed here"),
        ("https://example.org/x", "not a guts:// URL"),
        (str(REPOSITORY)[:20] + "b" + str(REPOSITORY)[21:], "has 'b' at position 21"),
    ],
)
def test_mistyped_id_and_id_of_the_wrong_kind_are_told_apart(
    guts: Guts, control: ScriptedControl, command: str, text: str, says: str
) -> None:
    ran = guts(command, text)

    assert ran.status == ExitStatus.USAGE
    assert says in ran.err
    assert control.calls == []


def test_unknown_repository_is_not_found(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("inspect", REPOSITORY, "--json")

    assert ran.status == ExitStatus.NOT_FOUND
    assert ran.error["code"] == "NOT_FOUND"
    assert ran.error["details"] == {"repository": str(REPOSITORY)}


def test_objects_that_are_not_counted_yet_are_not_said_to_be_none(guts: Guts, control: ScriptedControl) -> None:
    known = chain(ALICE)
    control.chains[known.repository] = known
    control.records[known.repository] = publish(known, ALICE, None, {MAIN: oid(1)})
    assert "objects       2 commits, 1 trees" in guts("inspect", known.repository).out.splitlines()
    control.objects = {}
    assert "objects       not counted yet" in guts("inspect", known.repository).out.splitlines()
    control.records[known.repository] = publish(known, ALICE, None, {})
    assert "objects       none" in guts("inspect", known.repository).out.splitlines()


def test_empty_lists_say_what_comes_next(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("ls")
    assert (ran.status, ran.out) == (0, "")
    assert "guts publish" in ran.err
    assert guts("ls", "--json").json == []


def test_peers_are_listed(guts: Guts, control: ScriptedControl) -> None:
    lines = guts("peer", "ls").out.splitlines()

    assert lines[0].split() == [
        "PEER",
        "ADDRESS",
        "DIRECTION",
        "STATE",
        "SINCE",
        "RTT",
        "REPOS",
        "SCORE",
        "GREY/BANNED",
    ]
    assert lines[1].split() == [
        *(NODE[:12] + "…", "127.0.0.1:9001", "outbound", "connected", "1m", "1s", "0.4", "ms", "1", "0", "-"),
    ]
    assert len(lines) == 3


def test_peer_connect_checks_the_address_before_it_asks(guts: Guts, control: ScriptedControl) -> None:
    assert guts("peer", "connect", "127.0.0.1:9001").out == f"connected to {NODE} in 0.01 s\n"
    ran = guts("peer", "connect", "127.0.0.1")
    assert ran.status == ExitStatus.USAGE
    assert "host:port" in ran.err
    assert len(control.calls) == 1


def test_dht_that_knows_nobody_is_not_found(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("dht", "find-repo", REPOSITORY)

    assert ran.status == ExitStatus.NOT_FOUND
    assert ran.out == "0 providers; asked 3 nodes, 1 hop, 0.02 s\n"


def test_clone_leaves_what_is_in_its_way(guts: Guts, tmp_path: Path) -> None:
    target = tmp_path / "tool"
    target.mkdir()
    (target / "mine").write_text("precious")
    ran = guts("clone", f"guts://{REPOSITORY}", target, "--json")

    assert ran.status == ExitStatus.USAGE
    assert ran.error["code"] == "TARGET_EXISTS"
    assert (target / "mine").read_text() == "precious"


def test_ids_are_made_once_and_shown(guts: Guts) -> None:
    assert guts("id", "show", "--json").json == {"author": None, "node": None}
    author = guts("id", "new").out.strip()
    node = guts("id", "new", "--node").out.strip()

    assert author.startswith("auth1")
    assert node.startswith("node1")
    assert guts("id", "show").out == f"author  {author}\nnode    {node}\n"
    assert stat.S_IMODE(guts.paths.author_key.stat().st_mode) == 0o600
    again = guts("id", "new", "--json")
    assert (again.status, again.error["code"]) == (ExitStatus.REFUSED, "KEY_EXISTS")


def test_key_moves_by_a_sealed_export(guts: Guts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = guts("id", "new").out.strip()
    secret = tmp_path / "passphrase"
    secret.write_text("moving\n")
    monkeypatch.setenv("GUTS_PASSPHRASE_FILE", str(secret))
    export = tmp_path / "export.key"

    assert guts("id", "export", export).out.strip() == author
    assert guts("id", "export", export).status == ExitStatus.REFUSED
    assert "sealed: " in guts("id", "export").out
    assert guts("id", "import", export).status == ExitStatus.REFUSED
    guts.paths.author_key.unlink()
    assert guts("id", "import", export).out.strip() == author
    assert guts("id", "show").out.startswith(f"author  {author}  (passphrase)\n")

    secret.write_text("wrong\n")
    guts.paths.author_key.unlink()
    refused = guts("id", "import", export, "--json")
    assert refused.error["code"] == "WRONG_PASSPHRASE"
    assert not guts.paths.author_key.exists()


def test_passphrase_is_not_asked_of_nobody(guts: Guts, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        ran = guts("id", "new", "--passphrase", "--json")
    assert ran.error["code"] == "KEY_LOCKED"
    assert not guts.paths.author_key.exists()


@pytest.mark.parametrize(
    "command", [("inspect",), ("maintainers", "ls"), ("identity", "show"), ("sync",), ("dht", "find-repo")]
)
def test_folder_names_the_repository_that_was_published_from_it(
    guts: Guts,
    control: ScriptedControl,
    repository: str,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    told = guts(*command, repository, "--json").json
    assert guts(*command, work, "--json").json == told
    monkeypatch.chdir(work)
    assert guts(*command, ".", "--json").json == told


def test_folder_that_is_no_repository_is_told_with_what_helps(
    guts: Guts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (("maintainers", "ls"), ("identity", "show"), ("inspect", tmp_path)):
        ran = guts(*command, "--json")
        assert ran.error["code"] == "NOT_A_GIT_DIRECTORY"
        words = " ".join(str(word) for word in command if word != tmp_path)
        assert ran.error["hint"] == f"from anywhere: guts {words} repo1…; guts ls lists them"


@pytest.mark.parametrize("text", ["no-such-folder", "x" * 5000])
def test_text_that_names_nothing_is_told_what_names_a_repository(guts: Guts, text: str) -> None:
    for command in (("inspect",), ("identity", "show")):
        ran = guts(*command, text, "--json")
        assert (ran.status, ran.error["code"]) == (ExitStatus.USAGE, "BAD_ID")
        assert "or the folder that it was published from" in str(ran.error["hint"])


def test_node_that_is_down_is_told_in_one_way(guts: Guts) -> None:
    texts = []
    for _ in range(2):
        texts.append(guts("ls").err)
        guts.paths.control_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert "(there is no such socket)" in texts[0]
    assert texts[0] == texts[1]
