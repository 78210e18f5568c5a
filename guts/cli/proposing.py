"""What a new identity document may say, told before it is made: in the words of the command that asked for it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guts.cli.answer import Answer
from guts.cli.proposal import BadProposal
from guts.cli.session import say
from guts.ids import AuthorId
from guts.trust.chain import IdentityChain
from guts.trust.identity_document import AuthorPoint, InvalidIdentity, RefRule, default_threshold
from guts.trust.ref_names import BRANCHES, NAMESPACES

if TYPE_CHECKING:
    from guts.cli.proposal import Proposal


def changed_maintainers(
    chain: IdentityChain, coming: Sequence[AuthorId], going: Sequence[AuthorId]
) -> tuple[AuthorId, ...] | None:
    """Return who the maintainers would be; ``None``: who they are. Raises: ``BadProposal``: they can't be."""
    present = chain.current.maintainers
    lists = f"guts maintainers ls {chain.repository}"
    for author in coming:
        if author in present:
            raise BadProposal(f"{author} is a maintainer already", hint=lists)
    for author in going:
        if author not in present:
            raise BadProposal(f"{author} is not a maintainer", hint=lists)
    if not coming and not going:
        return None
    after = (*(author for author in present if author not in going), *coming)
    if not after:
        raise BadProposal("the last maintainer can't be removed", hint="--add auth1… names who comes instead")
    return after


def check_threshold(chain: IdentityChain, maintainers: Sequence[AuthorId] | None, threshold: int | None) -> None:
    """Raises: ``BadProposal``: more signatures would be needed than there would be maintainers."""
    count = len(chain.current.maintainers if maintainers is None else maintainers)
    if threshold is not None and threshold > count:
        there = "1 maintainer" if count == 1 else f"{count} maintainers"
        raise BadProposal(
            f"--threshold {threshold}: there would be {there}", hint=f"more than half are {default_threshold(count)}"
        )


def changed_rules(
    chain: IdentityChain, protected: Sequence[str], unprotected: Sequence[str]
) -> tuple[RefRule, ...] | None:
    """Return what the rules would be; ``None``: what they are. Raises: ``BadProposal``: they can't be."""
    if not protected and not unprotected:
        return None
    rules = {rule.pattern: rule for rule in chain.current.rules}
    for pattern in unprotected:
        if rules.pop(pattern, None) is None:
            known = ", ".join(f"'{rule.pattern}'" for rule in chain.current.rules) or "none"
            raise BadProposal(f"no rule protects {pattern!r}", hint=f"the patterns there are: {known}")
    for pattern in protected:
        if pattern in rules:
            raise BadProposal(f"{pattern!r} is protected already", hint=f"guts identity show {chain.repository}")
        if pattern.startswith("refs/") and not pattern.startswith((*NAMESPACES, "refs/*")):
            raise BadProposal(f"{pattern!r} matches no ref", hint="main, release/*, refs/tags/v*")
        try:
            rules[pattern] = RefRule(pattern, 1)
        except InvalidIdentity as error:
            raise BadProposal(f"{pattern!r}: {error}", hint="main, release/*, refs/tags/v*") from None
    return tuple(sorted(rules.values(), key=lambda rule: rule.pattern.encode()))


def check_branch(repository: Answer, branch: str) -> None:
    """Warn where ``branch`` is not among the refs of ``repository``."""
    if f"{BRANCHES}{branch}" not in repository.object("canonical_refs").json:
        say(f"warning: no branch {branch!r} is published")


def newest_record(repository: Answer, author: AuthorId) -> AuthorPoint:
    """Return the newest record of ``author`` that counts at the node; seq 0: there is none."""
    for record in repository.objects("signed_refs"):
        if record.text("author") == str(author):
            return _point(author, record)
    return AuthorPoint(author, 0, b"")


def reaffirmed_record(repository: Answer, author: AuthorId, begin: str | None) -> AuthorPoint:
    """Return the author's record whose hash begins like that; the one that counts, where nothing is said.

    Raises:
        BadProposal: there is not exactly one.
    """
    shown = f"guts inspect {repository.text('id')}"
    if str(author) not in repository.texts("maintainers"):
        raise BadProposal(f"{author} is not a maintainer", hint=f"guts maintainers ls {repository.text('id')}")
    splits = [split for split in repository.objects("splits") if split.text("author") == str(author)]
    if not splits:
        say(f"warning: {author} is not suspended; what it publishes before this is applied would not count")
    newest = newest_record(repository, author)
    if begin is None:
        if not newest.seq:
            raise BadProposal(f"no record of {author} counts", hint=f"--record names one of those in {shown}")
        return newest
    sides = {_point(author, record) for split in splits for record in split.objects("records")}
    known = sides | ({newest} if newest.seq else set())
    found = [point for point in known if point.hash.hex().startswith(begin.lower().removesuffix("…"))]
    if len(found) != 1:
        raise BadProposal(f"there is no one record of {author} whose hash begins with {begin!r}", hint=shown)
    return found[0]


def published_since(repository: Answer, proposal: "Proposal") -> AuthorPoint | None:
    """Return a record that is newer than the one after which ``proposal`` lets nothing of its author count."""
    for point in (*proposal.document.removed, *proposal.document.reaffirmed):
        newest = newest_record(repository, point.author)
        if newest.seq > point.seq:
            return newest
    return None


def _point(author: AuthorId, record: Answer) -> AuthorPoint:
    return AuthorPoint(author, record.number("seq"), bytes.fromhex(record.text("hash")))
