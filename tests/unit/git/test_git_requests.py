"""What git may ask of a node: judged before git sees it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts.errors import PeerFault
from guts.git.git_requests import (
    INFINITE_DEPTH,
    MAX_ARCHIVE_BYTES,
    MAX_DEEPEN_NOT,
    MAX_FETCH_BYTES,
    MAX_FILTER_BYTES,
    ArchiveRequest,
    BadGitRequest,
    FetchRequest,
    UnsupportedGitRequest,
)
from guts.git.pkt_line import Mark, encode
from tests.support.fetch_requests import fetch_request

ID = "1" * 40
WANT = f"want {ID}"


def test_whole_grammar_of_a_fetch_is_taken() -> None:
    data = fetch_request(
        "thin-pack", "no-progress", "include-tag", "ofs-delta", WANT, f"have {ID}", f"shallow {ID}", "deepen 1",
        "deepen-relative", "deepen-since 1700000000", "deepen-not main", "filter combine:blob:none+tree:3",
        "wait-for-done", "done",
    )  # fmt: skip
    assert FetchRequest.parse(data) == FetchRequest(
        data, has_some=True, is_done=True, is_partial=True, is_shallow=True, cuts=True
    )
    # git leaves the newline out in some lines.
    assert FetchRequest.parse(data.replace(encode(f"{WANT}\n".encode()), encode(WANT.encode()))).is_done


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), FetchRequest(b"")),
        ((f"have {ID}",), FetchRequest(b"", has_some=True)),
        (("done",), FetchRequest(b"", is_done=True)),
        (("filter blob:none",), FetchRequest(b"", is_partial=True)),
        ((f"shallow {ID}",), FetchRequest(b"", is_shallow=True)),
        ((f"deepen {INFINITE_DEPTH}",), FetchRequest(b"", is_shallow=True)),
        ((f"deepen {INFINITE_DEPTH - 1}",), FetchRequest(b"", is_shallow=True, cuts=True)),
        (("deepen-since 1",), FetchRequest(b"", is_shallow=True, cuts=True)),
        (("deepen-not v1",), FetchRequest(b"", is_shallow=True, cuts=True)),
    ],
)
def test_request_says_what_its_answer_may_say(arguments: tuple[str, ...], expected: FetchRequest) -> None:
    data = fetch_request(WANT, *arguments)
    parsed = FetchRequest.parse(data)
    assert parsed == FetchRequest(
        data, expected.has_some, expected.is_done, expected.is_partial, expected.is_shallow, expected.cuts
    )


@pytest.mark.parametrize("command", ["ls-refs", "object-info", "bundle-uri", "fetch-x", "FETCH", "\x1b[2J"])
def test_other_commands_are_refused_and_shown_harmless(command: str) -> None:
    with pytest.raises(UnsupportedGitRequest) as caught:
        FetchRequest.parse(fetch_request(WANT, command=command))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "argument",
    [
        "want-ref refs/heads/main", "packfile-uris https", "sideband-all", "want main", f"want {ID[1:]}", f"want {ID}1",
        f"want {ID} ", "want " + "A" * 40, f"have {ID}\nwant {ID}", "deepen -1", "deepen 99999999999", "deepen",
        "deepen-since yesterday", "deepen-not", "deepen-not a b", "deepen-not a\x00", "deepen-not a\x07",
        "filter", "filter a b", "filter blob:\xa0none", "done ", "", "thin-pack=1", "--upload-pack=x",
    ],
)  # fmt: skip
def test_other_arguments_are_refused(argument: str) -> None:
    with pytest.raises(UnsupportedGitRequest):
        FetchRequest.parse(fetch_request(WANT, argument))


@pytest.mark.parametrize("capability", ["server-option=x", "session-id=1", "object-format=sha256", "agent=a b", "x"])
def test_other_capabilities_are_refused(capability: str) -> None:
    head = encode(b"command=fetch\n") + encode(f"{capability}\n".encode()) + Mark.DELIMITER.value
    with pytest.raises(UnsupportedGitRequest):
        FetchRequest.parse(head + encode(f"{WANT}\n".encode()) + Mark.FLUSH.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0000",
        b"0001" + encode(b"command=fetch\n") + b"0000",
        encode(b"command=fetch\n"),
        encode(b"command=fetch\n") + b"0000",
        encode(b"command=fetch\n") + b"0002" + encode(f"{WANT}\n".encode()) + b"0000",
        fetch_request("done"),
        fetch_request(WANT) + b"0000",
        fetch_request(WANT) + b"0",
        fetch_request(WANT)[:-4],
        fetch_request(WANT)[:-5],
        fetch_request(WANT)[:-4] + b"0001" + encode(b"done\n") + b"0000",
        b"0003",
        b"zzzz",
        b"fffff" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_are_a_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        FetchRequest.parse(data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["flip", "cut", "twice"]))
def test_damaged_request_parses_or_is_refused(seed: int, how: str) -> None:
    rng = random.Random(seed)
    data = bytearray(fetch_request(WANT, f"have {ID}", "deepen 3", "filter blob:limit=1k", "done"))
    at = rng.randrange(len(data))
    match how:
        case "flip":
            data[at] ^= 1 << rng.randrange(8)
        case "cut":
            del data[at:]
        case _:
            data[at:at] = data[at:]
    told = ""
    try:
        assert FetchRequest.parse(bytes(data)).data == data
    except (PeerFault, UnsupportedGitRequest) as error:
        told = str(error)
    assert told.isprintable()


def test_request_has_so_many_bytes() -> None:
    line = encode(f"have {ID}\n".encode())
    fits = (MAX_FETCH_BYTES - len(fetch_request(WANT))) // len(line)
    data = fetch_request(WANT, *[f"have {ID}"] * fits)
    padding = MAX_FETCH_BYTES - len(data)
    padded = data.replace(b"agent=git/2.39.5\n", b"agent=git/2.39.5" + b"x" * padding + b"\n")
    padded = padded.replace(b"0015agent", b"%04xagent" % (0x15 + padding), 1)
    assert len(padded) == MAX_FETCH_BYTES
    assert FetchRequest.parse(padded).has_some
    with pytest.raises(BadGitRequest):
        FetchRequest.parse(padded + b"0")


@pytest.mark.parametrize("more", [0, 1])
def test_filters_and_refs_to_leave_out_are_bounded(more: int) -> None:
    long = "x" * (MAX_FILTER_BYTES + more)
    for arguments in ([f"filter {long}"], ["deepen-not main"] * (MAX_DEEPEN_NOT + more)):
        data = fetch_request(WANT, *arguments)
        if more:
            with pytest.raises(UnsupportedGitRequest):
                FetchRequest.parse(data)
        else:
            FetchRequest.parse(data)


def test_archive_is_lines_of_arguments_and_bounded() -> None:
    def request(*lines: bytes) -> bytes:
        return b"".join(encode(line) for line in lines) + Mark.FLUSH.value

    data = request(b"argument --format=tar\n", b"argument HEAD\n")
    assert ArchiveRequest.parse(data).data == data
    for bad in (b"", data[:-1], data + b"0000", request(b"HEAD\n"), b"0001" + data):
        with pytest.raises(PeerFault):
            ArchiveRequest.parse(bad)
    filler = request(*[b"argument " + b"x" * 60_000] * 4)
    longest = request(*[b"argument " + b"x" * 60_000] * 4, b"argument " + b"x" * (MAX_ARCHIVE_BYTES - len(filler) - 13))
    assert len(longest) == MAX_ARCHIVE_BYTES
    ArchiveRequest.parse(longest)
    with pytest.raises(BadGitRequest):
        ArchiveRequest.parse(longest + b"0")
