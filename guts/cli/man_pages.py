"""Man pages, made from the commands themselves: ``guts.1``, one page for each command, and ``git-remote-guts.1``.

What they say is what ``--help`` says, in the form of man(7). A group and its subcommands share a page, as in git.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Final

import click

from guts import __version__
from guts.cli.installing import MARK
from guts.cli.root import COMMANDS, root

EXIT_STATUSES: Final = (
    (0, "done; also where there was nothing to do"),
    (1, "failed"),
    (2, "the command line, or what it names, is not right"),
    (3, "no node answers"),
    (4, "not found"),
    (5, "refused by a rule"),
    (6, "timed out"),
    (7, "something is not what was signed or asked for"),
    (8, "disk or quota"),
    (78, "a setting, or the place of the control socket"),
    (130, "interrupted"),
)
ENVIRONMENT: Final = (
    ("GUTS_HOME", "everything under this folder (--home)"),
    ("GUTS_CONFIG", "the config file (--config)"),
    ("GUTS_PASSPHRASE_FILE", "holds the passphrase of a key"),
    ("GUTS_<SECTION>__<KEY>", "a setting, as GUTS_NETWORK__LISTEN_ADDR"),
    ("XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR", "where files are without GUTS_HOME"),
)
HELPER: Final = "git-remote-guts"


def pages() -> dict[str, str]:
    """Return every page by its file name."""
    made = {"guts.1": _top_page(), f"{HELPER}.1": _helper_page()}
    top = _top_context()
    for name in COMMANDS:
        command = root.get_command(top, name)
        assert command is not None
        made[f"guts-{name}.1"] = _page(f"guts-{name}", COMMANDS[name][1], _command(top, name, command))
    return made


def _top_context() -> click.Context:
    return click.Context(root, info_name="guts", help_option_names=root.context_settings["help_option_names"])


def _page(name: str, purpose: str, body: Iterator[str]) -> str:
    lines = [
        f'.\\" {MARK} man',
        f'.TH {_text(name.upper())} 1 "" "guts {_text(__version__)}" "Guts"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(purpose.removesuffix('.'))}",
        *body,
    ]
    return "\n".join(lines) + "\n"


def _top_page() -> str:
    def body() -> Iterator[str]:
        context = _top_context()
        yield from _synopsis("guts", root, context)
        yield from (".SH DESCRIPTION", *_prose(root.help))
        yield from _options(".SH OPTIONS", root, context)
        yield ".SH COMMANDS"
        for name, (_, purpose) in sorted(COMMANDS.items()):
            yield from (".TP", f".BR {_text(f'guts-{name}')} (1)", _text(purpose))
        yield from (".SH ENVIRONMENT", *_list(ENVIRONMENT))
        yield from (".SH EXIT STATUS", *_list((str(status), meaning) for status, meaning in EXIT_STATUSES))
        yield from _see_also(HELPER, "git")

    return _page("guts", "git hosting without a host", body())


def _helper_page() -> str:
    def body() -> Iterator[str]:
        yield from (".SH SYNOPSIS", r"git clone guts://[\fIhost:port\fP/]\fIrepo1\fP...[/\fIname\fP]", ".br")
        yield from (r"git push [\-o guts.replicas=\fIN\fP] guts", ".SH DESCRIPTION")
        yield from _prose(
            "git runs this program for URLs that begin with guts://; nobody types its name. Through the running node, "
            "or else as a node for as long as one command lasts, it finds who holds a repository, and hands git only "
            "refs that the repository's maintainers signed.\n\n"
            "The repository's id is the hash of its first identity document: who holds the id needs to trust nobody "
            "on the way. An address before it says whom to ask first. The name at the end names the folder that "
            "git clone makes.\n\n"
            "guts install git tells git what it needs to know: that guts:repo1... is such a URL too, and that "
            "submodules may have one."
        )
        yield from _see_also("guts", "guts-install", "git-clone", "git-push")

    return _page(HELPER, "git's way to guts:// repositories", body())


def _command(parent: click.Context, name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    subcommands = command.commands if isinstance(command, click.Group) else {}
    yield from _synopsis(f"guts {name}", command, context)
    yield from (".SH DESCRIPTION", *_prose(command.help))
    yield from _options(".SH OPTIONS", command, context)
    if subcommands:
        yield ".SH COMMANDS"
    for subname, subcommand in sorted(subcommands.items()):
        inner = click.Context(subcommand, info_name=subname, parent=context)
        usage = " ".join((f"guts {name} {subname}", *subcommand.collect_usage_pieces(inner)))
        yield from (f'.SS "{_text(usage)}"', *_prose(subcommand.help))
        yield from _options(None, subcommand, inner)
    yield from _see_also("guts")


def _synopsis(words: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield f"\\fB{_text(words)}\\fP {_text(' '.join(command.collect_usage_pieces(context)))}"


def _options(heading: str | None, command: click.Command, context: click.Context) -> Iterator[str]:
    records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    records = [record for record in records if record[1]]  # arguments have none; they are in the synopsis
    if records and heading is not None:
        yield heading
    yield from _list(records)


def _list(items: "Iterator[tuple[str, str]] | list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> Iterator[str]:
    for term, meaning in items:
        yield from (".TP", f"\\fB{_text(term)}\\fP", _text(meaning))


def _prose(help_text: str | None) -> Iterator[str]:
    for position, paragraph in enumerate(inspect.cleandoc(help_text or "").partition("\f")[0].split("\n\n")):
        if position:
            yield ".PP"
        lines = paragraph.splitlines()
        if lines[:1] == ["\b"]:  # click's mark: the lines stay as they are
            yield from (".nf", *map(_text, lines[1:]), ".fi")
        else:
            yield _text(" ".join(lines))


def _see_also(*names: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    *first, last = names
    yield from (*(f".BR {_text(name)} (1)," for name in first), f".BR {_text(last)} (1)")


def _text(text: str) -> str:
    r"""Return ``text`` as roff (groff(7), "Escape sequences"): plain ASCII, no line that reads as a request."""
    escaped = re.sub(r"[\\\-\"]", lambda found: {"\\": r"\e", "-": r"\-", '"': r"\(dq"}[found[0]], text)
    escaped = re.sub(r"[^ -~]", lambda found: " " if found[0].isspace() else f"\\[u{ord(found[0]):04X}]", escaped)
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
