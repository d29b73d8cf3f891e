"""A network in memory. Datagrams are lost, duplicated, delayed and reordered; streams stall and break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.protocol import DatagramProtocol, Protocol
from twisted.python.failure import Failure

from txpaxos.testing.simulator.clock import ProcessClock, SimulatedTime

Endpoint = tuple[str, int]


@attrs.define
class Faults:
    """What the network does to traffic: one object for all links, or one for a single link.

    :ivar delay_seconds: the shortest delay, and the mean of the additional delay, which is exponentially distributed.
    :ivar loss: the probability that a datagram is lost.
    :ivar doubled: the probability that a datagram arrives twice.
    :ivar breaks: the probability, for each chunk of a stream, that the connection breaks in the middle of that chunk.
    """

    delay_seconds: tuple[float, float] = (0.0001, 0.0001)
    loss: float = 0.0
    doubled: float = 0.0
    breaks: float = 0.0

    def delay(self, rng: Random) -> float:
        """Draw the delay of one datagram or chunk."""
        return self.delay_seconds[0] + rng.expovariate(1.0) * self.delay_seconds[1]


class SimulatedNetwork:
    """All hosts and the links between them. A host is identified by its address.

    :ivar faults: the faults of every link without an entry in ``link_faults``.
    :ivar cut: (source, target) pairs between which nothing passes in that direction.
    """

    def __init__(self, time: SimulatedTime, rng: Random) -> None:
        self.time = time
        self.rng = rng
        self.faults = Faults()
        self.link_faults: dict[tuple[str, str], Faults] = {}
        self.cut: set[tuple[str, str]] = set()
        self.counters: Counter[str] = Counter()
        self.on_datagram: Callable[[str, str, bytes], None] | None = None
        self.on_arrival: Callable[[str, str, bytes], None] | None = None
        self._datagram_ports: dict[Endpoint, SimulatedDatagramPort] = {}
        self._stream_ports: dict[Endpoint, SimulatedStreamPort] = {}
        self._halves: dict[StreamHalf, None] = {}

    def link(self, source: str, target: str) -> Faults:
        """The faults of the link from ``source`` to ``target``."""
        return self.link_faults.get((source, target), self.faults)

    def heal(self) -> None:
        """Remove all faults."""
        self.faults = Faults()
        self.link_faults.clear()
        self.cut.clear()
        for half in list(self._halves):
            half.pump()

    def reconnect(self, pairs: set[tuple[str, str]]) -> None:
        """Let traffic pass between ``pairs`` again, and send what streams have buffered."""
        self.cut -= pairs
        for half in list(self._halves):
            half.pump()

    def forget(self, host: str) -> None:
        """The process on ``host`` died: its ports close, and its connections break."""
        self._datagram_ports = {at: port for at, port in self._datagram_ports.items() if at[0] != host}
        self._stream_ports = {at: port for at, port in self._stream_ports.items() if at[0] != host}
        for half in list(self._halves):
            if half.host == host:
                half.die()

    # datagrams

    def send_datagram(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        """Send one datagram."""
        if self.on_datagram is not None:
            self.on_datagram(source[0], target[0], data)
        faults = self.link(source[0], target[0])
        rng = self.rng
        if (source[0], target[0]) in self.cut or (faults.loss and rng.random() < faults.loss):
            self.counters["datagrams lost"] += 1
            return
        self.time.after(faults.delay(rng), self._deliver, source, target, data)
        if faults.doubled and rng.random() < faults.doubled:
            self.counters["datagrams doubled"] += 1
            self.time.after(faults.delay(rng), self._deliver, source, target, data)

    def inject_datagram(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        """Have a datagram arrive that looks as if ``source`` had sent it."""
        self.time.after(0.0, self._deliver, source, target, data)

    def _deliver(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        port = self._datagram_ports.get(target)
        if port is not None:
            if self.on_arrival is not None:
                self.on_arrival(source[0], target[0], data)
            port.reactor.run(port.protocol.datagramReceived, data, source)

    # for reactors

    def bind_datagrams(self, port: SimulatedDatagramPort) -> None:
        """Deliver datagrams to ``port`` from now on."""
        if port.endpoint in self._datagram_ports:
            raise CannotListenError(port.endpoint[0], port.endpoint[1], OSError("address in use"))
        self._datagram_ports[port.endpoint] = port

    def unbind_datagrams(self, port: SimulatedDatagramPort) -> None:
        """Deliver no more datagrams to ``port``."""
        if self._datagram_ports.get(port.endpoint) is port:
            del self._datagram_ports[port.endpoint]

    def bind_streams(self, port: SimulatedStreamPort) -> None:
        """Accept connections for ``port`` from now on."""
        if port.endpoint in self._stream_ports:
            raise CannotListenError(port.endpoint[0], port.endpoint[1], OSError("address in use"))
        self._stream_ports[port.endpoint] = port

    def unbind_streams(self, port: SimulatedStreamPort) -> None:
        """Accept no more connections for ``port``."""
        if self._stream_ports.get(port.endpoint) is port:
            del self._stream_ports[port.endpoint]

    def connect(self, reactor: SimulatedReactor, target: Endpoint, factory: Any, timeout: float) -> None:
        """Try to connect. That takes a packet to ``target`` and one back."""
        there = self.link(reactor.host, target[0]).delay(self.rng)
        if (reactor.host, target[0]) in self.cut or (target[0], reactor.host) in self.cut:
            self.time.after(timeout, reactor.run, self._fail, factory, TimeoutError())
        else:
            self.time.after(there, self._accept, reactor, target, factory)

    def _accept(self, reactor: SimulatedReactor, target: Endpoint, factory: Any) -> None:
        port = self._stream_ports.get(target)
        protocol = port.factory.buildProtocol(IPv4Address("TCP", reactor.host, 0)) if port is not None else None
        back = self.link(target[0], reactor.host).delay(self.rng)
        if port is None or protocol is None:
            self.time.after(back, reactor.run, self._fail, factory, ConnectionRefusedError())
            return
        server = StreamHalf(self, port.reactor)
        client = StreamHalf(self, reactor)
        server.other, client.other = client, server
        port.reactor.run(server.begin, protocol)
        self.time.after(back, reactor.run, self._connected, factory, client, target)

    def _connected(self, factory: Any, client: StreamHalf, target: Endpoint) -> None:
        protocol = factory.buildProtocol(IPv4Address("TCP", *target))
        if protocol is None:
            client.loseConnection()
        else:
            client.begin(protocol)

    def _fail(self, factory: Any, error: Exception) -> None:
        factory.clientConnectionFailed(None, Failure(error))

    def open_half(self, half: StreamHalf) -> None:
        """A connection begins."""
        self._halves[half] = None

    def close_half(self, half: StreamHalf) -> None:
        """A connection has ended, on one side."""
        self._halves.pop(half, None)


class StreamHalf:
    """One side of a connection: the transport of its protocol. Bytes keep their order. A cut link delays them."""

    WRITE_BUFFER_BYTES = 65536

    def __init__(self, network: SimulatedNetwork, reactor: SimulatedReactor) -> None:
        self.other: StreamHalf | None = None
        self.host = reactor.host
        self.disconnecting = False
        self._network = network
        self._reactor = reactor
        self._protocol: Protocol | None = None
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._arrives_at = 0.0
        self._early: list[bytes] = []
        self._producer: Any = None
        self._paused = False
        self._reads = True
        self._closed = False
        network.open_half(self)

    def begin(self, protocol: Protocol) -> None:
        """Give the connection to its protocol."""
        self._protocol = protocol
        protocol.makeConnection(cast(Any, self))
        self._receive_held_back()
        if self._closed:  # The other side died before this one was connected.
            protocol.connectionLost(Failure(ConnectionLost()))

    # the transport

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        if self._closed or self.disconnecting or not data:
            return
        self._outbox.append(bytes(data))
        self._outbox_bytes += len(data)
        self.pump()
        if self._producer is not None and self._outbox_bytes > self.WRITE_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: list[bytes]) -> None:
        """Send all of ``iovec``."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close once everything is sent. Bytes that a cut link delays are dropped."""
        if not self._closed and not self.disconnecting:
            self.disconnecting = True
            when = max(self._arrives_at, self._network.time.now) + 1e-6
            self._network.time.at(when, self._end, ConnectionDone())

    def abortConnection(self) -> None:
        """Close now."""
        self._network.time.after(0.0, self._end, ConnectionLost())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Without effect: the simulated stream never joins writes."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Without effect: the simulated stream sends no keep-alive packets."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while too many bytes are buffered, and resume it afterwards."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Hold back what arrives."""
        self._reads = False

    def resumeProducing(self) -> None:
        """Give what arrives to the protocol, what was held back first."""
        if not self._reads:
            self._reads = True
            self._receive_held_back()

    def getPeer(self) -> IPv4Address:
        """The other side's host."""
        assert self.other is not None
        return IPv4Address("TCP", self.other.host, 0)

    def getHost(self) -> IPv4Address:
        """This side's host."""
        return IPv4Address("TCP", self.host, 0)

    # the network

    def pump(self) -> None:
        """Send what is buffered. While the link is cut it stays in the buffer, as with TCP."""
        assert self.other is not None
        network = self._network
        if self._closed or (self.host, self.other.host) in network.cut:
            return
        faults = network.link(self.host, self.other.host)
        outbox, self._outbox = self._outbox, []
        for data in outbox:
            self._arrives_at = max(self._arrives_at, network.time.now + faults.delay(network.rng))
            if faults.breaks and network.rng.random() < faults.breaks:
                data = data[: network.rng.randrange(len(data))]
                network.time.at(self._arrives_at, self.other.arrive, data)
                network.time.at(self._arrives_at, self._end, ConnectionLost())
                network.counters["streams broken"] += 1
                return
            network.time.at(self._arrives_at, self._arrived, data)

    def _arrived(self, data: bytes) -> None:
        self._outbox_bytes -= len(data)
        if self.other is not None:
            self.other.arrive(data)
        if self._paused and self._outbox_bytes <= self.WRITE_BUFFER_BYTES and not self._closed:
            self._paused = False
            self._reactor.run(self._resume)

    def _resume(self) -> None:
        if self._producer is not None and not self._closed:
            self._producer.resumeProducing()

    def arrive(self, data: bytes) -> None:
        """Bytes have arrived."""
        if not self._closed:
            self._reactor.run(self._receive, data)

    def _receive(self, data: bytes) -> None:
        if self._protocol is None or not self._reads:
            self._early.append(data)
        elif not self._closed:
            self._protocol.dataReceived(data)

    def _receive_held_back(self) -> None:
        early, self._early = self._early, []
        for data in early:
            self._receive(data)

    def die(self) -> None:
        """The process on this side is gone. The other side learns of that soon."""
        self._closed = True
        self._network.close_half(self)
        other = self.other
        if other is not None:
            seconds = self._network.link(self.host, other.host).delay(self._network.rng)
            self._network.time.after(seconds, other._end, ConnectionLost())

    def _end(self, reason: Exception) -> None:
        if self._closed:
            return
        self.die()
        if self._protocol is not None:
            self._reactor.run(self._protocol.connectionLost, Failure(reason))


