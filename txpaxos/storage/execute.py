"""Where a save's system calls happen: at once, or in a thread of their own when the disk is slow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from threading import Thread
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from txpaxos.storage.disk import Disk, remove_if_there, write_all
from txpaxos.storage.faults import os_errors

Work: TypeAlias = Callable[[], None]
Execute: TypeAlias = Callable[[Work], "Deferred[None]"]
"""Does pieces of work one after the other, in the order given; what it returns fires, in that order too, with
``None`` or with what the work raised."""

SLOW_SYNC_SECONDS = 0.0005
"""A disk that takes longer than this for a sync gets a thread. A hop there and back costs 20 to 60 microseconds, more
than a fast disk takes; a slow disk would keep the reactor from its sockets and timers."""

_PROBES = 9
_PROBE_BYTES = 256


def execute_here(work: Work) -> Deferred[None]:
    """Do ``work`` before returning."""
    try:
        work()
    except Exception as error:
        return fail(error)
    return succeed(None)


def _daemon_thread(**arguments: Any) -> Thread:
    """A thread that a process which forgot to close its store does not wait for. It holds nothing acknowledged."""
    return Thread(daemon=True, **arguments)


class ExecuteInThread:
    """Does work in one thread of its own, and tells in the reactor's.

    :param reactor: of it, only ``callFromThread`` is used.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(1, 1, "txpaxos-store")
        self._pool.threadFactory = _daemon_thread  # type: ignore[assignment]
        self._pool.start()

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all that was given before."""
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """End the thread, once it has done what it was given."""
        self._pool.stop()


def measure_sync(disk: Disk, directory: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """How many seconds a small write and its sync take in ``directory``: the median of a few.

    :raises StoreError: if one fails."""
    path = f"{directory}/probe"
    seconds = []
    with os_errors("write", path):
        handle = disk.create(path)
        try:
            disk.allocate(handle, _PROBES * _PROBE_BYTES)
            disk.sync(handle)
            for probe in range(_PROBES):
                begun = clock()
                write_all(disk, handle, b"\xff" * _PROBE_BYTES, probe * _PROBE_BYTES)
                disk.sync_data(handle)
                seconds.append(clock() - begun)
        finally:
            disk.close(handle)
        remove_if_there(disk, path)
    return statistics.median(seconds)
