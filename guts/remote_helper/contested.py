"""What a push is told once it stands: that somebody else pushed the same ref at the same time.

Each of two pushes that cross each other was right when it was made. Replicas hold both, and show the one of the
maintainer who stands first in the identity; whoever pushed hears of it here, whichever side that is.
"""

from collections.abc import Collection, Sequence
from typing import Final

from guts.ids import AuthorId
from guts.trust.ref_names import CONFLICTS

SHORT_AUTHOR: Final = 12
"""Characters of an author's id in a line of text."""


def crossed(
    shown: Collection[str], pushed: Sequence[str], me: AuthorId, maintainers: Sequence[AuthorId], remote: str
) -> list[str]:
    """Return a line for each of the refs ``pushed`` that is in conflict.

    Args:
        shown: all refs, those of conflicts too.
        me: who pushed.
        remote: the remote's name.
    """
    beside: dict[str, list[str]] = {}
    for name in shown:
        if name.startswith(CONFLICTS):
            author, _, ref = name.removeprefix(CONFLICTS).partition("/")
            beside.setdefault(ref, []).append(author)
    lines = []
    for ref in pushed:
        if authors := beside.get(ref):
            if str(me) in authors:
                # What is shown is another's. The refs do not tell whose, where there are several.
                others = [str(author) for author in maintainers if author != me and str(author) not in authors]
                who, source = others[0] if len(others) == 1 else None, ref
            else:
                who, source = authors[0], f"{CONFLICTS}{authors[0]}/{ref}"
            named = f"{who[:SHORT_AUTHOR]}…" if who is not None else "another maintainer"
            lines.append(
                f"{ref} is in conflict with what {named} pushed: "
                f"git fetch {remote} {source} && git merge FETCH_HEAD, then push again"
            )
    return lines
