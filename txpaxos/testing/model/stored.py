"""One node and its store, run step by step: the shipped replica, on the shipped store, on a disk that may lose power at
any system call.

The replica is a :class:`~txpaxos.core.replica.Replica`, the store a :class:`~txpaxos.storage.store.DiskStore`. The node
does more between them: the save of a Ready and then its release, a Checkpoint when a snapshot begins, an install when
one has been received. A few lines here do the same, step by step. The store's two threads, for saves and for snapshots,
are two queues. Work in one queue is done in its order, and in any order with work in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.core.messages import Message, NodeId, Slot, Vote
from txpaxos.core.ready import Chosen, Envelope, Installed, LogRecord, Ready, Voted
from txpaxos.core.replica import Replica
from txpaxos.errors import StoreError
from txpaxos.storage.executor import Work
from txpaxos.storage.snapshot_file import SnapshotPacker
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import DiskStore
from txpaxos.testing.model.copies import clone, freeze
from txpaxos.testing.model.disk import require
from txpaxos.testing.model.log import TIMING, ReplicaPart
from txpaxos.testing.model.parts import NOW, STILL
from txpaxos.testing.model.platter import Platter, PlatterDisk

FOLDER = "/data"
SEGMENT_BYTES = 1024
EMPTY: Platter = (("/", None),)


class Replicas:
    """All replicas that a node ever was, each once. They are never changed: the effect of an action on one is another
    replica, which is computed once.

    :param part: knows what in a replica cannot influence anything.
    """

    def __init__(self, part: ReplicaPart) -> None:
        self._part = part
        self._known: dict[object, Replica] = {}
        self._numbers: dict[int, int] = {}
        self._all: list[Replica] = []
        self._done: dict[Hashable, tuple[Any, Replica]] = {}

    def one(self, replica: Replica) -> Replica:
        """The known replica that is equal to ``replica``."""
        self._part.settle(replica)
        known = self._known.setdefault(freeze(replica), replica)
        if id(known) not in self._numbers:
            self._numbers[id(known)] = len(self._all)
            self._all.append(known)
        return known

    def of(self, number: int) -> Replica:
        """The replica of that number."""
        return self._all[number]

    def number(self, replica: Replica) -> int:
        """The number of a known replica."""
        return self._numbers[id(replica)]

    def do(self, replica: Replica, act: Callable[..., Any], *arguments: Hashable) -> tuple[Any, Replica]:
        """The Ready that ``act`` returns, and the replica afterwards."""
        key = self.number(replica), act, arguments
        known = self._done.get(key)
        if known is None:
            copy = clone(replica)
            result = act(copy, *arguments)
            known = self._done[key] = result, self.one(copy)
        return known


class StoreThread:
    """The work that one of the store's threads was given and has not done yet."""

    def __init__(self) -> None:
        self.given: list[tuple[Work, Deferred[None]]] = []

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all earlier work."""
        done: Deferred[None] = Deferred()
        self.given.append((work, done))
        return done

    def step(self) -> None:
        """Do the oldest work, and fire its Deferred."""
        work, done = self.given.pop(0)
        try:
            work()
        except Exception:
            done.errback(Failure())
        else:
            done.callback(None)


class StoredNode:
    """One node while it runs.

    :param replicas: knows its replicas.
    :param platter: the content of the disk.
    :param segment_saves: how many saves fill a segment of the journal, as if they were large.
    :param sure: see :class:`PlatterDisk`.
    :ivar owed: Readys that wait for their save, or for an earlier one.
    :ivar applied_through: the last slot that the application has.
    :ivar sent: the messages that were released, and not yet taken.
    :ivar voted: the votes whose save was released, likewise.
    :ivar handed_out: the values that the application got, likewise.

    :raises StoreError: if the store refuses to start from that disk.
    """

    def __init__(
        self, part: ReplicaPart, replicas: Replicas, platter: Platter, segment_saves: int, sure: str = ""
    ) -> None:
        self.part = part
        self.replicas = replicas
        self.disk = PlatterDisk(platter, sure)
        self.disk.calls = {}
        self.saves = StoreThread()
        self.writes = StoreThread()
        self.segment_saves = segment_saves
        self.owed: list[Ready] = []
        self.sent: list[Envelope] = []
        self.voted: list[Vote] = []
        self.handed_out: list[Chosen] = []
        self.store = DiskStore(
            FOLDER,
            "model",
            part.node,
            disk=self.disk,
            random_bytes=bytes,
            segment_bytes=SEGMENT_BYTES,
            execute=self.saves,
            execute_snapshots=self.writes,
        )
        records = [record for record in self.store.load() if isinstance(record, LogRecord)]
        snapshot = self.store.snapshot
        self.compact_through = base = 0 if snapshot is None else snapshot.slot
        replica = Replica(part.node, part.voters, STILL, NOW, records, TIMING, base=base)
        missing = Ready(save=replica.missing_checkpoint())
        self.handed_out += [one for one in replica.recovered() if isinstance(one, Chosen)]
        self.replica = replicas.one(replica)
        self.add(missing)
        self.applied_through = base + len(self.handed_out)

    # what may happen to it

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message arrives."""
        self.add(self._do(Replica.receive, sender, message, NOW))

    def do_all(self, act: Callable[..., Ready], arguments: tuple[Hashable, ...]) -> None:
        """Have the replica do something, save what it asks for, and take the messages that it sends to itself."""
        taken = len(self.sent)
        self.add(self._do(act, *arguments))
        while self.owed or self.saves.given:
            self.save()
        for envelope in self.sent[taken:]:
            if self.part.node in envelope.to:
                self.do_all(Replica.receive, (self.part.node, envelope.message, NOW))

    def take_snapshot(self) -> None:
        """Begin a snapshot of this node's own state."""
        slot = self.applied_through
        writer = self.store.write_snapshot(slot)
        self.add(Ready(save=self._do(Replica.checkpoint, slot)))
        writer.write(b"state").addErrback(_refused)
        writer.finish().addCallback(self._taken).addErrback(_refused)

    def receive_snapshot(self, slot: Slot) -> None:
        """All bytes of another node's snapshot arrive."""
        writer = self.store.receive_snapshot(slot)
        writer.write_raw(_snapshot(slot)[writer.size_bytes :]).addErrback(_refused)
        writer.finish().addCallback(self._received).addErrback(_refused)

    def write(self) -> None:
        """The snapshot thread does all of its work."""
        while self.writes.given:
            self.writes.step()

    def save(self) -> None:
        """The save thread does its next work: it drops segments, or does the save of one Ready. That Ready is then
        released, with those behind it that save nothing."""
        if self.saves.given:
            self.saves.step()
            return
        ready = self.owed[0]
        released: list[Ready] = []
        if ready.save:
            self._fill_segment()
            saved: list[None] = []
            self.store.save(ready.save).addCallback(saved.append)
            self.saves.step()
            require(bool(saved), "a save failed:", ready)
        while self.owed and (not released or not self.owed[0].save):
            released.append(self.owed.pop(0))
        for ready in released:
            self._release(ready)

    def add(self, ready: Ready) -> None:
        """Queue a Ready of the core. One that needs no earlier save is performed at once."""
        if ready.may_bypass(self.owed):
            self._release(ready)
        elif not ready.is_empty:
            self.owed.append(ready)

    # inside

    def _do(self, act: Callable[..., Any], *arguments: Hashable) -> Any:
        result, self.replica = self.replicas.do(self.replica, act, *arguments)
        return result

    def _release(self, ready: Ready) -> None:
        self.voted += [Vote(one.slot, one.ballot, one.value) for one in ready.save if isinstance(one, Voted)]
        self.sent += ready.send
        for item in ready.chosen:
            if isinstance(item, Installed):
                require(item.slot > self.applied_through, item, "goes back from slot", self.applied_through)
                self.applied_through = self.compact_through = item.slot
            else:
                chosen = cast(Chosen, item)
                require(chosen.slot == self.applied_through + 1, item, "comes after slot", self.applied_through)
                self.applied_through = chosen.slot
                self.handed_out.append(chosen)

    def _taken(self, snapshot: Snapshot) -> None:
        self._do(Replica.compact, self.compact_through)
        self.compact_through = snapshot.slot

    def _received(self, snapshot: Snapshot) -> None:
        self.add(self._do(Replica.install, snapshot.slot, NOW))

    def _fill_segment(self) -> None:
        """Continue in a new segment if the newest has reached its number of saves."""
        journal = self.store._journal
        newest = journal._segments[-1]
        if journal.next_position - newest.first_position >= self.segment_saves:
            journal._offset = newest.size


def _refused(failure: Failure) -> None:
    """Only a snapshot that is abandoned or replaced by another may be refused."""
    failure.trap(StoreError)


def _snapshot(slot: Slot) -> bytes:
    """The file of another node's snapshot."""
    packer = SnapshotPacker(slot)
    return packer.header + packer.frame(b"state") + packer.end()
