"""One machine of a simulated cluster: a disk that survives, and a node that may crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.application_checks import make_application
from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Record
from txpaxos.errors import RemovedFromCluster, StoreError
from txpaxos.node.datagram_port import DatagramPort
from txpaxos.node.node import Node
from txpaxos.recording.recorder import Recorder
from txpaxos.server.client_port import ClientPort
from txpaxos.storage.discarded import DISCARDED
from txpaxos.storage.executor import execute_now
from txpaxos.storage.snapshots import Snapshot, SnapshotWriter
from txpaxos.storage.store import DiskStore
from txpaxos.testing.checkers.checker import Checker, Violation
from txpaxos.testing.checkers.disk_use import SNAPSHOTS_MAX, needless_segments, snapshots
from txpaxos.testing.simulator.disk import Crash, SimulatedDisk
from txpaxos.testing.simulator.environment import CLIENT_PORT, PEER_PORT, Environment
from txpaxos.testing.simulator.keepers import with_kept_alive_timers
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.simulator.observed import CheckingObserver, with_local_error_text

DATA = "/data"
SEGMENT_BYTES = 8192
"""Small, so that a short run already writes many segments."""


class Host:
    """One machine: a disk that survives, and a process that may crash.

    :param name: the id of its node.
    :param machine: the machine's name, which is its address; that of its node unless given.
    :ivar peer_port: where its node listens for other nodes.
    :ivar node: the node, while it runs.
    :ivar crash_in: how many system calls or messages from now the process dies; ``None`` for not at all.
    :ivar keeps_power: whether only the process dies then, and the machine stays up.
    :ivar crash_in_snapshot: the value that ``crash_in`` gets when the next snapshot begins; ``None`` for none.
    :ivar save_seconds: how long each save takes; 0 for at once, in the reactor.
    :ivar disk_hangs: no save ends any more, and the node cannot start.
    :ivar removed_data: what was removed from its disk, so that the node must not start.
    :ivar removed_frames: whether the end of the journal was removed. Only the acknowledgement mark shows that, and a
        power cut may lose the mark. So this node is not started again after a power cut.
    :ivar sync_fails: every sync gives EIO. With ``sync_fails_once`` only the next one does.
    :ivar removed_snapshot: the newest snapshot that was removed. A node has one older snapshot to fall back to, not
        two.
    :ivar damages_snapshots: every snapshot that the node completes is damaged at once, without its knowledge.
    :ivar disk_lost: the disk is damaged for good, so the node need not come back.
    :ivar folder_lost: the data folder was lost, so other nodes no longer listen to this node, and no client gets an
        answer from it.
    :ivar configuration: the cluster file that the node read at its last start.
    :ivar right_configuration: the cluster file that it should have read.
    """

    def __init__(self, cluster: Environment, name: NodeId, machine: str = "") -> None:
        self.name = name
        self.machine = machine or name
        self.peer_port = PEER_PORT
        self.node: Node | None = None
        self.crash_in: int | None = None
        self.crash_in_snapshot: int | None = None
        self.keeps_power = False
        self.save_seconds = 0.0
        self.disk_hangs = False
        self.removed_data = ""
        self.removed_frames = False
        self.sync_fails = self.sync_fails_once = False
        self.removed_snapshot = ""
        self.damages_snapshots = False
        self.disk_lost = self.folder_lost = False
        self.configuration = self.right_configuration = cluster.configuration
        self.rate = 1.0
        self.reactor: SimulatedReactor | None = None
        self.disk = SimulatedDisk(Random(cluster.rng.random()), self._system_call)
        self._cluster = cluster
        self._saves_end_at = 0.0
        self._sync_failed = False  # Since it started last.
        self._recording: Recorder | None = None
        self._discarded = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.reactor is not None and self.reactor.alive

    @property
    def fetches_snapshot(self) -> bool:
        """Whether its node takes a snapshot of another node, or what of the log comes after that."""
        return self.node is not None and self.node._snapshots.status().transfer is not None

    def start(self) -> None:
        """Start the process. It may refuse to start, if its disk is damaged."""
        cluster = self._cluster
        assert not self.alive, self.name
        if self.disk_hangs:
            return
        if cluster.changes and self.configuration is self.right_configuration:
            self.configuration = self.right_configuration = cluster.configuration_of(self.name, self.peer_port)
        reactor = self.reactor = SimulatedReactor(cluster.network, self.machine, self.rate)
        self._saves_end_at = 0.0
        self._sync_failed = False
        try:
            self._start_node(reactor)
            if self.removed_data:
                raise Violation("what vanishes is missed", f"{self.name} starts without {self.removed_data}")
        except Crash:
            self.crash()
        except StoreError as error:
            cluster.note(self.name, f"does not start: {error}")
            self.crash()
            right_file = self.configuration is self.right_configuration
            must_start = right_file and not cluster.checker.members.is_retired(self.name)
            if not self.disk_lost and not self._sync_failed and self.disk.bytes_max is None and must_start:
                raise Violation("an undamaged disk starts", f"{self.name}: {error}") from error

    def die(self) -> None:
        """Kill the process. The machine stays up: the next process sees everything that this one wrote, synced or
        not."""
        self._kill(self.disk.leave)

    def crash(self) -> None:
        """Cut the machine's power. Writes that its disk has not synced are lost or torn."""
        if self.removed_frames:
            self.disk_hangs = True
        self._kill(self.disk.crash)

    def _kill(self, leave_disk: Callable[[], None]) -> None:
        if self.reactor is not None:
            self.reactor.kill()
        self.node = None
        self.end_recording()
        self.crash_in = self.crash_in_snapshot = None
        self.keeps_power = False
        leave_disk()
        self._cluster.counts["crashes"] += 1

    def discard_snapshots(self) -> None:
        """Kill the process and move its folder of snapshots away, as an operator does who wants the node to get the
        state from the other nodes."""
        if self.alive:
            self.crash()
        if any(path.endswith(".snapshot") for path in self.disk.files()):
            self._discarded += 1
            self.disk.move_directory(f"{DATA}/snapshots", f"{DATA}/{DISCARDED}.{self._discarded}")
            self._cluster.checker.discarded(self.name)
            self._cluster.counts["snapshots discarded"] += 1

    def lose_folder(self) -> None:
        """Lose the data folder. An operator starts the node again under its old name."""
        if self.alive:
            self.crash()
        self.disk_lost = self.folder_lost = True
        self.removed_data, self.removed_frames = "", False  # In an empty folder nothing is missing.
        self.disk = SimulatedDisk(Random(self._cluster.rng.random()), self._system_call)
        self._cluster.checker.folder_lost(self.name)

    def destroy(self) -> None:
        """Take the machine away for ever, with its disk."""
        if self.alive:
            self.crash()
        self.disk = SimulatedDisk(Random(self._cluster.rng.random()), self._system_call)
        self.disk_lost = self.disk_hangs = True
        self._cluster.checker.destroyed(self.name)

    def point(self) -> None:
        """A point at which the process may be made to die."""
        if self.reactor is not None and not self.reactor.alive:
            raise Crash
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self._cluster.note(self.name, "dies between two steps")
                (self.die if self.keeps_power else self.crash)()
                raise Crash

    def snapshot_started(self) -> None:
        """A snapshot is about to be written: the node's own, or one that another node sends."""
        if self.crash_in_snapshot is not None:
            self.crash_in, self.crash_in_snapshot = self.crash_in_snapshot, None

    def snapshot_completed(self) -> None:
        """A snapshot is complete."""
        paths = [path for path in self.disk.files() if path.endswith(".snapshot")]
        if self.damages_snapshots and paths:
            self.disk.flip_bit(paths[-1], self._cluster.rng.randrange(8 * self.disk.size(paths[-1])))

    def released(self) -> None:
        """The node has released answers, such as that a change of members is complete."""
        if self._cluster.changes:
            self._cluster.time.after(0.0, self._cluster.members_changed)

    def _timer_fired(self, slot: Slot, timer: str) -> None:
        wrong = self._cluster.checker.timers.fired(self.name, slot, timer, self._cluster.time.now)
        if wrong:
            self._cluster.break_rule(wrong, f"{timer} fires at {self.name} at slot {slot}")

    def _start_node(self, reactor: SimulatedReactor) -> None:
        cluster = self._cluster
        rng = Random(cluster.rng.random())
        store = DiskStore(
            DATA,
            cluster.configuration.name,
            self.name,
            disk=self.disk,
            random_bytes=rng.randbytes,
            segment_bytes=SEGMENT_BYTES,
            execute=self._execute,
        )
        watched = _WatchedStore(store, self, cluster.checker)
        app = with_kept_alive_timers(cluster.app, self._timer_fired)
        app = with_local_error_text(app, lambda: f"node {self.name} at {cluster.time.now}")
        node = self.node = Node(
            make_application(app),
            reactor,
            self.name,
            self.configuration,
            watched,
            cluster.settings,
            rng=rng,
            monotonic=reactor.monotonic,
            utc_seconds=reactor.seconds,
            observe=CheckingObserver(cluster, self, watched),
            recording=self._new_recording(reactor),
            keys=None if cluster.keys is None else cluster.keys.read(self.name, reactor),
            tls=None if cluster.keys is None else cluster.keys.tls_of(self.name, reactor),
        )
        node.failed.addErrback(partial(self._failed, reactor))
        reactor.listenUDP(self.peer_port, DatagramPort(node), self.machine)
        client_port = ClientPort(node)
        reactor.listenTCP(CLIENT_PORT, client_port, interface=self.machine)
        cluster.note(self.name, "starts")

    def _new_recording(self, reactor: SimulatedReactor) -> Recorder | None:
        """What records the next run of the node. A recording that a killed process has left behind is closed."""
        self.end_recording()
        options = self._cluster.record
        if options is None:
            return None
        clocks: dict[str, Any] = {"monotonic": reactor.monotonic, "utc_seconds": reactor.seconds}
        self._recording = Recorder(options, self.name, in_thread=False, **clocks)
        return self._recording

    def end_recording(self) -> None:
        """Write what was recorded and is not on disk yet. The process was killed, or the simulation is over."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.abandon()

    def _failed(self, reactor: SimulatedReactor, failure: Failure) -> None:
        """The node has stopped. A broken disk is a valid reason, a broken invariant is not."""
        if not reactor.alive:
            return  # The process was killed, so nothing that it reports counts.
        self._cluster.note(self.name, f"gives up: {failure.getErrorMessage()}")
        if isinstance(failure.value, RemovedFromCluster):
            self._cluster.counts["nodes that stopped since they were removed"] += 1
            self._cluster.checker.removed(self.name)
        elif isinstance(failure.value, Violation):
            self._cluster.violation = failure.value
        elif not isinstance(failure.value, StoreError):
            self._cluster.violation = Violation("no broken invariant", f"{self.name}: {failure.getTraceback()}")
        self._cluster.time.after(0.0, self._end, reactor)

    def _end(self, reactor: SimulatedReactor) -> None:
        if self.reactor is reactor and reactor.alive:
            self.crash()

    def _execute(self, work: Callable[[], None]) -> Deferred[None]:
        """Perform a save: at once, or after the delay of a slow disk."""
        time = self._cluster.time
        if self.disk_hangs:
            return Deferred()
        if not self.save_seconds and self._saves_end_at <= time.now:
            return execute_now(work)
        begins_at = max(time.now, self._saves_end_at)
        self._saves_end_at = begins_at + self.save_seconds
        done: Deferred[None] = Deferred()
        reactor = self.reactor
        assert reactor is not None

        def finish(result: Any) -> None:
            reactor.run(done.callback, result)

        def save() -> None:
            if reactor.alive:
                execute_now(work).addBoth(lambda result: time.at(max(time.now, self._saves_end_at), finish, result))

        # The data is on the platter before the save is reported as done. A crash may come in between.
        time.at(begins_at + self._cluster.rng.random() * self.save_seconds, save)
        return done

    def finished(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot is complete, and the journal before it is dropped."""
        needless = [] if self.disk_lost else needless_segments(self.disk, DATA)
        if needless:
            self._cluster.break_rule(
                "needless segments are dropped", f"{self.name}, snapshot at {snapshot.slot}: {needless}"
            )
        return snapshot

    def _system_call(self, name: str, path: str) -> None:
        self.point()
        if name == "create" and path.startswith(f"{DATA}/snapshots/"):
            others = [other for other in snapshots(self.disk, DATA) if other != path]
            if len(others) >= SNAPSHOTS_MAX:
                self._cluster.break_rule("three snapshots at most", f"{self.name}: {path} beside {others}")
        if self.sync_fails and name == "sync":
            self.sync_fails = not self.sync_fails_once
            self._sync_failed = True
            raise OSError(5, "Input/output error", path)