class SimulatedReactor(ProcessClock):
    """The reactor of one process on one host. It has those methods of Twisted's interfaces that nodes and clients
    use."""

    def __init__(self, network: SimulatedNetwork, host: str, rate: float = 1.0) -> None:
        super().__init__(network.time, rate)
        self.network = network
        self.host = host

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> SimulatedDatagramPort:
        """As in Twisted."""
        return SimulatedDatagramPort(self, (interface, port), protocol)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> SimulatedStreamPort:
        """As in Twisted."""
        return SimulatedStreamPort(self, (interface, port), factory)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Connector:
        """As in Twisted."""
        self.network.connect(self, (host, port), factory, timeout)
        return Connector()

    def look_up(self, name: str) -> Deferred[list[str]]:
        """The addresses of a host. In the simulator a host's name is its address."""
        return succeed([name])

    def kill(self) -> None:
        """End the process."""
        super().kill()
        self.network.forget(self.host)


class Connector:
    """The return value of ``connectTCP``."""

    def stopConnecting(self) -> None:
        """Without effect: the attempt continues, and its outcome is ignored by its caller."""


class SimulatedDatagramPort:
    """A listening datagram port: the transport of its protocol."""

    def __init__(self, reactor: SimulatedReactor, endpoint: Endpoint, protocol: DatagramProtocol) -> None:
        self.reactor = reactor
        self.endpoint = endpoint
        self.protocol = protocol
        reactor.network.bind_datagrams(self)
        protocol.makeConnection(cast(Any, self))

    def write(self, packet: bytes, addr: Endpoint) -> None:
        """Send one datagram."""
        if self.reactor.alive:
            self.reactor.network.send_datagram(self.endpoint, addr, packet)

    def stopListening(self) -> None:
        """Close."""
        self.reactor.network.unbind_datagrams(self)
        self.protocol.doStop()

    def getHost(self) -> IPv4Address:
        """The address that it listens at."""
        return IPv4Address("UDP", *self.endpoint)


class SimulatedStreamPort:
    """A listening stream port."""

    def __init__(self, reactor: SimulatedReactor, endpoint: Endpoint, factory: Any) -> None:
        self.reactor = reactor
        self.endpoint = endpoint
        self.factory = factory
        reactor.network.bind_streams(self)
        factory.doStart()

    def stopListening(self) -> None:
        """Close."""
        self.reactor.network.unbind_streams(self)

    def getHost(self) -> IPv4Address:
        """The address that it listens at."""
        return IPv4Address("TCP", *self.endpoint)
