"""Reading the JSON that a node answers, with a type for everything that is taken from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from guts.errors import GutsError


class BadAnswer(GutsError):
    """The node answered something else than this version of the command understands."""

    code: ClassVar[str] = "BAD_ANSWER"

    def __init__(
        self,
        problem: str,
        hint: str = "node and command may be of different versions: guts node stop && guts node start",
    ) -> None:
        super().__init__(f"the node's answer {problem}", hint=hint)


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object; a field that is missing or of another type is a ``BadAnswer``."""

    json: Mapping[str, object]

    @classmethod
    def of(cls, value: object) -> Self:
        """Raises: ``BadAnswer``: ``value`` is not an object."""
        if not isinstance(value, dict):
            raise BadAnswer("is not an object")
        return cls(value)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string; ``null`` and a missing field are ``default`` where one is given."""
        value = self.json.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise BadAnswer(f"has no text {name!r}")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        """Return a whole number; as in ``text``."""
        value = self.json.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadAnswer(f"has no number {name!r}")
        return int(value)

    def seconds(self, name: str, default: float | None = None) -> float:
        """Return a number with its fraction; as in ``text``."""
        value = self.json.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadAnswer(f"has no number {name!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a truth value; a missing one is false."""
        return self.json.get(name) is True

    def object(self, name: str) -> "Answer":
        """Return an object; a missing one is empty."""
        return Answer.of(self.json.get(name) or {})

    def texts(self, name: str) -> list[str]:
        """Return a list of strings; a missing one is empty."""
        values = self.json.get(name) or []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise BadAnswer(f"has no list of texts {name!r}")
        return values

    def objects(self, name: str) -> "list[Answer]":
        """Return a list of objects; a missing one is empty."""
        return answers(self.json.get(name) or [])


def answers(value: object) -> list[Answer]:
    """Return a list of objects. Raises: ``BadAnswer``."""
    if not isinstance(value, list):
        raise BadAnswer("is not a list")
    return [Answer.of(item) for item in value]
