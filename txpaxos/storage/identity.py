"""Whose data folder it is: the lock that keeps others out, and the file that says which node of which cluster."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from txpaxos.core.ready import Voter
from txpaxos.errors import StoreError
from txpaxos.packing import Packing
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.messages import damaged, os_errors


@attrs.frozen
class Identity:
    """What the identity file holds.

    ``incarnation`` is random, not 0, and made once: a folder that was wiped and filled again has another one.
    ``complete`` once everything else the folder needs is there, too: what is missing after that was lost.
    ``voter``, once the node is one.
    """

    cluster: str
    node: str
    incarnation: int
    complete: bool
    voter: Voter | None = None


@attrs.frozen
class _IdentityVersion1:
    """What the file held before a node that is no voter yet was told from one that is."""

    cluster: str
    node: str
    incarnation: int
    complete: bool


VERSION = 2
"""Of the file, and of the folder with it: from 2 on, the file ``acknowledged`` tells what must be there."""

_PACKING: Packing[Identity | _IdentityVersion1] = Packing({1: _IdentityVersion1, 2: Identity})


def new_identity(cluster: str, node: str, random_bytes: Callable[[int], bytes]) -> Identity:
    """The identity of a store that is about to be made."""
    return Identity(cluster, node, int.from_bytes(random_bytes(8), "little") or 1, complete=False)


def read_identity(file: AtomicFile) -> Identity | None:
    """The identity of the store that ``file`` belongs to, or ``None`` if it has none yet."""
    payload = file.read()
    if payload is None:
        return None
    try:
        identity = _PACKING.unpack(payload[0], payload[1:])
    except (ValueError, IndexError) as error:
        raise damaged(file.path, 0, f"this is no identity ({error})") from None
    return identity if isinstance(identity, Identity) else Identity(**attrs.asdict(identity))


def write_identity(file: AtomicFile, identity: Identity) -> None:
    """Put ``identity`` on disk."""
    kind, fields = _PACKING.pack(identity)
    file.write(bytes([kind]) + fields)


def check_identity(found: Identity, cluster: str, node: str, directory: str) -> None:
    """Refuse the folder of another node or cluster.

    :raises StoreError: if ``found`` is not of ``node`` in ``cluster``."""
    if (found.cluster, found.node) != (cluster, node):
        raise StoreError(
            f"{directory} belongs to node {found.node!r} of cluster {found.cluster!r}, not to node {node!r} of cluster"
            f" {cluster!r}: give each node a folder of its own, or correct the name; nothing was changed"
        )


def lock_folder(disk: Disk, directory: str) -> int:
    """Keep everybody else out of ``directory`` until the returned handle is closed.

    :raises StoreError: if somebody is in there."""
    path = f"{directory}/lock"
    with os_errors("lock", path):
        try:
            return disk.lock(path)
        except BlockingIOError:
            raise StoreError(
                f"{directory} is in use by another process: stop it, or give this node a folder of its own"
            ) from None
