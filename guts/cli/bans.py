"""``guts peer ban``, ``unban``, ``bans``: whom this node does not let in."""

import re
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, Final, TextIO
from urllib.parse import urlencode

import click

from guts.addresses import parse_subject, subject_text
from guts.cli import ban_list, completing
from guts.cli.answer import Answer, answers
from guts.cli.session import Session, count_text, emit, json_option, pass_session, say, span_text, table
from guts.cli.short_ids import KNOWN_ID
from guts.errors import UsageError

DEFAULT_SPAN: Final = "24h"
FOREVER: Final = "forever"
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_SPAN: Final = 100 * 365 * 86_400
"""Seconds; longer is for good."""

_EXPORT: Final = "guts peer bans export FILE writes such a list"
CHUNK: Final = 200
"""Bans in one request."""


class BadSpan(UsageError):
    """A span of time is not one."""

    code: ClassVar[str] = "BAD_SPAN"


def span(text: str) -> float | None:
    """Return the seconds that ``text`` (``90m``, ``30d``) says; ``None`` for ``forever``. Raises: ``BadSpan``."""
    if text == FOREVER:
        return None
    match = re.fullmatch(r"([0-9]{1,30})([smhdw])", text)
    if match is None:
        raise BadSpan(
            f"{text!r} is no span of time: a whole number with s, m, h, d or w, or {FOREVER}", hint="24h, 90m, 30d"
        )
    seconds = int(match[1]) * UNITS[match[2]]
    if not 0 < seconds <= MAX_SPAN:
        raise BadSpan(f"{text} is out of range: 1s to {MAX_SPAN // UNITS['d']}d", hint=f"or {FOREVER}")
    return float(seconds)


def left_text(row: Answer) -> str:
    """Return how long a ban lasts yet."""
    return "for good" if row.json.get("left_s") is None else span_text(row.seconds("left_s"))


@click.command()
@click.argument("who", metavar="ID|ADDRESS|NETWORK", type=KNOWN_ID, shell_complete=completing.peer_ids)
@click.option(
    "--for", "how_long", default=DEFAULT_SPAN, show_default=True, metavar="SPAN", help="Such as 24h; or forever."
)
@click.option("--reason", default="", metavar="TEXT", help="For yourself; nobody is told.")
@json_option
@pass_session
def ban(session: Session, as_json: bool, who: str, how_long: str, reason: str) -> None:
    """Let a node, or a network, in no more, from this moment on."""
    subject = subject_text(parse_subject(who))
    wanted = {"subject": subject, "seconds": span(how_long), "reason": reason}
    answer = Answer.of(session.client().send("POST", "/v1/bans", {"bans": [wanted]}))
    until = "for good" if how_long == FOREVER else f"for {how_long}"
    closed = count_text(answer.number("closed", 0), "connection")
    text = f"banned {subject} {until}" if answer.number("changed", 0) else f"{subject} is banned already, {until}"
    emit(as_json, answer.json, text + (f"; {closed} closed" if answer.number("closed", 0) else ""))


@click.command()
@click.argument("who", metavar="ID|ADDRESS|NETWORK", type=KNOWN_ID, shell_complete=completing.banned)
@json_option
@pass_session
def unban(session: Session, as_json: bool, who: str) -> None:
    """Let it in again; a node's faults are forgiven."""
    subject = subject_text(parse_subject(who))
    answer = Answer.of(session.client().send("DELETE", f"/v1/bans?{urlencode({'subject': subject})}"))
    emit(
        as_json,
        answer.json,
        f"{subject} is let in again" if answer.number("changed", 0) else f"{subject} was not banned",
    )


@click.group(invoke_without_command=True)
@json_option
@pass_session
def bans(session: Session, as_json: bool) -> None:
    """List whom this node does not let in; such lists as files."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    value = session.client().get("/v1/bans")
    rows = [(row.text("subject"), left_text(row), row.text("kind"), row.text("reason", "")) for row in answers(value)]
    emit(as_json, value, table(("WHO", "LEFT", "KIND", "REASON"), rows))
    if not rows and not as_json:
        say("nobody is banned")


@bans.command(name="export", short_help="Write the bans to a file, or to stdout.")
@click.argument("file", metavar="FILE|-")
@json_option
@pass_session
def export_(session: Session, as_json: bool, file: str) -> None:
    """Write the bans to a file, or to stdout, where they are JSON as they are."""
    lines = list(ban_list.write(answers(session.client().get("/v1/bans"))))
    if file == "-":
        emit(False, None, lines)
        return
    try:
        Path(file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ban_list.BanListUnwritable(file, error) from None
    count = len(lines) - 1
    if as_json:
        emit(True, {"file": file, "bans": count}, [])
    else:
        say(f"{count_text(count, 'ban')} written to {file}")


@bans.command(name="import", short_help="Add the bans of a list.")
@click.argument("file", metavar="FILE|-")
@json_option
@pass_session
def import_(session: Session, as_json: bool, file: str) -> None:
    """Add the bans of a list; of two ends of one ban the later one counts. A bad line, and nothing is taken."""
    try:
        with _opened(file) as lines:
            listed = ban_list.read(lines)
    except OSError as error:
        raise ban_list.BadBanList(f"can't read {file}: {error.strerror}", hint=_EXPORT) from None
    except UnicodeDecodeError:
        raise ban_list.BadBanList(f"{file} is not a list of bans: it is not text", hint=_EXPORT) from None
    now_ms = time.time_ns() // 1_000_000
    wanted: list[dict[str, object]] = [
        {"subject": ban.subject, "seconds": seconds, "reason": ban.reason}
        for ban in listed
        if (seconds := ban.seconds(now_ms)) is None or seconds > 0
    ]
    counts = {"changed": 0, "unchanged": 0, "skipped": 0, "closed": 0, "ended": len(listed) - len(wanted)}
    client = session.client()
    for part in _chunks(wanted):
        answer = Answer.of(client.send("POST", "/v1/bans", {"bans": part, "merge": True}))
        for name in ("changed", "unchanged", "skipped", "closed"):
            counts[name] += answer.number(name, 0)
    text = f"{count_text(counts['changed'], 'ban')} added or prolonged, {counts['unchanged']} were there already"
    notes = [(counts["ended"], "have ended"), (counts["skipped"], "of trusted peers passed over")]
    emit(as_json, counts, text + "".join(f", {count} {what}" for count, what in notes if count))


def _opened(file: str) -> AbstractContextManager[TextIO]:
    return nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="utf-8")


def _chunks(wanted: Sequence[dict[str, object]]) -> list[Sequence[dict[str, object]]]:
    return [wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK)]
