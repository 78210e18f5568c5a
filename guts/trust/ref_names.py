"""Which ref names may be published: ``git check-ref-format``, in three namespaces, without traps."""

import re
from typing import Final

MAX_REF_BYTES: Final = 255
"""One file name on every common file system, where git may store a ref as a loose file."""

NAMESPACES: Final = ("refs/heads/", "refs/tags/", "refs/notes/")
BRANCHES: Final = NAMESPACES[0]
TAGS: Final = NAMESPACES[1]

CONFLICTS: Final = "refs/guts/conflict/"
"""What lost against the value shown for a ref is kept below, as ``<author>/<ref>``; nobody publishes such names."""

# Controls (C0, DEL, C1) are refused everywhere. So are the characters that reorder text on a screen (UAX #9
# embeddings, overrides and isolates): with them one branch reads as another. The list is fixed here, because
# "is a format character" depends on the Unicode version, and replicas must agree. Lone surrogates stand for
# bytes that were not UTF-8 (PEP 383); they have no UTF-8 form.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# git check-ref-format(1), rules 1 and 3-10, over the part after the namespace.
_FORBIDDEN: Final = re.compile(
    r"""
    [ ~^:?*\[\\]        # space and the characters with a meaning in revisions and globs
    | \.\. | @\{        # ranges, reflogs
    | // | (?:^|/)\.    # empty component, component that begins with a dot
    | \.lock(?:/|$)     # git's lock files
    | [./]$             # at the end
    | ^$ | ^/
    """,
    re.VERBOSE,
)


def has_control(text: str) -> bool:
    """Tell whether ``text`` has a control character, one that reorders text on a screen, or no UTF-8 form."""
    return _CONTROL.search(text) is not None


def is_ref_name(name: str) -> bool:
    """Tell whether ``name`` is a full ref name that may be published: a branch, tag or note, ≤ 255 bytes."""
    for namespace in NAMESPACES:
        if name.startswith(namespace):
            return (
                not has_control(name)
                and len(name.encode()) <= MAX_REF_BYTES
                and _FORBIDDEN.search(name[len(namespace) :]) is None
            )
    return False


def is_branch(name: str) -> bool:
    """Tell whether ``name`` is the full name of a branch."""
    return name.startswith(BRANCHES) and is_ref_name(name)


def is_tag(name: str) -> bool:
    """Tell whether ``name``, of a ref that may be published, is the full name of a tag."""
    return name.startswith(TAGS)


def parents(name: str) -> list[str]:
    """Return the ref names that cannot exist beside ``name``, because they would be its directories."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(3, len(parts))]
