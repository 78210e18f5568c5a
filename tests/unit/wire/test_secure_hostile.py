"""What the secure channel does with bytes that no honest node on an honest network sends.

The rule behind all of it: a ``PeerFault`` comes out or nothing does, the channel says not one byte more, and no
plaintext is ever delivered that the other side did not send at that place.
"""

import contextlib
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guts.errors import PeerFault, Severity
from guts.identity import SigningKey
from guts.ids import PeerId
from guts.noise.cipher import DecryptFailed
from guts.noise.keys import HandshakeFailed, KeyPair
from guts.wire.secure import (
    MAX_HANDSHAKE_MESSAGE,
    NOT_OUR_NETWORK,
    Direction,
    MetSelf,
    SecureChannel,
    UnexpectedPeer,
)
from tests.support.banners import BANNERS
from tests.support.channels import ALICE, BOB, EVE, connected, dialler, listener, shake_hands
from tests.support.node_by_hand import INITIATOR, RESPONDER, NodeByHand, frame
from tests.unit.noise.test_keys import LOW_ORDER


def refuses(channel: SecureChannel, data: bytes, fault: type[PeerFault], match: str = ".") -> PeerFault:
    """Feed ``data``, and check that the channel ends with ``fault``, silent, and stays so."""
    with pytest.raises(fault, match=match) as caught:
        channel.receive(data)
    assert caught.value.severity is Severity.NETWORK
    assert channel.take() == b""
    assert channel.buffered == 0
    assert channel._incoming == b""
    assert not channel.established
    with pytest.raises(fault) as again:
        channel.receive(b"more")
    assert again.value is caught.value
    with pytest.raises(AssertionError, match="not established"):
        channel.send(b"anything")
    return caught.value


# Foreign protocols and lengths


@pytest.mark.parametrize("banner", BANNERS, ids=lambda banner: repr(banner[:12]))
def test_listener_answers_a_foreign_protocol_with_nothing(banner: bytes) -> None:
    refuses(listener(), banner, HandshakeFailed, "not a Guts node")


@pytest.mark.parametrize("banner", BANNERS, ids=lambda banner: repr(banner[:12]))
def test_dialler_never_goes_on_with_a_foreign_protocol(banner: bytes) -> None:
    # Its first two bytes may look like the length of a longer message; then more is awaited, never answered.
    alice = dialler()
    alice.take()
    with contextlib.suppress(HandshakeFailed):
        assert alice.receive(banner) == []
    assert alice.take() == b""
    assert not alice.established


@pytest.mark.parametrize("length", [0, 1, 31, 33, 96, 1024, 1025, 65_535])
def test_listener_refuses_a_first_message_of_another_length_from_its_length_alone(length: int) -> None:
    bob = listener()
    assert bob.receive(length.to_bytes(2, "big")[:1]) == []
    refuses(bob, length.to_bytes(2, "big")[1:], HandshakeFailed, f"first message of {length} bytes")


def test_listener_does_no_crypto_for_a_first_message_of_another_length() -> None:
    made: list[KeyPair] = []

    def ephemeral() -> KeyPair:
        made.append(KeyPair.generate())
        return made[-1]

    def bob() -> SecureChannel:
        return SecureChannel(
            direction=Direction.INBOUND, network="test", key=BOB, static=KeyPair(bytes(32)), ephemeral=ephemeral
        )

    refuses(bob(), frame(bytes(33)), HandshakeFailed)
    assert made == []
    bob().receive(dialler().take())
    assert len(made) == 1


@pytest.mark.parametrize("length", [0, MAX_HANDSHAKE_MESSAGE + 1, 65_535])
def test_later_handshake_messages_of_a_wrong_length_are_refused_from_it_alone(length: int) -> None:
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    refuses(alice, length.to_bytes(2, "big"), HandshakeFailed, NOT_OUR_NETWORK)
    bob.take()
    refuses(bob, length.to_bytes(2, "big"), HandshakeFailed, NOT_OUR_NETWORK)


@pytest.mark.parametrize("padding", [MAX_HANDSHAKE_MESSAGE - 198, MAX_HANDSHAKE_MESSAGE - 198 + 1])
def test_handshake_message_of_1024_bytes_is_read_and_one_of_1025_not(padding: int) -> None:
    eve, alice = NodeByHand(initiator=False, seed=EVE.seed), dialler()
    eve.hear_hello(alice.take())
    data = eve.introduce(eve.credential(eve.signature()) + bytes(padding))
    assert len(data) == 2 + 198 + padding
    expected = "credential is not canonical" if padding + 198 == MAX_HANDSHAKE_MESSAGE else NOT_OUR_NETWORK
    refuses(alice, data, HandshakeFailed, expected)


