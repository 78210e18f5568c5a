"""What the commands about seeding send and print."""

import math

import pytest

from guts.cli.answer import Answer
from guts.cli.seeding import MAX_SHOWN
from guts.errors import ExitStatus
from guts.events import WantedBan
from guts.ids import AuthorId, PeerId
from tests.support.scripted_control import REPOSITORY, ScriptedControl
from tests.unit.cli.conftest import Guts
from tests.unit.trust.world import ALICE, chain

AUTHOR = AuthorId(bytes(range(1, 33)))
NODE = PeerId(bytes(range(2, 34)))


def test_dry_run_shows_a_claim_as_a_claim(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("seed", "--dry-run", REPOSITORY)
    assert ran.status == ExitStatus.OK
    assert ran.out.splitlines() == [
        f"repository    {REPOSITORY}",
        "size          3.0 MiB, as 2 of its holders say: nobody has checked that",
        "free          10.0 MiB now, 7.0 MiB after",
        "seeded        1.0 MiB now, 4.0 MiB after, of 50.0 GiB that seeding.disk allows",
        "allowed       yes",
    ]
    assert control.calls == [("dry_run", REPOSITORY, (), 600.0, 0)]


def test_dry_run_of_what_no_quota_allows_exits_with_the_quota(guts: Guts, control: ScriptedControl) -> None:
    control.disk_bytes = 1
    ran = guts("seed", "--dry-run", REPOSITORY)
    assert ran.status == ExitStatus.QUOTA
    assert ran.out.splitlines()[-2:] == ["allowed       no: it takes too much", "hint: more disk"]
    assert Answer.of(guts("seed", "--dry-run", "--json", REPOSITORY).json).json["allowed"] is False


LEFT = [
    "free          10.0 MiB now, 13.0 MiB after",
    "seeded        4.0 MiB now, 1.0 MiB after, of 50.0 GiB that seeding.disk allows",
]


@pytest.mark.parametrize(
    ("command", "call", "told"),
    [
        (
            ["unseed", str(REPOSITORY)],
            ("unseed", REPOSITORY, False, "dry"),
            f"would go      {REPOSITORY}, 3.0 MiB, in 1d 0h",
        ),
        (
            ["unseed", "--now", str(REPOSITORY)],
            ("unseed", REPOSITORY, True, "dry"),
            f"would go      {REPOSITORY}, 3.0 MiB, at once",
        ),
        (["block", str(AUTHOR)], ("block", AUTHOR, False, "dry"), f"would go      {REPOSITORY}, 3.0 MiB, in 1m 0s"),
        (
            ["block", "--purge", str(AUTHOR)],
            ("block", AUTHOR, True, "dry"),
            f"would go      {REPOSITORY}, 3.0 MiB, at once",
        ),
        (["unblock", str(REPOSITORY)], ("unblock", REPOSITORY, "dry"), f"may come back {REPOSITORY}"),
        (
            ["follow", str(AUTHOR)],
            ("follow", AUTHOR, "dry"),
            f"would come    repositories of {AUTHOR} are met as they come: their size is not known before",
        ),
        (
            ["seed", str(AUTHOR)],
            ("follow", AUTHOR, "dry"),
            f"would come    repositories of {AUTHOR} are met as they come: their size is not known before",
        ),
    ],
)
def test_dry_run_tells_what_would_go_or_come_and_what_would_be_left(
    guts: Guts, control: ScriptedControl, command: list[str], call: tuple[object, ...], told: str
) -> None:
    ran = guts(*command, "--dry-run")
    assert ran.status == ExitStatus.OK, ran.err
    assert ran.out.splitlines() == [told, *LEFT]
    assert control.calls == [call]
    assert Answer.of(guts(*command, "--dry-run", "--json").json).number("free_after_bytes") == 13 << 20


@pytest.mark.parametrize("command", ["block", "unblock"])
def test_dry_run_about_a_node_says_that_nothing_of_it_is_here(
    guts: Guts, control: ScriptedControl, command: str
) -> None:
    ran = guts(command, "--dry-run", str(NODE))
    assert (ran.status, control.calls) == (ExitStatus.USAGE, [])
    assert "is a node, of which nothing is here" in ran.err


def test_seed_says_whether_anything_was_copied(guts: Guts, control: ScriptedControl) -> None:
    control.chains[REPOSITORY] = chain(ALICE)
    assert guts("seed", REPOSITORY).out == f"seeding {REPOSITORY}; copied in 0.25 s\n"
    control.held.add(REPOSITORY)
    assert guts("seed", REPOSITORY).out == f"seeding {REPOSITORY}; it is here already\n"


def test_seed_of_an_author_follows(guts: Guts, control: ScriptedControl) -> None:
    assert guts("seed", str(AUTHOR)).out.startswith(f"following {AUTHOR}: repositories of that maintainer are seeded")
    assert control.calls == [("follow", AUTHOR)]
    assert f"hint: guts unfollow {AUTHOR}" in guts("unseed", str(AUTHOR)).err
    assert guts("follow", str(AUTHOR)).out.startswith(f"following {AUTHOR}, as before: ")
    assert guts("follow", str(AUTHOR), "--json").json == {"author": str(AUTHOR), "new": False}
    assert guts("unfollow", str(AUTHOR)).out.splitlines() == [
        f"no longer following {AUTHOR}",
        f"  {REPOSITORY}  no longer seeded",
    ]


@pytest.mark.parametrize(("command", "helps"), [("follow", "seed"), ("unfollow", "unseed")])
def test_follow_of_a_repository_names_the_command_that_is_meant(guts: Guts, command: str, helps: str) -> None:
    ran = guts(command, REPOSITORY)
    assert ran.status != ExitStatus.OK
    assert f"guts {helps} {REPOSITORY}" in ran.err


def test_seed_of_several_goes_on_where_one_fails(guts: Guts, control: ScriptedControl) -> None:
    ran = guts("seed", REPOSITORY, str(AUTHOR))
    assert ran.status == ExitStatus.NOT_FOUND
    assert ran.out.splitlines()[:2] == [f"{REPOSITORY}  no replica found", "  hint: is the id right?"]
    assert control.calls[-1] == ("follow", AUTHOR)


@pytest.mark.parametrize("who", [REPOSITORY, AUTHOR])
def test_block_says_what_becomes_of_what_is_here(guts: Guts, control: ScriptedControl, who: object) -> None:
    assert guts("block", str(who), "--purge").out.splitlines() == [
        f"blocked {who}",
        f"  {REPOSITORY}  removed from the disk",
    ]
    assert "it is removed from the disk in 1m" in guts("block", str(who)).out
    assert control.calls == [("block", who, True), ("block", who, False)]
    assert guts("unblock", str(who)).out == f"{who} was not blocked\n"


def test_block_of_a_node_is_a_ban_without_end(guts: Guts, control: ScriptedControl) -> None:
    assert guts("block", str(NODE)).out == f"blocked {NODE}\n"
    assert control.calls == [("ban", (WantedBan(NODE, math.inf, "guts block"),), False)]
    assert guts("unblock", str(NODE)).out == f"{NODE} was not blocked\n"


def test_seeding_says_why_each_repository_is_here_and_what_the_quotas_hold(
    guts: Guts, control: ScriptedControl
) -> None:
    lines = guts("seeding").out.splitlines()
    assert "topic         on; 2 refused, for there was no place" in lines
    assert "by policy     1 of 9 repositories" in lines
    assert "free          1 B, where 2 B are to stay free: LOW, nothing is fetched until there is more" in lines
    control.taken = 9
    full = "by policy     9 of 9 repositories: FULL, no more is looked at (seeding.max_repositories)"
    assert full in guts("seeding").out.splitlines()
    assert any(line.endswith("announced by anybody (seeding.repositories = true)") for line in lines)
    assert Answer.of(guts("seeding", "--json").json).number("taken") == 9


@pytest.mark.parametrize("more", [0, 1])
def test_seeding_shows_so_many_refusals_and_counts_the_others(guts: Guts, control: ScriptedControl, more: int) -> None:
    control.refusals = [
        {"repository": str(REPOSITORY), "reason": "topic", "owners": [], "error": "QUOTA", "message": "it takes much"}
        | {"hint": None, "at_ms": 1}
    ] * (MAX_SHOWN + more)
    lines = guts("seeding").out.splitlines()
    assert lines.count("  it takes much") == MAX_SHOWN
    assert (lines[-1] == "and 1 more: guts seeding --json") is bool(more)


def test_what_is_lost_is_told_with_what_helps(guts: Guts, control: ScriptedControl) -> None:
    assert "LOST" not in guts("seeding").out
    control.lost = True
    assert "LOST, its folder is gone or damaged: guts seed fetches it again" in guts("seeding").out
