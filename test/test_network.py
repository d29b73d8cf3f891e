"""Messages to peers and from them: datagrams where they fit, streams where not, and nothing from strangers."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from random import Random
from typing import Any

import pytest

from test.fakes import ONE, THREE, Events, Reactor, RecordingTransport, StreamTransport, framed
from test.fuzz import INPUTS
from test.wire_samples import PEER_SAMPLES, spoil
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import ChosenValues, Fetch
from txpaxos.network import RECEIVE_BUFFER_BYTES, Network
from txpaxos.wire.codec import Codec, Received
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX
from txpaxos.wire.peer_messages import Hello, PeerMessage

B_ADDRESS, C_ADDRESS = ("10.0.0.2", 4000), ("10.0.0.3", 4000)
BAD, STRANGER = "bad datagram", "datagram of a stranger"


class Way:
    """The network of node ``a``."""

    def __init__(self, cluster: Cluster = THREE) -> None:
        self.reactor = Reactor()
        self.events: Events = []
        self.transport = RecordingTransport(self.events)
        self.counters: Counter[str] = Counter()
        self._received: list[Received] = []
        self._refused: list[str] = []
        self.network = Network(
            self.reactor, "a", cluster, 7, self._received.append, self._refused.append, self.counters
        )

    def start(self) -> Way:
        self.network.start(self.transport)
        return self

    @property
    def received(self) -> list[tuple[str, PeerMessage]]:
        return [(one.sender, one.message) for one in self._received]

    @property
    def sent(self) -> list[tuple[bytes, Any]]:
        return [datagram for _, datagram in self.events]


@pytest.fixture
def way() -> Way:
    return Way().start()


def filled(data_bytes: int) -> ChosenValues:
    """A message that is so many bytes long on the wire, from ``a``."""
    size = data_bytes
    while len(Codec("test", "a", 7).encode(ChosenValues(1, (bytes(size),)))) > data_bytes:
        size -= 1
    message = ChosenValues(1, (bytes(size),))
    assert len(Codec("test", "a", 7).encode(message)) == data_bytes
    return message


def test_a_message_goes_to_each_as_one_datagram(way: Way) -> None:
    way.network.send(("b", "c"), Fetch(5))
    data = Codec("test", "a", 7).encode(Fetch(5))
    assert way.sent == [(data, B_ADDRESS), (data, C_ADDRESS)]


def test_nothing_goes_to_oneself_or_to_nobody(way: Way) -> None:
    way.network.send(("a", "nobody"), Fetch(5))
    assert way.sent == []


def test_what_fits_is_a_datagram_and_what_does_not_takes_the_stream(way: Way) -> None:
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX))
    assert [len(data) for data, _ in way.sent] == [DATAGRAM_BYTES_MAX]
    assert way.reactor.tcpClients == []
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX + 1))
    assert len(way.sent) == 1
    ((host, port, dial, *_),) = way.reactor.tcpClients
    assert (host, port) == B_ADDRESS
    transport = StreamTransport()
    stream = dial.buildProtocol(None)
    assert stream is not None
    stream.makeConnection(transport)
    _, message = transport.messages()
    assert Codec("test", "b").decode(message).message == filled(DATAGRAM_BYTES_MAX + 1)


def test_what_comes_on_a_stream_is_delivered(way: Way) -> None:
    ((_, factory, _, _),) = way.reactor.tcpServers
    stream, b = factory.buildProtocol(None), Codec("test", "b")  # type: ignore[arg-type]
    assert stream is not None
    stream.makeConnection(StreamTransport())
    stream.dataReceived(framed(b.encode(Hello()), b.encode(Fetch(9))))
    assert way.received == [("b", Fetch(9))]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_a_datagram_that_cannot_be_sent_is_counted(way: Way, number: int) -> None:
    way.transport.error = OSError(number, "no")
    way.network.send(("b", "c"), Fetch(5))
    assert way.counters == {"datagram not sent": 2}
    way.transport.error = None
    way.network.send(("b",), Fetch(5))
    assert len(way.sent) == 1


def test_nothing_is_sent_before_the_start_or_after_the_end() -> None:
    way = Way()
    way.network.send(("b",), Fetch(5))
    way.start()
    way.network.stop()
    way.network.send(("b",), Fetch(5))
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX + 1))
    assert way.sent == []
    assert way.reactor.tcpClients == []


def test_a_node_alone_listens_for_no_streams() -> None:
    assert Way(ONE).start().reactor.tcpServers == []
    assert [server[0] for server in Way(THREE).start().reactor.tcpServers] == [4000]


def test_the_receive_buffer_is_asked_for(way: Way) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel_socket:
        before = kernel_socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        way.transport.socket = kernel_socket  # type: ignore[attr-defined]
        way.start()
        after = kernel_socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert before < after <= 2 * RECEIVE_BUFFER_BYTES  # Linux gives twice what is asked, and no more than it allows


# --------------------------------------------------------------- what comes in


def test_what_a_peer_sends_is_delivered(way: Way) -> None:
    way.network.datagram_received(Codec("test", "b").encode(Fetch(5)), B_ADDRESS)
    way.network.datagram_received(Codec("test", "c").encode(Fetch(6)), C_ADDRESS)
    assert way.received == [("b", Fetch(5)), ("c", Fetch(6))]
    assert way.counters == {}


@pytest.mark.parametrize(
    ("cluster", "sender", "address", "counter"),
    [
        ("other", "b", B_ADDRESS, BAD),
        ("test", "b", C_ADDRESS, STRANGER),
        ("test", "b", ("10.0.0.2", 4001), STRANGER),
        ("test", "b", ("10.9.9.9", 4000), STRANGER),
        ("test", "stranger", B_ADDRESS, STRANGER),
        ("test", "a", ("10.0.0.1", 4000), STRANGER),  # ourselves: such messages never take the network
        ("test", "a", B_ADDRESS, STRANGER),
    ],
)
def test_what_a_stranger_sends_is_counted(
    way: Way, cluster: str, sender: str, address: tuple[str, int], counter: str
) -> None:
    way.network.datagram_received(Codec(cluster, sender).encode(Fetch(5)), address)
    assert way.received == []
    assert way.counters == {counter: 1}


def test_an_address_is_compared_as_it_is_resolved() -> None:
    members = {
        "a": Member(Address("::1", 1), Address("::1", 2)),
        "b": Member(Address("0:0::2", 3), Address("::2", 4)),
    }
    way = Way(Cluster("test", members).resolve()).start()
    way.network.datagram_received(Codec("test", "b").encode(Fetch(5)), ("::2", 3))
    assert way.received == [("b", Fetch(5))]


@pytest.mark.fuzz
def test_bad_datagrams(way: Way) -> None:
    rng, codec = Random(7), Codec("test", "b")
    good = [codec.encode(sample) for sample in PEER_SAMPLES]
    count = 0
    for _ in range(INPUTS):
        data = rng.choice((rng.randbytes(rng.randint(0, 300)), spoil(rng, rng.choice(good))))
        if data not in good:
            count += 1
            way.network.datagram_received(data, B_ADDRESS)
    assert way.received == []
    assert way.counters == {BAD: count}
    assert count > 0.9 * INPUTS
