"""Messages to peers and from them: datagrams where they fit, streams where not, and nothing from strangers."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from test.helpers.fakes import ONE, THREE, Events, Reactor, RecordingTransport, StreamTransport, framed, logged
from test.helpers.fuzz import INPUTS
from test.helpers.wire_samples import PEER_SAMPLES, spoil
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import AcceptSlot, Ballot, ChosenValues, Fetch, PreVote, Truncated
from txpaxos.errors import ConfigError
from txpaxos.node.counts import Count, Counts
from txpaxos.node.known_peers import KnownPeers
from txpaxos.node.peers import OTHERS_ANSWERED_MAX, RECEIVE_BUFFER_BYTES, Peers
from txpaxos.node.refusals import REASON_SECONDS, UNKNOWN_SENDER_LINES_MAX
from txpaxos.wire import codec
from txpaxos.wire.codec import Received
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX
from txpaxos.wire.peer_messages import (
    AskStateDigest,
    Challenge,
    FetchSnapshot,
    Hello,
    PeerMessage,
    Proof,
    Refusal,
    SnapshotPart,
    StateDigest,
)

BALLOT = Ballot(1, "a")
Codec = partial(codec.Codec, members="abc")
B_ADDRESS, C_ADDRESS = ("10.0.0.2", 4000), ("10.0.0.3", 4000)
BAD, STRANGER = Count.BAD_DATAGRAM, Count.DATAGRAM_FROM_AN_UNKNOWN_ADDRESS


class Resolver:
    """The names that nodes have, as the test says. It answers at once.

    :ivar asked: every name that was looked up, in order.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def __call__(self, name: str) -> Deferred[list[str]]:
        self.asked.append(name)
        if name not in self.names:
            return fail(ConfigError(f"cannot resolve {name!r}"))
        return succeed(self.names[name])


class NamingReactor(Reactor):
    """One that knows names."""

    def __init__(self, look_up: Resolver) -> None:
        super().__init__()
        self.look_up = look_up


class Way:
    """The network of node ``a``."""

    def __init__(self, cluster: Cluster = THREE) -> None:
        self.resolver = Resolver()
        self.reactor = NamingReactor(self.resolver)
        self.events: Events = []
        self.transport = RecordingTransport(self.events)
        self.counters: Counts = Counter()
        self.known_peers = KnownPeers(lambda _: None, self.counters)
        self._received: list[Received] = []
        self._refused: list[str] = []
        self.network = Peers(
            self.reactor,
            "a",
            cluster,
            7,
            self.known_peers,
            lambda: 1234,
            self._received.append,
            self._refused.append,
            self.counters,
        )

    def start(self) -> Way:
        self.network.start(self.transport, self.reactor.seconds())
        return self

    def refuse_streams(self) -> None:
        """No process listens at any address that is connected to."""
        for (*_, dial, _, _), connector in zip(self.reactor.tcpClients, self.reactor.connectors, strict=True):
            dial.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.reactor.tcpClients.clear()
        self.reactor.connectors.clear()

    def tick(self, seconds: float) -> None:
        """So much time passes, and the network is told of it now and then."""
        until = self.reactor.seconds() + seconds
        while self.reactor.seconds() < until - 1e-9:
            self.reactor.advance(min(0.5, until - self.reactor.seconds()))
            self.network.tick(self.reactor.seconds())

    @property
    def received(self) -> list[tuple[str, PeerMessage]]:
        return [(one.sender, one.message) for one in self._received]

    @property
    def sent(self) -> list[tuple[bytes, Any]]:
        return [datagram for _, datagram in self.events]


@pytest.fixture
def way() -> Way:
    return Way().start()


def established(way: Way, number: int) -> tuple[Any, StreamTransport]:
    """Complete the handshake of the stream that was dialled as number ``number``, to ``b`` or ``c``."""
    ((host, _, dial, *_),) = way.reactor.tcpClients[number : number + 1]
    transport = StreamTransport()
    stream: Any = dial.buildProtocol(None)
    stream.makeConnection(transport)
    assert [message.message for message in read(transport)] == [Hello()]
    stream.dataReceived(framed(Codec("test", {"10.0.0.2": "b", "10.0.0.3": "c"}[host]).encode(Hello())))
    return stream, transport


