"""``guts dht``: find-repo."""

import click

from guts.cli import completing
from guts.cli.answer import Answer
from guts.cli.repositories import resolve
from guts.cli.session import Session, count_text, emit, json_option, pass_session, table, timeout_option
from guts.cli.short_ids import KNOWN_ID
from guts.errors import ExitStatus


@click.group()
def dht() -> None:
    """Ask the distributed hash table."""


@dht.command(name="find-repo")
@click.argument("repository", metavar="REPOSITORY", type=KNOWN_ID, shell_complete=completing.repositories)
@timeout_option(30)
@json_option
@pass_session
def find_repo(session: Session, as_json: bool, repository: str, timeout: float) -> int:
    """Show who says that they hold it.

    Exit status 4 where nobody does.
    """
    path = f"/v1/providers/{resolve(repository).repository}?timeout={timeout}"
    answer = Answer.of(session.client().get(path, timeout))
    providers = answer.objects("providers")
    lines = table(
        ("NODE", "ADDRESSES"),
        [(provider.text("peer"), ", ".join(provider.texts("addresses"))) for provider in providers],
    )
    lines.append(
        f"{count_text(len(providers), 'provider')}; asked {count_text(answer.number('asked', 0), 'node')}, "
        f"{count_text(answer.number('hops', 0), 'hop')}, "
        f"{answer.seconds('seconds', 0.0):.2f} s"
    )
    emit(as_json, answer.json, lines)
    return ExitStatus.OK if providers else ExitStatus.NOT_FOUND
