"""``guts limits``: show, set."""

import click

from guts.cli import completing
from guts.cli.answer import Answer, answers
from guts.cli.session import Session, emit, json_option, pass_session, say, table
from guts.limits import LIMITS, BadLimit, known_limit, without_effect


@click.group()
def limits() -> None:
    """Show or change what the node grants its peers."""


@limits.command(short_help="List the limits, and how much of them is used.")
@json_option
@pass_session
def show(session: Session, as_json: bool) -> None:
    """List the limits: their values, where those come from, how much is used, how often they bit."""
    value = session.client().get("/v1/limits")
    rows = answers(value)
    emit(as_json, value, _lines(rows))
    _tell_without_effect(rows)


@limits.command(name="set", short_help="Change limits, now and for the next start.")
@click.argument("settings", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=completing.limit_settings)
@json_option
@pass_session
def set_(session: Session, as_json: bool, settings: tuple[str, ...]) -> None:
    """Change limits of the running node, now and for its next start; NAME=default takes one back."""
    changes: dict[str, str] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        known_limit(name)
        if not separator or not value:
            raise BadLimit(f"{setting!r} has no value", hint=f"guts limits set {name}={LIMITS[name].example}")
        if name in changes:
            raise BadLimit(f"limits.{name} is set twice")
        changes[name] = value
    told = session.client().send("PATCH", "/v1/limits", changes)
    emit(as_json, told, _lines(answers(told)))
    if not as_json:
        say("the node goes by this from now on, and after a restart")
        _tell_without_effect(answers(session.client().get("/v1/limits")))


def _tell_without_effect(rows: list[Answer]) -> None:
    for line in without_effect({row.text("name"): row.seconds("value") for row in rows}):
        say(f"hint: {line}")


def _lines(rows: list[Answer]) -> list[str]:
    return table(
        ("NAME", "VALUE", "UNIT", "FROM", "USED", "PEAK", "BIT", "OF"),
        [
            (
                name := row.text("name"),
                _shown(name, row, "value"),
                row.text("unit"),
                row.text("source"),
                _shown(name, row, "used"),
                _shown(name, row, "peak"),
                str(row.number("bit")),
                row.text("of"),
            )
            for row in rows
        ],
    )


def _shown(name: str, row: Answer, field: str) -> str:
    if row.json.get(field) is None:
        return "-"
    number = row.seconds(field)
    if name not in LIMITS:  # of another version's node
        return f"{number:g}"
    return LIMITS[name].shown(number) if field == "value" else LIMITS[name].measured(number)
