"""The datagram sockets of a node, as Twisted protocols."""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol

from txpaxos.cluster import Address
from txpaxos.node.node import Node


class DatagramPort(DatagramProtocol):
    """One datagram socket of a node. The node starts when the first one is open, and gives up when that is closed.

    The application is a ``DatagramProtocol``, too, and could be used instead. With this class the node needs no names
    of the application.

    :param address: the address of a further socket; ``None`` for the first one.
    """

    noisy = False

    def __init__(self, node: Node, address: Address | None = None) -> None:
        self._node = node
        self._address = address
        self.datagramReceived = node.datagram_received  # type: ignore[method-assign, assignment]

    def logPrefix(self) -> str:
        """What Twisted calls this socket in its own lines of the log."""
        return f"node {self._node.name}, datagrams of peers:"

    def startProtocol(self) -> None:
        """Start the node, or let it use one more socket."""
        if self._address is None:
            self._node.start(self.transport)
        else:
            self._node.listen_also(self.transport, self._address)

    def stopProtocol(self) -> None:
        """Tell the node that its first socket was closed."""
        if self._address is None:
            self._node.port_closed()
