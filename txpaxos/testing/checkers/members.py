"""The configurations of a cluster, as the values that were chosen in its log make them.

This is worked out from the log alone, and not asked of any node: which entries count, which configuration governs a
slot, and which configurations are in force for a node that has learned the log up to some slot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from txpaxos.core.membership import Configuration
from txpaxos.core.messages import MEMBERS_BYTE, NodeId, Slot
from txpaxos.errors import CodecError
from txpaxos.wire.members import MembersEntry, decode_members


class ObservedMembers:
    """All configurations of one cluster.

    :param founders: the ids of the members that founded the cluster.
    :param alpha: how many slots after its own a configuration begins to govern.
    :ivar entries: the entries that count, by slot.
    :ivar completed_slot: the slot of the newest change that a leader has called complete.
    """

    def __init__(self, founders: Sequence[NodeId], alpha: int) -> None:
        self.alpha = alpha
        self.entries: dict[Slot, MembersEntry] = {}
        self.completed_slot: Slot = 0
        self._configurations = [Configuration(0, tuple(founders))]
        self._through: Slot = 0

    @property
    def newest(self) -> Configuration:
        """The configuration that was chosen last."""
        return self._configurations[-1]

    @property
    def entry(self) -> MembersEntry | None:
        """The entry that was chosen last; ``None`` while the members are the founders."""
        return self.entries.get(self.newest.slot)

    @property
    def members(self) -> tuple[NodeId, ...]:
        """The ids of all members, learners included."""
        return (*self.newest.voters, *self.newest.learners)

    @property
    def is_complete(self) -> bool:
        """Whether the newest change is complete, so that former members and their disks are not needed."""
        return self.completed_slot == self.newest.slot

    def choose(self, slot: Slot, value: bytes) -> None:
        """``value`` is chosen at ``slot``. Slots come in order; one that came before is ignored."""
        if slot != self._through + 1:
            return
        self._through = slot
        if value[:1] != MEMBERS_BYTE:
            return
        try:
            entry = decode_members(value)
        except CodecError:
            return
        newest = self.newest
        if entry.base == newest.slot and slot >= self._governs_from(newest):
            self._configurations.append(entry.configuration(slot))
            self.entries[slot] = entry

    def chosen_at(self, slot: Slot) -> Configuration | None:
        """The configuration that was chosen at ``slot``; ``None`` if there is none."""
        return next((one for one in self._configurations if one.slot == slot), None)

    def newest_at(self, slot: Slot) -> Configuration:
        """The newest configuration that was chosen at ``slot`` or before."""
        return next(one for one in reversed(self._configurations) if one.slot <= slot)

    def governing(self, slot: Slot) -> Configuration:
        """The configuration that governs ``slot``."""
        return next(one for one in reversed(self._configurations) if self._governs_from(one) <= slot)

    def in_force(self, chosen_through: Slot) -> list[Configuration]:
        """The configurations that govern a slot above ``chosen_through``, as far as a node knows that has learned the
        log up to there: one, or two during a change."""
        return [one for one in self.in_force_from(chosen_through) if one.slot <= chosen_through]

    def in_force_from(self, chosen_through: Slot) -> list[Configuration]:
        """The configurations that govern a slot above ``chosen_through``, those included that were chosen later."""
        last = len(self._configurations) - 1
        first = next(
            index
            for index in range(last, -1, -1)
            if self._governs_from(self._configurations[index]) <= chosen_through + 1
        )
        return self._configurations[first:]

    def is_quorum(self, nodes: Collection[NodeId], chosen_through: Slot) -> bool:
        """Whether ``nodes`` hold a majority of each configuration that is in force at ``chosen_through``."""
        return all(one.is_majority(nodes) for one in self.in_force(chosen_through))

    def is_retired(self, node: NodeId) -> bool:
        """Whether ``node`` was a member once, and is no more."""
        entry = self.entry
        return entry is not None and node in entry.retired

    def may_go(self, node: NodeId, reached: Callable[[NodeId], Slot], nodes: Iterable[NodeId]) -> bool:
        """Whether ``node`` was a member once, and is not needed any more: a majority of later voters has on disk all
        that was chosen before they governed.

        :param reached: returns through which slot a node has all that is chosen on its disk for certain.
        :param nodes: all nodes.
        """
        without = [self.chosen_at(slot) for slot, entry in self.entries.items() if node in entry.retired]
        known = list(nodes)
        return any(self._is_durable(one, reached, known) for one in without if one is not None)

    def complete(self, slot: Slot, reached: Callable[[NodeId], Slot], nodes: Iterable[NodeId]) -> bool:
        """A leader says that the change at ``slot`` is complete. Returns whether that is true."""
        configuration = self.chosen_at(slot)
        self.completed_slot = max(self.completed_slot, slot)
        return configuration is not None and self._is_durable(configuration, reached, nodes)

    def _is_durable(
        self, configuration: Configuration, reached: Callable[[NodeId], Slot], nodes: Iterable[NodeId]
    ) -> bool:
        through = self._governs_from(configuration) - 1
        return configuration.is_majority([node for node in nodes if reached(node) >= through])

    def _governs_from(self, configuration: Configuration) -> Slot:
        return configuration.slot + self.alpha if configuration.slot else 1
