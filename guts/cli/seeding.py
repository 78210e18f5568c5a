"""``guts seed``, ``unseed``, ``follow``, ``unfollow``, ``block``, ``unblock``, ``seeding``: what is kept, and why."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import click

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli import completing
from guts.cli.answer import Answer
from guts.cli.dry_run import DryRun, left, lines, would_go
from guts.cli.repositories import path_of, resolve
from guts.cli.session import (
    Session,
    age_text,
    emit,
    json_option,
    pass_session,
    say,
    span_text,
    table,
    timeout_option,
)
from guts.cli.short_ids import KNOWN_ID
from guts.cli.waiting import waiting
from guts.errors import ExitStatus
from guts.ids import AuthorId, BadId, PeerId, RepositoryId
from guts.sizes import size_text

if TYPE_CHECKING:  # as in guts.cli.session
    from click.shell_completion import CompletionItem

    from guts.cli.client import ControlClient

MAX_SHOWN: Final = 10
"""Refusals that people are shown, three lines each; ``--json`` has all that the node keeps."""

Subject = RepositoryUrl | AuthorId

_REASONS = {
    "explicit": "asked for: guts seed, or published through this node",
    "owner": "maintained by {owners}, who is followed",
    "topic": "announced by anybody (seeding.repositories = true)",
    "going": "not seeded any more",
}


def _subject(text: str) -> Subject:
    return AuthorId.parse(text) if text.startswith(AuthorId.prefix + "1") else resolve(text)


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would go or come, and what would be left; change nothing."
)


def _switches(**switches: bool) -> str:
    """Return the query of those that are set."""
    return (
        "?" + "&".join(f"{name}=true" for name, is_set in switches.items() if is_set) if any(switches.values()) else ""
    )


@click.command()
@click.argument(
    "subjects",
    metavar="(REPOSITORY|auth1…)...",
    nargs=-1,
    required=True,
    type=KNOWN_ID,
    shell_complete=completing.repositories,
)
@click.option("--from", "hints", multiple=True, metavar="[ID@]HOST:PORT", help="Ask this node too.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, and what would be left; fetch nothing.")
@timeout_option(600)
@json_option
@pass_session
def seed(
    session: Session, as_json: bool, subjects: Sequence[str], hints: tuple[str, ...], dry_run: bool, timeout: float
) -> int:
    """Find a repository's holders, copy it, check it, and keep it up to date from now on.

    Of an author (auth1…), keep every repository that the author maintains, as this node meets it: guts follow.
    """
    client = session.client()
    asked = list(dict.fromkeys(_subject(text) for text in subjects))
    dry = DryRun(client, hints, timeout) if dry_run else None
    done = [_seeded(client, subject, hints, dry, timeout, alone=len(asked) == 1) for subject in asked]
    value, lines = done[0][0], [line for _, lines, _ in done for line in lines]
    if len(done) > 1:
        several: dict[str, object] = {"seeded": [one for one, _, _ in done]}
        if dry is not None:
            several["total"], added = dry.total(sum(not isinstance(subject, AuthorId) for subject in asked))
            lines += added
        value = several
    emit(as_json, value, lines)
    statuses = {status for _, _, status in done} - {ExitStatus.OK}
    return statuses.pop() if len(statuses) == 1 else ExitStatus.FAILED if statuses else ExitStatus.OK


def _seeded(
    client: "ControlClient",
    subject: Subject,
    hints: Sequence[str],
    dry_run: DryRun | None,
    timeout: float,
    *,
    alone: bool,
) -> tuple[object, list[str], ExitStatus]:
    """Return what came of one subject; where it is the only one, an error is raised as it is."""
    try:
        if isinstance(subject, AuthorId):
            return *_follow(client, subject, dry_run=dry_run is not None), ExitStatus.OK
        if dry_run is not None:
            return dry_run.judge(subject)
        return _copied(client, subject, hints, timeout)
    except ReportedError as error:
        if alone:
            raise
        name, told = subject if isinstance(subject, AuthorId) else subject.repository, error.told
        lines = [f"{name}  {told.message}", *([f"  hint: {told.hint}"] if told.hint else [])]
        value = {"subject": str(name), "error": told.code, "message": told.message, "hint": told.hint}
        return value, lines, told.exit_status


def _copied(
    client: "ControlClient", url: RepositoryUrl, hints: Sequence[str], timeout: float
) -> tuple[object, list[str], ExitStatus]:
    addresses = [*hints, *([str(url.hint)] if url.hint else [])]
    body: dict[str, object] = {"hints": addresses, "timeout": timeout}
    try:
        with waiting(lambda: f"copying {url.repository.short}…"):
            answer = Answer.of(client.send("PUT", path_of(url.repository) + "/seeding", body, timeout))
    except KeyboardInterrupt:
        say(f"\nthe node goes on with it; guts unseed {url.repository} ends that")
        raise
    fate = f"copied in {answer.seconds('seconds', 0.0):.2f} s" if answer.flag("copied") else "it is here already"
    return answer.json, [f"seeding {url.repository}; {fate}"], ExitStatus.OK


def _size(answer: Answer, name: str) -> str:
    return size_text(answer.number(name, 0))


@click.command()
@click.argument("repository", metavar="REPOSITORY", type=KNOWN_ID, shell_complete=completing.repositories)
@click.option("--now", is_flag=True, help="Remove it from the disk at once.")
@dry_run_option
@json_option
@pass_session
def unseed(session: Session, as_json: bool, repository: str, now: bool, dry_run: bool) -> None:
    """Stop seeding a repository: no longer announced, kept up to date or served.

    It is removed from the disk after a while (seeding.grace); until then guts seed keeps it without a copy.
    """
    if repository.startswith(AuthorId.prefix + "1"):
        told = f"guts unfollow {AuthorId.parse(repository)}"
        raise BadId(repository, "is an author; a repository is needed here", hint=told)
    identifier = resolve(repository).repository
    answer = Answer.of(
        session.client().send("DELETE", path_of(identifier) + "/seeding" + _switches(now=now, dry_run=dry_run))
    )
    if dry_run:
        emit(as_json, answer.json, would_go(answer))
        return
    emit(as_json, answer.json, f"no longer seeding {identifier}; {_fate(answer)}")


def _fate(answer: Answer) -> str:
    if answer.flag("removed"):
        return "removed from the disk"
    if answer.json.get("removed_in_s") is None:
        return "there was nothing of it on the disk"
    seconds = answer.seconds("removed_in_s")
    return (
        f"it is removed from the disk in {span_text(seconds)} (at once: guts unseed {answer.text('repository')} --now)"
    )


def _author_command(
    name: str,
    text: str,
    run: "Callable[..., tuple[object, list[str]]]",
    complete: "Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]] | None" = None,
) -> click.Command:
    """Return the command ``name``, which does something about an author."""

    @click.command(name=name, help=text)
    @click.argument("author", metavar="auth1…", type=KNOWN_ID, shell_complete=complete)
    @json_option
    @pass_session
    def command(session: Session, /, as_json: bool, author: str, **options: bool) -> None:
        if author.startswith(RepositoryId.prefix + "1"):
            told = f"guts {'seed' if name == 'follow' else 'unseed'} {RepositoryId.parse(author)}"
            raise BadId(author, "is a repository; an author (auth1…) is needed here", hint=told)
        emit(as_json, *run(session.client(), AuthorId.parse(author), **options))

    return command


def _follow(client: "ControlClient", author: AuthorId, *, dry_run: bool) -> tuple[object, list[str]]:
    answer = Answer.of(client.send("PUT", f"/v1/owners/{author}{_switches(dry_run=dry_run)}"))
    before = "" if answer.flag("new") else ", as before"
    if dry_run:
        text = f"repositories of {author} are met as they come{before}: their size is not known before"
        return answer.json, lines([("would come", text), *left(answer)])
    told = [f"following {author}{before}: repositories of that maintainer are seeded as this node meets them"]
    return answer.json, told


def _unfollow(client: "ControlClient", author: AuthorId) -> tuple[object, list[str]]:
    answer = Answer.of(client.send("DELETE", f"/v1/owners/{author}"))
    told = [f"no longer following {author}" if answer.flag("was_followed") else f"{author} was not followed"]
    told += [f"  {repository}  no longer seeded" for repository in answer.texts("stopped")]
    return answer.json, told


follow = dry_run_option(
    _author_command("follow", "Seed every repository that an author maintains, as this node meets it.", _follow)
)
unfollow = _author_command(
    "unfollow",
    "Follow an author no longer, and let go what is seeded because of that alone.",
    _unfollow,
    completing.followed,
)


@click.command()
@click.argument("who", metavar="ID", type=KNOWN_ID, shell_complete=completing.repositories)
@click.option("--purge", is_flag=True, help="Remove what is here of it at once.")
@dry_run_option
@json_option
@pass_session
def block(session: Session, as_json: bool, who: str, purge: bool, dry_run: bool) -> None:
    """Never take, serve or announce a repository (repo1…), or whatever an author (auth1…) maintains.

    Of a node (node1…) it is guts peer ban --for forever: nothing is taken from it, or given to it.
    """
    identifier = _blockable(who)
    if isinstance(identifier, PeerId) and dry_run:
        raise BadId(who, "is a node, of which nothing is here that would go", hint="guts peer show ID")
    if isinstance(identifier, PeerId):
        body: dict[str, object] = {"bans": [{"subject": str(identifier), "seconds": None, "reason": "guts block"}]}
        banned = Answer.of(session.client().send("POST", "/v1/bans", body))
        emit(as_json, banned.json, f"blocked {identifier}" + ("" if banned.number("changed", 0) else ", as before"))
        return
    path = f"/v1/blocks/{quote(str(identifier))}{_switches(purge=purge, dry_run=dry_run)}"
    answer = Answer.of(session.client().send("PUT", path))
    if dry_run:
        emit(as_json, answer.json, would_go(answer))
        return
    told = [f"blocked {identifier}" + ("" if answer.flag("new") else ", as before")]
    told += [f"  {one.text('repository')}  {_fate(one)}" for one in answer.objects("repositories")]
    emit(as_json, answer.json, told)


@click.command()
@click.argument("who", metavar="ID", type=KNOWN_ID, shell_complete=completing.blocked)
@dry_run_option
@json_option
@pass_session
def unblock(session: Session, as_json: bool, who: str, dry_run: bool) -> None:
    """Take an id off the block list; what is still here is seeded again as it was."""
    identifier = _blockable(who)
    if isinstance(identifier, PeerId) and dry_run:
        raise BadId(who, "is a node, of which nothing is here that would come back", hint="guts peer show ID")
    if isinstance(identifier, PeerId):
        answer = Answer.of(session.client().send("DELETE", f"/v1/bans?{urlencode({'subject': str(identifier)})}"))
        was = answer.number("changed", 0) > 0
        emit(as_json, answer.json, f"no longer blocked: {identifier}" if was else f"{identifier} was not blocked")
        return
    path = f"/v1/blocks/{quote(str(identifier))}{_switches(dry_run=dry_run)}"
    answer = Answer.of(session.client().send("DELETE", path))
    was = answer.flag("was_blocked")
    if dry_run:
        here = answer.texts("repositories") or ["nothing of it is here" if was else "nothing: it is not blocked"]
        emit(as_json, answer.json, lines([*(("may come back", one) for one in here), *left(answer)]))
        return
    told = [f"no longer blocked: {identifier}" if was else f"{identifier} was not blocked"]
    emit(as_json, answer.json, [*told, *(f"  {one}  seeded again" for one in answer.texts("repositories"))])


def _blockable(text: str) -> RepositoryId | AuthorId | PeerId:
    if text.startswith(PeerId.prefix + "1"):
        return PeerId.parse(text)
    subject = _subject(text)
    return subject if isinstance(subject, AuthorId) else subject.repository


@click.command()
@json_option
@pass_session
def seeding(session: Session, as_json: bool) -> None:
    """Show what this node seeds and why, whom it follows, what it blocks, its quotas, and what it did not take."""
    answer = Answer.of(session.client().get("/v1/seeding"))
    emit(as_json, answer.json, _policy_lines(answer))


def _policy_lines(answer: Answer) -> list[str]:
    disk = answer.object("disk")
    topic = "on" if answer.flag("topic") else "off (seeding.repositories)"
    refused = answer.number("refused", 0)
    if refused:
        topic += f"; {refused} refused, for there was no place"
    rows = [
        ("topic", topic),
        ("by policy", _places(answer.number("taken", 0), answer.number("max_repositories", 0))),
        ("disk", f"{_size(disk, 'used_bytes')} of {_size(disk, 'limit_bytes')}"),
        ("each", f"up to {_size(answer, 'repo_max_bytes')}"),
        ("free", free_text(disk)),
        ("grace", span_text(answer.seconds("grace_s", 0.0))),
        *(("follows", owner.text("author")) for owner in answer.objects("owners")),
        *(("blocks", blocked.text("id")) for blocked in answer.objects("blocked")),
        *(("declined", repository) for repository in answer.texts("declined")),
    ]
    lines = [f"{name:<13} {value}" for name, value in rows]
    repositories = [
        (
            RepositoryId.parse(one.text("id")).short + "…",
            one.text("name", "?"),
            _size(one, "size_bytes"),
            _why(one),
        )
        for one in answer.objects("repositories")
    ]
    if repositories:
        lines += ["", *table(("ID", "NAME", "SIZE", "WHY"), repositories)]
    return lines + _refusal_lines(answer.objects("refusals"))


def _places(taken: int, most: int) -> str:
    full = "" if taken < most else ": FULL, no more is looked at (seeding.max_repositories)"
    return f"{taken} of {most} repositories{full}"


def _refusal_lines(refusals: Sequence[Answer]) -> list[str]:
    """Return what was not taken, and what helps; no more than fits on a screen."""
    if not refusals:
        return []
    lines = ["", "NOT TAKEN"]
    for refusal in refusals[:MAX_SHOWN]:
        lines.append(f"{refusal.text('repository')}  {age_text(refusal.number('at_ms'))}; {_why(refusal)}")
        lines.append(f"  {refusal.text('message')}")
        if hint := refusal.text("hint", ""):
            lines.append(f"  hint: {hint}")
    more = len(refusals) - MAX_SHOWN
    return [*lines, *([f"and {more} more: guts seeding --json"] if more > 0 else [])]


def free_text(disk: Answer) -> str:
    """Return what is told of the disk."""
    free, floor = _size(disk, "free_bytes"), _size(disk, "floor_bytes")
    if disk.flag("low"):
        return f"{free}, where {floor} are to stay free: LOW, nothing is fetched until there is more"
    return f"{free}, of which {floor} stay free"


def _why(repository: Answer) -> str:
    owners = ", ".join(AuthorId.parse(owner).short + "…" for owner in repository.texts("owners"))
    why = _REASONS.get(repository.text("reason"), repository.text("reason")).format(owners=owners or "an author")
    if repository.flag("lost"):
        why += "; LOST, its folder is gone or damaged: guts seed fetches it again"
    if repository.json.get("removed_in_s") is not None:
        why += f"; removed in {span_text(repository.seconds('removed_in_s'))}"
    return why
