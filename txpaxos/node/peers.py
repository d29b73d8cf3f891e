"""Messages to peers and from peers, by datagram where they fit and by stream where they do not.

Some messages are critical, since a forged one would do harm: chosen values, the notice that values were dropped, parts
of snapshots, state digests, introductions, the call to take over the lead. A receiver believes these only on the stream
that it has opened to their sender itself. The requests for them take the same stream. So an attacker who does not
receive what is sent to the sender's address cannot forge them. If the receiver has opened no stream, it gets the
message as a datagram, which it takes for a hint that there is something to ask for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeAlias

from twisted.internet.interfaces import IUDPTransport

from txpaxos.cluster import Address, Cluster
from txpaxos.core.messages import ChosenValues, Fetch, NodeId, TakeOver, Truncated
from txpaxos.errors import CodecError, OtherCluster
from txpaxos.host_names import canonical_host, look_up_in_thread
from txpaxos.node.counts import Count, Counts
from txpaxos.node.known_peers import KnownPeers
from txpaxos.node.peer_addresses import Endpoint, PeerAddresses
from txpaxos.node.peer_reports import PeerReports
from txpaxos.node.peer_streams import PeerStreams
from txpaxos.node.refusals import Refusals
from txpaxos.wire.codec import REFUSAL_KIND, Codec, Received, Way
from txpaxos.wire.frames import DATAGRAM_BYTES_MAX
from txpaxos.wire.header import KIND_AT
from txpaxos.wire.peer_messages import (
    AskClock,
    AskStateDigest,
    Challenge,
    ClockReading,
    CollectRegisters,
    Fetching,
    FetchSnapshot,
    Introduction,
    PeerMessage,
    Refusal,
    RegisterVotes,
    Removed,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)
from txpaxos.wire.sealed import SEALED_MAGIC

REQUIRED_WAYS: dict[type[Any], Way] = {
    Fetch: Way.THEIR_STREAM,
    FetchSnapshot: Way.THEIR_STREAM,
    AskStateDigest: Way.THEIR_STREAM,
    ChosenValues: Way.OWN_STREAM,
    Truncated: Way.OWN_STREAM,
    TakeOver: Way.OWN_STREAM,
    SnapshotPart: Way.OWN_STREAM,
    StateDigest: Way.OWN_STREAM,
    Introduction: Way.OWN_STREAM,
    StateDigestsHeard: Way.OWN_STREAM,
    Fetching: Way.THEIR_STREAM,
    Removed: Way.OWN_STREAM,
    CollectRegisters: Way.THEIR_STREAM,
    RegisterVotes: Way.OWN_STREAM,
    AskClock: Way.THEIR_STREAM,
    ClockReading: Way.OWN_STREAM,
}
"""How each kind of critical message must come to be believed, from the receiver's view. All others may come any way."""

SendDatagram: TypeAlias = Callable[[bytes, Endpoint], object]

CHECK_SECONDS = 0.05
"""The shortest time between two checks for silent peers. :meth:`Peers.tick` is called far more often."""

REFUSAL_SECONDS = 1.0
"""The time between two :class:`~txpaxos.wire.peer_messages.Refusal` messages to a refused peer, at the addresses that
it has in this node's cluster file."""

UNMET_SECONDS = 5 * REFUSAL_SECONDS
"""When datagrams come from a peer for this long, and neither node reaches the other by TCP, that is logged."""

FORMER_PEERS_MAX = 64
"""The most former peers that are told that they are out."""

OTHERS_ANSWERED_MAX = 8
"""Nodes of other clusters that are told so in :data:`REFUSAL_SECONDS`. Each gets one short datagram.
The limit is low since addresses may be forged."""

RECEIVE_BUFFER_BYTES = 4 * 2**20
"""The receive buffer that the kernel is asked for. Datagrams wait in it while the reactor is busy. The kernel's default
holds 166 small ones."""


