"""Receipts of one's own pushes, kept in the working repository: who has what, also when no node runs.

One file per record in ``guts/receipts/`` of the git directory: the author's signed header, and the receipts for it.
They need nothing else to be checked: the header has the author's signature, its hash is what the receipts name, and
each receipt has its node's. Nothing here is a secret, and nothing is believed: ``guts receipts --verify`` checks it.
"""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from guts.cli.answer import Answer, BadAnswer
from guts.git.files import disk_faults, remove_files, write_files
from guts.ids import AuthorId, BadId, RepositoryId

FOLDER: Final = Path("guts", "receipts")
KEPT_RECORDS: Final = 32
"""Records of one author that files are kept of, the newest: some 20 kB each where 64 nodes confirm."""

MAX_FILE_BYTES: Final = 1 << 20
"""A header and 64 receipts are 26 kB in base64."""

MAX_SEQ: Final = 2**63 - 1
SEQ_DIGITS: Final = 19
"""Of the largest seq: names sort as their numbers do."""

_Id = TypeVar("_Id", RepositoryId, AuthorId)


@dataclass(frozen=True, slots=True)
class Kept:
    """The content of one file; nothing in it has been checked.

    Attributes:
        header: the author's signed header; empty where the file is damaged.
    """

    file: Path
    header: bytes
    receipts: tuple[bytes, ...]


def keep_receipts(git_dir: Path, told: Answer, repository: RepositoryId, author: AuthorId) -> None:
    """Keep what a node told of receipts for the newest records that it holds; durable on return.

    Args:
        git_dir: the git directory of the working repository, or of one of its work trees.
        told: the answer to ``GET /v1/repositories/{id}/receipts?author=…``.
        repository, author: what was asked about.

    Raises:
        BadAnswer: it is not such an answer; nothing was kept.
        DiskFault, DiskFull: nothing was kept.
    """
    if _parsed(RepositoryId, told.text("repository")) != repository:
        raise BadAnswer(f"is about another repository than {repository.short}…")
    kept = []
    for record in told.objects("records"):
        if _parsed(AuthorId, record.text("author")) != author:
            raise BadAnswer(f"has a record of another author than {author.short}…")
        seq = record.number("seq")
        if not 0 <= seq <= MAX_SEQ:
            raise BadAnswer("has a record whose seq is out of range")
        of_record = (record.text("author"), seq, record.text("hash"))
        receipts = [
            receipt.text("receipt")
            for receipt in told.objects("receipts")
            if (receipt.text("author"), receipt.number("seq"), receipt.text("hash")) == of_record
        ]
        if receipts:
            kept.append((seq, record.text("header"), receipts))
    folder = common_directory(git_dir) / FOLDER
    for seq, header, receipts in kept:
        _keep(folder, f"{repository}-{author}-", seq, header, receipts)


def _parsed(kind: type[_Id], text: str) -> _Id:
    """Return the id that a node told. Raises: ``BadAnswer``: it names nothing, and no file either."""
    try:
        return kind.parse(text)
    except BadId as error:
        raise BadAnswer(f"has another text than an id: {error}") from None


def _keep(folder: Path, stem: str, seq: int, header: str, receipts: Iterable[str]) -> None:
    with disk_faults():
        folder.mkdir(parents=True, exist_ok=True)
    name = f"{stem}{seq:0{SEQ_DIGITS}d}.json"
    before = read_kept(folder / name)
    known = [base64.b64encode(receipt).decode() for receipt in before.receipts] if before.header else []
    value = {"header": header, "receipts": list(dict.fromkeys([*known, *receipts]))}
    write_files(folder, {name: f"{json.dumps(value, indent=1)}\n".encode()})
    ours = re.compile(rf"{stem}\d{{{SEQ_DIGITS}}}\.json")
    with disk_faults():
        older = sorted(path.name for path in folder.iterdir() if ours.fullmatch(path.name))[:-KEPT_RECORDS]
    if older:
        remove_files(folder, older)


def all_kept(git_dir: Path) -> list[Kept]:
    """Return what is kept, by repository and author, the oldest record first. Raises: ``DiskFault``."""
    folder = common_directory(git_dir) / FOLDER
    with disk_faults():
        return [read_kept(path) for path in sorted(folder.glob("repo1*.json"))]


def read_kept(file: Path) -> Kept:
    """Return the content of ``file``; one that is missing or damaged has none. Raises: ``DiskFault``."""
    nothing = Kept(file, b"", ())
    with disk_faults():
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return nothing
    try:
        match json.loads(data):
            case {"header": str(header), "receipts": list(receipts)}:
                decoded = [base64.b64decode(str(text), validate=True) for text in (header, *receipts)]
                return Kept(file, decoded[0], tuple(decoded[1:]))
    except (ValueError, RecursionError):
        pass
    return nothing


def common_directory(git_dir: Path) -> Path:
    """Return the directory that ``git_dir``, of a work tree perhaps, shares with others (gitrepository-layout(5))."""
    with disk_faults():
        try:
            shared = (git_dir / "commondir").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return git_dir
    return git_dir / shared
