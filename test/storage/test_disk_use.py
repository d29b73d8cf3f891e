"""What a node's disk holds: three snapshots, the journal since the older of two complete ones, and two segments."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Checkpoint, Record
from txpaxos.node.snapshots.taking import Policy
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.records import divide, encode
from txpaxos.storage.segment import SECTOR_BYTES, Frames, SegmentHeader, frame_bytes
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import DiskStore
from txpaxos.testing.checkers.disk_use import segments, snapshots
from txpaxos.testing.simulator import host
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import DATA, Host

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

SEGMENT_BYTES = 16384
LOG_BYTES = 25_000
INTERVALS = 2
"""How many bytes of log are between two snapshots of a state of that size."""
STATE_BYTES = 150_000
SNAPSHOTS_TAKEN = 60
"""At least, so that a few kept too many are noticed."""

OTHER_BYTES = 4 * 4096 + 2 * 150
"""What tells how far the store has come; the lock; the identity, and the one that takes its place."""


class Heavy(PaxosProtocol):
    """A counter whose snapshots take some time to write, and to send."""

    state_fields = ("total", "ballast")

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.ballast = Random(1).randbytes(STATE_BYTES)

    def apply(self, slot: Slot, command: bytes) -> int:
        self.total += int(command)
        return self.total


class Meter:
    """Looks at one host's disk before each of its system calls that changes what files there are.

    :ivar state_bytes: of the biggest snapshot so far.
    :ivar journal_bytes: the most that there was of the journal.
    :ivar idle_bytes: of that, the most that nothing needed.
    """

    def __init__(self, one: Host) -> None:
        self.state_bytes = self.journal_bytes = self.idle_bytes = 0
        self.wrong: list[str] = []
        self._host = one
        # The saves since the Checkpoint of the older snapshot: bytes, and slot if it holds one.
        self._saves: list[tuple[int, Slot | None]] = []
        self._unusable_bytes: dict[str, int] = {}
        own: Any = one
        self._before_call, one.disk.before_call = one.disk.before_call, self._look_and_call
        self._finished, own.finished = one.finished, self._count

    def saving(self, records: Sequence[Record]) -> None:
        """The node saves ``records``."""
        log, _ = divide(records)
        if log:
            slots = [record.slot for record in log if isinstance(record, Checkpoint)]
            self._saves.append((frame_bytes(len(encode(log))), min(slots, default=None)))

    def _count(self, snapshot: Snapshot) -> Snapshot:
        """It counts from when what it makes needless is gone: until then the node needs what it needed before."""
        complete = [path for path in snapshots(self._host.disk, DATA) if path.endswith(".snapshot")]
        if len(complete) > 1:
            older = int(complete[-2].rpartition("/")[2].partition(".")[0])
            starts = [at for at, (_, slot) in enumerate(self._saves) if slot is not None and slot <= older]
            del self._saves[: max(starts, default=0)]
        return self._finished(snapshot)

    def _look_and_call(self, name: str, path: str) -> None:
        if name not in ("write", "sync"):  # What was made since is still there before anything is removed.
            self._look()
        assert self._before_call is not None
        self._before_call(name, path)

    def _look(self) -> None:
        """Hold the disk against what it may hold."""
        disk = self._host.disk
        states = [disk.size(path) for path in snapshots(disk, DATA)]
        files = segments(disk, DATA)
        if files:
            self._unusable_bytes.pop(files[-1], None)
        journal = sum(map(disk.size, files))
        needed = sum(size for size, _ in self._saves) + sum(map(self._unusable, files[:-1]))
        others = sum(map(disk.size, disk.files())) - sum(states) - journal
        self.state_bytes = max([self.state_bytes, *states])
        self.journal_bytes = max(self.journal_bytes, journal)
        self.idle_bytes = max(self.idle_bytes, journal - needed)
        if len(states) > 3:
            self.wrong.append(f"snapshots: {states}")
        # The oldest and the newest; one may be big, since what was fetched is one save.
        if journal > needed + sum(max(SEGMENT_BYTES, disk.size(path)) for path in {*files[:1], *files[-1:]}):
            self.wrong.append(f"journal: {journal} bytes in {len(files)} files where {needed} are needed")
        if others > OTHER_BYTES:
            self.wrong.append(f"others: {others}")

    def _unusable(self, path: str) -> int:
        """Of a segment that is not the newest: its header, and its end, in which the next save did not fit."""
        if path not in self._unusable_bytes:
            data = self._host.disk.content(path)
            end = Frames(data, SegmentHeader.unpack(data, path), path).end
            self._unusable_bytes[path] = SECTOR_BYTES + len(data) - end
        return self._unusable_bytes[path]


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[SimulatedCluster, dict[NodeId, Meter]]]:
    """Makes a cluster from a seed, with small segments and a meter at each host."""
    by_disk: dict[Any, Meter] = {}
    save = DiskStore.save

    def saving(store: DiskStore, records: Sequence[Record]) -> Deferred[None]:
        by_disk[store._disk].saving(records)
        return save(store, records)

    def make(seed: int) -> tuple[SimulatedCluster, dict[NodeId, Meter]]:
        cluster = SimulatedCluster(seed, 3, Heavy, command, 8, askers=0, readers=0, snapshot_policy=Policy(LOG_BYTES))
        by_disk.update({one.disk: Meter(one) for one in cluster.hosts.values()})
        return cluster, {name: by_disk[one.disk] for name, one in cluster.hosts.items()}

    monkeypatch.setattr(DiskStore, "save", saving)
    monkeypatch.setattr(host, "SEGMENT_BYTES", SEGMENT_BYTES)
    return make


@pytest.fixture(autouse=True)
def expected_errors(logged_errors: list[Any]) -> Iterator[None]:
    """A node that is made to die in the middle of something leaves that undone."""
    yield
    for _ in range(3):  # What is in the list may hold on to more that was left undone.
        gc.collect()
        logged_errors.clear()


def command(rng: Random) -> bytes:
    return (b"%d" % rng.randrange(99)).rjust(rng.choice((1, 20, 100)))


@pytest.mark.parametrize("seed", [4])
def test_the_bound_at_every_system_call(
    seed: int, metered: Callable[[int], tuple[SimulatedCluster, dict[NodeId, Meter]]]
) -> None:
    """Nodes crash, also in the middle of a snapshot, are cut off until they need another's, and have slow disks."""
    cluster, meters = metered(seed)
    rng = Random(seed)
    for turn in range(8):
        one = cluster.hosts[cluster.names[turn % 3]]
        pairs = {pair for other in cluster.names for pair in ((one.name, other), (other, one.name))}
        if turn % 2:
            one.crash_in_snapshot = rng.randrange(1, 30)
        else:
            cluster.network.cut |= pairs
        one.save_seconds = rng.choice((0.0, 0.002))
        cluster.run(0.7)
        cluster.network.reconnect(pairs)
        cluster.heal()
        cluster.run(0.3)
    cluster.wait_until_converged()
    assert cluster.counts["snapshots taken"] > SNAPSHOTS_TAKEN
    assert cluster.counts["snapshots installed"] > 1
    assert cluster.counts["crashes"] > 1
    for name, meter in meters.items():
        assert meter.wrong == [], name
        assert meter.state_bytes > STATE_BYTES
        assert meter.idle_bytes > SEGMENT_BYTES


