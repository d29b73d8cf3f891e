"""Streams between nodes: one a pair, opened when needed, and no memory for those who have not said who they are."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure

from test.fakes import THREE, framed
from test.fuzz import INPUTS, nothing_kept
from test.stream_side import Side, fail_dial, hang_up, said_by
from txpaxos.core.messages import Fetch
from txpaxos.streams import (
    CONNECT_SECONDS,
    GREETING_SECONDS,
    STRANGERS_MAX,
    WAITING_BYTES_MAX,
)
from txpaxos.wire.frames import FRAME_BYTES_MAX, GREETING_BYTES_MAX

BAD, STRANGERS = "bad frame on a stream", "too many strangers on streams"


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
    _, transport = side.answer_dial()
    side.streams.send("b", b"three")
    assert transport.messages() == [said_by("a"), b"one", b"two", b"three"]
    assert len(side.reactor.tcpClients) == 1
    assert transport.no_delay
    assert transport.keep_alive


def test_each_peer_has_a_stream_of_its_own(side: Side) -> None:
    side.streams.send("b", b"for b")
    side.streams.send("c", b"for c")
    assert [client[0] for client in side.reactor.tcpClients] == ["10.0.0.2", "10.0.0.3"]
    _, transport = side.answer_dial()
    assert transport.messages() == [said_by("a"), b"for c"]


def test_both_directions_over_one_connection(side: Side) -> None:
    """A peer that dialled is answered on the stream that stands."""
    stream, transport = side.accept()
    assert transport.messages() == [said_by("a")]
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7))))
    assert side.messages() == [("b", Fetch(7))]
    side.streams.send("b", b"back")
    assert transport.messages() == [b"back"]
    assert side.reactor.tcpClients == []


def test_a_dialled_peer_answers_on_the_same_stream(side: Side) -> None:
    side.streams.send("b", b"there")
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7)), said_by("b", Fetch(8))))
    assert side.messages() == [("b", Fetch(7)), ("b", Fetch(8))]


def test_a_refused_connection_is_counted_and_forgotten(side: Side) -> None:
    side.streams.send("b", b"lost")
    fail_dial(side, ConnectionRefusedError())
    assert side.counters["stream refused"] == 1
    assert side.refused == []
    side.streams.send("b", b"next")
    assert len(side.reactor.tcpClients) == 2
    _, transport = side.answer_dial()
    assert transport.messages() == [said_by("a"), b"next"]


def test_a_lost_connection_is_made_again_when_needed(side: Side) -> None:
    side.streams.send("b", b"one")
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b")))
    hang_up(stream)
    assert len(side.reactor.tcpClients) == 1
    side.streams.send("b", b"two")
    assert len(side.reactor.tcpClients) == 2
    _, transport = side.answer_dial()
    assert transport.messages() == [said_by("a"), b"two"]


def test_two_that_dial_each_other_at_once(side: Side) -> None:
    """Both connections stand, and nothing is lost on either."""
    side.streams.send("b", b"one")
    dialled, there = side.answer_dial()
    came, back = side.greeted("b")
    dialled.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    came.dataReceived(framed(said_by("b", Fetch(2))))
    side.streams.send("b", b"two")
    assert [there.disconnected, back.disconnected] == [False, False]
    assert there.messages() + back.messages() == [said_by("a"), b"one", b"two"]
    assert side.messages() == [("b", Fetch(1)), ("b", Fetch(2))]


def test_a_peer_that_connects_again_has_lost_its_first_stream(side: Side) -> None:
    """Its machine lost power, say. The old stream takes what we write for minutes, and nobody reads it."""
    old, old_transport = side.greeted("b")
    _, new_transport = side.greeted("b")
    side.streams.send("b", b"hello")
    assert old_transport.disconnected
    assert new_transport.messages() == [b"hello"]
    hang_up(old)
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
    hang_up(stream)
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
    stream, transport = side.greeted("b")
    stream.dataReceived(framed(said_by(sender, Fetch(1))))
    assert transport.disconnected
    assert side.received == []
    assert side.counters == {BAD: 1}


def test_a_second_greeting_is_no_harm(side: Side) -> None:
    stream, transport = side.greeted("b")
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(1))))
    assert not transport.disconnected
    assert side.messages()[-1] == ("b", Fetch(1))


def test_a_stranger_may_claim_only_little(side: Side) -> None:
    stream, transport = side.accept()
    stream.dataReceived((GREETING_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert side.counters == {BAD: 1}


def test_a_peer_may_claim_as_much_as_a_frame_holds(side: Side) -> None:
    stream, transport = side.greeted("b")
    stream.dataReceived(FRAME_BYTES_MAX.to_bytes(4, "big") + bytes(100))
    assert not transport.disconnected
    stream, transport = side.greeted("c")
    stream.dataReceived((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    assert transport.disconnected
    assert side.counters == {BAD: 1}


def test_frames_behind_the_greeting_may_be_big(side: Side) -> None:
    big = said_by("b", Fetch(1)) + bytes(0)
    stream, _ = side.accept()
    many = framed(said_by("b"), *[big] * 100)
    for start in range(0, len(many), 700):
        stream.dataReceived(many[start : start + 700])
    assert side.messages() == [("b", Fetch(1))] * 100


def test_who_does_not_greet_in_time_is_cut_off(side: Side) -> None:
    stream, transport = side.accept()
    greets, greeting = side.accept()
    side.reactor.spend(GREETING_SECONDS - 0.1)
    assert not transport.disconnected
    greets.dataReceived(framed(said_by("b")))
    side.reactor.spend(100.0)
    assert transport.disconnected
    assert not greeting.disconnected
    hang_up(stream)
    assert side.reactor.getDelayedCalls() == []


def test_a_lost_connection_leaves_no_timer(side: Side) -> None:
    stream, _ = side.accept()
    hang_up(stream)
    assert side.reactor.getDelayedCalls() == []


def test_strangers_are_few(side: Side) -> None:
    crowd = [side.accept()[0] for _ in range(STRANGERS_MAX)]
    assert side.streams.buildProtocol(None) is None
    assert side.counters == {STRANGERS: 1}
    hang_up(crowd.pop())
    assert side.streams.buildProtocol(None) is not None
    side.accept()
    assert side.streams.buildProtocol(None) is None
    crowd[0].dataReceived(framed(said_by("c")))  # no stranger any more
    assert side.streams.buildProtocol(None) is not None


@pytest.mark.fuzz
def test_random_frames(side: Side) -> None:
    """Nothing gets through, nothing is raised, nothing is kept."""
    rng = Random(6)
    good = framed(said_by("b"), said_by("b", Fetch(1)))
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
            hang_up(stream)
    assert side.messages() == []
    assert delivered > 0.01 * INPUTS
    assert side.counters[BAD] > 0.5 * INPUTS
    assert side.reactor.getDelayedCalls() == []
    assert set(side.counters) == {BAD}


# ---------------------------------------------------------------- slow readers


def test_what_a_slow_peer_does_not_read_waits(side: Side) -> None:
    stream, transport = side.greeted("b")
    assert transport.producer is stream
    stream.pauseProducing()
    side.streams.send("b", b"one")
    side.streams.send("b", b"two")
    assert transport.messages() == []
    stream.resumeProducing()
    assert transport.messages() == [b"one", b"two"]


def test_what_waits_goes_on_waiting_when_the_peer_is_slow_again(side: Side) -> None:
    stream, transport = side.greeted("b")
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
    stream, transport = side.greeted("b")
    stream.pauseProducing()
    big = bytes(WAITING_BYTES_MAX // 4)
    for _ in range(6):
        side.streams.send("b", big)
    assert side.counters == {"stream to a slow peer is full": 2}
    side.streams.send("b", b"")
    stream.resumeProducing()
    assert len(transport.take()) == 4 * (len(big) + 4) + 4
    side.streams.send("b", b"there is room again")
    assert transport.messages() == [b"there is room again"]


def test_what_waits_for_a_connection_has_a_limit(side: Side) -> None:
    big = bytes(WAITING_BYTES_MAX // 2)
    for _ in range(3):
        side.streams.send("b", big)
    assert side.counters == {"stream to a slow peer is full": 1}


def test_what_no_stream_carries_is_dropped_and_counted(side: Side) -> None:
    _, transport = side.greeted("b")
    side.streams.send("b", bytes(FRAME_BYTES_MAX + 1))
    side.streams.send("c", bytes(FRAME_BYTES_MAX + 1))
    assert transport.messages() == []
    assert side.counters == {"too big for a stream": 2}
    assert side.reactor.tcpClients == []


# --------------------------------------------------------------------- the end


def test_stop_closes_everything(side: Side) -> None:
    side.streams.listen(THREE.members["a"].address)
    _, came = side.greeted("b")
    side.streams.send("c", b"x")
    _, dialled = side.answer_dial()
    side.streams.stop()
    assert came.disconnected
    assert dialled.disconnected
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
