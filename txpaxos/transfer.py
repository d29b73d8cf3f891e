"""Snapshots on their way from one node to another, for one whose log the others no longer have from where it ends.

The node that is behind asks for part after part and writes each to its disk before it asks for the next: so it is never
sent more than it can take, and goes on where it was after a crash of either side. Whoever sends does so no faster than
its limit, and keeps no books. The file's own checksums are checked when it is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.core.messages import NodeId
from txpaxos.errors import StoreError
from txpaxos.storage.snapshots import Snapshot, SnapshotWriter
from txpaxos.storage.store import Store
from txpaxos.wire.peer_messages import FetchSnapshot, SnapshotPart

PART_BYTES = 2**16
CHECK_SECONDS = 5.0
"""A snapshot that is said to be damaged is not looked at again sooner."""


@attrs.frozen
class TransferLimits:
    """How fast snapshots travel.

    :ivar bytes_per_second: that one node sends, to all who ask together.
    :ivar silence_seconds: until a part that has not come is asked for again.
    :ivar tries: so often, before another node may be asked.
    """

    bytes_per_second: float = 16 * 2**20
    silence_seconds: float = 1.0
    tries: int = 5


class SnapshotSender:
    """Answers nodes that ask for this node's newest snapshot.

    :param damaged: called if that turns out to be damaged: this node's disk cannot be trusted.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        send: Callable[[NodeId, SnapshotPart], None],
        counters: Counter[str],
        limits: TransferLimits,
        damaged: Callable[[StoreError], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._send = send
        self._counters = counters
        self._damaged = damaged
        self._checked_at = -CHECK_SECONDS
        self._limits = limits
        # The question of each node that has not been answered yet, and when the next answer may go.
        self._asked: dict[NodeId, FetchSnapshot] = {}
        self._next_at = 0.0
        self._timer: IDelayedCall | None = None

    def receive(self, sender: NodeId, message: FetchSnapshot) -> None:
        """``sender`` asks for a part. Of several questions of one node only the last is answered."""
        self._asked[sender] = message
        if self._timer is None:
            self._answer_later()
        elif self._timer.getTime() - self._reactor.seconds() > 2 * PART_BYTES / self._limits.bytes_per_second:
            self._timer.reset(0)  # The reactor's clock was set back.

    def stop(self) -> None:
        """Answer nobody any more."""
        self._asked.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self) -> None:
        self._timer = None
        node, message = next(iter(self._asked.items()))
        del self._asked[node]
        part = self._part(message)
        if part is not None:
            self._send(node, part)
            seconds = len(part.data) / self._limits.bytes_per_second
            self._next_at = self._reactor.seconds() + seconds
        if self._asked:
            self._answer_later()

    def _answer_later(self) -> None:
        seconds = max(0.0, self._next_at - self._reactor.seconds())
        # The reactor's clock may have been set back.
        seconds = min(seconds, PART_BYTES / self._limits.bytes_per_second)
        self._timer = self._reactor.callLater(seconds, self._answer)

    def _part(self, message: FetchSnapshot) -> SnapshotPart | None:
        snapshot = self._store.snapshot
        if snapshot is None:
            self._counters["question for a snapshot, and there is none"] += 1
            return None
        if message.damaged == snapshot.slot and not self._is_sound(snapshot):
            return None
        offset = message.offset if message.slot == snapshot.slot and message.offset < snapshot.size_bytes else 0
        try:
            data = snapshot.read(offset, PART_BYTES)
        except StoreError:
            self._counters["snapshot that cannot be read"] += 1
            return None
        return SnapshotPart(snapshot.slot, snapshot.size_bytes, offset, data)

    def _is_sound(self, snapshot: Snapshot) -> bool:
        """Look at the whole file, which takes a while; so not often."""
        now = self._reactor.seconds()
        if abs(now - self._checked_at) >= CHECK_SECONDS:
            self._checked_at = now
            try:
                for _ in snapshot.chunks():
                    pass
            except StoreError as error:
                self._damaged(error)
                return False
        return True


