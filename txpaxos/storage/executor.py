"""Where a save's system calls happen: at once, or in a thread of their own when the disk is slow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from txpaxos.storage.disk import Disk, remove_if_there, write_all
from txpaxos.storage.messages import os_errors

Work: TypeAlias = Callable[[], None]
Executor: TypeAlias = Callable[[Work], "Deferred[None]"]
"""Does pieces of work one after the other, in the order given; what it returns fires, in that order too, with
``None`` or with what the work raised."""

SLOW_SYNC_SECONDS = 0.001
"""A disk that takes longer than this for a sync gets a thread. A hop there and back costs 20 to 60 microseconds, more
than a fast disk takes; a slow disk would keep the reactor from its sockets and timers."""

_LAST_SAVE_WEIGHT = 1 / 16
"""How much the last save counts in the mean of what they take."""

_COUNTED_SECONDS_MAX = 8 * SLOW_SYNC_SECONDS
"""No save counts as longer: a single one proves nothing."""

T = TypeVar("T")

_PROBES = 9
_PROBE_BYTES = 256


def execute_now(work: Work) -> Deferred[None]:
    """Do ``work`` before returning."""
    try:
        work()
    except Exception as error:
        return fail(error)
    return succeed(None)


class ThreadExecutor:
    """Does work in one thread of its own, and tells in the reactor's.

    The thread is a daemon: a process that forgot to close its store does not wait for it. What it has not done yet was
    not acknowledged.

    :param reactor: of it, only ``callFromThread`` is used.
    """

    in_thread = True

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._given: SimpleQueue[tuple[Work, Deferred[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="txpaxos-store", daemon=True)
        self._thread.start()

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all that was given before."""
        done: Deferred[None] = Deferred()
        self._given.put((work, done))
        return done

    def stop(self) -> None:
        """End the thread, once it has done what it was given."""
        self._given.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            work, done = given
            try:
                work()
            except BaseException:
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, None)


class AdaptiveExecutor:
    """Does work at once as long as that is quick, and in a thread of its own while it is not: the disk may have become
    slow, or the saves big.

    :param make_thread: called when the thread is needed first.
    :param seconds: what a piece of work takes, as measured before.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, make_thread: Callable[[], ThreadExecutor], seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._make_thread = make_thread
        self._seconds = seconds  # The mean of what was done lately.
        self._clock = clock
        self._thread: ThreadExecutor | None = None
        self._under_way = 0  # In the thread.

    @property
    def in_thread(self) -> bool:
        """Whether what comes next is done in a thread."""
        return self._seconds > SLOW_SYNC_SECONDS

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all that was given before."""
        timed = partial(self._do, work)
        if not self._under_way and not self.in_thread:
            return execute_now(timed)
        if self._thread is None:
            self._thread = self._make_thread()
        self._under_way += 1
        return self._thread(timed).addBoth(self._done)

    def stop(self) -> None:
        """End the thread, if there is one, once it has done what it was given."""
        if self._thread is not None:
            self._thread.stop()

    def _do(self, work: Work) -> None:
        began = self._clock()
        work()
        self._seconds += (min(self._clock() - began, _COUNTED_SECONDS_MAX) - self._seconds) * _LAST_SAVE_WEIGHT

    def _done(self, result: T) -> T:
        self._under_way -= 1
        return result


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
