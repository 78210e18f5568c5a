"""What a source answers to a fetch: checked before it is passed on."""

import random

import pytest

from guts.errors import GutsError, Unavailable
from guts.git.fetch_responses import (
    MAX_HEADER_BYTES,
    MAX_PROGRESS_BYTES,
    MAX_REASON_CHARACTERS,
    BadGitAnswer,
    CutShort,
    FetchResponse,
    SourceError,
)
from guts.git.git_requests import FetchRequest
from guts.git.pkt_line import MAX_PAYLOAD, BadPacket, encode, on_band

ID = b"1" * 40
CLONE = FetchRequest(b"", is_done=True)
ASKING = FetchRequest(b"", has_some=True)
UPDATE = FetchRequest(b"", has_some=True, is_done=True)
SHALLOW = FetchRequest(b"", is_done=True, is_shallow=True, cuts=True)
DEEPER = FetchRequest(b"", is_done=True, is_shallow=True)
PARTIAL = FetchRequest(b"", is_done=True, is_partial=True)

FLUSH, DELIMITER = b"0000", b"0001"
PACKFILE = encode(b"packfile\n")
PACK = b"PACK" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"objects"
EMPTY = b"PACK" + (2).to_bytes(4, "big") + bytes(4) + b"trailer"


def banded(band: int, data: bytes) -> bytes:
    return b"".join(on_band(band, data))


def acks(*lines: bytes) -> bytes:
    return encode(b"acknowledgments\n") + b"".join(encode(line + b"\n") for line in lines)


def taken(request: FetchRequest, pieces: list[bytes]) -> FetchResponse:
    response = FetchResponse(request)
    for piece in pieces:
        response.receive_data(piece)
    response.receive_eof()
    return response


WHOLE = [
    (CLONE, PACKFILE, banded(2, b"Counting\r") + banded(1, PACK) + banded(1, b"more") + FLUSH),
    (ASKING, acks(b"NAK") + FLUSH, b""),
    (ASKING, acks(b"ACK " + ID) + FLUSH, b""),
    (ASKING, acks(b"ACK " + ID, b"ready") + DELIMITER + PACKFILE, banded(1, PACK) + FLUSH),
    (UPDATE, PACKFILE, banded(1, EMPTY) + FLUSH),
    (PARTIAL, PACKFILE, banded(1, EMPTY) + FLUSH),
    (
        SHALLOW,
        encode(b"shallow-info\n") + encode(b"shallow " + ID) + encode(b"unshallow " + ID) + DELIMITER + PACKFILE,
        banded(1, PACK) + FLUSH,
    ),
    (DEEPER, encode(b"shallow-info\n") + encode(b"unshallow " + ID) + DELIMITER + PACKFILE, banded(1, PACK) + FLUSH),
    (CLONE, PACKFILE, encode(b"\x01") + banded(1, PACK) + FLUSH),
]


@pytest.mark.parametrize(("request_", "header", "rest"), WHOLE)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_honest_answer_passes_as_it_is_in_pieces_of_any_length(
    request_: FetchRequest, header: bytes, rest: bytes, size: int
) -> None:
    response = FetchResponse(request_)
    passed = b""
    data = header + rest
    for start in range(0, len(data), size):
        assert not response.whole
        passed += response.receive_data(data[start : start + size])
    response.receive_eof()
    assert (response.header, passed) == (header, rest)


@pytest.mark.parametrize(("request_", "header", "rest"), WHOLE)
def test_answer_that_is_cut_short_anywhere_is_noticed(request_: FetchRequest, header: bytes, rest: bytes) -> None:
    data = header + rest
    for end in range(len(data)):
        response = FetchResponse(request_)
        response.receive_data(data[:end])
        with pytest.raises(CutShort, match="ended in the middle"):
            response.receive_eof()


@pytest.mark.parametrize(("request_", "header", "rest"), WHOLE)
def test_nothing_follows_the_end(request_: FetchRequest, header: bytes, rest: bytes) -> None:
    with pytest.raises(BadGitAnswer, match="after the end"):
        FetchResponse(request_).receive_data(header + rest + FLUSH)


SHALLOW_INFO = encode(b"shallow-info\n") + encode(b"shallow " + ID) + DELIMITER + PACKFILE


