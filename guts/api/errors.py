"""One form of an error for HTTP, ``--json`` and the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import ClassVar, Final, Self

from guts.errors import ExitStatus, GutsError, UsageError

HTTP_STATUS: Final[Mapping[ExitStatus, HTTPStatus]] = {
    ExitStatus.FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
    ExitStatus.USAGE: HTTPStatus.BAD_REQUEST,
    ExitStatus.NODE_DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    ExitStatus.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ExitStatus.REFUSED: HTTPStatus.FORBIDDEN,
    ExitStatus.TIMED_OUT: HTTPStatus.GATEWAY_TIMEOUT,
    ExitStatus.INTEGRITY: HTTPStatus.UNPROCESSABLE_ENTITY,
    ExitStatus.QUOTA: HTTPStatus.INSUFFICIENT_STORAGE,
    ExitStatus.CONFIG: HTTPStatus.BAD_REQUEST,
}

ERROR_FILE: Final = "GUTS_ERROR_FILE"
"""Environment variable: the file where a command that runs git wants to read what ``git-remote-guts`` ended in."""


class BadRequest(UsageError):
    """A request to the control API is not what this version takes."""

    code: ClassVar[str] = "BAD_REQUEST"


Detail = str | int | float | bool | None | list["Detail"]


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """What is told of an error: to a program all of it, to a person ``message`` and ``hint``.

    Attributes:
        code: stable name in capitals.
        details: the error's own fields, where they are plain values.
    """

    code: str
    message: str
    hint: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    exit_status: ExitStatus = ExitStatus.FAILED

    @classmethod
    def of(cls, error: GutsError) -> "ErrorObject":
        """Return what is told of ``error``."""
        if isinstance(error, ReportedError):
            return error.told
        details = {name: _plain(value) for name, value in vars(error).items() if name != "hint"}
        return cls(error.code, str(error), error.hint, details, error.exit_status)

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        """Return the error in ``value``, or ``None`` where there is none."""
        match value:
            case {"error": {"code": str(code), "message": str(message), **rest}}:
                pass
            case _:
                return None
        hint, details, status = rest.get("hint"), rest.get("details"), rest.get("exit_status")
        return cls(
            code,
            message,
            hint if isinstance(hint, str) else None,
            details if isinstance(details, dict) else {},
            next((known for known in ExitStatus if known == status), ExitStatus.FAILED),
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "hint": self.hint,
                "details": dict(self.details),
                "exit_status": int(self.exit_status),
            }
        }


def _plain(value: object) -> Detail:
    match value:
        case IntEnum():
            return value.name.lower()
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case _:
            return str(value)


class ReportedError(GutsError):
    """An error of another process, which ``told`` us: a node's answer, or a node that did not start."""

    def __init__(self, told: ErrorObject) -> None:
        super().__init__(told.message, hint=told.hint)
        self.told = told
