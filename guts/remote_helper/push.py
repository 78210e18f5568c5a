"""A push: what git asks for is prepared by the node, made again and signed here, and committed there.

Of a repository that the node does not follow git is shown the refs that others vouch for; a dry run, and a push of what
is there already, get nothing of it. Nothing is sent before it is known that the author key of this home is a
maintainer's and opens. The node checks the objects in its quarantine and says which refs it refuses; of the others it
prepares the next record, which is signed only if it comes out the same here (``guts.cli.signing``). Where something
else was committed meanwhile, the node prepares it again from the same quarantine: the objects travel once. Whoever is
interrupted tells the node to forget them.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final

from guts.addresses import RepositoryUrl
from guts.api.errors import ReportedError
from guts.cli.answer import Answer, BadAnswer
from guts.cli.known_repositories import remember
from guts.cli.session import Session
from guts.cli.signed_records import RecordMissing, note_published
from guts.errors import ExitStatus, GutsError, PeerFault, StorageFault
from guts.remote_helper.contested import crossed
from guts.remote_helper.nodes import PushTarget
from guts.remote_helper.passphrase import passphrase_source
from guts.remote_helper.push_options import PushOptions
from guts.remote_helper.receive_pack import Command, Outcome, ReceivePack, Reporter, Request
from guts.remote_helper.replicas import Pushed, Words, wait_for_replicas
from guts.remote_helper.talk import Talk

if TYPE_CHECKING:  # PyNaCl is loaded when something is to be signed
    from guts.cli.signing import Signature
    from guts.identity import SigningKey
    from guts.ids import ObjectId
    from guts.trust.chain import IdentityChain
    from guts.trust.signed_refs import Header
    from guts.trust.updates import Updates

OVERTAKEN: Final = "OVERTAKEN"
"""The code of ``guts.node.publishing.Overtaken``, which brings half a node along."""

MAX_ATTEMPTS: Final = 5
"""How often a push is prepared because something else came in between: more than a busy day needs."""

NODES_OWN: Final = "refs/guts/"
"""What nodes show there nobody pushes."""

SHORT_OID: Final = 7
"""Digits of an object id in what people read, as git has them beside it."""

CHECK_TIMEOUT: Final = 24 * 3600.0
"""Seconds for the node to take in the objects and check them."""


class Push:
    """Does what one ``git push`` asks for.

    Args:
        remote: the remote's name, or its URL where it has none.
    """

    def __init__(self, session: Session, target: PushTarget, remote: str, url: RepositoryUrl, talk: Talk) -> None:
        self._session = session
        self._target = target
        self._state = target.state
        self._talk = talk
        self._client = target.client
        self._remote = remote
        self._url = url

    def __call__(self, request: Request, reporter: Reporter) -> Outcome:
        """Push.

        Raises:
            GutsError: why nothing was.
            BrokenPipeError: git went away before it was.
        """
        options = PushOptions.parse(request.options)
        for name in options.unknown:
            reporter.warning(f"push option {name!r} means nothing here")
        chain = self._chain()
        key = self._key(chain)
        if self._follow():
            chain = self._chain()
        begun = time.monotonic()
        committed, refused = self._publish(request, options, chain, key, reporter)
        if committed is None:
            return Outcome(refused)
        header, followers = committed
        done = [command for command in request.commands if command.ref not in refused]
        pushed = Pushed(
            chain.repository,
            key.author_id,
            header.seq,
            header.hash,
            _words(done),
            max(followers, self._target.replicas),
            begun,
        )
        status = wait_for_replicas(
            self._client,
            pushed,
            options,
            reporter,
            node_stays=self._target.stays,
            before_last=lambda: self._tell_what_crossed(done, chain, key, reporter),
        )
        return Outcome(refused, status)

    def _tell_what_crossed(
        self, done: list[Command], chain: "IdentityChain", key: "SigningKey", reporter: Reporter
    ) -> None:
        """Say which of the refs pushed somebody else has pushed at the same time; the push stands all the same."""
        try:
            state = Answer.of(self._client.get(f"/v1/repositories/{chain.repository}/refs"))
            shown = [ref.text("ref") for ref in state.objects("refs")]
        except GutsError as error:
            reporter.warning(f"it is pushed, but the node does not say whether it is in conflict: {error}")
            return
        pushed = [command.ref for command in done]
        for line in crossed(shown, pushed, key.author_id, chain.current.maintainers, self._remote):
            reporter.warning(line)

    def _follow(self) -> bool:
        """Have the node follow the repository, now that a maintainer pushes; tell whether it is known anew.

        Raises:
            OwnerChanged, RolledBack: it is not what follows from what was seen of it before.
            GutsError: it can't be had.
        """
        state = self._target.followed(self._talk)
        if state is self._state:
            return False
        self._state = state
        for line in remember(self._session.paths, state):
            self._talk.note(line)
        return True

    def _chain(self) -> "IdentityChain":
        import base64

        from guts.trust.chain import IdentityChain

        try:
            chain = IdentityChain.from_documents([base64.b64decode(text) for text in self._state.texts("documents")])
        except (PeerFault, ValueError) as error:
            raise BadAnswer(f"has no valid identity documents: {error}") from None
        if chain.repository != self._url.repository:
            raise BadAnswer(f"is about another repository than {self._url.repository}")
        return chain

    def _key(self, chain: "IdentityChain") -> "SigningKey":
        """Return the author key. Raises: ``GutsError``: it is no maintainer's, or stays locked."""
        from guts.cli.author import author_key, own_author
        from guts.keystore import KeyKind, load_key

        # Where there is no key one is made, so that a maintainer can be told which one to add.
        author = own_author(self._session) or author_key(self._session).author_id
        # Nobody types a passphrase to be told that they have no say.
        if author not in chain.current.maintainers:
            from guts.cli.publish import NotAMaintainer

            raise NotAMaintainer(author, chain.repository)
        path = self._session.paths.author_key
        return load_key(path, KeyKind.AUTHOR, passphrase_source(self._session.environ))

    def _publish(
        self,
        request: Request,
        options: PushOptions,
        chain: "IdentityChain",
        key: "SigningKey",
        reporter: Reporter,
    ) -> "tuple[tuple[Header, int] | None, dict[str, str]]":
        """Return what was committed and how many follow it (``None``: nothing had to be), and why refs were refused."""
        updates = _updates(request, options)
        header: dict[str, object] = {
            "genesis": None,
            "repository": str(chain.repository),
            "author": str(key.author_id),
            "updates": {
                ref: [None if oid is None else str(oid) for oid in (update.old, update.new)]
                for ref, update in updates.refs.items()
            },
            "head": updates.head,
            "force": updates.force,
            "atomic": updates.atomic,
        }
        refused: dict[str, str] = {}
        prepared = Answer.of(self._client.upload("/v1/publications", header, request.pack, CHECK_TIMEOUT))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            updates = updates.without(self._refusals(prepared, refused, reporter))
            if prepared.flag("unchanged"):
                _check_unchanged(updates)
                return None, refused
            name = prepared.text("session")
            with self._forgotten_unless_committed(name):
                if not updates.refs:
                    raise BadAnswer("refuses all that is pushed, and wants something signed")
                try:
                    signed = self._sign(key, prepared, chain, updates)
                    if request.gone():
                        raise BrokenPipeError
                    followers = self._commit(name, signed, reporter).number("followers", 0)
                    return (signed.header, followers), refused
                except RecordMissing:
                    # Another push from this home may have been committed since the node prepared this one.
                    if attempt == MAX_ATTEMPTS:
                        raise
                except ReportedError as error:
                    if error.told.code != OVERTAKEN or attempt == MAX_ATTEMPTS:
                        raise
                prepared = Answer.of(
                    self._client.send("POST", f"/v1/publications/{name}/prepare", timeout=CHECK_TIMEOUT)
                )
        raise AssertionError("unreachable")

    def _sign(self, key: "SigningKey", prepared: Answer, chain: "IdentityChain", updates: "Updates") -> "Signature":
        from guts.cli.signing import sign_refs

        now_ms = time.time_ns() // 1_000_000
        return sign_refs(key, prepared, chain, updates, now_ms, self._session.paths.author_key)

    def _commit(self, name: str, signed: "Signature", reporter: Reporter) -> Answer:
        body = {"signature": signed.signature.hex()}
        committed = Answer.of(self._client.send("POST", f"/v1/publications/{name}/commit", body, CHECK_TIMEOUT))
        # What is published stands, whether it can be noted or not.
        try:
            note_published(self._session.paths.author_key, signed.header)
        except StorageFault as error:
            reporter.warning(f"it could not be noted that this is published: {error}")
        for warning in committed.objects("warnings"):
            reporter.warning(warning.text("message"))
            reporter.hint(warning.text("hint"))
        return committed

    @contextlib.contextmanager
    def _forgotten_unless_committed(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(GutsError):
                self._client.send("DELETE", f"/v1/publications/{name}", timeout=1.0)
            raise

    def _refusals(self, prepared: Answer, refused: dict[str, str], reporter: Reporter) -> list[str]:
        """Add what the node refuses to ``refused`` and return those refs; each hint is told once."""
        from guts.trust.updates import REMOTE

        new: Mapping[str, object] = prepared.object("refused").json
        hints = []
        for ref, value in new.items():
            refusal = Answer.of(value)
            refused[ref] = refusal.text("reason")
            hints.append(refusal.text("hint", "").replace(REMOTE, self._remote))
        for hint in dict.fromkeys(filter(None, hints)):
            reporter.hint(hint)
        return list(new)


def serve_push(
    session: Session,
    target: PushTarget,
    remote: str,
    url: RepositoryUrl,
    git_in: BinaryIO,
    git_out: BinaryIO,
    talk: Talk,
) -> ExitStatus:
    """Answer one ``git push``; return the exit status.

    Raises:
        OwnerChanged, RolledBack: the repository is not what follows from what was seen of it before.
        BadPush, BadPacket: this is no push.
        BrokenPipeError: git went away.
    """
    for line in (*target.state.texts("notes"), *remember(session.paths, target.state)):
        talk.note(line)
    refs = {ref.text("ref"): ref.text("oid") for ref in target.state.objects("refs")}
    shown = {name: oid for name, oid in refs.items() if not name.startswith(NODES_OWN)}
    return ReceivePack(shown, git_in, git_out).serve(Push(session, target, remote, url, talk))


def _words(done: list[Command]) -> Words:
    """Return what was pushed, in a few words: the commit, where there is one."""
    made = [command.new for command in done if command.new is not None]
    if not made:
        what = done[0].ref.removeprefix("refs/heads/").removeprefix("refs/") if len(done) == 1 else f"{len(done)} refs"
        return Words(f"have deleted {what}", f"has deleted {what}")
    more = len(done) - 1
    what = made[0][:SHORT_OID]
    if more:
        what += f" and {more} more {'ref' if more == 1 else 'refs'}"
    return Words(f"hold {what}", f"holds {what}")


def _updates(request: Request, options: PushOptions) -> "Updates":
    from guts.trust.updates import RefUpdate, Updates

    refs = {command.ref: RefUpdate(_object_id(command.old), _object_id(command.new)) for command in request.commands}
    return Updates(refs, options.head, options.force, request.atomic)


def _object_id(text: str | None) -> "ObjectId | None":
    from guts.ids import ObjectId

    return None if text is None else ObjectId(bytes.fromhex(text))


def _check_unchanged(updates: "Updates") -> None:
    """Raises: ``NotAsked``: a ref was not, when git was shown the refs, what it shall become."""
    from guts.cli.signing import NotAsked

    for ref, update in updates.refs.items():
        if update.new != update.old:
            raise NotAsked(f"the node says that nothing has to change, but {ref} was to change")
