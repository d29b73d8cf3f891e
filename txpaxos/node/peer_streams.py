"""Streams between nodes, for messages too big for a datagram and for critical ones.

Each node opens one stream to every peer, at the address that the cluster file has for the peer. So a pair of nodes has
two streams, and it matters over which of them a message goes:

* A request whose answer is critical (chosen values, a snapshot) goes over the requester's own stream, and the answer
  comes back over the same stream. An attacker who does not receive what is sent to the peer's address cannot forge it.
* Everything else may go over either stream.

The handshake: the node that opens a stream sends Hello. The other node sends a random number, as a datagram, to the
address of the member that the Hello names. The opener sends that number back on the stream. So it has shown that it
receives what is sent to that address. Only then does the other node answer with its own Hello, send anything else, and
close the older stream of that peer.

A stream promises no more than a datagram: what cannot be sent is dropped and counted, and the algorithm sends it again.
So this module never sends anything twice, and the bytes that wait for a slow peer are bounded.

A stream also shows when a process ends, for its system closes its streams. A closed stream alone proves little. But if
the peer had a stream, and its system refuses a new one, no process listens there any longer.
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

from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address
from txpaxos.eager_writer import EagerWriter
from txpaxos.errors import CodecError
from txpaxos.host_names import connect, is_ip_address
from txpaxos.node.counts import Count, Counts
from txpaxos.node.known_peers import KnownPeers
from txpaxos.wire.codec import FRAME_BYTES_MAX_OF_KIND, Codec, Received, Way
from txpaxos.wire.frames import FRAME_BYTES_MAX, TLS_ALERT, TLS_HANDSHAKE, FrameSplitter, frame
from txpaxos.wire.peer_messages import Challenge, Hello, Proof

WAITING_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""Upper bound on the bytes that wait for one peer. Messages beyond it are dropped."""

ANSWER_BYTES_WAITING_MAX = 4 * 2**20
"""Upper bound on the bytes of answers that wait for one peer. Beyond it the peer's requests are not answered, for it
does not read the answers."""

UNAUTHENTICATED_STREAMS_MAX = 64
"""Upper bound on incoming connections whose handshake is not complete. For one more, a connection is closed: the oldest
one of the address that has most of them."""

CONNECT_SECONDS = 2.0
RECONNECTS_MAX = 8
"""How often in a row the stream to a monitored peer is opened again when it ends before its handshake. A dying process
may keep its port a moment longer than its streams."""

RECONNECT_SECONDS = 0.25
RECONNECT_SECONDS_MAX = 4.0
"""The longest time until a stream that ended, or could not be opened, is tried again. The first wait is
:data:`RECONNECT_SECONDS`, and it doubles with each failure."""

HANDSHAKE_SECONDS = 5.0
"""How long the handshake of a connection may take before the connection is closed."""

CHALLENGE_SECONDS = 0.2
"""The time until the random number of the handshake is sent again."""

GOODBYE_SECONDS = 5.0
"""How long a peer that was removed has to read what waits for it. Then its streams are closed all the same."""