def came(way: Way, peer: str) -> tuple[Any, StreamTransport]:
    """Complete the handshake of a stream that ``peer`` opens."""
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
    """A message from ``a`` that is ``data_bytes`` long on the wire."""
    size = data_bytes
    while len(Codec("test", "a", 7).encode(AcceptSlot(BALLOT, 1, bytes(size)))) > data_bytes:
        size -= 1
    message = AcceptSlot(BALLOT, 1, bytes(size))
    assert len(Codec("test", "a", 7).encode(message)) == data_bytes
    return message


def test_a_message_goes_to_each_as_one_datagram(way: Way) -> None:
    way.network.send(("b", "c"), PreVote(5))
    data = Codec("test", "a", 7).encode(PreVote(5))
    assert way.sent == [(data, B_ADDRESS), (data, C_ADDRESS)]


def test_nothing_goes_to_oneself_or_to_an_unknown_node(way: Way) -> None:
    for message in (PreVote(5), Fetch(5), Truncated(5)):
        way.network.send(("a", "unknown"), message)
    assert way.sent == []
    assert len(way.reactor.tcpClients) == 2


def test_what_fits_is_a_datagram_and_what_does_not_takes_the_stream(way: Way) -> None:
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX))
    assert [len(data) for data, _ in way.sent] == [DATAGRAM_BYTES_MAX]
    way.network.send(("b",), filled(DATAGRAM_BYTES_MAX + 1))
    assert len(way.sent) == 1
    ((host, port, *_), (other, *_)) = way.reactor.tcpClients
    assert ((host, port), other) == (B_ADDRESS, "10.0.0.3")
    _, transport = established(way, 0)
    assert [one.message for one in read(transport)] == [filled(DATAGRAM_BYTES_MAX + 1)]


def test_what_comes_on_a_stream_is_delivered(way: Way) -> None:
    stream, _ = came(way, "b")
    stream.dataReceived(framed(Codec("test", "b").encode(Fetch(9))))
    assert way.received == [("b", Fetch(9))]


QUESTIONS = [Fetch(3), FetchSnapshot(0, 0), AskStateDigest(5)]
ANSWERS = [ChosenValues(1, (b"x",), 5), Truncated(3), SnapshotPart(4, 1, 0, b"x"), StateDigest(5, b"x", b"y")]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_waits_for_the_stream_of_its_asker(way: Way, question: PeerMessage) -> None:
    _, theirs = came(way, "b")
    way.network.send(("b",), question)
    way.events.clear()
    _, own = established(way, 0)
    assert [one.message for one in read(own)] == [question]
    assert (way.sent, read(theirs)) == ([], [])


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_goes_over_the_stream_of_who_asked(way: Way, answer: PeerMessage) -> None:
    _, theirs = came(way, "b")
    way.events.clear()
    _, own = established(way, 0)
    way.network.send(("b",), answer)
    assert [one.message for one in read(theirs)] == [answer]
    assert (way.sent, read(own)) == ([], [])


@pytest.mark.parametrize("answer", ANSWERS)
def test_who_has_no_stream_for_an_answer_is_told_that_there_is_one(way: Way, answer: PeerMessage) -> None:
    _, own = established(way, 0)
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
    way.network.datagram_received(Codec("test", "b").encode(Challenge(78)), C_ADDRESS)  # From another node.
    assert [one.message for one in read(transport)] == [Hello(), Proof(77)]
    assert way.received == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM])
def test_a_datagram_that_cannot_be_sent_is_counted(way: Way, number: int) -> None:
    way.transport.error = OSError(number, "no")
    way.network.send(("b", "c"), PreVote(5))
    assert way.counters == {Count.DATAGRAM_NOT_SENT: 2}
    way.transport.error = None
    way.network.send(("b",), PreVote(5))
    assert len(way.sent) == 1


def test_nothing_is_sent_before_the_start_or_after_the_end() -> None:
    way = Way()
    way.network.send(("b",), PreVote(5))
    way.start()
    way.network.stop()
    for message in (PreVote(5), Fetch(5), Truncated(5), filled(DATAGRAM_BYTES_MAX + 1)):
        way.network.send(("b",), message)
    way.network.open_stream("b")
    assert way.sent == []
    assert len(way.reactor.tcpClients) == 2  # Those of the start.


