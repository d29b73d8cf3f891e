"""Transfer of a snapshot from one node to another, which needs log entries that the others have compacted.

The node that is behind requests one part after another, and writes each to its disk before it requests the next. So it
is never sent more than it can take, and continues where it was after a crash of either node. The sender keeps to a
limit of bytes per second. While a node fetches a snapshot, the nodes that have it take new ones less often, so that the
file and the log after it are kept. When the file is complete, its checksums are checked, and the other nodes are asked
whether they have the same snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import StoreError
from txpaxos.node.counts import Count, Counts
from txpaxos.node.snapshots.taking import SnapshotInspection
from txpaxos.storage.snapshots import Snapshot, SnapshotWriter
from txpaxos.storage.store import Store
from txpaxos.wire.peer_messages import PART_BYTES_MAX, FetchSnapshot, SnapshotPart, StateDigest

PART_BYTES = 2**18
"""The size of a part, unless the limit of bytes per second asks for smaller ones."""
CHECK_SECONDS = 5.0
"""The shortest time between two checks of a snapshot that a receiver reports as damaged."""
FETCH_SILENCE_SECONDS = 60.0
"""How long a snapshot is kept for a node that fetches it and is silent."""
MEASURE_SECONDS = 1.0
"""The shortest time over which the growth of the log is measured."""
BACK_OFF_SECONDS = (1.0, 60.0)
"""The waiting time after a first failure, and the longest one. It doubles with each failure in a row."""
RESTART_SECONDS = 5.0
"""The shortest time between two restarts of a transfer, each of which drops the parts received so far."""
REFUSED_SECONDS = 60.0
"""How long a node is avoided after it has sent a snapshot that the others contradicted, if there is another node."""
OTHER_NODE_TRIES = 2
"""The number of requests to each node that may still have a snapshot after its sender has dropped it."""


@attrs.frozen
class TransferLimits:
    """How fast and how big snapshots may be transferred.

    :ivar bytes_per_second: how much one node sends, to all receivers together. If the log grows faster, the node sends
        as fast as the log grows to each receiver. Otherwise the snapshot would be outdated before it has arrived.
    :ivar silence_seconds: until a part that has not arrived is requested again.
    :ivar tries: the number of requests before another node may be asked.
    :ivar snapshot_bytes_max: the size of the biggest snapshot that is accepted.
    """

    bytes_per_second: float = 16 * 2**20
    silence_seconds: float = 1.0
    tries: int = 5
    snapshot_bytes_max: int = 2**40


class ActiveFetches:
    """The nodes that are fetching a snapshot that this node has, from this node or another one."""

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._heard_at: dict[NodeId, float] = {}

    def note(self, node: NodeId, slot: Slot) -> None:
        """Note that ``node`` fetches the snapshot at ``slot``, or needs the log after it; at 0, neither any longer."""
        if slot and self._store.snapshot_at(slot) is not None:
            self._heard_at[node] = self._clock.seconds()
        else:
            self._heard_at.pop(node, None)

    @property
    def count(self) -> int:
        """The number of nodes that are fetching. Those that were silent for too long are not counted."""
        oldest = self._clock.seconds() - FETCH_SILENCE_SECONDS
        for node in [node for node, heard_at in self._heard_at.items() if heard_at < oldest]:
            del self._heard_at[node]
        return len(self._heard_at)


class LogGrowth:
    """Measures how fast the log grows.

    :param log_bytes: returns the bytes of the log that this node has applied since it started.
    """

    def __init__(self, log_bytes: Callable[[], int], clock: IReactorTime) -> None:
        self._log_bytes = log_bytes
        self._clock = clock
        self._bytes_per_second = 0.0
        self._measured = clock.seconds(), 0

    def bytes_per_second(self) -> float:
        """The growth between two calls that are at least :data:`MEASURE_SECONDS` apart."""
        now, log_bytes = self._clock.seconds(), self._log_bytes()
        measured_at, measured_bytes = self._measured
        if now - measured_at >= MEASURE_SECONDS:
            self._bytes_per_second = (log_bytes - measured_bytes) / (now - measured_at)
            self._measured = now, log_bytes
        return self._bytes_per_second


class SnapshotSender:
    """Sends parts of this node's snapshots to the nodes that request them.

    :param send: sends a part to a node.
    :param damaged: called with the error if a snapshot is found damaged. Then this node's disk cannot be trusted.
    :param fetches: notes which nodes are fetching.
    :param log_growth: how fast the log grows.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        send: Callable[[NodeId, SnapshotPart], None],
        counters: Counts,
        limits: TransferLimits,
        damaged: Callable[[StoreError], None],
        fetches: ActiveFetches,
        log_rate: LogGrowth,
    ) -> None:
        self._clock = clock
        self._store = store
        self._send = send
        self._counters = counters
        self._damaged = damaged
        self._checked_at = -CHECK_SECONDS
        self._limits = limits
        self._fetches = fetches
        self._log_growth = log_rate
        # The request of each node that is not answered yet, and when the next answer may be sent.
        self._asked: dict[NodeId, FetchSnapshot] = {}
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None

    def receive(self, sender: NodeId, message: FetchSnapshot) -> None:
        """Handle a request for a part. Only the last request of each node is answered."""
        self._asked[sender] = message
        if self._timer is None:
            self._answer_later()

    def stop(self) -> None:
        """Answer no more requests."""
        self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bytes_per_second(self) -> float:
        return max(self._limits.bytes_per_second, self._log_growth.bytes_per_second() * self._fetches.count)

    def _part_bytes(self) -> int:
        """The size of a part: smaller if the limit is low, so that several arrive before a receiver asks again."""
        return max(1, min(PART_BYTES, int(self._bytes_per_second() * self._limits.silence_seconds / 8)))

    def _answer(self) -> None:
        self._timer = None
        node, message = next(iter(self._asked.items()))
        del self._asked[node]
        part = self._part(message)
        if part is not None:
            self._fetches.note(node, part.slot)
            self._send(node, part)
            seconds = len(part.data) / self._bytes_per_second()
            # Time without requests is made up for by one part at most.
            self._next_at = max(self._next_at, self._clock.seconds() - seconds) + seconds
        if self._asked:
            self._answer_later()

    def _answer_later(self) -> None:
        self._timer = self._clock.callLater(max(0.0, self._next_at - self._clock.seconds()), self._answer)

    def _part(self, message: FetchSnapshot) -> SnapshotPart | None:
        snapshot = self._store.snapshot_at(message.slot) or self._store.snapshot
        if snapshot is None:
            self._counters[Count.NO_SNAPSHOT_TO_SEND] += 1
            return None
        if message.damaged == snapshot.slot and not self._is_sound(snapshot):
            return None
        offset = message.offset if message.slot == snapshot.slot and message.offset < snapshot.size_bytes else 0
        try:
            data = snapshot.read(offset, self._part_bytes())
        except StoreError:
            self._counters[Count.UNREADABLE_SNAPSHOT] += 1
            return None
        return SnapshotPart(snapshot.slot, snapshot.size_bytes, offset, data)

    def _is_sound(self, snapshot: Snapshot) -> bool:
        """Whether all checksums of the file are right. That takes a while. So it is not checked often."""
        now = self._clock.seconds()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            try:
                for _ in snapshot.chunks():
                    pass
            except StoreError as error:
                self._damaged(error)
                return False
        return True


