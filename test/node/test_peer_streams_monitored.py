"""A monitored peer: its stream is kept open, so that the end of its process is noticed soon."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionRefusedError, TimeoutError

from test.helpers.fakes import framed
from test.helpers.peer_streams_harness import PeerStreamsHarness, disconnect, fail_dial, said_by
from txpaxos.core.messages import Fetch
from txpaxos.node.peer_streams import RECONNECTS_MAX, PeerStream


@pytest.fixture
def harness() -> PeerStreamsHarness:
    return PeerStreamsHarness()


def test_a_monitored_peer_is_dialled_once(harness: PeerStreamsHarness) -> None:
    harness.streams.keep_open("b")
    harness.streams.keep_open("b")
    assert len(harness.reactor.tcpClients) == 1


def test_a_stream_that_is_there_need_not_be_made(harness: PeerStreamsHarness) -> None:
    harness.established("b")
    for peer in ("b", "a", None):
        harness.streams.keep_open(peer)
    assert harness.reactor.tcpClients == []


def monitored(harness: PeerStreamsHarness, *, dialled: bool) -> PeerStream:
    """The stream to ``b``, which is monitored."""
    if not dialled:
        stream, _ = harness.established("b")
    harness.streams.keep_open("b")
    if dialled:
        stream, _ = harness.answer_dial()
        stream.dataReceived(framed(said_by("b")))
    return stream


@pytest.mark.parametrize("dialled", [True, False])
def test_the_end_of_a_monitored_peer_is_told_once(harness: PeerStreamsHarness, dialled: bool) -> None:
    disconnect(monitored(harness, dialled=dialled))
    assert harness.refused == []
    fail_dial(harness, ConnectionRefusedError())
    assert harness.refused == ["b"]
    harness.streams.keep_open("b")
    fail_dial(harness, ConnectionRefusedError())
    assert harness.refused == ["b"]
    assert len(harness.reactor.tcpClients) == 2 + dialled


def test_a_monitored_peer_whose_stream_broke_has_another(harness: PeerStreamsHarness) -> None:
    disconnect(monitored(harness, dialled=False))
    stream, _ = harness.answer_dial()
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7))))
    assert harness.refused == []
    assert harness.messages() == [("b", Fetch(7))]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError()])
def test_that_a_monitored_peer_was_never_reached_proves_nothing(harness: PeerStreamsHarness, error: Exception) -> None:
    harness.streams.keep_open("b")
    fail_dial(harness, error)
    assert harness.refused == []
    assert len(harness.reactor.tcpClients) == 1


def test_a_monitored_peer_may_lose_its_port_after_its_streams(harness: PeerStreamsHarness) -> None:
    disconnect(monitored(harness, dialled=True))
    disconnect(harness.answer_dial()[0])
    fail_dial(harness, ConnectionRefusedError())
    assert harness.refused == ["b"]


def test_a_peer_that_closes_before_its_hello_is_not_dialled_for_ever(harness: PeerStreamsHarness) -> None:
    harness.streams.keep_open("b")
    for _ in range(RECONNECTS_MAX):
        disconnect(harness.answer_dial()[0])
    assert len(harness.reactor.tcpClients) == RECONNECTS_MAX
    assert harness.refused == []


@pytest.mark.parametrize("other", ["c", None])
def test_a_peer_that_is_monitored_no_longer_may_end(harness: PeerStreamsHarness, other: str | None) -> None:
    stream = monitored(harness, dialled=False)
    harness.established("c")
    harness.streams.keep_open(other)
    disconnect(stream)
    assert harness.reactor.tcpClients == []


def test_no_peer_is_monitored_once_all_is_closed(harness: PeerStreamsHarness) -> None:
    stream = monitored(harness, dialled=False)
    harness.streams.stop()
    disconnect(stream)
    assert harness.reactor.tcpClients == []
