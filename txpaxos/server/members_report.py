"""What a node tells its clients of the members: a short message to each client, and a report to the one that asks.

The client port (:mod:`~txpaxos.server.client_port`) keeps one report, and sends the message when a client connects and
when the members have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import attrs

from txpaxos.cluster import Address, Cluster
from txpaxos.core.messages import NodeId, Slot
from txpaxos.node.members import Members
from txpaxos.wire.client_messages import CONTACTS_MAX, Contact
from txpaxos.wire.client_messages import Members as MembersTold
from txpaxos.wire.members import MemberEntry


class Entry(Protocol):
    """A member: the attributes of :class:`txpaxos.wire.members.MemberEntry`."""

    @property
    def address(self) -> str:
        """Where the other nodes reach it, ``host:port``."""

    @property
    def client(self) -> str:
        """Where clients reach it, ``host:port``."""

    @property
    def role(self) -> str:
        """``"voter"``, ``"learner"`` or ``"joining"``."""

    @property
    def incarnation(self) -> int:
        """The incarnation of its data folder, 0 if it is not known."""

    @property
    def priority(self) -> int:
        """The higher, the rather it is to lead."""


class MemberSource(Protocol):
    """Who the members are, as the node knows them."""

    @property
    def slot(self) -> Slot:
        """The slot at which these members were chosen; 0 for those that founded the cluster."""

    @property
    def entries(self) -> Mapping[NodeId, Entry]:
        """Each member by its id."""

    @property
    def retired(self) -> Collection[NodeId]:
        """The ids of former members."""

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` when the members have changed."""


class NodeMembers:
    """The members as the node at hand knows them.

    While the founders are the members, addresses are told as the cluster file has them: with the names of hosts, which
    clients look up themselves. A node that joins, or was away, was told of newer members than those that it finds first
    in its log, so it tells of the newer ones.
    """

    def __init__(self, members: Members, cluster: Cluster) -> None:
        self.watch = members.watch
        self._members = members
        self._told_at = cluster.slot
        self._told: Mapping[NodeId, Entry] = {
            node: MemberEntry(
                _as_written(member.address),
                _as_written(member.client),
                "learner" if node in cluster.learners else "voter",
            )
            for node, member in cluster.members.items()
        }

    @property
    def slot(self) -> Slot:
        """The slot at which these members were chosen; 0 for those that founded the cluster."""
        return max(self._members.slot, self._told_at)

    @property
    def entries(self) -> Mapping[NodeId, Entry]:
        """Each member by its id."""
        slot = self._members.slot
        return self._members.entry.members if slot and slot >= self._told_at else self._told

    @property
    def retired(self) -> Collection[NodeId]:
        """The ids of former members."""
        return self._members.entry.retired


@attrs.frozen
class MembersReport:
    """The answer to a client that asks who the members are.

    :ivar members: what is sent as JSON.
    """

    members: dict[str, Any]


def contacts_of(source: MemberSource) -> MembersTold:
    """What each client is told of the members. Voters come first, should there be too many for one message."""
    contacts = [Contact(node, one.client, one.role) for node, one in source.entries.items()]
    contacts.sort(key=lambda one: one.role != "voter")
    return MembersTold(source.slot, tuple(contacts[:CONTACTS_MAX]))


def report_of(cluster: str, leader: NodeId | None, source: MemberSource) -> MembersReport:
    """The report of the members of ``cluster``, whose leader is ``leader`` as far as the node knows."""
    members = {
        node: {
            "address": one.address,
            "client": one.client,
            "role": one.role,
            "incarnation": f"{one.incarnation:016x}" if one.incarnation else None,
            "priority": one.priority,
        }
        for node, one in source.entries.items()
    }
    return MembersReport(
        {
            "cluster": cluster,
            "slot": source.slot,
            "leader": leader,
            "members": members,
            "retired": list(source.retired),
        }
    )


def _as_written(address: Address) -> str:
    """``address`` with the name that the cluster file has for its host, so that clients look it up themselves."""
    return str(attrs.evolve(address, host=address.host_name or address.host))
