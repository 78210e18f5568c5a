"""``guts publish``: sign the refs of a git repository and hand them to the node.

The first time this makes the repository's genesis document and remembers its id in the repository's own git
config; after that it signs whatever changed. The node prepares what is to be signed, since it knows the history
of signatures; the key stays here. What the node prepared is made again here before it is signed
(``guts.cli.signing``): a node that was broken into must not get a signature for refs of its own.
"""

import asyncio
import base64
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import click

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli.answer import Answer, BadAnswer
from guts.cli.author import author_key
from guts.cli.known_repositories import remember
from guts.cli.session import Session, emit, json_option, pass_session, say, timeout_option
from guts.cli.waiting import waiting
from guts.errors import ExitStatus, StorageFault, UsageError
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.sizes import size_text

if TYPE_CHECKING:  # PyNaCl and asyncio's subprocesses are loaded by the command, not by --help
    from guts.cli.signing import Update
    from guts.git.source import SourceRefs, SourceRepository
    from guts.identity import SigningKey
    from guts.trust.authoring import Copy
    from guts.trust.chain import IdentityChain
    from guts.trust.signed_refs import Header

UNNAMED: Final = "repository"
MAX_NAME: Final = 100
SHORT: Final = 10
"""Digits of an object id in what people read."""

MAX_ATTEMPTS: Final = 5
"""How often a publication is made anew because somebody else's came in between: more than a busy day needs."""


class NotPublished(UsageError):
    """The repository here was never published."""

    code: ClassVar[str] = "NOT_PUBLISHED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


class NotAMaintainer(UsageError):
    """The key here has no say in the repository."""

    code: ClassVar[str] = "NOT_A_MAINTAINER"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, author: AuthorId, repository: RepositoryId) -> None:
        super().__init__(
            f"{author} is NOT a maintainer of {repository}; nothing was sent",
            hint=f"a maintainer adds the key: guts identity propose --add {author} {repository} FILE",
        )


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.option("--name", metavar="NAME", help="First time: name (default: the folder's).")
@click.option("--description", metavar="TEXT", default="", help="First time: one line of text.")
@click.option("--force", is_flag=True, help="Also refs whose new commits do not contain the old ones.")
@click.option("--prune", is_flag=True, help="Delete what is published, by whomever, and not here.")
@click.option("--head", metavar="BRANCH", help="The branch that a clone checks out (default: the same as before).")
@click.option("--replicas", type=click.IntRange(0, 64), default=0, metavar="N", help="Wait until N nodes confirm it.")
@timeout_option(3600)
@json_option
@pass_session
def publish(
    session: Session,
    as_json: bool,
    directory: Path,
    name: str | None,
    description: str,
    force: bool,
    prune: bool,
    head: str | None,
    replicas: int,
    timeout: float,
) -> None:
    """Publish the git repository in DIRECTORY (default: here): its branches, tags and notes.

    Again after new commits: signs the new tips. What is not here stays published, unless --prune.
    """
    publisher = _Publisher(session, timeout, force, prune, head, replicas)
    published = asyncio.run(publisher.publish(directory, name, description))
    emit(as_json, published.json, published.lines)


def published_id(directory: str) -> RepositoryId:
    """Return the id under which the repository in ``directory`` was published.

    Raises: ``NotPublished``, and what ``SourceRepository.open`` raises.
    """
    from guts.git.source import SourceRepository

    async def read() -> str | None:
        return await (await SourceRepository.open(Path(directory))).repository()

    known = asyncio.run(read())
    if known is None:
        raise NotPublished(f"the repository in {directory} was never published", hint="guts publish")
    return RepositoryId.parse(known)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is published: the repository's identity, and the objects that the node has already."""

    chain: "IdentityChain"
    genesis: bytes | None
    tips: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class _Published:
    """What a publication has done."""

    json: dict[str, object]
    updates: "list[Update]"

    @property
    def lines(self) -> list[str]:
        """What it has done, for people: the refs as git's push tells them."""
        verb = "unchanged" if self.json["unchanged"] else "published"
        # Who fetched it meanwhile was no follower yet when it was committed.
        followed = self.json.get("followers") != 0 or self.json.get("replicas")
        alone = [] if followed else ["no other node seeds it yet"]
        updates = [_update_line(update) for update in self.updates]
        conflicts = self.json.get("conflicts")
        contested = [f"in conflict: {conflicts} refs; guts inspect shows them"] if conflicts else []
        told = [*updates, *contested, *alone, *_confirmed_lines(self.json)]
        return [f"{verb} {self.json['repository']}", *told, f"clone: git clone {self.json['url']}"]


