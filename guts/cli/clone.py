"""``guts clone``: a working clone, verified, with or without a running node."""

from pathlib import Path
from typing import ClassVar

import click

from guts.addresses import Address, BootstrapAddress, RepositoryUrl
from guts.cli import daemon
from guts.cli.answer import Answer
from guts.cli.session import Session, emit, json_option, pass_session
from guts.cli.waiting import waiting
from guts.errors import UsageError
from guts.ids import PeerId


class TargetTaken(UsageError):
    """There is something already where the clone should go."""

    code: ClassVar[str] = "TARGET_EXISTS"


@click.command()
@click.argument("url", metavar="guts://[HOST:PORT/]REPOSITORY[/NAME]")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), required=False)
@json_option
@pass_session
def clone(session: Session, as_json: bool, url: str, directory: Path | None) -> None:
    """Make a working clone, every ref checked against its maintainer's signature.

    A throw-away node does it; a running node of yours is asked first, and shows it the way.
    """
    import asyncio
    import logging

    from guts.app import clone as clone_repository

    parsed = RepositoryUrl.parse(url)
    target = (directory or Path(parsed.name or parsed.repository.short)).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TargetTaken(f"{target} exists and is not an empty folder", hint=f"guts clone {url} OTHER-FOLDER")
    status = daemon.running(session.paths)
    flags = {"network.network_name": status.text("network")} if status is not None else {}
    near = _address_of(status) if status is not None else None
    # The throw-away node's errors arrive as exceptions; nobody needs its log as well.
    logging.getLogger("guts").addHandler(logging.NullHandler())
    with waiting(lambda: f"cloning {parsed.repository.short}…"):
        answer = Answer.of(asyncio.run(clone_repository(session.config(flags), parsed, target, near=near)))
    emit(as_json, answer.json, str(target))


def _address_of(status: Answer) -> BootstrapAddress:
    """Return where the running node can be called from this machine."""
    address = Address.parse(status.texts("listen")[0])
    # "Every interface" is where it listens, not where it can be called.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.ip, address.ip)  # noqa: S104
    return BootstrapAddress(host, address.port, PeerId.parse(status.text("id")))
