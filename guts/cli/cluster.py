"""``guts cluster``: up, ls, status, env, logs, kill, start, down."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from guts.cli.session import Session, count_text, emit, json_option, pass_session, say, table

if TYPE_CHECKING:  # brings PyNaCl along
    from guts.cli.answer import Answer
    from guts.cli.local_cluster import LocalCluster, Member

F = TypeVar("F", bound=Callable[..., object])

DEFAULT_FOLDER = Path(".guts-cluster")
DEFAULT_COUNT = 4


def _dir_option(command: F) -> F:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_FOLDER,
        show_default=True,
        help="Where the cluster lives.",
    )(command)


@click.group()
def cluster() -> None:
    """Run a network of nodes on this machine: plain processes on loopback.

    Node 1 is the door to the network and holds no repository; publish and seed on the others.
    """


@cluster.command()
@click.argument("count", type=int, required=False, metavar="[N]")
@_dir_option
@json_option
@pass_session
def up(session: Session, as_json: bool, folder: Path, count: int | None) -> None:
    """Make and start N nodes.

    N is 4 where it is not given. Of an existing cluster, all that are down are started.
    """
    import time

    from guts.cli.local_cluster import BadCluster, LocalCluster, NoCluster

    begun = time.monotonic()
    try:
        local = LocalCluster.load(folder.absolute())
    except NoCluster:
        local = LocalCluster.create(folder.absolute(), DEFAULT_COUNT if count is None else count)
    if count not in (None, len(local.members)):
        raise BadCluster(
            f"the cluster in {folder} has {len(local.members)} nodes, not {count}",
            hint="guts cluster up, or guts cluster down --wipe first",
        )
    local.start()
    seconds = time.monotonic() - begun
    emit(
        as_json,
        {"nodes": [_member_json(member) for member in local.members], "seconds": round(seconds, 3)},
        [
            *_member_table(local.members),
            f'{len(local.members)} nodes ready in {seconds:.1f} s; eval "$(guts cluster env 2)" speaks to node 2',
        ],
    )


@cluster.command()
@_dir_option
@json_option
@pass_session
def ls(session: Session, as_json: bool, folder: Path) -> None:
    """List the nodes, their ports and processes."""
    local = _load(folder)
    emit(as_json, [_member_json(member) for member in local.members], _member_table(local.members))


@cluster.command()
@_dir_option
@json_option
@pass_session
def status(session: Session, as_json: bool, folder: Path) -> None:
    """Ask every node for its status."""
    from guts.cli import daemon
    from guts.config import Paths

    local = _load(folder)
    rows = []
    value: list[dict[str, object]] = []
    for member in local.members:
        answer = daemon.running(Paths.from_environ(member.environ({}))) if member.running else None
        value.append({**_member_json(member), "status": dict(answer.json) if answer else None})
        rows.append((str(member.index), *_status_cells(answer)))
    emit(as_json, value, table(("NODE", "STATE", "PEERS", "DHT", "REPOS"), rows))


@cluster.command()
@click.argument("index", type=int, default=2, metavar="[I]")
@_dir_option
@json_option
@pass_session
def env(session: Session, as_json: bool, folder: Path, index: int) -> None:
    """Print what makes commands speak to node I.

    I is 2 where it is not given. Use it as eval "$(guts cluster env 2)".
    """
    home = str(_load(folder).member(index).home)
    emit(as_json, {"GUTS_HOME": home}, f"export GUTS_HOME={shlex.quote(home)}")


@cluster.command()
@click.argument("index", type=int, metavar="I")
@click.option("-n", "count", type=click.IntRange(min=1), default=50, show_default=True, help="Lines.")
@_dir_option
@json_option
@pass_session
def logs(session: Session, as_json: bool, folder: Path, index: int, count: int) -> None:
    """Print the end of node I's log."""
    from collections import deque

    from guts.config import Paths

    path = Paths.from_environ(_load(folder).member(index).environ({})).log_file
    lines: deque[str] = deque(maxlen=count)
    if path.exists():
        with path.open(errors="replace") as log:
            lines.extend(line.rstrip("\n") for line in log)
    emit(as_json, {"path": str(path), "lines": list(lines)}, lines)


@cluster.command()
@click.argument("index", type=int, metavar="I")
@_dir_option
@json_option
@pass_session
def kill(session: Session, as_json: bool, folder: Path, index: int) -> None:
    """Kill node I at once, as a crash would."""
    killed = _load(folder).kill(index)
    emit(as_json, {"killed": killed}, f"killed node {index}" if killed else f"node {index} was not running")


@cluster.command()
@click.argument("index", type=int, metavar="I")
@_dir_option
@json_option
@pass_session
def start(session: Session, as_json: bool, folder: Path, index: int) -> None:
    """Start node I again, with its keys, data and ports."""
    local = _load(folder)
    started = index in local.start(local.member(index).index)
    if not started:
        say(f"node {index} runs already")
    emit(as_json, _member_json(local.member(index)), _member_table([local.member(index)]))


@cluster.command()
@click.option("--wipe", is_flag=True, help="Remove the folder with keys and repositories too.")
@_dir_option
@json_option
@pass_session
def down(session: Session, as_json: bool, folder: Path, wipe: bool) -> None:
    """Stop all nodes; their data stays for the next `up`, unless --wipe."""
    local = _load(folder)
    stopped = local.stop()
    if wipe:
        local.wipe()
        if Path(session.environ.get("GUTS_HOME", "")).is_relative_to(folder.absolute()):
            say("hint: unset GUTS_HOME")
    emit(
        as_json,
        {"stopped": stopped, "wiped": wipe},
        f"stopped {count_text(stopped, 'node')}{', wiped' if wipe else ''}",
    )


def _load(folder: Path) -> "LocalCluster":
    from guts.cli.local_cluster import LocalCluster

    return LocalCluster.load(folder.absolute())


def _member_json(member: "Member") -> dict[str, object]:
    return {
        "index": member.index,
        "id": member.node_id,
        "address": member.address,
        "home": str(member.home),
        "pid": process.pid if (process := member.process) else None,
    }


def _member_table(members: "list[Member]") -> list[str]:
    rows = [
        (
            f"{member.index}{' (door)' if member.index == 1 else ''}",
            str(process.pid) if (process := member.process) else "down",
            str(member.port),
            member.node_id[:12] + "…",
            str(member.home),
        )
        for member in members
    ]
    return table(("NODE", "PID", "PORT", "ID", "HOME"), rows)


def _status_cells(answer: "Answer | None") -> tuple[str, str, str, str]:
    if answer is None:
        return ("down", "-", "-", "-")
    peers = answer.object("peers")
    return (
        "up",
        str(peers.number("inbound", 0) + peers.number("outbound", 0)),
        str(answer.number("dht_contacts", 0)),
        str(answer.number("repositories", 0)),
    )
