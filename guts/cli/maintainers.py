"""``guts maintainers ls``: who may move a repository's refs."""

from collections.abc import Mapping

import click

from guts.cli import completing
from guts.cli.answer import Answer
from guts.cli.author import own_author
from guts.cli.chain import known_chain, removal_epochs
from guts.cli.repositories import resolve
from guts.cli.session import Session, emit, json_option, pass_session, say, span_text, table
from guts.cli.short_ids import KNOWN_ID
from guts.ids import AuthorId


@click.group()
def maintainers() -> None:
    """List who may move a repository's refs. guts identity changes that."""


@maintainers.command()
@click.argument(
    "repository", metavar="[REPOSITORY]", default=".", type=KNOWN_ID, shell_complete=completing.repositories
)
@json_option
@pass_session
def ls(session: Session, as_json: bool, repository: str) -> None:
    """List the maintainers in order of precedence, with what each signed last."""
    identifier = resolve(repository).repository
    answer = Answer.of(session.client().get(f"/v1/repositories/{identifier}"))
    removed: Mapping[AuthorId, int] = {}
    if answer.number("epoch"):
        removed = removal_epochs(known_chain(session.client(), identifier))
    me = own_author(session)
    records = {record.text("author"): record for record in answer.objects("signed_refs")}
    suspended = {split.text("author") for split in answer.objects("splits")}
    value, former, rows = [], [], []
    present = [AuthorId.parse(text) for text in answer.texts("maintainers")]
    for author in (*present, *removed):
        record = records.get(str(author))
        entry = {
            "author": str(author),
            "seq": record.number("seq") if record is not None else None,
            "signed_ms": record.number("signed_ms") if record is not None else None,
            "own": author == me,
            "suspended": str(author) in suspended,
        }
        notes = [*(["you"] if author == me else []), *(["SUSPENDED: two histories"] if entry["suspended"] else [])]
        if author in removed:
            former.append({**entry, "removed_at_epoch": removed[author]})
            notes.append(f"(removed at epoch {removed[author]})")
        else:
            value.append(entry)
        signed = f"{span_text(record.seconds('age_s'))} ago" if record is not None else "never"
        rows.append((str(author), signed, ", ".join(notes)))
    threshold = answer.number("threshold")
    emit(
        as_json,
        {"repository": str(identifier), "threshold": threshold, "maintainers": value, "removed": former},
        table(("MAINTAINER", "SIGNED", ""), rows),
    )
    if not as_json:
        say(f"{threshold} of {len(present)} must sign a change of identity")
        for text in sorted(suspended & {str(author) for author in present}):
            say(f"hint: to let a suspended maintainer go on: guts identity reaffirm {text} {identifier} FILE")
