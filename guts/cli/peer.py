"""``guts peer``: ls, connect."""

import click

from guts.addresses import BootstrapAddress
from guts.cli import completing
from guts.cli.answer import Answer, answers
from guts.cli.session import Session, emit, json_option, pass_session, say, span_text, table, timeout_option
from guts.ids import PeerId


@click.group()
def peer() -> None:
    """List and connect peers."""


@peer.command()
@json_option
@pass_session
def ls(session: Session, as_json: bool) -> None:
    """List the peers that this node knows, connected ones first."""
    value = session.client().get("/v1/peers")
    rows = [
        (
            PeerId.parse(known.text("peer")).short + "…",
            known.text("address", "-"),
            known.text("direction", "-"),
            known.text("state"),
            span_text(known.seconds("since_s")) if known.json.get("since_s") is not None else "-",
            f"{known.seconds('rtt_ms'):.1f} ms" if known.json.get("rtt_ms") is not None else "-",
            str(known.number("repositories", 0)),
            f"{known.seconds('score', 0.0):.0f}",
        )
        for known in answers(value)
    ]
    headings = ("PEER", "ADDRESS", "DIRECTION", "STATE", "SINCE", "RTT", "REPOS", "SCORE")
    emit(as_json, value, table(headings, rows))
    if not rows and not as_json:
        say("no peers yet; guts peer connect [node1…@]host:port")


@peer.command()
@click.argument("address", metavar="[ID@]HOST:PORT", shell_complete=completing.peers)
@timeout_option(15)
@json_option
@pass_session
def connect(session: Session, as_json: bool, address: str, timeout: float) -> None:
    """Dial a node; the id, where given, is checked."""
    body = {"address": str(BootstrapAddress.parse(address)), "timeout": timeout}
    answer = Answer.of(session.client().send("POST", "/v1/peers", body, timeout))
    emit(as_json, answer.json, f"connected to {answer.text('peer')} in {answer.seconds('seconds', 0.0):.2f} s")
