"""The leader's part when a node joins the cluster: it checks what the node says, and has it added to the members.

A mistake here must not cost the cluster its quorum. So the new member only learns at first, and votes when it has
caught up. And the leader connects to the addresses that the node gives: a mistyped one is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from txpaxos.application import name_of
from txpaxos.cluster import NAME, NAME_RULE, Address, check_host
from txpaxos.core.messages import NodeId
from txpaxos.errors import ConfigError, NoQuorum, Overloaded
from txpaxos.host_names import connect
from txpaxos.log_lines import printable
from txpaxos.node.changed_members import member_of
from txpaxos.node.members import ChosenMembers
from txpaxos.node.node import Node
from txpaxos.server.membership import addresses_of, learners_of
from txpaxos.wire.client_messages import TOKEN_BYTES, Join, JoinAnswer
from txpaxos.wire.members import AddMember

REACH_SECONDS = 3.0
"""How long the leader tries to reach an address of a node that joins."""

JOINS_MAX = 8
"""Nodes that may join at a time. The leader connects to addresses that a client names, so there are few."""


class JoinNode(Protocol):
    """The node, as far as joins are concerned."""

    name: NodeId

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as the node knows."""

    @property
    def application_name(self) -> str:
        """The name of its application."""

    def add_member(self, join: Join) -> Deferred[JoinAnswer]:
        """Add a member. Fires when the change is complete.

        :raises PaxosError: (the Deferred) one line that says why the node cannot join.
        """


class MemberNode:
    """A node that can change the members."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.name = node.name
        self.application_name = name_of(node.application)

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as the node knows."""
        return self._node.leader

    def add_member(self, join: Join) -> Deferred[JoinAnswer]:
        """Add a member, which learns at first. Fires when the change is complete."""
        role: Literal["joining", "learner"] = "joining" if join.votes else "learner"
        request = AddMember(join.name, join.address, join.client, join.incarnation, role, join.replaces)
        return self._node.change_members(request).addCallback(self._answer, request, join.request)

    def _answer(self, chosen: ChosenMembers, request: AddMember, number: int) -> JoinAnswer:
        (slot, entry), cluster = chosen, self._node.cluster
        added = member_of(entry, request)
        assert added is not None, entry
        members = {node: (one.address, one.client) for node, one in entry.members.items()}
        founding = addresses_of(cluster.at_founding().members)
        learners, rights = learners_of(entry), cluster.rights.as_lists()
        return JoinAnswer(number, cluster.name, added, founding, slot, members, learners, rights)


class Joins(Protocol):
    """Lets nodes join the cluster."""

    def join(self, request: Join) -> Deferred[JoinAnswer]:
        """Let a node join, or refuse it."""


class NoJoins:
    """Refuses each node, in place of a node that cannot change the members."""

    def join(self, request: Join) -> Deferred[JoinAnswer]:
        """Refuse ``request``."""
        return fail(ConfigError("the members of this cluster cannot be changed"))


