"""``guts identity``: show, propose, reaffirm, sign, apply. How the maintainers of a repository change it.

A change is a file (``guts.cli.proposal``) that every maintainer and every added key signs, each at home; whoever has
it when it is complete hands it to a node.
"""

import base64
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from guts.cli import completing
from guts.cli.answer import Answer
from guts.cli.author import author_key, own_author
from guts.cli.chain import known_chain
from guts.cli.repositories import fork_lines, resolve
from guts.cli.session import Session, age_text, emit, json_option, pass_session, say
from guts.cli.short_ids import KNOWN_ID
from guts.errors import ExitStatus, UsageError
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.cli.proposal import Proposal
    from guts.trust.identity_document import AuthorPoint

_repository = click.argument("repository", metavar="REPOSITORY", type=KNOWN_ID, shell_complete=completing.repositories)
_file = click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))


class AlreadyApplied(UsageError):
    """The repository has an identity document of the proposal's epoch already."""

    code: ClassVar[str] = "ALREADY_APPLIED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED


class PublishedSince(UsageError):
    """A maintainer has published since its removal, or its reaffirmation, was proposed."""

    code: ClassVar[str] = "PUBLISHED_SINCE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, point: "AuthorPoint") -> None:
        from guts.cli.proposal import record_text

        super().__init__(
            f"{point.author} has published since the proposal was made ({record_text(point)}): it would not count",
            hint="propose anew; or, where that shall not count: guts identity apply --anyway FILE",
        )


@click.group()
def identity() -> None:
    """Show a repository's identity, or change it: its maintainers, threshold, name.

    propose writes a file; the maintainers and every added key sign it, each at home; apply hands it to your node.
    """


@identity.command(short_help="Show identity documents, or a proposal.")
@click.argument("subject", metavar="[REPOSITORY|FILE]", default=".")
@json_option
@pass_session
def show(session: Session, as_json: bool, subject: str) -> None:
    """Show the identity documents of a repository, or the proposal in FILE, each checked.

    Of a repository: who may sign since when. Of a proposal: what it changes, and who has signed; needs no node.
    """
    from guts.cli.proposal import Proposal, changes

    if os.path.isfile(subject):  # unlike Path.is_file, for a text of any length
        file = Path(subject)
        _tell(session, Proposal.read(file), file, as_json, None)
        return
    chain = known_chain(session.client(), resolve(subject).repository)
    value, lines = [], [f"{chain.current.name}  {chain.repository}"]
    for before, document in zip((None, *chain.history), chain.history, strict=False):
        changed = [] if before is None else changes(before, document)
        value.append(
            {
                "epoch": document.epoch,
                "hash": document.hash.hex(),
                "created_ms": document.created_ms,
                "name": document.name,
                "description": document.description,
                "default_branch": document.default_branch,
                "maintainers": [str(author) for author in document.maintainers],
                "threshold": document.threshold,
                "protected": [rule.pattern for rule in document.rules],
                "changes": changed,
            }
        )
        lines.append(f"epoch {document.epoch}  {document.hash.hex()[:12]}…  {age_text(document.created_ms)}")
        lines += [f"  {line}" for line in changed]
    held = Answer.of(session.client().get(f"/v1/repositories/{chain.repository}"))
    lines += fork_lines(held)
    lines += [f"protected: {rule.pattern}" for rule in chain.current.rules]
    lines.append(f"maintainers, of whom {chain.current.threshold} must sign a change:")
    lines += [f"  {author}" for author in chain.current.maintainers]
    fork = held.json.get("identity_fork")
    emit(as_json, {"repository": str(chain.repository), "documents": value, "fork": fork}, lines)


