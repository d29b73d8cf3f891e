"""Peers that come, go and move while the node runs."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from test.helpers.fakes import ONE, THREE, StreamTransport, framed
from test.node.test_peers import B_ADDRESS, C_ADDRESS, NAMES, STRANGER, Codec, Way, came, established, lines_of, read
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import Fetch, PreVote
from txpaxos.errors import ConfigError
from txpaxos.node.counts import Count
from txpaxos.node.peer_addresses import PREVIOUS_ENDPOINTS_MAX
from txpaxos.node.peers import FORMER_PEERS_MAX
from txpaxos.wire import codec
from txpaxos.wire.peer_messages import Hello, Proof, Refusal

D, D_ADDRESS = Address("10.0.0.4", 4000), ("10.0.0.4", 4000)
AWAY, AWAY_ADDRESS = Address("10.0.0.22", 4022), ("10.0.0.22", 4022)


@pytest.fixture
def way() -> Way:
    return Way().start()


def pre_vote(node: str = "b") -> bytes:
    return Codec("test", node).encode(PreVote(5))


def sent_to(way: Way, *peers: str) -> list[tuple[str, int]]:
    """Where a datagram to ``peers`` goes."""
    way.events.clear()
    way.network.send(peers, PreVote(5))
    return [address for _, address in way.sent]


def dialled(way: Way) -> list[tuple[str, int]]:
    return [(host, port) for host, port, *_ in way.reactor.tcpClients]


def hear(way: Way, peer: str, *endpoints: tuple[str, int]) -> None:
    """Datagrams of ``peer`` come from these endpoints, one after the other."""
    for endpoint in endpoints:
        way.network.datagram_received(pre_vote(peer), endpoint)
        way.tick(0.1)


# ------------------------------------------------------------------ one comes


def test_a_peer_that_is_added_is_heard_and_spoken_to(way: Way) -> None:
    way.network.datagram_received(pre_vote("d"), D_ADDRESS)
    assert (way.received, way.counters) == ([], {STRANGER: 1})
    for _ in range(2):
        way.network.add_peer("d", D)
    assert dialled(way) == [B_ADDRESS, C_ADDRESS, D_ADDRESS]
    assert sent_to(way, "d") == [D_ADDRESS]
    way.network.datagram_received(pre_vote("d"), D_ADDRESS)
    assert way.received == [("d", PreVote(5))]
    assert way.network.silence_seconds(1.0) == {"b": None, "c": None, "d": 0.0}


def test_a_node_that_starts_alone_gets_a_peer_later() -> None:
    way = Way(ONE).start()
    way.network.add_peer("b", Address(*B_ADDRESS))
    stream: Any = way.reactor.tcpServers[0][1].buildProtocol(None)  # type: ignore[arg-type]
    transport = StreamTransport()
    stream.makeConnection(transport)
    b = codec.Codec("test", "b", members="a")  # The founding members stay what they are.
    stream.dataReceived(framed(b.encode(Hello())))
    stream.dataReceived(framed(b.encode(Proof(1234)), b.encode(Fetch(9))))
    assert way.received == [("b", Fetch(9))]


def test_a_peer_may_be_added_before_the_start() -> None:
    way = Way()
    way.network.add_peer("d", D)
    assert dialled(way) == []
    way.start()
    assert dialled(way) == [B_ADDRESS, C_ADDRESS, D_ADDRESS]
    assert sent_to(way, "d") == [D_ADDRESS]


def test_nothing_begins_after_the_end(way: Way) -> None:
    way.network.stop()
    way.network.add_peer("d", D)
    way.network.move_peer("b", AWAY)
    way.network.remove_peer("c")
    assert sent_to(way, "b", "c", "d") == []
    assert dialled(way) == [B_ADDRESS, C_ADDRESS]
    assert way.reactor.getDelayedCalls() == []


def test_a_node_is_no_peer_of_itself(way: Way) -> None:
    way.network.add_peer("a", D)
    way.network.move_peer("a", D)
    way.network.remove_peer("a")
    assert sent_to(way, "a") == []
    assert dialled(way) == [B_ADDRESS, C_ADDRESS]


def test_the_name_of_a_peer_that_is_added_is_looked_up(way: Way) -> None:
    way.network.add_peer("d", Address("nd.test", 4000))
    way.resolver.names["nd.test"] = ["10.0.0.4"]
    assert sent_to(way, "d") == []
    way.tick(0.1)
    assert sent_to(way, "d") == [D_ADDRESS]


def test_an_ipv6_peer_needs_an_ipv6_socket(way: Way) -> None:
    """The transport of the test can send to both."""
    way.network.add_peer("d", Address("fd00::4", 4000))
    assert sent_to(way, "d") == [("fd00::4", 4000)]


# ------------------------------------------------------------------- one goes


def test_a_peer_that_is_removed_is_neither_heard_nor_spoken_to(way: Way) -> None:
    hear(way, "b", B_ADDRESS)
    for _ in range(2):
        way.network.remove_peer("b")
    assert sent_to(way, "b") == []
    way.network.datagram_received(pre_vote(), B_ADDRESS)
    assert way.received == [("b", PreVote(5))]
    assert way.counters == {STRANGER: 1}
    assert list(way.network.silence_seconds(1.0)) == ["c"]
    way.tick(60.0)
    assert {host for host, _ in dialled(way)} == {"10.0.0.2", "10.0.0.3"}


def test_its_streams_are_closed_after_what_waits(way: Way) -> None:
    theirs, theirs_transport = came(way, "b")
    own, own_transport = established(way, 0)
    _, of_another = established(way, 1)
    own.pauseProducing()
    way.network.send(("b",), Fetch(3))
    way.network.remove_peer("b")
    assert [one.message for one in read(own_transport)] == [Fetch(3)]
    assert (own_transport.disconnecting, theirs_transport.disconnecting) == (True, True)
    assert not of_another.disconnecting
    for stream in (own, theirs):
        stream.dataReceived(framed(Codec("test", "b").encode(Fetch(9))))
    assert way.received == []
    assert way.counters == {Count.MESSAGE_OF_A_FORMER_PEER: 2}
    for stream in (own, theirs):
        stream.connectionLost(Failure(ConnectionRefusedError()))
    way.reactor.advance(60.0)
    assert dialled(way) == [B_ADDRESS, C_ADDRESS]


def test_one_that_does_not_read_is_cut_off_soon(way: Way) -> None:
    _, transport = came(way, "b")
    way.network.remove_peer("b")
    assert not transport.disconnected
    way.reactor.advance(10.0)
    assert transport.disconnected


def test_an_attempt_to_connect_to_it_is_given_up(way: Way) -> None:
    way.network.remove_peer("b")
    assert [connector.stoppedConnecting for connector in way.reactor.connectors] == [True, False]
    (*_, dial, _, _) = way.reactor.tcpClients[0]
    assert dial.buildProtocol(None) is None  # Should it be too late for that.
    dial.clientConnectionFailed(way.reactor.connectors[0], Failure(ConnectionRefusedError()))
    way.reactor.advance(60.0)
    assert dialled(way) == [B_ADDRESS, C_ADDRESS]


def test_one_that_is_about_to_be_tried_again_is_not(way: Way) -> None:
    way.refuse_streams()
    way.network.remove_peer("b")
    way.reactor.advance(0.5)
    assert dialled(way) == [C_ADDRESS]


def test_one_that_is_removed_amid_its_handshake_is_cut_off(way: Way) -> None:
    stream: Any = way.reactor.tcpServers[0][1].buildProtocol(None)  # type: ignore[arg-type]
    transport = StreamTransport()
    stream.makeConnection(transport)
    stream.dataReceived(framed(Codec("test", "b").encode(Hello())))
    way.network.remove_peer("b")
    assert transport.disconnected
    way.events.clear()
    stream.dataReceived(framed(Codec("test", "b").encode(Proof(1234))))  # Should the transport still give it.
    way.reactor.advance(1.0)
    assert (way.sent, transport.take()) == ([], b"")
    assert way.counters == {Count.BAD_FRAME: 1}


def test_a_monitored_peer_that_is_removed_is_monitored_no_longer(way: Way) -> None:
    stream, _ = came(way, "b")
    way.network.keep_open("b")
    way.network.remove_peer("b")
    stream.connectionLost(Failure(ConnectionRefusedError()))
    way.refuse_streams()
    assert way._refused == []


def test_what_was_noted_of_it_is_dropped(way: Way) -> None:
    way.known_peers.recover("b", 0)
    way.network.refuse("b", "why", "a line")
    way.network.note_unmet("b")
    way.network.datagram_received(Codec("test", "b").encode(Refusal("no")), B_ADDRESS)
    way.tick(1.5)
    way.network.datagram_received(pre_vote(), ("10.9.9.9", 4000))
    way.network.note_unmet("b")
    way.network.remove_peer("b")
    way.tick(10.0)
    assert way.network.refusals.status() == {"refuses": {}, "refused_by": {}}
    assert "b" not in way.known_peers


def test_a_former_peer_is_told_that_it_is_out_and_so_is_the_operator(way: Way) -> None:
    way.network.remove_peer("b")
    way.events.clear()

    def come() -> None:
        for _ in range(25):
            way.network.datagram_received(pre_vote(), B_ADDRESS)
            way.tick(0.1)

    (line,) = lines_of(come, LogLevel.warn)
    assert line.startswith("node a does not hear node b at 10.0.0.2:4000: it was removed from the cluster; stop it")
    refusal = Codec("test", "a", 7).encode(Refusal("it was removed from the cluster"))
    assert way.sent == [(refusal, B_ADDRESS)] * 2  # From time to time, and only to its own address.


def test_of_many_former_peers_the_last_are_told(way: Way) -> None:
    for number in range(FORMER_PEERS_MAX):
        way.network.add_peer(f"n{number}", Address("10.0.1.1", 4000 + number))
        way.network.remove_peer(f"n{number}")
    way.network.remove_peer("b")
    way.events.clear()
    for node, endpoint in (("n0", ("10.0.1.1", 4000)), ("b", B_ADDRESS)):
        way.network.datagram_received(pre_vote(node), endpoint)
    way.network.add_peer("n1", D)  # It is none any more.
    way.tick(1.5)
    assert {address for _, address in way.sent} == {B_ADDRESS}


def test_one_that_is_removed_and_added_again_has_new_streams(way: Way) -> None:
    old, _ = established(way, 0)
    way.network.remove_peer("b")
    way.network.add_peer("b", Address(*B_ADDRESS))
    assert dialled(way) == [B_ADDRESS, C_ADDRESS, B_ADDRESS]
    _, transport = established(way, 2)
    old.connectionLost(Failure(ConnectionRefusedError()))
    way.network.send(("b",), Fetch(3))
    assert [one.message for one in read(transport)] == [Fetch(3)]
    way.reactor.advance(60.0)
    assert len(dialled(way)) == 3


def test_a_look_up_that_ends_after_the_removal_changes_nothing() -> None:
    way = Way(NAMES)
    found: list[Deferred[list[str]]] = []

    def look_up(name: str) -> Deferred[list[str]]:
        found.append(Deferred())
        return found[-1]

    way.reactor.look_up = look_up  # type: ignore[assignment]
    way.start()
    way.network.remove_peer("b")
    way.network.move_peer("c", AWAY)

    def answer() -> None:
        for one in found[::2]:
            one.callback(["10.0.0.77"])
        for one in found[1::2]:
            one.errback(ConfigError("no"))

    assert lines_of(answer, LogLevel.warn) == []
    assert sent_to(way, "b", "c") == [AWAY_ADDRESS]


# ------------------------------------------------------------------ one moves


def test_a_peer_that_moves_is_heard_at_both_addresses_until_it_has_arrived(way: Way) -> None:
    _, old_stream = established(way, 0)
    hear(way, "b", B_ADDRESS)
    for _ in range(2):
        way.network.move_peer("b", AWAY)
    assert sent_to(way, "b") == [B_ADDRESS]  # It still runs there.
    assert not old_stream.disconnected
    hear(way, "b", B_ADDRESS)
    lines = lines_of(lambda: hear(way, "b", AWAY_ADDRESS), LogLevel.info)
    assert lines == ["node b is at its new address, 10.0.0.22:4022"]
    assert len(way.received) == 3
    assert sent_to(way, "b") == [AWAY_ADDRESS]
    assert old_stream.disconnected
    way.network.datagram_received(pre_vote(), B_ADDRESS)
    assert way.counters == {STRANGER: 1}
    assert len(way.received) == 3


def test_one_that_was_silent_is_tried_at_both_addresses(way: Way) -> None:
    way.refuse_streams()
    way.network.move_peer("b", AWAY)
    assert sent_to(way, "b") == [AWAY_ADDRESS, B_ADDRESS]
    assert dialled(way) == [AWAY_ADDRESS]
    hear(way, "b", B_ADDRESS)
    assert sent_to(way, "b") == [B_ADDRESS]
    way.refuse_streams()
    way.reactor.advance(0.5)
    assert B_ADDRESS in dialled(way)
    way.tick(2.0)  # Now it has gone silent there.
    way.reactor.tcpClients.clear()
    way.network.open_stream("b")
    assert sent_to(way, "b") == [AWAY_ADDRESS, B_ADDRESS]


def test_an_attempt_to_connect_to_the_old_address_is_given_up(way: Way) -> None:
    dial = way.reactor.tcpClients[0][2]
    way.network.move_peer("b", AWAY)
    assert [connector.stoppedConnecting for connector in way.reactor.connectors] == [True, False]
    dial.clientConnectionFailed(way.reactor.connectors[0], Failure(ConnectionRefusedError()))
    way.reactor.advance(0.3)
    assert dialled(way)[-1] == AWAY_ADDRESS


def test_a_handshake_at_the_old_address_is_given_up(way: Way) -> None:
    stream: Any = way.reactor.tcpClients[0][2].buildProtocol(None)
    transport = StreamTransport()
    stream.makeConnection(transport)
    way.network.move_peer("b", AWAY)
    assert transport.disconnected
    stream.connectionLost(Failure(ConnectionRefusedError()))
    way.reactor.advance(0.3)
    assert dialled(way)[-1] == AWAY_ADDRESS


def test_a_stream_that_leads_to_the_new_address_already_stands(way: Way) -> None:
    way.refuse_streams()
    way.network.move_peer("b", AWAY)
    transport = StreamTransport()
    stream: Any = way.reactor.tcpClients[0][2].buildProtocol(None)
    stream.makeConnection(transport)
    stream.dataReceived(framed(Codec("test", "b").encode(Hello())))
    hear(way, "b", AWAY_ADDRESS)
    assert not transport.disconnected


@pytest.mark.parametrize("before", [Address("10.0.0.2", 4000, name="nb.test"), Address("10.0.0.2", 4000)])
@pytest.mark.parametrize("after", [Address("nb.test", 4000), Address("10.0.0.2", 4000)])
def test_a_name_and_its_address_are_one_place(before: Address, after: Address) -> None:
    way = Way(Cluster("test", {**ONE.members, "b": Member(before, Address("10.0.0.2", 5000))}))
    way.start()
    way.resolver.names["nb.test"] = ["10.0.0.2"]
    b = codec.Codec("test", "b", members="ab").encode(PreVote(5))
    way.network.datagram_received(b, B_ADDRESS)
    way.tick(0.1)
    lines = lines_of(lambda: way.network.move_peer("b", after), LogLevel.info)
    for _ in range(30):
        way.network.datagram_received(b, B_ADDRESS)
        way.tick(0.1)
        assert sent_to(way, "b") == [B_ADDRESS]
    assert lines == []
    assert len(way.received) == 31


def test_one_that_moves_to_a_name_is_found_there(way: Way) -> None:
    hear(way, "b", B_ADDRESS)
    way.network.move_peer("b", Address("nb.test", 4022))
    hear(way, "b", B_ADDRESS)
    assert sent_to(way, "b") == [B_ADDRESS]
    way.resolver.names["nb.test"] = ["10.0.0.22"]
    for _ in range(30):
        hear(way, "b", B_ADDRESS)
    assert sent_to(way, "b") == [B_ADDRESS]
    hear(way, "b", AWAY_ADDRESS)
    assert sent_to(way, "b") == [AWAY_ADDRESS]
    assert len(way.received) == 33


def test_one_that_is_moved_back_has_arrived(way: Way) -> None:
    hear(way, "b", B_ADDRESS)
    way.network.add_peer("b", AWAY)
    way.network.add_peer("b", Address(*B_ADDRESS))
    hear(way, "b", B_ADDRESS)
    assert sent_to(way, "b") == [B_ADDRESS]
    way.tick(3.0)
    assert sent_to(way, "b") == [B_ADDRESS]


def test_one_that_is_moved_again_and_again_is_tried_at_the_last_places(way: Way) -> None:
    for number in range(2 * PREVIOUS_ENDPOINTS_MAX):
        way.network.move_peer("b", Address("10.0.0.22", 4100 + number))
    places = sent_to(way, "b")
    assert len(places) == PREVIOUS_ENDPOINTS_MAX + 1
    assert places[0] == ("10.0.0.22", 4100 + 2 * PREVIOUS_ENDPOINTS_MAX - 1)
    hear(way, "b", places[-1])
    way.refuse_streams()
    way.reactor.advance(0.5)
    assert places[-1] in dialled(way)


def test_one_that_is_no_peer_is_not_moved(way: Way) -> None:
    way.network.move_peer("d", D)
    assert sent_to(way, "d") == []
    assert THREE.members.keys() == {"a", *way.network.silence_seconds(1.0)}
