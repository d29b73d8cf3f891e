"""The data folder of a founder of a new cluster, made from a backup.

The new cluster has another name than that of the backup: its nodes and those of the old cluster refuse each other, and
versions of changes are those of one cluster (:mod:`txpaxos.service.kept_changes`). All of its founders are restored
from the same backup, and have met before they vote, as founders with empty folders do. A founder with another state, or
with none, does not found with them (:mod:`txpaxos.node.founding`). The nodes that are no founders start with empty
folders, and get the state from the founders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import attrs
import msgspec

from txpaxos.cluster import Cluster
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import MEMBERS_BYTE, NO_OP, NodeId
from txpaxos.core.ready import Checkpoint, Learned, Record
from txpaxos.errors import StoreError
from txpaxos.node.snapshots.taking import HEAD, SnapshotHead
from txpaxos.recovery.backup_file import Backup, snapshot_of, values_of
from txpaxos.recovery.recover import wait
from txpaxos.storage.atomic_file import TEMPORARY
from txpaxos.storage.disk import Disk, ensure_directory
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import lock_folder
from txpaxos.storage.journal import SEGMENT_BYTES
from txpaxos.storage.messages import os_errors
from txpaxos.storage.replacement import MARKER, PREPARED, note_ready, prepared_path, replace_contents
from txpaxos.storage.store import DiskStore

_HARMLESS_NAMES = frozenset(("lock", "lost+found", PREPARED, MARKER + TEMPORARY))


def check_restore(backup: Backup, cluster: Cluster, node: NodeId, directory: str) -> None:
    """Check that ``node`` of ``cluster`` may be restored from ``backup`` into ``directory``. Nothing is changed.

    :raises StoreError: one line that says why not."""
    if node not in cluster.members:
        raise StoreError(f"{node} is not in the cluster file: its nodes are {', '.join(cluster.members)}")
    if cluster.name == backup.head.cluster:
        base = cluster.name.partition("~")[0]
        raise StoreError(
            f"the cluster file has the name of the cluster that was backed up, {cluster.name}, so nodes of that cluster"
            f' would be heard: give it another name, for instance cluster = "{base}~{backup.digest[:16]}"'
        )
    founders = [*cluster.members][: quorum_size(len(cluster.members))]
    if node not in founders:
        raise StoreError(
            f"{node} is no founder: restore {', '.join(founders)}, and start {node} with an empty folder; it gets the"
            " state from them"
        )
    with os_errors("read", directory):
        found = set(os.listdir(directory)) - _HARMLESS_NAMES if os.path.exists(directory) else set[str]()
    if found:
        name = ascii(min(found))
        raise StoreError(f"{directory} is not empty (it holds {name}): name an empty folder; nothing was changed")


def restore(
    backup: Backup,
    cluster: Cluster,
    node: NodeId,
    directory: str,
    progress: Callable[[int], None] = lambda size_bytes: None,
    disk: Disk | None = None,
    segment_bytes: int | None = None,
) -> None:
    """Make the folder ``directory`` of ``node``. After a crash it is as if nothing had been done, or all is done.

    :raises StoreError: if it may not be done, or a system call fails."""
    directory, disk = os.path.abspath(directory), disk or Disk()
    check_restore(backup, cluster, node, directory)
    with os_errors("create", directory):
        ensure_directory(disk, directory)
    lock = lock_folder(disk, directory)
    try:
        path = prepared_path(directory)
        with os_errors("remove", path):
            if os.path.exists(path):
                shutil.rmtree(path)
        _write(backup, cluster, node, path, progress, disk, segment_bytes or SEGMENT_BYTES)
        note_ready(disk, directory, backup.digest[:16])
        replace_contents(disk, directory)
    finally:
        disk.close(lock)


def _write(
    backup: Backup,
    cluster: Cluster,
    node: NodeId,
    path: str,
    progress: Callable[[int], None],
    disk: Disk,
    segment_bytes: int,
) -> None:
    store = DiskStore(path, cluster.name, node, disk=disk, execute=execute_now, segment_bytes=segment_bytes)
    try:
        store.load()
        store.restored_from.write(backup.digest)
        store.last_application.write(backup.head.application)
        first_slot = backup.head.snapshot_slot + 1
        if backup.head.snapshot_slot:
            _write_snapshot(store, backup, cluster, progress)
        for values in values_of(backup):
            # The members are those of the new cluster file, as if the log had never named others.
            kept = tuple(NO_OP if value[:1] == MEMBERS_BYTE else value for value in values)
            wait(store.save([Learned(first_slot, kept)]))
            first_slot += len(values)
            progress(sum(map(len, values)))
    finally:
        wait(store.close())


def _write_snapshot(store: DiskStore, backup: Backup, cluster: Cluster, progress: Callable[[int], None]) -> None:
    chunks = snapshot_of(backup)
    try:
        head = SnapshotHead.unpack(next(chunks, b""))
    except ValueError as error:
        raise StoreError(f"the snapshot in {backup.path} cannot be used: {error}") from None
    new = attrs.evolve(head, cluster=cluster.name, members=tuple(cluster.members), chosen_members=())
    writer = store.write_snapshot(backup.head.snapshot_slot)
    wait(writer.write(HEAD + msgspec.msgpack.encode(new)))
    for chunk in chunks:
        wait(writer.write(chunk))
        progress(len(chunk))
    wait(writer.finish())
    checkpoint: list[Record] = [Checkpoint(backup.head.snapshot_slot, installed=True)]
    wait(store.save(checkpoint))