class SnapshotReceiver:
    """Takes another node's snapshot.

    :param send: sends a question to a node.
    :param received: called with each snapshot that has come and is on disk.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: Store,
        send: Callable[[NodeId, FetchSnapshot], None],
        received: Callable[[Snapshot], None],
        limits: TransferLimits,
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._send = send
        self._received = received
        self._limits = limits
        self._peer: NodeId | None = None
        self._writer: SnapshotWriter | None = None
        self._size_bytes = 0
        self._writing = False
        self._tries = 0
        self._timer: IDelayedCall | None = None
        # The slot of a snapshot that came damaged.
        self._damaged = 0

    @property
    def progress(self) -> str | None:
        """How far it is, for people; ``None`` if nothing is on its way."""
        if self._peer is None:
            return None
        if self._writer is None:
            return f"snapshot from {self._peer}"
        return f"snapshot {self._writer.slot} from {self._peer}: {self._writer.size_bytes} of {self._size_bytes} bytes"

    def fetch_from(self, peer: NodeId) -> None:
        """Take the snapshot of ``peer``, unless another is on its way. One whose sender has fallen silent is not."""
        if self._tries and self._peer not in (None, peer):
            self._leave()
        if self._peer is None:
            self._peer = peer
            self._tries = 0
            self.log.info("too far behind for the log: taking a snapshot from node {peer}", peer=peer)
            self._ask()
        elif self._timer is not None:
            seconds = self._limits.silence_seconds
            if self._timer.getTime() - self._reactor.seconds() > seconds:
                self._timer.reset(seconds)  # The reactor's clock was set back.

    def receive(self, sender: NodeId, part: SnapshotPart) -> bool:
        """A part has come. Whether it was what this node waits for."""
        if sender != self._peer or self._writing:
            return False
        wanted = self._writer is not None and self._writer.slot == part.slot
        if not wanted and not self._begin(part):
            return True
        assert self._writer is not None
        if part.offset != self._writer.size_bytes or not part.data:
            if part.offset == 0:  # An earlier life of this node has written the beginning of this one, or all of it.
                self._written(None)
            return False
        self._tries = 0
        self._wait_for(self._writer, self._writer.write_raw(part.data), self._written)
        return True

    def stop(self) -> None:
        """Take nothing more. What has come stays for the next life of this node."""
        self._peer = None
        self._stop_timer()

    def _begin(self, part: SnapshotPart) -> bool:
        """The first part of a snapshot; the sender may have a newer one than before."""
        if self._writer is not None:
            self._writer.abandon().addErrback(lambda _: None)
            self._writer = None
        try:
            self._writer = self._store.receive_snapshot(part.slot)
        except StoreError:
            self._failed(Failure())
            return False
        self._size_bytes = part.size_bytes
        return True

    def _ask(self) -> None:
        assert self._peer is not None
        self._stop_timer()
        slot, offset = (0, 0) if self._writer is None else (self._writer.slot, self._writer.size_bytes)
        self._timer = self._reactor.callLater(self._limits.silence_seconds, self._ask_again)
        self._send(self._peer, FetchSnapshot(slot, offset, self._damaged))

    def _ask_again(self) -> None:
        self._timer = None
        self._tries += 1
        if self._tries < self._limits.tries:
            self._ask()
        else:
            self._leave()

    def _leave(self) -> None:
        """Wait for this peer no longer. What has come stays: the next node may have the same snapshot. It is the core's
        to find that node."""
        self.log.warn("node {peer} sends no snapshot", peer=self._peer)
        self._stop_timer()
        self._peer = None

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
        else:
            self._wait_for(self._writer, self._writer.finish(), self._finished)

    def _finished(self, snapshot: Snapshot) -> None:
        self._writer = self._peer = None
        self._damaged = 0
        self._received(snapshot)

    def _failed(self, failure: Failure) -> None:
        """It cannot be written, or is damaged: begin anew when the core finds out that it is still behind."""
        if self._writer is not None and self._writer.size_bytes >= self._size_bytes:
            self._damaged = self._writer.slot
        self.log.error("no snapshot from node {peer}: {reason}", peer=self._peer, reason=failure.getErrorMessage())
        self._writer = self._peer = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
