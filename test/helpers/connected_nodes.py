"""Nodes in one reactor, with streams between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.python.failure import Failure

from test.helpers.fakes import NodesInOneReactor
from txpaxos.core.messages import NodeId
from txpaxos.core.ready import PeerMet
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter

LINE_SECONDS = 0.0005


class Wire:
    """One end of a stream. Bytes written here arrive at the other end, or break the stream where the link is cut."""

    def __init__(self, connected: ConnectedNodes, here: NodeId, there: NodeId) -> None:
        self.protocol: Any = None
        self.other: Wire
        self._joined = connected
        self._line = here, there
        self._lost = False
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)

    def write(self, data: bytes) -> None:
        if not self._joined.keys:
            codec = Codec(self._joined.cluster.name, self._line[1], members=self._joined.cluster.founding_members)
            self._joined.sent += [(*self._line, codec.decode(message).message) for message in self._splitter.feed(data)]
        self._joined.wires.append((*self._line, data))
        self._joined.streamed[self._line] = self._joined.streamed.get(self._line, 0) + len(data)
        self._joined.reactor.callLater(LINE_SECONDS, self._carry, data)

    def abortConnection(self) -> None:
        for end in (self, self.other):
            self._joined.reactor.callLater(0, end._lose)

    def loseConnection(self) -> None:
        for end in (self, self.other):
            self._joined.reactor.callLater(LINE_SECONDS, end._lose)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def _carry(self, data: bytes) -> None:
        if self._line in self._joined.cut:
            self.abortConnection()
        elif not self._lost:
            self.other.protocol.dataReceived(data)

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


class ConnectedNodes(NodesInOneReactor):
    """:class:`~test.helpers.fakes.NodesInOneReactor` with streams.

    :param keys: the keys of each node; none if keys are off.
    :ivar streamed: the bytes sent on streams, by (from, to).
    :ivar wires: all bytes sent on streams, in order, each as (from, to, bytes).
    """

    def __init__(self, *args: Any, keys: Mapping[NodeId, Any] | None = None, **options: Any) -> None:
        self.streamed: dict[tuple[NodeId, NodeId], int] = {}
        self.wires: list[tuple[NodeId, NodeId, bytes]] = []
        self.keys = dict(keys or {})
        super().__init__(*args, **options)

    def _met(self, node: NodeId) -> list[PeerMet]:
        return []

    def keys_of(self, node: NodeId) -> Any:
        """The keys of ``node``; ``None`` without keys."""
        return self.keys.get(node)

    def _prepare(self) -> None:
        reactor: Any = self.reactor
        reactor.connectTCP = self._connect

    def _connect(self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None) -> object:
        there = self._names.get((host, port), "")
        dial = getattr(factory, "wrappedFactory", factory)
        (here,) = (name for name, node in self.nodes.items() if node._peers._streams is dial._streams)
        self.reactor.callLater(LINE_SECONDS, self._join, here, there, factory)
        return _Connector()

    def _join(self, here: NodeId, there: NodeId, dial: Any) -> None:
        if there not in self.nodes or (here, there) in self.cut:
            dial.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return
        host = self.cluster.members[there].address.host
        listening = [server[1] for server in self.reactor.tcpServers if server[3] == host][-1]
        ends = Wire(self, here, there), Wire(self, there, here)
        source: Any = IPv4Address("TCP", self.cluster.members[here].address.host, 50000)
        protocols: tuple[Any, Any] = dial.buildProtocol(None), listening.buildProtocol(source)
        if None in protocols:  # One of them has stopped meanwhile.
            return
        for end, other, protocol in zip(ends, ends[::-1], protocols, strict=True):
            end.other, end.protocol = other, protocol
        for end in ends:
            end.protocol.makeConnection(end)


class _Connector:
    def stopConnecting(self) -> None:
        pass
