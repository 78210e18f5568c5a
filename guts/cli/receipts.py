"""``guts receipts``: which nodes have confirmed, with their signature, that they committed which record."""

import asyncio
import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli import completing
from guts.cli.answer import Answer, BadAnswer
from guts.cli.client import NodeDown
from guts.cli.kept_receipts import all_kept, keep_receipts
from guts.cli.session import Session, emit, instant_text, json_option, pass_session, say, table
from guts.cli.short_ids import KNOWN_ID
from guts.cli.waiting import waiting
from guts.errors import ExitStatus, StorageFault
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.cli.client import ControlClient
    from guts.records import ReceiptClaim
    from guts.trust.signed_refs import SignedHeader

WAIT_TIMEOUT: Final = 20.0
"""Seconds that a publication waits for the replicas that it wants; the node goes on telling them."""

OK, OLDER, NOT_COMPARED = "ok", "ok, older record", "ok, record not here"


@dataclass(frozen=True, slots=True)
class _Row:
    """One receipt; ``checked`` is what ``--verify`` says of it, ``forged`` whether that is bad."""

    claim: "ReceiptClaim"
    encoded: bytes
    newest: bool
    checked: str
    forged: bool

    def json(self, *, verify: bool) -> dict[str, object]:
        """Return it for ``--json``."""
        value: dict[str, object] = {
            "repository": str(self.claim.repository),
            "peer": str(self.claim.peer),
            "author": str(self.claim.author),
            "seq": self.claim.seq,
            "hash": self.claim.hash.hex(),
            "signed_ms": self.claim.time_ms,
            "newest": self.newest,
            "receipt": base64.b64encode(self.encoded).decode(),
        }
        return value | {"valid": not self.forged, "checked": self.checked} if verify else value


@dataclass
class _Found:
    """What was found.

    Attributes:
        headers: records of authors, their signatures checked.
        receipts: each with where it is from, and the record that it is to be for, where that says so.
        damaged: what can't be read, in words.
        known: how many connected nodes hold the repository or follow it; ``None``: no node says so.
    """

    headers: "list[SignedHeader]" = field(default_factory=list)
    receipts: "list[tuple[bytes, str, SignedHeader | None]]" = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    known: int | None = None


@click.command()
@click.argument(
    "target", metavar="[DIR|REPOSITORY]", default=".", type=KNOWN_ID, shell_complete=completing.repositories
)
@click.option("--author", metavar="auth1…", help="Only for this author's records.")
@click.option("--verify", is_flag=True, help="Check every signature, and that the receipts name the records held.")
@json_option
@pass_session
def receipts(session: Session, as_json: bool, target: str, author: str | None, verify: bool) -> int:
    """List who confirmed which record of which author, and when: what the node knows, and what your pushes kept.

    Works without a node, from what is kept in the git repository. With --verify, exit status 7 where one is forged.
    """
    wanted = AuthorId.parse(author) if author is not None else None
    repository, folder = _target(target)
    found = _Found()
    _kept(found, repository, folder)
    _told(session, found, repository)
    if repository is None and not found.receipts and not found.damaged:
        from guts.cli.publish import NotPublished

        raise NotPublished(f"the repository in {target} was never published", hint="guts publish")
    rows = [row for row in _rows(found) if wanted is None or row.claim.author == wanted]
    value: dict[str, object] = {
        "repository": str(repository) if repository is not None else None,
        "known": found.known,
        "receipts": [row.json(verify=verify) for row in rows],
    }
    emit(as_json, value | {"damaged": found.damaged} if verify else value, _lines(rows, verify=verify))
    if not rows and not as_json:
        say("no receipts yet; git push and guts publish --replicas N wait for them")
    for text in found.damaged:
        say(f"{'error' if verify else 'warning'}: {text}")
    forged = verify and (bool(found.damaged) or any(row.forged for row in rows))
    return ExitStatus.INTEGRITY if forged else ExitStatus.OK


def wait_for_receipts(
    client: "ControlClient",
    git_dir: Path,
    repository: RepositoryId,
    author: AuthorId,
    seq: int,
    replicas: int,
    timeout: float = WAIT_TIMEOUT,
) -> list[str]:
    """Wait until ``replicas`` nodes have confirmed a record that was just committed; return which have, as ids.

    What they signed is kept in ``git_dir``; that it can't be is only said.

    Args:
        timeout: seconds; when they are over, those who have are told.
    """
    query = f"author={author}&seq={seq}&replicas={replicas}&timeout={timeout:g}"
    with waiting(lambda: "waiting for replicas"):
        told = Answer.of(client.get(f"/v1/repositories/{repository}/receipts?{query}", timeout))
    try:
        keep_receipts(git_dir, told, repository, author)
    except (StorageFault, BadAnswer) as error:
        say(f"warning: the receipts could not be kept: {error}")
    return [row.text("peer") for row in told.objects("receipts")]