class _Publisher:
    """One run of ``guts publish``."""

    def __init__(
        self, session: Session, timeout: float, force: bool, prune: bool, head: str | None, replicas: int
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._force = force
        self._prune = prune
        self._head = head
        self._replicas = replicas
        self._client = session.client()

    async def publish(self, directory: Path, name: str | None, description: str) -> "_Published":
        from guts.git.source import SourceRepository

        begun = time.monotonic()
        source = await SourceRepository.open(directory)
        refs = await source.refs()
        if self._head is not None:
            refs = _headed(refs, self._head)
        # Before anybody types a passphrase: is there a node at all?
        self._client.get("/v1/status")
        key = author_key(self._session)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                published = await self._attempt(source, refs, key, name, description)
                break
            except ReportedError as error:
                from guts.node.publishing import Overtaken

                if error.told.code != Overtaken.code or attempt == MAX_ATTEMPTS:
                    raise
        published.json["seconds"] = round(time.monotonic() - begun, 3)
        return published

    async def _attempt(
        self, source: "SourceRepository", refs: "SourceRefs", key: "SigningKey", name: str | None, description: str
    ) -> "_Published":
        from guts.cli.signing import sign_refs
        from guts.trust.authoring import Copy

        known = await source.repository()
        if known is None:
            subject = self._begun(await source.genesis(), key) or _first(
                key, name or _folder_name(source.path), description, refs
            )
        else:
            if name or description:
                say(f"hint: name and description stay; guts identity propose --name NAME {known} FILE changes them")
            subject = self._again(RepositoryId.parse(known))
            if key.author_id not in subject.chain.current.maintainers:
                raise NotAMaintainer(key.author_id, subject.chain.repository)
        force = set(refs.refs) if self._force else set[str]()
        own_copy = Copy(refs.refs, refs.head, force, self._prune, self._head is not None)
        prepared = await self._prepare(source, own_copy, key, subject)
        repository = subject.chain.repository
        url = str(RepositoryUrl(repository, subject.chain.current.name))
        result: dict[str, object] = {
            "repository": str(repository),
            "url": url,
            "author": str(key.author_id),
            "created": known is None,
            "unchanged": prepared.flag("unchanged"),
            "seq": prepared.number("seq", 0),
            "refs": len(refs.refs),
            "updates": [],
            "objects": 0,
        }
        updates: list[Update] = []
        if not prepared.flag("unchanged"):
            now_ms = time.time_ns() // 1_000_000
            signed = sign_refs(key, prepared, subject.chain, own_copy, now_ms, self._session.paths.author_key)
            updates = signed.updates
            if known is None:
                await source.set_genesis(base64.b64encode(subject.chain.documents[0]).decode())
            path = f"/v1/publications/{prepared.text('session')}/commit"
            body = {"signature": signed.signature.hex()}
            with waiting(lambda: "the node stores it"):
                committed = Answer.of(self._client.send("POST", path, body, self._timeout))
            self._note(signed.header)
            for warning in committed.objects("warnings"):
                say(f"warning: {warning.text('message')}\nhint: {warning.text('hint')}")
            result["objects"] = committed.number("objects", 0)
            result["conflicts"] = committed.number("conflicts", 0)
            result["followers"] = committed.number("followers", 0)
            result["warnings"] = [warning.json for warning in committed.objects("warnings")]
            result["updates"] = [_update_json(update) for update in updates]
            if self._replicas:
                result["wanted_replicas"] = self._replicas
                result["replicas"] = await self._confirmed(source, signed.header)
        if known is None:
            await source.set_repository(str(repository))
            # Whoever makes a repository need not be told later that it is new here.
            remember(self._session.paths, Answer.of(self._client.get(f"/v1/repositories/{repository}/refs")))
        await source.add_remote(url)
        return _Published(result, updates)

    async def _confirmed(self, source: "SourceRepository", header: "Header") -> list[str]:
        from guts.cli.receipts import wait_for_receipts
        from guts.git.source import git_directory

        git_dir = await git_directory(source.path)
        record = (header.repository, header.author, header.seq)
        return await asyncio.to_thread(wait_for_receipts, self._client, git_dir, *record, self._replicas)

    def _note(self, header: "Header") -> None:
        """Note what is published now; that stands, whether it can be noted or not."""
        from guts.cli.signed_records import note_published

        try:
            note_published(self._session.paths.author_key, header)
        except StorageFault as error:
            say(f"warning: it could not be noted that this is published: {error}")

    def _begun(self, document: str | None, key: "SigningKey") -> _Subject | None:
        """Return the repository whose first publication was cut short; the node may have committed it, or not."""
        from guts.errors import PeerFault
        from guts.service.commands import NotFollowed
        from guts.trust.chain import IdentityChain

        try:
            genesis = base64.b64decode(document or "", validate=True)
            chain = IdentityChain.from_documents([genesis])
        except (ValueError, PeerFault):
            return None
        if key.author_id not in chain.current.maintainers:
            return None
        try:
            return self._again(chain.repository)
        except ReportedError as error:
            if error.told.code != NotFollowed.code:
                raise
        return _Subject(chain, genesis, ())

    def _again(self, repository: RepositoryId) -> _Subject:
        from guts.trust.chain import IdentityChain

        answer = Answer.of(self._client.get(f"/v1/repositories/{repository}/publication"))
        chain = IdentityChain.from_documents([base64.b64decode(text) for text in answer.texts("documents")])
        if chain.repository != repository:
            raise BadAnswer(f"is about another repository than {repository}")
        return _Subject(chain, None, tuple(ObjectId(bytes.fromhex(tip)) for tip in answer.texts("tips")))

    async def _prepare(
        self,
        source: "SourceRepository",
        own_copy: "Copy",
        key: "SigningKey",
        subject: _Subject,
    ) -> Answer:
        header: dict[str, object] = {
            "genesis": base64.b64encode(subject.genesis).decode() if subject.genesis else None,
            "repository": str(subject.chain.repository),
            "author": str(key.author_id),
            "refs": {name: str(oid) for name, oid in own_copy.refs.items()},
            "head": own_copy.head,
            "move_head": own_copy.move_head,
            "force": sorted(own_copy.force),
            "prune": own_copy.prune,
        }
        sent = 0

        async def counted(pack: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            nonlocal sent
            async for piece in pack:
                sent += len(piece)
                yield piece

        async with source.pack(set(own_copy.refs.values()), subject.tips) as pack, _pulled(counted(pack)) as pieces:
            with waiting(lambda: f"the node has {size_text(sent)} of the pack"):
                answer = await asyncio.to_thread(
                    self._client.upload,
                    "/v1/publications",
                    header,
                    pieces,
                    self._timeout,
                )
        return Answer.of(answer)


def _first(key: "SigningKey", name: str, description: str, refs: "SourceRefs") -> _Subject:
    """Return a new repository: its genesis document, signed."""
    from guts.trust.chain import IdentityChain
    from guts.trust.identity_document import NONCE_LENGTH, IdentityDocument, InvalidIdentity

    try:
        document = IdentityDocument.genesis(
            name=name,
            description=description,
            default_branch=refs.head.removeprefix("refs/heads/"),
            maintainers=(key.author_id,),
            created_ms=time.time_ns() // 1_000_000,
            nonce=secrets.token_bytes(NONCE_LENGTH),
        )
    except InvalidIdentity as error:
        raise click.UsageError(
            f"{error} (name {name!r}; one has letters, digits, '.', '_' and '-', {MAX_NAME} at the most)"
        ) from None
    genesis = document.sign(key)
    return _Subject(IdentityChain.from_documents([genesis]), genesis, ())


def _confirmed_lines(result: dict[str, object]) -> list[str]:
    replicas = result.get("replicas")
    if not isinstance(replicas, list):
        return []
    names = ", ".join(f"{peer[:12]}…" for peer in replicas)
    told = "replica holds" if result["wanted_replicas"] == 1 else "replicas hold"
    return [f"{len(replicas)}/{result['wanted_replicas']} {told} it{f' ({names})' if names else ''}"]


def _update_json(update: "Update") -> dict[str, object]:
    old, new = (None if oid is None else str(oid) for oid in (update.old, update.new))
    return {"ref": update.ref, "old": old, "new": new, "forced": update.forced}


def _update_line(update: "Update") -> str:
    name = update.ref.removeprefix("refs/").removeprefix("heads/").removeprefix("tags/")
    if update.new is None:
        return f" - [deleted] {name}"
    if update.old is None:
        return f" * [new] {name}"
    between = f"{str(update.old)[:SHORT]}..{str(update.new)[:SHORT]} {name}"
    return f" + {between} (forced)" if update.forced else f"   {between}"


def _headed(refs: "SourceRefs", branch: str) -> "SourceRefs":
    """Return ``refs`` with HEAD on ``branch``. Raises: ``click.UsageError``: there is none of that name."""
    head = f"refs/heads/{branch.removeprefix('refs/heads/')}"
    if head not in refs.refs:
        raise click.UsageError(f"there is no branch {branch!r} here to be HEAD")
    return replace(refs, head=head)


def _folder_name(path: Path) -> str:
    """Return a name for the repository that ``path`` is in, from the name of its folder."""
    top = next((folder for folder in (path, *path.parents) if (folder / ".git").exists()), path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", top.name.removesuffix(".git")).lstrip("-._")
    return name[:MAX_NAME] or UNNAMED


@contextlib.asynccontextmanager
async def _pulled(pieces: AsyncIterator[bytes]) -> AsyncIterator[Iterator[bytes]]:
    """Enter with ``pieces`` for a thread: each is fetched when the thread asks, so none piles up.

    What the thread waits for when the context is left is broken off, so that ``pieces`` can be closed then.
    """
    loop = asyncio.get_running_loop()
    asked: set[asyncio.Task[object] | None] = set()

    async def next_piece() -> bytes | None:
        task = asyncio.current_task()
        asked.add(task)
        try:
            return await anext(pieces, None)
        finally:
            asked.discard(task)

    def pulled() -> Iterator[bytes]:
        while (piece := asyncio.run_coroutine_threadsafe(next_piece(), loop).result()) is not None:
            yield piece

    try:
        yield pulled()
    finally:
        waiting_for = [task for task in asked if task is not None]
        for task in waiting_for:
            task.cancel()
        await asyncio.gather(*waiting_for, return_exceptions=True)
