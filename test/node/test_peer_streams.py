"""Streams between nodes: one in each direction; unauthenticated peers are told nothing, and take no memory."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure

from test.helpers.fakes import THREE, framed
from test.helpers.fuzz import INPUTS, nothing_kept
from test.helpers.peer_streams_harness import PeerStreamsHarness, disconnect, fail_dial, said_by
from txpaxos.core.messages import Ballot, Fetch, Heartbeat, PromiseLog
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count
from txpaxos.node.peer_streams import (
    ANSWER_BYTES_WAITING_MAX,
    CHALLENGE_SECONDS,
    CONNECT_SECONDS,
    HANDSHAKE_SECONDS,
    RECONNECT_SECONDS_MAX,
    UNAUTHENTICATED_STREAMS_MAX,
    WAITING_BYTES_MAX,
)
from txpaxos.wire.codec import Codec, Way
from txpaxos.wire.frames import FRAME_BYTES_MAX, FRAME_BYTES_MAX_DEFAULT, HANDSHAKE_BYTES_MAX
from txpaxos.wire.peer_messages import Challenge, Hello, Proof

PROMISE_LOG = said_by("b", PromiseLog(Ballot(1, "a"), 1))[:20]
HEARTBEAT = said_by("b", Heartbeat(Ballot(1, "b")))[:20]
BAD, STRANGERS = Count.BAD_FRAME, Count.TOO_MANY_UNAUTHENTICATED_STREAMS


@pytest.fixture
def harness() -> PeerStreamsHarness:
    return PeerStreamsHarness()


# ------------------------------------------------------------------- dialling


def test_listens_where_it_is_told(harness: PeerStreamsHarness) -> None:
    harness.streams.listen(THREE.members["a"].address)
    ((port, factory, _, host),) = harness.reactor.tcpServers
    assert (port, host) == (4000, "10.0.0.1")
    assert factory is harness.streams


def test_no_peer_is_dialled_before_there_is_something_to_send(harness: PeerStreamsHarness) -> None:
    harness.reactor.spend(100.0)
    assert harness.reactor.tcpClients == []


def test_a_peer_is_dialled_once_and_gets_a_hello_first(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"one")
    harness.streams.send("b", b"two")
    ((host, port, _, timeout, _),) = harness.reactor.tcpClients
    assert (host, port, timeout) == ("10.0.0.2", 4000, CONNECT_SECONDS)
    stream, transport = harness.answer_dial()
    harness.streams.send("b", b"three")
    assert transport.messages() == [said_by("a")]
    stream.dataReceived(framed(said_by("b")))
    harness.streams.send("b", b"four")
    assert transport.messages() == [b"one", b"two", b"three", b"four"]
    assert len(harness.reactor.tcpClients) == 1
    assert transport.no_delay
    assert transport.keep_alive


def test_each_peer_has_a_stream_of_its_own(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"for b")
    harness.streams.send("c", b"for c")
    assert [client[0] for client in harness.reactor.tcpClients] == ["10.0.0.2", "10.0.0.3"]
    stream, transport = harness.answer_dial()
    stream.dataReceived(framed(said_by("c")))
    assert transport.messages() == [said_by("a"), b"for c"]


def test_both_directions_over_one_connection(harness: PeerStreamsHarness) -> None:
    """A peer that dialled is answered on the stream that it opened."""
    stream, transport = harness.established("b")
    stream.dataReceived(framed(said_by("b", Fetch(7))))
    assert harness.messages() == [("b", Fetch(7))]
    assert harness.received[0].way is Way.THEIR_STREAM
    harness.streams.send("b", b"back")
    assert transport.messages() == [b"back"]
    assert harness.reactor.tcpClients == []


def test_a_dialled_peer_answers_on_the_same_stream(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"there")
    stream, _ = harness.answer_dial()
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7)), said_by("b", Fetch(8))))
    assert harness.messages() == [("b", Fetch(7)), ("b", Fetch(8))]
    assert {received.way for received in harness.received} == {Way.OWN_STREAM}


def test_a_refused_connection_is_counted_and_forgotten(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"lost")
    fail_dial(harness, ConnectionRefusedError())
    assert harness.counters[Count.STREAM_REFUSED] == 1
    assert harness.refused == []
    harness.streams.send("b", b"next")
    assert len(harness.reactor.tcpClients) == 2
    stream, transport = harness.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert transport.messages() == [said_by("a"), b"next"]


def test_what_waits_for_a_slow_peer_is_sent_before_the_stream_ends(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.pauseProducing()
    harness.streams.send("b", b"last words")
    assert transport.messages() == []
    harness.streams.stop()
    assert transport.messages() == [b"last words"]
    assert transport.disconnecting
    assert transport.producer is None


def test_a_lost_connection_is_made_again_when_needed(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"one")
    stream, _ = harness.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    disconnect(stream)
    assert len(harness.reactor.tcpClients) == 1
    harness.streams.send("b", b"two")
    assert len(harness.reactor.tcpClients) == 2
    stream, transport = harness.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert transport.messages() == [said_by("a"), b"two"]


def test_two_that_dial_each_other_at_once(harness: PeerStreamsHarness) -> None:
    """Both connections stand, and nothing is lost on either."""
    harness.streams.send("b", b"one")
    dialled, there = harness.answer_dial()
    came, back = harness.established("b")
    dialled.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    came.dataReceived(framed(said_by("b", Fetch(2))))
    harness.streams.send("b", b"two")
    assert [there.disconnected, back.disconnected] == [False, False]
    assert there.messages() + back.messages() == [said_by("a"), b"one", b"two"]
    assert harness.messages() == [("b", Fetch(1)), ("b", Fetch(2))]


def test_a_peer_that_connects_again_has_lost_its_first_stream(harness: PeerStreamsHarness) -> None:
    """Its machine lost power, say. The old stream takes what we write for minutes, and no process reads it."""
    old, old_transport = harness.established("b")
    _, new_transport = harness.established("b")
    harness.streams.send("b", b"hello")
    assert old_transport.disconnected
    assert new_transport.messages() == [b"hello"]
    disconnect(old)
    harness.streams.send("b", b"again")
    assert new_transport.messages() == [b"again"]
    assert not new_transport.disconnected
    assert harness.reactor.tcpClients == []


# ------------------------------------------------------------------ strangers


@pytest.mark.parametrize(
    "first",
    [
        said_by("b", Fetch(1)),  # no Hello
        said_by("b", cluster="other"),
        said_by("stranger"),
        said_by("a"),  # ourselves
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        said_by("b")[:-1],
    ],
)
def test_a_bad_hello_ends_the_connection(harness: PeerStreamsHarness, first: bytes) -> None:
    stream, transport = harness.accept()
    stream.dataReceived(framed(first, said_by("b", Fetch(1))))
    assert transport.disconnected
    assert harness.counters == {BAD: 1}
    assert harness.received == []
    disconnect(stream)
    harness.streams.send("b", b"x")
    assert len(harness.reactor.tcpClients) == 1  # it is not taken for b's


def test_another_node_where_a_peer_was_dialled(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"x")
    stream, transport = harness.answer_dial()
    stream.dataReceived(framed(said_by("c")))
    assert transport.disconnected
    assert harness.counters == {BAD: 1}


@pytest.mark.parametrize("sender", ["c", "a", "stranger"])
def test_a_peer_speaks_only_for_itself(harness: PeerStreamsHarness, sender: str) -> None:
    """A peer whose Hello names one node, and which then speaks as others, would make up a quorum alone."""
    stream, transport = harness.established("b")
    stream.dataReceived(framed(said_by(sender, Fetch(1))))
    assert transport.disconnected
    assert harness.received == []
    assert harness.counters == {BAD: 1}


def test_a_second_hello_is_no_harm(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    assert not transport.disconnected
    assert harness.messages()[-1] == ("b", Fetch(1))


def test_a_stranger_may_claim_only_little(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.accept()
    stream.dataReceived((HANDSHAKE_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert harness.counters == {BAD: 1}


def test_a_peer_may_claim_as_much_as_a_frame_holds(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.dataReceived(FRAME_BYTES_MAX.to_bytes(4, "big") + PROMISE_LOG)
    assert not transport.disconnected
    stream, transport = harness.established("c")
    stream.dataReceived((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert harness.counters == {BAD: 1}


def test_a_peer_may_claim_no_more_than_the_kind_of_its_message_needs(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.dataReceived((FRAME_BYTES_MAX_DEFAULT + 1).to_bytes(4, "big"))
    stream.dataReceived(HEARTBEAT[:3])
    assert not transport.disconnected
    stream.dataReceived(HEARTBEAT[3:])
    assert transport.disconnected
    assert harness.counters == {BAD: 1}


def test_frames_behind_the_handshake_may_be_big(harness: PeerStreamsHarness) -> None:
    stream, _ = harness.accept()
    stream.dataReceived(framed(said_by("b")))
    many = framed(said_by("b", harness.proof()), *[said_by("b", Fetch(1))] * 100)
    for start in range(0, len(many), 700):
        stream.dataReceived(many[start : start + 700])
    assert harness.messages() == [("b", Fetch(1))] * 100


def test_a_connection_without_a_handshake_in_time_is_closed(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.accept()
    other, other_transport = harness.accept()
    harness.reactor.spend(HANDSHAKE_SECONDS - 0.1)
    assert not transport.disconnected
    other.dataReceived(framed(said_by("b")))
    other.dataReceived(framed(said_by("b", harness.proof())))
    harness.reactor.spend(100.0)
    assert transport.disconnected
    assert not other_transport.disconnected
    disconnect(stream)
    assert harness.reactor.getDelayedCalls() == []


def test_a_lost_connection_leaves_no_timer(harness: PeerStreamsHarness) -> None:
    stream, _ = harness.accept()
    disconnect(stream)
    assert harness.reactor.getDelayedCalls() == []


def test_of_many_strangers_the_oldest_goes(harness: PeerStreamsHarness) -> None:
    """Or else 64 that say nothing keep every peer out."""
    crowd = [harness.accept("10.9.9.9") for _ in range(UNAUTHENTICATED_STREAMS_MAX)]
    assert harness.counters == {}
    harness.accept("10.9.9.9")
    assert harness.counters == {STRANGERS: 1}
    assert [transport.disconnected for _, transport in crowd] == [True] + [False] * (UNAUTHENTICATED_STREAMS_MAX - 1)
    disconnect(crowd[0][0])
    crowd[1][0].dataReceived(framed(said_by("c")))
    crowd[1][0].dataReceived(framed(said_by("c", harness.proof())))  # No stranger any more.
    harness.accept("10.9.9.9")
    assert harness.counters == {STRANGERS: 1}


def test_one_address_keeps_no_other_out(harness: PeerStreamsHarness) -> None:
    member, others, lonely = harness.accept("10.0.0.3"), harness.accept("10.9.9.8"), harness.accept("10.9.9.7")
    crowd = [harness.accept("10.9.9.9") for _ in range(UNAUTHENTICATED_STREAMS_MAX - 3)]
    for _ in range(10):
        harness.accept("10.9.9.9")
    assert [transport.disconnected for _, transport in (member, others, lonely)] == [False] * 3
    assert sum(transport.disconnected for _, transport in crowd) == 10


def test_strangers_from_a_members_machine_go_last(harness: PeerStreamsHarness) -> None:
    members = [harness.accept("10.0.0.2") for _ in range(UNAUTHENTICATED_STREAMS_MAX - 1)]
    _, stranger = harness.accept("10.9.9.9")
    harness.accept("10.0.0.2")
    assert stranger.disconnected
    harness.accept("10.0.0.2")
    assert [transport.disconnected for _, transport in members[:2]] == [True, False]


# ------------------------------------------------------------ who speaks there


def test_a_caller_is_told_nothing_before_it_has_shown_where_it_is(harness: PeerStreamsHarness) -> None:
    """Not even the incarnation, which is all that it takes to speak for this node."""
    stream, transport = harness.accept()
    assert transport.take() == b""
    stream.dataReceived(framed(said_by("b", incarnation=5)))
    harness.streams.send("b", b"secret")
    assert not harness.streams.send_reply("b", b"secret")
    assert transport.take() == b""
    assert harness.met == []
    ((peer, data),) = harness.challenges
    assert peer == "b"  # The datagram goes to the address of b, wherever this caller may be.
    assert Codec("test", "b").decode(data).message == Challenge(harness.proof().token)
    stream.dataReceived(framed(said_by("b", harness.proof(), incarnation=5), said_by("b", Fetch(3), incarnation=5)))
    assert transport.messages() == [said_by("a")]
    assert harness.met == [PeerMet("b", 5)]
    assert harness.messages() == [("b", Fetch(3))]


@pytest.mark.parametrize(
    "next_message",
    [
        said_by("b", Fetch(1)),
        said_by("b", Hello()),
        said_by("c", Proof(1000)),
        said_by("b", Proof(1000), incarnation=9),
    ],
)
def test_who_goes_on_without_showing_it_is_cut_off(harness: PeerStreamsHarness, next_message: bytes) -> None:
    stream, transport = harness.accept()
    stream.dataReceived(framed(said_by("b")) + framed(next_message))
    assert transport.disconnected
    assert harness.counters == {BAD: 1}
    assert (harness.messages(), harness.met, transport.take()) == ([], [], b"")


def test_a_wrong_number_shows_nothing(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.accept()
    stream.dataReceived(framed(said_by("b")))
    for token in (0, 1, 1001, 2**64 - 1):
        stream.dataReceived(framed(said_by("b", Proof(token))))
    assert (harness.met, transport.take(), transport.disconnected) == ([], b"", False)
    stream.dataReceived(framed(said_by("b", harness.proof())))
    assert harness.met == [PeerMet("b", 0)]


def test_a_number_that_is_lost_is_sent_again(harness: PeerStreamsHarness) -> None:
    stream, _ = harness.accept()
    stream.dataReceived(framed(said_by("b")))
    harness.reactor.spend(2.5 * CHALLENGE_SECONDS)
    assert [peer for peer, _ in harness.challenges] == ["b"] * 3
    assert len({data for _, data in harness.challenges}) == 1
    stream.dataReceived(framed(said_by("b", harness.proof())))
    harness.reactor.spend(10.0)
    assert len(harness.challenges) == 3
    assert harness.reactor.getDelayedCalls() == []


def test_a_stream_is_displaced_only_by_one_that_has_shown_where_it_is(harness: PeerStreamsHarness) -> None:
    _, real = harness.established("b")
    harness.known_peers.recover("b", 0)
    for incarnation in (0, 1):
        stream, transport = harness.accept()
        stream.dataReceived(framed(said_by("b", incarnation=incarnation)))
        harness.streams.send("b", b"a command")
        assert real.messages() == [b"a command"]
        assert transport.take() == b""
        assert not real.disconnected
        assert transport.disconnected is (incarnation == 1)
    assert harness.counters == {BAD: 1, Count.PEER_WITH_ANOTHER_FOLDER: 1}


def test_a_peer_that_is_dialled_must_be_the_one_that_was_met(
    harness: PeerStreamsHarness, logged_errors: list[dict[str, Any]]
) -> None:
    harness.known_peers.recover("b", 5)
    harness.streams.send_request("b", b"a question")
    stream, transport = harness.answer_dial()
    stream.dataReceived(framed(said_by("b", incarnation=6)))
    assert transport.disconnected
    assert transport.messages() == [said_by("a")]
    logged_errors.clear()


def test_a_peer_that_was_dialled_is_met(harness: PeerStreamsHarness) -> None:
    harness.streams.send_request("b", b"a question")
    stream, _ = harness.answer_dial()
    stream.dataReceived(framed(said_by("b", incarnation=6)))
    assert harness.met == [PeerMet("b", 6)]


def test_a_number_is_said_back_on_the_stream_that_was_opened(harness: PeerStreamsHarness) -> None:
    harness.streams.send_proof("b", 77)  # There is none.
    harness.streams.open_stream("b")
    harness.streams.send_proof("b", 77)  # It does not stand yet.
    stream, transport = harness.answer_dial()
    harness.streams.send_proof("b", 78)
    assert transport.messages() == [said_by("a"), said_by("a", Proof(78))]
    stream.dataReceived(framed(said_by("b")))
    harness.streams.send_proof("b", 79)  # Its handshake is complete.
    assert transport.messages() == []


# ------------------------------------------------------- questions and answers


def test_a_question_takes_the_stream_that_its_asker_opened(harness: PeerStreamsHarness) -> None:
    _, theirs = harness.established("b")
    harness.streams.send_request("b", b"question")
    stream, own = harness.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert harness.streams.send_reply("b", b"answer")
    assert own.messages() == [said_by("a"), b"question"]
    assert theirs.messages() == [b"answer"]


def test_an_answer_has_no_other_way(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"x")
    stream, own = harness.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert not harness.streams.send_reply("b", b"answer")
    assert own.messages() == [said_by("a"), b"x"]


def test_who_does_not_read_answers_gets_few(harness: PeerStreamsHarness) -> None:
    """A peer, or a forger in its name, that asks and asks."""
    stream, _ = harness.established("b")
    stream.pauseProducing()
    answer = bytes(ANSWER_BYTES_WAITING_MAX // 4)
    for _ in range(20):
        harness.streams.send_reply("b", answer)
    assert harness.counters == {Count.STREAM_FULL: 16}


# ------------------------------------------------------------------ being kept


def test_a_stream_to_each_peer_is_kept(harness: PeerStreamsHarness) -> None:
    harness.streams.listen(THREE.members["a"].address)
    assert [client[0] for client in harness.reactor.tcpClients] == ["10.0.0.2", "10.0.0.3"]
    fail_dial(harness, ConnectionRefusedError())
    waits = []
    for _ in range(6):
        before, dials = harness.reactor.seconds(), len(harness.reactor.tcpClients)
        harness.reactor.spend(100.0, lambda dials=dials: len(harness.reactor.tcpClients) > dials)  # type: ignore[misc]
        waits.append(round(harness.reactor.seconds() - before, 2))
        fail_dial(harness, ConnectionRefusedError())
    assert waits == [0.25, 0.5, 1.0, 2.0, RECONNECT_SECONDS_MAX, RECONNECT_SECONDS_MAX]
    harness.streams.stop()
    assert harness.reactor.getDelayedCalls() == []


def test_a_peer_that_comes_is_dialled_at_once(harness: PeerStreamsHarness) -> None:
    harness.streams.listen(THREE.members["a"].address)
    fail_dial(harness, ConnectionRefusedError())
    dials = len(harness.reactor.tcpClients)
    harness.established("c")
    assert [client[0] for client in harness.reactor.tcpClients[dials:]] == ["10.0.0.3"]
    harness.reactor.spend(100.0)
    assert len(harness.reactor.tcpClients) == dials + 1


@pytest.mark.fuzz
def test_random_frames(harness: PeerStreamsHarness) -> None:
    """Nothing gets through, nothing is raised, nothing is kept."""
    rng = Random(6)
    good = framed(said_by("b"), said_by("b", Proof(1000)), said_by("b", Fetch(1)))
    delivered = 0
    with nothing_kept():
        for _ in range(INPUTS):
            stream, transport = harness.accept()
            data = bytearray(rng.choice((good, framed(rng.randbytes(rng.randint(0, 60))), rng.randbytes(40))))
            for _ in range(rng.randint(0, 3)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            cut = rng.randrange(len(data) + 1)
            stream.dataReceived(bytes(data[:cut]))
            if not transport.disconnected:
                stream.dataReceived(bytes(data[cut:]))
            if data == good:
                delivered += 1
                assert harness.messages() == [("b", Fetch(1))]
                harness.received.clear()
            disconnect(stream)
            harness.challenges.clear()
            harness.met.clear()
    assert harness.messages() == []
    assert delivered > 0.01 * INPUTS
    assert harness.counters[BAD] > 0.5 * INPUTS
    assert harness.reactor.getDelayedCalls() == []
    assert set(harness.counters) == {BAD}


# ---------------------------------------------------------------- slow readers


def test_what_a_slow_peer_does_not_read_waits(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    assert transport.producer is stream
    stream.pauseProducing()
    harness.streams.send("b", b"one")
    harness.streams.send("b", b"two")
    assert transport.messages() == []
    stream.resumeProducing()
    assert transport.messages() == [b"one", b"two"]


def test_what_waits_goes_on_waiting_when_the_peer_is_slow_again(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.pauseProducing()
    for message in (b"one", b"two", b"three"):
        harness.streams.send("b", message)
    write = transport.write

    def write_and_be_full(data: bytes) -> None:
        write(data)
        stream.pauseProducing()

    transport.write = write_and_be_full  # type: ignore[method-assign]
    stream.resumeProducing()
    assert transport.messages() == [b"one"]
    stream.resumeProducing()
    assert transport.messages() == [b"two"]


def test_what_waits_has_a_limit(harness: PeerStreamsHarness) -> None:
    stream, transport = harness.established("b")
    stream.pauseProducing()
    big = bytes(WAITING_BYTES_MAX // 4)
    for _ in range(6):
        harness.streams.send("b", big)
    assert harness.counters == {Count.STREAM_FULL: 2}
    harness.streams.send("b", b"")
    stream.resumeProducing()
    assert len(transport.take()) == 4 * (len(big) + 4) + 4
    harness.streams.send("b", b"there is room again")
    assert transport.messages() == [b"there is room again"]


def test_what_waits_for_a_connection_has_a_limit(harness: PeerStreamsHarness) -> None:
    big = bytes(WAITING_BYTES_MAX // 2)
    for _ in range(3):
        harness.streams.send("b", big)
    assert harness.counters == {Count.STREAM_FULL: 1}


def test_what_no_stream_carries_is_dropped_and_counted(harness: PeerStreamsHarness) -> None:
    _, transport = harness.established("b")
    harness.streams.send("b", bytes(FRAME_BYTES_MAX + 1))
    harness.streams.send("c", bytes(FRAME_BYTES_MAX + 1))
    assert not harness.streams.send_reply("c", b"")
    harness.streams.send_reply("b", bytes(FRAME_BYTES_MAX + 1))
    assert transport.messages() == []
    assert harness.counters == {Count.TOO_BIG_FOR_A_STREAM: 3}
    assert harness.reactor.tcpClients == []


# --------------------------------------------------------------------- the end


def test_stop_closes_everything(harness: PeerStreamsHarness) -> None:
    harness.streams.listen(THREE.members["a"].address)
    _, came = harness.established("b")
    harness.streams.send("c", b"x")
    _, dialled = harness.answer_dial()
    harness.streams.stop()
    assert came.disconnecting
    assert dialled.disconnecting or dialled.disconnected
    assert harness.streams.buildProtocol(None) is None


def test_stop_while_a_peer_is_dialled(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"x")
    dial = harness.dial()
    harness.streams.stop()
    assert harness.reactor.connectors[-1].stoppedConnecting
    assert dial.buildProtocol(None) is None  # should it be too late for that


def test_stop_after_a_refusal(harness: PeerStreamsHarness) -> None:
    harness.streams.send("b", b"x")
    harness.dial().clientConnectionFailed(harness.reactor.connectors[-1], Failure(ConnectionRefusedError()))
    harness.streams.stop()
    assert not harness.reactor.connectors[-1].stoppedConnecting


def test_nothing_is_sent_after_stop(harness: PeerStreamsHarness) -> None:
    harness.streams.stop()
    harness.streams.stop()
    harness.streams.send("b", b"x")
    assert harness.reactor.tcpClients == []
