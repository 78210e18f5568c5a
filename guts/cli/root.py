"""The top of the command line: which commands there are, and how every one of them ends."""

import difflib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from guts import __version__
from guts.api.errors import ErrorObject
from guts.cli.session import Session
from guts.errors import ExitStatus, GutsError

if TYPE_CHECKING:  # loaded when a shell asks
    from click.shell_completion import CompletionItem

INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "block": ("guts.cli.seeding:block", "Never take a repository, or an author's."),
    "clone": ("guts.cli.clone:clone", "Make a working clone of a guts:// URL."),
    "cluster": ("guts.cli.cluster:cluster", "Run a network of nodes on this machine."),
    "completion": ("guts.cli.install:completion_script", "Print what a shell loads to complete commands."),
    "demo": ("guts.cli.demo:demo", "Watch a repository travel between processes."),
    "dht": ("guts.cli.dht:dht", "Ask the distributed hash table."),
    "follow": ("guts.cli.seeding:follow", "Seed every repository of an author."),
    "id": ("guts.cli.id:id_group", "Show, make, export and import keys."),
    "identity": ("guts.cli.identity:identity", "Show a repository's identity, or change it."),
    "inspect": ("guts.cli.repositories:inspect", "Show what a node knows of a repository."),
    "install": ("guts.cli.install:install", "Set up git, completion or man pages."),
    "known": ("guts.cli.known:known", "Show or forget what is remembered of repositories."),
    "limits": ("guts.cli.limits:limits", "Show or change what the node grants its peers."),
    "ls": ("guts.cli.repositories:ls", "List the repositories of this node."),
    "maintainers": ("guts.cli.maintainers:maintainers", "List who may move a repository's refs."),
    "node": ("guts.cli.node:node", "Run, start, stop and look at this node."),
    "peer": ("guts.cli.peer:peer", "List, connect and ban peers."),
    "publish": ("guts.cli.publish:publish", "Publish a git repository, or its new commits."),
    "receipts": ("guts.cli.receipts:receipts", "List who confirmed that they hold what was published."),
    "seed": ("guts.cli.seeding:seed", "Find, copy and keep a repository, or all of an author."),
    "seeding": ("guts.cli.seeding:seeding", "Show what is seeded, and why."),
    "sync": ("guts.cli.repositories:sync", "Compare with the other holders now."),
    "uninstall": ("guts.cli.install:uninstall", "Take back what guts install set up."),
    "unblock": ("guts.cli.seeding:unblock", "Take an id off the block list."),
    "unfollow": ("guts.cli.seeding:unfollow", "Follow an author no longer."),
    "unseed": ("guts.cli.seeding:unseed", "Stop seeding a repository."),
    "verify": ("guts.cli.verify:verify", "Compare a clone or a mirror with what was signed."),
}
"""Name to where the command is, and the line that ``guts --help`` has for it."""


GROUPED: Final = ("node", "peer", "cluster")
"""Groups whose commands somebody may look for at the top, in the order in which they are suggested."""


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and not for ``--help``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = vars(importlib.import_module(module))[attribute]
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(COMMANDS.items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Return the commands and options that begin with ``incomplete``, from the table above."""
        from click.shell_completion import CompletionItem

        names = [(name, text) for name, (_, text) in sorted(COMMANDS.items()) if name.startswith(incomplete)]
        # Not Group's own, which would import every command to ask for its help.
        return [
            *(CompletionItem(name, help=text) for name, text in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that ``args`` name; where there is none, the error names the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = self._longer(ctx, args[0]) or difflib.get_close_matches(args[0], COMMANDS, n=1)
            suggestion = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}{suggestion}", ctx)
        return super().resolve_command(ctx, args)

    def _longer(self, ctx: click.Context, word: str) -> list[str]:
        """Return the commands of groups that are called ``word``: ``node status`` for ``status``."""
        groups = {name: self.get_command(ctx, name) for name in GROUPED}
        return [
            f"{name} {word}"
            for name, group in groups.items()
            if isinstance(group, click.Group) and word in group.commands
        ]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command has --help and --json. Exit statuses and settings: docs/commands.md",
)
@click.option("--home", metavar="DIR", help="Keep everything under DIR (GUTS_HOME).")
@click.option("--config", metavar="FILE", help="Read this config file (GUTS_CONFIG).")
@click.version_option(__version__, prog_name="guts", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context, home: str | None, config: str | None) -> None:
    """Git hosting without a host: publish, find and replicate repositories between peers."""
    ctx.obj = Session.of(home, config)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; errors are told on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
    try:
        result = root.main(given, prog_name="guts", standalone_mode=False)
    except GutsError as error:
        return _tell(ErrorObject.of(error), as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitStatus.USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "guts"
        hint = f"{command} --help"
        return _tell(
            ErrorObject("USAGE", _sentence(error), hint, exit_status=ExitStatus.USAGE),
            as_json,
        )
    except click.ClickException as error:
        return _tell(ErrorObject("FAILED", _sentence(error)), as_json)
    except OSError as error:
        if error.filename is None:
            raise
        return _tell(ErrorObject("DISK", f"{os.fsdecode(error.filename)}: {error.strerror}"), as_json)
    except (click.Abort, KeyboardInterrupt):
        print(file=sys.stderr)
        return INTERRUPTED
    return result if isinstance(result, int) else ExitStatus.OK


def _sentence(error: click.ClickException) -> str:
    """Return click's message in the shape of ours: no capital, no full stop."""
    text = error.format_message().strip().removesuffix(".")
    return text[:1].lower() + text[1:]


def _tell(error: ErrorObject, as_json: bool) -> int:
    if as_json:
        print(json.dumps(error.to_json()), file=sys.stderr)
    else:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_status
