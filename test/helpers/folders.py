"""Data folders of a cluster whose nodes do not run, with the records that a test wants in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from twisted.internet.task import Clock

from test.storage.test_disk import UnsyncedDisk
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.core.messages import Ballot, NodeId, Slot
from txpaxos.core.ready import Checkpoint, Learned, Promised, Record, SubjectState, Voted, Voter
from txpaxos.counter import Counter
from txpaxos.node.node import Node
from txpaxos.node.snapshots.taking import HASH_BYTES, HEAD, STATE, SnapshotHead, _encode
from txpaxos.storage.executor import execute_now
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers
from txpaxos.wire.commands import Run, encode_batch, new_session

NAMES = ("a", "b", "c", "d", "e")


def cluster_of(names: Iterable[NodeId] = NAMES, name: str = "counter") -> Cluster:
    """A cluster with addresses that no test uses."""
    members = {
        node: Member(Address("127.0.0.1", 4000 + number), Address("127.0.0.1", 5000 + number))
        for number, node in enumerate(names)
    }
    return Cluster(name, members)


def value(amount: int) -> bytes:
    """A value of the log that adds ``amount`` to a counter."""
    return encode_batch([Run(new_session(b"%016d" % amount, 0), 1, 0, (b"+%d" % amount,))])


def open_store(path: Path, node: NodeId, cluster: str = "counter") -> DiskStore:
    return DiskStore(path, cluster, node, disk=UnsyncedDisk(), execute=execute_now, segment_bytes=8192)


def write_folder(
    path: Path,
    node: NodeId,
    records: Sequence[Record] = (),
    *,
    members: Sequence[NodeId] = NAMES,
    snapshot: tuple[Slot, int] | None = None,
    cluster: str = "counter",
) -> Path:
    """Write the data folder of ``node``.

    :param records: what it saved behind the snapshot, if there is one.
    :param snapshot: the slot of a snapshot, and the total of the counter there."""
    store = open_store(path, node, cluster)
    store.load()
    store.save([Voter(tuple(members))])
    if snapshot is not None:
        slot, total = snapshot
        writer = store.write_snapshot(slot)
        writer.write(HEAD + _encode(SnapshotHead(cluster, tuple(members), slot, bytes(HASH_BYTES))))
        (state,) = _state_of(total)
        writer.write(STATE + _encode([state]))
        writer.finish()
        records = [Checkpoint(slot), *records]
    store.save([record for record in records if not isinstance(record, SubjectState)])
    store.last_application.write("txpaxos.counter:Counter")
    store.close()
    if registers := [record for record in records if isinstance(record, SubjectState)]:
        add_registers(UnsyncedDisk(), str(path), registers)
    return path


def _state_of(total: int) -> list[bytes]:
    counter = Counter()
    counter.total = total
    state = counter.snapshot()
    return [state] if isinstance(state, bytes) else [*state]


def learned(first: Slot, last: Slot) -> Learned:
    """The slots from ``first`` to ``last`` are chosen; each adds its own number."""
    return Learned(first, tuple(value(slot) for slot in range(first, last + 1)))


def voted(slot: Slot, round: int, node: NodeId, amount: int, chosen_through: Slot = 0) -> Voted:
    """A vote at ``slot``, in the ballot ``round.node``, for ``amount``."""
    return Voted(Ballot(round, node), slot, value(amount), chosen_through)


def promised(round: int, node: NodeId) -> Promised:
    return Promised(Ballot(round, node))


def start_node(path: Path, node: NodeId, cluster: Cluster) -> Node:
    """A node that has loaded its folder, and the application on it. It is not connected to anything."""
    store = DiskStore(path, cluster.name, node, disk=UnsyncedDisk(), execute=execute_now)
    return Node(Counter(), Clock(), node, cluster, store, rng=Random(1), monotonic=lambda: 0.0)


def total_of(path: Path, node: NodeId, cluster: Cluster) -> int:
    """The total of the counter after a start of ``node``."""
    started = start_node(path, node, cluster)
    try:
        total: int = started.application.total  # type: ignore[attr-defined]
        return total
    finally:
        started.stop()


def files(path: Path) -> dict[str, bytes]:
    """All files below ``path``, but for locks."""
    found = sorted(one for one in path.rglob("*") if one.is_file() and one.name != "lock")
    return {str(one.relative_to(path)): one.read_bytes() for one in found}
