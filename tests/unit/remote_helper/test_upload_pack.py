"""What ``ls-refs`` answers (gitprotocol-v2(5)), from the node's verified refs."""

import pytest

from guts.api.errors import ERROR_FILE
from guts.cli.answer import Answer
from guts.errors import Unavailable
from guts.git.pkt_line import Mark, Packets, encode
from guts.remote_helper.talk import MAX_ERROR_CHARACTERS, Talk
from guts.remote_helper.upload_pack import ls_refs

ONE, TWO, TAG = "1" * 40, "2" * 40, "3" * 40
REFS = Answer(
    {
        "head": "refs/heads/main",
        "refs": [
            {"ref": "refs/tags/v1", "oid": TAG, "peeled": ONE},
            {"ref": "refs/heads/main", "oid": ONE, "peeled": None},
            {"ref": "refs/heads/a", "oid": TWO, "peeled": None},
        ],
    }
)
UNBORN = Answer({"head": "refs/heads/trunk", "refs": []})


def answered(refs: Answer, *arguments: str) -> list[str]:
    packets = Packets().receive_data(
        b"".join(ls_refs(refs, [b"command=ls-refs\n", *(f"{a}\n".encode() for a in arguments)]))
    )
    assert packets.pop() is Mark.FLUSH
    return [packet.decode().rstrip("\n") for packet in packets if isinstance(packet, bytes)]


def test_refs_are_told_in_order_with_head_first() -> None:
    names = [line.split(" ", 1)[1] for line in answered(REFS)]
    assert names == ["HEAD", "refs/heads/a", "refs/heads/main", "refs/tags/v1"]


def test_peel_and_symrefs_are_told_to_who_asks() -> None:
    lines = answered(REFS, "peel", "symrefs")
    assert f"{ONE} HEAD symref-target:refs/heads/main" in lines
    assert f"{TAG} refs/tags/v1 peeled:{ONE}" in lines


def test_only_what_a_prefix_names_is_told() -> None:
    assert answered(REFS, "ref-prefix refs/tags/") == [f"{TAG} refs/tags/v1"]
    assert answered(REFS, "ref-prefix HEAD") == [f"{ONE} HEAD"]
    assert len(answered(REFS, "ref-prefix refs/heads/", "ref-prefix HEAD")) == 3


def test_head_of_an_empty_repository_is_unborn() -> None:
    assert answered(UNBORN, "symrefs", "unborn") == ["unborn HEAD symref-target:refs/heads/trunk"]
    assert answered(UNBORN, "symrefs") == []


def test_git_is_told_why_in_lines_of_text_that_fit_into_one_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Unavailable("nobody has it\n  node1: \x1b[31mno", hint="ask\nagain")
    assert Talk().through_git(error) == "nobody has it\n  node1: ?[31mno\nhint: ask\nagain"
    text = Talk().through_git(Unavailable("\U0001f40d\n" * MAX_ERROR_CHARACTERS))
    assert text is not None
    assert len(text) == MAX_ERROR_CHARACTERS
    assert encode(f"ERR {text}".encode())
    monkeypatch.setenv(ERROR_FILE, "somewhere")
    assert Talk().through_git(error) is None
