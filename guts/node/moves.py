"""``Plan``: which refs a draft means, once git has said which commits would be lost."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import ClassVar

from guts.addresses import RepositoryUrl
from guts.errors import ExitStatus, UsageError
from guts.git.quarantine import Quarantine
from guts.ids import AuthorId, ObjectId, RepositoryId
from guts.node.drafts import Draft
from guts.trust.authoring import Copy, wanted
from guts.trust.canonical_refs import AncestorFacts, CanonicalRefs
from guts.trust.chain import IdentityChain
from guts.trust.ref_names import is_branch, is_ref_name, is_tag
from guts.trust.signed_refs import SignedRefs
from guts.trust.updates import Refusal, Updates, judge, protecting, questions, wanted_after


class NonFastForward(UsageError):
    """A branch would lose commits that others may have, or a tag would become another one.

    Args:
        lost: (ref, name under which the node has what it would lose), in order.
        repository: from where it can be fetched.
    """

    code: ClassVar[str] = "NON_FAST_FORWARD"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, lost: list[tuple[str, str]], repository: RepositoryId) -> None:
        ref, source = lost[0]
        where = RepositoryUrl(repository)
        names = ", ".join(dict.fromkeys(name for name, _ in lost))
        if is_tag(ref):
            text, fetch = "published already, and another object", f"git fetch {where} +{source}:{ref}"
        else:
            text = "what is published is not contained in yours"
            text = f"{text}: {source}" if source != ref else text
            fetch = f"git fetch {where} {source} && git merge FETCH_HEAD"
        super().__init__(
            f"{names}: {text}",
            hint=f"{fetch}, then publish again; --force gives up what is published",
        )


class Protected(UsageError):
    """A rule of the repository protects a ref from being deleted, or moved other than forward."""

    code: ClassVar[str] = "PROTECTED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, ref: str, pattern: str) -> None:
        super().__init__(
            f"{ref} is protected: it can't be deleted, and only moves forward",
            hint=f"a maintainer can propose that: guts identity propose --unprotect '{pattern}' REPOSITORY FILE",
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``prepare_refs`` is asked for.

    Attributes:
        draft: without what was refused.
        refs: all that the repository shall have.
        head: full name of the branch that a clone shall check out.
        forced: refs that lose commits.
        ancestors: what git said of the tips, for whoever signs.
        refused: updates of a push, by ref.
    """

    draft: Draft
    refs: Mapping[str, ObjectId]
    head: str
    forced: frozenset[str]
    ancestors: AncestorFacts
    refused: Mapping[str, Refusal] = field(default_factory=dict)


async def plan(
    draft: Draft,
    chain: IdentityChain,
    records: Mapping[AuthorId, SignedRefs],
    shown: CanonicalRefs,
    ancestors: AncestorFacts,
    quarantine: Quarantine,
) -> Plan:
    """Return what ``draft`` means for a repository that shows ``shown``.

    Args:
        ancestors: those from which ``shown`` was made.
        quarantine: what answers for the new objects; they have been checked.

    Raises:
        NonFastForward, Protected: a copy would lose what it may not.
    """
    if isinstance(draft.intent, Updates):
        return await _plan_updates(draft, draft.intent, chain, shown, ancestors, quarantine)
    others = {author: record for author, record in records.items() if author != draft.author}
    ancestors |= await _contained(_behind(draft.intent, shown), quarantine)
    refs, head = await asyncio.to_thread(
        wanted, chain, draft.author, records.get(draft.author), draft.intent, others=others, ancestors=ancestors
    )
    forced = await _forced(draft, draft.intent.force, refs, shown, quarantine)
    gone = {ref for ref in shown.refs if is_ref_name(ref) and ref not in refs}
    for ref in sorted(forced | gone):
        if ref in shown.refs and (rule := protecting(ref, chain.current.rules)) is not None:
            raise Protected(ref, rule.pattern)
    return Plan(draft, refs, head, forced, ancestors)


async def _plan_updates(
    draft: Draft,
    updates: Updates,
    chain: IdentityChain,
    shown: CanonicalRefs,
    ancestors: AncestorFacts,
    quarantine: Quarantine,
) -> Plan:
    contained = await _contained(questions(updates, shown), quarantine)
    branches = {update.new for ref, update in updates.refs.items() if update.new is not None and is_branch(ref)}
    peeled = await quarantine.peel(branches)
    odd = {oid for oid, (is_annotated, target) in peeled.items() if is_annotated or target.kind != "commit"}
    judged = await asyncio.to_thread(judge, updates, shown, chain.current.rules, contained, odd)
    refs, head = wanted_after(shown, judged.updates, chain.current.default_ref)
    return Plan(replace(draft, intent=judged.updates), refs, head, judged.forced, ancestors, judged.refused)


def _behind(own_copy: Copy, shown: CanonicalRefs) -> list[tuple[ObjectId, ObjectId]]:
    """Return the values of the copy, each with the other one that is shown for the same ref."""
    return [(oid, shown.refs[ref]) for ref, oid in own_copy.refs.items() if shown.refs.get(ref, oid) != oid]


async def _contained(pairs: Sequence[tuple[ObjectId, ObjectId]], quarantine: Quarantine) -> AncestorFacts:
    """Return those of ``pairs`` where the second contains the first."""
    answers = await quarantine.are_ancestors(pairs)
    return frozenset(pair for pair, answer in zip(pairs, answers, strict=True) if answer)


async def _forced(
    draft: Draft, allowed: Set[str], refs: Mapping[str, ObjectId], shown: CanonicalRefs, quarantine: Quarantine
) -> frozenset[str]:
    """Return which of the ``refs`` wanted lose commits. Raises: ``NonFastForward``: some that may not."""
    moved = {ref: oid for ref, oid in refs.items() if shown.refs.get(ref) != oid}
    # What is kept beside a ref as a conflict goes away with a record that has seen it.
    beside = [(conflict.ref, conflict.name, conflict.oid) for conflict in shown.conflicts]
    old = [*((ref, ref, oid) for ref, oid in shown.refs.items()), *beside]
    old = [(ref, name, oid) for ref, name, oid in old if ref in moved]
    kept = await quarantine.are_ancestors([(oid, moved[ref]) for ref, _, oid in old])
    # A tag that moves is another tag, wherever it goes.
    losing = [(ref, name) for (ref, name, _), contained in zip(old, kept, strict=True) if is_tag(ref) or not contained]
    if refused := sorted((ref, name) for ref, name in losing if ref not in allowed):
        raise NonFastForward(refused, draft.repository)
    return frozenset(ref for ref, _ in losing)
