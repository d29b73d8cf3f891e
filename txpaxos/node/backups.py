"""What a running node gives to a client that makes a backup: its newest snapshot, and the values behind it.

Both are immutable once they are there, so a backup is consistent though commands go on meanwhile. The client asks for
one part after another and has the next one only when it asks, so nothing piles up on either side.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec

from txpaxos.cluster import Cluster
from txpaxos.core.log import Log
from txpaxos.core.messages import NodeId, Slot
from txpaxos.errors import BackupOutdated
from txpaxos.node.applier import Applier
from txpaxos.storage.store import Store
from txpaxos.wire.client_messages import BackupHead

PART_BYTES = 2**18
"""The size of a part. A single value may be bigger."""

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class BackupPart:
    """The bytes of one part, as :class:`~txpaxos.wire.client_messages.BackupAnswer` carries them."""

    body: bytes


class Backups:
    """Answers the requests of clients that make backups of one node.

    :param cluster: returns the cluster as it is now.
    :param application: the name of the application.
    :param log: returns the log of this node.
    :param applier: knows which slots are applied.
    :param note: called with the slot of a snapshot that is being fetched.
    """

    def __init__(
        self,
        name: NodeId,
        cluster: Callable[[], Cluster],
        application: str,
        store: Store,
        log: Callable[[], Log],
        applier: Applier,
        note: Callable[[Slot], None],
    ) -> None:
        self._name = name
        self._cluster = cluster
        self._application = application
        self._store = store
        self._log = log
        self._applier = applier
        self._note = note

    def part(self, snapshot_slot: Slot, position: int) -> BackupPart:
        """The part that a :class:`~txpaxos.wire.client_messages.BackupRequest` asks for.

        :raises BackupOutdated: if the node does not have it any more.
        :raises StoreError: if the snapshot cannot be read.
        """
        if snapshot_slot:
            return BackupPart(self._of_snapshot(snapshot_slot, position))
        return BackupPart(self._values(position) if position else self._head())

    def _head(self) -> bytes:
        snapshot, cluster = self._store.snapshot, self._cluster()
        slot, size = (0, 0) if snapshot is None else (snapshot.slot, snapshot.size_bytes)
        self._note(slot)
        members = {node: (str(member.address), str(member.client)) for node, member in cluster.members.items()}
        through = self._applier.applied_through
        return _encode(BackupHead(cluster.name, self._name, self._application, members, slot, size, through))

    def _of_snapshot(self, slot: Slot, position: int) -> bytes:
        snapshot = self._store.snapshot_at(slot)
        if snapshot is None:
            raise BackupOutdated(f"node {self._name} has replaced its snapshot at slot {slot} by newer ones")
        self._note(slot)
        return snapshot.read(min(position, snapshot.size_bytes), PART_BYTES)

    def _values(self, first_slot: Slot) -> bytes:
        log = self._log()
        if first_slot < log.first_slot:
            raise BackupOutdated(f"the log of node {self._name} begins with slot {log.first_slot} now")
        return _encode(log.values_from(first_slot, bytes_max=PART_BYTES))
