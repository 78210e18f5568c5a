"""``guts verify``: are the refs of a clone, or of a stranger's mirror, those that the maintainers signed?"""

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlencode

import click

from guts.addresses import BadAddress, RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli import completing
from guts.cli.answer import Answer
from guts.cli.session import Session, emit, json_option, pass_session, say, span_text, timeout_option
from guts.cli.waiting import waiting
from guts.errors import ExitStatus, UsageError
from guts.ids import BadId, ObjectId, RepositoryId

if TYPE_CHECKING:  # PyNaCl and asyncio are loaded by the command, not by --help
    from guts.cli.client import ControlClient
    from guts.cli.verifying import Finding, Signature, Signed
    from guts.git.mirror import Clone, View

SYNC_TIMEOUT: Final = 10.0
"""Seconds that other holders have to say what is newer, before what the node holds is taken for the newest."""

MAX_ASKED: Final = 256
"""Refs whose past is asked for: what the API takes at once. Of more, the mirror is not worth more questions."""

_HEX: Final = re.compile(r"[0-9a-f]{40}")
_ID: Final = re.compile(r"(?<![a-z0-9])repo1[02-9ac-hj-np-z]{58}(?![a-z0-9])")


class WhichRepository(UsageError):
    """Nothing says which repository a clone or a mirror is of."""

    code: ClassVar[str] = "WHICH_REPOSITORY"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND

    def __init__(self, where: str) -> None:
        super().__init__(
            f"nothing says which repository {where} is of", hint=f"guts verify --repository repo1… {where}"
        )


@dataclass(frozen=True, slots=True)
class _Node:
    """The node that is asked, and what it is asked with."""

    client: "ControlClient"
    url: RepositoryUrl
    timeout: float

    @property
    def path(self) -> str:
        return f"/v1/repositories/{self.url.repository}"

    def evidence(self) -> "Signed":
        from guts.cli.verifying import Signed

        query = [("timeout", str(self.timeout)), *([("hint", str(self.url.hint))] if self.url.hint else [])]
        value = self.client.get(f"{self.path}/evidence?{urlencode(query)}", self.timeout)
        return Signed.from_answer(self.url.repository, Answer.of(value))

    def past(self, refs: Mapping[str, str]) -> Answer:
        body = {"refs": dict(refs), "timeout": self.timeout, "hints": [str(self.url.hint)] if self.url.hint else []}
        return Answer.of(self.client.send("POST", f"{self.path}/past", body, self.timeout))


