"""The lines of the log in which a node reports on other nodes: who is refused, who refuses it, and who has moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from twisted.python.failure import Failure

from txpaxos.cluster import Address, Member, is_loopback, loopback_line
from txpaxos.core.messages import NodeId
from txpaxos.errors import CodecError
from txpaxos.log_lines import printable
from txpaxos.node.peer_addresses import Endpoint
from txpaxos.node.refusals import Refusals


class PeerReports:
    """Writes the lines of one node about other nodes.

    Each line names both nodes and says what an operator can do, since the other node may be the one to correct.

    :param node: this node's id.
    :param cluster: the cluster's name.
    :param own: this node's addresses.
    :param peers: for each peer, the address that the membership has for it. It may change.
    :param refusals: limits how many lines are logged.
    """

    def __init__(
        self, node: NodeId, cluster: str, own: Member, peers: Mapping[NodeId, Address], refusals: Refusals
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._own = own
        self._peers = peers
        self._refusals = refusals

    # addresses

    def log_name_unknown(self, peer: NodeId, reason: Failure) -> None:
        """Report that the name of ``peer`` cannot be looked up."""
        line = "node {node} cannot find the address of node {peer}, and keeps trying: {reason}"
        self._refusals.log.warn(
            line, node=self._node, peer=peer, reason=reason.getErrorMessage(), event="peer_name_unknown"
        )

    def log_moved(
        self, peer: NodeId, before: tuple[Endpoint, ...], after: tuple[Endpoint, ...], was_unknown: bool
    ) -> None:
        """Report that the name of ``peer`` leads to other endpoints now, and if the two cannot reach each other there.

        :param was_unknown: whether it was reported before that the name cannot be looked up.
        """
        own, name = self._own, self._peers[peer].host_name
        if before or was_unknown:
            line = "node {peer} ({name}) is at {at} (before: {was})"
            self._refusals.log.info(
                line, peer=peer, name=name, at=_listed(after), was=_listed(before) or "nowhere", event="peer_moved"
            )
        kind = None if own.listen else is_loopback(own.address)
        there = all(is_loopback(Address(*endpoint)) for endpoint in after)
        if kind is not None and kind != there:
            place = Address(after[0][0], after[0][1], name)
            two = [(peer, place), (self._node, own.address)]
            line = loopback_line("address", *(two[0] if there else two[1]), *(two[1] if there else two[0]))
            self._refusals.log_once(peer, "loopback", f"nodes {self._node} and {peer} cannot reach each other: {line}")

    def log_confirmed(self, peer: NodeId, endpoint: Endpoint) -> None:
        """Report that ``peer`` is at ``endpoint``, to which its name does not lead."""
        self._refusals.log.info(
            "node {peer} is at {at}, though its name, {name}, does not lead there from here yet",
            peer=peer,
            at=str(Address(*endpoint)),
            name=self._peers[peer].host_name,
            event="peer_elsewhere",
        )

    def log_arrived(self, peer: NodeId) -> None:
        """Report that ``peer``, which was moved to another address, is there."""
        self._refusals.log.info(
            "node {peer} is at its new address, {at}", peer=peer, at=str(self._peers[peer]), event="peer_arrived"
        )

    # refused senders

    def log_no_peer(self, sender: NodeId, endpoint: Endpoint) -> None:
        """Report a message from ``endpoint`` whose ``sender`` is no member of the cluster, or this node itself."""
        here, place = self._node, Address(*endpoint)
        if sender == here:
            line = (
                f"node {here} does not hear the node at {place}, which claims to be {here}, too: start each node once,"
                " on one machine, and compare what they are told with --node"
            )
            self._refusals.log_once(str(place), "twice", line)
            return
        line = (
            f"node {here} does not hear the node at {place}: it claims to be '{printable(sender)}' of this cluster,"
            f" and {here} knows {', '.join(sorted((here, *self._peers)))}: compare the cluster files"
        )
        self._refusals.log_once(str(place), "no member", line)

    def log_former_peer(self, sender: NodeId, endpoint: Endpoint) -> None:
        """Report a message from ``endpoint`` whose ``sender`` was removed from the cluster."""
        place = Address(*endpoint)
        line = (
            f"node {self._node} does not hear node {sender} at {place}: it was removed from the cluster; stop it, or"
            " let it join as a new node, with an empty data folder"
        )
        self._refusals.log_once(str(place), "removed", line)

    def log_undecodable(self, error: CodecError, endpoint: Endpoint, peer: NodeId | None) -> None:
        """Report a datagram that is no message of this cluster.

        :param peer: the peer at whose address the datagram came from; ``None`` if there is none.
        """
        here, place, why = self._node, Address(*endpoint), printable(str(error))
        if peer is None:
            line = f"node {here} does not take what comes from {place}, which is no node of its cluster file: {why}"
            self._refusals.log_once(str(place), why, line)
            return
        line = (
            f"node {here} of cluster {self._cluster} does not take what comes from {place}, the address of node"
            f" {peer} in its cluster file: {why}"
        )
        self._refusals.refuse(peer, why, line)  # That node could not decode a Refusal either.

    def log_refused_by(self, peer: NodeId, reason: str) -> None:
        """Report that ``peer`` refuses the messages of this node."""
        reason = printable(reason)
        self._refusals.refused_by[peer] = reason
        line = f"node {peer} does not hear this node, {self._node}: {reason}; its own log says more"
        self._refusals.log_once(peer, f"refused by: {reason}", line)

    # keys

    def log_keys_needed(self, peer: NodeId | None, host: str) -> None:
        """Report a stream whose other side has keys, while this node has none."""
        here, peer = self._node, peer or self._peer_at(host)
        who = f"the node at {host}" if peer is None else f"node {peer} at {host}"
        line = f"node {here} does not take the stream of {who}: keys are on there, and off on {here}"
        self._refusals.log_once(peer or host, "keys needed", line)

    def log_not_believed(self, peer: NodeId | None, host: str, phrase: str) -> None:
        """Report a stream that ended because of keys.

        :param peer: the peer to which this node opened it; ``None`` for an incoming one.
        :param phrase: what is the matter, about the other side.
        """
        here, dialled, peer = self._node, peer is not None, peer or self._peer_at(host)
        who = f"the node at {host}" if peer is None else f"node {peer} at {host}"
        way = "reaches" if dialled else "is reached by"
        line = f"node {here} {way} {who}, but does not use the stream: {phrase}"
        if peer is None:
            self._refusals.log_once(host, phrase, line)
        else:
            self._refusals.refuse(peer, phrase, line)

    def _peer_at(self, host: str) -> NodeId | None:
        """The peer at ``host``; ``None`` if there is none, or there are several."""
        peers = [peer for peer, address in self._peers.items() if address.host == host]
        return peers[0] if len(peers) == 1 else None

    def other_address(self, peer: NodeId, endpoint: Endpoint, known: Collection[Endpoint]) -> str:
        """The line about messages of ``peer`` that come from ``endpoint``, and not from one of its ``known`` ones."""
        here, name = self._node, self._peers[peer].host_name
        at = _listed(sorted(known)) or "not known yet"
        asked = f"{name}, looked up again now: {at}" if name else at
        remedy = "if it has moved, see to its name" if name else "give it a name there that others can look up"
        return (
            f"node {here} does not hear node {peer} at {Address(*endpoint)}: its cluster file has another address for"
            f" {peer} ({asked}); compare the cluster files, look for address translation between the two; {remedy}"
        )

    def no_tcp(self, peer: NodeId, address: Address) -> str:
        """The line about a peer that sends datagrams from ``address``, while no stream between the two nodes opens."""
        return (
            f"node {self._node} does not hear node {peer}: it does not reach it by TCP at {address}, or is not reached"
            " by it: see whether TCP passes between the two, in both directions"
        )


def _listed(endpoints: Collection[Endpoint]) -> str:
    return ", ".join(str(Address(*endpoint)) for endpoint in endpoints)
