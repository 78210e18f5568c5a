"""What this home has signed: one note per repository and epoch of identity, beside the author key.

Two documents of one epoch, each with enough signatures, split a repository for good: replicas that met one never take
the other. So an author signs one of them, and the note of it is on the disk before the signature is in the file.

Not promised: a copy of the key at another home has notes of its own.
"""

import os
import secrets
from pathlib import Path
from typing import ClassVar, Final

from guts.errors import ExitStatus, UsageError
from guts.git.files import sync_directory
from guts.ids import AuthorId
from guts.trust.identity_document import IdentityDocument

FOLDER: Final = "signed"
"""Beside the author key, so that a backup of the keys has the notes too."""


class AlreadySigned(UsageError):
    """You have signed another identity document of that epoch; both together would split the repository.

    Attributes:
        document: hash of the one that was signed.
        file: where its proposal was then.
        note: the file that says so.
    """

    code: ClassVar[str] = "ALREADY_SIGNED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, epoch: int, document: str, file: str, note: Path) -> None:
        super().__init__(
            f"you have signed another document of epoch {epoch} already ({document[:12]}…, in {file}): "
            "signing both would split the repository for good",
            hint="apply that one; what this one says goes into a new proposal on top of it: guts identity propose",
        )
        self.document = document
        self.file = file
        self.note = str(note)


def note_signature(author_key: Path, author: AuthorId, document: IdentityDocument, file: Path) -> None:
    """Note that ``author`` signs ``document``, whose proposal is in ``file``; durable on return.

    Raises:
        AlreadySigned: another document of that epoch has been noted.
        OSError: the disk refuses.
    """
    folder = author_key.parent / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{document.repository}-{document.epoch}-{author}"
    temporary = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(f"{document.hash.hex()}\n".encode() + os.fsencode(file.absolute()))
            out.flush()
            os.fsync(out.fileno())
        # A hard link, unlike a rename, fails where another command noted something first.
        os.link(temporary, path)
    except FileExistsError:
        digest, _, earlier = path.read_bytes().partition(b"\n")
        if digest != document.hash.hex().encode():
            told = digest.decode("ascii", "replace"), os.fsdecode(earlier)
            raise AlreadySigned(document.epoch, *told, path) from None
    finally:
        temporary.unlink(missing_ok=True)
    # Also where the note was there: whoever wrote it may have been cut off before this.
    sync_directory(folder)
    sync_directory(author_key.parent)
