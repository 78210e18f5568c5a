"""``guts node``: run, start, stop, status."""

import sys
from collections.abc import Callable, Mapping

import click

from guts.cli.answer import Answer
from guts.cli.seeding import free_text
from guts.cli.session import Session, emit, json_option, pass_session, say, span_text, timeout_option
from guts.errors import ExitStatus


@click.group()
def node() -> None:
    """Run, start, stop and look at this node."""


_FLAGS: Mapping[str, str] = {
    "listen": "network.listen_addr",
    "bootstrap": "network.bootstrap_nodes",
    "advertise": "network.advertise",
    "role": "network.role",
    "network_name": "network.network_name",
    "log_level": "log.level",
}


def _node_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the settings that are also flags."""
    for option in (
        click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What to log; default: info."
        ),
        click.option("--network-name", metavar="NAME", help="Talk to nodes of this network only."),
        click.option("--role", type=click.Choice(["node", "bootstrap"]), help="bootstrap: a door, no repos."),
        click.option("--advertise", multiple=True, metavar="IP:PORT", help="Address to tell others."),
        click.option(
            "--bootstrap", multiple=True, metavar="[ID@]HOST:PORT", help="Begin with this node where no other is known."
        ),
        click.option("--listen", metavar="IP:PORT", help="TCP and UDP; port 0 takes a free one."),
    ):
        command = option(command)
    return command


def _settings(options: Mapping[str, object]) -> dict[str, str]:
    """Return the given flags as settings, by dotted name."""
    settings = {}
    for option, key in _FLAGS.items():
        value = options[option]
        if isinstance(value, tuple) and value:
            settings[key] = ",".join(value)
        elif isinstance(value, str):
            settings[key] = value
    return settings


@node.command()
@_node_options
@json_option
@pass_session
def run(session: Session, /, as_json: bool, **options: object) -> None:
    """Run the node in the foreground until it is told to stop."""
    import asyncio
    import logging

    from guts.app import run_node

    config = session.config(_settings(options))
    logging.basicConfig(
        stream=sys.stderr,
        level=config.log.level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )

    # It tells of every start what only a migration is worth telling.
    logging.getLogger("alembic").setLevel(logging.WARNING)

    def ready(status: Mapping[str, object]) -> None:
        emit(as_json, status, _status_lines(Answer(status)))

    asyncio.run(run_node(config, ready=ready))


@node.command()
@_node_options
@timeout_option(60)
@json_option
@pass_session
def start(session: Session, /, as_json: bool, timeout: float, **options: object) -> None:
    """Start the node in the background; it is fine if it runs already."""
    from guts.cli import daemon

    settings = _settings(options)
    session.config(settings)
    status = daemon.running(session.paths)
    if status is not None:
        say("the node runs already")
        if settings:
            say("hint: what it runs with stays as it is until guts node stop")
    else:
        flags = []
        for option, key in _FLAGS.items():
            if key in settings:
                flags += [f"--{option.replace('_', '-')}", settings[key]]
        status = daemon.wait_ready(daemon.spawn(session.environ, flags), timeout)
    emit(as_json, status.json, _status_lines(status))


@node.command()
@timeout_option(30)
@json_option
@pass_session
def stop(session: Session, as_json: bool, timeout: float) -> None:
    """Stop the node and wait until it is gone; it is fine if none runs."""
    from guts.cli import daemon

    stopped = daemon.stop(session.paths, timeout)
    emit(as_json, {"stopped": stopped}, "stopped" if stopped else "no node was running")


@node.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> int:
    """Show the running node; exit status 3 where none runs."""
    answer = Answer.of(session.client().get("/v1/status"))
    emit(as_json, answer.json, _status_lines(answer))
    return ExitStatus.OK


def _status_lines(status: Answer) -> list[str]:
    peers = status.object("peers")
    rows = [
        ("node", status.text("id")),
        ("network", f"{status.text('network')}  ({status.text('role')})"),
        ("listening", ", ".join(status.texts("listen"))),
        (
            "peers",
            f"{peers.number('outbound', 0)} outbound, {peers.number('inbound', 0)} inbound, "
            f"{status.number('dht_contacts', 0)} in the DHT table",
        ),
        ("repositories", str(status.number("repositories", 0))),
        ("free", free_text(status.object("disk"))),
        ("running", f"{span_text(status.seconds('uptime_s', 0.0))}  (pid {status.number('pid')})"),
        ("data", status.text("data")),
        ("version", status.text("version")),
    ]
    if (suspended := status.object("bans_suspended")).json:
        clock, since = suspended.text("sign") == "clock", span_text(suspended.seconds("since_s", 0.0))
        seems = f"{suspended.number('faulty', 0)} of {suspended.number('of', 0)} peers that it dialled seem faulty"
        why = "its clock is not theirs" if clock else f"{seems}: its disk, clock or version may be wrong"
        rows.append(("bans", f"suspended since {since}: {why}"))
    return [f"{name:<13} {value}" for name, value in rows]
