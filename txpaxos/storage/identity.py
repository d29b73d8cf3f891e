"""The owner of a data folder: a lock keeps other processes out, and the identity file names node and cluster."""

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

    :ivar cluster: the cluster's name.
    :ivar node: the node's id.
    :ivar incarnation: a random number, not 0, made once: a folder that was wiped and made again has another one.
    :ivar complete: whether the folder has everything that it needs. A file that is missing after that was lost.
    :ivar voter: the record that the node votes; ``None`` until it does.
    :ivar has_registers: whether the folder has the folder ``subjects``, in which earlier releases kept a file for each
        register.
    """

    cluster: str
    node: str
    incarnation: int
    complete: bool
    voter: Voter | None = None
    has_registers: bool = False


@attrs.frozen
class _IdentityVersion1:
    """What version 1 of the identity file held. It did not say whether the node votes."""

    cluster: str
    node: str
    incarnation: int
    complete: bool


@attrs.frozen
class _IdentityVersion2:
    """What version 2 of the identity file held. Every folder had files of registers, or might get some."""

    cluster: str
    node: str
    incarnation: int
    complete: bool
    voter: Voter | None = None


VERSION = 3
"""The version of the identity file, and of the data folder. From version 2 on, the file ``acknowledged`` says which
records must be in the folder. In version 3 registers are in the log. An earlier release, which would vote for registers
with the old files, does not open the folder."""

FIRST_MARKED_VERSION = 2
"""The first version with the file ``acknowledged``."""

_PACKING: Packing[Identity | _IdentityVersion1 | _IdentityVersion2] = Packing(
    {1: _IdentityVersion1, 2: _IdentityVersion2, 3: Identity}
)


def new_identity(cluster: str, node: str, random_bytes: Callable[[int], bytes]) -> Identity:
    """The identity of a store that is about to be created.

    :param random_bytes: returns that number of random bytes, for the incarnation."""
    return Identity(cluster, node, int.from_bytes(random_bytes(8), "little") or 1, complete=False)


def read_identity(file: AtomicFile) -> Identity | None:
    """The identity in ``file``, or ``None`` if there is no such file.

    :raises StoreError: if the file is damaged, of another format version, or cannot be read."""
    payload = file.read()
    if payload is None:
        return None
    try:
        identity = _PACKING.unpack(payload[0], payload[1:])
    except (ValueError, IndexError) as error:
        raise damaged(file.path, 0, f"this is no identity ({error})") from None
    if isinstance(identity, Identity):
        return identity
    return Identity(**attrs.asdict(identity, recurse=False), has_registers=True)


def write_identity(file: AtomicFile, identity: Identity) -> None:
    """Put ``identity`` on disk.

    :raises StoreError: if that fails."""
    kind, fields = _PACKING.pack(identity)
    file.write(bytes([kind]) + fields)


def check_identity(found: Identity, cluster: str, node: str, directory: str) -> None:
    """Refuse the data folder of another node or cluster.

    :raises StoreError: if ``found`` does not name ``node`` and ``cluster``."""
    if (found.cluster, found.node) != (cluster, node):
        raise StoreError(
            f"{directory} belongs to node {found.node!r} of cluster {found.cluster!r}, not to node {node!r} of cluster"
            f" {cluster!r}: give each node a folder of its own, or correct the name; nothing was changed"
        )


def lock_folder(disk: Disk, directory: str) -> int:
    """Keep other processes out of ``directory`` until the returned handle is closed.

    :raises StoreError: if another process uses the folder."""
    path = f"{directory}/lock"
    with os_errors("lock", path):
        try:
            return disk.lock(path)
        except BlockingIOError:
            raise StoreError(
                f"{directory} is in use by another process: stop it, or give this node a folder of its own"
            ) from None
