"""Writes ``messages.json``: every message with its fields and bytes (docs/protocol.md §4).

``python -m tests.vectors.make_messages``. Run it when the protocol changes, and say so in the CHANGELOG.
"""

import json
from enum import IntEnum
from pathlib import Path
from typing import Final

from guts.wire.codec import encode
from guts.wire.fields import Layout
from tests.support.messages import EXAMPLES

PATH: Final = Path(__file__).with_name("messages.json")


def shown(value: object) -> object:
    """Return ``value`` as JSON knows it: bytes in hex, parts as objects."""
    match value:
        case Layout():
            return {name: shown(getattr(value, name)) for name in value.__match_args__}
        case tuple():
            return [shown(element) for element in value]
        case bytes():
            return value.hex()
        case IntEnum():
            return int(value)
        case _:
            return value


def text() -> str:
    """Return the content of ``messages.json``."""
    vectors = [
        {
            "name": name,
            "message": type(message).__name__,
            "fields": shown(message),
            "hex": encode(message).hex(),
        }
        for name, message in EXAMPLES.items()
    ]
    return json.dumps(vectors, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
