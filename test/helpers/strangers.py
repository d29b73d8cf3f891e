"""Connections of strangers to the streams of a node with keys, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from test.helpers.fakes import StreamTransport, framed
from test.helpers.tls_pair import End
from txpaxos.keys.factories import TlsFactory

HOST = "10.9.9.9"


class Stranger:
    """Connects to a node.

    :param nodes: the nodes, of which one is ``there``.
    :param creator: makes the TLS of the stranger; ``None`` if it speaks none.
    :ivar end: what it has received, and why the connection was lost.
    """

    def __init__(self, nodes: Any, there: str, creator: Any, host: str = HOST) -> None:
        self.end = End()
        self._reactor = nodes.reactor
        address = nodes.cluster.members[there].address.host
        listening = [server[1] for server in nodes.reactor.tcpServers if server[3] == address][-1]
        self._here: Any = self.end
        if creator is not None:
            factory: Any = Factory.forProtocol(lambda: self.end)
            self._here = TlsFactory(creator, True, factory, nodes.reactor).buildProtocol(None)
        self._there = listening.buildProtocol(IPv4Address("TCP", host, 50000))
        self._ends = (self._here, StreamTransport()), (self._there, StreamTransport())
        self._is_lost = False
        for protocol, transport in self._ends:
            protocol.makeConnection(transport)
        self.run()

    @property
    def is_refused(self) -> bool:
        """Whether the node has closed the connection."""
        return self._is_lost

    def say(self, *messages: bytes) -> None:
        """Send messages as frames."""
        if not self._is_lost:
            self._here.write(framed(*messages)) if self._here is not self.end else self._ends[0][1].write(
                framed(*messages)
            )
            self.run()

    def run(self) -> None:
        """Carry bytes until there are none. The side that closes first closes both."""
        (here, from_here), (there, from_there) = self._ends
        for _ in range(50):
            self._reactor.turn()
            if self._is_lost:
                return
            out, back = from_here.take(), from_there.take()
            if out:
                there.dataReceived(out)
            if back:
                here.dataReceived(back)
            if not out and not back and (from_here.disconnecting or from_there.disconnecting):
                self._is_lost = True
                for protocol in (here, there):
                    protocol.connectionLost(Failure(ConnectionDone()))
