"""What the owner of a repository could make honest replicas ban each other for."""

import os

import pytest

from guts.errors import GutsError, Severity, Unavailable
from guts.identity import SigningKey, domain
from guts.ids import ObjectId
from guts.node.acceptance import Held, MissingContext, NotYet, verify
from guts.records import Signed
from guts.store.history import IdentityFork
from guts.sync.quotas import QuotaExceeded
from guts.trust.acceptance import NotMaintainer
from guts.trust.authoring import prepare_refs
from guts.trust.chain import IdentityChain, IdentityDiverged
from guts.trust.identity_document import IdentityDocument
from guts.trust.signed_refs import KIND
from guts.wire.messages import EncodedRefs
from tests.support.nodes import World

NOW = 1_790_000_000_000
ALICE, BOB, EVE = SigningKey(b"a" * 32), SigningKey(b"b" * 32), SigningKey(b"e" * 32)
GENESIS = IdentityDocument.genesis(
    name="x",
    description="",
    default_branch="main",
    maintainers=(ALICE.author_id,),
    created_ms=NOW,
    nonce=bytes(16),
)
FIRST = IdentityChain.from_documents([GENESIS.sign(ALICE)])


def longer(chain: IdentityChain, text: str, *added: SigningKey) -> IdentityChain:
    """Return ``chain`` with a document that Alice signs, with those who are ``added``."""
    maintainers = (*chain.current.maintainers, *[key.author_id for key in added])
    document = chain.successor(created_ms=NOW, nonce=bytes(16), description=text, maintainers=maintainers, threshold=1)
    return chain.extend(document.sign(ALICE, *added))


def record(chain: IdentityChain, key: SigningKey) -> EncodedRefs:
    refs = {"refs/heads/main": ObjectId(bytes(20))}
    unsigned = prepare_refs(chain, key.author_id, None, refs, "refs/heads/main", NOW, forced=frozenset())
    assert unsigned is not None
    signed = unsigned.attach(key.author_id, key.sign(domain(KIND), unsigned.body))
    return EncodedRefs(signed.header_bytes, signed.entries_bytes)


def refusal(held: IdentityChain, documents: tuple[bytes, ...], *records: EncodedRefs) -> GutsError:
    with pytest.raises(GutsError) as refused:
        verify(held.repository, Held(held, {}), documents, (), records, NOW)
    return refused.value


def test_news_by_a_maintainer_who_is_not_known_here_yet_is_nobodys_fault() -> None:
    """News of a record travels without the document that made its author a maintainer."""
    error = refusal(FIRST, (), record(longer(FIRST, "two", BOB), BOB))
    assert isinstance(error, MissingContext)
    assert isinstance(error, Unavailable)


def test_replicas_that_met_different_documents_of_one_epoch_do_not_ban_each_other() -> None:
    ours, theirs = longer(FIRST, "ours"), longer(FIRST, "theirs", BOB)
    assert isinstance(refusal(ours, (), record(theirs, BOB)), NotYet)
    further = longer(theirs, "further")
    error = refusal(ours, further.documents[2:])
    assert isinstance(error, IdentityDiverged)
    assert error.severity is Severity.NETWORK
    verified = verify(ours.repository, Held(ours, {}), further.documents[1:], (), (), NOW)
    assert verified is not None
    assert verified.fork == IdentityFork(1, theirs.documents[1])


def test_record_of_a_stranger_under_our_own_document_is_still_a_fault() -> None:
    ours = longer(FIRST, "ours", BOB)
    forged = prepare_refs(
        ours, BOB.author_id, None, {"refs/heads/main": ObjectId(bytes(20))}, "refs/heads/main", NOW, forced=frozenset()
    )
    assert forged is not None
    body = forged.body.replace(BOB.author_id, EVE.author_id)
    header = Signed.sign(KIND, body, EVE).encode()
    error = refusal(ours, (), EncodedRefs(header, forged.entries))
    assert isinstance(error, NotMaintainer)
    assert error.severity is Severity.FATAL


async def test_repository_larger_than_this_node_takes_is_nobodys_fault(world: World) -> None:
    """The holder may allow more, or have got it in many small packs."""
    publisher = await world.node("publisher")
    maintainer = world.maintainer()
    maintainer.commit("large", os.urandom(100_000))
    await maintainer.publish(publisher)
    replica = await world.node("replica", seeding__repo_max="50000")
    with pytest.raises(QuotaExceeded, match=r"as its holder says, where seeding\.repo_max allows 48\.8 KiB"):
        await replica.seed(maintainer.repository, publisher.hint)
    assert await replica.reasons(publisher.id) == []
    assert replica.connected_to(publisher.id)
