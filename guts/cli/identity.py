"""``guts identity``: show, propose, reaffirm, sign, apply. How the maintainers of a repository change it.

A change is a file (``guts.cli.proposal``) that every maintainer and every added key signs, each at home; whoever has
it when it is complete hands it to a node.
"""

import base64
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guts.cli.answer import Answer, BadAnswer
from guts.cli.author import author_key
from guts.cli.repositories import fork_lines, resolve
from guts.cli.session import Session, age_text, emit, json_option, pass_session, say
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.cli.proposal import Proposal
    from guts.trust.chain import IdentityChain
    from guts.trust.identity_document import AuthorPoint

_repository = click.argument("repository", metavar="REPOSITORY")
_file = click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def identity() -> None:
    """Show a repository's identity, or change it: its maintainers, threshold, name.

    propose writes a file; the maintainers and every added key sign it, each at home; apply hands it to your node.
    """


@identity.command()
@click.argument("repository", metavar="[REPOSITORY]", default=".")
@json_option
@pass_session
def show(session: Session, as_json: bool, repository: str) -> None:
    """Show the identity documents, each checked: who may sign since when."""
    from guts.cli.proposal import changes

    chain = _chain(session, resolve(repository).repository)
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
                "changes": changed,
            }
        )
        lines.append(f"epoch {document.epoch}  {document.hash.hex()[:12]}  {age_text(document.created_ms)}")
        lines += [f"  {line}" for line in changed]
    held = Answer.of(session.client().get(f"/v1/repositories/{chain.repository}"))
    lines += fork_lines(held)
    lines.append(f"maintainers, of whom {chain.current.threshold} must sign a change:")
    lines += [f"  {author}" for author in chain.current.maintainers]
    fork = held.json.get("identity_fork")
    emit(as_json, {"repository": str(chain.repository), "documents": value, "fork": fork}, lines)


@identity.command()
@click.option("--add", "added", multiple=True, metavar="auth1…", help="A new maintainer, who must sign too.")
@click.option("--remove", "removed", multiple=True, metavar="auth1…", help="A maintainer who shall be none any more.")
@click.option("--threshold", type=click.IntRange(1), help="Signatures that a change needs from then on.")
@click.option("--name", help="Another name.")
@click.option("--description", help="Another line of text.")
@click.option("--default-branch", help="Another default branch.")
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
) -> None:
    """Write the next identity document to FILE, for the maintainers to sign.

    The threshold becomes more than half of the maintainers where their number changes.
    """
    from guts.cli.proposal import BadProposal, Proposal
    from guts.errors import PeerFault
    from guts.trust.identity_document import NONCE_LENGTH

    identifier = resolve(repository).repository
    chain = _chain(session, identifier)
    coming, going = [AuthorId.parse(text) for text in added], [AuthorId.parse(text) for text in removed]
    for author in going:
        if author not in chain.current.maintainers:
            raise BadProposal(f"{author} is not a maintainer", hint=f"guts maintainers ls {identifier}")
    maintainers = (*(a for a in chain.current.maintainers if a not in going), *coming)
    try:
        document = chain.successor(
            created_ms=time.time_ns() // 1_000_000,
            nonce=secrets.token_bytes(NONCE_LENGTH),
            name=name,
            description=description,
            default_branch=default_branch,
            maintainers=maintainers if coming or going else None,
            threshold=threshold,
            removed=tuple(_points(session, identifier, going)),
        )
    except PeerFault as error:
        raise BadProposal(f"this can't be an identity document: {error}") from None
    proposal = Proposal(chain, document, {})
    if not proposal.changes():
        raise BadProposal("nothing would change", hint="guts identity propose --help")
    _propose(proposal, file, as_json)


@identity.command()
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
    from guts.cli.proposal import BadProposal, Proposal
    from guts.errors import PeerFault
    from guts.trust.identity_document import NONCE_LENGTH

    identifier = resolve(repository).repository
    chain = _chain(session, identifier)
    try:
        document = chain.successor(
            created_ms=time.time_ns() // 1_000_000,
            nonce=secrets.token_bytes(NONCE_LENGTH),
            reaffirmed=(_reaffirmed(session, identifier, AuthorId.parse(author), record),),
        )
    except PeerFault as error:
        raise BadProposal(f"this can't be an identity document: {error}") from None
    _propose(Proposal(chain, document, {}), file, as_json)


