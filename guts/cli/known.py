"""``guts known``: ls, show, forget. What this home remembers of the repositories it has seen."""

import click

from guts.cli import completing, known_repositories
from guts.cli.repositories import resolve
from guts.cli.session import Session, emit, instant_text, json_option, pass_session, say, table

_repository = click.argument("repository", metavar="REPOSITORY", shell_complete=completing.repositories)


@click.group()
def known() -> None:
    """Show what is remembered of repositories, or forget it."""


@known.command()
@json_option
@pass_session
def ls(session: Session, as_json: bool) -> None:
    """List the repositories that were seen here."""
    found = known_repositories.all_known(session.paths)
    rows = [
        (
            one.repository[:12] + "…",
            one.name,
            str(one.epoch),
            ", ".join(author[:12] + "…" for author in one.maintainers),
            instant_text(one.first_seen_ms),
        )
        for one in found
    ]
    emit(as_json, [one.json for one in found], table(("ID", "NAME", "EPOCH", "MAINTAINERS", "FIRST SEEN"), rows))
    if not rows and not as_json:
        say("none yet; git clone guts://repo1… remembers the first")


@known.command(short_help="Show what is remembered of a repository.")
@_repository
@json_option
@pass_session
def show(session: Session, as_json: bool, repository: str) -> None:
    """Show what is remembered of a repository: identity, maintainers, newest records."""
    one = known_repositories.known_one(session.paths, resolve(repository).repository)
    heads = [f"{author}  seq {seq}  {digest[:12]}…" for author, (seq, digest) in one.heads.items()]
    lines = [
        f"repository   {one.repository}",
        f"name         {one.name}",
        f"identity     epoch {one.epoch}  {one.identity_hash[:12]}…",
        f"maintainers  {(chr(10) + ' ' * 13).join(one.maintainers)}",
        f"records      {(chr(10) + ' ' * 13).join(heads) or 'none'}",
        f"first seen   {instant_text(one.first_seen_ms)}",
        f"changed      {instant_text(one.changed_ms)}",
    ]
    emit(as_json, one.json, lines)


@known.command(short_help="Forget what was seen of a repository.")
@_repository
@json_option
@pass_session
def forget(session: Session, as_json: bool, repository: str) -> None:
    """Forget a repository: whatever is seen of it next is taken for right."""
    identifier = resolve(repository).repository
    there = known_repositories.forget(session.paths, identifier)
    text = f"forgot {identifier}" if there else f"nothing to do: nothing is remembered of {identifier}"
    emit(as_json, {"repository": str(identifier), "forgotten": there}, text)
