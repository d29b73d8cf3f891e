"""The content of a node's disk while the node is down: its snapshot, and the log since, applied once more."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.task import Clock

from test.torture.applied import State
from txpaxos.cluster import ALONE
from txpaxos.core.log import Log
from txpaxos.core.ready import Chosen, LogRecord
from txpaxos.node.applier import Applier
from txpaxos.node.members import Members
from txpaxos.node.sessions import Sessions
from txpaxos.node.snapshots.taking import Policy, SnapshotTaker
from txpaxos.storage.store import DiskStore


@attrs.frozen
class Disk:
    """The state on a node's disk.

    :ivar snapshot_slot: the slot of the newest snapshot, 0 if there is none.
    """

    state: State
    sessions: Sessions
    snapshot_slot: int


def read_disk(folder: Path, cluster: str, node: str) -> Disk:
    """Read a node's folder.

    :raises StoreError: if it is damaged.
    """
    store = DiskStore(folder, cluster, node, sync_in_thread=False)
    try:
        records = store.load()
        state, base = State(), 0
        applier = Applier(state.apply)
        if store.snapshot is not None:
            base = store.snapshot.slot
            ignore = (lambda slot: None, lambda taken: None)
            SnapshotTaker(Clock(), store, state, applier, cluster, Members(node, ALONE), Policy(), *ignore).restore(
                store.snapshot
            )
        log = Log.recover((record for record in records if isinstance(record, LogRecord)), base)
        for slot, value in enumerate(log.values_from(base + 1), base + 1):
            for _ in applier.apply(Chosen(slot, value)):
                pass
        return Disk(state, applier.sessions, base)
    finally:
        store.close()