class LeaderJoins:
    """Lets nodes join while this node leads.

    :param reactor: connects to the addresses of nodes that join.
    """

    def __init__(self, reactor: Any, node: JoinNode) -> None:
        self._reactor = reactor
        self._node = node
        self._checking = 0

    def join(self, request: Join) -> Deferred[JoinAnswer]:
        """Let a node join: check it, reach it at its addresses, add it.

        :returns: fails with :class:`~txpaxos.errors.ConfigError` if the node has to be started otherwise, and with
            :class:`~txpaxos.errors.NoQuorum` if it may ask again.
        """
        node = self._node
        if node.leader != node.name:
            return fail(NoQuorum(f"node {node.name} does not lead: ask the leader"))
        if self._checking >= JOINS_MAX:
            return fail(Overloaded(f"{JOINS_MAX} nodes are joining already; try again later"))
        try:
            places = self._checked(request)
        except ConfigError as error:
            return fail(error)
        self._checking += 1
        reached = [reach(self._reactor, place, request.token) for _, place in places]
        return DeferredList(reached, consumeErrors=True).addCallback(self._reached, request, places)

    def _checked(self, request: Join) -> list[tuple[str, Address]]:
        """The addresses of a node that joins, each with its option.

        :raises ConfigError: one line that says what is wrong.
        """
        ours, theirs = self._node.application_name, request.application
        if theirs != ours:
            raise ConfigError(
                f"the nodes of this cluster run {printable(ours)}, and the new one {printable(theirs)}: start it with"
                " the same --app"
            )
        if not NAME.match(request.name):
            raise ConfigError(f"{ascii(request.name)[:60]} cannot be a node: {NAME_RULE}")
        return [("--address", _address(request.address)), ("--client", _address(request.client))]

    def _reached(self, results: Any, request: Join, places: list[tuple[str, Address]]) -> Deferred[JoinAnswer]:
        """Add the node, if both of its addresses were reached."""
        self._checking -= 1
        for (option, place), (is_reached, reason) in zip(places, results, strict=True):
            if not is_reached:
                raise ConfigError(
                    f"the leader, {self._node.name}, does not reach the new node at {option} {place}"
                    f" ({printable(reason.getErrorMessage())}): give an address at which the other machines reach it"
                )
        if self._node.leader != self._node.name:
            raise NoQuorum(f"node {self._node.name} leads no more: ask the leader")
        return self._node.add_member(request)


def _address(text: str) -> Address:
    """The address that ``text`` is.

    :raises ConfigError: if it is none at which other machines could reach a node."""
    try:
        address = Address.parse(text)
        check_host(address.host, listens=False)
    except ValueError as error:
        raise ConfigError(f"{ascii(text)[:100]} cannot be the address of a node: {error}") from None
    return address


def reach(reactor: Any, place: Address, token: bytes) -> Deferred[None]:
    """Connect to ``place``. Fires if the process there sends ``token``; fails with ConfigError otherwise."""
    reached: Deferred[None] = Deferred()
    probe = _Probe(token, reached)
    late = reactor.callLater(REACH_SECONDS, probe.end, "nothing came from there")
    probe.connector = connect(reactor, place, probe, REACH_SECONDS)

    def stop_timer(result: Any) -> Any:
        if late.active():
            late.cancel()
        return result

    return reached.addBoth(stop_timer)


class _Probe(ClientFactory):
    """One attempt to reach a node."""

    noisy = False

    def __init__(self, token: bytes, reached: Deferred[None]) -> None:
        self.token = token
        self.connector: IConnector | None = None
        self._reached: Deferred[None] | None = reached
        self._connection: _ProbeConnection | None = None

    def buildProtocol(self, addr: IAddress | None) -> TwistedProtocol:
        """The connection is made."""
        self._connection = _ProbeConnection(self.end, self.token)
        return self._connection

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """The connection could not be made."""
        self.connector = None
        self.end(" ".join(reason.getErrorMessage().split()))

    def end(self, why: str = "") -> None:
        """The attempt has ended: well, or because of ``why``."""
        reached, self._reached = self._reached, None
        if reached is None:
            return
        if self._connection is not None:
            self._connection.close()
        elif self.connector is not None:
            self.connector.stopConnecting()
        if why:
            reached.errback(ConfigError(why))
        else:
            reached.callback(None)


class _ProbeConnection(TwistedProtocol):
    transport: Any

    def __init__(self, end: Callable[..., None], token: bytes) -> None:
        self._end = end
        self._token = token
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        """See whether the token has come."""
        self._data += data
        if len(self._data) >= TOKEN_BYTES:
            is_it = compare_digest(self._data[:TOKEN_BYTES], self._token)
            self._end("" if is_it else "another process listens there")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended before the token came, or after it."""
        self._end("another process listens there")

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.abortConnection()
