"""Coordination of one node's snapshots, which keep its log short.

A node takes snapshots of its own state, sends them to other nodes, fetches those of others, and compares state digests.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application
from txpaxos.core.config import Limits
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import PaxosError
from txpaxos.node.applier import Applier
from txpaxos.node.counts import Count, Counts
from txpaxos.node.members import Members
from txpaxos.node.snapshots.confirmation import Confirmation
from txpaxos.node.snapshots.digests import Diverged, StateDigests
from txpaxos.node.snapshots.taking import Policy, SnapshotTaker
from txpaxos.node.snapshots.transfer import (
    ActiveFetches,
    LogGrowth,
    ReceiverCallbacks,
    SnapshotReceiver,
    SnapshotSender,
    TransferLimits,
)
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import Store
from txpaxos.wire.peer_messages import (
    AskStateDigest,
    Fetching,
    FetchSnapshot,
    SnapshotMessage,
    SnapshotPart,
    StateDigest,
    StateDigestsHeard,
)

TELL_SECONDS = 5.0
"""The time between two notices of a node to all others that it fetches a snapshot, or the log after it."""
LEVEL_SLOTS = Limits().ahead_slots
"""A node that is behind by no more than this has caught up: the other nodes need not keep a snapshot for it."""


class NodePort(Protocol):
    """What the coordinator needs of its node."""

    def checkpoint(self, slot: Slot) -> None:
        """Save the records to keep beyond a snapshot at ``slot``."""

    def compact(self, through: Slot) -> None:
        """Drop the chosen values up to ``through``."""

    def install(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot``, which came from another node, unless this node is past it."""

    def heard_through(self) -> tuple[Slot, Slot]:
        """The last slot through which this node has all chosen values, and the last that it knows to be chosen."""

    def send(self, to: Iterable[NodeId], message: SnapshotMessage) -> None:
        """Send ``message`` to the nodes ``to``."""

    def snapshot_taken(self, digest: StateDigest) -> None:
        """Note that a snapshot of this node's own state is complete."""

    def snapshot_restored(self, slot: Slot) -> None:
        """Note that the application has the state of the snapshot at ``slot``."""

    def catching_up_changed(self) -> None:
        """Note that this node needs another's snapshot from now on, or has caught up with the others."""

    def give_up(self, error: PaxosError, after: Deferred[None] | None = None) -> None:
        """Stop the node for good because of ``error``. If ``after`` is given, that is reported when it has fired."""


@attrs.frozen
class SnapshotStatus:
    """The snapshots of one node, for operators.

    :ivar snapshot_slot: the slot of the newest snapshot; 0 if there is none.
    :ivar taking: the slot of the snapshot that is being taken; ``None`` if none is.
    :ivar transfer: the progress of a snapshot from another node, or of the log after it, in words; ``None`` if nothing
        is under way.
    :ivar snapshots_bytes: the size of all snapshots, with one that is not complete.
    :ivar snapshot_sent_bytes: how many bytes of snapshots this node has sent to other nodes since it started.
    :ivar snapshot_received_bytes: how many have come from other nodes, those that came in vain included.
    """

    snapshot_slot: Slot
    taking: Slot | None
    transfer: str | None
    snapshots_bytes: int
    snapshot_sent_bytes: int
    snapshot_received_bytes: int