@pytest.mark.parametrize("cluster", [ONE, THREE])
def test_a_node_listens_for_streams_also_when_it_is_alone(cluster: Cluster) -> None:
    """It may have peers later."""
    assert [server[0] for server in Way(cluster).start().reactor.tcpServers] == [4000]


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
        "a": Member(Address("fd00::1", 1), Address("fd00::1", 2)),
        "b": Member(Address("FD00:0:0::0002", 3), Address("fd00::2", 4)),
    }
    for cluster in (Cluster("test", members), Cluster("test", members).resolve()):
        way = Way(cluster).start()
        way.network.datagram_received(Codec("test", "b", members="ab").encode(Fetch(5)), ("fd00::2", 3))
        assert way.received == [("b", Fetch(5))]


def test_ipv4_comes_in_on_an_ipv6_socket(way: Way) -> None:
    way.network.datagram_received(Codec("test", "b").encode(Fetch(5)), ("::ffff:10.0.0.2", 4000))
    assert way.received == [("b", Fetch(5))]
    assert way.counters == {}


# ----------------------------------------------------------- names and places


def named(**hosts: str) -> Cluster:
    """A cluster whose nodes have names, at these addresses when this was made."""
    return Cluster(
        "test",
        {
            node: Member(Address(host, 4000, name=f"n{node}.test" if host else ""), Address(f"n{node}.test", 5000))
            for node, host in hosts.items()
        },
    )


def lines_of(act: Callable[[], object], level: Any) -> list[str]:
    """What is logged at ``level`` while ``act`` runs, as it is read."""
    return [formatEvent(event) for event in logged(act, level)]


NAMES = Cluster(
    "test", {node: Member(Address(f"n{node}.test", 4000), Address(f"n{node}.test", 5000)) for node in "abc"}
)


def pre_vote(node: str = "b", cluster: str = "test") -> bytes:
    return Codec(cluster, node).encode(PreVote(5))


def test_names_are_looked_up_when_the_node_starts() -> None:
    """One that is not known is in no other's way."""
    way = Way(NAMES)
    way.resolver.names["nb.test"] = ["10.0.0.2"]
    lines = lines_of(way.start, LogLevel.warn)
    assert set(way.resolver.asked) == {"nb.test", "nc.test"}
    assert lines == ["node a cannot find the address of node c, and keeps trying: cannot resolve 'nc.test'"]
    way.network.send(("b", "c"), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]
    way.network.datagram_received(pre_vote(), B_ADDRESS)
    assert way.received == [("b", PreVote(5))]


def test_a_name_is_looked_up_until_it_is_known() -> None:
    way = Way(NAMES).start()
    assert lines_of(lambda: way.tick(60.0), LogLevel.warn) == []
    assert 20 < len(way.resolver.asked) < 60  # For datagrams, and for a stream. Not all the time.
    way.resolver.names["nb.test"] = ["10.0.0.2"]
    lines = lines_of(lambda: way.tick(8.0), LogLevel.info)
    assert lines == ["node b (nb.test) is at 10.0.0.2:4000 (before: nowhere)"]
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS]


def test_a_peer_that_is_heard_is_not_looked_up() -> None:
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2"], "nc.test": ["10.0.0.3"]}
    way.start()
    way.resolver.asked.clear()
    for _ in range(50):
        way.network.datagram_received(pre_vote(), B_ADDRESS)
        way.tick(0.1)
    assert set(way.resolver.asked) == {"nc.test"}
    assert 1 < len(way.resolver.asked) < 6


