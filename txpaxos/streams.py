"""Streams between nodes, for messages too big for a datagram: one TCP connection a pair, opened when first needed.

A stream promises no more than a datagram does: what cannot be sent is dropped and counted, and the algorithm sends it
again. So nothing here retries, and the bytes that wait for a slow peer have a limit.

A stream has a second use: when a process ends, however it does, its system closes its streams. So a node holds one to
the node whose end it wants to learn of soon. That a stream ends proves little; that its peer, which had one, refuses
another shows that nobody listens there any more.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IListeningPort, IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.cluster import Address
from txpaxos.errors import CodecError
from txpaxos.outlet import Outlet
from txpaxos.wire.codec import Codec, Received
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame
from txpaxos.wire.peer_messages import Hello

WAITING_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""Bytes that may wait for one peer; what comes on top is dropped."""

STRANGERS_MAX = 64
"""Connections that may be open without having shown that they come from a member."""

CONNECT_SECONDS = 2.0
HOLD_DIALS_MAX = 8
"""How often in a row a stream is made anew that ends before its peer has greeted: a dying process may have its port
for a moment longer than its streams."""

GREETING_SECONDS = 5.0
"""How long a connection may stay open without having greeted."""


@implementer(IPushProducer)
class PeerStream(Protocol):
    """One connection. Both sides greet first; until a greeting has come, frames may be only short."""

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, streams: PeerStreams, peer: str | None) -> None:
        self.peer = peer
        self.dialled = peer is not None
        self._streams = streams
        self._splitter = FrameSplitter()
        self._outlet: Outlet
        self._greeted = False
        self._paused = False
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._deadline: IDelayedCall | None = None

    # from Twisted

    def connectionMade(self) -> None:
        """Greet, so that the other side knows who speaks, and send what has gathered."""
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._outlet = Outlet(self.transport)
        self._streams.opened(self)
        self._deadline = self._streams.reactor.callLater(GREETING_SECONDS, self.transport.abortConnection)
        self._write(self._streams.codec.encode(Hello()))
        self.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """Take the frames that are complete with ``data``. Anything wrong ends the connection."""
        try:
            for message in self._splitter.feed(data):
                self._receive(self._streams.codec.decode(message))
        except CodecError:
            self._streams.counters["bad frame on a stream"] += 1
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget this connection."""
        self._stop_deadline()
        self._queue.clear()
        self._queued_bytes = 0
        self._streams.closed(self)

    def pauseProducing(self) -> None:
        """The peer reads more slowly than we write: hold what comes."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport has nothing left: send what was held."""
        self._paused = False
        self._outlet.drained()
        while self._queue and not self._paused:
            data = self._queue.popleft()
            self._queued_bytes -= len(data)
            self._write(data)

    def stopProducing(self) -> None:
        """The transport wants no more; ``connectionLost`` follows."""

    # from the streams

    def send(self, data: bytes) -> bool:
        """Send one message; whether it was taken."""
        if self._queued_bytes + len(data) > WAITING_BYTES_MAX:
            return False
        if self._paused or self.transport is None:
            self._queue.append(data)
            self._queued_bytes += len(data)
        else:
            self._write(data)
        return True

    def _write(self, data: bytes) -> None:
        self._outlet.write(frame(data))

    def _receive(self, received: Received) -> None:
        if not self._greeted:
            if not isinstance(received.message, Hello) or self.peer not in (None, received.sender):
                raise CodecError("the first message on a stream must be its peer's greeting")
            self._greeted = True
            self._stop_deadline()
            self.peer = received.sender
            self._splitter.frame_bytes_max = FRAME_BYTES_MAX
            self._streams.greeted(self)
        elif received.sender != self.peer:
            raise CodecError(f"{self.peer} spoke as {received.sender} on its stream")
        else:
            self._streams.received(received)

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    @property
    def is_stranger(self) -> bool:
        """Whether the other side has not said yet who it is."""
        return not self._greeted


