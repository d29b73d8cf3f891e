"""Replicas of the log whose members change while they run, on the network of :mod:`test.helpers.core_cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from test.helpers.core_cluster import CoreCluster, Faults, Ledger
from txpaxos.core.config import Limits
from txpaxos.core.log import Log
from txpaxos.core.membership import Change, Configuration
from txpaxos.core.messages import MEMBERS_BYTE, NodeId, Slot
from txpaxos.core.ready import ChangeCompleted, Chosen, Configured, Ready
from txpaxos.core.replica import Replica

ALPHA = 8


def value_of(base: Slot, voters: Sequence[NodeId], learners: Sequence[NodeId] = ()) -> bytes:
    """A value that says who the members are, in an encoding of the tests: one letter is one node."""
    return MEMBERS_BYTE + f"{base}:{''.join(voters)}:{''.join(learners)}".encode()


def change_of(value: bytes) -> Change | None:
    """What such a value says."""
    base, voters, learners = value[1:].decode().split(":")
    return Change(int(base), tuple(voters), tuple(learners))


class ChangingLedger(Ledger):
    """Counts votes by the configuration that truly governs each slot: what is chosen alpha slots below decides it."""

    def __init__(self, founders: Sequence[NodeId], alpha: int) -> None:
        super().__init__(0)
        self.alpha = alpha
        self.configurations = [Configuration(0, tuple(founders))]
        self._read_through = 0

    def governing(self, slot: Slot) -> Configuration:
        """The configuration that governs ``slot``. Every slot up to ``slot`` - alpha must be chosen."""
        while self._read_through < slot - self.alpha:
            self._read_through += 1
            value = self.chosen[self._read_through]
            newest = self.configurations[-1]
            change = change_of(value) if value[:1] == MEMBERS_BYTE else None
            is_free = not newest.slot or self._read_through >= newest.slot + self.alpha
            if change is not None and change.base == newest.slot and is_free:
                self.configurations.append(Configuration(self._read_through, change.voters, change.learners))
        return max(
            (one for one in self.configurations if not one.slot or one.slot + self.alpha <= slot),
            key=lambda one: one.slot,
        )

    def is_quorum(self, slot: Slot, voters: set[NodeId]) -> bool:
        return self.governing(slot).is_majority(voters)


class ChangingCluster(CoreCluster):
    """Nine nodes, of which the first three found the cluster.

    :ivar completed: the slots of the changes that some leader has called complete.
    :ivar configured: the configurations that each running node has handed out since it started.
    """

    FOUNDERS: tuple[NodeId, ...] = ("a", "b", "c")
    ledger: ChangingLedger

    def __init__(self, seed: int, faults: Faults | None = None, limits: Limits | None = None, nodes: int = 9) -> None:
        self.completed: set[Slot] = set()
        self.configured: dict[NodeId, list[Configuration]] = {node: [] for node in "abcdefghi"[:nodes]}
        self.destroyed: set[NodeId] = set()
        super().__init__(seed, nodes, faults, limits)
        self.ledger = ChangingLedger(self.FOUNDERS, (limits or Limits()).window_slots)

    def make(self, node: NodeId, rng: Random) -> Replica:
        replica = Replica(node, self.FOUNDERS, rng, self.now, self.disks[node], limits=self.limits, change_of=change_of)
        replica.membership.admit_contacts(self.members)
        self.chosen[node], self.configured[node] = [], []
        self.hand_out(node, Ready(chosen=replica.recovered()))
        return replica

    def start(self, *nodes: NodeId) -> None:
        super().start(*[node for node in nodes or self.members if node not in self.destroyed])

    def destroy(self, node: NodeId) -> None:
        """Take ``node`` away for ever, with its disk."""
        self.destroyed.add(node)
        if node in self.nodes:
            self.stop(node)
        self.disks[node] = []

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        for item in ready.chosen:
            if isinstance(item, Configured):
                self.configured[node].append(item.configuration)
                assert len(self.chosen[node]) == item.configuration.slot - 1
            else:
                assert isinstance(item, Chosen)
                super().hand_out(node, Ready(chosen=(item,)))
        for answer in ready.answers:
            if isinstance(answer, ChangeCompleted):
                self.completed.add(answer.slot)
                self._check_completed(answer.slot)

    def _check_completed(self, slot: Slot) -> None:
        """The change at ``slot`` is complete: a majority of the new voters would know all that was chosen before, even
        if all nodes started again now, and those that left never did."""
        alpha = self.ledger.alpha
        configuration = self.ledger.governing(slot + alpha)
        durable = {node: Log.recover(self.disks[node]).chosen_through for node in configuration.voters}
        assert configuration.slot == slot
        assert configuration.is_majority(node for node in durable if durable[node] >= slot + alpha - 1), (slot, durable)

    def newest(self) -> Configuration:
        """The newest configuration that any node has handed out."""
        known = [one for configurations in self.configured.values() for one in configurations]
        return max(known, key=lambda one: one.slot, default=Configuration(0, self.FOUNDERS))

    def retired(self) -> set[NodeId]:
        """The nodes that were voters once, and are members no more. They never come back."""
        newest = self.newest()
        known = [one for configurations in self.configured.values() for one in configurations]
        once = {*self.FOUNDERS, *(voter for one in known for voter in one.voters)}
        return once - {*newest.voters, *newest.learners}

    def change(self, voters: Sequence[NodeId], learners: Sequence[NodeId] = ()) -> bool:
        """Propose that these be the members, at the node that leads. Returns whether one took it."""
        node = self.leader()
        if node is None:
            return False
        replica = self.nodes[node]
        newest = replica.membership.newest
        if replica.membership.is_changing or not replica.may_change_members:
            return False
        return self.propose(value_of(newest.slot, voters, learners), node)
