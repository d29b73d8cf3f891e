"""What can be wrong with a data folder, as one clear line each: what, where, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from txpaxos.errors import StoreError

_ADVICE = {
    errno.ENOSPC: "free some space on that disk, then start the node again",
    errno.EDQUOT: "free some space or raise the quota, then start the node again",
    errno.EACCES: "give the user the node runs as access to it, then start the node again",
    errno.EPERM: "give the user the node runs as access to it, then start the node again",
    errno.EROFS: "mount it writable, then start the node again",
    errno.EIO: "check the disk (the kernel log says more) before the node is started again",
}


def refused(doing: str, path: str, error: OSError) -> StoreError:
    """The operating system refused ``doing`` ("write", "lock", ...) on ``path``."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "put that right, then start the node again")
    return StoreError(f"cannot {doing} {path}: {reason}; {advice}")


@contextmanager
def os_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an OSError of the block into :func:`refused`."""
    try:
        yield
    except OSError as error:
        raise refused(doing, path, error) from error


def damaged(path: str, offset: int, what: str) -> StoreError:
    """The file at ``path`` does not hold what was written: ``what`` is wrong at ``offset`` bytes."""
    return StoreError(
        f"{path} is damaged at offset {offset}: {what}; what this node acknowledged may be lost, so it must not vote"
        f" with this folder: keep the folder aside, check the disk, and bring the machine back as a new node"
    )


def damaged_snapshot(path: str, offset: int, what: str) -> StoreError:
    """The snapshot at ``path`` does not hold what was written: ``what`` is wrong at ``offset`` bytes. Another copy
    of it will do, and so will what it was made of."""
    return StoreError(
        f"{path} is damaged at offset {offset}: {what}; put the file back, or move it aside: the snapshot before it and"
        f" the journal, which reaches back that far, take its place"
    )


def damaged_part(path: str, offset: int, what: str) -> StoreError:
    """What was received of a peer's snapshot into ``path`` is not what that peer wrote."""
    return StoreError(f"{path} is damaged at offset {offset}: {what}; it is removed, and must be fetched again")


def snapshot_refused(path: str, error: OSError) -> StoreError:
    """The operating system refused to write the snapshot at ``path``. Nothing rests on it yet."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"cannot write the snapshot {path}: {reason}; nothing is lost, and the node goes on without it")


def no_room(path: str, needed_bytes: int, free_bytes: int) -> StoreError:
    """A peer's snapshot, to be written to ``path``, does not fit on the disk."""
    return StoreError(
        f"cannot write the snapshot {path}: it needs {needed_bytes} bytes more and the disk has {free_bytes}; nothing"
        f" is lost, and the node goes on without it"
    )


def diverged(directory: str, finding: str) -> StoreError:
    """The state in the snapshots in ``directory`` is wrong: ``finding`` is what the file ``diverged`` there says."""
    return StoreError(
        f"{directory}/diverged says: {finding}; mend what made it so, then rename {directory}/snapshots to"
        f" snapshots.discarded and start again, to have the state from the other nodes; only if all have stopped, and"
        f" this one's state is the one to go on with, remove {directory}/diverged instead"
    )


def other_version(path: str, version: int, known: int) -> StoreError:
    """The file at ``path`` has format ``version``; this program knows ``known``."""
    return StoreError(
        f"{path} has format version {version}, this program knows version {known}:"
        f" run the program that wrote it; nothing was changed"
    )
