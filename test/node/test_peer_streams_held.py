"""A stream that is held to learn soon when its peer ends."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionRefusedError, TimeoutError

from test.helpers.fakes import framed
from test.helpers.stream_side import Side, disconnect, fail_dial, said_by
from txpaxos.core.messages import Fetch
from txpaxos.node.peer_streams import RECONNECTS_MAX, PeerStream


@pytest.fixture
def side() -> Side:
    return Side()


def test_a_peer_that_is_held_is_dialled_once(side: Side) -> None:
    side.streams.keep_open("b")
    side.streams.keep_open("b")
    assert len(side.reactor.tcpClients) == 1


def test_a_stream_that_is_there_need_not_be_made(side: Side) -> None:
    side.established("b")
    for peer in ("b", "a", None):
        side.streams.keep_open(peer)
    assert side.reactor.tcpClients == []


def held(side: Side, *, dialled: bool) -> PeerStream:
    """The stream to ``b``, which is held."""
    if not dialled:
        stream, _ = side.established("b")
    side.streams.keep_open("b")
    if dialled:
        stream, _ = side.answer_dial()
        stream.dataReceived(framed(said_by("b")))
    return stream


@pytest.mark.parametrize("dialled", [True, False])
def test_the_end_of_a_held_peer_is_told_once(side: Side, dialled: bool) -> None:
    disconnect(held(side, dialled=dialled))
    assert side.refused == []
    fail_dial(side, ConnectionRefusedError())
    assert side.refused == ["b"]
    side.streams.keep_open("b")
    fail_dial(side, ConnectionRefusedError())
    assert side.refused == ["b"]
    assert len(side.reactor.tcpClients) == 2 + dialled


def test_a_held_peer_whose_stream_broke_has_another(side: Side) -> None:
    disconnect(held(side, dialled=False))
    stream, _ = side.answer_dial()
    stream.dataReceived(framed(said_by("b"), said_by("b", Fetch(7))))
    assert side.refused == []
    assert side.messages() == [("b", Fetch(7))]


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError()])
def test_that_a_held_peer_was_never_reached_proves_nothing(side: Side, error: Exception) -> None:
    side.streams.keep_open("b")
    fail_dial(side, error)
    assert side.refused == []
    assert len(side.reactor.tcpClients) == 1


def test_a_held_peer_may_lose_its_port_after_its_streams(side: Side) -> None:
    disconnect(held(side, dialled=True))
    disconnect(side.answer_dial()[0])
    fail_dial(side, ConnectionRefusedError())
    assert side.refused == ["b"]


def test_a_peer_that_closes_before_its_hello_is_not_dialled_for_ever(side: Side) -> None:
    side.streams.keep_open("b")
    for _ in range(RECONNECTS_MAX):
        disconnect(side.answer_dial()[0])
    assert len(side.reactor.tcpClients) == RECONNECTS_MAX
    assert side.refused == []


@pytest.mark.parametrize("other", ["c", None])
def test_who_is_no_longer_held_may_end(side: Side, other: str | None) -> None:
    stream = held(side, dialled=False)
    side.established("c")
    side.streams.keep_open(other)
    disconnect(stream)
    assert side.reactor.tcpClients == []


def test_nobody_is_held_once_all_is_closed(side: Side) -> None:
    stream = held(side, dialled=False)
    side.streams.stop()
    disconnect(stream)
    assert side.reactor.tcpClients == []
