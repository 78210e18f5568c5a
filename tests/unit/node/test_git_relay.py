"""One fetch, several sources: who is asked next, and until when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from guts.errors import GutsError, PeerFault, Unavailable
from guts.git.git_requests import FetchRequest
from guts.git.pkt_line import encode, on_band
from guts.node import git_relay
from guts.node.git_relay import Course, NoSourceAnswered, relay
from guts.node.git_service import SourceBusy
from guts.node.limits import Patience
from guts.node.pace import MIN_BYTES_PER_SECOND
from tests.support.fetch_requests import response

CLONE = FetchRequest(b"", is_done=True)
ID = b"1" * 40
PACK = b"PACK" + (2).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"objects"
PACKFILE = encode(b"packfile\n")


def progress(text: str) -> bytes:
    return b"".join(on_band(2, text.encode()))


def pack(data: bytes = PACK) -> bytes:
    return b"".join(on_band(1, data))


@dataclass
class Scripted:
    """Answers what it is told to, in pieces: an error ends it, ``None`` is silence, ``wait`` 50 ms of it."""

    name: str
    script: Sequence[bytes | GutsError | None]
    patience: Patience | None = None
    asked: int = 0
    left: int = 0
    taken: int = 0
    blamed: list[str] = field(default_factory=list)
    later: list[Sequence[bytes | GutsError | None]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def request(self, request: FetchRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked += 1
        try:
            if self.script and isinstance(self.script[0], GutsError):
                raise self.script[0]
            yield self._pieces(self.script)
        finally:
            self.left += 1
            if self.later:
                self.script = self.later.pop(0)

    async def blame(self, error: PeerFault) -> None:
        self.blamed.append(error.code)

    async def _pieces(self, script: Sequence[bytes | GutsError | None]) -> AsyncIterator[bytes]:
        for part in script:
            if part is None:
                await asyncio.sleep(3600)
            elif isinstance(part, GutsError):
                raise part
            elif part == b"wait":
                await asyncio.sleep(0.05)
            else:
                self.taken += 1
                yield part


HONEST = (PACKFILE, progress("Counting\r"), pack(), pack(b"more"), b"0000")
GONE = Unavailable("it broke off")


async def answered(*sources: Scripted, request: FetchRequest = CLONE, busy: float = 0.0) -> tuple[bytes, list[str]]:
    """Return the answer, and the notes that were there when its first piece came."""
    course = Course()
    told: list[str] = []
    answer = b""
    async with contextlib.aclosing(relay(sources, request, course, busy)) as pieces:
        async for piece in pieces:
            told = told or list(course.notes)
            answer += piece
    if response(answer).pack:
        assert isinstance(course.given_by, Scripted)
        assert course.given_by.taken
    assert all(source.left == source.asked for source in sources)
    return answer, told


async def test_first_source_is_enough() -> None:
    one, two = Scripted("one", HONEST), Scripted("two", HONEST)
    assert await answered(one, two) == (b"".join(HONEST), [])
    assert two.asked == 0


@pytest.mark.parametrize(
    ("script", "why", "blamed"),
    [
        ([GONE], "it broke off", []),
        ([], "it ended in the middle, after 0 bytes of the pack", []),
        ([encode(b"ERR upload-pack: not our ref 1"), GONE], "upload-pack: not our ref 1", []),
        ([b"garbage"], "b'garb' is not the length of a packet", ["BAD_PKT_LINE"]),
        ([encode(b"shallow-info\n")], "it says that its history is cut off", ["BAD_GIT_ANSWER"]),
        ([encode(b"acknowledgments\n"), encode(b"NAK"), b"0000"], "it gives no pack", ["BAD_GIT_ANSWER"]),
        # In the same piece as the header and a part of the pack: nothing of it was passed on.
        ([b"".join([PACKFILE, progress("x"), pack(), b"".join(on_band(3, b"it died\n"))])], "it died", []),
    ],
)
async def test_source_that_fails_before_its_first_piece_leads_to_the_next(
    script: Sequence[bytes | GutsError | None], why: str, blamed: list[str]
) -> None:
    sources = Scripted("one", script), Scripted("two", HONEST), Scripted("three", HONEST)
    answer, notes = await answered(*sources)
    assert answer == b"".join(HONEST)
    assert notes == [f"one failed ({why}); going on with two"]
    assert sources[2].asked == 0
    assert sources[0].blamed == blamed


async def test_source_that_fails_while_it_prepares_leads_to_the_next_within_the_answer() -> None:
    answer, notes = await answered(
        Scripted("one", [PACKFILE + progress("Counting\r"), GONE]),
        Scripted("two", [PACKFILE, b"".join(on_band(3, b"no memory\n"))]),
        Scripted("three", HONEST),
    )
    assert notes == []
    found = response(answer)
    assert found.pack == PACK + b"more"
    assert found.whole
    assert found.header == ["packfile", "FLUSH"]
    assert found.progress.decode() == (
        "Counting\rguts: one failed (it broke off); going on with two\n"
        "guts: two failed (no memory); going on with three\nCounting\r"
    )


async def test_source_with_another_header_does_not_go_on() -> None:
    request = FetchRequest(b"", has_some=True)
    ready = encode(b"acknowledgments\n") + encode(b"ACK " + ID) + encode(b"ready") + b"0001" + PACKFILE
    other = ready.replace(ID, b"2" * 40)
    answer, _ = await answered(
        Scripted("one", [ready, GONE]),
        Scripted("two", [other, pack(), b"0000"]),
        Scripted("three", [ready, pack(), b"0000"]),
        request=request,
    )
    found = response(answer)
    assert found.pack == PACK
    assert found.header.count("packfile") == 1
    assert b"two failed (it answers otherwise than the source before it); going on with three" in found.progress
    answer, _ = await answered(Scripted("one", [ready, GONE]), Scripted("two", [other, pack()]), request=request)
    assert response(answer).error == (b"guts: one: it broke off; two: it answers otherwise than the source before it\n")


async def test_after_a_byte_of_the_pack_nobody_else_is_asked() -> None:
    two = Scripted("two", HONEST)
    answer, _ = await answered(Scripted("one", [PACKFILE, pack(), GONE]), two)
    found = response(answer)
    assert found.pack == PACK
    assert found.error == b"guts: one broke off in the middle of the pack (it broke off); try again\n"
    assert not found.whole
    assert two.asked == 0


@pytest.mark.parametrize("error", [GONE, SourceBusy("it is busy")])
async def test_failure_after_the_pack_began_is_never_taken_for_a_full_place(error: GutsError) -> None:
    one = Scripted("one", [PACKFILE, pack(), error])
    answer, _ = await answered(one, busy=100.0)
    assert b"in the middle of the pack" in response(answer).error
    assert one.asked == 1


async def test_nobody_answers_is_an_error_before_the_first_piece() -> None:
    with pytest.raises(NoSourceAnswered) as caught:
        await answered(Scripted("one", [GONE]), Scripted("two", [encode(b"ERR no")]))
    assert caught.value.reasons == ["one: it broke off", "two: no"]
    with pytest.raises(NoSourceAnswered, match="nobody to ask"):
        await answered()


async def test_source_whose_pack_does_not_begin_is_left_though_it_talks() -> None:
    talk = [PACKFILE, *[progress("Counting\r")] * 5, None]
    answer, _ = await answered(Scripted("one", talk, patience=Patience(preparing=0.05)), Scripted("two", HONEST))
    found = response(answer)
    assert found.pack == PACK + b"more"
    assert b"one failed (its pack does not begin); going on with two" in found.progress


@pytest.mark.parametrize(("much", "fine"), [(MIN_BYTES_PER_SECOND, True), (100, False)])
async def test_source_of_a_pack_is_left_when_it_comes_too_slowly(much: int, fine: bool) -> None:
    talk = [PACKFILE + pack()]
    for _ in range(8):
        talk += [b"wait", pack(bytes(much // 10))]
    answer, _ = await answered(Scripted("one", [*talk, b"0000"], patience=Patience(preparing=9.0, stall=0.25)))
    found = response(answer)
    assert found.whole is fine
    assert (b"comes too slowly" in found.error) is not fine


async def test_source_may_prepare_its_pack_for_longer_than_it_may_stall() -> None:
    talk = [PACKFILE]
    for _ in range(8):
        talk += [b"wait", progress("Counting\r")]
    source = Scripted("one", [*talk, pack(), b"0000"], patience=Patience(preparing=9.0, stall=0.1))
    answer, _ = await answered(source)
    assert response(answer).whole


async def test_busy_sources_come_after_the_others_and_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_relay, "BUSY_PAUSE", 0.01)
    busy = SourceBusy("it is busy")
    one, two = Scripted("one", [busy], later=[[busy], HONEST]), Scripted("two", [GONE])
    answer, notes = await answered(one, two, busy=10.0)
    assert response(answer).whole
    assert (one.asked, two.asked) == (3, 1)
    assert notes == ["two failed (it broke off); going on with one"]
    with pytest.raises(NoSourceAnswered, match="one is busy"):
        await answered(Scripted("one", [busy]), busy=0.0)


async def test_answer_is_taken_from_a_source_no_faster_than_it_is_read() -> None:
    source = Scripted("one", [PACKFILE, pack(), *[pack(bytes(1000))] * 100, b"0000"])
    async with contextlib.aclosing(relay([source], CLONE, Course(), 0.0)) as pieces:
        await anext(pieces)
        await anext(pieces)
        await asyncio.sleep(0)
        assert source.taken == 2
    # Whoever stops reading ends it.
    assert source.left == 1


async def test_negotiation_is_passed_on_whole() -> None:
    request = FetchRequest(b"", has_some=True)
    nak = encode(b"acknowledgments\n") + encode(b"NAK\n") + b"0000"
    answer, _ = await answered(Scripted("one", [nak[:9], nak[9:]]), request=request)
    assert answer == nak
