"""What this home has seen of repositories before, as ssh's known_hosts has it of hosts.

One small file per repository below ``known/`` in the data folder: epoch and hash of its identity, the maintainers, the
highest (seq, hash) of each author. A repository's id is the hash of its first identity document, so it can't be another
repository; but who sees the network through others' eyes can be shown an old state, or one of two identities that its
maintainers signed. Whatever goes back, or changes hands in a way that the remembered maintainers have not signed, is an
error, and a loud one; nothing of it reaches git.

Where nothing has changed only hashes are compared, with the standard library alone: this is on the way of every fetch.

Not promised: anything about a repository that is new here. Two commands that run at once may each be told what the
other is.
"""

import base64
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self

from guts.cli.answer import Answer, BadAnswer
from guts.config import Paths
from guts.errors import ExitStatus, GutsError, StorageFault
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded where an identity is new
    from guts.trust.chain import IdentityChain

FOLDER: Final = "known"
VERSION: Final = 1
MAX_HEADS: Final = 256
"""Authors that are remembered: 32 maintainers, and those before them; of more, who signed last."""

MAX_NOTE_BYTES: Final = 128 << 10
"""256 authors and 32 maintainers take 50 kB."""

SHOWN: Final = 3
"""Maintainers that are named in a line; the others are counted."""


class OwnerChanged(GutsError):
    """A repository shows maintainers that those who were remembered here have not agreed to.

    Attributes:
        repository: which one.
        before, now: its maintainers.
    """

    code: ClassVar[str] = "OWNER_CHANGED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY

    def __init__(self, repository: str, before: list[str], now: list[str], why: str) -> None:
        super().__init__(
            _banner(
                f"the identity of {repository} changed, and those who had it did not sign that",
                "THIS REPOSITORY HAS CHANGED HANDS!",
                f"Maintainers remembered here: {_names(before)}",
                f"Maintainers shown now:       {_names(now)}",
                f"{why} Either they signed two identities, or somebody",
                "shows you one that is not theirs. Nothing was taken over.",
            ),
            hint=f"ask the maintainers; only if they confirm it: guts known forget {repository}",
        )
        self.repository, self.before, self.now = repository, before, now


class RolledBack(GutsError):
    """A repository shows an older state than was seen here before.

    Attributes:
        repository: which one.
        went_back: what is older, one line each.
        behind: the authors whose records are older; with an empty text where anything else is wrong.
    """

    code: ClassVar[str] = "ROLLED_BACK"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY

    def __init__(self, repository: str, went_back: list[str], behind: frozenset[str] = frozenset()) -> None:
        super().__init__(
            _banner(
                f"{repository} is shown in an older state than was seen here before",
                "THIS REPOSITORY HAS GONE BACK IN TIME!",
                *went_back,
                "Whoever was asked has not heard of what you have seen, or keeps it from you.",
                "Nothing was taken over.",
            ),
            hint=f"try again when other holders can be reached; only if the maintainers say that it is "
            f"right: guts known forget {repository}",
        )
        self.repository, self.went_back, self.behind = repository, went_back, behind