class _WatchedStore:
    """A store that reports every load and save to the checker."""

    def __init__(self, store: DiskStore, host: Host, checker: Checker) -> None:
        self.incarnation = store.incarnation
        self._store = store
        self._host = host
        self._node = host.name
        self._checker = checker

    def load(self) -> list[Record]:
        """See Store."""
        records = self._store.load()
        snapshot = self._store.snapshot
        self._checker.started(self._node, records, 0 if snapshot is None else snapshot.slot)
        return records

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """See Store."""

        def saved(_: None) -> None:
            self._checker.saved(self._node, records)

        return self._store.save(records).addCallback(saved)

    def forget_registers(self) -> Deferred[None]:
        """See Store."""
        return self._store.forget_registers()

    @property
    def snapshot(self) -> Snapshot | None:
        """See Store."""
        return self._store.snapshot

    def snapshot_at(self, slot: int) -> Snapshot | None:
        """See Store."""
        return self._store.snapshot_at(slot)

    @property
    def part(self) -> tuple[int, int] | None:
        """See Store."""
        return self._store.part

    @property
    def journal_bytes(self) -> int:
        """See Store."""
        return self._store.journal_bytes

    @property
    def snapshots_bytes(self) -> int:
        """See Store."""
        return self._store.snapshots_bytes

    def write_snapshot(self, slot: int) -> SnapshotWriter:
        """See Store."""
        self._host.snapshot_started()
        return self._watched(self._store.write_snapshot(slot))

    def receive_snapshot(self, slot: int, size_bytes: int = 0) -> SnapshotWriter:
        """See Store."""
        self._host.snapshot_started()
        return self._watched(self._store.receive_snapshot(slot, size_bytes))

    def _watched(self, writer: SnapshotWriter) -> SnapshotWriter:
        own: Any = writer
        finish, own.finish = writer.finish, lambda: finish().addCallback(self._host.finished)
        return writer

    def quarantine(self, finding: str) -> Deferred[None]:
        """See Store."""
        return self._store.quarantine(finding)

    def mark_removed(self, finding: str) -> Deferred[None]:
        """See Store."""
        return self._store.mark_removed(finding)

    def close(self) -> Deferred[None]:
        """See Store."""
        return self._store.close()