def _target(text: str) -> tuple[RepositoryId | None, Path | None]:
    """Return the repository that ``text`` names, as far as it is known, and the git directory where receipts may be."""
    from guts.git.source import NotAGitDirectory, git_directory, published_as

    if not os.path.isdir(text):  # unlike Path.is_dir, for a text of any length
        from guts.cli.repositories import resolve

        repository = resolve(text).repository
        try:
            return repository, asyncio.run(git_directory(Path()))
        except NotAGitDirectory:
            return repository, None
    folder = asyncio.run(git_directory(Path(text)))
    known = asyncio.run(published_as(Path(text)))
    return (RepositoryUrl.parse(known).repository if known is not None else None), folder


def _kept(found: _Found, repository: RepositoryId | None, folder: Path | None) -> None:
    """Put in what is kept of one's own pushes."""
    from guts.errors import PeerFault
    from guts.trust.signed_refs import SignedHeader

    for kept in all_kept(folder) if folder is not None else ():
        try:
            signed = SignedHeader.decode(kept.header)
        except PeerFault:
            found.damaged.append(f"{kept.file}: the record in it is damaged, or not signed by its author")
            continue
        if repository is None or signed.header.repository == repository:
            found.headers.append(signed)
            found.receipts += [(encoded, str(kept.file), signed) for encoded in kept.receipts]


def _told(session: Session, found: _Found, repository: RepositoryId | None) -> None:
    """Put in what the node knows. Raises: ``GutsError``: it does not answer, and nothing was found elsewhere."""
    from guts.errors import PeerFault
    from guts.trust.signed_refs import SignedHeader

    if repository is None:
        return
    try:
        answer = Answer.of(session.client().get(f"/v1/repositories/{repository}/receipts"))
    except (NodeDown, ReportedError) as error:
        if not found.receipts and not found.damaged:
            raise
        say(f"hint: these are from your own pushes; the node says nothing: {error}")
        return
    found.known = answer.number("known", 0)
    try:
        for record in answer.objects("records"):
            found.headers.append(SignedHeader.decode(base64.b64decode(record.text("header"), validate=True)))
        for row in answer.objects("receipts"):
            found.receipts.append((base64.b64decode(row.text("receipt"), validate=True), "the node", None))
    except (PeerFault, binascii.Error) as error:
        raise BadAnswer(f"has records that are not valid: {error}") from None


def _rows(found: _Found) -> list[_Row]:
    """Return each receipt once, by repository and author, the newest record first, in order of time."""
    from guts.errors import PeerFault
    from guts.records import ReceiptClaim

    rows: dict[tuple[bytes, bool], _Row] = {}
    for encoded, where, signed in found.receipts:
        try:
            claim = ReceiptClaim.decode(encoded)
        except PeerFault:
            found.damaged.append(f"{where}: a receipt that can't be read")
            continue
        row = _checked(claim, encoded, signed, found.headers)
        rows[encoded, row.forged] = row
    return sorted(
        rows.values(),
        key=lambda row: (row.claim.repository, row.claim.author, -row.claim.seq, row.claim.time_ms, row.claim.peer),
    )


def _checked(
    claim: "ReceiptClaim", encoded: bytes, signed: "SignedHeader | None", headers: "list[SignedHeader]"
) -> _Row:
    from guts.errors import PeerFault
    from guts.records import CommitReceipt

    author = (claim.repository, claim.author)
    known = [other.header for other in headers if (other.header.repository, other.header.author) == author]
    newest = claim.seq >= max((header.seq for header in known), default=0)
    same = [signed.header] if signed is not None else [header for header in known if header.seq == claim.seq]
    try:
        CommitReceipt.verify(encoded)
    except PeerFault as error:
        return _Row(claim, encoded, newest, f"FORGED: {error}", forged=True)
    named = (*author, claim.seq, claim.hash)
    if same and named not in [(header.repository, header.author, header.seq, header.hash) for header in same]:
        text = f"FORGED: names another record than {same[0].hash.hex()[:12]}, which is held"
        return _Row(claim, encoded, newest, text, forged=True)
    return _Row(claim, encoded, newest, OK if same else NOT_COMPARED if newest else OLDER, forged=False)


def _lines(rows: list[_Row], *, verify: bool) -> list[str]:
    several = len({row.claim.repository for row in rows}) > 1
    headings = [*(["REPOSITORY"] if several else []), "RECORD", "AUTHOR", "REPLICA", "CONFIRMED"]
    cells = [
        (
            *([f"{row.claim.repository.short}…"] if several else []),
            f"{row.claim.hash.hex()[:12]}",
            f"{row.claim.author.short}…",
            f"{row.claim.peer.short}…",
            instant_text(row.claim.time_ms),
            *([row.checked] if verify else []),
        )
        for row in rows
    ]
    return table([*headings, *(["CHECKED"] if verify else [])], cells)