class SnapshotCoordinator:
    """Composes the parts that take, send, fetch and compare the snapshots of one node.

    :param node: the node, as far as this class needs it.
    :param application: the application whose state is in the snapshots.
    :param cluster: the name of the cluster.
    :param members: who the members are. Snapshots hold that.
    :param applier: applies the log to the application, and has the sessions.
    :param policy: when to take a snapshot.
    :param limits: how fast snapshots are sent.
    :ivar is_catching_up: whether this node needs another's snapshot, or the log after it, to be level with the others.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        node: NodePort,
        name: NodeId,
        cluster: str,
        members: Members,
        store: Store,
        application: Application,
        applier: Applier,
        policy: Policy,
        limits: TransferLimits,
        counters: Counts,
        rng: Random,
    ) -> None:
        self._members = members
        self._node = node
        self._store = store
        self._counters = counters
        self._clock = clock
        self._fetches = fetches = ActiveFetches(store, clock)
        taken, reached, held = self._taken, self._reached, lambda: fetches.count > 0
        begun = node.checkpoint
        self._taker = snapshots = SnapshotTaker(
            *(clock, store, application, applier, cluster, members, policy, begun, taken, reached, held),
            node.give_up,
        )
        log_hash, watched = snapshots.log_hash, snapshots.watched
        self._digests = StateDigests(name, members, node.send, self._diverged, log_hash, watched, counters)
        self._confirmation = Confirmation(clock, self._digests, counters)
        self._digests.heard = lambda slot: self._confirmation.check()
        rate = LogGrowth(lambda: snapshots.applied_bytes, clock)
        self._sender = SnapshotSender(clock, store, self._tell, counters, limits, node.give_up, fetches, rate)
        steps = ReceiverCallbacks(self._is_news, self._fetching, self._confirmation.confirm, node.install)
        self._receiver = SnapshotReceiver(clock, store, cluster, lambda: members.others, self._tell, steps, limits, rng)
        self.is_catching_up = False
        self._newest: Slot = 0
        self._own: StateDigest | None = None
        # The slot of the snapshot that this node fetches, or continued from, until it has caught up with the others;
        # the slot to which it must apply the log for that; and when it began to fetch.
        self._fetched: Slot = 0
        self._level_at: Slot | None = None
        self._behind_since = 0.0
        # The last slot that was known to be chosen when this node began to catch up.
        self._behind_of: Slot = 0
        self._told_at = -TELL_SECONDS
        self._sent_bytes = self._received_bytes = 0

    def load(self) -> None:
        """Restore the application from the newest snapshot, if there is one.

        No snapshot is taken before :meth:`loaded`. Its checkpoint would contain the whole rest of the log, which this
        node is about to apply again.
        """
        self._taker.replaying = True
        if self._store.snapshot is not None:
            self.restore(self._store.snapshot)

    def loaded(self) -> None:
        """Allow snapshots from now on: the saved log is applied."""
        self._taker.replaying = False

    def start(self) -> None:
        """Send the digest of the newest snapshot to the other nodes, now that messages can be sent."""
        if self._own is not None:
            self._digests.announce(self._own)

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the application from ``snapshot``."""
        self._newest = snapshot.slot
        self._own = self._taker.restore(snapshot)
        self._digests.remember(self._own)
        if self._fetched:
            self._level_at = self._node.heard_through()[1]
        self._node.snapshot_restored(snapshot.slot)
        if self._level_at is not None:
            self._catch_up(snapshot.slot, self._level_at)

    def state_hash(self) -> bytes:
        """The state hash that a snapshot taken now would have."""
        return self._taker.state_hash()

    def applied(self, chosen: Chosen) -> None:
        """Note that a slot was applied. A snapshot may be due, or the node may have caught up."""
        self._taker.applied(chosen)
        if self._level_at is not None:
            self._catch_up(chosen.slot, self._level_at)
        elif self.is_catching_up and chosen.slot >= self._behind_of:
            self._set_catching_up(False)  # The log has come instead of the snapshot.

    def fetch_from(self, peer: NodeId) -> None:
        """Fetch the snapshot of ``peer``: the log that this node needs is compacted there."""
        through, self._behind_of = self._node.heard_through()
        self._set_catching_up(True)
        if self._level_at is None and self._fetched <= through:
            self._fetched = 0  # The log has come instead of the snapshot.
        self._confirmation.check()
        self._receiver.fetch_from(peer)

    def receive(self, sender: NodeId, message: SnapshotMessage) -> None:
        """Handle a message of a peer about snapshots."""
        match message:
            case FetchSnapshot():
                self._sender.receive(sender, message)
            case StateDigest():
                self._digests.receive(sender, message)
            case StateDigestsHeard():
                self._digests.receive_digests_heard(sender, message)
            case AskStateDigest():
                self._digests.answer(sender, message.slot)
            case Fetching():
                self._fetches.note(sender, message.slot)
            case SnapshotPart():
                self._received_bytes += len(message.data)
                if not self._receiver.receive(sender, message):
                    self._counters[Count.SNAPSHOT_PART_NOT_AWAITED] += 1

    def note_backup(self, slot: Slot) -> None:
        """Note that a client fetches the snapshot at ``slot`` for a backup. Newer ones are taken less often then."""
        self._fetches.note("(backup)", slot)

    def status(self) -> SnapshotStatus:
        """The current snapshots and transfers."""
        newest = self._store.snapshot
        transfer = self._receiver.progress
        if transfer is None and self._level_at is not None:
            through, heard_through = self._node.heard_through()
            transfer = f"snapshot {self._fetched} is here, the log after it through {through} of {heard_through}"
        return SnapshotStatus(
            *(0 if newest is None else newest.slot, self._taker.taking, transfer),
            *(self._store.snapshots_bytes, self._sent_bytes, self._received_bytes),
        )

    def stop(self) -> None:
        """Stop everything that is under way."""
        self._taker.stop()
        self._sender.stop()
        self._receiver.stop()
        self._confirmation.stop()

    def _is_news(self, slot: Slot) -> bool:
        return slot > self._node.heard_through()[0]

    def _reached(self, slot: Slot, log_hash: bytes) -> None:
        """Send the log hash at ``slot`` to the others, with or without a snapshot there."""
        if self._taker.replaying:
            self._digests.remember(StateDigest(slot, log_hash, b""))
        else:
            self._digests.slot_reached(slot, log_hash)

    def _fetching(self, slot: Slot) -> None:
        """Tell the other nodes, now and then, to keep the snapshot at ``slot``, which this node fetches."""
        if not self._fetched:
            self._behind_since = self._clock.seconds()
        if slot != self._fetched or self._clock.seconds() >= self._told_at + TELL_SECONDS:
            self._fetched = slot
            self._told_at = self._clock.seconds()
            self._node.send(self._members.others, Fetching(slot))

    def _catch_up(self, slot: Slot, level_at: Slot) -> None:
        """Find out whether this node, which continued from another's snapshot, has caught up by applying ``slot``."""
        if slot < level_at:
            self._fetching(self._fetched)
            return
        heard_through = self._node.heard_through()[1]
        if heard_through > slot + LEVEL_SLOTS:
            self._level_at = heard_through
            return
        self._node.send(self._members.others, Fetching(0))
        line = (
            "caught up with the others at slot {slot}, {seconds} s after it began to fetch the snapshot at slot {base}"
        )
        seconds = round(self._clock.seconds() - self._behind_since, 1)
        self.log.info(line, slot=slot, seconds=seconds, base=self._fetched, event="caught_up")
        self._fetched, self._level_at = 0, None
        self._set_catching_up(False)

    def _set_catching_up(self, is_catching_up: bool) -> None:
        if self.is_catching_up is not is_catching_up:
            self.is_catching_up = is_catching_up
            self._node.catching_up_changed()

    def _taken(self, digest: StateDigest) -> None:
        """Compact the log up to the older of the two newest snapshots, and announce the digest of the newer one.

        The log between the two is kept. So a node that is a little behind needs no snapshot.
        """
        self._node.snapshot_taken(digest)
        self._node.compact(self._newest)
        self._newest = digest.slot
        self._digests.announce(digest)

    def _diverged(self, error: Diverged) -> None:
        """Stop the node, and mark its data folder so that it is not started again as it is.

        The node reports its failure only when the mark is on disk. A supervisor would restart it before that.
        """

        def failed(failure: Failure) -> None:
            line = "do not start this node again as it is; it could not be marked as diverged: {reason}"
            self.log.critical(line, reason=failure.getErrorMessage(), event="quarantine_failed")

        self._node.give_up(error, self._store.quarantine(error.finding).addErrback(failed))

    def _tell(self, to: NodeId, message: FetchSnapshot | SnapshotPart) -> None:
        if isinstance(message, SnapshotPart):
            self._sent_bytes += len(message.data)
        self._node.send((to,), message)
