"""What keeps the log of one node short: its own snapshots, those it gives away and takes, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application
from txpaxos.applier import Applier
from txpaxos.audits import Audits, Diverged
from txpaxos.cluster import Cluster
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import PaxosError
from txpaxos.snapshots import Policy, Snapshots, Taken
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import Store
from txpaxos.transfer import SnapshotReceiver, SnapshotSender, TransferLimits
from txpaxos.wire.peer_messages import AskAudit, Audit, FetchSnapshot, SnapshotPart

CompactionMessage: TypeAlias = FetchSnapshot | SnapshotPart | Audit | AskAudit


class Node(Protocol):
    """What compaction asks of the node it works for."""

    def checkpoint(self, slot: Slot) -> None:
        """Save what must be remembered beyond a snapshot at ``slot``."""

    def compact(self, through: Slot) -> None:
        """Forget the chosen values up to ``through``."""

    def install(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``, which came from another node, if that is news."""

    def send(self, to: Iterable[NodeId], message: CompactionMessage) -> None:
        """Send a message."""

    def give_up(self, error: PaxosError, after: Deferred[None] | None = None) -> None:
        """Do no more, and say so when ``after`` has fired, if that is given."""


@attrs.frozen
class CompactionStatus:
    """For people.

    :ivar snapshot_slot: of the newest snapshot; 0 if there is none.
    :ivar taking: the slot of the one that is being taken.
    :ivar transfer: how far another node's snapshot is on its way to this one.
    """

    snapshot_slot: Slot
    taking: Slot | None
    transfer: str | None


class Compaction:
    """All of it, put together.

    :param application: whose state it is.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        node: Node,
        name: NodeId,
        cluster: Cluster,
        store: Store,
        application: Application,
        applier: Applier,
        policy: Policy,
        limits: TransferLimits,
        counters: Counter[str],
    ) -> None:
        members = tuple(cluster.members)
        others = tuple(member for member in members if member != name)
        self._node = node
        self._store = store
        self._counters = counters
        self._snapshots = Snapshots(
            clock, store, application, applier, cluster.name, members, policy, node.checkpoint, self._taken
        )
        self._audits = Audits(name, others, len(members) // 2 + 1, node.send, self._diverged)
        self._sender = SnapshotSender(clock, store, self._tell, counters, limits, node.give_up)
        self._receiver = SnapshotReceiver(clock, store, self._tell, node.install, limits)
        self._newest: Slot = 0

    def load(self) -> Slot:
        """Make the application what it was at the newest snapshot. Until :meth:`loaded` is called none is taken: what
        must be remembered beyond it would be the whole rest of the log that this node is about to apply again.

        :returns: the slot of the newest; 0 if there is none.
        """
        self._snapshots.replaying = True
        snapshot = self._store.snapshot
        if snapshot is None:
            return 0
        self.restore(snapshot)
        return snapshot.slot

    def loaded(self) -> None:
        """All that was saved is applied."""
        self._snapshots.replaying = False

    def restore(self, snapshot: Snapshot) -> None:
        """Make the application what it was at ``snapshot``."""
        self._newest = snapshot.slot
        self._snapshots.restore(snapshot)

    def state_hash(self) -> bytes:
        """The hash that a snapshot taken now would have."""
        return self._snapshots.state_hash()

    def applied(self, chosen: Chosen) -> None:
        """A slot was applied."""
        self._snapshots.applied(chosen)

    def fetch_from(self, peer: NodeId) -> None:
        """Only a snapshot of ``peer`` can help this node."""
        self._receiver.fetch_from(peer)

    def receive(self, sender: NodeId, message: CompactionMessage) -> None:
        """Take a message of a peer."""
        match message:
            case FetchSnapshot():
                self._sender.receive(sender, message)
            case Audit():
                self._audits.receive(sender, message)
            case AskAudit():
                self._audits.tell_again(sender, message.slot)
            case SnapshotPart() if not self._receiver.receive(sender, message):
                self._counters["part of a snapshot that is not waited for"] += 1

    def status(self) -> CompactionStatus:
        """How it is going."""
        newest = self._store.snapshot
        return CompactionStatus(0 if newest is None else newest.slot, self._snapshots.taking, self._receiver.progress)

    def stop(self) -> None:
        """Do nothing more."""
        self._snapshots.stop()
        self._sender.stop()
        self._receiver.stop()

    def _taken(self, taken: Taken) -> None:
        """The log is kept as far back as the older of the two newest snapshots, so that not everybody who lags a bit
        needs the newer one."""
        self._node.compact(self._newest)
        self._newest = taken.slot
        self._audits.add(Audit(taken.slot, taken.log_hash, taken.state_hash))

    def _diverged(self, error: Diverged) -> None:
        """Nobody may start this node again as it is: whoever does so by himself waits until the verdict is on disk."""

        def failed(failure: Failure) -> None:
            line = "see that nobody starts this node again as it is: {reason}"
            self.log.critical(line, reason=failure.getErrorMessage())

        self._node.give_up(error, self._store.condemn(error.finding).addErrback(failed))

    def _tell(self, to: NodeId, message: FetchSnapshot | SnapshotPart) -> None:
        self._node.send((to,), message)
