"""The last line of a push: which replicas hold it, in their own signed words (receipts)."""

import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guts.cli.answer import Answer, BadAnswer
from guts.cli.client import ControlClient
from guts.cli.kept_receipts import keep_receipts
from guts.errors import ExitStatus, GutsError, StorageFault
from guts.ids import AuthorId, RepositoryId
from guts.remote_helper.push_options import DEFAULT_REPLICAS, PushOptions
from guts.remote_helper.receive_pack import Reporter

NAMED: Final = 5
"""Replicas that are named; of more, how many."""

SHORT_PEER: Final = 12
"""Characters of a node's id in a line of text."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a replica does that has taken a push over: ``hold a1b2c3d``, ``holds a1b2c3d``."""

    many: str
    one: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """A record that the node has committed.

    Attributes:
        seq, hash: of the signed record.
        followers: nodes that want the repository's news, by the node's own count.
        begun: monotonic seconds.
    """

    repository: RepositoryId
    author: AuthorId
    seq: int
    hash: bytes
    words: Words
    followers: int
    begun: float


def wait_for_replicas(
    client: ControlClient,
    pushed: Pushed,
    options: PushOptions,
    reporter: Reporter,
    *,
    node_stays: bool,
    before_last: Callable[[], None],
) -> ExitStatus:
    """Wait for the replicas that ``options`` ask for and say who they are; the push stands, whatever comes of it.

    Args:
        node_stays: the node goes on when the push is done.
        before_last: says what there is to say before the last line, with what has come in until then.

    Returns:
        ``OK``, or ``TIMED_OUT`` where it was to be strict and too few have confirmed.
    """
    if not options.sync or options.replicas == 0:
        before_last()
        return ExitStatus.OK
    wanted = options.replicas if options.replicas is not None else min(DEFAULT_REPLICAS, pushed.followers)
    peers: list[str] = []
    if wanted:
        path = (
            f"/v1/repositories/{pushed.repository}/receipts?author={pushed.author}&seq={pushed.seq}"
            f"&replicas={wanted}&timeout={options.timeout:g}"
        )
        try:
            told = Answer.of(client.get(path, options.timeout))
            own_node = Answer.of(client.get("/v1/status")).text("id")
            peers, invalid = confirmed(told, pushed, own_node)
        except GutsError as error:
            before_last()
            reporter.warning(f"it is pushed, but the node does not say who holds it: {error}")
            return ExitStatus.FAILED if options.strict else ExitStatus.OK
        if invalid:
            reporter.warning(f"{invalid} receipts that the node shows are none, and are not counted")
        _keep(told, pushed, reporter)
    seconds = time.monotonic() - pushed.begun
    before_last()
    if wanted and len(peers) >= wanted:
        # More may have come than were waited for.
        reporter.success(f"{len(peers)}/{len(peers)} replicas {pushed.words.many}{_named(peers)} in {seconds:.1f} s")
        return ExitStatus.OK
    goes_on = f"guts sync {pushed.repository}" if node_stays else "guts node start"
    if peers:
        text = f"{len(peers)}/{wanted} replicas {pushed.words.many}{_named(peers)} after {seconds:.0f} s"
    elif wanted:
        text = f"0/{wanted} replicas {pushed.words.many} after {seconds:.0f} s: no other node has it yet"
    else:
        text = f"no other node {pushed.words.one} yet"
    text += "; the node keeps trying" if node_stays else "; your node is not running: once it is, others can get it"
    if options.strict:
        reporter.failure(f"{text}. The push itself stands", hint=goes_on)
        return ExitStatus.TIMED_OUT
    reporter.warning(f"{text}: {goes_on}")
    return ExitStatus.OK


def confirmed(told: Answer, pushed: Pushed, own_node: str) -> tuple[list[str], int]:
    """Return which other nodes have signed that they hold the record, or a later one; and how many did not.

    The node only passes their word on: each signature is checked here.

    Raises: ``BadAnswer``: these are no receipts.
    """
    from guts.errors import PeerFault
    from guts.records import CommitReceipt

    peers: dict[str, None] = {}
    invalid = 0
    for receipt in told.objects("receipts"):
        try:
            claim = CommitReceipt.verify(base64.b64decode(receipt.text("receipt"))).claim
        except (PeerFault, ValueError):
            invalid += 1
            continue
        right = (claim.repository, claim.author) == (pushed.repository, pushed.author) and (
            claim.seq > pushed.seq or (claim.seq, claim.hash) == (pushed.seq, pushed.hash)
        )
        if right and str(claim.peer) != own_node:
            peers[str(claim.peer)] = None
        else:
            invalid += 1
    return list(peers), invalid


def _keep(told: Answer, pushed: Pushed, reporter: Reporter) -> None:
    """Keep what replicas signed in the repository that is pushed from, which git names in the environment."""
    try:
        keep_receipts(Path(os.environ["GIT_DIR"]), told, pushed.repository, pushed.author)
    except (StorageFault, BadAnswer) as error:
        reporter.warning(f"the receipts of the replicas could not be kept: {error}")


def _named(peers: list[str]) -> str:
    shown = [f"{peer[:SHORT_PEER]}…" for peer in peers[:NAMED]]
    more = [f"{len(peers) - NAMED} more"] if len(peers) > NAMED else []
    return f" ({', '.join([*shown, *more])})"