@pytest.mark.parametrize("length", [1, 32, 95, 96, 97])
def test_second_message_that_is_too_short_is_refused(length: int) -> None:
    alice = dialler()
    alice.take()
    refuses(alice, frame(b"\x09" * length), HandshakeFailed)


@pytest.mark.parametrize("length", range(16))
def test_transport_message_shorter_than_its_tag_is_refused_from_its_length_alone(length: int) -> None:
    for channel in connected():
        refuses(channel, length.to_bytes(2, "big"), DecryptFailed, f"message of {length} bytes")


def test_announced_length_allocates_nothing() -> None:
    channels = [connected()[1] for _ in range(64)]
    tracemalloc.start()
    for channel in channels:
        assert channel.receive(b"\xff\xff" + bytes(10)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024


def test_channel_keeps_no_more_than_one_incomplete_message() -> None:
    alice, bob = connected()
    for _ in range(20):
        alice.send(bytes(65_519))
    data = alice.take()
    for at in range(0, len(data), 50_000):
        bob.receive(data[at : at + 50_000])
        assert len(bob._incoming) < 2 + 65_535


# Networks, versions, ids


def test_other_network_fails_the_handshake_and_the_dialler_says_why() -> None:
    alice, bob = dialler(network="one"), listener(network="other")
    bob.receive(alice.take())
    fault = refuses(alice, bob.take(), HandshakeFailed)
    assert str(fault) == "other network or protocol version, or not a Guts node"
    assert alice.peer is None


def test_other_protocol_major_fails_the_handshake() -> None:
    theirs, alice = NodeByHand(initiator=False, seed=BOB.seed, major=2), dialler()
    theirs.hear_hello(alice.take())
    refuses(alice, theirs.introduce(), HandshakeFailed, NOT_OUR_NETWORK)


def test_dialler_closes_before_it_introduces_itself_to_an_unexpected_peer() -> None:
    alice, bob = dialler(expected=EVE.peer_id), listener()
    bob.receive(alice.take())
    fault = refuses(alice, bob.take(), UnexpectedPeer)
    assert isinstance(fault, UnexpectedPeer)
    assert (fault.expected, fault.actual) == (EVE.peer_id, BOB.peer_id)
    assert str(BOB.peer_id) in str(fault)
    assert str(EVE.peer_id) in str(fault)
    assert not bob.established
    assert bob.peer is None


@pytest.mark.parametrize("expected", [None, ALICE.peer_id, BOB.peer_id], ids=str)
def test_dialler_notices_that_it_met_itself_before_it_introduces_itself(
    expected: PeerId | None,
) -> None:
    alice = dialler(expected=expected)
    same = listener(key=ALICE)
    same.receive(alice.take())
    refuses(alice, same.take(), MetSelf)


def test_listener_notices_a_dialler_with_its_own_key() -> None:
    eve, bob = NodeByHand(initiator=True, seed=BOB.seed), listener()
    bob.receive(eve.hello())
    eve.meet(bob.take())
    refuses(bob, eve.introduce(), MetSelf)


# Credentials

Forge = Callable[[NodeByHand], bytes]


def _other_key(node: NodeByHand) -> bytes:
    mallory = NodeByHand(initiator=node.initiator, seed=b"m" * 32)
    signature = mallory.sign(
        role=INITIATOR if node.initiator else RESPONDER,
        network=node.network,
        before=node.noise.handshake_hash,
        static=node.static_public,
    )
    return node.credential(signature)


def _signed(**changes: bytes) -> Forge:
    def forge(node: NodeByHand) -> bytes:
        honest = {
            "role": INITIATOR if node.initiator else RESPONDER,
            "network": node.network,
            "before": node.noise.handshake_hash,
            "static": node.static_public,
        }
        return node.credential(node.sign(**(honest | changes)))

    return forge


def _wrong_role(node: NodeByHand) -> bytes:
    return _signed(role=RESPONDER if node.initiator else INITIATOR)(node)


def _other_domain(node: NodeByHand) -> bytes:
    role = INITIATOR if node.initiator else RESPONDER
    body = role + node.network + node.noise.handshake_hash + node.static_public
    return node.credential(SigningKey(EVE.seed).sign(b"guts/peer/1\0", body))


def _changed(change: Callable[[bytes], bytes]) -> Forge:
    return lambda node: change(node.credential(node.signature()))


FORGERIES: dict[str, tuple[Forge, str]] = {
    "signed by another key": (_other_key, "signature"),
    "signed for the other role": (_wrong_role, "signature"),
    "signed for another network": (_signed(network=bytes(32)), "signature"),
    "signed for another handshake": (_signed(before=bytes(32)), "signature"),
    "signed for another static key": (_signed(static=bytes(32)), "signature"),
    "signed in another domain": (_other_domain, "signature"),
    "no signature": (lambda node: node.credential(bytes(64)), "signature"),
    "small-order key": (
        # Under this key, which has order 1, other verifiers accept (R, S) = (1, 0) for any message.
        lambda node: b"\x93\x01\xc4\x20\x01" + bytes(31) + b"\xc4\x40\x01" + bytes(63),
        "signature",
    ),
    "empty": (lambda node: b"", "canonical"),
    "trailing byte": (_changed(lambda good: good + b"\0"), "canonical"),
    "cut short": (_changed(lambda good: good[:-1]), "canonical"),
    "number in a longer form": (_changed(lambda good: b"\x93\xcc\x01" + good[2:]), "canonical"),
    "map": (lambda node: b"\x81\x01\x02", "canonical"),
    "version 2": (_changed(lambda good: b"\x93\x02" + good[2:]), "credential of version 1"),
    "version True": (_changed(lambda good: b"\x93\xc3" + good[2:]), "credential of version 1"),
    "version nil": (_changed(lambda good: b"\x93\xc0" + good[2:]), "credential of version 1"),
    "two fields": (_changed(lambda good: b"\x92" + good[1:36]), "credential of version 1"),
    "four fields": (_changed(lambda good: b"\x94" + good[1:] + b"\xc0"), "canonical"),
    "not an array": (lambda node: b"\x01", "credential of version 1"),
    "nested": (lambda node: b"\x91\x91\x01", "canonical"),
    "key of 31 bytes": (
        _changed(lambda good: good[:2] + b"\xc4\x1f" + good[5:36] + good[36:]),
        "credential of version 1",
    ),
    "signature of 63 bytes": (
        _changed(lambda good: good[:36] + b"\xc4\x3f" + good[38:101]),
        "credential of version 1",
    ),
    "key as text": (
        _changed(lambda good: good[:2] + b"\xd9\x20" + b"k" * 32 + good[36:]),
        "canonical",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_dialler_refuses_a_forged_credential(name: str) -> None:
    forge, match = FORGERIES[name]
    eve, alice = NodeByHand(initiator=False, seed=EVE.seed), dialler()
    eve.hear_hello(alice.take())
    refuses(alice, eve.introduce(forge(eve)), HandshakeFailed, match)
    assert alice.peer is None


@pytest.mark.parametrize("name", FORGERIES)
def test_listener_refuses_a_forged_credential(name: str) -> None:
    forge, match = FORGERIES[name]
    eve, bob = NodeByHand(initiator=True, seed=EVE.seed), listener()
    bob.receive(eve.hello())
    eve.meet(bob.take())
    refuses(bob, eve.introduce(forge(eve)), HandshakeFailed, match)
    assert bob.peer is None


def test_honest_credential_by_hand_is_accepted() -> None:
    # The forgeries above fail for the reason that they name, and for no other.
    eve, alice = NodeByHand(initiator=False, seed=EVE.seed), dialler()
    eve.hear_hello(alice.take())
    alice.receive(eve.introduce())
    assert alice.peer == EVE.peer_id


def test_signature_of_an_earlier_handshake_is_refused_in_a_new_one() -> None:
    # Eve recorded Bob's credential when he answered her, and now plays Bob with the Noise keys she has.
    eve = NodeByHand(initiator=True, seed=EVE.seed)
    bob = listener()
    bob.receive(eve.hello())
    second = bob.take()
    eve.before = eve.noise.handshake_hash
    stolen = eve.noise.read(second[2:])
    alice = dialler(expected=BOB.peer_id)
    as_bob = NodeByHand(initiator=False, seed=EVE.seed, ephemeral=b"\x73" * 32)
    as_bob.hear_hello(alice.take())
    refuses(alice, as_bob.introduce(stolen), HandshakeFailed, "signature")


def test_listener_refuses_its_own_credential_sent_back() -> None:
    # An initiator replays the credential of the responder that it talks to, within the same handshake.
    eve, bob = NodeByHand(initiator=True, seed=EVE.seed), listener()
    bob.receive(eve.hello())
    stolen = eve.noise.read(bob.take()[2:])
    refuses(bob, eve.introduce(stolen), HandshakeFailed, "signature")


# On the path


def test_reflected_messages_are_refused() -> None:
    alice = dialler()
    refuses(alice, alice.take(), HandshakeFailed)
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    refuses(bob, bob.take(), HandshakeFailed)
    for channel in connected():
        channel.send(b"echo")
        refuses(channel, channel.take(), DecryptFailed)


def test_replayed_handshake_is_refused() -> None:
    alice, bob = dialler(), listener()
    first = alice.take()
    bob.receive(first)
    alice.receive(bob.take())
    third = alice.take()
    bob.receive(third)
    # Everything that Alice said, to the same node again: its ephemeral key is another one.
    again = listener(seed=3)
    assert again.receive(first) == []
    again.take()
    refuses(again, third, HandshakeFailed)


def test_replayed_reordered_and_dropped_transport_messages_are_refused() -> None:
    def three() -> tuple[SecureChannel, list[bytes]]:
        alice, bob = connected()
        messages = []
        for plaintext in (b"one", b"two", b"three"):
            alice.send(plaintext)
            messages.append(alice.take())
        return bob, messages

    bob, (one, two, three_) = three()
    assert bob.receive(one) == [b"one"]
    refuses(bob, one, DecryptFailed)
    bob, (one, two, three_) = three()
    refuses(bob, two + one, DecryptFailed)
    bob, (one, two, three_) = three()
    assert bob.receive(one) == [b"one"]
    refuses(bob, three_, DecryptFailed)


def test_messages_of_another_connection_are_refused() -> None:
    alice, _ = connected()
    alice.send(b"for another connection")
    other_alice, other_bob = dialler(seed=5), listener(seed=6)
    shake_hands(other_alice, other_bob)
    refuses(other_bob, alice.take(), DecryptFailed)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("bit", [0, 7])
def test_flipping_any_byte_of_a_handshake_message_never_ends_in_a_connection(number: int, bit: int) -> None:
    lengths = {1: 34, 2: 200, 3: 168}
    for position in range(lengths[number]):
        alice, bob = dialler(), listener()
        sides = [alice, bob]
        faults: list[PeerFault] = []
        for step in range(3):
            data = bytearray(sides[step % 2].take())
            if step + 1 == number:
                assert len(data) == lengths[number]
                data[position] ^= 1 << bit
            try:
                assert sides[1 - step % 2].receive(bytes(data)) == []
            except PeerFault as fault:
                faults.append(fault)
                break
        assert not bob.established
        # Whoever was deceived into waiting for more gets it, and even then delivers nothing.
        if alice.established:
            alice.send(bytes(2000))
        try:
            assert bob.receive(alice.take()) == []
        except PeerFault as fault:
            faults.append(fault)
        assert not (alice.established and bob.established)
        assert faults or position < 2


@pytest.mark.parametrize("bit", [0, 7])
def test_flipping_any_byte_of_a_transport_message_delivers_nothing(bit: int) -> None:
    secret = b"forty bytes of plaintext, more or less.."
    for position in range(2 + len(secret) + 16):
        for sender, receiver in (connected(), connected()[::-1]):
            sender.send(secret)
            data = bytearray(sender.take())
            data[position] ^= 1 << bit
            try:
                assert receiver.receive(bytes(data)) == []
                # Only a longer length leaves the receiver waiting.
                assert int.from_bytes(data[:2], "big") > len(secret) + 16
            except DecryptFailed:
                assert not receiver.established


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_keys_of_low_order_are_refused(point: bytes) -> None:
    refuses(listener(), frame(point), HandshakeFailed, "low order")
    alice = dialler()
    alice.take()
    refuses(alice, frame(point + bytes(170)), HandshakeFailed, "low order")


def test_trailing_garbage_is_refused_wherever_it_comes() -> None:
    garbage = b"\x00\x40" + b"\x05" * 64
    alice, bob = dialler(), listener()
    refuses(bob, alice.take() + garbage, HandshakeFailed)
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    refuses(alice, bob.take() + garbage, DecryptFailed)
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    alice.receive(bob.take())
    refuses(bob, alice.take() + garbage, DecryptFailed)
    alice, bob = connected()
    alice.send(b"data")
    refuses(bob, alice.take() + garbage, DecryptFailed)


# Random bytes: a fault comes out, or nothing

pieces = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=300).map(frame),
        st.binary(min_size=32, max_size=32).map(frame),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(pieces, st.sampled_from(["listener", "dialler", "alice", "bob"]))
def test_random_bytes_end_in_a_fault_or_in_nothing(data: list[bytes], who: str) -> None:
    alice, bob = connected()
    channel = {"dialler": dialler(), "listener": listener(), "alice": alice, "bob": bob}[who]
    channel.take()
    try:
        for piece in data:
            assert channel.receive(piece) == []
    except PeerFault:
        assert not channel.established
        assert channel.take() == b""


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mangled_conversation_delivers_only_a_prefix_of_what_was_sent(data: st.DataObject) -> None:
    alice, bob = dialler(), listener()
    bob.receive(alice.take())
    alice.receive(bob.take())
    sent = [b"%d" % number for number in range(5)]
    for plaintext in sent:
        alice.send(plaintext)
    stream = bytearray(alice.take())
    start = data.draw(st.integers(0, len(stream)), label="start")
    end = data.draw(st.integers(start, len(stream)), label="end")
    stream[start:end] = data.draw(st.binary(max_size=40), label="instead")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4), label="cuts"))
    delivered: list[bytes] = []
    try:
        for left, right in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            delivered += bob.receive(bytes(stream[left:right]))
    except PeerFault:
        assert bob.take() == b""
    assert delivered == sent[: len(delivered)]
