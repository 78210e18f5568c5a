"""What a push asks for: these refs, from here to there, and no other (``git push``'s commands).

``Updates`` is to a push what ``guts.trust.authoring.Copy`` is to ``guts publish``. ``judge`` says which of them a
node refuses, each with a reason of a few words, as git shows it beside the ref; ``wanted_after`` what is left of the
repository when the others are done. Both are pure, and the signer runs the second one again.

Protected patterns (``RefRule``) bind who pushes or publishes through an honest node: a matching ref is not deleted,
and not moved other than forward. Replicas do not judge that, and endorsements by others are not counted yet.
"""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final, final

from guts.ids import ObjectId
from guts.trust.canonical_refs import AncestorFacts, CanonicalRefs, Conflict
from guts.trust.identity_document import RefRule
from guts.trust.ref_names import NAMESPACES, is_branch, is_ref_name, is_tag, parents

REMOTE: Final = "REMOTE"
"""Stands in hints for the name of the remote, which only who pushes knows."""

ATOMIC: Final = "atomic push failure"
"""git's words for what goes wrong with a ref when another one of an atomic push is refused."""


@final
@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One command of a push. ``None``: there was, or shall be, no such ref."""

    old: ObjectId | None
    new: ObjectId | None


@final
@dataclass(frozen=True, slots=True)
class Updates:
    """The commands of one push.

    Attributes:
        refs: by full ref name, in the order in which git sent them.
        head: full name of the branch that a clone shall check out; ``None``: as it is.
        force: what is kept beside a ref as a conflict may be given up.
        atomic: all of them or none.
    """

    refs: Mapping[str, RefUpdate]
    head: str | None = None
    force: bool = False
    atomic: bool = False

    @property
    def tips(self) -> frozenset[ObjectId]:
        """The objects that refs shall point at."""
        return frozenset(update.new for update in self.refs.values() if update.new is not None)

    def without(self, refused: Iterable[str]) -> "Updates":
        """Return the same without the refs ``refused``; where no ref is left, HEAD stays too."""
        out = set(refused)
        left = {ref: update for ref, update in self.refs.items() if ref not in out}
        return Updates(left, self.head if left else None, self.force, self.atomic)


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a ref is not moved.

    Attributes:
        reason: a few words.
        hint: what helps, or ``None``.
    """

    reason: str
    hint: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of a push.

    Attributes:
        updates: what is left of it.
        refused: by ref.
        forced: refs that lose commits.
    """

    updates: Updates
    refused: Mapping[str, Refusal]
    forced: frozenset[str]


def is_stale(update: RefUpdate, shown: ObjectId | None) -> bool:
    """Tell whether the ref has moved since whoever pushes saw it, and not to where it shall go."""
    return shown not in (update.old, update.new)


def questions(updates: Updates, shown: CanonicalRefs) -> list[tuple[ObjectId, ObjectId]]:
    """Return the pairs of which ``judge`` must know whether the second contains the first."""
    pairs = [(old, new) for ref, new in _moved(updates) if (old := shown.refs.get(ref)) is not None and old != new]
    moved = dict(_moved(updates))
    pairs += [(conflict.oid, moved[conflict.ref]) for conflict in shown.conflicts if conflict.ref in moved]
    return list(dict.fromkeys(pairs))


def judge(
    updates: Updates,
    shown: CanonicalRefs,
    rules: tuple[RefRule, ...],
    contained: AncestorFacts,
    others_than_commits: Set[ObjectId] = frozenset(),
) -> Judged:
    """Return which of ``updates`` may be done.

    Args:
        shown: the refs as they are.
        rules: of the newest identity document.
        contained: those of ``questions`` that git affirmed.
        others_than_commits: the tips that are none.
    """
    refused: dict[str, Refusal] = {}
    beside = _by_ref(shown)
    for ref, update in updates.refs.items():
        refusal = _refusal(ref, update, updates, shown, rules, contained, beside.get(ref, ()))
        if refusal is None and is_branch(ref) and update.new in others_than_commits:
            refusal = Refusal("a branch points at a commit", "push it as a tag: refs/tags/…")
        if refusal is not None:
            refused[ref] = refusal
    # A ref can stand in the way of another until it is deleted, which may have been refused.
    while clashes := _clashes(updates.without(refused), shown):
        refused.update(clashes)
    if updates.head is not None and updates.head not in wanted_after(shown, updates.without(refused), "")[0]:
        none = Refusal(f"guts.head: there is no branch {updates.head.removeprefix(NAMESPACES[0])!r}")
        refused = {ref: refused.get(ref, none) for ref in updates.refs}
    if updates.atomic and refused:
        refused = {ref: refused.get(ref, Refusal(ATOMIC)) for ref in updates.refs}
    left = updates.without(refused)
    forced = {ref for ref, new in _moved(left) if _loses(ref, new, shown, contained, beside.get(ref, ()))}
    return Judged(left, refused, frozenset(forced))


def wanted_after(shown: CanonicalRefs, updates: Updates, default: str) -> tuple[dict[str, ObjectId], str]:
    """Return ``wanted`` and ``head`` of ``prepare_refs``: all refs, and HEAD, when ``updates`` are done.

    A clone checks out what it did before; where there is no such branch (a first push), the ``default`` one if it is
    there, or else the first of those pushed, or else the first of all.
    """
    refs = {ref: oid for ref, oid in shown.refs.items() if is_ref_name(ref)}
    for ref, update in updates.refs.items():
        refs.pop(ref, None)
        if update.new is not None:
            refs[ref] = update.new
    if updates.head is not None:
        return refs, updates.head
    if shown.head in refs or not updates.refs:
        return refs, shown.head
    pushed = [ref for ref, _ in _moved(updates) if is_branch(ref)]
    branches = pushed or [ref for ref in refs if is_branch(ref)]
    return refs, default if default in refs or not branches else branches[0]


def protecting(ref: str, rules: Iterable[RefRule]) -> RefRule | None:
    """Return the first of ``rules`` whose pattern ``ref`` matches; ``None``: it is not protected.

    A pattern without ``refs/`` is of branches. ``*`` stands for any characters but ``/``, ``**`` for any.
    """
    return next((rule for rule in rules if _pattern(rule.pattern).fullmatch(ref)), None)


def _pattern(pattern: str) -> re.Pattern[str]:
    full = pattern if pattern.startswith("refs/") else NAMESPACES[0] + pattern
    parts = re.split(r"(\*\*|\*)", full)
    kinds = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(kinds.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _refusal(
    ref: str,
    update: RefUpdate,
    updates: Updates,
    shown: CanonicalRefs,
    rules: tuple[RefRule, ...],
    contained: AncestorFacts,
    beside: Iterable[Conflict],
) -> Refusal | None:
    if not is_ref_name(ref):
        return _bad_name(ref)
    now = shown.refs.get(ref)
    if is_stale(update, now):
        if is_tag(ref) and now is not None:
            return Refusal("already exists", "git fetch --tags shows it; git push --force moves it")
        return Refusal("fetch first", "git pull, then push again")
    if now == update.new:
        return None
    if update.new is None and ref == shown.head and updates.head is None:
        return Refusal(
            "deletion of the current branch prohibited",
            "a clone checks it out; -o guts.head=BRANCH names another in the same push",
        )
    rule = protecting(ref, rules)
    if rule is not None and now is not None:
        hint = f"a maintainer can propose that: guts identity propose --unprotect '{rule.pattern}' REPOSITORY FILE"
        if update.new is None:
            return Refusal("protected: it can't be deleted", hint)
        if is_tag(ref) or (now, update.new) not in contained:
            return Refusal("protected: it only moves forward", hint)
    # git's --force is about what is shown; whoever says it may never have heard of what is kept beside.
    sides = [(conflict.name, conflict.oid) for conflict in beside]
    if sides and now is not None:
        sides.append((ref, now))
    lost = [name for name, oid in sides if update.new is None or (oid, update.new) not in contained]
    if lost and not updates.force:
        return Refusal(
            "in conflict: merge first",
            f"git fetch {REMOTE} {lost[0]} && git merge FETCH_HEAD; or give that up: git push -o guts.force",
        )
    return None


def _bad_name(ref: str) -> Refusal:
    if ref.startswith("refs/guts/"):
        return Refusal("refs/guts/ belongs to the nodes", "push it as a branch: refs/heads/…")
    if not ref.startswith(NAMESPACES):
        return Refusal("only branches, tags and notes are published", "push it as one: refs/heads/…, refs/tags/…")
    return Refusal("funny refname", "a name has at most 255 bytes, and what git check-ref-format allows")


def _moved(updates: Updates) -> list[tuple[str, ObjectId]]:
    return [(ref, update.new) for ref, update in updates.refs.items() if update.new is not None]


def _by_ref(shown: CanonicalRefs) -> dict[str, list[Conflict]]:
    conflicts: dict[str, list[Conflict]] = {}
    for conflict in shown.conflicts:
        conflicts.setdefault(conflict.ref, []).append(conflict)
    return conflicts


def _loses(ref: str, new: ObjectId, shown: CanonicalRefs, contained: AncestorFacts, beside: Iterable[Conflict]) -> bool:
    """Tell whether what is shown for ``ref``, or kept beside it, is not in ``new``; another tag never is."""
    there = [] if (now := shown.refs.get(ref)) is None else [now]
    there += [conflict.oid for conflict in beside]
    return any(old != new and (is_tag(ref) or (old, new) not in contained) for old in there)


def _clashes(updates: Updates, shown: CanonicalRefs) -> dict[str, Refusal]:
    """Return the refs of ``updates`` that can't exist beside another one."""
    refs, _ = wanted_after(shown, updates, "")
    directories: dict[str, str] = {}
    for ref in refs:
        directories.update(dict.fromkeys(parents(ref), ref))
    clashes = {}
    for ref, _ in _moved(updates):
        other = directories.get(ref) or next((parent for parent in parents(ref) if parent in refs), None)
        if other is not None:
            clashes[ref] = Refusal(f"'{other}' exists; cannot create '{ref}'")
    return clashes
