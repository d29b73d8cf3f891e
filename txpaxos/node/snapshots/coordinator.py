"""What keeps the log of one node short: its own snapshots, those it gives away and takes, and whether they agree."""

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
from txpaxos.cluster import Cluster
from txpaxos.core.config import Limits
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import PaxosError
from txpaxos.node.applier import Applier
from txpaxos.node.counts import Count, Counts
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
"""So often a node that fetches a snapshot, or the log after it, says so to all."""
LEVEL_SLOTS = Limits().ahead_slots
"""A node that is no further behind takes part in what is chosen next, and needs nothing kept for it."""


class NodePort(Protocol):
    """What compaction asks of the node it works for."""

    def checkpoint(self, slot: Slot) -> None:
        """Save what must be remembered beyond a snapshot at ``slot``."""

    def compact(self, through: Slot) -> None:
        """Forget the chosen values up to ``through``."""

    def install(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``, which came from another node, if that is news."""

    def heard_through(self) -> tuple[Slot, Slot]:
        """How far this node knows what is chosen, and how far it has heard that something is."""

    def send(self, to: Iterable[NodeId], message: SnapshotMessage) -> None:
        """Send a message."""

    def snapshot_taken(self, digest: StateDigest) -> None:
        """A snapshot of this node's own state is complete."""

    def snapshot_restored(self, slot: Slot) -> None:
        """The application is what it was at the snapshot at ``slot``."""

    def give_up(self, error: PaxosError, after: Deferred[None] | None = None) -> None:
        """Do no more, and say so when ``after`` has fired, if that is given."""


@attrs.frozen
class SnapshotStatus:
    """For people.

    :ivar snapshot_slot: of the newest snapshot; 0 if there is none.
    :ivar taking: the slot of the one that is being taken.
    :ivar transfer: how far another node's snapshot is on its way to this one, or the log after it.
    """

    snapshot_slot: Slot
    taking: Slot | None
    transfer: str | None


class SnapshotCoordinator:
    """All of it, put together.

    :param application: whose state it is.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        node: NodePort,
        name: NodeId,
        cluster: Cluster,
        store: Store,
        application: Application,
        applier: Applier,
        policy: Policy,
        limits: TransferLimits,
        counters: Counts,
        rng: Random,
    ) -> None:
        members = tuple(cluster.members)
        self._others = others = tuple(member for member in members if member != name)
        self._node = node
        self._store = store
        self._counters = counters
        self._clock = clock
        self._fetches = fetches = ActiveFetches(store, clock)
        taken, reached, held = self._taken, self._reached, lambda: fetches.count > 0
        begun, cluster_name = node.checkpoint, cluster.name
        self._taker = snapshots = SnapshotTaker(
            *(clock, store, application, applier, cluster_name, members, policy, begun, taken, reached, held),
            node.give_up,
        )
        quorum, log_hash, watched = len(members) // 2 + 1, snapshots.log_hash, snapshots.watched
        self._digests = StateDigests(name, others, quorum, node.send, self._diverged, log_hash, watched)
        self._confirmation = Confirmation(clock, self._digests, counters)
        self._digests.heard = lambda slot: self._confirmation.check()
        rate = LogGrowth(lambda: snapshots.applied_bytes, clock)
        self._sender = SnapshotSender(clock, store, self._tell, counters, limits, node.give_up, fetches, rate)
        steps = ReceiverCallbacks(self._is_news, self._fetching, self._confirmation.confirm, node.install)
        self._receiver = SnapshotReceiver(clock, store, cluster_name, others, self._tell, steps, limits, rng)
        self._newest: Slot = 0
        self._own: StateDigest | None = None
        # The slot of the snapshot that this node fetches, or from which it went on, until it is level with the others:
        # how far it must apply the log for that, and since when it tries.
        self._fetched: Slot = 0
        self._level_at: Slot | None = None
        self._behind_since = 0.0
        self._told_at = -TELL_SECONDS

    def load(self) -> None:
        """Make the application what it was at the newest snapshot. Until :meth:`loaded` is called none is taken: what
        must be remembered beyond it would be the whole rest of the log that this node is about to apply again.
        """
        self._taker.replaying = True
        if self._store.snapshot is not None:
            self.restore(self._store.snapshot)

    def loaded(self) -> None:
        """All that was saved is applied."""
        self._taker.replaying = False

    def start(self) -> None:
        """Messages can be sent from now on: what this node makes of its newest snapshot is told first."""
        if self._own is not None:
            self._digests.announce(self._own)

    def restore(self, snapshot: Snapshot) -> None:
        """Make the application what it was at ``snapshot``."""
        self._newest = snapshot.slot
        self._own = self._taker.restore(snapshot)
        self._digests.remember(self._own)
        if self._fetched:
            self._level_at = self._node.heard_through()[1]
        self._node.snapshot_restored(snapshot.slot)

    def state_hash(self) -> bytes:
        """The hash that a snapshot taken now would have."""
        return self._taker.state_hash()

    def applied(self, chosen: Chosen) -> None:
        """A slot was applied."""
        self._taker.applied(chosen)
        if self._level_at is not None:
            self._catch_up(chosen.slot, self._level_at)

    def fetch_from(self, peer: NodeId) -> None:
        """Only a snapshot of ``peer`` can help this node."""
        if self._level_at is None and self._fetched <= self._node.heard_through()[0]:
            self._fetched = 0  # The log has come instead.
        self._confirmation.check()
        self._receiver.fetch_from(peer)

    def receive(self, sender: NodeId, message: SnapshotMessage) -> None:
        """Take a message of a peer."""
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
            case SnapshotPart() if not self._receiver.receive(sender, message):
                self._counters[Count.SNAPSHOT_PART_NOT_AWAITED] += 1

    def status(self) -> SnapshotStatus:
        """How it is going."""
        newest = self._store.snapshot
        transfer = self._receiver.progress
        if transfer is None and self._level_at is not None:
            through, heard_through = self._node.heard_through()
            transfer = f"snapshot {self._fetched} is here, the log after it through {through} of {heard_through}"
        return SnapshotStatus(0 if newest is None else newest.slot, self._taker.taking, transfer)

    def stop(self) -> None:
        """Do nothing more."""
        self._taker.stop()
        self._sender.stop()
        self._receiver.stop()
        self._confirmation.stop()

    def _is_news(self, slot: Slot) -> bool:
        return slot > self._node.heard_through()[0]

    def _reached(self, slot: Slot, log_hash: bytes) -> None:
        """What the log has come to is told, whether or not a snapshot is taken here."""
        if self._taker.replaying:
            self._digests.remember(StateDigest(slot, log_hash, b""))
        else:
            self._digests.slot_reached(slot, log_hash)

    def _fetching(self, slot: Slot) -> None:
        """This node takes the snapshot at ``slot`` from another: whoever has it is to keep it."""
        if not self._fetched:
            self._behind_since = self._clock.seconds()
        if slot != self._fetched or self._clock.seconds() >= self._told_at + TELL_SECONDS:
            self._fetched = slot
            self._told_at = self._clock.seconds()
            self._node.send(self._others, Fetching(slot))

    def _catch_up(self, slot: Slot, level_at: Slot) -> None:
        """This node went on from another's snapshot and has applied ``slot``: is it level with the others?"""
        if slot < level_at:
            self._fetching(self._fetched)
            return
        heard_through = self._node.heard_through()[1]
        if heard_through > slot + LEVEL_SLOTS:
            self._level_at = heard_through
            return
        self._node.send(self._others, Fetching(0))
        line = "level with the others at slot {slot}, {seconds} s after the snapshot at slot {base} was begun"
        seconds = round(self._clock.seconds() - self._behind_since, 1)
        self.log.info(line, slot=slot, seconds=seconds, base=self._fetched)
        self._fetched, self._level_at = 0, None

    def _taken(self, digest: StateDigest) -> None:
        """The log is kept as far back as the older of the two newest snapshots, so that not everybody who lags a bit
        needs the newer one."""
        self._node.snapshot_taken(digest)
        self._node.compact(self._newest)
        self._newest = digest.slot
        self._digests.announce(digest)

    def _diverged(self, error: Diverged) -> None:
        """Nobody may start this node again as it is: whoever does so by himself waits until the verdict is on disk."""

        def failed(failure: Failure) -> None:
            line = "see that nobody starts this node again as it is: {reason}"
            self.log.critical(line, reason=failure.getErrorMessage())

        self._node.give_up(error, self._store.quarantine(error.finding).addErrback(failed))

    def _tell(self, to: NodeId, message: FetchSnapshot | SnapshotPart) -> None:
        self._node.send((to,), message)