class PeerStreams(ClientFactory):
    """All streams of one node.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param addresses: the address of each peer.
    :param receive: called with every message that came over a stream from one of them.
    :param refused: called with the peer that is held, when that refuses a stream.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        codec: Codec,
        addresses: Mapping[str, Address],
        receive: Callable[[Received], None],
        refused: Callable[[str], None],
        counters: Counter[str],
    ) -> None:
        self.codec = codec
        self.counters = counters
        self.reactor = reactor
        self._addresses = addresses
        self._deliver = receive
        self._refused = refused
        self._held: str | None = None
        self._held_greeted = False
        self._hold_dials = 0
        self._open: dict[PeerStream, None] = {}
        self._streams: dict[str, PeerStream] = {}
        self._waiting: dict[str, PeerStream] = {}
        self._dials: dict[_Dial, IConnector] = {}
        self._port: IListeningPort | None = None
        self._stopped = False

    # from the node

    def listen(self, address: Address) -> None:
        """Take streams at ``address``.

        :raises twisted.internet.error.CannotListenError: if it is taken.
        """
        self._port = self.reactor.listenTCP(address.port, self, 50, address.host)

    def send(self, peer: str, data: bytes) -> None:
        """Send one message to ``peer``, connecting first where there is no stream yet."""
        if self._stopped:
            return
        if len(data) > FRAME_BYTES_MAX:
            self.counters["too big for a stream"] += 1
            return
        stream = self._streams.get(peer) or self._waiting.get(peer) or self._connect(peer)
        if not stream.send(data):
            self.counters["stream to a slow peer is full"] += 1

    def hold(self, peer: str | None) -> None:
        """Have a stream to ``peer`` from now on, and be told if it has had one and then refuses another. The one held
        before is not any more."""
        self._held = peer if peer in self._addresses else None
        self._held_greeted = peer in self._streams
        self._hold_dials = HOLD_DIALS_MAX
        self._hold_on()

    def stop(self) -> None:
        """Close everything."""
        self._stopped = True
        if self._port is not None:
            self._port.stopListening()
        for connector in list(self._dials.values()):
            connector.stopConnecting()
        for stream in list(self._open):
            if stream.transport is not None:
                stream.transport.abortConnection()

    # from Twisted

    def buildProtocol(self, addr: IAddress | None) -> PeerStream | None:
        """A connection came in. Few may stand open without having said who they are."""
        if self._stopped or sum(stream.is_stranger for stream in self._open) >= STRANGERS_MAX:
            self.counters["too many strangers on streams"] += 1
            return None
        return PeerStream(self, None)

    # from a stream

    def opened(self, stream: PeerStream) -> None:
        """The connection stands, in either direction."""
        self._open[stream] = None

    def greeted(self, stream: PeerStream) -> None:
        """The other side said who it is."""
        assert stream.peer is not None
        if stream.peer not in self._addresses:
            raise CodecError(f"{stream.peer} is not a peer")
        for other in list(self._open):
            # A peer connects again only if it has lost the stream it had, whatever our side of that still believes.
            if other is not stream and (other.peer, other.dialled) == (stream.peer, stream.dialled):
                other.transport.abortConnection()
        self._streams[stream.peer] = stream
        if stream.peer == self._held:
            self._held_greeted, self._hold_dials = True, HOLD_DIALS_MAX

    def received(self, received: Received) -> None:
        """A message came."""
        self._deliver(received)

    def closed(self, stream: PeerStream) -> None:
        """The connection is gone, or was never made."""
        self._open.pop(stream, None)
        for streams in (self._streams, self._waiting):
            if stream.peer is not None and streams.get(stream.peer) is stream:
                del streams[stream.peer]
        if stream.peer == self._held and stream.transport is not None:
            self._hold_on()

    def dial_failed(self, peer: str | None, reason: Failure) -> None:
        """No connection came of an attempt. Where nobody listens, the system says so itself."""
        self.counters["stream refused"] += 1
        if peer is not None and peer == self._held and self._held_greeted and reason.check(ConnectionRefusedError):
            self._held_greeted = False
            self._refused(peer)

    def dial_ended(self, dial: _Dial) -> bool:
        """An attempt to connect has come to its end; whether a connection is still wanted."""
        self._dials.pop(dial, None)
        return not self._stopped

    def _hold_on(self) -> None:
        """See to it that there is a stream to the peer that is held, or soon will be."""
        peer = self._held
        if peer is None or peer in self._streams or peer in self._waiting or self._stopped or not self._hold_dials:
            return
        self._hold_dials -= 1
        self._connect(peer)

    def _connect(self, peer: str) -> PeerStream:
        stream = self._waiting[peer] = PeerStream(self, peer)
        address = self._addresses[peer]
        dial = _Dial(self, stream)
        self._dials[dial] = self.reactor.connectTCP(address.host, address.port, dial, CONNECT_SECONDS)
        return stream


class _Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, streams: PeerStreams, stream: PeerStream) -> None:
        self._streams = streams
        self._stream = stream

    def buildProtocol(self, addr: IAddress | None) -> PeerStream | None:
        """The connection stands."""
        return self._stream if self._streams.dial_ended(self) else None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Nobody is there: what waited is lost, as a datagram would be."""
        wanted = self._streams.dial_ended(self)
        self._stream.connectionLost(reason)
        if wanted:
            self._streams.dial_failed(self._stream.peer, reason)
