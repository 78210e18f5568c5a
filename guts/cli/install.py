"""``guts install``, ``uninstall``, ``completion``: git's settings, the shell's completion, man pages; and back."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from guts.cli import completing
from guts.cli.installing import install_files, uninstall_files
from guts.cli.session import Session, emit, json_option, pass_session, say
from guts.config import xdg_folder

MAN_TIMEOUT: Final = 10.0
"""Seconds that ``man -w`` may take to say where a page is."""

F = TypeVar("F", bound=Callable[..., object])


def _dry_run(command: F) -> F:
    return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(command)


_shell = click.argument("shell", type=click.Choice(completing.SHELLS), required=False)


@click.command(name="completion")
@_shell
@json_option
@pass_session
def completion_script(session: Session, as_json: bool, shell: str | None) -> None:
    """Print what a shell loads to complete commands, options and ids; without SHELL for yours.

    guts install completion puts it where the shell looks.
    """
    chosen = _chosen(session, shell)
    text = completing.script(chosen)
    emit(as_json, {"shell": chosen, "script": text}, text.rstrip("\n"))


@click.group()
def install() -> None:
    """Set up git, completion or man pages."""


@click.group()
def uninstall() -> None:
    """Take back what guts install set up."""


@install.command(name="git")
@_dry_run
@json_option
def install_git(as_json: bool, dry_run: bool) -> None:
    """Tell git about Guts URLs, in your global git config.

    guts:repo1... then works as guts://repo1... does, and submodules may have such URLs.
    """
    import asyncio

    from guts.cli import git_settings

    async def run() -> tuple[Path, list[tuple[str, str]], str]:
        helper = await git_settings.find_helper()
        missing = await git_settings.missing_settings()
        if dry_run:
            return helper, missing, "your global git config"
        await git_settings.write_settings(missing)
        return helper, missing, await git_settings.settings_file()

    helper, missing, file = asyncio.run(run())
    value = {"helper": str(helper), "file": None if dry_run else file, "settings": _settings_json(missing)}
    done = "would set" if dry_run else "set"
    lines = [f"{done} {key} = {value}" for key, value in missing] or ["nothing to do: git has these settings already"]
    emit(as_json, {**value, "dry_run": dry_run}, [f"git finds {helper}", *lines, *([f"in {file}"] if missing else [])])


@uninstall.command(name="git")
@_dry_run
@json_option
def uninstall_git(as_json: bool, dry_run: bool) -> None:
    """Remove what guts install git wrote into your global git config."""
    import asyncio

    from guts.cli import git_settings

    removed = asyncio.run(git_settings.remove_settings(dry_run=dry_run))
    done = "would remove" if dry_run else "removed"
    lines = [f"{done} {key} = {value}" for key, value in removed] or ["nothing to do: git has none of these settings"]
    emit(as_json, {"settings": _settings_json(removed), "dry_run": dry_run}, lines)


@install.command(name="completion")
@_shell
@_dry_run
@json_option
@pass_session
def install_completion(session: Session, as_json: bool, dry_run: bool, shell: str | None) -> None:
    """Install completion for a shell: yours, or the one named."""
    chosen = _chosen(session, shell)
    path = completing.script_file(chosen, session.environ)
    changed = install_files({path: completing.script(chosen)}, dry_run=dry_run)
    _emit_files(as_json, dry_run, "write", changed, f"nothing to do: {path} is there")
    if chosen == "zsh":
        say("hint: zsh looks there with these two lines in ~/.zshrc, the second only where there is none:")
        say(f"  fpath=({shlex.quote(str(path.parent))} $fpath)\n  autoload -Uz compinit && compinit")
    elif chosen == "bash" and not Path("/usr/share/bash-completion/bash_completion").exists():
        say(f"hint: without the package bash-completion, this line in ~/.bashrc: . {shlex.quote(str(path))}")


@uninstall.command(name="completion")
@click.argument("shells", metavar="[SHELL]...", type=click.Choice(completing.SHELLS), nargs=-1)
@_dry_run
@json_option
@pass_session
def uninstall_completion(session: Session, as_json: bool, dry_run: bool, shells: tuple[str, ...]) -> None:
    """Remove installed completion: of all shells, or of those named."""
    paths = [completing.script_file(shell, session.environ) for shell in shells or completing.SHELLS]
    _emit_files(as_json, dry_run, "remove", uninstall_files(paths, dry_run=dry_run), "nothing to do: none is installed")


@install.command(name="man", short_help="Install man pages, made from the commands.")
@_dry_run
@json_option
@pass_session
def install_man(session: Session, as_json: bool, dry_run: bool) -> None:
    """Install man pages, made from the commands: man guts, man guts-publish, man git-remote-guts."""
    from guts.cli.man_pages import pages

    folder = _man_folder(session)
    changed = install_files({folder / name: text for name, text in pages().items()}, dry_run=dry_run)
    _emit_files(as_json, dry_run, "write", changed, f"nothing to do: {folder} has them")
    if not dry_run and not _man_finds(session, folder):
        say(f"hint: man does not look there yet; add this line to ~/.profile: export MANPATH={folder.parent}:$MANPATH")


@uninstall.command(name="man")
@_dry_run
@json_option
@pass_session
def uninstall_man(session: Session, as_json: bool, dry_run: bool) -> None:
    """Remove the man pages that guts install man wrote, also those of an older version."""
    folder = _man_folder(session)
    paths = sorted({*folder.glob("guts.1"), *folder.glob("guts-*.1"), *folder.glob("git-remote-guts.1")})
    _emit_files(as_json, dry_run, "remove", uninstall_files(paths, dry_run=dry_run), "nothing to do: there are none")


def _chosen(session: Session, shell: str | None) -> str:
    chosen = shell or os.path.basename(session.environ.get("SHELL", ""))
    if chosen not in completing.SHELLS:
        raise click.UsageError(f"which shell? One of {', '.join(completing.SHELLS)}", click.get_current_context())
    return chosen


def _man_folder(session: Session) -> Path:
    return xdg_folder(session.environ, "XDG_DATA_HOME", ".local/share") / "man/man1"


def _man_finds(session: Session, folder: Path) -> bool:
    """Tell whether ``man`` finds our pages; where there is no such program, nobody misses them."""
    if shutil.which("man") is None:
        return True
    try:
        done = subprocess.run(
            ["man", "-w", "guts"],
            env=dict(session.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=MAN_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.stdout.strip() == str(folder / "guts.1")


def _settings_json(settings: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in settings]


def _emit_files(as_json: bool, dry_run: bool, verb: str, paths: Sequence[Path], nothing: str) -> None:
    done = f"would {verb}" if dry_run else {"write": "wrote", "remove": "removed"}[verb]
    lines = [f"{done} {path}" for path in paths] or [nothing]
    emit(as_json, {"files": [str(path) for path in paths], "dry_run": dry_run}, lines)
