"""What the service makes of addresses that others name, and of questions for peers."""

import pytest

from guts.addresses import Address, BootstrapAddress
from guts.effects import Dial, Effect, FindProviders, Persist, ScoreChanged, Send
from guts.errors import Unavailable
from guts.events import Connect, ConnectionId, DialFailed, Follow, ProvidersFound, Seed
from guts.identity import SigningKey
from guts.peers.dialling import MAX_CLAIMED_DIALS, Purpose
from guts.records import PeerRecord, ProviderRecord
from guts.wire.messages import Error, ErrorCode, GetPeers, NewRepository, Peers
from tests.support.peers import IDS, KEYS, WALL, ack_of, author, outbound, record_of, target
from tests.unit.service.bench import Bench, R, S, known

HOUR_MS = 3_600_000
C1 = ConnectionId(1)
ELSEWHERE = ("169.254.169.254", "127.0.0.1", "10.0.0.1", "192.168.1.1", "0.0.0.0", "224.0.0.1", "::1", "fd00::1")


def dials(effects: list[Effect]) -> list[str]:
    return [effect.target.host for effect in effects if isinstance(effect, Dial)]


@pytest.mark.parametrize("told_by", ["dht", "news"])
def test_holder_is_dialled_at_no_address_of_this_machine_or_of_a_network_that_it_is_not_in(told_by: str) -> None:
    bench = Bench()
    bench.call(1, 1)
    assert FindProviders(R) in bench.command(Seed(R, (), 60.0))
    where = tuple(Address(ip, 9000) for ip in (*ELSEWHERE[:7], "45.1.1.1"))
    if told_by == "dht":
        record = ProviderRecord.sign(KEYS[3], R, where, 1, WALL + HOUR_MS)
        effects = bench.handle(ProvidersFound(R, (record,)))
    else:
        word = PeerRecord.sign(KEYS[3], where, ("seed",), 1, WALL + HOUR_MS).encoded
        effects = bench.say(1, NewRepository(R, 0, b"i" * 32, word))
    assert dials(effects) == ["45.1.1.1"]


def test_holder_on_the_topic_is_dialled_at_no_address_of_this_machine() -> None:
    bench = Bench()
    bench.command(Follow(author(1)))
    bench.service.sync.policy.max_repositories = 1000
    bench.call(1, 1)
    where = tuple(Address(ip, 9000) for ip in (*ELSEWHERE[:7], "45.1.1.1"))
    word = PeerRecord.sign(KEYS[3], where, ("seed",), 1, WALL + HOUR_MS).encoded
    assert dials(bench.say(1, NewRepository(S, 0, b"i" * 32, word))) == ["45.1.1.1"]


def claimed(number: int, ip: str) -> NewRepository:
    """Return the word of node ``number`` that it holds ``R``."""
    key = SigningKey(number.to_bytes(32, "big"))
    record = PeerRecord.sign(key, (Address(ip, 9000),), ("seed",), 1, WALL + HOUR_MS)
    return NewRepository(R, 0, b"i" * 32, record.encoded)


def test_claim_to_hold_something_is_the_tellers_in_the_address_book() -> None:
    bench = Bench({R: known(1)})
    bench.call(1, 1)
    bench.say(1, claimed(2000, "46.1.1.1"))
    [state] = [state for state in bench.service.peers.peers.values() if state.connection is None]
    assert state.source == "198.51.101.0/24"


def test_claims_of_a_flooder_leave_dials_for_the_operator_and_for_what_others_tell() -> None:
    bench = Bench({R: known(1)})
    bench.call(1, 1)
    bench.call(2, 2)
    flood = [d for n in range(300) for d in dials(bench.say(1, claimed(1000 + n, f"45.{n % 200}.1.1")))]
    assert len(flood) == MAX_CLAIMED_DIALS
    assert dials(bench.command(Connect(target(3, IDS[3]), 10.0))) == ["192.0.2.3"]
    assert dials(bench.say(2, claimed(2000, "46.1.1.1"))) == []
    tried = []
    while "46.1.1.1" not in tried:
        under_way = next(t for t, p in bench.service.peers._dialling.under_way.items() if p is Purpose.HOLDER)
        tried += dials(bench.handle(DialFailed(under_way, Unavailable("no answer"))))
        assert len(tried) < 40, "of 300 that wait, it is one"


def test_operator_is_obeyed_whatever_the_address() -> None:
    bench = Bench()
    hints = tuple(BootstrapAddress(ip, 9000) for ip in ELSEWHERE[:3])
    assert set(dials(bench.command(Seed(R, hints, 60.0)))) == {hint.host for hint in hints}
    assert dials(bench.command(Connect(BootstrapAddress("169.254.169.254", 80), 10.0))) == ["169.254.169.254"]


def test_ninth_command_to_dial_is_carried_out_when_another_dial_has_ended() -> None:
    bench = Bench()
    for number in range(30, 38):
        assert dials(bench.command(Connect(target(number), 10.0))) == [f"192.0.2.{number}"]
    assert dials(bench.command(Connect(target(38), 10.0))) == []
    # The handshake is the end of a dial: what comes after it costs no socket that is still to be opened.
    assert dials(bench.handle(outbound(1, 1, target(30)))) == ["192.0.2.38"]


def test_question_for_peers_is_answered_and_an_answer_to_none_is_a_fault() -> None:
    bench = Bench()
    bench.call(1, 1)
    bench.call(2, 2)
    assert bench.say(1, GetPeers(7)) == [Send(C1, Peers(7, (record_of(2),)))]
    assert bench.say(1, GetPeers(8)) == [Send(C1, Error(8, ErrorCode.BUSY, "asked too often", 60))]
    [fault] = [e for e in bench.say(1, Peers(7, ())) if isinstance(e, Persist)]
    assert isinstance(fault.change, ScoreChanged)
    assert (fault.change.score.peer, fault.change.reason) == (IDS[1], "UNSOLICITED_ANSWER")


def test_host_that_the_operator_names_may_be_a_name() -> None:
    bench = Bench()
    door = BootstrapAddress("bootstrap", 9000)
    bench.command(Connect(door, 10.0))
    bench.handle(DialFailed(door, Unavailable("refused")))
    bench.command(Connect(door, 10.0))
    bench.handle(outbound(1, 1, door))
    bench.say(1, ack_of(1))
    assert bench.service.peers.connection_to(IDS[1]) is not None