@pytest.mark.parametrize("known", [True, False])
def test_a_peer_that_is_silent_may_have_moved(known: bool) -> None:
    """Where its address was known from the start, too, since the maker of the cluster had looked the name up."""
    way = Way(named(a="10.0.0.1", b="10.0.0.2", c="10.0.0.3") if known else NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2"]}
    way.start()
    way.network.datagram_received(pre_vote(), B_ADDRESS)
    way.tick(0.5)
    way.resolver.names["nb.test"] = ["10.0.0.99"]
    way.tick(3.0)
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [("10.0.0.99", 4000)]
    way.network.datagram_received(pre_vote(), ("10.0.0.99", 4000))
    assert len(way.received) == 2
    way.network.datagram_received(pre_vote(), B_ADDRESS)  # Another machine may have that address now.
    assert len(way.received) == 2
    assert way.counters[STRANGER] == 1
    way.refuse_streams()
    way.tick(5.0)
    assert ("10.0.0.99", 4000) in [client[:2] for client in way.reactor.tcpClients[-2:]]


def test_a_peer_that_speaks_from_elsewhere_is_looked_up_soon() -> None:
    """It is silent for so long by then that its turn would not come for seconds."""
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2"]}
    way.start()
    way.tick(20.0)
    way.resolver.names["nb.test"] = ["10.0.0.99"]
    for _ in range(12):
        way.network.datagram_received(pre_vote(), ("10.0.0.99", 4000))
        way.tick(0.1)
    assert way.received != []


def test_one_that_says_to_be_a_peer_all_the_time_causes_no_flood_of_look_ups() -> None:
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2"], "nc.test": ["10.0.0.3"]}
    way.start()
    way.resolver.asked.clear()
    for _ in range(100):
        for _ in range(10):
            way.network.datagram_received(pre_vote(), ("10.6.6.6", 4000))
        way.tick(0.1)
    assert way.resolver.asked.count("nb.test") <= 10
    assert way.received == []


def test_all_addresses_of_a_name_are_tried_and_any_is_taken() -> None:
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2", "fd00::2"]}
    way.start()
    way.network.send(("b",), PreVote(5))
    assert [address for _, address in way.sent] == [B_ADDRESS, ("fd00::2", 4000)]
    way.network.datagram_received(pre_vote(), ("fd00::2", 4000))
    assert way.received == [("b", PreVote(5))]
    way.tick(0.1)
    way.events.clear()
    way.network.send(("b",), PreVote(5))  # From where it was heard, it is reached.
    assert [address for _, address in way.sent] == [("fd00::2", 4000)]
    way.tick(2.0)
    way.events.clear()
    way.network.send(("b",), PreVote(5))  # It is silent: perhaps it is the way that is broken.
    assert [address for _, address in way.sent] == [B_ADDRESS, ("fd00::2", 4000)]


def test_connections_to_a_silent_peer_are_tried_at_each_address() -> None:
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2", "fd00::2"]}
    way.start()
    called = set()
    for _ in range(10):
        called |= {host for host, *_ in way.reactor.tcpClients}
        way.refuse_streams()
        way.tick(2.0)
    assert called == {"10.0.0.2", "fd00::2"}


@pytest.mark.parametrize(("own", "reached"), [("127.0.0.1", ["10.0.0.2"]), ("::1", ["fd00::2"])])
def test_a_socket_sends_where_it_can(own: str, reached: list[str]) -> None:
    """One of IPv6 alone reaches no IPv4 address."""
    sent: list[Any] = []
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2", "fd00::2"]}
    way.transport.socket = _Socket(own, sent)  # type: ignore[attr-defined]
    way.start()
    way.network.send(("b",), PreVote(5))
    assert [address[0] for address in sent] == reached


def test_a_socket_at_every_address_reaches_both() -> None:
    sent: list[Any] = []
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2", "fd00::2"]}
    way.transport.socket = _Socket("::", sent)  # type: ignore[attr-defined]
    way.start()
    way.network.send(("b",), PreVote(5))
    assert sent == [("::ffff:10.0.0.2", 4000), ("fd00::2", 4000)]


def test_a_second_socket_serves_the_other_family() -> None:
    sent: list[Any] = []
    way = Way(NAMES)
    way.resolver.names = {"nb.test": ["10.0.0.2", "fd00::2"]}
    way.transport.socket = _Socket("10.0.0.1", sent)  # type: ignore[attr-defined]
    way.start()
    other = RecordingTransport()
    other.socket = _Socket("fd00::1", sent)  # type: ignore[attr-defined]
    way.network.add_socket(other, Address("fd00::1", 4000))
    way.network.send(("b",), PreVote(5))
    assert sent == [B_ADDRESS, ("fd00::2", 4000)]
    assert [server[0::3] for server in way.reactor.tcpServers] == [(4000, "na.test"), (4000, "fd00::1")]


class _Socket:
    """Of a socket, what is needed to see what it sends."""

    def __init__(self, host: str, sent: list[Any]) -> None:
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        self._sent = sent

    def setsockopt(self, *options: int) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return self._host, 4000

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self._sent.append(address)


# ------------------------------------------------------ what is said of others


def test_a_stranger_is_told_of_once_and_told_why(way: Way) -> None:
    def come() -> None:
        for _ in range(50):
            way.network.datagram_received(pre_vote(), ("10.9.9.9", 4000))

    (line,) = lines_of(come, LogLevel.warn)
    assert line.startswith(
        "node a does not hear node b at 10.9.9.9:4000: its cluster file has another address for b (10.0.0.2:4000);"
    )
    assert way.network.refusals.reasons == {"b": "it comes from 10.9.9.9:4000"}
    assert way.network.silence_seconds(1.0) == {"b": None, "c": None}
    assert way.sent == []  # Nothing to an address that may be forged.
    for _ in range(25):
        way.tick(0.1)
        come()
    refusal = Codec("test", "a", 7).encode(Refusal("it comes from 10.9.9.9:4000"))
    assert set(way.sent) == {(refusal, B_ADDRESS)}
    assert len(way.sent) == 2  # From time to time: a datagram may be lost.
    way.network.datagram_received(pre_vote(), B_ADDRESS)
    way.tick(0.5)
    assert way.network.refusals.reasons == {}
    heard = way.network.silence_seconds(way.reactor.seconds() + 2.0)
    assert heard == {"b": pytest.approx(2.0), "c": None}


@pytest.mark.parametrize(
    ("cluster", "sender", "address", "line"),
    [
        (
            "test",
            "d",
            C_ADDRESS,
            "node a does not hear the node at 10.0.0.3:4000: it claims to be 'd' of this cluster",
        ),
        ("test", "a", C_ADDRESS, "node a does not hear the node at 10.0.0.3:4000, which claims to be a, too: start"),
        (
            "test",
            "\x1b[2J\n" * 80,
            C_ADDRESS,
            "node a does not hear the node at 10.0.0.3:4000: it claims to be '\\x1b[",
        ),
        (
            *("other", "c", C_ADDRESS),
            "node a of cluster test does not take what comes from 10.0.0.3:4000, the address of node c in its cluster"
            " file: message of another cluster: compare the cluster names",
        ),
        (
            *("other", "c", ("10.0.0.9", 4000)),
            "node a does not take what comes from 10.0.0.9:4000, which is no node of its cluster file: message of",
        ),
    ],
)
def test_what_is_not_taken_is_told_once(
    way: Way, cluster: str, sender: str, address: tuple[str, int], line: str
) -> None:
    def come() -> None:
        for _ in range(50):
            way.network.datagram_received(Codec(cluster, sender[:80]).encode(PreVote(5)), address)

    (told,) = lines_of(come, LogLevel.warn)
    assert told.startswith(line), told
    assert told.isprintable()
    assert len(told) < 700
    assert way.received == []


def other_cluster(sender: str = "c", message: PeerMessage | None = None) -> bytes:
    return Codec("test~0123456789abcdef", sender).encode(message or PreVote(5))


def test_a_node_of_another_cluster_is_answered_so_that_it_finds_out(way: Way) -> None:
    for _ in range(50):
        way.network.datagram_received(other_cluster(), C_ADDRESS)
    answer = Codec("test", "a", 7).encode(Refusal(""))
    assert way.sent == [(answer, C_ADDRESS)]
    way.tick(1.5)
    way.network.datagram_received(other_cluster(), C_ADDRESS)
    assert way.sent[1:] == [(answer, C_ADDRESS)]
    returned = Way().start()
    line = (
        "node a of cluster test does not take what comes from 10.0.0.3:4000, the address of node c in its cluster file"
    )
    (told,) = lines_of(
        lambda: returned.network.datagram_received(other_cluster("c", Refusal("")), C_ADDRESS), LogLevel.warn
    )
    assert told.startswith(f"{line}: message of another cluster")
    assert returned.sent == []  # An answer is not answered, or two clusters would answer each other for ever.


def test_nodes_of_other_clusters_cause_no_flood_of_answers(way: Way) -> None:
    for number in range(1000):
        way.network.datagram_received(other_cluster(), ("10.9.9.9", number))
    assert len(way.sent) == OTHERS_ANSWERED_MAX
    way.network.datagram_received(b"noise", C_ADDRESS)
    assert len(way.sent) == OTHERS_ANSWERED_MAX


def test_an_answer_that_cannot_be_sent_is_counted(way: Way) -> None:
    way.transport.error = OSError(errno.EPERM, "no")
    way.network.datagram_received(other_cluster(), C_ADDRESS)
    assert way.counters == {BAD: 1, Count.DATAGRAM_NOT_SENT: 1}
    way.network.stop()
    way.network.datagram_received(other_cluster(), B_ADDRESS)
    assert way.counters == {BAD: 2, Count.DATAGRAM_NOT_SENT: 1}


def test_strangers_do_not_fill_the_disk(way: Way) -> None:
    def come() -> None:
        for number in range(1000):
            way.network.datagram_received(b"noise", (f"10.9.{number // 250}.{number % 250}", 4000))
            way.network.datagram_received(pre_vote(f"node-{number}"), ("10.9.9.9", number))

    assert len(lines_of(come, LogLevel.warn)) == UNKNOWN_SENDER_LINES_MAX
    assert (
        "does not take"
        in lines_of(lambda: way.network.datagram_received(pre_vote(cluster="other"), B_ADDRESS), LogLevel.warn)[0]
    )  # Of peers there is room to tell.


def test_a_peer_that_refuses_this_node_is_told_of_once(way: Way) -> None:
    def come() -> None:
        for _ in range(50):
            way.network.datagram_received(Codec("test", "b").encode(Refusal("it comes from 10.9.9.9:4000")), B_ADDRESS)

    assert lines_of(come, LogLevel.warn) == [
        "node b does not hear this node, a: it comes from 10.9.9.9:4000; its own log says more"
    ]
    assert way.network.refusals.status() == {"refuses": {}, "refused_by": {"b": "it comes from 10.9.9.9:4000"}}
    assert way.received == []


def test_a_peer_that_tcp_does_not_reach_is_told_of(way: Way) -> None:
    """Not at once: it takes a moment until two nodes have met."""

    def speak() -> None:
        for _ in range(40):
            way.network.note_unmet("b")
            way.tick(0.1)

    assert lines_of(speak, LogLevel.warn) == []
    assert way.network.refusals.reasons == {}
    (line,) = lines_of(speak, LogLevel.warn)
    assert line.startswith("node a does not hear node b: it does not reach it by TCP at 10.0.0.2:4000")
    assert way.network.refusals.reasons == {"b": "no TCP between the two"}
    assert way.network.silence_seconds(1.0)["b"] is None


def test_what_has_not_come_up_for_long_is_no_reason_any_more(way: Way) -> None:
    way.network.datagram_received(pre_vote(cluster="other"), B_ADDRESS)
    way.tick(5.0)
    assert list(way.network.refusals.reasons) == ["b"]
    way.tick(REASON_SECONDS + 1.0)
    assert way.network.refusals.reasons == {}


def test_a_challenge_of_a_peer_that_is_refused_makes_it_none_that_is_heard(way: Way) -> None:
    way.network.refuse("b", "it came back with another data folder")
    way.network.datagram_received(Codec("test", "b").encode(Challenge(5)), B_ADDRESS)
    way.tick(0.5)
    assert list(way.network.refusals.reasons) == ["b"]
    assert way.network.silence_seconds(1.0)["b"] is None


def test_what_a_refusal_says_is_made_harmless(way: Way) -> None:
    refusal = Codec("test", "b").encode(Refusal("\x1b]0;\n" + "x" * 1000))
    (line,) = lines_of(lambda: way.network.datagram_received(refusal, B_ADDRESS), LogLevel.warn)
    assert line.isprintable()
    assert len(line) < 300


def test_a_loopback_address_among_others_is_told_of() -> None:
    way = Way(Cluster("test", {**NAMES.members, "a": Member(Address("10.0.0.1", 4000), Address("10.0.0.1", 5000))}))
    way.resolver.names = {"nb.test": ["127.0.1.1"], "nc.test": ["10.0.0.3"]}
    (line,) = lines_of(way.start, LogLevel.warn)
    assert line.startswith(
        "nodes a and b cannot reach each other: address of node b is nb.test:4000 (127.0.1.1:4000), which only its own"
    )


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
