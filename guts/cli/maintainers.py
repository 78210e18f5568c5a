"""``guts maintainers ls``: who may move a repository's refs."""

import click

from guts.cli.answer import Answer
from guts.cli.repositories import resolve
from guts.cli.session import Session, emit, json_option, pass_session, say, span_text, table


@click.group()
def maintainers() -> None:
    """List who may move a repository's refs. guts identity changes that."""


@maintainers.command()
@click.argument("repository", metavar="[REPOSITORY]", default=".")
@json_option
@pass_session
def ls(session: Session, as_json: bool, repository: str) -> None:
    """List the maintainers in order of precedence, with what each signed last."""
    answer = Answer.of(session.client().get(f"/v1/repositories/{resolve(repository).repository}"))
    me = _own_key(session)
    records = {record.text("author"): record for record in answer.objects("signed_refs")}
    suspended = {split.text("author") for split in answer.objects("splits")}
    value, rows = [], []
    for author in answer.texts("maintainers"):
        record = records.get(author)
        seq = record.number("seq") if record is not None else None
        value.append({"author": author, "seq": seq, "own": author == me, "suspended": author in suspended})
        signed = f"{span_text(record.seconds('age_s'))} ago" if record is not None else "never"
        notes = [*(["you"] if author == me else []), *(["SUSPENDED: two histories"] if author in suspended else [])]
        rows.append((author, signed, ", ".join(notes)))
    threshold = answer.number("threshold")
    emit(
        as_json,
        {"repository": answer.text("id"), "threshold": threshold, "maintainers": value},
        table(("MAINTAINER", "SIGNED", ""), rows),
    )
    if not as_json:
        say(f"{threshold} of {len(rows)} must sign a change of identity")
        for author in sorted(suspended):
            say(f"hint: to let a suspended maintainer go on: guts identity reaffirm {author} {answer.text('id')} FILE")


def _own_key(session: Session) -> str | None:
    from guts.keystore import KeyKind, NoKey, read_key_file

    try:
        return read_key_file(session.paths.author_key, KeyKind.AUTHOR).public
    except NoKey:
        return None
