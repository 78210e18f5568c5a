"""``guts clone``: ``git clone`` of a guts:// URL, also where git does not find ``git-remote-guts`` by itself."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import click

from guts.addresses import RepositoryUrl
from guts.api.errors import ERROR_FILE, ErrorObject, ReportedError
from guts.cli.session import Session, emit, json_option, pass_session
from guts.errors import GutsError, UsageError
from guts.git import users_git


class TargetTaken(UsageError):
    """There is something already where the clone should go."""

    code: ClassVar[str] = "TARGET_EXISTS"


class GitCloneFailed(GutsError):
    """git did not make the clone, for a reason that it told itself."""

    code: ClassVar[str] = "CLONE_FAILED"


@click.command()
@click.argument("url", metavar="guts://[HOST:PORT/]REPOSITORY[/NAME]")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), required=False)
@json_option
@pass_session
def clone(session: Session, as_json: bool, url: str, directory: Path | None) -> None:
    """Make a working clone, every ref checked against its maintainer's signature.

    The same as git clone: by your running node, or by a throw-away one.
    """
    parsed = RepositoryUrl.parse(url)
    target = (directory or Path(parsed.name or parsed.repository.short)).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise TargetTaken(f"{target} exists and is not an empty folder", hint=f"guts clone {url} OTHER-FOLDER")
    target.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="guts-clone-") as scratch:
        error_file = Path(scratch) / "error"
        _git_clone(session.environ, parsed, target, error_file, quiet=as_json)
    refs, head = users_git.contents(target)
    result = {
        "repository": str(parsed.repository),
        "directory": str(target),
        "refs": refs,
        "head": head,
        "seconds": round(time.monotonic() - begun, 3),
    }
    emit(as_json, result, str(target))


def _git_clone(environ: Mapping[str, str], url: RepositoryUrl, target: Path, error_file: Path, *, quiet: bool) -> None:
    """Run ``git clone``; what it and the remote helper say goes to stderr.

    Raises:
        ReportedError: what the remote helper ended in.
        GitCloneFailed: what git ended in.
    """
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), environ.get("PATH"))))
    status = users_git.clone(str(url), target, {**environ, "PATH": path, ERROR_FILE: str(error_file)}, quiet=quiet)
    if status == 0:
        return
    told = ErrorObject.from_json(json.loads(error_file.read_bytes())) if error_file.exists() else None
    if told is not None:
        raise ReportedError(told)
    raise GitCloneFailed(f"git clone ended with status {status}")