@attrs.frozen
class ReceiverCallbacks:
    """The decisions that a receiver leaves to its owner.

    :ivar is_news: whether a snapshot at a slot would bring this node forward.
    :ivar began: called with the slot of the snapshot that this node fetches, repeatedly.
    :ivar confirm: called with a node and the digest of the snapshot that came from it. Returns a Deferred that fires if
        the snapshot may be used, and otherwise fails with a StoreError.
    :ivar received: called with each snapshot that is complete, confirmed, and on disk.
    """

    is_news: Callable[[Slot], bool]
    began: Callable[[Slot], None]
    confirm: Callable[[NodeId, StateDigest], Deferred[None]]
    received: Callable[[Snapshot], None]


class SnapshotReceiver:
    """Fetches a snapshot from another node.

    :param cluster: the name of the cluster.
    :param others: returns the nodes that may be asked.
    :param send: sends a request to a node.
    :param steps: the owner's part in it.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        cluster: str,
        others: Callable[[], Iterable[NodeId]],
        send: Callable[[NodeId, FetchSnapshot], None],
        steps: ReceiverCallbacks,
        limits: TransferLimits,
        rng: Random,
    ) -> None:
        self._clock = clock
        self._store = store
        self._cluster = cluster
        self._others = others
        self._send = send
        self._is_news = steps.is_news
        self._began = steps.began
        self._confirm = steps.confirm
        self._received = steps.received
        self._limits = limits
        self._rng = rng
        self._peer: NodeId | None = None
        self._writer: SnapshotWriter | None = None
        self._size_bytes = 0
        self._writing = False
        self._tries = 0
        self._timer: IDelayedCall | None = None
        # The slot of a snapshot that arrived damaged; and for each node that sent a contradicted snapshot, its slot and
        # until when the node is avoided.
        self._damaged: Slot = 0
        self._refused: dict[NodeId, tuple[Slot, float]] = {}
        self._reset_transfer()
        # The time before which nothing is fetched, the number of failures in a row, and the reason of the last one.
        self._not_before = 0.0
        self._failures = 0
        self._reason = ""

    def _reset_transfer(self) -> None:
        """Reset everything about one transfer, from the first request until the snapshot is complete."""
        self._begun_at: float | None = None
        self._begun_bytes = 0
        self._source: NodeId | None = None
        self._restarts = 0
        self._restarted_at = -inf
        # The nodes that do not have the snapshot of which a part is here; and the one of them whose other snapshot is
        # requested instead.
        self._lacking: dict[NodeId, None] = {}
        self._offers: NodeId | None = None

    @property
    def progress(self) -> str | None:
        """The progress of the transfer, in words; ``None`` if nothing is under way."""
        now = self._clock.seconds()
        if self._peer is None:
            if self._reason and now < self._not_before + BACK_OFF_SECONDS[1]:
                return f"no snapshot for {max(0.0, self._not_before - now):.0f} s more: {self._reason}"
            return None
        if self._writer is None or self._begun_at is None:
            return f"snapshot from {self._peer}"
        have, seconds = self._writer.size_bytes, now - self._begun_at
        rate = (have - self._begun_bytes) / seconds / 1e6 if seconds > 0 else 0.0
        told = f"snapshot {self._writer.slot} from {self._peer}: {have} of {self._size_bytes} bytes"
        return f"{told}, for {seconds:.1f} s at {rate:.1f} MB/s{self._restarts_told}"

    @property
    def _restarts_told(self) -> str:
        return f", started over {self._restarts} times" if self._restarts else ""

    def fetch_from(self, peer: NodeId) -> None:
        """Fetch the snapshot of ``peer``, unless a transfer from another node is under way and that node answers."""
        now = self._clock.seconds()
        if self._tries and self._peer not in (None, peer) and not self._lacking:
            self._leave_peer()
        if self._peer is None and now >= self._not_before:
            self._start(peer, now)

    def receive(self, sender: NodeId, part: SnapshotPart) -> bool:
        """Handle a part.

        :returns: whether this node was waiting for it.
        """
        if sender != self._peer or self._writing or not self._is_possible(part):
            return False
        slot, size_bytes = self._partial()
        if part.slot != slot:
            if part.offset:
                return False
            if size_bytes and self._offers is None and self._ask_others(sender):
                return True
            if size_bytes and self._clock.seconds() < self._restarted_at + RESTART_SECONDS:
                return False
        if (self._writer is None or self._writer.slot != part.slot) and not self._begin(part):
            return True
        return self._write(part)

    def stop(self) -> None:
        """Stop fetching. The parts received so far stay on disk, for the next start of this node."""
        self._peer = None
        self._stop_timer()

    # which snapshot, and from which node

    def _partial(self) -> tuple[Slot, int]:
        """The slot of the snapshot of which a part is here, and the bytes of it; (0, 0) if there is none."""
        if self._writer is not None:
            return self._writer.slot, self._writer.size_bytes
        part = self._store.part
        return part if part is not None and self._is_news(part[0]) else (0, 0)

    def _start(self, peer: NodeId, now: float) -> None:
        self._refused = {node: (slot, until) for node, (slot, until) in self._refused.items() if now < until}
        if peer in self._refused:
            trusted = [other for other in self._others() if other not in self._refused]
            peer = self._rng.choice(trusted) if trusted else peer
        if self._begun_at is None:
            self._begun_at = now
            self._begun_bytes = self._partial()[1]
        self._peer = peer
        self._tries = 0
        self._ask()

    def _is_possible(self, part: SnapshotPart) -> bool:
        """Whether the part is of a snapshot that helps this node, and contradicts nothing known of that snapshot."""
        if self._writer is not None and part.slot == self._writer.slot and part.size_bytes != self._size_bytes:
            return False
        return (
            0 < part.size_bytes <= self._limits.snapshot_bytes_max
            and 0 < len(part.data) <= PART_BYTES_MAX
            and part.offset + len(part.data) <= part.size_bytes
            and self._refused.get(self._peer or "", (0, 0.0))[0] != part.slot
            and self._is_news(part.slot)
        )

    def _ask_others(self, sender: NodeId) -> bool:
        """Ask another node for the rest of the snapshot of which a part is here: ``sender`` has another one.

        :returns: whether there is another node to ask.
        """
        self._lacking[sender] = None
        candidates = [other for other in self._others() if other not in self._lacking and other not in self._refused]
        if candidates:
            self._peer = self._rng.choice(candidates)
            self._tries = 0
            self._ask()
        return bool(candidates)

    def _begin(self, part: SnapshotPart) -> bool:
        """Begin to write the snapshot of ``part``, the first part of it.

        :returns: whether it can be written.
        """
        slot, size_bytes = self._partial()
        if slot != part.slot and size_bytes:
            self._restarts += 1
            self._restarted_at = self._clock.seconds()
            self.log.warn(
                "starts over with the snapshot at slot {slot}: no node that answers still has the one at slot {before},"
                " of which {here} bytes had come",
                slot=part.slot,
                before=slot,
                here=size_bytes,
                event="snapshot_restarted",
            )
        if self._writer is not None:
            self._writer.abandon().addErrback(lambda _: None)
            self._writer = None
        try:
            self._writer = self._store.receive_snapshot(part.slot, part.size_bytes)
        except StoreError:
            self._failed(Failure())
            return False
        self._size_bytes = part.size_bytes
        self._lacking.clear()
        self._offers = None
        return True

    def _write(self, part: SnapshotPart) -> bool:
        assert self._writer is not None
        if self._source != self._peer:
            self._source = self._peer
            self.log.info(
                "too far behind for the log: taking a snapshot from node {peer}: that at slot {slot}, {here} of {size}"
                " bytes are here",
                peer=self._peer,
                slot=part.slot,
                here=self._writer.size_bytes,
                size=part.size_bytes,
                event="snapshot_fetched",
            )
        self._began(part.slot)
        if part.offset != self._writer.size_bytes:
            if part.offset == 0:  # It was written before this node was restarted, in part or completely.
                self._written(None)
            return False
        self._tries = 0
        self._wait_for(self._writer, self._writer.write_raw(part.data), self._written)
        return True

    # asking

    def _ask(self) -> None:
        assert self._peer is not None
        self._stop_timer()
        slot, offset = (0, 0) if self._offers is not None else self._partial()
        self._timer = self._clock.callLater(self._limits.silence_seconds, self._ask_again)
        self._send(self._peer, FetchSnapshot(slot, offset, self._damaged))

    def _ask_again(self) -> None:
        assert self._peer is not None
        self._timer = None
        self._tries += 1
        if self._tries < (OTHER_NODE_TRIES if self._lacking and self._offers is None else self._limits.tries):
            self._ask()
        elif self._lacking and self._offers is None:
            offers = next(iter(self._lacking))
            if not self._ask_others(self._peer):  # No other node has the rest.
                self._peer = self._offers = offers
                self._tries = 0
                self._ask()
        else:
            self._leave_peer()

    def _leave_peer(self) -> None:
        """Give up this peer. The parts received so far stay, since the next node may have the same snapshot.

        The core finds that node.
        """
        self.log.warn("node {peer} sends no snapshot", peer=self._peer, event="snapshot_not_sent")
        self._stop_timer()
        self._lacking.clear()
        self._peer = self._source = self._offers = None

    # writing

    def _wait_for(self, writer: SnapshotWriter, done: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Call ``then`` or :meth:`_failed` when ``done`` fires, if ``writer`` is still wanted."""

        def proceed(result: Any) -> None:
            if writer is self._writer and self._peer is not None:
                self._writing = False
                (self._failed if isinstance(result, Failure) else then)(result)

        self._writing = True
        self._stop_timer()
        done.addBoth(proceed)

    def _written(self, _: None) -> None:
        assert self._writer is not None
        if self._writer.size_bytes < self._size_bytes:
            self._ask()
            return
        contents = SnapshotInspection(self._cluster, self._writer.slot)
        self._wait_for(self._writer, self._writer.check(contents.add_chunk), lambda _: self._checked(contents))

    def _checked(self, contents: SnapshotInspection) -> None:
        """Ask the other nodes about the snapshot, whose checksums are right."""
        assert self._writer is not None
        assert self._peer is not None
        try:
            digest = contents.digest
        except StoreError:
            self._failed(Failure())
            return
        self._wait_for(self._writer, self._confirm(self._peer, digest), self._confirmed)

    def _confirmed(self, _: None) -> None:
        assert self._writer is not None
        if self._is_news(self._writer.slot):
            self._wait_for(self._writer, self._writer.finish(), self._finished)
        else:
            self.log.info(
                "the snapshot at slot {slot} is no longer needed", slot=self._writer.slot, event="snapshot_not_needed"
            )
            self._drop()

    def _finished(self, snapshot: Snapshot) -> None:
        assert self._begun_at is not None
        self.log.info(
            "the snapshot at slot {slot} came from node {peer}: {size} bytes in {seconds} s{restarts}",
            slot=snapshot.slot,
            peer=self._peer,
            size=snapshot.size_bytes,
            seconds=round(self._clock.seconds() - self._begun_at, 1),
            restarts=self._restarts_told,
            event="snapshot_received",
        )
        self._writer = self._peer = None
        self._damaged = self._failures = 0
        self._reason = ""
        self._refused.clear()
        self._reset_transfer()
        self._received(snapshot)

    def _drop(self) -> None:
        """Drop the transfer, and what has been written unless the store keeps it."""
        if self._writer is not None and not self._writer.kept:
            self._writer.abandon().addErrback(lambda _: None)
        self._writer = self._peer = self._source = self._offers = None
        self._lacking.clear()
        self._stop_timer()

    def _failed(self, failure: Failure) -> None:
        """End the transfer: the snapshot cannot be written, is damaged, or is contradicted by other nodes.

        Another transfer begins later, when the core finds that this node is still behind.
        """
        if failure.check(SnapshotRefused):
            assert self._peer is not None
            assert self._writer is not None
            self._refused[self._peer] = self._writer.slot, self._clock.seconds() + REFUSED_SECONDS
        elif self._writer is not None and self._writer.size_bytes >= self._size_bytes:
            self._damaged = self._writer.slot
        reason = failure.getErrorMessage()
        if _kind(reason) != _kind(self._reason):
            line = "no snapshot from node {peer}: {reason}; it is tried again, after a longer time with each failure"
            self.log.error(line, peer=self._peer, reason=reason, event="snapshot_failed")
        self._reason = reason
        shortest, longest = BACK_OFF_SECONDS
        seconds = min(longest, shortest * 2.0 ** min(self._failures, 30)) * self._rng.uniform(0.5, 1.0)
        self._failures += 1
        self._not_before = self._clock.seconds() + seconds
        self._drop()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SnapshotRefused(StoreError):
    """A snapshot that was fetched is not the one that the other nodes have."""


def _kind(reason: str) -> str:
    """The kind of a reason: equal for reasons that differ only in numbers, such as bytes or slots."""
    return re.sub(r"\d+", "", reason).partition(": ")[0]
