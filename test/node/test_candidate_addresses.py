"""A peer whose name lags behind its address: a candidate address is believed once the peer shows to be there."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.logger import LogLevel

from test.helpers.fakes import THREE, StreamTransport, framed
from test.node.test_peers import B_ADDRESS, NAMES, Way, lines_of
from txpaxos.cluster import Cluster
from txpaxos.core.messages import PreVote
from txpaxos.wire import codec
from txpaxos.wire.peer_messages import Hello, Proof

Codec = partial(codec.Codec, members="abc")


def pre_vote_of(incarnation: int) -> bytes:
    return Codec("test", "b", incarnation).encode(PreVote(5))


ELSEWHERE = ("10.0.0.99", 4000)


def away(cluster: Cluster = NAMES) -> Way:
    """A network that has met b, with incarnation 3, and has not heard it for some time."""
    way = Way(cluster)
    way.resolver.names = {"nb.test": ["10.0.0.2"], "nc.test": ["10.0.0.3"]}
    way.known_peers.recover("b", 3)
    way.start()
    way.tick(3.0)
    way.events.clear()
    return way


def prove(way: Way) -> None:
    """b opens a stream, and sends back on it the number that was sent to its candidate address."""
    factory = way.reactor.tcpServers[0][1]
    stream: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
    stream.makeConnection(StreamTransport())
    stream.dataReceived(framed(Codec("test", "b", 3).encode(Hello())))
    stream.dataReceived(framed(Codec("test", "b", 3).encode(Proof(1234))))


def test_a_peer_whose_name_lags_behind_is_believed_where_it_shows_to_be() -> None:
    way = away()
    way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
    assert way.received == []
    prove(way)
    assert {address for _, address in way.sent} == {B_ADDRESS, ELSEWHERE}  # The number, to both.
    lines = lines_of(lambda: way.network.datagram_received(pre_vote_of(3), ELSEWHERE), LogLevel.info)
    assert [sender for sender, _ in way.received] == ["b"]
    assert lines == []
    way.tick(0.1)
    way.events.clear()
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [ELSEWHERE]
    for _ in range(100):
        way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
        way.tick(0.1)
    assert len(way.received) == 101


@pytest.mark.parametrize("incarnation", [0, 4])
def test_one_that_does_not_know_its_incarnation_is_not(incarnation: int) -> None:
    way = away()
    way.network.datagram_received(pre_vote_of(incarnation), ELSEWHERE)
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]


def test_nor_is_one_that_does_not_show_that_it_receives_what_is_sent_there() -> None:
    way = away()
    for _ in range(50):
        way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
        way.tick(0.1)
    assert way.received == []


def test_nor_one_that_says_to_be_a_peer_which_is_heard() -> None:
    way = away()
    way.network.datagram_received(pre_vote_of(3), B_ADDRESS)
    way.tick(0.1)
    way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]


def test_nor_one_at_another_ip_address_if_there_is_no_name() -> None:
    way = away(THREE)
    way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]


@pytest.mark.parametrize("cluster", [NAMES, THREE])
def test_a_peer_whose_move_to_another_port_was_missed_is_believed_there(cluster: Cluster) -> None:
    """A node that missed the move knows the old port only. The other nodes that know the new one may be down."""
    way = away(cluster)
    for port in (4012, 4014):
        way.refuse_streams()
        way.network.datagram_received(pre_vote_of(3), (B_ADDRESS[0], port))
        way.network.open_stream("b")
        assert [client[:2] for client in way.reactor.tcpClients] == [(B_ADDRESS[0], port)]
        prove(way)
        way.network.datagram_received(pre_vote_of(3), (B_ADDRESS[0], port))
        assert [sender for sender, _ in way.received] == ["b"]
        way.tick(3.0)
        way._received.clear()


def test_another_port_of_a_peer_is_not_tried_before_the_peer_is_silent() -> None:
    way = Way(THREE)
    way.known_peers.recover("b", 3)
    way.start()
    way.network.datagram_received(pre_vote_of(3), (B_ADDRESS[0], 4012))
    way.events.clear()
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]


def test_a_candidate_address_is_given_up_when_the_name_leads_elsewhere() -> None:
    way = away()
    way.network.datagram_received(pre_vote_of(3), ELSEWHERE)
    way.resolver.names["nb.test"] = ["10.0.0.50"]
    way.tick(10.0)
    way.events.clear()
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [("10.0.0.50", 4000)]
