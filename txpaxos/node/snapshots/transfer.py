"""Snapshots on their way from one node to another, for one whose log the others no longer have from where it ends.

The node that is behind asks for part after part and writes each to its disk before it asks for the next: so it is never
sent more than it can take, and goes on where it was after a crash of either side. Whoever sends does so no faster than
its limit. While somebody fetches a snapshot, the nodes that have it take no newer one: the file stays, and the log
after it. When the file is complete its checksums are checked, and the others are asked whether they have the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
CHECK_SECONDS = 5.0
"""A snapshot that is said to be damaged is not looked at again sooner."""
FETCH_SILENCE_SECONDS = 60.0
"""So long a node that fetches a snapshot may be silent, and it is kept for it."""
MEASURE_SECONDS = 1.0
BACK_OFF_SECONDS = (1.0, 60.0)
"""After a failure a node waits for the first of these before it fetches again; that doubles up to the second."""
RESTART_SECONDS = 5.0
"""What has come of one snapshot is not thrown away for another sooner than so long after the last time."""
REFUSED_SECONDS = 60.0
"""So long a node is not asked again for a snapshot that was not what the others had, if there is another node."""
OTHER_NODE_TRIES = 2
"""So often a node is asked that may have what another has no more."""


@attrs.frozen
class TransferLimits:
    """How fast snapshots travel.

    :ivar bytes_per_second: that one node sends, to all who ask together. If the log grows faster, it sends as fast as
        that to each who asks: else what it sends would be outdated before it has come.
    :ivar silence_seconds: until a part that has not come is asked for again.
    :ivar tries: so often, before another node may be asked.
    :ivar snapshot_bytes_max: a bigger one is not taken.
    """

    bytes_per_second: float = 16 * 2**20
    silence_seconds: float = 1.0
    tries: int = 5
    snapshot_bytes_max: int = 2**40


class ActiveFetches:
    """Which nodes fetch a snapshot that is kept here, from this node or another."""

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._heard_at: dict[NodeId, float] = {}

    def note(self, node: NodeId, slot: Slot) -> None:
        """``node`` fetches the snapshot at ``slot``, or needs the log after it; 0: it needs nothing any more."""
        if slot and self._store.snapshot_at(slot) is not None:
            self._heard_at[node] = self._clock.seconds()
        else:
            self._heard_at.pop(node, None)

    @property
    def count(self) -> int:
        """How many do."""
        oldest = self._clock.seconds() - FETCH_SILENCE_SECONDS
        for node in [node for node, heard_at in self._heard_at.items() if heard_at < oldest]:
            del self._heard_at[node]
        return len(self._heard_at)


class LogGrowth:
    """How fast the log grows.

    :param log_bytes: how many bytes of it this node has applied since it started.
    """

    def __init__(self, log_bytes: Callable[[], int], clock: IReactorTime) -> None:
        self._log_bytes = log_bytes
        self._clock = clock
        self._bytes_per_second = 0.0
        self._measured = clock.seconds(), 0

    def bytes_per_second(self) -> float:
        """As measured between two calls, one second apart at least."""
        now, log_bytes = self._clock.seconds(), self._log_bytes()
        measured_at, measured_bytes = self._measured
        if now - measured_at >= MEASURE_SECONDS:
            self._bytes_per_second = (log_bytes - measured_bytes) / (now - measured_at)
            self._measured = now, log_bytes
        return self._bytes_per_second


class SnapshotSender:
    """Answers nodes that ask for this node's snapshots.

    :param damaged: called if one turns out to be damaged: this node's disk cannot be trusted.
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
        # The question of each node that has not been answered yet, and when the next answer may go.
        self._asked: dict[NodeId, FetchSnapshot] = {}
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None

    def receive(self, sender: NodeId, message: FetchSnapshot) -> None:
        """``sender`` asks for a part. Of several questions of one node only the last is answered."""
        self._asked[sender] = message
        if self._timer is None:
            self._answer_later()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bytes_per_second(self) -> float:
        return max(self._limits.bytes_per_second, self._log_growth.bytes_per_second() * self._fetches.count)

    def _part_bytes(self) -> int:
        """Short where the limit is low, so that several come within the time after which one is missed."""
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
            # What was not sent while nobody asked is made up for by one part, not more.
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
        """Look at the whole file, which takes a while; so not often."""
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
    """What the owner of a receiver has a say in.

    :ivar is_news: whether a snapshot at a slot would be news to this node.
    :ivar began: called with the slot of the snapshot that this node fetches, again and again.
    :ivar confirm: called with a node and what is in the snapshot that came from it. What it returns fires if that is
        to be believed, or fails with a StoreError.
    :ivar received: called with each snapshot that has come, is believed, and is on disk.
    """

    is_news: Callable[[Slot], bool]
    began: Callable[[Slot], None]
    confirm: Callable[[NodeId, StateDigest], Deferred[None]]
    received: Callable[[Snapshot], None]


