"""Replicas are counted by their signatures, not by what the node says of them."""

import base64

import pytest

from guts.cli.answer import Answer
from guts.identity import SigningKey
from guts.ids import AuthorId, RepositoryId
from guts.records import CommitReceipt
from guts.remote_helper.replicas import Pushed, Words, confirmed

REPOSITORY, OTHER = RepositoryId(bytes(32)), RepositoryId(b"\1" * 32)
AUTHOR = AuthorId(b"\2" * 32)
HASH = b"\3" * 32
PUSHED = Pushed(REPOSITORY, AUTHOR, 7, HASH, Words("hold it", "holds it"), 3, 0.0)
ONE, TWO, OWN = (SigningKey.generate() for _ in range(3))


def receipt(key: SigningKey, seq: int = 7, digest: bytes = HASH, repository: RepositoryId = REPOSITORY) -> bytes:
    return CommitReceipt.sign(key, repository, AUTHOR, seq, digest, 1).encoded


def counted(*receipts: bytes) -> tuple[list[str], int]:
    shown = [{"peer": str(ONE.peer_id), "receipt": base64.b64encode(data).decode()} for data in receipts]
    return confirmed(Answer({"receipts": shown}), PUSHED, str(OWN.peer_id))


def test_each_node_that_signed_counts_once() -> None:
    assert counted(receipt(ONE), receipt(TWO), receipt(ONE)) == ([str(ONE.peer_id), str(TWO.peer_id)], 0)


def test_later_record_counts_for_this_one() -> None:
    assert counted(receipt(ONE, 8, b"\4" * 32)) == ([str(ONE.peer_id)], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        b"x",
        receipt(ONE)[:-1] + bytes((receipt(ONE)[-1] ^ 1,)),
        receipt(ONE, 6),
        receipt(ONE, 7, b"\4" * 32),
        receipt(ONE, repository=OTHER),
        receipt(OWN),
    ],
    ids=["nothing", "forged", "older", "another record", "another repository", "of the node itself"],
)
def test_what_is_no_receipt_of_another_node_for_the_push_is_not_counted(wrong: bytes) -> None:
    assert counted(wrong, receipt(TWO)) == ([str(TWO.peer_id)], 1)