class NotKnown(GutsError):
    """Nothing is remembered of the repository."""

    code: ClassVar[str] = "NOT_KNOWN"
    exit_status: ClassVar[ExitStatus] = ExitStatus.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of one repository; seqs, hashes and times as ``GET /v1/repositories/{id}/refs`` has them.

    Attributes:
        heads: by author, seq and hash of the newest record.
        first_seen_ms, changed_ms: Unix milliseconds.
        floors: by author whose history was proven to have split, the last record before that: no proof excuses an
            older one, ever.
    """

    repository: str
    name: str
    epoch: int
    identity_hash: str
    maintainers: list[str]
    heads: Mapping[str, tuple[int, str]]
    first_seen_ms: int
    changed_ms: int
    floors: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def shown(cls, answer: Answer, now_ms: int) -> Self:
        """Return what the node's answer shows. Raises: ``BadAnswer``: it is none."""
        return cls(
            answer.text("repository"),
            answer.text("name", ""),
            answer.number("epoch"),
            answer.text("identity_hash"),
            answer.texts("maintainers"),
            _points(answer, "heads"),
            now_ms,
            now_ms,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return what a note says; ``None``: it is damaged."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or value.get("version") != VERSION:
            return None
        answer = Answer.of(value)
        try:
            times = answer.number("first_seen_ms"), answer.number("changed_ms")
            shown = cls.shown(answer, times[1])
            return replace(shown, first_seen_ms=times[0], floors=_points(answer, "floors"))
        except BadAnswer:
            return None

    def encode(self) -> bytes:
        """Return the note: JSON, for people to read as well."""
        return (json.dumps({"version": VERSION, **self.json}, indent=1) + "\n").encode()

    @property
    def json(self) -> dict[str, object]:
        """What ``guts known --json`` tells."""
        heads, floors = (
            [{"author": author, "seq": seq, "hash": digest} for author, (seq, digest) in points.items()]
            for points in (self.heads, self.floors)
        )
        return {
            "repository": self.repository,
            "name": self.name,
            "epoch": self.epoch,
            "identity_hash": self.identity_hash,
            "maintainers": self.maintainers,
            "heads": heads,
            "floors": floors,
            "first_seen_ms": self.first_seen_ms,
            "changed_ms": self.changed_ms,
        }

    def says_the_same(self, other: "Known") -> bool:
        """Tell whether there is nothing new in ``other``."""
        identity = (self.epoch, self.identity_hash) == (other.epoch, other.identity_hash)
        return identity and self.heads == other.heads and self.name == other.name

    def joined(self, other: "Known") -> "Known":
        """Return what both know: of two commands that ran at once, none shall take from the other's."""
        newer, older = (self, other) if self.epoch >= other.epoch else (other, self)
        first_seen_ms = min(self.first_seen_ms, other.first_seen_ms)
        heads, floors = _highest(newer.heads, older.heads), _highest(newer.floors, older.floors)
        return replace(newer, heads=heads, floors=floors, first_seen_ms=first_seen_ms)


def _points(answer: Answer, name: str) -> dict[str, tuple[int, str]]:
    """Return seqs and hashes by author, the newest of too many. Raises: ``BadAnswer``."""
    points = {point.text("author"): (point.number("seq"), point.text("hash")) for point in answer.objects(name)}
    kept = sorted(points, key=lambda author: points[author][0], reverse=True)[:MAX_HEADS]
    return {author: points[author] for author in kept}


def _highest(
    points: Mapping[str, tuple[int, str]], others: Mapping[str, tuple[int, str]]
) -> dict[str, tuple[int, str]]:
    found = dict(points)
    for author, point in others.items():
        found[author] = max(point, found.get(author, point))
    return found


def remember(paths: Paths, answer: Answer) -> list[str]:
    """Compare a repository's refs with what was seen here before, and remember them; return lines for stderr.

    Args:
        answer: of ``GET /v1/repositories/{id}/refs``.

    Raises:
        OwnerChanged, RolledBack: they are not what follows from it; nothing of them may be used.
        BadAnswer: the answer is none.
    """
    shown = Known.shown(answer, time.time_ns() // 1_000_000)
    repository = RepositoryId.parse(shown.repository)
    note = _note(paths, repository)
    try:
        known, lines = _load(note)
    except OSError as error:
        known, lines = None, [f"what was seen of {repository.short}… before can't be read: {error.strerror}"]
    if known is not None and known.says_the_same(shown):
        return lines
    new, told = _judge(repository, known, shown, answer)
    lines += told
    try:
        _store(note, known, new)
    except StorageFault as error:
        lines.append(f"what was seen of {repository.short}… can't be remembered: {error}")
    return lines


def all_known(paths: Paths) -> list[Known]:
    """Return all that is remembered, by name; damaged notes are passed over. Raises: ``OSError``."""
    try:
        notes = sorted((paths.data / FOLDER).glob(f"{RepositoryId.prefix}1*"))
    except FileNotFoundError:
        return []
    found = (_load(note)[0] for note in notes)
    return sorted((one for one in found if one is not None), key=lambda one: (one.name, one.repository))


def known_one(paths: Paths, repository: RepositoryId) -> Known:
    """Return what is remembered of ``repository``. Raises: ``NotKnown``, ``OSError``."""
    found, _ = _load(_note(paths, repository))
    if found is None:
        raise NotKnown(f"nothing is remembered of {repository}", hint="guts known ls")
    return found


def forget(paths: Paths, repository: RepositoryId) -> bool:
    """Forget ``repository``; tell whether there was anything. Raises: ``DiskFault``."""
    from guts.git.files import disk_faults, remove_files

    note = _note(paths, repository)
    with disk_faults():
        there = note.exists()
    if there:
        remove_files(note.parent, [note.name])
    return there


def _judge(repository: RepositoryId, known: Known | None, shown: Known, answer: Answer) -> tuple[Known, list[str]]:
    """Return what is to be remembered from now on, and what to say of it. Raises: as ``remember``."""
    if known is not None and shown.epoch < known.epoch:
        raise RolledBack(str(repository), [f"Its identity was at epoch {known.epoch}, and is shown at {shown.epoch}."])
    if known is not None and (known.epoch, known.identity_hash) == (shown.epoch, shown.identity_hash):
        chain, shown = None, replace(shown, maintainers=known.maintainers)
    else:
        chain = _chain(repository, answer, shown)
        shown = replace(shown, maintainers=[str(author) for author in chain.current.maintainers])
    if known is None:
        return shown, [f"{repository.short}… is new here: maintainers {_names(shown.maintainers)} (remembered)"]
    if chain is not None and chain.history[known.epoch].hash.hex() != known.identity_hash:
        why = f"Their identity of epoch {known.epoch} is not among what led to the shown one."
        raise OwnerChanged(str(repository), known.maintainers, shown.maintainers, why)
    excused = _check_heads(repository, known, shown, answer)
    floors = _highest(known.floors, {author: shown.heads[author] for author in excused if author in shown.heads})
    lines = [
        f"{author} signed two histories of {repository.short}…: seq {known.heads[author][0]}, which was seen here, is "
        f"after the split and does not count until the maintainers say which one does"
        for author in excused
    ]
    if shown.maintainers != known.maintainers:
        came = [f"+{author}" for author in shown.maintainers if author not in known.maintainers]
        left = [f"-{author}" for author in known.maintainers if author not in shown.maintainers]
        change = ", ".join([*came, *left]) or "their order"
        lines.append(
            f"maintainers of {repository.short}… changed: {change} (epoch {shown.epoch}, signed as it has to be)"
        )
    return replace(shown, first_seen_ms=known.first_seen_ms, floors=floors), lines


def _chain(repository: RepositoryId, answer: Answer, shown: Known) -> "IdentityChain":
    """Return the identity documents in the answer, checked. Raises: ``BadAnswer``: they are not what it says."""
    from guts.errors import PeerFault
    from guts.trust.chain import IdentityChain

    try:
        chain = IdentityChain.from_documents([base64.b64decode(text) for text in answer.texts("documents")])
    except (PeerFault, ValueError) as error:
        raise BadAnswer(f"has no valid identity documents: {error}") from None
    if (chain.repository, chain.epoch, chain.hash.hex()) != (repository, shown.epoch, shown.identity_hash):
        raise BadAnswer("has identity documents that are not those it speaks of")
    return chain


def _check_heads(repository: RepositoryId, known: Known, shown: Known, answer: Answer) -> list[str]:
    """Return the authors whose records went back because a proof takes them back.

    Raises: ``RolledBack``: an author's records went back, and neither the maintainers nor a proof tell why.
    """
    went_back, excused, behind = [], [], set()
    for author, (seq, digest) in known.heads.items():
        seq_now, digest_now = shown.heads.get(author, (0, ""))
        if seq_now > seq or (seq_now, digest_now) == (seq, digest):
            continue
        if _cut_off(repository, known, author, (seq_now, digest_now), answer):
            continue
        if _split(repository, known, author, (seq_now, digest_now), answer):
            excused.append(author)
            continue
        told = f"is shown at seq {seq_now}" if seq_now else "is not shown at all"
        if seq_now == seq:
            told = "is shown with another one of that seq"
        behind.add(author if seq_now < seq else "")
        went_back.append(f"{author} had signed seq {seq}, and {told}.")
    if went_back:
        raise RolledBack(str(repository), went_back, frozenset(behind))
    return excused


def lacks_own_push(paths: Paths, error: RolledBack) -> bool:
    """Tell whether all that is older is what the author of this home signed: a push that has reached nobody yet.

    For who reads; who goes on from such a state signs a second history.
    """
    from guts.errors import UsageError
    from guts.keystore import KeyKind, read_key_file

    try:
        return error.behind == {read_key_file(paths.author_key, KeyKind.AUTHOR).public}
    except (UsageError, StorageFault):
        return False


def _cut_off(repository: RepositoryId, known: Known, author: str, now: tuple[int, str], answer: Answer) -> bool:
    """Tell whether an identity document since then takes the author's history back to where it is shown."""
    chain = _chain(repository, answer, Known.shown(answer, 0))
    limit = chain.limit(AuthorId.parse(author), known.epoch)
    if limit is None or limit.seq > known.heads[author][0]:
        return False
    return now[0] > limit.seq or now == (limit.seq, limit.hash.hex())


def _split(repository: RepositoryId, known: Known, author: str, now: tuple[int, str], answer: Answer) -> bool:
    """Tell whether the answer proves that the author's history split right after ``now``: nothing later counts then.

    A proof whose split an identity document has settled excuses nothing, and none excuses what is older than the last
    record before the split, or than an earlier proof did.
    """
    from guts.errors import PeerFault
    from guts.trust.acceptance import concerns, freezes
    from guts.trust.equivocation import EquivocationProof

    seq, digest = known.heads[author]
    if now[0] < known.floors.get(author, (0, ""))[0]:
        return False
    for text in answer.texts("proofs"):
        try:
            proof = EquivocationProof.decode(base64.b64decode(text))
        except (PeerFault, ValueError) as error:
            raise BadAnswer(f"has a proof that is none: {error}") from None
        about = proof.first.header.repository, str(proof.author)
        if about != (repository, author) or not now[0] < proof.split_seq <= seq:
            continue
        chain = _chain(repository, answer, Known.shown(answer, 0))
        headers = [signed.header for signed in (proof.first, proof.second)]
        # The branch that was seen, where one of the two is it; of a later record, either.
        headers = [header for header in headers if header.hash.hex() == digest] or headers
        before = {header.previous.hex() for header in headers}
        if len(before) > 1:  # one of them follows a record: the author had one before the split
            before.discard("")
        if now[1] in before and concerns(chain, proof) and freezes(chain, proof):
            return True
    return False


def _store(note: Path, before: Known | None, new: Known) -> None:
    """Write ``new``, which came of ``before``, to ``note``. Raises: ``StorageFault``."""
    from guts.git.files import disk_faults, write_files

    with disk_faults():
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(note.parent):
            there, _ = _load(note)
            if there is not None and there != before:
                new = new.joined(there)
            write_files(note.parent, {note.name: new.encode()})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for as long as one small file is written
        yield
    finally:
        os.close(descriptor)


def _load(note: Path) -> tuple[Known | None, list[str]]:
    """Return what ``note`` says, and what is to be said of it. Raises: ``OSError``."""
    try:
        with note.open("rb") as file:
            data = file.read(MAX_NOTE_BYTES)
    except FileNotFoundError:
        return None, []
    found = Known.decode(data)
    if found is None or found.repository != note.name:
        return None, [f"what was seen of {note.name} before is damaged, and forgotten"]
    return found, []


def _note(paths: Paths, repository: RepositoryId) -> Path:
    return paths.data / FOLDER / str(repository)


def _names(authors: list[str]) -> str:
    more = f" and {len(authors) - SHOWN} more" if len(authors) > SHOWN else ""
    return ", ".join(authors[:SHOWN]) + more


def _banner(what: str, title: str, *text: str) -> str:
    rule = "@" * 60
    return "\n".join([what, rule, f"@{f'WARNING: {title}'.center(58)}@", rule, *text])