class SnapshotReceiver:
    """Takes another node's snapshot.

    :param cluster: the cluster's name.
    :param others: the nodes that may be asked.
    :param send: sends a question to a node.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        cluster: str,
        others: tuple[NodeId, ...],
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
        # The slot of a snapshot that came damaged, and what has come from whom that is not to be believed.
        self._damaged: Slot = 0
        self._refused: dict[NodeId, tuple[Slot, float]] = {}
        self._reset_transfer()
        # Nothing is fetched before this; after how many failures in a row, and why.
        self._not_before = 0.0
        self._failures = 0
        self._reason = ""

    def _reset_transfer(self) -> None:
        """What concerns one snapshot, from the first question for it until it is there, by whatever ways."""
        self._begun_at: float | None = None
        self._begun_bytes = 0
        self._source: NodeId | None = None
        self._restarts = 0
        self._restarted_at = -inf
        # Nodes that have not the snapshot of which a part is here; and who of them has another.
        self._lacking: dict[NodeId, None] = {}
        self._offers: NodeId | None = None

    @property
    def progress(self) -> str | None:
        """How far it is, for people; ``None`` if nothing is on its way."""
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
        return f"{told}, for {seconds:.1f} s at {rate:.1f} MB/s{self._anew}"

    @property
    def _anew(self) -> str:
        return f", begun anew {self._restarts} times" if self._restarts else ""

    def fetch_from(self, peer: NodeId) -> None:
        """Take the snapshot of ``peer``, unless another is on its way. One whose sender has fallen silent is not."""
        now = self._clock.seconds()
        if self._tries and self._peer not in (None, peer) and not self._lacking:
            self._leave_peer()
        if self._peer is None and now >= self._not_before:
            self._start(peer, now)

    def receive(self, sender: NodeId, part: SnapshotPart) -> bool:
        """A part has come. Whether it was what this node waits for."""
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
        """Take nothing more. What has come stays for the next life of this node."""
        self._peer = None
        self._stop_timer()

    # which snapshot, and from whom

    def _partial(self) -> tuple[Slot, int]:
        """The slot of the snapshot of which a part is here, and how much of it; (0, 0): there is none."""
        if self._writer is not None:
            return self._writer.slot, self._writer.size_bytes
        part = self._store.part
        return part if part is not None and self._is_news(part[0]) else (0, 0)

    def _start(self, peer: NodeId, now: float) -> None:
        self._refused = {node: (slot, until) for node, (slot, until) in self._refused.items() if now < until}
        if peer in self._refused:
            trusted = [other for other in self._others if other not in self._refused]
            peer = self._rng.choice(trusted) if trusted else peer
        if self._begun_at is None:
            self._begun_at = now
            self._begun_bytes = self._partial()[1]
        self._peer = peer
        self._tries = 0
        self._ask()

    def _is_possible(self, part: SnapshotPart) -> bool:
        """Whether this may be a part of a snapshot that helps, and contradicts nothing that is known of it."""
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
        """``sender`` has another snapshot than that of which a part is here. Whether some other node may have it."""
        self._lacking[sender] = None
        candidates = [other for other in self._others if other not in self._lacking and other not in self._refused]
        if candidates:
            self._peer = self._rng.choice(candidates)
            self._tries = 0
            self._ask()
        return bool(candidates)

    def _begin(self, part: SnapshotPart) -> bool:
        """The first part of a snapshot that this node does not write yet."""
        slot, size_bytes = self._partial()
        if slot != part.slot and size_bytes:
            self._restarts += 1
            self._restarted_at = self._clock.seconds()
            self.log.warn(
                "begins anew with the snapshot at slot {slot}: no node that answers has that at slot {before} any more,"
                " of which {here} bytes had come",
                slot=part.slot,
                before=slot,
                here=size_bytes,
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
            )
        self._began(part.slot)
        if part.offset != self._writer.size_bytes:
            if part.offset == 0:  # An earlier life of this node has written the beginning of this one, or all of it.
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
            if not self._ask_others(self._peer):  # Nobody has the rest.
                self._peer = self._offers = offers
                self._tries = 0
                self._ask()
        else:
            self._leave_peer()

    def _leave_peer(self) -> None:
        """Wait for this peer no longer. What has come stays: the next node may have the same snapshot. It is the core's
        to find that node."""
        self.log.warn("node {peer} sends no snapshot", peer=self._peer)
        self._stop_timer()
        self._lacking.clear()
        self._peer = self._source = self._offers = None

    # writing

    def _wait_for(self, writer: SnapshotWriter, done: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Go on with ``then`` or :meth:`_failed`, if ``writer`` is still wanted."""

        def go_on(result: Any) -> None:
            if writer is self._writer and self._peer is not None:
                self._writing = False
                (self._failed if isinstance(result, Failure) else then)(result)

        self._writing = True
        self._stop_timer()
        done.addBoth(go_on)

    def _written(self, _: None) -> None:
        assert self._writer is not None
        if self._writer.size_bytes < self._size_bytes:
            self._ask()
            return
        contents = SnapshotInspection(self._cluster, self._writer.slot)
        self._wait_for(self._writer, self._writer.check(contents.add_chunk), lambda _: self._checked(contents))

    def _checked(self, contents: SnapshotInspection) -> None:
        """Its checksums are right. Is it what the others have?"""
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
            self.log.info("the snapshot at slot {slot} is not needed any more", slot=self._writer.slot)
            self._drop()

    def _finished(self, snapshot: Snapshot) -> None:
        assert self._begun_at is not None
        self.log.info(
            "the snapshot at slot {slot} came from node {peer}: {size} bytes in {seconds} s{anew}",
            slot=snapshot.slot,
            peer=self._peer,
            size=snapshot.size_bytes,
            seconds=round(self._clock.seconds() - self._begun_at, 1),
            anew=self._anew,
        )
        self._writer = self._peer = None
        self._damaged = self._failures = 0
        self._reason = ""
        self._refused.clear()
        self._reset_transfer()
        self._received(snapshot)

    def _drop(self) -> None:
        """Have nothing more to do with what has come."""
        if self._writer is not None and not self._writer.kept:
            self._writer.abandon().addErrback(lambda _: None)
        self._writer = self._peer = self._source = self._offers = None
        self._lacking.clear()
        self._stop_timer()

    def _failed(self, failure: Failure) -> None:
        """It cannot be written, is damaged, or is not what the others have: begin anew, but not at once, when the core
        finds out that this node is still behind."""
        if failure.check(SnapshotRefused):
            assert self._peer is not None
            assert self._writer is not None
            self._refused[self._peer] = self._writer.slot, self._clock.seconds() + REFUSED_SECONDS
        elif self._writer is not None and self._writer.size_bytes >= self._size_bytes:
            self._damaged = self._writer.slot
        reason = failure.getErrorMessage()
        if _kind(reason) != _kind(self._reason):
            line = "no snapshot from node {peer}: {reason}; it is tried again, and later each time"
            self.log.error(line, peer=self._peer, reason=reason)
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
    """A snapshot that has come is not what the others have."""


def _kind(reason: str) -> str:
    """The same for two reasons that differ in how many bytes there are or in which slot only."""
    return re.sub(r"\d+", "", reason).partition(": ")[0]