@identity.command(short_help="Write the next identity document to a file.")
@click.option("--add", "added", multiple=True, metavar="auth1…", help="A new maintainer, who must sign too.")
@click.option("--remove", "removed", multiple=True, metavar="auth1…", help="A maintainer who shall be none any more.")
@click.option("--threshold", type=click.IntRange(1), help="Signatures that a change needs from then on.")
@click.option("--name", help="Another name.")
@click.option("--description", help="Another line of text.")
@click.option(
    "--default-branch",
    help="Another default branch, by name. What a clone checks out is HEAD, which guts publish --head moves.",
)
@click.option(
    "--protect",
    "protected",
    multiple=True,
    metavar="PATTERN",
    help="Refs that no push deletes or moves other than forward: main, release/*, refs/tags/v*.",
)
@click.option("--unprotect", "unprotected", multiple=True, metavar="PATTERN", help="A pattern that is a rule no more.")
@_repository
@_file
@json_option
@pass_session
def propose(
    session: Session,
    as_json: bool,
    repository: str,
    file: Path,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    threshold: int | None,
    name: str | None,
    description: str | None,
    default_branch: str | None,
    protected: tuple[str, ...],
    unprotected: tuple[str, ...],
) -> None:
    """Write the next identity document to FILE, for the maintainers to sign.

    The threshold becomes more than half of the maintainers where their number changes.
    """
    from guts.cli import proposing
    from guts.cli.proposal import BadProposal, Proposal
    from guts.errors import PeerFault
    from guts.trust.identity_document import NONCE_LENGTH

    identifier = resolve(repository).repository
    chain = known_chain(session.client(), identifier)
    coming, going = ([AuthorId.parse(text) for text in dict.fromkeys(texts)] for texts in (added, removed))
    maintainers = proposing.changed_maintainers(chain, coming, going)
    proposing.check_threshold(chain, maintainers, threshold)
    rules = proposing.changed_rules(chain, protected, unprotected)
    known = _inspected(session, identifier)
    try:
        document = chain.successor(
            created_ms=time.time_ns() // 1_000_000,
            nonce=secrets.token_bytes(NONCE_LENGTH),
            name=name,
            description=description,
            default_branch=default_branch,
            maintainers=maintainers,
            threshold=threshold,
            rules=rules,
            removed=tuple(proposing.newest_record(known, author) for author in going),
        )
    except PeerFault as error:
        raise BadProposal(f"this can't be an identity document: {error}") from None
    proposal = Proposal(chain, document, {})
    if not proposal.changes():
        raise BadProposal("nothing would change", hint="guts identity propose --help")
    if default_branch is not None:
        proposing.check_branch(known, default_branch)
    _propose(session, proposal, file, as_json)


@identity.command(short_help="Propose from which record a maintainer goes on.")
@click.argument("author", metavar="auth1…")
@click.option("--record", metavar="HASH", help="Another record: how its hash begins in guts inspect.")
@_repository
@_file
@json_option
@pass_session
def reaffirm(session: Session, as_json: bool, author: str, repository: str, file: Path, record: str | None) -> None:
    """Propose from which record a maintainer goes on: the one that counts now, from before the split.

    For a maintainer whose history split in two, such as after a restore from a backup.
    """
    from guts.cli import proposing
    from guts.cli.proposal import BadProposal, Proposal
    from guts.errors import PeerFault
    from guts.trust.identity_document import NONCE_LENGTH

    identifier = resolve(repository).repository
    chain = known_chain(session.client(), identifier)
    point = proposing.reaffirmed_record(_inspected(session, identifier), AuthorId.parse(author), record)
    try:
        document = chain.successor(
            created_ms=time.time_ns() // 1_000_000, nonce=secrets.token_bytes(NONCE_LENGTH), reaffirmed=(point,)
        )
    except PeerFault as error:
        raise BadProposal(f"this can't be an identity document: {error}") from None
    _propose(session, Proposal(chain, document, {}), file, as_json)


