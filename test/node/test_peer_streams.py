"""Streams between nodes: one in each direction, nothing told to strangers, and no memory for them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure

from test.helpers.fakes import THREE, framed
from test.helpers.fuzz import INPUTS, nothing_kept
from test.helpers.stream_side import Side, disconnect, fail_dial, said_by
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
def side() -> Side:
    return Side()


# ------------------------------------------------------------------- dialling


def test_listens_where_it_is_told(side: Side) -> None:
    side.streams.listen(THREE.members["a"].address)
    ((port, factory, _, host),) = side.reactor.tcpServers
    assert (port, host) == (4000, "10.0.0.1")
    assert factory is side.streams


def test_nobody_is_dialled_before_there_is_something_to_send(side: Side) -> None:
    side.reactor.spend(100.0)
    assert side.reactor.tcpClients == []


def test_a_peer_is_dialled_once_and_greeted_first(side: Side) -> None:
    side.streams.send("b", b"one")
    side.streams.send("b", b"two")
    ((host, port, _, timeout, _),) = side.reactor.tcpClients
    assert (host, port, timeout) == ("10.0.0.2", 4000, CONNECT_SECONDS)
    stream, transport = side.answer_dial()
    side.streams.send("b", b"three")
    assert transport.messages() == [said_by("a")]
    stream.dataReceived(framed(said_by("b")))
    side.streams.send("b", b"four")
    assert transport.messages() == [b"one", b"two", b"three", b"four"]
    assert len(side.reactor.tcpClients) == 1
    assert transport.no_delay
    assert transport.keep_alive


def test_each_peer_has_a_stream_of_its_own(side: Side) -> None:
    side.streams.send("b", b"for b")
    side.streams.send("c", b"for c")
    assert [client[0] for client in side.reactor.tcpClients] == ["10.0.0.2", "10.0.0.3"]
    stream, transport = side.answer_dial()
    stream.dataReceived(framed(said_by("c")))
    assert transport.messages() == [said_by("a"), b"for c"]


def test_both_directions_over_one_connection(side: Side) -> None:
    """A peer that dialled is answered on the stream that stands."""
    stream, transport = side.established("b")
    stream.dataReceived(framed(said_by("b", Fetch(7))))
    assert side.messages() == [("b", Fetch(7))]
    assert side.received[0].way is Way.THEIR_STREAM
    side.streams.send("b", b"back")
    assert transport.messages() == [b"back"]
    assert side.reactor.tcpClients == []


def test_a_dialled_peer_answers_on_the_same_stream(side: Side) -> None:
    side.streams.send("b", b"there")
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7)), said_by("b", Fetch(8))))
    assert side.messages() == [("b", Fetch(7)), ("b", Fetch(8))]
    assert {received.way for received in side.received} == {Way.OWN_STREAM}


def test_a_refused_connection_is_counted_and_forgotten(side: Side) -> None:
    side.streams.send("b", b"lost")
    fail_dial(side, ConnectionRefusedError())
    assert side.counters[Count.STREAM_REFUSED] == 1
    assert side.refused == []
    side.streams.send("b", b"next")
    assert len(side.reactor.tcpClients) == 2
    stream, transport = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert transport.messages() == [said_by("a"), b"next"]


def test_what_waits_for_a_slow_peer_is_sent_before_the_stream_ends(side: Side) -> None:
    stream, transport = side.established("b")
    stream.pauseProducing()
    side.streams.send("b", b"last words")
    assert transport.messages() == []
    side.streams.stop()
    assert transport.messages() == [b"last words"]
    assert transport.disconnecting
    assert transport.producer is None


def test_a_lost_connection_is_made_again_when_needed(side: Side) -> None:
    side.streams.send("b", b"one")
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    disconnect(stream)
    assert len(side.reactor.tcpClients) == 1
    side.streams.send("b", b"two")
    assert len(side.reactor.tcpClients) == 2
    stream, transport = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert transport.messages() == [said_by("a"), b"two"]


def test_two_that_dial_each_other_at_once(side: Side) -> None:
    """Both connections stand, and nothing is lost on either."""
    side.streams.send("b", b"one")
    dialled, there = side.answer_dial()
    came, back = side.established("b")
    dialled.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    came.dataReceived(framed(said_by("b", Fetch(2))))
    side.streams.send("b", b"two")
    assert [there.disconnected, back.disconnected] == [False, False]
    assert there.messages() + back.messages() == [said_by("a"), b"one", b"two"]
    assert side.messages() == [("b", Fetch(1)), ("b", Fetch(2))]


def test_a_peer_that_connects_again_has_lost_its_first_stream(side: Side) -> None:
    """Its machine lost power, say. The old stream takes what we write for minutes, and nobody reads it."""
    old, old_transport = side.established("b")
    _, new_transport = side.established("b")
    side.streams.send("b", b"hello")
    assert old_transport.disconnected
    assert new_transport.messages() == [b"hello"]
    disconnect(old)
    side.streams.send("b", b"again")
    assert new_transport.messages() == [b"again"]
    assert not new_transport.disconnected
    assert side.reactor.tcpClients == []


# ------------------------------------------------------------------ strangers


@pytest.mark.parametrize(
    "first",
    [
        said_by("b", Fetch(1)),  # no greeting
        said_by("b", cluster="other"),
        said_by("stranger"),
        said_by("a"),  # ourselves
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        said_by("b")[:-1],
    ],
)
def test_a_bad_greeting_ends_the_connection(side: Side, first: bytes) -> None:
    stream, transport = side.accept()
    stream.dataReceived(framed(first, said_by("b", Fetch(1))))
    assert transport.disconnected
    assert side.counters == {BAD: 1}
    assert side.received == []
    disconnect(stream)
    side.streams.send("b", b"x")
    assert len(side.reactor.tcpClients) == 1  # it is not taken for b's


def test_somebody_else_where_a_peer_was_dialled(side: Side) -> None:
    side.streams.send("b", b"x")
    stream, transport = side.answer_dial()
    stream.dataReceived(framed(said_by("c")))
    assert transport.disconnected
    assert side.counters == {BAD: 1}


@pytest.mark.parametrize("sender", ["c", "a", "stranger"])
def test_a_peer_speaks_only_for_itself(side: Side, sender: str) -> None:
    """Who greets as one node and then speaks as others would make up a quorum alone."""
    stream, transport = side.established("b")
    stream.dataReceived(framed(said_by(sender, Fetch(1))))
    assert transport.disconnected
    assert side.received == []
    assert side.counters == {BAD: 1}


def test_a_second_greeting_is_no_harm(side: Side) -> None:
    stream, transport = side.established("b")
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    assert not transport.disconnected
    assert side.messages()[-1] == ("b", Fetch(1))


def test_a_stranger_may_claim_only_little(side: Side) -> None:
    stream, transport = side.accept()
    stream.dataReceived((HANDSHAKE_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert side.counters == {BAD: 1}


def test_a_peer_may_claim_as_much_as_a_frame_holds(side: Side) -> None:
    stream, transport = side.established("b")
    stream.dataReceived(FRAME_BYTES_MAX.to_bytes(4, "big") + PROMISE_LOG)
    assert not transport.disconnected
    stream, transport = side.established("c")
    stream.dataReceived((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert side.counters == {BAD: 1}


def test_a_peer_may_claim_no_more_than_the_kind_of_its_message_needs(side: Side) -> None:
    stream, transport = side.established("b")
    stream.dataReceived((FRAME_BYTES_MAX_DEFAULT + 1).to_bytes(4, "big"))
    stream.dataReceived(HEARTBEAT[:3])
    assert not transport.disconnected
    stream.dataReceived(HEARTBEAT[3:])
    assert transport.disconnected
    assert side.counters == {BAD: 1}


def test_frames_behind_the_greeting_may_be_big(side: Side) -> None:
    stream, _ = side.accept()
    stream.dataReceived(framed(said_by("b")))
    many = framed(said_by("b", side.proof()), *[said_by("b", Fetch(1))] * 100)
    for start in range(0, len(many), 700):
        stream.dataReceived(many[start : start + 700])
    assert side.messages() == [("b", Fetch(1))] * 100


def test_who_does_not_greet_in_time_is_cut_off(side: Side) -> None:
    stream, transport = side.accept()
    greets, greeting = side.accept()
    side.reactor.spend(HANDSHAKE_SECONDS - 0.1)
    assert not transport.disconnected
    greets.dataReceived(framed(said_by("b")))
    greets.dataReceived(framed(said_by("b", side.proof())))
    side.reactor.spend(100.0)
    assert transport.disconnected
    assert not greeting.disconnected
    disconnect(stream)
    assert side.reactor.getDelayedCalls() == []


def test_a_lost_connection_leaves_no_timer(side: Side) -> None:
    stream, _ = side.accept()
    disconnect(stream)
    assert side.reactor.getDelayedCalls() == []


def test_of_many_strangers_the_oldest_goes(side: Side) -> None:
    """Or else 64 that say nothing keep every peer out."""
    crowd = [side.accept("10.9.9.9") for _ in range(UNAUTHENTICATED_STREAMS_MAX)]
    assert side.counters == {}
    side.accept("10.9.9.9")
    assert side.counters == {STRANGERS: 1}
    assert [transport.disconnected for _, transport in crowd] == [True] + [False] * (UNAUTHENTICATED_STREAMS_MAX - 1)
    disconnect(crowd[0][0])
    crowd[1][0].dataReceived(framed(said_by("c")))
    crowd[1][0].dataReceived(framed(said_by("c", side.proof())))  # No stranger any more.
    side.accept("10.9.9.9")
    assert side.counters == {STRANGERS: 1}


def test_one_address_keeps_no_other_out(side: Side) -> None:
    member, others, lonely = side.accept("10.0.0.3"), side.accept("10.9.9.8"), side.accept("10.9.9.7")
    crowd = [side.accept("10.9.9.9") for _ in range(UNAUTHENTICATED_STREAMS_MAX - 3)]
    for _ in range(10):
        side.accept("10.9.9.9")
    assert [transport.disconnected for _, transport in (member, others, lonely)] == [False] * 3
    assert sum(transport.disconnected for _, transport in crowd) == 10


def test_strangers_from_a_members_machine_go_last(side: Side) -> None:
    members = [side.accept("10.0.0.2") for _ in range(UNAUTHENTICATED_STREAMS_MAX - 1)]
    _, stranger = side.accept("10.9.9.9")
    side.accept("10.0.0.2")
    assert stranger.disconnected
    side.accept("10.0.0.2")
    assert [transport.disconnected for _, transport in members[:2]] == [True, False]


# ------------------------------------------------------------ who speaks there


def test_a_caller_is_told_nothing_before_it_has_shown_where_it_is(side: Side) -> None:
    """Not even the incarnation, which is all that it takes to speak for this node."""
    stream, transport = side.accept()
    assert transport.take() == b""
    stream.dataReceived(framed(said_by("b", incarnation=5)))
    side.streams.send("b", b"secret")
    assert not side.streams.send_reply("b", b"secret")
    assert transport.take() == b""
    assert side.met == []
    ((peer, data),) = side.challenges
    assert peer == "b"  # The datagram goes to the address of b, wherever this caller may be.
    assert Codec("test", "b").decode(data).message == Challenge(side.proof().token)
    stream.dataReceived(framed(said_by("b", side.proof(), incarnation=5), said_by("b", Fetch(3), incarnation=5)))
    assert transport.messages() == [said_by("a")]
    assert side.met == [PeerMet("b", 5)]
    assert side.messages() == [("b", Fetch(3))]


@pytest.mark.parametrize(
    "next_message",
    [
        said_by("b", Fetch(1)),
        said_by("b", Hello()),
        said_by("c", Proof(1000)),
        said_by("b", Proof(1000), incarnation=9),
    ],
)
def test_who_goes_on_without_showing_it_is_cut_off(side: Side, next_message: bytes) -> None:
    stream, transport = side.accept()
    stream.dataReceived(framed(said_by("b")) + framed(next_message))
    assert transport.disconnected
    assert side.counters == {BAD: 1}
    assert (side.messages(), side.met, transport.take()) == ([], [], b"")


def test_a_wrong_number_shows_nothing(side: Side) -> None:
    stream, transport = side.accept()
    stream.dataReceived(framed(said_by("b")))
    for token in (0, 1, 1001, 2**64 - 1):
        stream.dataReceived(framed(said_by("b", Proof(token))))
    assert (side.met, transport.take(), transport.disconnected) == ([], b"", False)
    stream.dataReceived(framed(said_by("b", side.proof())))
    assert side.met == [PeerMet("b", 0)]


def test_a_number_that_is_lost_is_sent_again(side: Side) -> None:
    stream, _ = side.accept()
    stream.dataReceived(framed(said_by("b")))
    side.reactor.spend(2.5 * CHALLENGE_SECONDS)
    assert [peer for peer, _ in side.challenges] == ["b"] * 3
    assert len({data for _, data in side.challenges}) == 1
    stream.dataReceived(framed(said_by("b", side.proof())))
    side.reactor.spend(10.0)
    assert len(side.challenges) == 3
    assert side.reactor.getDelayedCalls() == []


def test_a_stream_is_displaced_only_by_one_that_has_shown_where_it_is(side: Side) -> None:
    _, real = side.established("b")
    side.known_peers.recover("b", 0)
    for incarnation in (0, 1):
        stream, transport = side.accept()
        stream.dataReceived(framed(said_by("b", incarnation=incarnation)))
        side.streams.send("b", b"a command")
        assert real.messages() == [b"a command"]
        assert transport.take() == b""
        assert not real.disconnected
        assert transport.disconnected is (incarnation == 1)
    assert side.counters == {BAD: 1, Count.PEER_WITH_ANOTHER_FOLDER: 1}


def test_a_peer_that_is_dialled_must_be_the_one_that_was_met(side: Side, logged_errors: list[dict[str, Any]]) -> None:
    side.known_peers.recover("b", 5)
    side.streams.send_request("b", b"a question")
    stream, transport = side.answer_dial()
    stream.dataReceived(framed(said_by("b", incarnation=6)))
    assert transport.disconnected
    assert transport.messages() == [said_by("a")]
    logged_errors.clear()


def test_a_peer_that_was_dialled_is_met(side: Side) -> None:
    side.streams.send_request("b", b"a question")
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b", incarnation=6)))
    assert side.met == [PeerMet("b", 6)]


def test_a_number_is_said_back_on_the_stream_that_was_opened(side: Side) -> None:
    side.streams.send_proof("b", 77)  # There is none.
    side.streams.open_stream("b")
    side.streams.send_proof("b", 77)  # It does not stand yet.
    stream, transport = side.answer_dial()
    side.streams.send_proof("b", 78)
    assert transport.messages() == [said_by("a"), said_by("a", Proof(78))]
    stream.dataReceived(framed(said_by("b")))
    side.streams.send_proof("b", 79)  # It is greeted already.
    assert transport.messages() == []


# ------------------------------------------------------- questions and answers


def test_a_question_takes_the_stream_that_its_asker_opened(side: Side) -> None:
    _, theirs = side.established("b")
    side.streams.send_request("b", b"question")
    stream, own = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert side.streams.send_reply("b", b"answer")
    assert own.messages() == [said_by("a"), b"question"]
    assert theirs.messages() == [b"answer"]


def test_an_answer_has_no_other_way(side: Side) -> None:
    side.streams.send("b", b"x")
    stream, own = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    assert not side.streams.send_reply("b", b"answer")
    assert own.messages() == [said_by("a"), b"x"]


def test_who_does_not_read_answers_gets_few(side: Side) -> None:
    """A peer, or somebody in its name, that asks and asks."""
    stream, _ = side.established("b")
    stream.pauseProducing()
    answer = bytes(ANSWER_BYTES_WAITING_MAX // 4)
    for _ in range(20):
        side.streams.send_reply("b", answer)
    assert side.counters == {Count.STREAM_FULL: 16}


# ------------------------------------------------------------------ being kept


def test_a_stream_to_each_peer_is_kept(side: Side) -> None:
    side.streams.listen(THREE.members["a"].address)
    assert [client[0] for client in side.reactor.tcpClients] == ["10.0.0.2", "10.0.0.3"]
    fail_dial(side, ConnectionRefusedError())
    waits = []
    for _ in range(6):
        before, dials = side.reactor.seconds(), len(side.reactor.tcpClients)
        side.reactor.spend(100.0, lambda dials=dials: len(side.reactor.tcpClients) > dials)  # type: ignore[misc]
        waits.append(round(side.reactor.seconds() - before, 2))
        fail_dial(side, ConnectionRefusedError())
    assert waits == [0.25, 0.5, 1.0, 2.0, RECONNECT_SECONDS_MAX, RECONNECT_SECONDS_MAX]
    side.streams.stop()
    assert side.reactor.getDelayedCalls() == []


def test_a_peer_that_comes_is_dialled_at_once(side: Side) -> None:
    side.streams.listen(THREE.members["a"].address)
    fail_dial(side, ConnectionRefusedError())
    dials = len(side.reactor.tcpClients)
    side.established("c")
    assert [client[0] for client in side.reactor.tcpClients[dials:]] == ["10.0.0.3"]
    side.reactor.spend(100.0)
    assert len(side.reactor.tcpClients) == dials + 1


@pytest.mark.fuzz
def test_random_frames(side: Side) -> None:
    """Nothing gets through, nothing is raised, nothing is kept."""
    rng = Random(6)
    good = framed(said_by("b"), said_by("b", Proof(1000)), said_by("b", Fetch(1)))
    delivered = 0
    with nothing_kept():
        for _ in range(INPUTS):
            stream, transport = side.accept()
            data = bytearray(rng.choice((good, framed(rng.randbytes(rng.randint(0, 60))), rng.randbytes(40))))
            for _ in range(rng.randint(0, 3)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            cut = rng.randrange(len(data) + 1)
            stream.dataReceived(bytes(data[:cut]))
            if not transport.disconnected:
                stream.dataReceived(bytes(data[cut:]))
            if data == good:
                delivered += 1
                assert side.messages() == [("b", Fetch(1))]
                side.received.clear()
            disconnect(stream)
            side.challenges.clear()
            side.met.clear()
    assert side.messages() == []
    assert delivered > 0.01 * INPUTS
    assert side.counters[BAD] > 0.5 * INPUTS
    assert side.reactor.getDelayedCalls() == []
    assert set(side.counters) == {BAD}


# ---------------------------------------------------------------- slow readers


def test_what_a_slow_peer_does_not_read_waits(side: Side) -> None:
    stream, transport = side.established("b")
    assert transport.producer is stream
    stream.pauseProducing()
    side.streams.send("b", b"one")
    side.streams.send("b", b"two")
    assert transport.messages() == []
    stream.resumeProducing()
    assert transport.messages() == [b"one", b"two"]


def test_what_waits_goes_on_waiting_when_the_peer_is_slow_again(side: Side) -> None:
    stream, transport = side.established("b")
    stream.pauseProducing()
    for message in (b"one", b"two", b"three"):
        side.streams.send("b", message)
    write = transport.write

    def write_and_be_full(data: bytes) -> None:
        write(data)
        stream.pauseProducing()

    transport.write = write_and_be_full  # type: ignore[method-assign]
    stream.resumeProducing()
    assert transport.messages() == [b"one"]
    stream.resumeProducing()
    assert transport.messages() == [b"two"]


def test_what_waits_has_a_limit(side: Side) -> None:
    stream, transport = side.established("b")
    stream.pauseProducing()
    big = bytes(WAITING_BYTES_MAX // 4)
    for _ in range(6):
        side.streams.send("b", big)
    assert side.counters == {Count.STREAM_FULL: 2}
    side.streams.send("b", b"")
    stream.resumeProducing()
    assert len(transport.take()) == 4 * (len(big) + 4) + 4
    side.streams.send("b", b"there is room again")
    assert transport.messages() == [b"there is room again"]


def test_what_waits_for_a_connection_has_a_limit(side: Side) -> None:
    big = bytes(WAITING_BYTES_MAX // 2)
    for _ in range(3):
        side.streams.send("b", big)
    assert side.counters == {Count.STREAM_FULL: 1}


def test_what_no_stream_carries_is_dropped_and_counted(side: Side) -> None:
    _, transport = side.established("b")
    side.streams.send("b", bytes(FRAME_BYTES_MAX + 1))
    side.streams.send("c", bytes(FRAME_BYTES_MAX + 1))
    assert not side.streams.send_reply("c", b"")
    side.streams.send_reply("b", bytes(FRAME_BYTES_MAX + 1))
    assert transport.messages() == []
    assert side.counters == {Count.TOO_BIG_FOR_A_STREAM: 3}
    assert side.reactor.tcpClients == []


# --------------------------------------------------------------------- the end


def test_stop_closes_everything(side: Side) -> None:
    side.streams.listen(THREE.members["a"].address)
    _, came = side.established("b")
    side.streams.send("c", b"x")
    _, dialled = side.answer_dial()
    side.streams.stop()
    assert came.disconnecting
    assert dialled.disconnecting or dialled.disconnected
    assert side.streams.buildProtocol(None) is None


def test_stop_while_a_peer_is_dialled(side: Side) -> None:
    side.streams.send("b", b"x")
    dial = side.dial()
    side.streams.stop()
    assert side.reactor.connectors[-1].stoppedConnecting
    assert dial.buildProtocol(None) is None  # should it be too late for that


def test_stop_after_a_refusal(side: Side) -> None:
    side.streams.send("b", b"x")
    side.dial().clientConnectionFailed(side.reactor.connectors[-1], Failure(ConnectionRefusedError()))
    side.streams.stop()
    assert not side.reactor.connectors[-1].stoppedConnecting


def test_nothing_is_sent_after_stop(side: Side) -> None:
    side.streams.stop()
    side.streams.stop()
    side.streams.send("b", b"x")
    assert side.reactor.tcpClients == []
