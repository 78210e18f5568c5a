"""Bans in the body of a request."""

import math
from collections.abc import Mapping
from typing import Final

from guts.addresses import parse_subject
from guts.api.errors import BadRequest
from guts.events import WantedBan

MAX_LISTED: Final = 256
"""Bans in one request: with reasons of 200 bytes they fit in a body."""

MAX_BAN_SECONDS: Final = 100 * 365 * 86_400.0
"""Longer is for good."""


def wanted_bans(body: Mapping[str, object]) -> tuple[list[WantedBan], bool]:
    """Return the bans in ``body``, and whether they are to be merged.

    Raises:
        BadRequest: it is not ``{"bans": [{"subject", "seconds", "reason"?}], "merge"?}``; ``seconds`` null: for good.
        BadSubject, BadId: a subject is none.
    """
    listed, merge = body.get("bans"), body.get("merge", False)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_LISTED or not isinstance(merge, bool):
        raise BadRequest(f"bans is not a list of 1 to {MAX_LISTED}, or merge is no truth value")
    return [_wanted(item) for item in listed], merge


def _wanted(item: object) -> WantedBan:
    match item:
        case {"subject": str(subject), "seconds": bool()}:
            pass
        case {"subject": str(subject), "seconds": int() | float() | None as seconds, **rest}:
            reason = rest.get("reason", "")
            if isinstance(reason, str) and (seconds is None or 0 < seconds <= MAX_BAN_SECONDS):
                return WantedBan(parse_subject(subject), math.inf if seconds is None else float(seconds), reason)
    raise BadRequest("a ban has a subject, seconds up to a hundred years or null, and perhaps a reason")
