"""Lists of bans as files: JSON lines, the version first, which nodes and people exchange.

A ban that ends tells both when (by the clock of who wrote it) and how long it still lasted then: read later, it lasts
less; read by a clock that is wrong, never longer. So reading a list twice changes nothing.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from guts.addresses import check_size, parse_subject, subject_text
from guts.cli.answer import Answer
from guts.errors import ExitStatus, GutsError, UsageError

VERSION: Final = 1
HEADER: Final = "guts_bans"
BANNED: Final = "banned"
BY_OPERATOR: Final = "banned by the operator"
FIELDS: Final = {"ban", "until_ms", "left_s", "reason"}
MAX_LINE_BYTES: Final = 2048
"""A subject has 65 bytes, a reason 200, which JSON may write as six each."""

MAX_LINES: Final = 50_000
"""As many bans as a node keeps."""

MAX_REASON_BYTES: Final = 200
MAX_MS: Final = 1 << 53


class BadBanList(UsageError):
    """A list of bans has a line that is none; nothing of it was taken."""

    code: ClassVar[str] = "BAD_BAN_LIST"
    exit_status: ClassVar[ExitStatus] = ExitStatus.USAGE


class BanListUnwritable(UsageError):
    """A list of bans can't be written where it should be."""

    code: ClassVar[str] = "BAN_LIST_UNWRITABLE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED

    def __init__(self, file: str, error: OSError) -> None:
        super().__init__(f"can't write {file}: {error.strerror}", hint="name another file, or - for stdout")


@dataclass(frozen=True, slots=True)
class ListedBan:
    """A line of a list.

    Attributes:
        until_ms: Unix ms; ``None``: for good.
        left_s: seconds that it lasted yet when it was written; ``None``: for good.
    """

    subject: str
    until_ms: int | None
    left_s: float | None
    reason: str

    def seconds(self, now_ms: int) -> float | None:
        """Return for how long it is to last from ``now_ms`` on; ``None``: for good; 0 or less: it has ended."""
        if self.until_ms is None or self.left_s is None:
            return None
        return min((self.until_ms - now_ms) / 1000, self.left_s)


def write(rows: Iterable[Answer]) -> Iterator[str]:
    """Yield the lines of a list of the bans that a node tells of; shut-outs of minutes are nobody else's concern."""
    yield json.dumps({HEADER: VERSION})
    for row in rows:
        if row.text("kind") in (BANNED, BY_OPERATOR):
            ends = row.json.get("left_s") is not None
            line = {
                "ban": row.text("subject"),
                "until_ms": row.number("until_ms") if ends else None,
                "left_s": row.seconds("left_s") if ends else None,
                "reason": row.text("reason", ""),
            }
            yield json.dumps(line, ensure_ascii=False)


def read(lines: Iterable[str]) -> list[ListedBan]:
    """Return the bans of a list.

    Raises:
        BadBanList: a line is none, or there are too many; the text has its number.
    """
    bans: list[ListedBan] = []
    begun = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number > MAX_LINES + 1:
            raise BadBanList(f"line {number}: a list has at most {MAX_LINES} bans")
        try:
            value = _object(line)
            if begun:
                bans.append(_ban(value))
            elif value != {HEADER: VERSION}:
                raise ValueError(f"a list begins with {json.dumps({HEADER: VERSION})}")
            begun = True
        except (ValueError, GutsError) as error:
            raise BadBanList(f"line {number}: {error}", hint="nothing was imported") from None
    if not begun:
        raise BadBanList("the list is empty: not even its version is there", hint="nothing was imported")
    return bans


def _object(line: str) -> dict[str, object]:
    if len(line.encode("utf-8", "replace")) > MAX_LINE_BYTES:
        raise ValueError(f"a line has at most {MAX_LINE_BYTES} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _ban(value: dict[str, object]) -> ListedBan:
    if set(value) != FIELDS:
        raise ValueError(f"a ban has the fields {', '.join(sorted(FIELDS))}, and no others")
    subject, reason = value["ban"], value["reason"]
    if not isinstance(subject, str) or not isinstance(reason, str):
        raise ValueError("ban and reason are texts")
    if not reason.isprintable() or len(reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        raise ValueError(f"a reason is a line of at most {MAX_REASON_BYTES} bytes")
    check_size(parse_subject(subject))
    match value["until_ms"], value["left_s"]:
        case None, None:
            return ListedBan(subject_text(parse_subject(subject)), None, None, reason)
        case (bool(), _) | (_, bool()):
            pass
        case int() as until, int() | float() as left if 0 <= until <= MAX_MS and 0 <= left <= MAX_MS:
            return ListedBan(subject_text(parse_subject(subject)), until, float(left), reason)
    raise ValueError("until_ms and left_s are both numbers, or both null for a ban without an end")
