"""Who the members of the cluster are, and where they are reached: the one place in a node that knows.

At first the members are the nodes of the cluster file. From then on only what is chosen in the log changes them, or a
snapshot that holds what was chosen. The core knows their names and counts; their addresses are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from twisted.logger import Logger

from txpaxos.cluster import Cluster
from txpaxos.core.essential import quorum_size
from txpaxos.core.membership import Change, Configuration
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import CodecError
from txpaxos.wire.members import MemberEntry, MembersEntry, decode_members, founding_entry

ChosenMembers: TypeAlias = tuple[Slot, MembersEntry]
"""An entry, and the slot where it was chosen; 0 for the founders."""


class Members:
    """The members of one node's cluster.

    :param name: this node's id.
    :param cluster: the cluster. Those who founded it are the members, until the log says otherwise.
    :ivar name: this node's id.
    :ivar slot: the slot of the newest entry; 0 while the founders are the members.
    :ivar entry: the newest entry.
    """

    log = Logger()

    def __init__(self, name: NodeId, cluster: Cluster) -> None:
        self.slot: Slot = 0
        self.entry = founding_entry(cluster.at_founding())
        self.name = name
        self._cluster_name = cluster.name
        # The entries that may still govern open slots, oldest first.
        self._chosen: list[ChosenMembers] = [(0, _names_only(self.entry))]
        self._watchers: list[Callable[[], None]] = []

    def __contains__(self, node: object) -> bool:
        """Whether ``node`` is a member."""
        return node in self.entry.members

    @property
    def others(self) -> tuple[NodeId, ...]:
        """All members but this node."""
        return tuple(node for node in self.entry.members if node != self.name)

    @property
    def addresses(self) -> dict[NodeId, MemberEntry]:
        """The other members, and those of the entry before, which are needed until a change is complete."""
        nodes = {node: one for _, entry in self._chosen for node, one in entry.members.items() if one.address}
        return {node: one for node, one in {**nodes, **self.entry.members}.items() if node != self.name}

    @property
    def former(self) -> tuple[NodeId, ...]:
        """The members of the entry before the newest that are members no more."""
        before = self._chosen[0][1].members
        return tuple(node for node in before if node not in self.entry.members)

    def has_left(self, node: NodeId) -> bool:
        """Whether ``node`` was removed by an earlier change than the newest. That one is complete then, since there is
        one change at a time."""
        return node in self._chosen[0][1].retired

    @property
    def own(self) -> MemberEntry | None:
        """This node's own entry; ``None`` if it is no member."""
        return self.entry.members.get(self.name)

    @property
    def other_voters(self) -> tuple[NodeId, ...]:
        """All voters but this node."""
        return tuple(node for node in self.entry.voters if node != self.name)

    @property
    def quorum(self) -> int:
        """How many voters are a majority."""
        return quorum_size(len(self.entry.voters))

    @property
    def chosen(self) -> Sequence[ChosenMembers]:
        """The entries that a snapshot taken now must hold, oldest first; empty while the founders are the members."""
        return self._chosen if self.slot else []

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """What the core has to know of :attr:`chosen`."""
        return tuple(entry.configuration(slot) for slot, entry in self.chosen)

    def cluster(self) -> Cluster:
        """The members, as a cluster file has them."""
        return self.entry.cluster(self._cluster_name)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` when the members have changed."""
        self._watchers.append(watcher)

    def change_of(self, value: bytes) -> Change | None:
        """What ``value``, which is chosen, says about members; ``None`` if no node can follow it."""
        try:
            return decode_members(value).change
        except CodecError:
            return None

    def configure(self, slot: Slot, value: bytes) -> None:
        """Go by ``value``, which was chosen at ``slot`` and counts."""
        entry = decode_members(value)
        self._chosen = [self._chosen[-1], (slot, entry)]
        self._adopt(slot, entry)

    def restore(self, chosen: Iterable[ChosenMembers]) -> None:
        """Go by the entries of a snapshot. If it has none, the founders are the members."""
        known = list(chosen)
        if known:
            self._chosen = known
            self._adopt(*known[-1])

    def _adopt(self, slot: Slot, entry: MembersEntry) -> None:
        if slot <= self.slot:
            return
        before, self.slot, self.entry = self.entry, slot, entry
        self.log.info(
            "the members are {what}, chosen at slot {slot}", what=_described(entry), slot=slot, event="members_changed"
        )
        if before != entry:
            for watcher in self._watchers:
                watcher()


def _names_only(entry: MembersEntry) -> MembersEntry:
    """The founders without their addresses: each node has these from its own cluster file, where they may be spelled
    differently, and the snapshots of all nodes must be equal."""
    return MembersEntry(0, {node: MemberEntry("", "") for node in entry.voters})


def _described(entry: MembersEntry) -> str:
    """The members in words: the voters, then the others with their roles."""
    others = [f"{node} ({entry.members[node].role})" for node in entry.learners]
    return ", ".join([*entry.voters, *others])
