"""Replicas that take snapshots, truncate their logs, send snapshots to nodes that are behind, and ask for read
indexes."""

from __future__ import annotations

from random import Random

from test.helpers.core_cluster import CoreCluster, Faults, Ledger
from txpaxos.core.config import Limits
from txpaxos.core.messages import LOWEST, NodeId, Proposal, Slot
from txpaxos.core.ready import Chosen, Installed, LogRecord, Promised, ReadIndexConfirmed, Ready, Voted
from txpaxos.core.replica import Replica
from txpaxos.storage.records import checkpoint_index


class SnapshotLedger(Ledger):
    """A ledger that allows a checkpoint to repeat records."""

    def save(self, node: NodeId, record: LogRecord) -> None:
        match record:
            case Promised(ballot) if ballot == self.promised.get(node, LOWEST):
                return
            case Voted(ballot, slot, value, _) if self.votes.get(node, {}).get(slot) == Proposal(ballot, value):
                return
        super().save(node, record)


class SnapshotCluster(CoreCluster):
    """A cluster whose snapshots are slots: the ledger knows the values before them. A save is done as a whole or not at
    all.

    :ivar snapshots: the slots of the complete snapshots on the disk of each node, two at most.
    :ivar installed: how many came from another node.
    :ivar damaged: how many newest snapshots were removed, so that the older one was used.
    :ivar answered: how many read indexes were handed out.
    """

    def __init__(self, seed: int, nodes: int = 3, faults: Faults | None = None, limits: Limits | None = None) -> None:
        self.snapshots: dict[NodeId, list[Slot]] = {}
        self.asked: dict[NodeId, tuple[int, Slot]] = {}
        self.acknowledged: Slot = 0
        self.numbers: set[tuple[NodeId, int]] = set()
        self.installed = self.damaged = self.answered = 0
        super().__init__(seed, nodes, faults, limits)

    def make(self, node: NodeId, rng: Random) -> Replica:
        if not isinstance(self.ledger, SnapshotLedger):
            self.ledger = SnapshotLedger(self.quorum)
        slots = self.snapshots.setdefault(node, [])
        if len(slots) == 2 and self.rng.random() < 0.2:
            slots.pop()
            self.damaged += 1
        base = slots[-1] if slots else 0
        disk = self.disks[node]
        saved = disk[checkpoint_index(disk, base) if slots else None :]
        replica = Replica(node, self.members, rng, self.now, saved, self.timing, self.limits, base)
        self.chosen[node] = [Chosen(slot, self.ledger.chosen[slot]) for slot in range(1, base + 1)]
        self.hand_out(node, Ready(chosen=replica.recovered()))
        self.asked.pop(node, None)
        return replica

    def stop(self, node: NodeId) -> None:
        owed = list(self._owed[node])
        for ready in owed[: self.rng.randint(0, len(owed))]:
            for record in ready.save:
                self._write(node, record)
        self._owed[node].clear()
        super().stop(node)

    def hand_out(self, node: NodeId, ready: Ready) -> None:
        for item in ready.chosen:
            if isinstance(item, Installed):
                assert item.slot in self.snapshots[node]
                assert len(self.chosen[node]) < item.slot
                self.chosen[node] = [Chosen(slot, self.ledger.chosen[slot]) for slot in range(1, item.slot + 1)]
                self.installed += 1
            else:
                assert isinstance(item, Chosen)
                super().hand_out(node, Ready(chosen=(item,)))
        self.acknowledged = max(self.acknowledged, len(self.chosen[node]))
        for answer in ready.answers:
            assert isinstance(answer, ReadIndexConfirmed)
            number, acknowledged = self.asked.pop(node)
            assert answer.number == number
            assert answer.slot >= acknowledged, (node, answer, acknowledged)
            self.answered += 1
        if ready.snapshot_source is not None:
            self._transfer(node, ready.snapshot_source)

    def take(self, node: NodeId, ready: Ready) -> None:
        """Known chosen slots are not proposed any more: a node with the slot in a snapshot would never vote for it."""
        replica = self.nodes.get(node)
        if replica is not None and replica._leader is not None:
            assert all(slot > replica.log.chosen_through for slot in replica._leader.window.slots), replica.status()
        super().take(node, ready)

    def request_read_index(self, node: NodeId) -> None:
        """Ask for a read index, if ``node`` runs and has no other request. The answer must cover all that was handed
        out by now."""
        if node in self.nodes and node not in self.asked:
            number, ready = self.nodes[node].request_read_index(self.now)
            assert (node, number) not in self.numbers
            self.numbers.add((node, number))
            self.asked[node] = number, self.acknowledged
            self.take(node, ready)

    def snapshot(self, node: NodeId) -> None:
        """``node`` takes a snapshot of what it has handed out, which takes a while."""
        replica, slot = self.nodes.get(node), len(self.chosen[node])
        if replica is None or slot <= self._newest(node):
            return
        self.take(node, Ready(save=replica.checkpoint(slot), wake_at=self._wakes.get(node)))

        def finish() -> None:
            if self.nodes.get(node) is replica and slot > self._newest(node):
                before = self._newest(node)
                self._complete(node, slot)
                replica.compact(before)

        self._at(self.now + self.rng.uniform(0.0, 0.1), finish)

    def _newest(self, node: NodeId) -> Slot:
        return max(self.snapshots[node], default=0)

    def _complete(self, node: NodeId, slot: Slot) -> None:
        """The store keeps two snapshots, and the journal from the checkpoint of the older one on."""
        self.snapshots[node] = [*self.snapshots[node], slot][-2:]
        index = checkpoint_index(self.disks[node], self.snapshots[node][0])
        if len(self.snapshots[node]) == 2 and index is not None:
            del self.disks[node][:index]

    def _transfer(self, node: NodeId, peer: NodeId) -> None:
        """The newest snapshot of ``peer`` arrives, if both nodes run until then and the link is not cut."""
        replica = self.nodes[node]

        def finish() -> None:
            if self.nodes.get(node) is not replica or peer not in self.nodes or (peer, node) in self.cut:
                return
            slot = self._newest(peer)
            if slot > self._newest(node):
                self._complete(node, slot)
                self.take(node, replica.install(slot, self.now))

        self._at(self.now + self.rng.uniform(0.0, 0.3), finish)
