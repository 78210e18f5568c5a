"""Makes ``discovery.json``: one datagram of each kind (docs/protocol.md §6), in hex.

``python -m tests.vectors.make_discovery``. Run it when the protocol changes, and say so in the CHANGELOG.
"""

import json
from pathlib import Path

from guts import canonical
from guts.addresses import Address
from guts.canonical import Value
from guts.discovery.contact import Contact, encode_address, encode_contacts
from guts.discovery.datagrams import pad_request, sign_answer
from guts.discovery.keys import Key, node_key, repository_key
from guts.discovery.store import PutStatus, RecordKind
from guts.identity import SigningKey
from guts.ids import RepositoryId
from guts.records import PeerRecord, ProviderRecord

PATH = Path(__file__).with_name("discovery.json")

ASKER = SigningKey(b"\x01" * 32)
ANSWERER = SigningKey(b"\x02" * 32)
REPOSITORY = RepositoryId(b"\x03" * 32)
MESSAGE_ID = bytes(range(20))
TOKEN = b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7"
EXPIRES_MS = 1_800_086_400_000
TIME_MS = 1_800_000_000_000
SEEN = ("192.0.2.1", 9000)


def requests() -> dict[str, tuple[str, list[Value]]]:
    """Return every request by name: method and arguments."""
    asker: bytes = node_key(ASKER.peer_id)
    key: bytes = repository_key(REPOSITORY)
    addresses = (Address("192.0.2.1", 9000),)
    provider = ProviderRecord.sign(ASKER, REPOSITORY, addresses, 7, EXPIRES_MS)
    peer = PeerRecord.sign(ASKER, addresses, ("seed",), 7, EXPIRES_MS)
    return {
        "ping": ("ping", [asker]),
        "ping of a client": ("ping", [b""]),
        "find_node": ("find_node", [asker, key]),
        "get_records, first page": ("get_records", [asker, key, 0, b""]),
        "get_records, next page": ("get_records", [asker, key, 3, TOKEN]),
        "put_record, provider": ("put_record", [asker, TOKEN, int(RecordKind.PROVIDER), provider.encoded]),
        "put_record, peer": ("put_record", [asker, TOKEN, int(RecordKind.PEER), peer.encoded]),
    }


def results() -> dict[str, Value]:
    """Return every result of an answer by name."""
    contacts = [
        Contact(Key(b"\x11" * 20), "192.0.2.17", 9001),
        Contact(Key(b"\x22" * 20), "192.0.2.34", 9002),
        Contact(Key(b"\x33" * 20), "2001:db8::33", 9003),
    ]
    v4, v6 = encode_contacts(contacts)
    provider = ProviderRecord.sign(ANSWERER, REPOSITORY, (Address("192.0.2.2", 9000),), 8, EXPIRES_MS)
    return {
        "ping": None,
        "find_node": [TOKEN, v4, v6],
        "get_records": [TOKEN, v4, v6, 1, [provider.encoded]],
        "get_records, nothing held": [TOKEN, v4, v6, 0, []],
        "put_record, stored": [int(PutStatus.STORED), repository_key(REPOSITORY), EXPIRES_MS, TIME_MS],
        "put_record, bad token": [int(PutStatus.BAD_TOKEN), b"", 0, TIME_MS],
    }


def make() -> str:
    """Return the file's text."""
    vectors = {
        "asker_seed": (b"\x01" * 32).hex(),
        "answerer_seed": (b"\x02" * 32).hex(),
        "asker_key": node_key(ASKER.peer_id).hex(),
        "answerer_key": node_key(ANSWERER.peer_id).hex(),
        "repository": REPOSITORY.hex(),
        "repository_key": repository_key(REPOSITORY).hex(),
        "message_id": MESSAGE_ID.hex(),
        "observed": encode_address(*SEEN).hex(),
        "requests": {
            name: pad_request(b"\x00" + MESSAGE_ID + canonical.encode([method, arguments])).hex()
            for name, (method, arguments) in requests().items()
        },
        "answers": {
            name: sign_answer(b"\x01" + MESSAGE_ID + canonical.encode([encode_address(*SEEN), result]), ANSWERER).hex()
            for name, result in results().items()
        },
    }
    return json.dumps(vectors, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(make())