@identity.command(short_help="Put your signature into a proposal.")
@_file
@json_option
@pass_session
def sign(session: Session, as_json: bool, file: Path) -> None:
    """Put your signature into a proposal, after showing what it changes.

    Needs no node; one that answers is asked whether the proposal still stands. One document per epoch is signed.
    """
    from guts.cli.proposal import Proposal
    from guts.cli.signed_documents import note_signature

    proposal = Proposal.read(file)
    if not as_json:  # whose result has the changes in it
        say("\n".join(_title_and_changes(proposal)))
    proposal.check_points(time.time_ns() // 1_000_000)
    _check_open(session, proposal)
    key = author_key(session)
    signed = proposal.signed(key)
    note_signature(session.paths.author_key, key.author_id, proposal.document, file)
    signed.rewrite(file)
    _tell(session, signed, file, as_json, "signed")


@identity.command(short_help="Hand a signed proposal to your node.")
@click.option("--anyway", is_flag=True, help="Also where who is removed, or reaffirmed, has published since.")
@_file
@json_option
@pass_session
def apply(session: Session, as_json: bool, file: Path, anyway: bool) -> None:
    """Hand a proposal with all its signatures to your node, which tells the others."""
    from guts.cli.proposal import BadProposal, Proposal
    from guts.cli.proposing import published_since

    proposal = Proposal.read(file)
    if missing := proposal.missing():
        hint = proposal.next_step(file, own_author(session))
        raise BadProposal(f"signatures are missing: {'; '.join(missing)}", hint=hint)
    repository = proposal.chain.repository
    known = _inspected(session, repository)
    if not anyway and known.number("epoch") < proposal.document.epoch:
        newer = published_since(known, proposal)
        if newer is not None:
            raise PublishedSince(newer)
    body = {"document": base64.b64encode(proposal.encode()).decode()}
    answer = Answer.of(session.client().send("POST", f"/v1/repositories/{repository}/identity", body))
    verb = "unchanged" if answer.flag("unchanged") else "applied"
    emit(as_json, answer.json, f"{verb}: {answer.text('repository')} is at epoch {answer.number('epoch')}")


def _inspected(session: Session, repository: RepositoryId) -> Answer:
    return Answer.of(session.client().get(f"/v1/repositories/{repository}"))


def _check_open(session: Session, proposal: "Proposal") -> None:
    """Raises: ``AlreadyApplied``, ``BadProposal``: a node is there, and says that signing comes too late."""
    from guts.api.errors import ReportedError
    from guts.cli.client import NodeDown, NodeSilent
    from guts.cli.proposal import BadProposal

    repository, epoch = proposal.chain.repository, proposal.document.epoch
    try:
        chain = known_chain(session.client(), repository)
    except (NodeDown, NodeSilent):
        return
    except ReportedError as error:
        if error.told.exit_status is not ExitStatus.NOT_FOUND:
            raise
        return
    common = min(chain.epoch, proposal.chain.epoch)
    if chain.history[common].hash != proposal.chain.history[common].hash:
        raise BadProposal(
            f"this proposal is on top of another document of epoch {common} than your node has: the identity is split",
            hint=f"guts identity show {repository}",
        )
    if chain.epoch < epoch:
        return
    if chain.history[epoch].hash == proposal.document.hash:
        raise AlreadyApplied(f"this proposal is applied already: {repository} is at epoch {chain.epoch}")
    raise AlreadyApplied(
        f"epoch {epoch} is applied already, by another document",
        hint=f"make a new proposal: guts identity propose … {repository} FILE",
    )


def _propose(session: Session, proposal: "Proposal", file: Path, as_json: bool) -> None:
    document = proposal.document
    proposal.check_points(time.time_ns() // 1_000_000)
    if document.threshold == len(document.maintainers) > 1:
        say(
            f"warning: all {document.threshold} maintainers must sign any later change: one lost key locks the "
            "identity; --threshold sets another number"
        )
    proposal.create(file)
    _tell(session, proposal, file, as_json, "proposed")


def _title_and_changes(proposal: "Proposal") -> list[str]:
    title = f"{proposal.chain.current.name}  {proposal.chain.repository}, epoch {proposal.document.epoch}:"
    return [title, *(f"  {line}" for line in proposal.changes())]


def _tell(session: Session, proposal: "Proposal", file: Path, as_json: bool, done: str | None) -> None:
    """Write the state of a proposal, and what comes next; ``done``: what this command did with it."""
    missing = proposal.missing()
    value = {
        "repository": str(proposal.chain.repository),
        "epoch": proposal.document.epoch,
        "file": str(file),
        "changes": proposal.changes(),
        "signed_by": [str(author) for author in proposal.signatures],
        "missing_consent": [str(author) for author in proposal.consent],
        "missing_votes": proposal.votes,
        "complete": not missing,
    }
    if done is None:
        lines = [*_title_and_changes(proposal), *(f"signed by: {author}" for author in proposal.signatures)]
    else:
        lines = [f"{done}: {file}", *([] if done == "signed" else proposal.changes())]
    step = proposal.next_step(file, own_author(session))
    lines += [f"still to sign: {line}" for line in missing] or [f"complete: {step}"]
    emit(as_json, value, lines)
    if missing and not as_json:
        say(f"hint: {step}")
