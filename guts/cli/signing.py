"""Signing refs that a node prepared: they are made again here, from what every maintainer signed, and compared.

The node knows the history, and could be broken into. So it also hands over the records that it worked with, whose
signatures are checked here, and the next record must come out the same, byte for byte, with a time that is about that
of the clock here. What is left to a lying node is to withhold news of others, and to tell which of two concurrent
commits contains the other; neither moves a ref of ours to where we did not want it.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from guts.cli.answer import Answer, BadAnswer
from guts.cli.signed_records import check_previous
from guts.errors import ExitStatus, GutsError, PeerFault
from guts.ids import AuthorId, ObjectId

if TYPE_CHECKING:  # PyNaCl is loaded by the command, not by --help
    from guts.identity import SigningKey
    from guts.trust.authoring import Copy
    from guts.trust.chain import IdentityChain
    from guts.trust.signed_refs import Header, SignedRefs
    from guts.trust.updates import Updates

MAX_TIME_OFFSET_MS: Final = 5 * 60 * 1000
"""How far the time in a record may be from our clock: as far as a node's clock may be from its peers'."""

MAX_SEQ_AHEAD_MS: Final = 10 * 60 * 1000
"""How far past our clock a record's seq may be: replicas put up with no more, and each later one must be higher."""


class NotAsked(GutsError):
    """The node wants something else signed than what it was given."""

    code: ClassVar[str] = "WRONG_BODY"
    exit_status: ClassVar[ExitStatus] = ExitStatus.INTEGRITY


@dataclass(frozen=True, slots=True)
class Update:
    """A ref of the repository that a signature moves.

    Attributes:
        old, new: ``None``: there was, or will be, none.
        forced: what ``old`` has is given up.
    """

    ref: str
    old: ObjectId | None
    new: ObjectId | None
    forced: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature over ``header``, and the refs of the repository that it moves."""

    signature: bytes
    header: "Header"
    updates: list[Update]


def sign_refs(
    key: "SigningKey", prepared: Answer, chain: "IdentityChain", intent: "Copy | Updates", now_ms: int, author_key: Path
) -> Signature:
    """Return the signature over what the node prepared, and what it changes.

    Args:
        chain: the identity documents of the repository, checked.
        intent: what is to be published: the author's own copy, or the updates of a push without those refused.
        now_ms: Unix milliseconds by the clock of whoever signs.
        author_key: file of ``key``, beside which it is noted what was published.

    Raises:
        RecordMissing: it does not go on from what was published last (``guts.cli.signed_records``).
        CannotPublish: HEAD would point at no branch, and there are some.
        NotAsked: it is not the record that makes the author's refs those of the repository, or not one of now.
    """
    from guts.identity import domain
    from guts.trust.authoring import Copy, check_head, prepare_refs, wanted
    from guts.trust.canonical_refs import canonical_refs
    from guts.trust.entries import Entries
    from guts.trust.ref_names import CONFLICTS
    from guts.trust.signed_refs import KIND, Header
    from guts.trust.updates import is_stale, wanted_after

    body, encoded = _bytes(prepared, "body"), _bytes(prepared, "entries")
    try:
        header, entries = Header.decode_body(body), Entries.decode(encoded)
    except PeerFault as error:
        raise NotAsked(f"the node wants something signed that is no record of refs: {error}") from None
    _check_time(header, now_ms)
    others = _records(prepared, chain)
    previous = others.pop(key.author_id, None)
    check_previous(author_key, chain, key.author_id, previous)
    ancestors = {(_oid(pair, "ancestor"), _oid(pair, "descendant")) for pair in prepared.objects("ancestors")}
    records = others if previous is None else {**others, key.author_id: previous}
    shown = canonical_refs(chain, records, ancestors)
    if isinstance(intent, Copy):
        refs, head = wanted(chain, key.author_id, previous, intent, others=others, ancestors=ancestors)
        may_lose = intent.force
    else:
        if any(is_stale(update, shown.refs.get(ref)) for ref, update in intent.refs.items()):
            raise NotAsked("a ref is not where git saw it, and the node wants it moved all the same")
        refs, head = wanted_after(shown, intent, chain.current.default_ref)
        # git saw where each of them was, and refuses by itself what loses commits, unless it was forced.
        may_lose = intent.refs.keys()
    check_head(refs, head)
    forced = {ref for ref, entry in entries.refs.items() if entry.forced == header.seq} & may_lose
    expected = prepare_refs(
        chain,
        key.author_id,
        previous,
        refs,
        head,
        header.time_ms,
        forced=forced,
        others=others,
        ancestors=ancestors,
    )
    if expected is None or expected.body != body:  # which has the hash of the entries in it
        raise NotAsked("the node wants other refs signed than those of this repository; nothing was signed")
    before = shown.refs
    updates = [
        Update(ref, before.get(ref), refs.get(ref), ref in forced)
        for ref in sorted(before.keys() | refs.keys(), key=str.encode)
        if before.get(ref) != refs.get(ref) and not ref.startswith(CONFLICTS)
    ]
    return Signature(key.sign(domain(KIND), body), header, updates)


def _check_time(header: "Header", now_ms: int) -> None:
    """Raises: ``NotAsked``: a record that says so would have to wait with replicas, and would use up seqs to come."""
    if abs(header.time_ms - now_ms) > MAX_TIME_OFFSET_MS:
        raise NotAsked(
            "the node's clock is more than 5 minutes away from the one here; nothing was signed",
            hint="set the clocks of both machines (timedatectl set-ntp true), then try again",
        )
    if header.seq > now_ms + MAX_SEQ_AHEAD_MS:
        raise NotAsked("the node wants a record signed that is more than 10 minutes in the future; nothing was signed")


def _records(prepared: Answer, chain: "IdentityChain") -> "dict[AuthorId, SignedRefs]":
    from guts.trust.signed_refs import SignedRefs

    try:
        records = [
            SignedRefs.decode(_bytes(record, "header"), _bytes(record, "entries"))
            for record in prepared.objects("records")
        ]
    except PeerFault as error:
        raise NotAsked(f"the node works with a record that nobody signed: {error}") from None
    if any(record.header.repository != chain.repository for record in records):
        raise NotAsked("the node works with a record of another repository")
    return {record.author: record for record in records}


def _bytes(answer: Answer, name: str) -> bytes:
    try:
        return base64.b64decode(answer.text(name), validate=True)
    except binascii.Error:
        raise BadAnswer(f"has a {name} that is not base64") from None


def _oid(answer: Answer, name: str) -> ObjectId:
    try:
        return ObjectId(bytes.fromhex(answer.text(name)))
    except ValueError:
        raise BadAnswer(f"has an object id {name} that is none") from None
