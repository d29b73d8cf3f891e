"""The file ``membership``: what a node that joined a cluster has to know before it reads its log.

A founder reads its cluster file. A node that joins has none: another node tells it the cluster's name, its own id, the
founding members and the current ones. It finds the others by this file when it starts again, however old the file is:
the log says who the members are now.

The file is written before the node asks to join, too, with the incarnation that it will have. So a node that is
stopped on the way asks again as the same one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.errors import StoreError
from txpaxos.packing import Packing
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.messages import damaged

Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=300)]
Addresses: TypeAlias = dict[Text, tuple[Text, Text]]
"""For each node its address for other nodes, and its address for clients; each ``host:port``."""


@attrs.frozen
class Joining:
    """The node has asked to join, or is about to.

    :ivar name: the name that its owner gave it.
    :ivar incarnation: of its data folder, not 0.
    """

    name: Text
    incarnation: int


@attrs.frozen
class Joined:
    """The node is a member, or was one.

    :ivar name: the name that its owner gave it.
    :ivar incarnation: of its data folder, not 0.
    :ivar cluster: the cluster's name.
    :ivar node: its id.
    :ivar founding: the members that founded the cluster, in the order of their cluster file.
    :ivar members: the last known members.
    :ivar slot: the slot at which these were chosen.
    :ivar listen: where the node listens for other nodes; empty if that is its address.
    :ivar client_listen: where it listens for clients; empty if that is its client address.
    :ivar has_started: whether the folder had a store. If it has none then, the store was lost.
    :ivar given: the address and the client address that its owner gave it last, in a cluster file or with ``--join``;
        empty if that is not known.
    :ivar learners: the ids of those among the last known members that do not vote.
    :ivar rights: what clients may do, when keys are on: for each entry its rights. Empty if the node was told of none.
    """

    name: Text
    incarnation: int
    cluster: Text
    node: Text
    founding: Addresses
    members: Addresses
    slot: int
    listen: Text = ""
    client_listen: Text = ""
    has_started: bool = False
    given: tuple[Text, Text] = ("", "")
    learners: tuple[Text, ...] = ()
    rights: dict[Text, tuple[Text, ...]] = attrs.field(factory=dict)


_PACKING: Packing[Joining | Joined] = Packing({1: Joining, 2: Joined})


class MembershipFile:
    """The file ``membership`` in ``directory``, which is a data folder."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._file = AtomicFile(disk, f"{directory}/membership")

    def read(self) -> Joining | Joined | None:
        """What the file says, ``None`` if there is no file: the node has a cluster file.

        :raises StoreError: if the file is damaged, or cannot be read."""
        payload = self._file.read()
        if payload is None:
            return None
        try:
            return _PACKING.unpack(payload[0], payload[1:])
        except (ValueError, IndexError) as error:
            raise damaged(self._file.path, 0, f"this is no membership ({error})") from None

    def write(self, membership: Joining | Joined) -> None:
        """Put ``membership`` on disk.

        :raises StoreError: if that fails."""
        kind, fields = _PACKING.pack(membership)
        self._file.write(bytes([kind]) + fields)


def joined_folder(disk: Disk, directory: str) -> Joined | None:
    """What the folder of a node that joined says; ``None`` if there is no such folder.

    :raises StoreError: if the file is damaged, or the node has not finished to join."""
    try:
        disk.inspect(f"{directory}/membership")
    except OSError:  # If the folder cannot be read, opening the store says so.
        return None
    membership = MembershipFile(disk, directory).read()
    if isinstance(membership, Joining):
        raise StoreError(
            f"node {membership.name} was stopped while it joined a cluster with {directory}: start it with --join again"
        )
    return membership