@click.command()
@click.argument("where", metavar="[DIR|URL]", default=".")
@click.option(
    "--repository", metavar="REPOSITORY", shell_complete=completing.repositories, help="What it is a clone of."
)
@click.option("--remote", metavar="NAME", help="Which remote of the clone (default: origin, or the only one).")
@click.option(
    "--records",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Believe the signed records in DIR, a node's folder of the repository, and ask nobody.",
)
@timeout_option(60)
@json_option
@pass_session
def verify(
    session: Session,
    as_json: bool,
    where: str,
    repository: str | None,
    remote: str | None,
    records: Path | None,
    timeout: float,
) -> int:
    """Compare a clone, or a mirror that is not trusted, with what the maintainers signed.

    Names every ref that nobody signed (forged, unsigned), that is older than what is signed (stale), or that is
    missing (withheld); exit status 7 where there is one. Of a URL nothing but the list of refs is fetched.
    """
    import asyncio

    from guts.cli.known_repositories import remember
    from guts.cli.verifying import Signed, fetching_may_help, judged

    seen = asyncio.run(_seen(where, remote, timeout))
    with contextlib.ExitStack() as stack:
        node: _Node | None = None
        if records is not None:
            wanted = RepositoryUrl.parse(repository).repository if repository else seen.repository()
            state = _joined(asyncio.run(Signed.from_folder(wanted, records)), seen)
        else:
            url = RepositoryUrl.parse(repository) if repository else seen.url()
            stack.enter_context(waiting(lambda: f"asking for {url.repository.short}…"))
            node = stack.enter_context(_reached(session, url, timeout))
            state = node.evidence()
        for line in (*state.notes, *remember(session.paths, state.answer())):
            say(f"guts: {line}")

        findings = _findings(state, seen)
        doubtful = {finding.ref: finding.oid for finding in findings if finding.doubtful and finding.oid is not None}
        if doubtful:
            earlier, contained = _past(node, doubtful) if node is not None else ({}, _contained(state, seen, findings))
            findings = [judged(finding, earlier, contained) for finding in findings]
        findings = [*_head(state, seen, findings), *findings, *_detached(state, seen)]
    elsewhere = seen.view.elsewhere
    emit(as_json, _json(state, findings, elsewhere), [*map(_line, findings), _summary(state, findings, elsewhere)])
    if seen.tracked is not None and fetching_may_help(findings):
        say(f"hint: a clone that has not been fetched for a while looks the same: git fetch {seen.tracked}, then again")
    return ExitStatus.INTEGRITY if any(finding.verdict.bad for finding in findings) else ExitStatus.OK


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is to be verified.

    Attributes:
        where: as it was given.
        expects: whether a ref of the remote should be there.
        urls: that may name the repository.
        tracked: the remote whose refs a clone has as they were fetched last.
    """

    where: str
    view: "View"
    expects: Callable[[str], bool]
    urls: Sequence[str]
    clone: "Clone | None" = None
    tracked: str | None = None

    def repository(self) -> RepositoryId | None:
        """Return what it is said to be of; that is not believed, only compared."""
        for url in self.urls:
            with contextlib.suppress(BadId, BadAddress):
                return RepositoryUrl.parse(url).repository
        if self.clone is not None and self.clone.repository is not None:
            return RepositoryId.parse(self.clone.repository)
        for url in self.urls:
            for found in _ID.findall(url):
                with contextlib.suppress(BadId):
                    return RepositoryId.parse(found)
        return None

    def url(self) -> RepositoryUrl:
        """Return the same, with an address where a URL has one. Raises: ``WhichRepository``, ``BadId``."""
        for url in self.urls:
            with contextlib.suppress(BadId, BadAddress):
                return RepositoryUrl.parse(url)
        found = self.repository()
        if found is None:
            raise WhichRepository(self.where)
        return RepositoryUrl(found)


async def _seen(where: str, remote: str | None, timeout: float) -> _Seen:  # noqa: ASYNC109 (told to a person)
    """Return what there is to see at ``where``.

    Raises:
        UsageError: it is no clone, or the wrong kind of URL.
        MirrorFailed: the mirror does not tell its refs.
    """
    from guts.cli.verifying import SIGNED
    from guts.git.mirror import Clone, NoSuchRemote, list_mirror, view_of_clone, view_of_mirror
    from guts.git.source import NotAGitDirectory

    if os.path.isdir(where):  # noqa: ASYNC240 (a look, on this machine)
        clone = await Clone.open(Path(where))
        source = clone.remote(remote)
        if source is None and clone.bare:  # what a server has: it is the mirror
            return _Seen(where, view_of_mirror(await clone.refs(), SIGNED), lambda _: True, [where], clone)
        if source is None:
            raise NoSuchRemote(f"{where} has no remote: its refs came from nowhere", hint="guts verify URL")
        view = view_of_clone(await clone.refs(), source, SIGNED)
        tracked = source.name if any(one.target.startswith("refs/remotes/") for one in source.fetch) else None
        return _Seen(where, view, source.expects, [source.url, *clone.urls()], clone, tracked)
    if "/" not in where and ":" not in where:
        raise NotAGitDirectory(f"there is no directory {where!r} here", hint="guts verify DIR, or the URL of a mirror")
    if where.startswith(("guts:", "repo1")):
        hint = "a clone: guts verify DIR; a mirror: guts verify https://…"
        raise click.UsageError(f"{where} is verified whenever it is fetched; {hint}", click.get_current_context())
    return _Seen(where, view_of_mirror(await list_mirror(where, timeout), SIGNED), lambda _: True, [where])


@contextlib.contextmanager
def _reached(session: Session, url: RepositoryUrl, timeout: float) -> Iterator[_Node]:
    """Enter with the running node, brought up to date as far as others can be asked; or one for this command."""
    from guts.cli.client import ControlClient, NodeDown

    node = _Node(session.client(), url, timeout)
    try:
        node.client.send("POST", f"{node.path}/sync", {"timeout": SYNC_TIMEOUT}, SYNC_TIMEOUT)
    except ReportedError as error:
        if error.told.code != "NOT_SEEDED":
            say(f"guts: no other holder could be asked: {error.told.message}")
    except NodeDown:
        from guts.app import client_node, in_thread

        doors = () if url.hint is None else (url.hint,)
        with in_thread(client_node(session.config(), doors=doors)) as socket:
            yield _Node(ControlClient(socket), url, timeout)
        return
    yield node


def _findings(state: "Signed", seen: _Seen) -> "list[Finding]":
    from guts.cli.verifying import Finding, Verdict, compare, disguised

    view, canonical = seen.view, state.canonical
    findings = compare(state, canonical, view.there, seen.expects)
    findings += [disguised(name, oid) for name, oid in sorted(view.disguises.items())]
    return findings + [
        Finding(Verdict.LOCAL, ref, str(oid), state.signature(ref, canonical.refs.get(ref)))
        for ref, oid in sorted(view.own.items())
        if oid not in (canonical.refs.get(ref), view.there.get(ref))
    ]


def _head(state: "Signed", seen: _Seen, findings: "Sequence[Finding]") -> "list[Finding]":
    from guts.cli.verifying import compare_whole_head

    view = seen.view
    found = compare_whole_head(state, state.canonical, view.there, view.head, view.head_oid, findings)
    return [] if found is None else [found]


def _detached(state: "Signed", seen: _Seen) -> "list[Finding]":
    """Return what is to be said of the clone's own HEAD where it is on no branch: nothing, if that is signed."""
    from guts.cli.verifying import DETACHED, Finding, Verdict

    view, oid = seen.view, seen.view.detached
    if oid is None:
        return []
    signed = set(state.canonical.refs.values())
    if oid in signed or _known_here(state, seen, [(oid, one) for one in sorted(signed)]):
        return []
    own = view.made_here or oid in view.own.values()
    note = "on no branch, and in nothing that is signed"
    return [Finding(Verdict.LOCAL if own else Verdict.UNSIGNED, DETACHED, str(oid), note=note)]