def test_a_node_that_falls_behind_while_it_takes_a_snapshot(
    metered: Callable[[int], tuple[SimulatedCluster, dict[NodeId, Meter]]],
) -> None:
    """Another's takes the place of its own: the two are not there together."""
    cluster, meters = metered(1)
    cluster.run(2.0)
    one = next(one for one in cluster.hosts.values() if one.node and one.node.leader != one.name)
    assert one.node is not None
    one.save_seconds = 0.3
    while one.node.status().compaction.taking is None:
        cluster.run(0.001)
    pairs = {pair for other in cluster.names for pair in ((one.name, other), (other, one.name))}
    cluster.network.cut |= pairs
    cluster.run(0.7)
    cluster.network.reconnect(pairs)
    assert one.node.status().compaction.taking is not None
    while one.node.status().compaction.taking is not None:
        cluster.run(0.01)
    assert " bytes" in (one.node.status().compaction.transfer or "")
    cluster.heal()
    cluster.wait_until_converged()
    assert cluster.counts["snapshots installed"] == 1
    assert meters[one.name].wrong == []


def test_while_nothing_goes_wrong_two_intervals_of_the_log_are_all(
    metered: Callable[[int], tuple[SimulatedCluster, dict[NodeId, Meter]]],
) -> None:
    cluster, meters = metered(3)
    cluster.run(12.0)
    assert cluster.counts["snapshots taken"] > SNAPSHOTS_TAKEN
    for meter in meters.values():
        assert meter.wrong == []
        assert meter.journal_bytes <= 2 * INTERVALS * LOG_BYTES + 2 * SEGMENT_BYTES
