"""``guts clone``: a working clone, verified, with or without a running node."""

from pathlib import Path
from typing import ClassVar

import click

from guts.addresses import RepositoryUrl
from guts.cli.answer import Answer
from guts.cli.session import Session, emit, json_option, pass_session
from guts.errors import UsageError


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

    Without a running node a throw-away one does it.
    """
    import asyncio

    from guts.app import clone as clone_repository

    parsed = RepositoryUrl.parse(url)
    target = (directory or Path(parsed.name or parsed.repository.short)).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TargetTaken(f"{target} exists and is not an empty folder", hint=f"guts clone {url} OTHER-FOLDER")
    answer = Answer.of(asyncio.run(clone_repository(session.config(), parsed, target)))
    emit(as_json, answer.json, str(target))
