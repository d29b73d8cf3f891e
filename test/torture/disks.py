"""The content of a node's disk while the node is down: its snapshot, and the log since, applied once more."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.task import Clock

from test.torture.applied import State
from txpaxos.cluster import ALONE
from txpaxos.core.config import Limits
from txpaxos.core.log import Log
from txpaxos.core.messages import LOWEST, MEMBERS_BYTE, Ballot
from txpaxos.core.ready import Chosen, LogRecord, Promised, Voted
from txpaxos.node.applier import Applier
from txpaxos.node.members import Members
from txpaxos.node.sessions import Sessions
from txpaxos.node.snapshots.taking import Policy, SnapshotTaker, head_of
from txpaxos.storage.store import DiskStore
from txpaxos.wire.members import MembersEntry, decode_members


@attrs.frozen
class Disk:
    """The state on a node's disk.

    :ivar snapshot_slot: the slot of the newest snapshot, 0 if there is none.
    :ivar members_slot: the slot at which the members were chosen; 0 if they are the founders.
    :ivar voters: the voters since then; empty if they are the founders.
    :ivar promised: the highest ballot that the node has promised.
    """

    state: State
    sessions: Sessions
    snapshot_slot: int
    members_slot: int = 0
    voters: tuple[str, ...] = ()
    promised: Ballot = LOWEST


def read_disk(folder: Path, cluster: str, node: str) -> Disk:
    """Read a node's folder.

    :raises StoreError: if it is damaged.
    """
    store = DiskStore(folder, cluster, node, sync_in_thread=False)
    try:
        records = store.load()
        state, base, members = State(), 0, Members(node, ALONE)
        applier = Applier(state.apply)
        if store.snapshot is not None:
            base = store.snapshot.slot
            ignore = (lambda slot: None, lambda taken: None)
            SnapshotTaker(Clock(), store, state, applier, cluster, members, Policy(), *ignore).restore(store.snapshot)
            members.restore(head_of(store.snapshot, cluster).chosen_members)
        log = Log.recover((record for record in records if isinstance(record, LogRecord)), base)
        for slot, value in enumerate(log.values_from(base + 1), base + 1):
            for _ in applier.apply(Chosen(slot, value)):
                pass
            if value[:1] == MEMBERS_BYTE and _counts(decode_members(value), slot, members.slot):
                members.configure(slot, value)
        promised = max((one.ballot for one in records if isinstance(one, Promised | Voted)), default=LOWEST)
        voters = members.entry.voters if members.slot else ()
        return Disk(state, applier.sessions, base, members.slot, voters, promised)
    finally:
        store.close()


def _counts(entry: MembersEntry, slot: int, newest_slot: int) -> bool:
    """Whether ``entry``, chosen at ``slot``, changes the members that were chosen at ``newest_slot``."""
    governs_from = newest_slot + Limits().window_slots if newest_slot else 1
    return entry.base == newest_slot and slot >= governs_from