@identity.command()
@_file
@json_option
@pass_session
def sign(session: Session, as_json: bool, file: Path) -> None:
    """Put your signature into a proposal, after showing what it changes; needs no node."""
    from guts.cli.proposal import Proposal

    proposal = Proposal.read(file)
    say(f"{proposal.chain.current.name}  {proposal.chain.repository}, epoch {proposal.document.epoch}:")
    for line in proposal.changes():
        say(f"  {line}")
    signed = proposal.signed(author_key(session))
    signed.rewrite(file)
    _tell(signed, file, as_json, "signed")


@identity.command()
@_file
@json_option
@pass_session
def apply(session: Session, as_json: bool, file: Path) -> None:
    """Hand a proposal with all its signatures to your node, which tells the others."""
    from guts.cli.proposal import Proposal

    proposal = Proposal.read(file)
    body = {"document": base64.b64encode(proposal.encode()).decode()}
    path = f"/v1/repositories/{proposal.chain.repository}/identity"
    answer = Answer.of(session.client().send("POST", path, body))
    verb = "unchanged" if answer.flag("unchanged") else "applied"
    emit(as_json, answer.json, f"{verb}: {answer.text('repository')} is at epoch {answer.number('epoch')}")


def _chain(session: Session, repository: RepositoryId) -> "IdentityChain":
    """Return the identity documents that the node holds, checked. Raises: ``BadAnswer``: they are another's."""
    from guts.errors import PeerFault
    from guts.trust.chain import IdentityChain

    answer = Answer.of(session.client().get(f"/v1/repositories/{repository}/publication"))
    try:
        chain = IdentityChain.from_documents([base64.b64decode(text) for text in answer.texts("documents")])
    except (PeerFault, ValueError) as error:
        raise BadAnswer(f"has no valid identity documents: {error}") from None
    if chain.repository != repository:
        raise BadAnswer(f"is about another repository than {repository}")
    return chain


def _points(session: Session, repository: RepositoryId, authors: list[AuthorId]) -> "list[AuthorPoint]":
    """Return the newest record of each author that the node holds."""
    from guts.trust.identity_document import AuthorPoint

    records = Answer.of(session.client().get(f"/v1/repositories/{repository}")).objects("signed_refs")
    newest = {record.text("author"): (record.number("seq"), record.text("hash")) for record in records}
    points = []
    for author in authors:
        seq, digest = newest.get(str(author), (0, ""))
        points.append(AuthorPoint(author, seq, bytes.fromhex(digest)))
    return points


def _reaffirmed(session: Session, repository: RepositoryId, author: AuthorId, begin: str | None) -> "AuthorPoint":
    """Return the author's record whose hash begins like that; the one that counts, where nothing is said."""
    from guts.cli.proposal import BadProposal
    from guts.trust.identity_document import AuthorPoint

    answer = Answer.of(session.client().get(f"/v1/repositories/{repository}"))
    splits = [split for split in answer.objects("splits") if split.text("author") == str(author)]
    sides = [record for split in splits for record in split.objects("records")]
    own = [record for record in answer.objects("signed_refs") if record.text("author") == str(author)]
    found = own if begin is None else [one for one in (*own, *sides) if one.text("hash").startswith(begin.lower())]
    if len(found) != 1:
        which = "that counts" if begin is None else f"whose hash begins with {begin!r}"
        raise BadProposal(f"there is no one record of {author} {which}", hint=f"guts inspect {repository}")
    return AuthorPoint(author, found[0].number("seq"), bytes.fromhex(found[0].text("hash")))


def _propose(proposal: "Proposal", file: Path, as_json: bool) -> None:
    document = proposal.document
    if document.threshold == len(document.maintainers) > 1:
        say(
            f"warning: all {document.threshold} maintainers must sign any later change: one lost key locks the "
            "identity; --threshold sets another number"
        )
    proposal.create(file)
    _tell(proposal, file, as_json, "proposed")


def _tell(proposal: "Proposal", file: Path, as_json: bool, verb: str) -> None:
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
    still = [f"still to sign: {line}" for line in missing] or [f"complete: guts identity apply {file}"]
    emit(as_json, value, [f"{verb}: {file}", *([] if verb == "signed" else proposal.changes()), *still])