def _past(node: _Node, doubtful: Mapping[str, str]) -> "tuple[dict[str, Signature], set[str]]":
    """Return which of the refs an older record had there, and which are part of what is signed, by the node."""
    from guts.cli.verifying import earlier_signature

    try:
        answer = node.past(dict(list(doubtful.items())[:MAX_ASKED]))
    except ReportedError as error:
        say(f"guts: whether what nobody signs now was signed once can't be told: {error.told.message}")
        return {}, set()
    found = {one.text("ref"): earlier_signature(node.url.repository, one) for one in answer.objects("refs")}
    return found, set(answer.texts("contained"))


def _joined(state: "Signed", seen: _Seen) -> "Signed":
    """Return records from a folder with what their join depends on, as far as objects on this machine tell it."""
    return dataclasses.replace(state, ancestors=_known_here(state, seen, state.questions))


def _contained(state: "Signed", seen: _Seen, findings: "Sequence[Finding]") -> set[str]:
    """Return which refs are part of what is signed, as far as objects on this machine tell it."""
    pairs = {
        finding.ref: (ObjectId(bytes.fromhex(finding.oid)), finding.signed.oid)
        for finding in findings
        if finding.doubtful and finding.oid and finding.signed is not None and finding.signed.oid is not None
    }
    known = _known_here(state, seen, list(pairs.values()))
    return {ref for ref, pair in pairs.items() if pair in known}


def _known_here(
    state: "Signed", seen: _Seen, pairs: Sequence[tuple[ObjectId, ObjectId]]
) -> set[tuple[ObjectId, ObjectId]]:
    import asyncio

    from guts.git.mirror import ancestors

    places = [*([state.path] if state.path else []), *([seen.clone.path] if seen.clone is not None else [])]
    return set().union(*(asyncio.run(ancestors(place, pairs)) for place in places)) if pairs else set()


