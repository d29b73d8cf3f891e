"""A node's sockets for datagrams, as Twisted wants them."""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol

from txpaxos.cluster import Address
from txpaxos.node.node import Node


class DatagramPort(DatagramProtocol):
    """A socket of a node. That the first one is open starts the node; the node gives up if that one is closed.

    The application is a ``DatagramProtocol``, too, and could be listened with. This one leaves it all its names.

    :param address: where a further socket listens; ``None`` for the first.
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
        """The socket is open."""
        if self._address is None:
            self._node.start(self.transport)
        else:
            self._node.listen_also(self.transport, self._address)

    def stopProtocol(self) -> None:
        """The socket was closed."""
        if self._address is None:
            self._node.port_closed()
