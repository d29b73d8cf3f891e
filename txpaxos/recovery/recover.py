"""A new cluster from the folders that survived the loss of a majority.

The kept nodes get new folders: the newest snapshot, all values behind it, and new members. Their cluster has the old
name with a nonce behind it. The name goes into each message and each folder, so to this cluster a lost node that comes
back is a node of another one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.cluster import NONCE_CHARACTERS, Cluster
from txpaxos.core.messages import NO_OP, Ballot, NodeId
from txpaxos.core.ready import Checkpoint, Learned, PeerMet, Promised, Record, Voter
from txpaxos.errors import StoreError
from txpaxos.node.snapshots.taking import HEAD, SnapshotHead
from txpaxos.recovery.survivors import ALPHA, Survivor, Union, check_survivors, read_survivor, unite
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import lock_folder
from txpaxos.storage.journal import SEGMENT_BYTES
from txpaxos.storage.messages import os_errors
from txpaxos.storage.read_only_disk import process_using
from txpaxos.storage.replacement import (
    finish_replacement,
    note_ready,
    prepared_path,
    ready_nonce,
    replace_contents,
)
from txpaxos.storage.store import DiskStore
from txpaxos.wire.commands import REGISTERS_MARK, Run, encode_batch, new_session
from txpaxos.wire.members import MembersEntry, encode_members
from txpaxos.wire.registers import encode_command, import_commands

SAVE_BYTES = 4 << 20
"""A save of the new log holds values of about this size, so that no frame is much longer."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were written since the last call."""


@attrs.frozen
class Recovery:
    """What a recovery would do, or has done.

    :ivar cluster: the new cluster: its name, and the kept nodes with their addresses.
    :ivar survivors: the folders that were read.
    :ivar keep: the nodes of the new cluster.
    :ivar lose: the nodes that are given up.
    :ivar union: what the folders hold together.
    """

    cluster: Cluster
    survivors: tuple[Survivor, ...]
    keep: tuple[NodeId, ...]
    lose: tuple[NodeId, ...]
    union: Union

    @property
    def kept(self) -> list[Survivor]:
        """The folders of the kept nodes."""
        return [one for one in self.survivors if one.node in self.keep]


