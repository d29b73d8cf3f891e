"""Messages to peers and from them: datagrams where they fit, streams where they do not.

Some messages decide much: chosen values, what begins above them, snapshots, and what a node says of its state. These
take the stream that their receiver has opened, and so do the questions for them, so that nobody can slip one in who
does not receive what is sent to its sender's address. Where there is no such stream, the receiver is told in a datagram
that there is something to ask for.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IUDPTransport

from txpaxos.acquaintances import Acquaintances
from txpaxos.cluster import Cluster
from txpaxos.core.messages import ChosenValues, Fetch, NodeId, Truncated
from txpaxos.errors import CodecError
from txpaxos.streams import PeerStreams
from txpaxos.wire.codec import Codec, Received, Way
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX
from txpaxos.wire.peer_messages import AskAudit, Audit, Challenge, FetchSnapshot, PeerMessage, SnapshotPart

WAYS: dict[type[Any], Way] = {
    Fetch: Way.THEIR_STREAM,
    FetchSnapshot: Way.THEIR_STREAM,
    AskAudit: Way.THEIR_STREAM,
    ChosenValues: Way.OWN_STREAM,
    Truncated: Way.OWN_STREAM,
    SnapshotPart: Way.OWN_STREAM,
    Audit: Way.OWN_STREAM,
}
"""The way in which a message has to come to be believed, as its receiver sees it. All others may come in any way."""

RECEIVE_BUFFER_BYTES = 4 * 2**20
"""Asked of the kernel: what arrives while the reactor is busy waits there (its default holds 166 small datagrams)."""


class Network:
    """One node's way to its peers. What cannot be sent is counted, and the algorithm sends it again.

    :param acquaintances: what this node knows of its peers.
    :param new_token: makes numbers of 64 bits that nobody can guess.
    :param deliver: called with everything that comes from a peer. What comes from anybody else, or is not a message of
        this cluster, is counted and changes nothing.
    :param refused: called with the peer that is held (:meth:`hold`), when nobody takes streams there any more.
    """

    def __init__(
        self,
        reactor: Any,
        node: NodeId,
        cluster: Cluster,
        incarnation: int,
        acquaintances: Acquaintances,
        new_token: Callable[[], int],
        deliver: Callable[[Received], None],
        refused: Callable[[NodeId], None],
        counters: Counter[str],
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._codec = Codec(cluster.name, node, incarnation)
        self._deliver = deliver
        self._counters = counters
        peers = {name: member.address for name, member in cluster.members.items() if name != node}
        self._peers = {name: (address.host, address.port) for name, address in peers.items()}
        self._streams = PeerStreams(
            reactor, self._codec, peers, acquaintances, new_token, self._send_small, deliver, refused, counters
        )
        self._send_datagram: Callable[[bytes, tuple[str, int]], object] | None = None

    def start(self, transport: IUDPTransport) -> None:
        """Begin to send and to take streams.

        :raises twisted.internet.error.CannotListenError: if the address is taken.
        """
        self._send_datagram = transport.write
        kernel_socket = getattr(transport, "socket", None)
        if kernel_socket is not None:  # A simulated transport has none.
            kernel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            # The transport's write looks at the address from all sides each time, which takes longer than to send.
            self._send_datagram = kernel_socket.sendto
        if self._peers:
            self._streams.listen(self._cluster.members[self._node].address)

    def stop(self) -> None:
        """Send nothing more; close the streams."""
        self._send_datagram = None
        self._streams.stop()

    def hold(self, peer: NodeId | None) -> None:
        """Learn soon, and not from its silence, if the process of ``peer`` ends."""
        self._streams.hold(peer)

    def meet(self, peer: NodeId) -> None:
        """See to it that there is a stream to ``peer``, over which both get to know each other."""
        self._streams.meet(peer)

    def send(self, to: Iterable[NodeId], message: PeerMessage) -> None:
        """Encode ``message`` once and send it to each of ``to`` that is a peer."""
        data = self._codec.encode(message)
        way = WAYS.get(type(message))
        for peer in to:
            if peer not in self._peers:
                continue
            if way is None:
                if len(data) > DATAGRAM_BYTES_MAX:
                    self._streams.send(peer, data)
                else:
                    self._send_small(peer, data)
            elif way is Way.THEIR_STREAM:
                self._streams.ask(peer, data)
            elif not self._streams.answer(peer, data):
                self._hint(peer, message)

    def _hint(self, peer: NodeId, message: PeerMessage) -> None:
        """``peer`` has no stream over which it would believe ``message``: let it know that there is one to ask for."""
        if isinstance(message, ChosenValues):
            message = ChosenValues(message.first_slot, (), message.chosen_through)
        if not isinstance(message, SnapshotPart):
            self._send_small(peer, self._codec.encode(message))

    def _send_small(self, peer: NodeId, data: bytes) -> None:
        if self._send_datagram is not None:
            try:
                self._send_datagram(data, self._peers[peer])
            except OSError:  # A full buffer, a network that is down.
                self._counters["datagram not sent"] += 1

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Take one datagram."""
        try:
            received = self._codec.decode(data)
        except CodecError:
            self._counters["bad datagram"] += 1
            return
        if self._peers.get(received.sender) != address[:2]:
            self._counters["datagram of a stranger"] += 1
            return
        if type(received.message) is Challenge:
            self._streams.prove(received.sender, received.message.token)
        else:
            self._deliver(received)
