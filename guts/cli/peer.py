"""``guts peer``: ls, connect, show, and whom to let in."""

import click

from guts.addresses import BootstrapAddress
from guts.cli import completing
from guts.cli.answer import Answer, answers
from guts.cli.bans import ban, bans, left_text, unban
from guts.cli.session import (
    Session,
    age_text,
    count_text,
    emit,
    instant_text,
    json_option,
    pass_session,
    say,
    span_text,
    table,
    timeout_option,
)
from guts.cli.short_ids import KNOWN_ID
from guts.ids import PeerId
from guts.sizes import size_text


@click.group()
def peer() -> None:
    """List, connect and ban peers."""


peer.add_command(ban)
peer.add_command(unban)
peer.add_command(bans)


@peer.command()
@click.option("--sort", type=click.Choice(["score", "rtt"]), help="The worst score, or the shortest round trip, first.")
@json_option
@pass_session
def ls(session: Session, as_json: bool, sort: str | None) -> None:
    """List the peers that this node knows, connected ones first."""
    value = session.client().get("/v1/peers")
    listed = answers(value)
    if sort == "score":
        listed.sort(key=lambda known: -known.seconds("score", 0.0))
    elif sort == "rtt":
        listed.sort(key=lambda known: known.seconds("rtt_ms", float("inf")))
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
            _standing(known),
        )
        for known in listed
    ]
    headings = ("PEER", "ADDRESS", "DIRECTION", "STATE", "SINCE", "RTT", "REPOS", "SCORE", "GREY/BANNED")
    emit(as_json, [dict(known.json) for known in listed], table(headings, rows))
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


@peer.command()
@click.argument("node", metavar="ID", type=KNOWN_ID, shell_complete=completing.peer_ids)
@json_option
@pass_session
def show(session: Session, as_json: bool, node: str) -> None:
    """Show what is known of a node, and every change of its score."""
    answer = Answer.of(session.client().get(f"/v1/peers/{PeerId.parse(node)}"))
    emit(as_json, answer.json, _shown(answer))


def _standing(known: Answer) -> str:
    standing = known.text("standing", "ok")
    if standing == "ok":
        return "-"
    return f"{standing}, {left_text(known)}" if known.json.get("left_s") != 0 else standing


def _shown(known: Answer) -> list[str]:
    useful = known.object("usefulness")
    rows = [
        ("peer", known.text("peer")),
        ("state", known.text("state")),
        ("connected", f"{known.text('direction')}, {known.text('address')}" if known.json.get("address") else "-"),
        ("addresses", ", ".join(known.texts("addresses")) or "-"),
        ("software", known.text("software", "-")),
        ("capabilities", ", ".join(known.texts("capabilities")) or "-"),
        ("repositories", str(known.number("repositories", 0))),
        ("last seen", age_text(known.number("last_seen_ms", 0))),
        (
            "usefulness",
            (f"{useful.seconds('success'):.0%} of requests" if useful.json else "-")
            + (f", {size_text(useful.number('bytes_per_s'))}/s" if useful.json.get("bytes_per_s") is not None else ""),
        ),
        ("score", f"{known.seconds('score'):.1f}, halves every {span_text(known.seconds('half_life_s'))}"),
        ("standing", _standing(known) + (f" ({known.text('reason')})" if known.json.get("reason") else "")),
        (
            "so far",
            f"{count_text(known.number('shut_outs'), 'shut-out')}, {count_text(known.number('bans'), 'ban')} of late",
        ),
    ]
    ledger = [
        (
            instant_text(change.number("at_ms")),
            f"{change.seconds('ago_s'):.1f}",
            f"{change.seconds('change'):+.1f}",
            f"{change.seconds('total'):.1f}",
            change.text("reason"),
            span_text(change.seconds("barred_s")) if change.seconds("barred_s") else "-",
        )
        for change in known.objects("ledger")
    ]
    headings = ("WHEN", "RUNNING SECONDS AGO", "CHANGE", "SCORE", "REASON", "LET IN AGAIN AFTER")
    return [f"{name:<13} {value}" for name, value in rows] + (["", *table(headings, ledger)] if ledger else [])