def plan_recovery(
    directories: Sequence[str],
    keep: Sequence[NodeId],
    lose: Sequence[NodeId],
    cluster: Cluster,
    random_bytes: Callable[[int], bytes] = os.urandom,
    *,
    are_locked: bool = False,
) -> Recovery:
    """Find out what a recovery would do. Nothing is changed.

    :param directories: the data folders of all nodes that are left.
    :param keep: the nodes of the new cluster.
    :param lose: all other nodes of the old one.
    :param cluster: the old cluster.
    :param are_locked: whether the caller has :func:`locked` the folders. Else it is only checked that they are not in
        use.
    :raises StoreError: if it cannot be done; one line says why.
    """
    for directory in () if are_locked else directories:
        pid = process_using(os.path.abspath(directory))
        if pid is not None:
            by = f"process {pid}" if pid else "a process"
            raise StoreError(f"{directory} is in use by {by}: stop all nodes of the cluster first")
    survivors = tuple(read_survivor(directory) for directory in directories)
    union = unite(survivors)
    entry = None if union.members is None else union.members[1]
    check_survivors(survivors, [*keep, *lose], entry)
    if entry is not None:  # The log knows addresses that the cluster file need not have.
        cluster = attrs.evolve(cluster, members={**cluster.members, **entry.cluster(cluster.name).members})
    _check_kept(survivors, keep, cluster)
    new = recovered_cluster(cluster, keep, random_bytes(NONCE_CHARACTERS // 2).hex())
    recovery = Recovery(new, survivors, tuple(keep), tuple(lose), union)
    return recovery if union.members is None else attrs.evolve(recovery, union=_with_members(recovery))


def _with_members(recovery: Recovery) -> Union:
    """The union, with the change to the new members behind it, and as many slots as it takes to govern.

    The log says who the members are, so it must say that the kept nodes are. The change is made like any other: some
    slots after the one before, and followed by slots with nothing in them until it governs."""
    union = recovery.union
    assert union.members is not None
    base, before = union.members
    incarnations = {one.node: one.incarnation for one in recovery.kept}
    members = {
        node: attrs.evolve(before.members[node], role="voter", incarnation=incarnations[node], replaces="")
        for node in recovery.keep
    }
    retired = tuple(sorted({*before.retired, *recovery.lose}))
    slot = max(union.through + 1, base + ALPHA)
    through = slot + ALPHA - 1
    values = {**union.values, **dict.fromkeys(range(union.through + 1, through + 1), NO_OP)}
    values[slot] = encode_members(MembersEntry(base, members, retired))
    return attrs.evolve(union, values=values, through=through)


def _check_kept(survivors: Sequence[Survivor], keep: Sequence[NodeId], cluster: Cluster) -> None:
    """Check that each kept node has a folder and an address, and that this process may replace the folders.

    :raises StoreError: one line that says what is wrong."""
    for node in keep:
        if not any(one.node == node for one in survivors):
            raise StoreError(f"--keep names node {node}, and no folder of it is given: keep only nodes with a folder")
        if node not in cluster.members:
            raise StoreError(f"node {node} is not in the cluster file: give the one of cluster {survivors[0].cluster}")
    if survivors[0].cluster != cluster.name:
        raise StoreError(
            f"{survivors[0].directory} is of cluster {survivors[0].cluster!r}, and the cluster file is of"
            f" {cluster.name!r}: give the file of the folders' cluster"
        )
    for one in survivors:
        if one.owner != os.geteuid():
            raise StoreError(f"{one.directory} belongs to user {one.owner}: run this as that user")


def recovered_cluster(cluster: Cluster, keep: Sequence[NodeId], nonce: str) -> Cluster:
    """The cluster of the nodes ``keep`` that takes the place of ``cluster``."""
    name = f"{cluster.name.partition('~')[0]}~{nonce}"
    return Cluster(name, {node: cluster.members[node] for node in keep}, rights=cluster.rights)


def nonce_of(cluster: Cluster) -> str:
    """The nonce in the name of a recovered cluster; empty if it was not recovered."""
    return cluster.name.partition("~")[2]


# ------------------------------------------------------------------ carrying it out


@contextmanager
def locked(directories: Sequence[str], disk: Disk) -> Iterator[None]:
    """The locks of all folders, so that no node starts meanwhile.

    :raises StoreError: if a process uses one of them."""
    with ExitStack() as stack:
        for directory in directories:
            with os_errors("read", directory):
                disk.list_directory(directory)
            stack.callback(disk.close, lock_folder(disk, directory))
        yield


def recover(
    recovery: Recovery,
    write_cluster: Callable[[Cluster], None] = lambda cluster: None,
    progress: Progress = lambda size_bytes: None,
    disk: Disk | None = None,
    segment_bytes: int | None = None,
) -> None:
    """Carry out ``recovery``. The caller has :func:`locked` all folders.

    All new folders are prepared before the first takes the place of an old one. So after a failure, or a crash, either
    all folders are the old ones, or :func:`find_begun` finds what is to be completed.

    :param write_cluster: called with the new cluster before the first folder is replaced.
    :raises StoreError: if a system call fails.
    """
    disk = disk or Disk()
    incarnations = {one.node: one.incarnation for one in recovery.kept}  # The nodes stay those that the log names.
    for one in recovery.kept:
        _prepare(disk, recovery, one, incarnations, progress, segment_bytes or SEGMENT_BYTES)
    for one in recovery.kept:
        note_ready(disk, one.directory, nonce_of(recovery.cluster))
    write_cluster(recovery.cluster)
    for one in recovery.kept:
        replace_contents(disk, one.directory)


def find_begun(directories: Sequence[str], disk: Disk | None = None) -> str:
    """The name of the cluster of a recovery that has replaced the contents of one of ``directories``, but not of all;
    empty if there is none. The caller has :func:`locked` the folders."""
    disk = disk or Disk()
    names: dict[str, str] = {}
    for directory in directories:
        finish_replacement(disk, os.path.abspath(directory))
        names[directory] = read_survivor(directory).cluster
    for name in set(names.values()):
        nonce = name.partition("~")[2]
        others = [directory for directory, other in names.items() if other != name]
        if nonce and any(ready_nonce(disk, os.path.abspath(directory)) == nonce for directory in others):
            return name
    return ""


def find_done(directories: Sequence[str], keep: Sequence[NodeId], cluster: Cluster) -> str:
    """The name of the cluster of a complete recovery of ``cluster`` that has kept ``keep``; empty if there is none."""
    survivors = [read_survivor(directory) for directory in directories]
    kept = [one for one in survivors if one.node in keep]
    names = {one.cluster for one in kept}
    if len(kept) != len(keep) or len(names) != 1 or any(set(one.voters) != set(keep) for one in kept):
        return ""
    (name,) = names
    base, _, nonce = name.partition("~")
    return name if nonce and name != cluster.name and base == cluster.name.partition("~")[0] else ""


def complete(directories: Sequence[str], name: str, disk: Disk | None = None) -> None:
    """Complete the recovery that made the cluster ``name``: replace the contents of the folders that wait for it."""
    disk = disk or Disk()
    for directory in map(os.path.abspath, directories):
        if ready_nonce(disk, directory) == name.partition("~")[2]:
            replace_contents(disk, directory)


def _prepare(
    disk: Disk,
    recovery: Recovery,
    one: Survivor,
    incarnations: Mapping[NodeId, int],
    progress: Progress,
    segment_bytes: int,
) -> None:
    """Prepare the new contents of the folder of ``one``, and check that a node can start with them."""
    path = prepared_path(one.directory)
    with os_errors("remove", path):
        shutil.rmtree(path, ignore_errors=False, onerror=_ignore_absent)
    own = incarnations[one.node]
    store = DiskStore(
        path,
        recovery.cluster.name,
        one.node,
        disk=disk,
        execute=execute_now,
        segment_bytes=segment_bytes,
        random_bytes=lambda count: own.to_bytes(count, "little"),
    )
    try:
        store.load()
        if one.application:
            store.last_application.write(one.application)
        _write_snapshot(store, recovery, progress)
        for records in _records(recovery, one.node, incarnations):
            wait(store.save(records))
            progress(sum(len(value) for record in records if isinstance(record, Learned) for value in record.values))
    finally:
        wait(store.close())
    made = read_survivor(path)
    through = recovery.union.through + len(_imports(recovery))
    if (made.chosen_through, made.snapshot_slot) != (through, _base(recovery.union)):
        raise StoreError(f"{path} does not hold what was written to it: check the disk; nothing was changed")


def _ignore_absent(function: object, path: str, error: tuple[object, BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def _base(union: Union) -> int:
    return 0 if union.snapshot is None else union.snapshot.slot


def _write_snapshot(store: DiskStore, recovery: Recovery, progress: Progress) -> None:
    """Copy the newest snapshot chunk by chunk, with a head that names the new cluster and its members."""
    snapshot = recovery.union.snapshot
    if snapshot is None:
        return
    chunks = snapshot.chunks()
    try:
        head = SnapshotHead.unpack(next(chunks, b""))
    except ValueError as error:
        raise StoreError(f"the snapshot at slot {snapshot.slot} cannot be used: {error}") from None
    new = attrs.evolve(head, cluster=recovery.cluster.name, members=recovery.keep)
    writer = store.write_snapshot(snapshot.slot)
    wait(writer.write(HEAD + msgspec.msgpack.encode(new)))
    for chunk in chunks:
        wait(writer.write(chunk))
        progress(len(chunk))
    wait(writer.finish())


def _records(recovery: Recovery, node: NodeId, incarnations: Mapping[NodeId, int]) -> Iterator[list[Record]]:
    """The records of the new folder of ``node``, save by save."""
    union, keep = recovery.union, recovery.keep
    first: list[Record] = [Promised(Ballot(union.promised.round + 1, keep[0]))]
    if union.snapshot is not None:
        first.insert(0, Checkpoint(union.snapshot.slot, installed=True))
    first += [PeerMet(peer, incarnation) for peer, incarnation in incarnations.items() if peer != node]
    yield [*first, Voter(keep)]
    values: list[bytes] = []
    first_slot, size_bytes = _base(union) + 1, 0
    for value in chain(union.values.values(), _imports(recovery)):
        values.append(value)
        size_bytes += len(value)
        if size_bytes >= SAVE_BYTES:
            yield [Learned(first_slot, tuple(values))]
            first_slot, size_bytes = first_slot + len(values), 0
            values.clear()
    if values:
        yield [Learned(first_slot, tuple(values))]


def _imports(recovery: Recovery) -> list[bytes]:
    """The values that come after those of the union: they import the registers of an earlier release into the log. Each
    kept node gets the same ones. They change nothing if the log has those registers already."""
    union = recovery.union
    session = new_session(nonce_of(recovery.cluster).encode().ljust(16)[:16], union.through) + REGISTERS_MARK
    payloads = [encode_command(command) for command in import_commands(union.registers)]
    return [encode_batch([Run(session, number, 0, (payload,))]) for number, payload in enumerate(payloads, 1)]


def wait(deferred: Deferred[Any]) -> object:
    """The result of a Deferred that has fired: here all is done at once.

    :raises StoreError: its error."""
    results: list[object] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
