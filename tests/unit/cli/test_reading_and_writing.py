"""What is read from a node's answer, and how values are written for people."""

import time

import pytest

from guts.api.errors import ErrorObject, ReportedError
from guts.cli.answer import Answer, BadAnswer, answers
from guts.cli.session import age_text, span_text, table
from guts.errors import ExitStatus, StorageFault
from guts.ids import BadId, RepositoryId

ANSWER = Answer({"t": "text", "n": 3, "f": 0.5, "b": True, "l": ["a", "b"], "o": {"x": 1}, "os": [{"x": 2}]})


def test_answer_gives_what_is_there_in_its_type() -> None:
    assert ANSWER.text("t") == "text"
    assert (ANSWER.number("n"), ANSWER.seconds("f"), ANSWER.seconds("n")) == (3, 0.5, 3.0)
    assert ANSWER.flag("b")
    assert ANSWER.texts("l") == ["a", "b"]
    assert ANSWER.object("o").number("x") == 1
    assert [each.number("x") for each in ANSWER.objects("os")] == [2]


def test_answer_gives_the_default_only_for_what_is_missing() -> None:
    empty = Answer({"t": None})
    assert (empty.text("t", "?"), empty.number("n", 0), empty.seconds("f", 0.0)) == ("?", 0, 0.0)
    assert (empty.texts("l"), empty.objects("o"), empty.flag("b")) == ([], [], False)
    with pytest.raises(BadAnswer, match="no text 't'"):
        Answer({"t": 5}).text("t", "?")


@pytest.mark.parametrize(
    "read",
    [
        lambda: ANSWER.text("n"),
        lambda: ANSWER.text("missing"),
        lambda: ANSWER.number("t"),
        lambda: ANSWER.number("b"),
        lambda: ANSWER.seconds("t"),
        lambda: ANSWER.seconds("b"),
        lambda: ANSWER.texts("os"),
        lambda: ANSWER.texts("t"),
        lambda: ANSWER.object("l"),
        lambda: ANSWER.objects("l"),
        lambda: ANSWER.objects("o"),
        lambda: Answer.of([]),
        lambda: answers({}),
    ],
)
def test_answer_of_another_shape_is_a_bad_answer(read: object) -> None:
    assert callable(read)
    with pytest.raises(BadAnswer):
        read()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m 0s"), (3700, "1h 1m"), (90_000, "1d 1h")],
)
def test_spans_are_written_for_people(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


def test_ages_are_written_for_people() -> None:
    assert age_text(None) == age_text(0) == "never"
    assert age_text(int((time.time() - 7200) * 1000)) == "2h 0m ago"


def test_table_is_aligned_and_empty_without_rows() -> None:
    assert table(("A", "LONG"), [("xyz", "1"), ("x", "")]) == ["A    LONG", "xyz  1", "x"]
    assert table(("A",), []) == []


def test_error_object_survives_the_way_through_json() -> None:
    with pytest.raises(BadId) as caught:
        RepositoryId.parse("repo1x")
    told = ErrorObject.of(caught.value)

    assert ErrorObject.from_json(told.to_json()) == told
    assert told.details == {"text": "repo1x", "problem": caught.value.problem}
    assert ErrorObject.of(ReportedError(told)) is told


def test_error_object_keeps_only_plain_details() -> None:
    error = StorageFault("broken")
    error.__dict__.update(a=1, b=[b"x", "y"], c=RepositoryId(bytes(32)), d=None)
    assert ErrorObject.of(error).details == {"a": 1, "b": ["b'x'", "y"], "c": str(RepositoryId(bytes(32))), "d": None}


@pytest.mark.parametrize("value", [None, [], {}, {"error": "x"}, {"error": {"code": 1, "message": "x"}}])
def test_what_is_no_error_object_is_none(value: object) -> None:
    assert ErrorObject.from_json(value) is None


def test_error_object_of_another_version_is_read_as_far_as_it_goes() -> None:
    told = ErrorObject.from_json({"error": {"code": "NEW", "message": "m", "hint": 1, "exit_status": 99}})
    assert told == ErrorObject("NEW", "m", None, {}, ExitStatus.FAILED)
