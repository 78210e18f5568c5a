"""Whom the operator lets in, and whom not: at once, also where they are connected."""

from typing import ClassVar

from guts.addresses import BanSubject, subject_text
from guts.clock import Now
from guts.effects import Effect, Reply
from guts.errors import ExitStatus, UsageError
from guts.events import Ban, CommandId, Unban
from guts.ids import PeerId
from guts.peers.bans import OperatorBan
from guts.peers.manager import PeerManager
from guts.peers.score import UNBANNED


class StillBanned(UsageError):
    """What is to be let in is part of a network that is banned."""

    code: ClassVar[str] = "STILL_BANNED"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, subject: BanSubject, around: BanSubject) -> None:
        super().__init__(
            f"{subject_text(subject)} is banned with {subject_text(around)}",
            hint=f"guts peer unban {subject_text(around)}",
        )


class OwnNode(UsageError):
    """The operator wants this very node banned."""

    code: ClassVar[str] = "OWN_NODE"
    exit_status: ClassVar[ExitStatus] = ExitStatus.REFUSED

    def __init__(self, subject: BanSubject) -> None:
        super().__init__(f"{subject_text(subject)} is this node itself", hint="guts peer ls lists the others")


class Banning:
    """Carries out ``Ban`` and ``Unban``."""

    def __init__(self, peers: PeerManager) -> None:
        self._peers = peers
        self._scores = peers.scores

    def ban(self, command_id: CommandId, command: Ban, now: Now) -> list[Effect]:
        """Ban, and close the connections that are not to be any more.

        Of a list that is merged, peers that the config trusts, and this node, are passed over; what comes ahead of one
        that is refused is banned.
        """
        effects: list[Effect] = []
        refusal: UsageError | None = None
        changed = skipped = 0
        for wanted in command.bans:
            own = wanted.subject == self._peers.me.peer
            if command.merge and (own or wanted.subject in self._scores.trusted):
                skipped += 1
                continue
            ban = OperatorBan(wanted.subject, now.mono + wanted.seconds, now.wall, wanted.reason)
            try:
                if own:
                    raise OwnNode(wanted.subject)
                kept = self._scores.ban(ban, now.mono, merge=command.merge)
            except UsageError as error:
                refusal = error
                break
            changed += bool(kept)
            effects += kept
        closed = self._peers.close_banned(now.mono)
        unchanged = len(command.bans) - changed - skipped
        result = {"changed": changed, "unchanged": unchanged, "skipped": skipped, "closed": len(closed)}
        return [*effects, *closed, Reply(command_id, {**result} if refusal is None else refusal)]

    def unban(self, command_id: CommandId, command: Unban, now: Now) -> list[Effect]:
        """Let in again; a node is forgiven what it did, so that the next slip does not shut it out again."""
        subject = command.subject
        effects: list[Effect] = [*self._scores.bans.lift(subject)]
        if isinstance(subject, PeerId) or effects:
            self._peers.let_in(subject, now.mono)
        if isinstance(subject, PeerId):
            standing = self._scores.standing(subject, now.mono)
            if round(standing.fault, 1) or standing.bar is not None or standing.bans or standing.shut_outs:
                effects += self._scores.forgive(subject, UNBANNED, now)
        elif not effects and (around := self._scores.bans.around(subject, now.mono)) is not None:
            return [Reply(command_id, StillBanned(subject, around.subject))]
        return [*effects, Reply(command_id, {"subject": subject_text(subject), "changed": len(effects)})]