def _line(finding: "Finding") -> str:
    from guts.cli.verifying import Verdict

    where = _printable(finding.ref)
    if finding.oid is not None:
        where += f" {finding.oid[:7] if _HEX.fullmatch(finding.oid) else _printable(finding.oid)}"
    signed, note = finding.signed, finding.note
    match finding.verdict:
        case Verdict.OK:
            text = f"signed by {_who(signed)}, {_age(signed)} old" + (f"; {note}" if note else "")
        case Verdict.FORGED | Verdict.UNSIGNED if finding.signed_as is not None:
            text = f": signed, but as {finding.signed_as}" + (f"; {_says(signed)}" if signed is not None else "")
        case Verdict.FORGED:
            text = f": nobody signed that; {note or _says(signed)}"
        case Verdict.STALE if finding.earlier is not None and finding.earlier.oid is not None:
            text = f": {_says(finding.earlier)}, and since then {_says(signed)}"
            if signed is not None:
                text += f"; older by {span_text((signed.signed_ms - finding.earlier.signed_ms) / 1000)}"
        case Verdict.STALE:
            text = f": {note or 'superseded'}; {_says(signed)}"
        case Verdict.WITHHELD:
            text = f": {_says(signed)}, and it is not there"
        case Verdict.UNSIGNED if signed is not None:
            text = f": nobody signed that; {_says(signed)}"
        case Verdict.UNSIGNED:
            text = ": " + (note or "no maintainer's record has it")
        case Verdict.LOCAL:
            text = f": this clone's own, {note or 'not compared'}"
    return f"{finding.verdict}: {where}{text if text.startswith(':') else f' {text}'}"


def _who(signed: "Signature | None") -> str:
    return "nobody" if signed is None else f"{signed.author.short}…, seq {signed.seq}"


def _age(signed: "Signature | None") -> str:
    return "-" if signed is None else span_text(time.time() - signed.signed_ms / 1000)


def _says(signed: "Signature | None") -> str:
    """Return who signed what: ``auth1… signed 1a2b3c4 (seq 17, 40s ago)``."""
    if signed is None:
        return "no record has it"
    done = "deleted it" if signed.oid is None else f"signed {str(signed.oid)[:7]}"
    return f"{signed.author.short}… {done} (seq {signed.seq}, {_age(signed)} ago)"


def _summary(state: "Signed", findings: "Sequence[Finding]", elsewhere: int) -> str:
    counts = {verdict: sum(one.verdict == verdict for one in findings) for verdict in {one.verdict for one in findings}}
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "no refs"
    others = "1 other holder" if state.sources == 1 else f"{state.sources} holders"
    compared = f"compared with {others}" if state.sources else "no other holder was compared"
    passed = f"; {elsewhere} refs elsewhere, which nobody signs" if elsewhere else ""
    return f"{told}; identity epoch {state.chain.epoch}; {compared}{passed}"


def _json(state: "Signed", findings: "Sequence[Finding]", elsewhere: int) -> dict[str, object]:
    return {
        "repository": str(state.chain.repository),
        "name": state.chain.current.name,
        "epoch": state.chain.epoch,
        "maintainers": [str(author) for author in state.chain.current.maintainers],
        "sources": state.sources,
        "ok": not any(finding.verdict.bad for finding in findings),
        "refs": [
            {
                "verdict": finding.verdict,
                "ref": finding.ref,
                "oid": finding.oid,
                "signed": _signature_json(finding.signed),
                "earlier": _signature_json(finding.earlier),
                "note": finding.note or None,
                "signed_as": finding.signed_as if finding.doubtful else None,
            }
            for finding in findings
        ],
        "elsewhere": elsewhere,
    }


def _signature_json(signed: "Signature | None") -> dict[str, object] | None:
    if signed is None:
        return None
    oid = None if signed.oid is None else str(signed.oid)
    return {"author": str(signed.author), "oid": oid, "seq": signed.seq, "signed_ms": signed.signed_ms}


def _printable(text: str) -> str:
    """Return what a stranger chose so that it moves no terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
