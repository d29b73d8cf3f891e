"""The errors that a data folder can cause. Each is one line: what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from txpaxos.errors import RemovedFromCluster, StoreError

_ADVICE = {
    errno.ENOSPC: "free some space on that disk, then start the node again",
    errno.EDQUOT: "free some space or raise the quota, then start the node again",
    errno.EACCES: "give the user that the node runs as access to it, then start the node again",
    errno.EPERM: "give the user that the node runs as access to it, then start the node again",
    errno.EROFS: "mount it writable, then start the node again",
    errno.EIO: "check the disk (the kernel log says more) before the node is started again",
}


_NOTHING_IS_LOST = "nothing is lost, and the node continues without it"


def refused(doing: str, path: str, error: OSError) -> StoreError:
    """The error for a system call that failed.

    :param doing: what was tried on ``path``: "write", "lock" and so on.
    :param error: what the operating system said."""
    advice = _ADVICE.get(error.errno or 0, "correct that, then start the node again")
    reason = _reason(error)
    return StoreError(f"cannot {doing} {path}: {reason}; {advice}")


@contextmanager
def os_errors(doing: str, path: str) -> Iterator[None]:
    """A context in which an OSError becomes the error that :func:`refused` makes."""
    try:
        yield
    except OSError as error:
        raise refused(doing, path, error) from error


def damaged(path: str, offset: int, what: str) -> StoreError:
    """The error for a file at ``path`` that does not hold what was written: ``what`` is wrong at ``offset`` bytes."""
    return StoreError(
        f"{path} is damaged at offset {offset}: {what}; what this node acknowledged may be lost, so it must not vote"
        f" with this folder: move the folder away, check the disk, and bring the machine back as a new node",
        path,
        offset,
    )


def damaged_snapshot(path: str, offset: int, what: str) -> StoreError:
    """The error for a snapshot at ``path`` that does not hold what was written: ``what`` is wrong at ``offset`` bytes.

    Nothing is lost by it: another copy of the file will do, and so will the older snapshot with the journal."""
    return StoreError(
        f"{path} is damaged at offset {offset}: {what}; put the file back, or move it away: the snapshot before it and"
        f" the journal, which reaches back that far, take its place",
        path,
        offset,
    )


def damaged_part(path: str, offset: int, what: str) -> StoreError:
    """The error for a peer's snapshot, received into ``path``, that is not what the peer wrote."""
    return StoreError(f"{path} is damaged at offset {offset}: {what}; it is removed, and must be fetched again")


def snapshot_refused(path: str, error: OSError) -> StoreError:
    """The error for a snapshot that cannot be written to ``path``. No acknowledgement rests on an unfinished snapshot,
    so the node keeps running."""
    return StoreError(f"cannot write the snapshot {path}: {_reason(error)}; {_NOTHING_IS_LOST}")


def no_room(path: str, needed_bytes: int, free_bytes: int) -> StoreError:
    """The error for a peer's snapshot, to be written to ``path``, that does not fit on the disk."""
    return StoreError(
        f"cannot write the snapshot {path}: it needs {needed_bytes} bytes more and the disk has {free_bytes};"
        f" {_NOTHING_IS_LOST}"
    )


def removed(directory: str, finding: str) -> RemovedFromCluster:
    """The error for the data folder of a node that was removed. ``finding`` is what the file ``removed`` says."""
    return RemovedFromCluster(
        f"{directory}/removed says: {finding}; this folder is not needed any more: to join again, start with an empty"
        " one and --join"
    )


def diverged(directory: str, finding: str) -> StoreError:
    """The error for a quarantined data folder: the state in its snapshots is wrong. ``finding`` is what the file
    ``diverged`` says."""
    return StoreError(
        f"{directory}/diverged says: {finding}; correct the cause, then rename {directory}/snapshots to"
        f" snapshots.discarded and start again, to have the state from the other nodes; only if all nodes have stopped,"
        f" and this node's state is the one to keep, remove {directory}/diverged instead"
    )


def other_version(path: str, version: int, known: int) -> StoreError:
    """The error for a file at ``path`` of format ``version``, when this program knows only version ``known``."""
    return StoreError(
        f"{path} has format version {version}, this program knows version {known}:"
        f" run the program that wrote it; nothing was changed"
    )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
