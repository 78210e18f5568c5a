"""``git push -o``: the options that a push understands."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from guts.errors import UsageError

DEFAULT_TIMEOUT: Final = 20.0
"""Seconds that a push waits for replicas: a small one is there in a second, and the node goes on afterwards."""

MAX_TIMEOUT: Final = 86_400.0
DEFAULT_REPLICAS: Final = 3
"""Wanted where as many follow the repository: with two of them gone the push is still there."""

MAX_REPLICAS: Final = 1_000
MAX_OPTIONS: Final = 100
MAX_OPTION_BYTES: Final = 1_024

_PREFIX: Final = "guts."
_NAMES: Final = ("guts.replicas", "guts.timeout", "guts.strict", "guts.no-sync", "guts.head", "guts.force")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


class BadPushOption(UsageError):
    """An option of ``git push -o`` is not known, or has an impossible value."""

    code: ClassVar[str] = "BAD_PUSH_OPTION"


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What a push was asked for besides its refs.

    Attributes:
        replicas: how many must confirm; ``None``: as many as follow the repository, at most ``DEFAULT_REPLICAS``.
        timeout: seconds to wait for them.
        strict: fewer are a failure.
        sync: whether to wait at all.
        head: full name of the branch that a clone shall check out; ``None``: as it is.
        force: what is kept beside a ref as a conflict may be given up.
        unknown: options for other servers, which mean nothing here.
    """

    replicas: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    strict: bool = False
    sync: bool = True
    head: str | None = None
    force: bool = False
    unknown: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, options: Iterable[str]) -> "PushOptions":
        """Return what ``options`` (``guts.replicas=2``) say. Raises: ``BadPushOption``."""
        values: dict[str, str] = {}
        unknown = []
        for option in options:
            name, separator, value = option.partition("=")
            if name in _NAMES:
                values[name] = value if separator else ""
            elif name.startswith(_PREFIX) or difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.8):
                near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0)[0]
                raise BadPushOption(f"there is no push option {name!r}; did you mean {near!r}?", hint=_hint())
            else:
                unknown.append(name)
        for flag in ("guts.strict", "guts.no-sync", "guts.force"):
            if values.get(flag):
                raise BadPushOption(f"{flag} takes no value", hint=f"git push -o {flag}")
        if "guts.no-sync" in values and not values.keys().isdisjoint({"guts.replicas", "guts.timeout", "guts.strict"}):
            raise BadPushOption("guts.no-sync waits for nobody: it goes with no other option about replicas")
        return cls(
            replicas=_replicas(values["guts.replicas"]) if "guts.replicas" in values else None,
            timeout=_timeout(values["guts.timeout"]) if "guts.timeout" in values else DEFAULT_TIMEOUT,
            strict="guts.strict" in values,
            sync="guts.no-sync" not in values,
            head=_head(values["guts.head"]) if "guts.head" in values else None,
            force="guts.force" in values,
            unknown=tuple(unknown),
        )


def _replicas(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or int(text) > MAX_REPLICAS:
        raise BadPushOption(f"guts.replicas={text}: not a number from 0 to {MAX_REPLICAS}", hint=_hint())
    return int(text)


def _timeout(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise BadPushOption(f"guts.timeout={text}: not a duration such as 20s or 2m, up to 24h", hint=_hint())
    return seconds


def _head(text: str) -> str:
    branch = text.removeprefix("refs/heads/")
    if not branch or branch.startswith("refs/"):
        raise BadPushOption(f"guts.head={text}: not a branch", hint="git push -o guts.head=BRANCH")
    return f"refs/heads/{branch}"


def _hint() -> str:
    return "guts.replicas=N, guts.timeout=20s, guts.strict, guts.no-sync, guts.head=BRANCH, guts.force"
