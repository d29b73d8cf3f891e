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
from txpaxos.acquaintances import Acquaintances
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import AcceptSlot, Ballot, Canvass, ChosenValues, Fetch, Truncated
from txpaxos.network import RECEIVE_BUFFER_BYTES, Network
from txpaxos.wire.codec import Codec, Received
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX
from txpaxos.wire.peer_messages import (
    AskAudit,
    Audit,
    Challenge,
    FetchSnapshot,
    Hello,
    PeerMessage,
    Proof,
    SnapshotPart,
)

BALLOT = Ballot(1, "a")
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
            self.reactor,
            "a",
            cluster,
            7,
            Acquaintances(lambda _: None, self.counters),
            lambda: 1234,
            self._received.append,
            self._refused.append,
            self.counters,
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


def greeted(way: Way, number: int) -> tuple[Any, StreamTransport]:
    """The stream that was dialled so manieth stands, to ``b`` or ``c``."""
    ((host, _, dial, *_),) = way.reactor.tcpClients[number : number + 1]
    transport = StreamTransport()
    stream: Any = dial.buildProtocol(None)
    stream.makeConnection(transport)
    assert [message.message for message in read(transport)] == [Hello()]
    stream.dataReceived(framed(Codec("test", {"10.0.0.2": "b", "10.0.0.3": "c"}[host]).encode(Hello())))
    return stream, transport


def came(way: Way, peer: str) -> tuple[Any, StreamTransport]:
    """A stream that ``peer`` has opened stands."""
    ((_, factory, _, _),) = way.reactor.tcpServers
    stream: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
    transport = StreamTransport()
    stream.makeConnection(transport)
    stream.dataReceived(framed(*[Codec("test", peer).encode(message) for message in (Hello(), Proof(1234))]))
    assert [message.message for message in read(transport)] == [Hello()]
    return stream, transport


def read(transport: StreamTransport) -> list[Received]:
    return [Codec("test", "x").decode(message) for message in transport.messages()]


def filled(data_bytes: int) -> AcceptSlot:
    """A message that is so many bytes long on the wire, from ``a``."""
    size = data_bytes
    while len(Codec("test", "a", 7).encode(AcceptSlot(BALLOT, 1, bytes(size)))) > data_bytes:
        size -= 1
    message = AcceptSlot(BALLOT, 1, bytes(size))
    assert len(Codec("test", "a", 7).encode(message)) == data_bytes
    return message


def test_a_message_goes_to_each_as_one_datagram(way: Way) -> None:
    way.network.send(("b", "c"), Canvass(5))
    data = Codec("test", "a", 7).encode(Canvass(5))
    assert way.sent == [(data, B_ADDRESS), (data, C_ADDRESS)]


def test_nothing_goes_to_oneself_or_to_nobody(way: Way) -> None:
    for message in (Canvass(5), Fetch(5), Truncated(5)):
        way.network.send(("a", "nobody"), message)
    assert way.sent == []
    assert len(way.reactor.tcpClients) == 2


def test_what_fits_is_a_datagram_and_what_does_not_takes_the_stream(way: Way) -> None:
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX))
    assert [len(data) for data, _ in way.sent] == [DATAGRAM_BYTES_MAX]
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX + 1))
    assert len(way.sent) == 1
    ((host, port, *_), (other, *_)) = way.reactor.tcpClients
    assert ((host, port), other) == (B_ADDRESS, "10.0.0.3")
    _, transport = greeted(way, 0)
    assert [one.message for one in read(transport)] == [filled(DATAGRAM_BYTES_MAX + 1)]


def test_what_comes_on_a_stream_is_delivered(way: Way) -> None:
    stream, _ = came(way, "b")
    stream.dataReceived(framed(Codec("test", "b").encode(Fetch(9))))
    assert way.received == [("b", Fetch(9))]


QUESTIONS = [Fetch(3), FetchSnapshot(0, 0), AskAudit(5)]
ANSWERS = [ChosenValues(1, (b"x",), 5), Truncated(3), SnapshotPart(4, 1, 0, b"x"), Audit(5, b"x", b"y")]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_waits_for_the_stream_of_its_asker(way: Way, question: PeerMessage) -> None:
    _, theirs = came(way, "b")
    way.network.send(("b",), question)
    way.events.clear()
    _, own = greeted(way, 0)
    assert [one.message for one in read(own)] == [question]
    assert (way.sent, read(theirs)) == ([], [])


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_goes_over_the_stream_of_who_asked(way: Way, answer: PeerMessage) -> None:
    _, theirs = came(way, "b")
    way.events.clear()
    _, own = greeted(way, 0)
    way.network.send(("b",), answer)
    assert [one.message for one in read(theirs)] == [answer]
    assert (way.sent, read(own)) == ([], [])


@pytest.mark.parametrize("answer", ANSWERS)
def test_who_has_no_stream_for_an_answer_is_told_that_there_is_one(way: Way, answer: PeerMessage) -> None:
    _, own = greeted(way, 0)
    way.network.send(("b",), answer)
    told = [Codec("test", "b").decode(data).message for data, _ in way.sent]
    if isinstance(answer, SnapshotPart):
        assert told == []
    else:
        assert told == [ChosenValues(1, (), 5) if isinstance(answer, ChosenValues) else answer]
    assert read(own) == []


def test_a_number_is_said_back_where_it_is_asked_for(way: Way) -> None:
    _, _, dial, *_ = way.reactor.tcpClients[0]
    stream, transport = dial.buildProtocol(None), StreamTransport()
    assert stream is not None
    stream.makeConnection(transport)
    way.network.datagram_received(Codec("test", "b").encode(Challenge(77)), B_ADDRESS)
    way.network.datagram_received(Codec("test", "b").encode(Challenge(78)), C_ADDRESS)  # From somebody else.
    assert [one.message for one in read(transport)] == [Hello(), Proof(77)]
    assert way.received == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_a_datagram_that_cannot_be_sent_is_counted(way: Way, number: int) -> None:
    way.transport.error = OSError(number, "no")
    way.network.send(("b", "c"), Canvass(5))
    assert way.counters == {"datagram not sent": 2}
    way.transport.error = None
    way.network.send(("b",), Canvass(5))
    assert len(way.sent) == 1


def test_nothing_is_sent_before_the_start_or_after_the_end() -> None:
    way = Way()
    way.network.send(("b",), Canvass(5))
    way.start()
    way.network.stop()
    for message in (Canvass(5), Fetch(5), Truncated(5), filled(DATAGRAM_BYTES_MAX + 1)):
        way.network.send(("b",), message)
    way.network.meet("b")
    assert way.sent == []
    assert len(way.reactor.tcpClients) == 2  # Those of the start.


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
        "a": Member(Address("::9", 1), Address("::9", 2)),
        "b": Member(Address("0:0::2", 3), Address("::2", 4)),
    }
    way = Way(Cluster("test", members).resolve()).start()
    way.network.datagram_received(Codec("test", "b").encode(Fetch(5)), ("::2", 3))
    assert way.received == [("b", Fetch(5))]


@pytest.mark.fuzz
def test_bad_datagrams(way: Way) -> None:
    rng, codec = Random(7), Codec("test", "b")
    good = [codec.encode(sample) for sample in PEER_SAMPLES if type(sample) is not Challenge]
    count = 0
    for _ in range(INPUTS):
        data = rng.choice((rng.randbytes(rng.randint(0, 300)), spoil(rng, rng.choice(good))))
        if data not in good:
            count += 1
            way.network.datagram_received(data, B_ADDRESS)
    assert way.received == []
    assert way.counters == {BAD: count}
    assert count > 0.9 * INPUTS