class Peers:
    """The peers of one node: sends messages to them and receives messages from them.

    A message that cannot be sent is dropped and counted. The algorithm sends it again.

    :param incarnation: the incarnation of this node's data folder.
    :param known_peers: the incarnations of the peers.
    :param new_token: returns an unpredictable number of 64 bits.
    :param deliver: called with each message from a peer. A message from another sender, or of another cluster, is
        counted and changes nothing.
    :param refused: called with the monitored peer (:meth:`keep_open`) when its system refuses new streams.
    :ivar refusals: the senders that this node refuses, and why.
    """

    def __init__(
        self,
        reactor: Any,
        node: NodeId,
        cluster: Cluster,
        incarnation: int,
        known_peers: KnownPeers,
        new_token: Callable[[], int],
        deliver: Callable[[Received], None],
        refused: Callable[[NodeId], None],
        counters: Counts,
    ) -> None:
        self._node = node
        self._own = cluster.members[node]
        self._codec = Codec(cluster.name, node, incarnation, cluster.founding_members)
        self._deliver = deliver
        self._known_peers = known_peers
        self._counters = counters
        peers = {name: member.address for name, member in cluster.members.items() if name != node}
        self._listed = dict(peers)  # The addresses that the membership has for them.
        self.refusals = Refusals(peers)
        self._reports = PeerReports(node, cluster.name, self._own, self._listed, self.refusals)
        self._addresses = PeerAddresses(
            peers,
            partial(look_up_in_thread, reactor),
            self._update_routes,
            self._name_moved,
            self._peer_arrived,
            self._reports.log_name_unknown,
        )
        self._heard, self._known = self._addresses.heard, self._addresses.known
        self._routes: dict[NodeId, list[tuple[SendDatagram, Endpoint]]] = {peer: [] for peer in peers}
        self._senders: dict[int, SendDatagram] = {}
        self._refused_lately: set[NodeId] = set()
        # The routes to former peers, and those of them that sent something lately: they are told that they are out.
        self._former: dict[NodeId, list[tuple[SendDatagram, Endpoint]]] = {}
        self._former_heard: set[NodeId] = set()
        self._others_answered: set[Endpoint] = set()
        self._unmet: set[NodeId] = set()
        self._unmet_seconds: dict[NodeId, float] = {}
        self._check_at = self._tell_refusals_at = 0.0
        self._decode: Callable[[bytes], Received] = self._codec.decode
        self._streams = self._make_streams(
            *(reactor, self._codec, self._addresses.addresses, known_peers, new_token, self._send_datagram),
            *(deliver, refused, counters),
        )
        self._streams.proved = self._peer_confirmed
        self._streams.keys_needed = self._reports.log_keys_needed

    def _make_streams(self, *arguments: Any) -> PeerStreams:
        return PeerStreams(*arguments)

    def start(self, transport: IUDPTransport, now: float) -> None:
        """Begin to send, and to accept streams.

        :raises twisted.internet.error.CannotListenError: if the address is taken.
        """
        self.add_socket(transport, self._own.listens_at)
        self._addresses.start(now)
        self._tell_refusals_at = now + REFUSAL_SECONDS

    def add_socket(self, transport: IUDPTransport, address: Address) -> None:
        """Accept streams at ``address``, too, and send over ``transport``, which listens there.

        The transport is used for endpoints whose version of IP no transport before it could serve.

        :raises twisted.internet.error.CannotListenError: if the address is taken.
        """
        for version, send in _senders(transport).items():
            self._senders.setdefault(version, send)
        for peer in self._routes:
            self._update_routes(peer)
        self._streams.listen(address)  # Also without peers: there may be some later.

    def stop(self) -> None:
        """Send nothing more, and close the streams."""
        for routes in (*self._routes.values(), *self._former.values()):
            routes.clear()
        self._senders.clear()
        self._streams.stop()

    # who the peers are

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """All peers of now."""
        return tuple(self._routes)

    def add_peer(self, peer: NodeId, address: Address) -> None:
        """Send to ``peer`` from now on, and receive from it. One that is a peer already is moved to ``address``."""
        if peer == self._node:
            return
        if peer in self._routes:
            self.move_peer(peer, address)
            return
        self._former.pop(peer, None)
        self._listed[peer] = address
        self._routes[peer] = []
        self.refusals.add_peer(peer)
        self._addresses.add_peer(peer, address)
        self._update_routes(peer)
        self._streams.add_peer(peer)

    def remove_peer(self, peer: NodeId) -> None:
        """Send nothing to ``peer`` from now on, and receive nothing. What waits on its streams is still sent.

        It is told from time to time that it is out, while messages in its name come.
        """
        if peer not in self._routes:
            return
        self._former[peer] = self._routes.pop(peer)
        while len(self._former) > FORMER_PEERS_MAX:
            del self._former[next(iter(self._former))]
        self._refused_lately.discard(peer)
        self._unmet.discard(peer)
        self._unmet_seconds.pop(peer, None)
        self._addresses.remove_peer(peer)
        self._streams.remove_peer(peer)
        self.refusals.remove_peer(peer)
        self._known_peers.forget(peer)
        del self._listed[peer]

    def move_peer(self, peer: NodeId, address: Address) -> None:
        """Use another address for ``peer`` from now on. It is heard at the one before, too, until it is at the new one.

        A node that is no peer is left out.
        """
        if peer in self._routes and self._addresses.move_peer(peer, address):
            self._listed[peer] = address
            self._streams.move_peer(peer)

    def tick(self, now: float) -> None:
        """Check for silent and refused peers. To be called at least every half second; more often costs little."""
        if now < self._check_at:
            return
        self._check_at = now + CHECK_SECONDS
        for peer in self._heard:
            self.refusals.clear(peer)
            self._unmet_seconds.pop(peer, None)
        if now >= self._tell_refusals_at:
            self._tell_refusals_at = now + REFUSAL_SECONDS
            self._others_answered.clear()
            for peer in self._unmet:
                self._unmet_seconds[peer] = seconds = self._unmet_seconds.get(peer, 0.0) + REFUSAL_SECONDS
                if seconds >= UNMET_SECONDS:
                    self._refuse_unmet(peer)
            self._unmet.clear()
            for peer in self._refused_lately:
                if (reason := self.refusals.reasons.get(peer)) is not None:
                    self.send((peer,), Refusal(reason))
            self._refused_lately.clear()
            for peer in self._former_heard & self._former.keys():
                self._send_datagram(peer, self._codec.encode(Refusal("it was removed from the cluster")))
            self._former_heard.clear()
        self.refusals.tick(now)
        self._addresses.tick(now)

    def silence_seconds(self, now: float) -> dict[NodeId, float | None]:
        """For each peer, how many seconds ago it was heard; ``None`` if it never was."""
        return {peer: self._addresses.silence_seconds(peer, now) for peer in self._routes}

    def keys_expire_in_seconds(self) -> float | None:
        """How long this node's certificate is still valid; ``None`` without keys."""
        return None

    def refuse(self, peer: NodeId, reason: str, line: str | None = None) -> None:
        """Note that messages of ``peer`` are refused. The peer is told the ``reason``; ``line`` is logged once."""
        self._heard.pop(peer, None)
        self.refusals.refuse(peer, reason, line)
        self._refused_lately.add(peer)

    def note_unmet(self, peer: NodeId) -> None:
        """Note that ``peer`` has not shown yet, over a stream, that it is at its address. Usually it is about to."""
        self._heard.pop(peer, None)
        self._unmet.add(peer)

    def _refuse_unmet(self, peer: NodeId) -> None:
        line = self._reports.no_tcp(peer, self._addresses.addresses[peer])
        self.refuse(peer, "no TCP between the two", line)

    def keep_open(self, peer: NodeId | None) -> None:
        """Monitor ``peer``, or none: learn at once when its process ends, and not only from its silence."""
        self._streams.keep_open(peer)

    def open_stream(self, peer: NodeId) -> None:
        """Open a stream to ``peer``, if there is none. The nodes show on it that they are at their addresses."""
        self._streams.open_stream(peer)

    def send(self, to: Iterable[NodeId], message: PeerMessage) -> None:
        """Encode ``message`` once, and send it to each node of ``to`` that is a peer."""
        data = self._codec.encode(message)
        way = REQUIRED_WAYS.get(type(message))
        for peer in to:
            if peer not in self._routes:
                continue
            if way is None:
                if len(data) > DATAGRAM_BYTES_MAX:
                    self._streams.send(peer, data)
                else:
                    self._send_datagram(peer, data)
            elif way is Way.THEIR_STREAM:
                self._streams.send_request(peer, data)
            elif not self._streams.send_reply(peer, data):
                self._send_hint(peer, message)

    def _send_hint(self, peer: NodeId, message: PeerMessage) -> None:
        """Send a hint by datagram: ``peer`` has opened no stream over which it would believe ``message``."""
        if isinstance(message, ChosenValues):
            message = ChosenValues(message.first_slot, (), message.chosen_through)
        if not isinstance(message, SnapshotPart | RegisterVotes):
            self._send_datagram(peer, self._codec.encode(message))

    def _send_datagram(self, peer: NodeId, data: bytes) -> None:
        for send, endpoint in self._routes.get(peer) or self._former.get(peer) or ():
            try:
                send(data, endpoint)
            except OSError:  # A full buffer, a network that is down.
                self._counters[Count.DATAGRAM_NOT_SENT] += 1

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Handle one datagram."""
        try:
            received = self._decode(data)
        except CodecError as error:
            self._refuse_datagram(error, data, address[:2])
            return
        sender, endpoint = received.sender, address[:2]
        if endpoint not in self._known.get(sender, ()):
            endpoint = canonical_host(address[0]), address[1]  # IPv4 on an IPv6 socket.
            if endpoint not in self._known.get(sender, ()):
                self._counters[Count.DATAGRAM_FROM_AN_UNKNOWN_ADDRESS] += 1
                self._refuse_sender(sender, endpoint)
                if sender in self._routes and self._known_peers.has_met(sender, received.incarnation):
                    self._try_endpoint(sender, endpoint)
                return
        if type(received.message) is Challenge:
            self._streams.send_proof(sender, received.message.token)
        elif type(received.message) is Refusal:
            self._reports.log_refused_by(sender, received.message.reason)
        else:  # Neither a Challenge nor a Refusal shows that the messages of the sender are accepted.
            self._heard[sender] = endpoint
            self._deliver(received)

    def _update_routes(self, peer: NodeId) -> None:
        """Find out again over which transports to send to ``peer``, and where."""
        routes = []
        for host, port in self._addresses.send_endpoints(peer):
            version = 6 if ":" in host else 4
            if version in self._senders:
                routes.append((self._senders[version], (host, port)))
        self._routes[peer][:] = routes

    # peers that have moved, and refused senders

    def _name_moved(
        self, peer: NodeId, before: tuple[Endpoint, ...], after: tuple[Endpoint, ...], was_unknown: bool
    ) -> None:
        """Drop the stream to the old addresses of ``peer``, whose name leads to others now."""
        self._reports.log_moved(peer, before, after, was_unknown)
        if before:
            self._streams.drop_stream(peer)

    def _peer_arrived(self, peer: NodeId) -> None:
        """Note that ``peer`` was heard at the address to which it was moved. No stream leads to the old one now."""
        self._reports.log_arrived(peer)
        self._streams.drop_stream(peer)

    def _peer_confirmed(self, peer: NodeId) -> None:
        """Note that ``peer`` has shown, over a stream, that it receives what is sent to it."""
        endpoint = self._addresses.confirm_endpoint(peer)
        if endpoint is not None:
            self._reports.log_confirmed(peer, endpoint)

    def _refuse_sender(self, sender: NodeId, endpoint: Endpoint) -> None:
        """Refuse a message that names ``sender`` but does not come from one of its addresses."""
        if sender in self._former:
            self._reports.log_former_peer(sender, endpoint)
            self._former_heard.add(sender)
            return
        if sender not in self._routes:
            self._reports.log_no_peer(sender, endpoint)
            return
        self._addresses.look_up_soon(sender)
        line = self._reports.other_address(sender, endpoint, self._known[sender])
        self.refuse(sender, f"it comes from {Address(*endpoint)}", line)

    def _try_endpoint(self, sender: NodeId, endpoint: Endpoint) -> None:
        """Try to reach ``sender`` at ``endpoint``: a message with its incarnation came from there."""
        self._addresses.try_endpoint(sender, endpoint)

    def _refuse_datagram(self, error: CodecError, data: bytes, endpoint: Endpoint) -> None:
        """Refuse a datagram that is no message of this cluster."""
        if data.startswith(SEALED_MAGIC):
            self._counters[Count.SEALED_DATAGRAM_WITHOUT_KEYS] += 1
            error = CodecError(f"it is sealed: keys are on there, and off on {self._node}")
        else:
            self._counters[Count.BAD_DATAGRAM] += 1
        self._report_datagram(error, endpoint)
        if isinstance(error, OtherCluster):
            self._answer_other_cluster(data, endpoint)

    def _report_datagram(self, error: CodecError, endpoint: Endpoint) -> None:
        endpoint = canonical_host(endpoint[0]), endpoint[1]
        peer = next((peer for peer, known in self._known.items() if endpoint in known), None)
        self._reports.log_undecodable(error, endpoint, peer)

    def _answer_other_cluster(self, data: bytes, endpoint: Endpoint) -> None:
        """Answer a datagram of another cluster, so that its sender finds out: it may be a node that was given up when
        this cluster was recovered, and that no member would send anything to.

        The sender cannot decode the answer. But it logs from which of its peers something of another cluster comes. An
        answer is not answered in turn."""
        answered = self._others_answered
        send = self._senders.get(6 if ":" in endpoint[0] else 4)
        if (
            send is None
            or data[KIND_AT] == REFUSAL_KIND
            or endpoint in answered
            or len(answered) >= OTHERS_ANSWERED_MAX
        ):
            return
        answered.add(endpoint)
        try:
            send(self._codec.encode(Refusal("")), endpoint)
        except OSError:
            self._counters[Count.DATAGRAM_NOT_SENT] += 1


def _senders(transport: Any) -> dict[int, SendDatagram]:
    """For each version of IP that ``transport`` can send to, a function that sends a datagram."""
    kernel_socket = getattr(transport, "socket", None)
    if kernel_socket is None:  # A simulated one.
        return {4: transport.write, 6: transport.write}
    kernel_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    # The transport's own write checks the address each time, which takes longer than sending.
    send: SendDatagram = kernel_socket.sendto
    if kernel_socket.family != socket.AF_INET6:
        return {4: send}
    if ip_address(kernel_socket.getsockname()[0].partition("%")[0]).is_unspecified:
        return {6: send, 4: lambda data, endpoint: send(data, (f"::ffff:{endpoint[0]}", endpoint[1]))}
    return {6: send}
