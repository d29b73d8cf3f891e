"""Executors decide where the system calls of a save happen: in the caller's thread, or in a thread of their own when
the disk is slow."""

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
"""Does pieces of work one after the other, in the order in which they were given. The Deferreds that it returns fire in
that order, too, with ``None`` or with the exception of the work."""

SLOW_SYNC_SECONDS = 0.001
"""A disk whose syncs take longer gets a thread. The hop to a thread and back costs 20 to 60 microseconds, which is more
than the sync of a fast disk; a slow disk would keep the reactor from its sockets and timers."""

_LAST_SAVE_WEIGHT = 1 / 16
"""The weight of the last save in the running mean of the times that saves take."""

_COUNTED_SECONDS_MAX = 8 * SLOW_SYNC_SECONDS
"""The most that one save counts for in that mean: a single slow save does not prove a slow disk."""

T = TypeVar("T")

_PROBES = 9
_PROBE_BYTES = 256


def execute_now(work: Work) -> Deferred[None]:
    """The executor without a thread: do ``work`` before returning."""
    try:
        work()
    except Exception as error:
        return fail(error)
    return succeed(None)


class ThreadExecutor:
    """The executor that does the work in a thread of its own. The Deferreds fire in the reactor's thread.

    The thread is a daemon, so that a process that forgot to close its store can end. No unfinished work was
    acknowledged, so nothing is lost by it.

    :param reactor: only its method ``callFromThread`` is used.
    """

    in_thread = True

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._given: SimpleQueue[tuple[Work, Deferred[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="txpaxos-store", daemon=True)
        self._thread.start()

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all work that was given before."""
        done: Deferred[None] = Deferred()
        self._given.put((work, done))
        return done

    def stop(self) -> None:
        """Wait until all work is done, then end the thread."""
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
    """The executor that works in the caller's thread while the work is quick, and in a thread of its own while it is
    slow. Work becomes slow when the disk does, or when the saves grow.

    :param make_thread: makes the executor with the thread; called when it is first needed.
    :param seconds: how long a piece of work takes, as measured before.
    :param clock: returns monotonic seconds.
    """

    def __init__(
        self, make_thread: Callable[[], ThreadExecutor], seconds: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._make_thread = make_thread
        self._seconds = seconds  # The running mean of the last pieces of work.
        self._clock = clock
        self._thread: ThreadExecutor | None = None
        self._in_flight = 0  # Pieces of work that the thread has not finished.

    @property
    def in_thread(self) -> bool:
        """Whether the next piece of work is done in a thread."""
        return self._seconds > SLOW_SYNC_SECONDS

    def __call__(self, work: Work) -> Deferred[None]:
        """Do ``work`` after all work that was given before."""
        timed = partial(self._do, work)
        if not self._in_flight and not self.in_thread:
            return execute_now(timed)
        if self._thread is None:
            self._thread = self._make_thread()
        self._in_flight += 1
        return self._thread(timed).addBoth(self._done)

    def stop(self) -> None:
        """Wait until all work is done, then end the thread, if there is one."""
        if self._thread is not None:
            self._thread.stop()

    def _do(self, work: Work) -> None:
        began = self._clock()
        work()
        self._seconds += (min(self._clock() - began, _COUNTED_SECONDS_MAX) - self._seconds) * _LAST_SAVE_WEIGHT

    def _done(self, result: T) -> T:
        self._in_flight -= 1
        return result


def measure_sync(disk: Disk, directory: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """How many seconds a small write and its sync take in ``directory``: the median of a few.

    :raises StoreError: if a write or a sync fails."""
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
