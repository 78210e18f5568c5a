"""``--dry-run`` of what changes what is seeded: what it would take or give, and what would be left.

Of ``guts seed`` several are judged in the order in which they are named, and together.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from guts.addresses import RepositoryUrl
from guts.cli.answer import Answer
from guts.cli.repositories import path_of
from guts.cli.session import span_text
from guts.cli.waiting import waiting
from guts.errors import ExitStatus
from guts.ids import RepositoryId
from guts.sizes import size_text

if TYPE_CHECKING:  # as in guts.cli.session
    from guts.cli.client import ControlClient


class DryRun:
    """One run: what is allowed counts for what comes after it, and what is not takes nothing."""

    def __init__(self, client: "ControlClient", hints: Sequence[str], timeout: float) -> None:
        self._client = client
        self._hints = hints
        self._timeout = timeout
        self._answers: dict[RepositoryId, Answer] = {}

    def judge(self, url: RepositoryUrl) -> tuple[object, list[str], ExitStatus]:
        """Ask the node about one more repository; return what it says, for programs and for people.

        Raises:
            GutsError: nobody tells of it, or it is blocked.
        """
        before = self._coming(url.repository)
        addresses = [*self._hints, *([str(url.hint)] if url.hint else [])]
        query = urlencode([("timeout", self._timeout), ("besides", before), *(("hint", one) for one in addresses)])
        with waiting(lambda: f"asking for the size of {url.repository.short}…"):
            answer = Answer.of(self._client.get(f"{path_of(url.repository)}/seeding?{query}", self._timeout))
        self._answers[url.repository] = answer
        size = size_text(answer.number("size_bytes")) if answer.json.get("size_bytes") is not None else "not told"
        if answer.flag("claimed"):
            sources = answer.number("sources", 0)
            size += f", as {sources} of its holders {'says' if sources == 1 else 'say'}: nobody has checked that"
        else:
            size += "; it is here already"
        rows = [
            ("repository", str(url.repository)),
            ("size", size),
            *left(answer),
            ("allowed", "yes" if answer.flag("allowed") else f"no: {answer.text('refusal', '')}"),
        ]
        told = lines(rows)
        if not answer.flag("allowed"):
            told.append(f"hint: {answer.text('hint', '')}")
        return answer.json, told, ExitStatus.OK if answer.flag("allowed") else ExitStatus.QUOTA

    def total(self, asked: int) -> tuple[dict[str, object], list[str]]:
        """Return what all that is allowed takes together, of ``asked`` repositories."""
        coming = self._coming()
        allowed = [answer for answer in self._answers.values() if answer.flag("allowed")]
        untold = sum(answer.json.get("size_bytes") is None for answer in allowed)
        value: dict[str, object] = {"asked": asked, "allowed": len(allowed), "size_bytes": coming, "untold": untold}
        text = f"{len(allowed)} of {asked} allowed"
        text += f", {size_text(coming)} to come" + (f", and what {untold} do not tell" if untold else "")
        rows = [("together", text)]
        if self._answers:
            last = list(self._answers.values())[-1]
            free_after = max(0, last.number("free_bytes", 0) - coming)
            used_after = last.number("used_bytes", 0) + coming
            value |= {"free_after_bytes": free_after, "used_after_bytes": used_after}
            rows += _left(last, free_after, used_after)
        return value, ["", *lines(rows)]

    def _coming(self, other_than: RepositoryId | None = None) -> int:
        """Return the bytes that would have come by now."""
        return sum(
            answer.number("size_bytes", 0)
            for repository, answer in self._answers.items()
            if repository != other_than and answer.flag("allowed") and not answer.flag("here")
        )


def left(answer: Answer) -> list[tuple[str, str]]:
    """Return what the node says would be left, as rows of ``lines``."""
    return _left(answer, answer.number("free_after_bytes", 0), answer.number("used_after_bytes", 0))


def would_go(answer: Answer) -> list[str]:
    """Return what would be removed, when, and what would be left."""
    rows = [
        (
            "would go",
            f"{one.text('repository')}, {size_text(one.number('size_bytes', 0))}, "
            + (f"in {span_text(seconds)}" if (seconds := one.seconds("removed_in_s", 0.0)) else "at once"),
        )
        for one in answer.objects("repositories")
    ]
    return lines([*(rows or [("would go", "nothing: it is not here")]), *left(answer)])


def _left(answer: Answer, free_after: int, used_after: int) -> list[tuple[str, str]]:
    free, used, disk = (size_text(answer.number(name, 0)) for name in ("free_bytes", "used_bytes", "disk_bytes"))
    return [
        ("free", f"{free} now, {size_text(free_after)} after"),
        ("seeded", f"{used} now, {size_text(used_after)} after, of {disk} that seeding.disk allows"),
    ]


def lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line for each (name, value)."""
    return [f"{name:<13} {value}" for name, value in rows]
