"""``guts id``: show, new, export, import."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from guts.cli.session import Session, emit, json_option, pass_session, say

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.keystore import KeyKind


@click.group(name="id")
def id_group() -> None:
    """Show, make, export and import keys.

    The node key names this node; the author key signs your repositories. Neither is ever overwritten.
    """


_which = click.option("--node/--author", "is_node", default=False, help="The node key, or (default) your author key.")


@id_group.command()
@json_option
@pass_session
def show(session: Session, as_json: bool) -> None:
    """Show the ids of this user's keys; no passphrase is needed."""
    from guts.keystore import KeyKind, NoKey, read_key_file

    value: dict[str, object] = {}
    lines = []
    for kind in (KeyKind.AUTHOR, KeyKind.NODE):
        path = _path(session, kind)
        try:
            file = read_key_file(path, kind)
        except NoKey:
            value[kind.value] = None
            lines.append(f"{kind.value:<7} none yet; guts id new --{kind.value}")
            continue
        value[kind.value] = {"id": file.public, "path": str(path), "locked": file.locked}
        lines.append(f"{kind.value:<7} {file.public}{'  (passphrase)' if file.locked else ''}")
    emit(as_json, value, lines)


@id_group.command()
@_which
@click.option("--passphrase", "sealed", is_flag=True, help="Ask for a passphrase to seal the key with.")
@json_option
@pass_session
def new(session: Session, as_json: bool, is_node: bool, sealed: bool) -> None:
    """Make a new key."""
    from guts.identity import SigningKey
    from guts.keystore import KeyFile, KeyKind, write_key_file

    kind = KeyKind.NODE if is_node else KeyKind.AUTHOR
    path = _path(session, kind)
    passphrase = _new_passphrase(session) if sealed else None
    file = KeyFile.of(kind, SigningKey.generate(), passphrase)
    write_key_file(path, file)
    emit(as_json, {"id": file.public, "path": str(path), "locked": file.locked}, file.public)


@id_group.command()
@_which
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default="-")
@json_option
@pass_session
def export(session: Session, as_json: bool, is_node: bool, file: Path) -> None:
    """Write a sealed copy of a key.

    It goes to FILE (default: stdout), under a new passphrase.
    """
    from guts.keystore import (
        KeyFile,
        KeyKind,
        export_key,
        passphrase_source,
        read_key_file,
        write_key_file,
    )

    kind = KeyKind.NODE if is_node else KeyKind.AUTHOR
    path = _path(session, kind)
    stored = read_key_file(path, kind)
    key = stored.unlock(passphrase_source(session.environ), str(path))
    text = export_key(stored, key, _new_passphrase(session))
    if str(file) == "-":
        emit(as_json, {"id": stored.public, "export": text}, text.rstrip("\n"))
        return
    write_key_file(file.absolute(), KeyFile.parse(text, str(file)))
    emit(as_json, {"id": stored.public, "path": str(file)}, stored.public)


@id_group.command(name="import")
@_which
@click.argument("file", type=click.File("rb"))
@json_option
@pass_session
def import_(session: Session, as_json: bool, is_node: bool, file: BinaryIO) -> None:
    """Take over an exported key.

    FILE is what `guts id export` wrote ("-": stdin).
    """
    from guts.keystore import MAX_KEY_FILE_BYTES, KeyKind, import_key, passphrase_source

    kind = KeyKind.NODE if is_node else KeyKind.AUTHOR
    path = _path(session, kind)
    data = file.read(MAX_KEY_FILE_BYTES + 1)
    public = import_key(data, file.name, path, kind, passphrase_source(session.environ))
    emit(as_json, {"id": public, "path": str(path)}, public)


def _path(session: Session, kind: "KeyKind") -> Path:
    """Return where the key of this kind is kept."""
    from guts.keystore import KeyKind

    return session.config().network.keypair if kind is KeyKind.NODE else session.paths.author_key


def _new_passphrase(session: Session) -> str:
    """Return a passphrase to seal with: from ``GUTS_PASSPHRASE_FILE``, or typed twice."""
    from guts.keystore import KeyLocked, passphrase_source

    if session.environ.get("GUTS_PASSPHRASE_FILE"):
        return passphrase_source(session.environ)("new key")
    if not sys.stdin.isatty():
        raise KeyLocked(
            "a passphrase is needed and there is no terminal to ask for it",
            hint="set GUTS_PASSPHRASE_FILE to a file that holds the passphrase",
        )
    while True:
        first = click.prompt("New passphrase", hide_input=True, err=True)
        if first == click.prompt("Again", hide_input=True, err=True):
            return str(first)
        say("the two differ; once more")