@pytest.mark.parametrize(
    ("request_", "data", "why"),
    [
        # History that is cut off in silence.
        (CLONE, SHALLOW_INFO, "cut off"),
        (UPDATE, SHALLOW_INFO, "cut off"),
        (DEEPER, SHALLOW_INFO, "cut off"),
        # Leads to other places, or says what nobody asked for.
        (CLONE, encode(b"packfile-uris\n") + encode(ID + b" https://example.org/") + DELIMITER, "nobody asked"),
        (CLONE, encode(b"wanted-refs\n") + encode(ID + b" refs/heads/main") + DELIMITER, "nobody asked"),
        (CLONE, encode(b"version 2\n"), "nobody asked"),
        (CLONE, encode(b""), "nobody asked"),
        (ASKING, acks(b"NAK") + DELIMITER + acks(b"NAK"), "nobody asked"),
        (ASKING, acks(b"ACK main"), "out of place"),
        (ASKING, acks(b"ACK " + ID + b" ready"), "out of place"),
        (CLONE, FLUSH, "out of place"),
        (CLONE, DELIMITER, "out of place"),
        (CLONE, b"0002", "out of place"),
        (ASKING, acks(b"NAK") + DELIMITER + FLUSH, "out of place"),
        (ASKING, acks(b"NAK") + b"0002", "out of place"),
        # Withholds.
        (CLONE, acks(b"NAK") + FLUSH, "no pack"),
        (CLONE, PACKFILE + FLUSH, "without a pack"),
        (CLONE, PACKFILE + banded(1, PACK[:11]) + FLUSH, "without a pack"),
        (CLONE, PACKFILE + banded(2, b"Counting") + FLUSH, "without a pack"),
        (CLONE, PACKFILE + banded(1, EMPTY), "none of the objects"),
        (SHALLOW, PACKFILE + banded(1, EMPTY), "none of the objects"),
        # Is no pack.
        (CLONE, PACKFILE + banded(1, b"KCAP" + PACK[4:]), "no pack"),
        (CLONE, PACKFILE + banded(1, PACK[:7] + b"\x03" + PACK[8:]), "no pack"),
        (CLONE, PACKFILE + PACK, "no pkt-line|not the length"),
        (CLONE, PACKFILE + banded(4, PACK), "no band"),
        (CLONE, PACKFILE + encode(b""), "no band"),
        (CLONE, PACKFILE + DELIMITER, "without a pack"),
        (CLONE, PACKFILE + banded(1, PACK) + DELIMITER, "without a pack"),
        (CLONE, b"HTTP/1.1 200 OK\r\n", "not the length"),
    ],
)
def test_dishonest_answer_is_refused(request_: FetchRequest, data: bytes, why: str) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        with pytest.raises((BadGitAnswer, BadPacket), match=why):
            taken(request_, pieces)


@pytest.mark.parametrize(
    "data",
    [encode(b"ERR \x1b[2Jupload-pack: not our ref\n"), PACKFILE + banded(3, b"\x1b[2Jupload-pack: not our\n ref\n")],
)
def test_error_of_a_source_is_told_as_one_harmless_line(data: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        FetchResponse(CLONE).receive_data(data)
    assert str(caught.value) == "?[2Jupload-pack: not our ref"


@pytest.mark.parametrize("more", [0, 1])
def test_what_an_error_tells_is_bounded(more: int) -> None:
    with pytest.raises(SourceError) as caught:
        FetchResponse(CLONE).receive_data(encode(b"ERR " + b"x" * (MAX_REASON_CHARACTERS + more)))
    assert str(caught.value) == "x" * MAX_REASON_CHARACTERS


def test_progress_moves_no_terminal() -> None:
    response = FetchResponse(CLONE)
    told = b"Counting: 1%\r\x1b]0;title\x07\x9b2J\x7f\xe2\x80\xae\xc3\xa4\tx\n"
    passed = response.receive_data(PACKFILE + banded(2, told))
    assert passed == banded(2, b"Counting: 1%\r?]0;title??2J?????" + b"?\tx\n")


def test_progress_is_bounded() -> None:
    line = encode(b"\x02" + b"x" * (MAX_PAYLOAD - 1))
    fits = MAX_PROGRESS_BYTES // MAX_PAYLOAD
    response = FetchResponse(CLONE)
    response.receive_data(PACKFILE + line * fits)
    left = MAX_PROGRESS_BYTES - fits * MAX_PAYLOAD
    response.receive_data(banded(2, b"x" * (left - 1)))
    with pytest.raises(BadGitAnswer, match="talks too much"):
        response.receive_data(encode(b"\x02"))


def test_header_is_bounded() -> None:
    line = encode(b"ACK " + ID + b"\n")
    start = acks()
    fits = (MAX_HEADER_BYTES - len(start)) // len(line)
    response = FetchResponse(ASKING)
    response.receive_data(start + line * fits)
    with pytest.raises(BadGitAnswer, match="before the pack"):
        response.receive_data(line)


def test_whatever_comes_only_errors_of_guts_come_out() -> None:
    rng = random.Random(7)
    errors: list[GutsError] = []
    for request, header, rest in WHOLE:
        for _ in range(200):
            data = bytearray(header + rest)
            data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                taken(request, [bytes(data)])
            except GutsError as error:
                errors.append(error)
    assert len(errors) > 500
    assert all(
        isinstance(error, Unavailable | BadPacket | BadGitAnswer) and str(error).isprintable() for error in errors
    )


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ([b"deepen 1"], False),
        ([b"deepen 2"], True),
        ([b"deepen 2", b"deepen-relative"], False),
        ([b"deepen-since 1"], False),
    ],
)
def test_history_ends_with_what_is_wanted_only_at_depth_one(arguments: list[bytes], refused: bool) -> None:
    lines = [b"want " + ID, *arguments, b"done"]
    data = encode(b"command=fetch\n") + DELIMITER + b"".join(encode(line + b"\n") for line in lines) + FLUSH
    response = FetchResponse(FetchRequest.parse(data))
    answer = encode(b"shallow-info\n") + encode(b"shallow " + ID + b"\n")
    if refused:
        with pytest.raises(BadGitAnswer):
            response.receive_data(answer)
    else:
        response.receive_data(answer)
