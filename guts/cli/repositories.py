"""``guts ls``, ``inspect``, ``seed``, ``unseed``, ``sync``: the repositories that a node holds."""

from typing import TYPE_CHECKING

import click

from guts.addresses import RepositoryUrl
from guts.cli.answer import Answer, answers
from guts.cli.session import (
    Session,
    age_text,
    emit,
    json_option,
    pass_session,
    say,
    size_text,
    span_text,
    table,
    timeout_option,
)
from guts.cli.waiting import waiting
from guts.errors import ExitStatus
from guts.ids import RepositoryId

if TYPE_CHECKING:
    from guts.cli.client import ControlClient

_repository = click.argument("repository", metavar="REPOSITORY")


def resolve(text: str) -> RepositoryUrl:
    """Return the repository that ``text`` names: an id, a ``guts://`` URL, or ``.`` (the one published here).

    Raises: ``BadId``, ``BadAddress``, and for ``.`` what ``guts.cli.publish.published_id`` raises.
    """
    if text == ".":
        from guts.cli.publish import published_id

        return RepositoryUrl(published_id(text))
    return RepositoryUrl.parse(text)


@click.command()
@json_option
@pass_session
def ls(session: Session, as_json: bool) -> None:
    """List the repositories of this node."""
    value = session.client().get("/v1/repositories")
    rows = [
        (
            RepositoryId.parse(repository.text("id")).short + "…",
            repository.text("name", "?"),
            repository.text("state"),
            str(repository.number("refs", 0)),
            size_text(repository.number("size_bytes", 0)),
            str(repository.number("replicas_seen", 0)),
            age_text(repository.number("last_sync_ms", 0)),
        )
        for repository in answers(value)
    ]
    emit(as_json, value, table(("ID", "NAME", "STATE", "REFS", "SIZE", "REPLICAS", "SYNCED"), rows))
    if not rows and not as_json:
        say("no repositories yet; guts publish, or guts seed repo1…")


@click.command()
@_repository
@json_option
@pass_session
def inspect(session: Session, as_json: bool, repository: str) -> None:
    """Show what a node knows of a repository: identity, signed refs, refs, objects, holders."""
    answer = Answer.of(session.client().get(_path(resolve(repository).repository)))
    emit(as_json, answer.json, _inspect_lines(answer))


@click.command()
@_repository
@click.option("--from", "hints", multiple=True, metavar="[ID@]HOST:PORT", help="Ask this node too.")
@timeout_option(600)
@json_option
@pass_session
def seed(session: Session, as_json: bool, repository: str, hints: tuple[str, ...], timeout: float) -> None:
    """Find a repository's holders, copy it, check it, and keep it up to date from now on."""
    url = resolve(repository)
    addresses = [*hints, *([str(url.hint)] if url.hint else [])]
    body: dict[str, object] = {"hints": addresses, "timeout": timeout}
    try:
        with waiting(lambda: f"copying {url.repository.short}…"):
            answer = Answer.of(session.client().send("PUT", _path(url.repository) + "/seeding", body, timeout))
    except KeyboardInterrupt:
        say(f"\nthe node goes on with it; guts unseed {url.repository} ends that")
        raise
    emit(as_json, answer.json, f"seeding {url.repository}; copied in {answer.seconds('seconds', 0.0):.2f} s")


@click.command()
@_repository
@json_option
@pass_session
def unseed(session: Session, as_json: bool, repository: str) -> None:
    """Stop seeding a repository: no longer announced, followed or served."""
    identifier = resolve(repository).repository
    answer = Answer.of(session.client().send("DELETE", _path(identifier) + "/seeding"))
    emit(as_json, answer.json, f"no longer seeding {identifier}")


@click.command()
@click.argument("repository", metavar="[REPOSITORY]", required=False)
@timeout_option(120)
@json_option
@pass_session
def sync(session: Session, as_json: bool, repository: str | None, timeout: float) -> int:
    """Compare a repository, or all of them, with the other holders now; exit status 1 where one fails."""
    client: ControlClient = session.client()
    path = "/v1/sync"
    if repository is not None:
        path = _path(resolve(repository).repository) + "/sync"
    with waiting(lambda: "comparing"):
        answer = Answer.of(client.send("POST", path, {"timeout": timeout}, timeout))
    outcomes = [answer] if repository is not None else answer.objects("repositories")
    lines = []
    for outcome in outcomes:
        error = outcome.text("error", "")
        told = error or f"synced in {outcome.seconds('seconds', 0.0):.2f} s"
        lines.append(f"{outcome.text('repository')}  {told}")
    emit(as_json, answer.json, lines)
    return ExitStatus.FAILED if any("error" in outcome.json for outcome in outcomes) else ExitStatus.OK


def _path(repository: RepositoryId) -> str:
    return f"/v1/repositories/{repository}"


def _inspect_lines(answer: Answer) -> list[str]:
    objects = answer.object("objects")
    lines = [
        f"{name:<13} {value}"
        for name, value in (
            ("repository", answer.text("id")),
            ("name", answer.text("name", "")),
            ("description", answer.text("description", "")),
            ("identity", f"epoch {answer.number('epoch')}  {answer.text('identity_hash')[:12]}"),
            ("maintainers", "\n              ".join(answer.texts("maintainers"))),
            ("HEAD", answer.text("head", "")),
            ("objects", ", ".join(f"{objects.number(kind)} {kind}s" for kind in objects.json) or "none"),
            ("holders", ", ".join(peer[:12] + "…" for peer in answer.texts("holders")) or "none connected"),
        )
        if value
    ]
    for record in answer.objects("signed_refs"):
        age = span_text(record.seconds("age_s"))
        lines.append(f"signed by     {record.text('author')[:12]}…  seq {record.number('seq')}  {age} ago")
    lines += fork_lines(answer)
    for split in answer.objects("splits"):
        lines += _split_lines(split, answer.text("id"))
    refs = answer.object("canonical_refs")
    lines += [f"  {refs.text(name)}  {name}" for name in sorted(refs.json)]
    return lines


def fork_lines(answer: Answer) -> list[str]:
    """Return what is said of a repository whose maintainers signed two documents of one epoch; of others nothing."""
    if answer.json.get("identity_fork") is None:
        return []
    fork = answer.object("identity_fork")
    followed, other = fork.text("followed")[:12], fork.text("other")[:12]
    return [
        f"FORKED        the maintainers signed two documents of epoch {fork.number('epoch')}:",
        f"  {followed} is followed here, {other} elsewhere; the identity can't change. Ask them which one counts.",
        f"  To follow the other one: guts node stop; move {answer.text('path')} and the database away (it is",
        "  made anew from the rest); guts node start; guts seed it --from a node that follows that one",
    ]


def _split_lines(split: Answer, repository: str) -> list[str]:
    author = split.text("author")
    records = [
        f"  record {record.text('hash')[:12]}  seq {record.number('seq')}  {age_text(record.number('signed_ms'))}"
        for record in split.objects("records")
    ]
    return [
        f"SUSPENDED     {author[:12]}…  signed two histories; nothing counts from seq {split.number('seq')} on",
        *records,
        f"  the maintainers say what counts: guts identity reaffirm {author} {repository} FILE",
    ]
