"""Where saves happen: here, or in a thread."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from twisted.python.failure import Failure

from test.storage.test_contract import ReactorThread
from test.storage.test_disk import VolatileDisk
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import SLOW_SYNC_SECONDS, AdaptiveExecutor, ThreadExecutor, Work, measure_sync


class Watch:
    """A clock that the work itself moves on, and where the work was done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.threads: list[int] = []

    def work(self, seconds: float) -> Work:
        def work() -> None:
            self.threads.append(threading.get_ident())
            self.now += seconds

        return work


def test_saves_move_to_a_thread_while_they_are_slow() -> None:
    reactor, watch, here = ReactorThread(), Watch(), threading.get_ident()
    execute = AdaptiveExecutor(lambda: ThreadExecutor(reactor), SLOW_SYNC_SECONDS / 5, lambda: watch.now)

    def do(seconds: float, times: int) -> list[bool]:
        """Whether each was done in a thread."""
        watch.threads.clear()
        for _ in range(times):
            reactor.wait(execute(watch.work(seconds)))
        return [thread != here for thread in watch.threads]

    assert not any(do(SLOW_SYNC_SECONDS / 2, 100))
    assert not any(do(1.0, 1) + do(SLOW_SYNC_SECONDS / 2, 50)), "one hiccup"
    slow = do(2 * SLOW_SYNC_SECONDS, 50)
    assert slow == sorted(slow)
    assert slow[-1]
    assert execute.in_thread
    quick = do(SLOW_SYNC_SECONDS / 5, 50)
    assert quick == sorted(quick, reverse=True)
    assert not quick[-1]
    assert not execute.in_thread
    execute.stop()


def test_a_quick_save_does_not_overtake_one_in_the_thread() -> None:
    reactor, watch, gate = ReactorThread(), Watch(), threading.Event()
    execute = AdaptiveExecutor(lambda: ThreadExecutor(reactor), 1.01 * SLOW_SYNC_SECONDS, lambda: watch.now)
    order: list[str] = []

    def first() -> None:
        gate.wait(10)
        order.append("first")

    waiting = execute(first)
    execute._seconds = 0.0  # As if it were already measured.
    then = execute(lambda: order.append("then"))
    gate.set()
    reactor.wait(waiting)
    reactor.wait(then)
    assert order == ["first", "then"]
    execute.stop()


def test_a_save_that_fails_in_the_thread_says_so() -> None:
    reactor = ReactorThread()
    execute = ThreadExecutor(reactor)

    def fail() -> None:
        raise KeyError("gone")

    failures: list[Failure] = []
    reactor.wait(execute(fail).addErrback(failures.append))
    assert [failure.type for failure in failures] == [KeyError]
    execute.stop()


def test_measuring_takes_the_median_of_a_few_syncs() -> None:
    class SlowDisk(VolatileDisk):
        now = 0.0
        syncs = 0

        def sync_data(self, handle: int) -> None:
            super().sync_data(handle)
            self.syncs += 1
            self.now += 9.0 if self.syncs % 3 == 0 else 0.25

    disk = SlowDisk(random.Random(1))
    disk.make_directory("/folder")
    assert measure_sync(disk, "/folder", lambda: disk.now) == 0.25
    assert disk.list_directory("/folder") == []
    assert disk.handles == {}


def test_measuring_on_this_machine(tmp_path: Path) -> None:
    assert 0 < measure_sync(Disk(), str(tmp_path)) < 60
    assert list(tmp_path.iterdir()) == []