@implementer(IPushProducer)
class PeerStream(Protocol):
    """One connection. Until the handshake is complete only short frames are accepted, and messages to send wait.

    :param peer: the peer to which this node opened the connection; ``None`` for an incoming connection.
    :param host: the address that an incoming connection came from.
    :param token: the random number that the other side of an incoming connection has to send back.
    :ivar is_established: whether the handshake is complete.
    :ivar address: the address to which this node opened the connection; ``None`` for an incoming connection.
    """

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, streams: PeerStreams, peer: str | None, host: str = "", token: int = 0) -> None:
        self.peer = peer
        self.host = host
        self.token = token
        self.dialled = peer is not None
        self._way = Way.OWN_STREAM if self.dialled else Way.THEIR_STREAM
        self.is_established = False
        self.address: Address | None = None
        self._streams = streams
        self._splitter = FrameSplitter(kinds=FRAME_BYTES_MAX_OF_KIND)
        self._writer: EagerWriter
        self._incarnation: int | None = None
        self._paused = False
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._deadline: IDelayedCall | None = None
        self._challenging: IDelayedCall | None = None

    # from Twisted

    def connectionMade(self) -> None:
        """Begin the handshake: the node that opened the connection sends Hello."""
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._writer = EagerWriter(self.transport)
        self._streams.opened(self)
        self._deadline = self._streams.clock.callLater(HANDSHAKE_SECONDS, self._take_too_long)
        if self.dialled:
            self._write(self._streams.codec.encode(Hello()))

    def dataReceived(self, data: bytes) -> None:
        """Handle the frames that are complete with ``data``. A malformed one closes the connection."""
        try:
            for message in self._splitter.feed(data):
                self._receive(self._streams.codec.decode(message, self._way))
        except CodecError:
            self._streams.counters[Count.BAD_FRAME] += 1
            if self._incarnation is None and data[:2] in (TLS_ALERT, TLS_HANDSHAKE):
                self._streams.report_tls(self)
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Drop what waits to be sent, and tell the owner that the connection is closed."""
        self._stop_timers()
        self._queue.clear()
        self._queued_bytes = 0
        self._streams.closed(self)

    def pauseProducing(self) -> None:
        """Let messages wait: the peer reads more slowly than this node writes."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send the messages that wait: the transport's buffer is empty."""
        self._paused = False
        self._writer.on_drain()
        while self._queue and self.is_established and not self._paused:
            data = self._queue.popleft()
            self._queued_bytes -= len(data)
            self._write(data)

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` follows."""

    # from the streams

    def send(self, data: bytes, waiting_bytes_max: int) -> bool:
        """Send one message, or let it wait.

        :returns: whether there was room. There always is room for one message.
        """
        if self._queued_bytes and self._queued_bytes + len(data) > waiting_bytes_max:
            return False
        if self._paused or not self.is_established:
            self._queue.append(data)
            self._queued_bytes += len(data)
        else:
            self._write(data)
        return True

    def send_proof(self, token: int) -> None:
        """Send back the random number that came to this node's address, if the handshake is still open."""
        if self._incarnation is None and self.transport is not None:
            self._write(self._streams.codec.encode(Proof(token)))

    def _take_too_long(self) -> None:
        """Close the connection, whose handshake is not complete in time."""
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abortConnection()

    def end(self) -> None:
        """Close the connection after the messages that wait are sent. They may say why this node stops."""
        if self.transport is not None:
            while self.is_established and self._queue:
                self._write(self._queue.popleft())
            self.transport.unregisterProducer()  # TLS does not close a connection that has a producer.
            (self.transport.loseConnection if self.is_established else self.transport.abortConnection)()

    def dismiss(self) -> None:
        """Close the connection, since the peer was removed: after the messages that wait, but soon."""
        self._stop_timers()
        self._deadline = self._streams.clock.callLater(GOODBYE_SECONDS, self.abort)
        self.end()

    def _write(self, data: bytes) -> None:
        self._writer.write(frame(data))

    def _receive(self, received: Received) -> None:
        if self.is_established:
            if received.sender != self.peer:
                raise CodecError(f"{self.peer} spoke as {received.sender} on its stream")
            self._streams.received(received)
        elif self._incarnation is None:
            self._receive_hello(received)
        elif isinstance(received.message, Proof) and received[:2] == (self.peer, self._incarnation):
            if received.message.token == self.token:
                self._streams.check_hello(*received[:2])  # The peer may have been removed meanwhile.
                self._write(self._streams.codec.encode(Hello()))
                self._establish()
        else:
            raise CodecError("after its Hello a node must send the number that was sent to its address")

    def _receive_hello(self, received: Received) -> None:
        """Handle the first message on the connection, which must be a Hello."""
        sender, incarnation, message, _ = received
        if not isinstance(message, Hello) or self.peer not in (None, sender):
            raise CodecError("the first message on a stream must be its peer's Hello")
        self._streams.check_hello(sender, incarnation)
        self.peer = sender
        self._incarnation = incarnation
        if self.dialled:
            self._establish()
        else:
            self._answer_hello()

    def _answer_hello(self) -> None:
        """Answer the Hello of the node that opened the connection: find out whether it is the node that it claims to
        be."""
        self._challenge()

    def _challenge(self) -> None:
        """Send the random number to the address of the member that the other side claims to be, until it comes back."""
        assert self.peer is not None
        self._challenging = self._streams.clock.callLater(CHALLENGE_SECONDS, self._challenge)
        self._streams.challenge(self.peer, self.token)

    def _establish(self) -> None:
        """Complete the handshake, and send the messages that wait."""
        assert self.peer is not None
        assert self._incarnation is not None
        self.is_established = True
        self._stop_timers()
        self._splitter.frame_bytes_max = FRAME_BYTES_MAX
        self._streams.handshake_done(self, self.peer, self._incarnation)
        self.resumeProducing()

    def _stop_timers(self) -> None:
        for timer in (self._deadline, self._challenging):
            if timer is not None and timer.active():
                timer.cancel()


class PeerStreams(ClientFactory):
    """All streams of one node.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param addresses: the address of each peer. It may change.
    :param known_peers: the incarnations of the peers.
    :param new_token: returns an unpredictable number of 64 bits.
    :param send_datagram: sends a datagram to a peer.
    :param receive: called with each message that came over a stream from a peer.
    :param refused: called with the monitored peer (:meth:`keep_open`) when its system refuses a new stream.
    :ivar proved: called with a peer that has shown, on a stream that it opened, that it receives what is sent to it.
    :ivar keys_needed: called with the peer, if it is known, and the address of a node that speaks TLS, while this node
        has no keys.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        codec: Codec,
        addresses: Mapping[str, Address],
        known_peers: KnownPeers,
        new_token: Callable[[], int],
        send_datagram: Callable[[str, bytes], None],
        receive: Callable[[Received], None],
        refused: Callable[[str], None],
        counters: Counts,
    ) -> None:
        self.codec = codec
        self.counters = counters
        self.proved: Callable[[str], None] = lambda peer: None
        self.keys_needed: Callable[[str | None, str], None] = lambda peer, host: None
        self.reactor = reactor
        self.clock = monotonic_clock(reactor)
        self._addresses = addresses
        self._known_peers = known_peers
        self._new_token = new_token
        self._send_datagram = send_datagram
        self._deliver = receive
        self._refused = refused
        self._kept_open: str | None = None
        self._kept_was_established = False
        self._reconnects_left = 0
        self._open: dict[PeerStream, None] = {}
        # The streams that this node opened, established or not; and those that peers opened, all established.
        self._own: dict[str, PeerStream] = {}
        self._theirs: dict[str, PeerStream] = {}
        self._dials: dict[_Dial, IConnector] = {}
        self._reconnects: dict[str, IDelayedCall] = {}
        self._failures: Counter[str] = Counter()
        self._ports: list[IListeningPort] = []
        self._stopped = False

    # from the node

    def listen(self, address: Address) -> None:
        """Accept streams at ``address``, too, and keep a stream open to each peer from now on.

        :raises twisted.internet.error.CannotListenError: if the address is taken.
        """
        self._ports.append(self.reactor.listenTCP(address.port, self._listening_factory(), 50, address.host))
        for peer in self._addresses:
            self.open_stream(peer)

    def send(self, peer: str, data: bytes) -> None:
        """Send a message to ``peer`` over any stream. A new one is opened if there is none."""
        own = self._own.get(peer)
        self._send(peer, data, own if own is not None and own.is_established else self._theirs.get(peer) or own)

    def send_request(self, peer: str, data: bytes) -> None:
        """Send a request to ``peer`` over this node's own stream. The answer comes back over the same stream."""
        self._send(peer, data, self._own.get(peer))

    def send_reply(self, peer: str, data: bytes) -> bool:
        """Send an answer to ``peer`` over the stream that the peer opened.

        :returns: whether there is such a stream.
        """
        stream = self._theirs.get(peer)
        if stream is not None:
            self._send(peer, data, stream, ANSWER_BYTES_WAITING_MAX)
        return stream is not None

    def open_stream(self, peer: str) -> None:
        """Open a stream to ``peer``, if this node has opened none."""
        if peer not in self._own and peer in self._addresses and not self._stopped:
            self._connect(peer)

    def drop_stream(self, peer: str) -> None:
        """Close the stream that this node opened to ``peer``, if the peer has another address now."""
        own = self._own.get(peer)
        if own is not None and own.address != self._addresses[peer]:
            own.abort()

    def send_proof(self, peer: str, token: int) -> None:
        """Send the random number ``token``, which came from ``peer``, back on this node's own stream to it."""
        own = self._own.get(peer)
        if own is not None:
            own.send_proof(token)

    def keep_open(self, peer: str | None) -> None:
        """Monitor ``peer`` instead of the one monitored before, or no peer.

        A stream to it is kept open, so that ``refused`` is called soon after the peer's process has ended.
        """
        self._kept_open = peer if peer in self._addresses else None
        own = None if peer is None else self._own.get(peer)
        self._kept_was_established = peer in self._theirs or (own is not None and own.is_established)
        self._reconnects_left = RECONNECTS_MAX
        self._ensure_kept_open()

    def stop(self) -> None:
        """Close all streams and ports."""
        self._stopped = True
        for port in self._ports:
            port.stopListening()
        for reconnect in self._reconnects.values():
            reconnect.cancel()
        self._reconnects.clear()
        for connector in list(self._dials.values()):
            connector.stopConnecting()
        for stream in list(self._open):
            stream.end()

    # who the peers are

    def add_peer(self, peer: str) -> None:
        """Keep a stream open to ``peer``, too, which has an address now."""
        if self._ports:
            self.open_stream(peer)

    def remove_peer(self, peer: str) -> None:
        """Close the streams of ``peer``, which has no address any more, and open none again."""
        if peer == self._kept_open:
            self._kept_open = None
        self._failures.pop(peer, None)
        reconnect = self._reconnects.pop(peer, None)
        if reconnect is not None and reconnect.active():
            reconnect.cancel()
        self._own.pop(peer, None)
        self._theirs.pop(peer, None)
        self._stop_dials(peer)
        for stream in list(self._open):
            if stream.peer == peer:
                stream.dismiss()

    def move_peer(self, peer: str) -> None:
        """Try the new address of ``peer`` at once, unless a stream to the old one works."""
        self._failures.pop(peer, None)
        self._stop_dials(peer)
        own = self._own.get(peer)
        if own is not None and not own.is_established:
            self.drop_stream(peer)
        self.add_peer(peer)

    # from Twisted

    def logPrefix(self) -> str:
        """What Twisted calls these streams in its own lines of the log."""
        return "streams of peers:"

    def buildProtocol(self, addr: IAddress | None) -> PeerStream | None:
        """Accept an incoming connection. Too many without a handshake displace each other."""
        if self._stopped:
            return None
        unauthenticated = [stream for stream in self._open if not stream.is_established and not stream.dialled]
        if len(unauthenticated) >= UNAUTHENTICATED_STREAMS_MAX:
            self.counters[Count.TOO_MANY_UNAUTHENTICATED_STREAMS] += 1
            displaced = self._displaced(unauthenticated)
            del self._open[displaced]
            displaced.abort()
        return self._new_stream(None, getattr(addr, "host", ""), self._new_token())

    def _displaced(self, unauthenticated: list[PeerStream]) -> PeerStream:
        """The connection to close for a new one: the oldest of the address that has most connections.

        Connections from the addresses of members are spared if there are others.
        """
        members = {address.host for address in self._addresses.values()}
        others = [stream for stream in unauthenticated if stream.host not in members] or unauthenticated
        hosts = Counter(stream.host for stream in others)
        host, _ = hosts.most_common(1)[0]
        return next(stream for stream in others if stream.host == host)

    # from a stream

    def opened(self, stream: PeerStream) -> None:
        """Note a new connection, opened by either side."""
        self._open[stream] = None

    def check_hello(self, peer: str, incarnation: int) -> None:
        """Check the sender of a Hello.

        :raises CodecError: if it is no peer, or a peer that has another data folder than before.
        """
        if peer not in self._addresses:
            raise CodecError(f"{peer} is not a peer")
        if not self._known_peers.admits(peer, incarnation):
            raise CodecError(f"{peer} has another data folder than before")

    def report_tls(self, stream: PeerStream) -> None:
        """Report a connection whose other side speaks TLS, while this node has no keys."""
        host = stream.host if stream.peer is None else self._addresses[stream.peer].host
        self.keys_needed(stream.peer, host)

    def challenge(self, peer: str, token: int) -> None:
        """Send the random number ``token`` to the address of ``peer``, as a datagram."""
        self._send_datagram(peer, self.codec.encode(Challenge(token)))

    def handshake_done(self, stream: PeerStream, peer: str, incarnation: int) -> None:
        """Use ``stream`` from now on: its other side has shown that it is ``peer``."""
        self._known_peers.remember(peer, incarnation)
        self._failures[peer] = 0
        if peer == self._kept_open:
            self._kept_was_established, self._reconnects_left = True, RECONNECTS_MAX
        if stream.dialled:
            return
        self.proved(peer)
        old = self._theirs.get(peer)
        self._theirs[peer] = stream
        if old is not None:
            self._replace(old)
        if self._ports:
            self.open_stream(peer)  # It runs, so it can be reached now.

    def received(self, received: Received) -> None:
        """Deliver a message that came over an established stream, unless its sender was removed meanwhile."""
        if received.sender in self._addresses:
            self._deliver(received)
        else:
            self.counters[Count.MESSAGE_OF_A_FORMER_PEER] += 1

    def closed(self, stream: PeerStream) -> None:
        """Forget a connection that is closed or could not be opened. It is opened again later."""
        self._open.pop(stream, None)
        peer = stream.peer
        if peer is None:
            return
        was_own = self._own.get(peer) is stream
        for streams in (self._own, self._theirs):
            if streams.get(peer) is stream:
                del streams[peer]
        if peer == self._kept_open and stream.transport is not None:
            self._ensure_kept_open()
        if was_own:
            self._reconnect_later(peer)

    def dial_failed(self, peer: str | None, reason: Failure) -> None:
        """Count an attempt that failed. If the system of the monitored peer refused it, no process listens there."""
        self.counters[Count.STREAM_REFUSED] += 1
        if (
            peer is not None
            and peer == self._kept_open
            and self._kept_was_established
            and reason.check(ConnectionRefusedError)
        ):
            self._kept_was_established = False
            self._refused(peer)

    def dial_ended(self, dial: _Dial) -> bool:
        """Note that an attempt to connect has ended.

        :returns: whether the connection is still wanted.
        """
        self._dials.pop(dial, None)
        return not self._stopped and dial.peer in self._addresses

    # inside

    def _replace(self, old: PeerStream) -> None:
        """Close the stream of a peer that has opened a newer one.

        A peer connects again only if it has lost its old stream, even if this side has not noticed that yet."""
        old.abort()

    def _send(
        self, peer: str, data: bytes, stream: PeerStream | None, waiting_bytes_max: int = WAITING_BYTES_MAX
    ) -> None:
        if self._stopped:
            return
        if len(data) > FRAME_BYTES_MAX:
            self.counters[Count.TOO_BIG_FOR_A_STREAM] += 1
        elif not (stream or self._connect(peer)).send(data, waiting_bytes_max):
            self.counters[Count.STREAM_FULL] += 1

    def _ensure_kept_open(self) -> None:
        """Open a stream to the monitored peer, if it has none and no attempt is under way."""
        peer = self._kept_open
        if peer is None or peer in self._own or peer in self._theirs or self._stopped or not self._reconnects_left:
            return
        self._reconnects_left -= 1
        self._connect(peer)

    def _reconnect_later(self, peer: str) -> None:
        """Open a stream to ``peer`` again after a while, unless one is being opened already."""
        if not self._ports or self._stopped or peer in self._own:
            return
        seconds = min(RECONNECT_SECONDS * 2 ** min(self._failures[peer], 8), RECONNECT_SECONDS_MAX)
        self._failures[peer] += 1
        self._reconnects[peer] = self.clock.callLater(seconds, self.open_stream, peer)

    def _stop_dials(self, peer: str) -> None:
        for dial, connector in list(self._dials.items()):
            if dial.peer == peer:
                connector.stopConnecting()

    def _connect(self, peer: str) -> PeerStream:
        reconnect = self._reconnects.pop(peer, None)
        if reconnect is not None and reconnect.active():
            reconnect.cancel()
        stream = self._own[peer] = self._new_stream(peer)
        self._dial(stream, peer)
        return stream

    def _dial(self, stream: PeerStream, peer: str) -> None:
        address = stream.address = self._addresses[peer]
        dial = _Dial(self, stream)
        factory = self._dialling_factory(dial, peer)
        if is_ip_address(address.host):  # The peer's name was looked up lately.
            connector = self.reactor.connectTCP(address.host, address.port, factory, CONNECT_SECONDS)
        else:
            connector = connect(self.reactor, address, factory, CONNECT_SECONDS)
        self._dials[dial] = connector

    # what keys change

    def _new_stream(self, peer: str | None, host: str = "", token: int = 0) -> PeerStream:
        return PeerStream(self, peer, host, token)

    def _listening_factory(self) -> Any:
        """What makes the protocol of an incoming connection."""
        return self

    def _dialling_factory(self, dial: _Dial, peer: str) -> Any:
        """What makes the protocol of a connection to ``peer``."""
        return dial


class _Dial(ClientFactory):
    """One attempt to connect.

    :ivar peer: the peer to which.
    """

    noisy = False

    def __init__(self, streams: PeerStreams, stream: PeerStream) -> None:
        self._streams = streams
        self._stream = stream
        self.peer = stream.peer

    def buildProtocol(self, addr: IAddress | None) -> PeerStream | None:
        """Use the stream that waits for this connection."""
        return self._stream if self._streams.dial_ended(self) else None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Drop the messages that wait, as lost datagrams are."""
        wanted = self._streams.dial_ended(self)
        self._stream.connectionLost(reason)
        if wanted:
            self._streams.dial_failed(self._stream.peer, reason)
