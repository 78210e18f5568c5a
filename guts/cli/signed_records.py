"""What this home has published: one note per repository and author, beside the author key, of the newest record.

A node that was broken into could withhold that record, and have a second one signed over its predecessor: both
together prove that the author signed two histories, and suspend it. So once the node has said that a record is
committed, nothing is signed any more that goes on from an older one, or from another branch.

Not promised: a node that says that it has not committed what it was given a signature for (``OVERTAKEN``) gets the
next one, as an honest one must. A copy of the key at another home has notes of its own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from guts.errors import ExitStatus, GutsError, StorageFault
from guts.git.files import disk_faults, sync_directory, write_files
from guts.ids import AuthorId, RepositoryId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.trust.chain import IdentityChain
    from guts.trust.signed_refs import Header, SignedRefs

FOLDER: Final = "published"
"""Beside the author key, so that a backup of the keys has the notes too."""


class RecordMissing(GutsError):
    """The node does not have the newest record that you published; signing without it would split your history.

    Attributes:
        note: the file that says which one it is.
    """

    code: ClassVar[str] = "RECORD_MISSING"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY

    def __init__(self, last: "LastRecord", note: Path) -> None:
        super().__init__(
            f"the node does not go on from the record {last.hash.hex()[:12]}… that you published (seq {last.seq}); "
            "signing without it would split your history, so nothing was signed",
            hint=f"guts sync fetches it from a node that has it; where none has, and none ever will: rm {note}",
        )
        self.note = str(note)


class DamagedNote(StorageFault):
    """The note of what was published last is damaged."""

    code: ClassVar[str] = "DAMAGED_NOTE"

    def __init__(self, note: Path) -> None:
        super().__init__(
            f"the note of what you published last is damaged: {note}",
            hint="once guts inspect shows your newest record, remove that file",
        )


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The newest record that the node has committed.

    Attributes:
        epoch: of the identity document that it was signed under.
    """

    seq: int
    hash: bytes
    epoch: int


def note_published(author_key: Path, header: "Header") -> None:
    """Note that the node has committed the record of ``header``; durable on return. Raises: ``DiskFault``."""
    note = _note(author_key, header.repository, header.author)
    value = {"seq": header.seq, "hash": header.hash.hex(), "epoch": header.epoch}
    with disk_faults():
        note.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(author_key.parent)
    write_files(note.parent, {note.name: f"{json.dumps(value)}\n".encode()})


def last_published(author_key: Path, repository: RepositoryId, author: AuthorId) -> LastRecord | None:
    """Return what was noted last; ``None``: nothing. Raises: ``DamagedNote``, ``DiskFault``."""
    note = _note(author_key, repository, author)
    try:
        with disk_faults():
            data = note.read_bytes() if note.exists() else None
        if data is None:
            return None
        match json.loads(data):
            case {"seq": int(seq), "hash": str(digest), "epoch": int(epoch)} if epoch >= 0:
                return LastRecord(seq, bytes.fromhex(digest), epoch)
    except (ValueError, RecursionError):
        pass
    raise DamagedNote(note)


def check_previous(author_key: Path, chain: "IdentityChain", author: AuthorId, previous: "SignedRefs | None") -> None:
    """Check that the author's next record, after ``previous``, goes on from what was noted.

    A record that is newer than the noted one was published at another home. An older one is right where the
    maintainers have cut the noted one off since.

    Raises:
        RecordMissing: it does not.
        DamagedNote, DiskFault: the note can't be read.
    """
    last = last_published(author_key, chain.repository, author)
    if last is None:
        return
    if previous is not None and (previous.hash == last.hash or previous.seq > last.seq):
        return
    limit = chain.last_limit(author) if chain.limit(author, last.epoch) is not None else None
    if limit is None or limit.seq > last.seq or limit.hash == last.hash:
        raise RecordMissing(last, _note(author_key, chain.repository, author))


def _note(author_key: Path, repository: RepositoryId, author: AuthorId) -> Path:
    return author_key.parent / FOLDER / f"{repository}-{author}"
