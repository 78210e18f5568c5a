"""Completion: what stands in for an argument, asked of the running node, and the scripts that shells load.

Who types is never kept waiting: what the node has not said within ``LIVE_TIMEOUT`` is not offered, nor is
anything where no node runs.
"""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from guts.cli.answer import Answer, answers
from guts.cli.installing import MARK
from guts.cli.session import Session
from guts.config import xdg_folder
from guts.errors import GutsError
from guts.ids import PeerId
from guts.limits import LIMITS

LIVE_TIMEOUT: Final = 0.2
"""Seconds: what a person takes for at once."""

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_GUTS_COMPLETE"
"""By this variable the scripts ask ``guts`` for completions (click's own scheme)."""


def repositories(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the repositories that the node holds, and folders: what a REPOSITORY may be."""
    # Folders come first: click's script for bash drops what was offered before them.
    return [
        CompletionItem(incomplete, type="dir"),
        *(
            CompletionItem(known.text("id"), help=known.text("name", ""))
            for known in _ask(ctx, "/v1/repositories")
            if known.text("id").startswith(incomplete)
        ),
    ]


def peers(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the peers that the node knows, with their addresses."""
    return [
        CompletionItem(f"{known.text('peer')}@{known.text('address')}", help=known.text("state", ""))
        for known in _ask(ctx, "/v1/peers")
        if known.json.get("address") and f"{known.text('peer')}@{known.text('address')}".startswith(incomplete)
    ]


def peer_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the ids of the peers that the node knows."""
    return [
        CompletionItem(known.text("peer"), help=known.text("state", ""))
        for known in _ask(ctx, "/v1/peers")
        if known.text("peer").startswith(incomplete)
    ]


def blocked(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the ids on the block list, and whom the node does not let in."""
    found = _ask(ctx, "/v1/seeding")
    rows = found[0].objects("blocked") if found else []
    return [
        *(CompletionItem(id_) for row in rows if (id_ := row.text("id")).startswith(incomplete)),
        *(item for item in banned(ctx, param, incomplete) if item.value.startswith(PeerId.prefix)),
    ]


def followed(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the authors that the node follows."""
    found = _ask(ctx, "/v1/seeding")
    owners = found[0].objects("owners") if found else []
    return [CompletionItem(one) for owner in owners if (one := owner.text("author")).startswith(incomplete)]


def limit_settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return the names of limits, up to the ``=``, and behind that what the value is by default."""
    name, separator, _ = incomplete.partition("=")
    if separator:
        values = [LIMITS[name].example, "default"] if name in LIMITS else []
        return [CompletionItem(each) for value in values if (each := f"{name}={value}").startswith(incomplete)]
    return [CompletionItem(f"{each}=", help=LIMITS[each].why) for each in LIMITS if each.startswith(incomplete)]


def banned(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Return whom the node does not let in."""
    return [
        CompletionItem(row.text("subject"), help=row.text("reason", ""))
        for row in _ask(ctx, "/v1/bans")
        if row.text("subject").startswith(incomplete)
    ]


def script(shell: str) -> str:
    """Return what ``shell``, one of ``SHELLS``, is to load."""
    from guts.cli.root import root

    made = get_completion_class(shell)
    assert made is not None, f"click completes in {shell}"
    lines = made(root, {}, "guts", VARIABLE).source().strip().splitlines()
    lines.insert(1 if lines[0].startswith("#compdef") else 0, f"# {MARK} completion")  # zsh looks at the first line
    return "\n".join(lines) + "\n"


def script_file(shell: str, environ: Mapping[str, str]) -> Path:
    """Return where ``shell`` looks for the completion of one user (zsh: once its folder is in ``fpath``)."""
    data = xdg_folder(environ, "XDG_DATA_HOME", ".local/share")
    match shell:
        case "bash":  # bash-completion's README: loaded when the command is first completed
            chosen = environ.get("BASH_COMPLETION_USER_DIR")
            return (Path(chosen) if chosen else data / "bash-completion") / "completions/guts"
        case "zsh":
            return data / "zsh/site-functions/_guts"
        case "fish":  # fish's documentation, "Where to put completions"
            return xdg_folder(environ, "XDG_CONFIG_HOME", ".config") / "fish/completions/guts.fish"
        case _:
            raise AssertionError(shell)


def _ask(ctx: click.Context, path: str) -> list[Answer]:
    """Return the object, or the objects, that the node has at ``path``; none, where it doesn't tell in time."""
    options = ctx.find_root().params  # the commands themselves do not run, so nobody made a session
    client = Session.of(options.get("home"), options.get("config")).client()
    found: list[Answer] = []

    def ask() -> None:
        with contextlib.suppress(GutsError, OSError):
            value = client.get(path)
            found.extend(answers(value if isinstance(value, list) else [value]))

    # A thread, because no single time-out of a socket bounds connecting and reading together.
    thread = threading.Thread(target=ask, name="completion", daemon=True)
    thread.start()
    thread.join(LIVE_TIMEOUT)
    return [] if thread.is_alive() else found
