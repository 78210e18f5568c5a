"""``guts ls``, ``inspect``, ``sync``: the repositories that a node holds."""

import os
from collections.abc import Mapping

import click

from guts.addresses import BadAddress, RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli import completing
from guts.cli.answer import Answer, answers
from guts.cli.chain import known_chain, removal_epochs
from guts.cli.session import (
    Session,
    age_text,
    emit,
    instant_text,
    json_option,
    pass_session,
    say,
    table,
    timeout_option,
)
from guts.cli.short_ids import KNOWN_ID
from guts.cli.waiting import waiting
from guts.errors import ExitStatus
from guts.ids import AuthorId, BadId, RepositoryId
from guts.sizes import size_text
from guts.trust.ref_names import CONFLICTS

_repository = click.argument("repository", metavar="REPOSITORY", type=KNOWN_ID, shell_complete=completing.repositories)


def resolve(text: str) -> RepositoryUrl:
    """Return the repository that ``text`` names: an id, a ``guts://`` URL, or the folder it was published from.

    Raises: ``BadId``, ``BadAddress``, and for a folder what ``guts.cli.publish.published_id`` raises.
    """
    try:
        return RepositoryUrl.parse(text)
    except (BadId, BadAddress) as error:
        if not os.path.isdir(text):  # unlike Path.is_dir, for a text of any length
            error.hint = error.hint or "a repository is repo1…, guts://…, or the folder that it was published from"
            raise
    from guts.cli.publish import published_id
    from guts.git.source import NotAGitDirectory

    try:
        return RepositoryUrl(published_id(text))
    except NotAGitDirectory as error:
        command = click.get_current_context().command_path
        raise NotAGitDirectory(str(error), hint=f"from anywhere: {command} repo1…; guts ls lists them") from None


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
            _state(repository),
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
    identifier = resolve(repository).repository
    answer = Answer.of(session.client().get(path_of(identifier)))
    authors = {record.text("author") for record in answer.objects("signed_refs")}
    removed: Mapping[AuthorId, int] = {}
    if not as_json and not authors <= set(answer.texts("maintainers")):
        removed = removal_epochs(known_chain(session.client(), identifier))
    emit(as_json, answer.json, _inspect_lines(answer, removed))


@click.command()
@click.argument(
    "repository", metavar="[REPOSITORY]", required=False, type=KNOWN_ID, shell_complete=completing.repositories
)
@timeout_option(120)
@json_option
@pass_session
def sync(session: Session, as_json: bool, repository: str | None, timeout: float) -> int:
    """Compare a repository, or all of them, with the other holders now; exit status 1 where one fails."""
    client = session.client()
    if repository is None:
        listed = answers(client.get("/v1/repositories"))
        identifiers = [RepositoryId.parse(known.text("id")) for known in listed if known.flag("seeding")]
    else:
        identifiers = [resolve(repository).repository]
    value: list[object] = []
    lines, failed = [], False
    for identifier in identifiers:
        try:
            with waiting(lambda: "comparing"):
                answer = Answer.of(client.send("POST", path_of(identifier) + "/sync", {"timeout": timeout}, timeout))
        except ReportedError as error:
            if repository is not None:
                raise
            failed = True
            told = error.told
            value.append(
                {"repository": str(identifier), "error": told.code, "message": told.message, "hint": told.hint}
            )
            lines += [f"{identifier}  {told.message}", *([f"  hint: {told.hint}"] if told.hint else [])]
        else:
            value.append(answer.json)
            lines.append(f"{identifier}  synced in {answer.seconds('seconds', 0.0):.2f} s")
    emit(as_json, value[0] if repository is not None else {"repositories": value}, lines)
    return ExitStatus.FAILED if failed else ExitStatus.OK


def _state(repository: Answer) -> str:
    conflicts, suspended = repository.number("conflicts", 0), repository.number("suspended", 0)
    notes = [f"{conflicts} in conflict"] if conflicts else []
    notes += [f"{suspended} suspended"] if suspended else []
    return ", ".join([repository.text("state"), *notes])


def path_of(repository: RepositoryId) -> str:
    """Return where the control API has ``repository``."""
    return f"/v1/repositories/{repository}"


def _objects(objects: Answer, refs: bool) -> str:
    if not objects.json and refs:
        # A ref points at one: the node counts behind what it commits.
        return "not counted yet"
    return ", ".join(f"{objects.number(kind)} {kind}s" for kind in objects.json) or "none"


def _inspect_lines(answer: Answer, removed: Mapping[AuthorId, int]) -> list[str]:
    objects = answer.object("objects")
    lines = [
        f"{name:<13} {value}"
        for name, value in (
            ("repository", answer.text("id")),
            ("name", answer.text("name", "")),
            ("description", answer.text("description", "")),
            ("identity", f"epoch {answer.number('epoch')}  {answer.text('identity_hash')[:12]}…"),
            ("maintainers", "\n              ".join(answer.texts("maintainers"))),
            ("HEAD", answer.text("head", "")),
            ("objects", _objects(objects, bool(answer.object("canonical_refs").json))),
            ("holders", ", ".join(peer[:12] + "…" for peer in answer.texts("holders")) or "none connected"),
            ("folder", answer.text("path", "")),
        )
        if value
    ]
    for record in answer.objects("signed_refs"):
        author = AuthorId.parse(record.text("author"))
        gone = f"  (removed at epoch {removed[author]})" if author in removed else ""
        lines.append(
            f"signed by     {author.short}…  record {record.text('hash')[:12]}…  "
            f"{instant_text(record.number('signed_ms'))}{gone}"
        )
    lines += fork_lines(answer)
    for split in answer.objects("splits"):
        lines += _split_lines(split, answer.text("id"))
    refs = answer.object("canonical_refs")
    lines += [f"  {refs.text(name)}  {name}" for name in sorted(refs.json)]
    for name in sorted(refs.json):
        if name.startswith(CONFLICTS):
            who, _, ref = name.removeprefix(CONFLICTS).partition("/")
            lines += [
                f"CONFLICT      {who[:12]}…  published another {ref}; to put both together, on that branch:",
                f"  git fetch guts://{answer.text('id')} {name} && git merge FETCH_HEAD && guts publish",
            ]
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
        f"  record {record.text('hash')[:12]}…  {instant_text(record.number('signed_ms'))}"
        for record in split.objects("records")
    ]
    return [
        f"SUSPENDED     {author[:12]}…  signed two histories; nothing counts from here on:",
        *records,
        f"  the maintainers say what counts: guts identity reaffirm {author} {repository} FILE",
    ]
