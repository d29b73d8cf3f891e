"""What a save costs here. ``python -m pytest test/storage/test_cost.py -s`` prints the table of ``docs/storage.rst``.

Machines differ, so no time is asserted; what is asserted are the system calls, which decide it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]

from test.storage.test_disk import FaultyDisk
from txpaxos.core.ready import Record
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import measure_sync
from txpaxos.storage.store import DiskStore
from txpaxos.testing.store.harness import voted

ROUNDS = 300
VALUE = b"x" * 100


class NoDisk(Disk):
    """Writes nothing: what remains is our own time."""

    idle = False

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        return len(data) if self.idle else super().write_at(handle, data, offset)

    def sync_data(self, handle: int) -> None:
        if not self.idle:
            super().sync_data(handle)


def report(what: str, seconds: Sequence[float]) -> None:
    """One line of the table."""
    ordered = sorted(seconds)
    median, high = statistics.median(ordered), ordered[len(ordered) * 99 // 100]
    print(f"{what:<55} {median * 1e6:9.1f} us median {high * 1e6:9.1f} us p99")


def timed(rounds: int, work: Callable[[int], object]) -> list[float]:
    """The seconds that each round took."""
    seconds = []
    for number in range(rounds):
        begun = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - begun)
    return seconds


def group(number: int) -> list[Record]:
    return [voted(number * 16 + slot, VALUE) for slot in range(16)]


def test_a_save_on_the_reactor_s_thread(tmp_path: Path) -> None:
    disk = NoDisk()
    print(f"\na write and its sync, as a store measures them: {measure_sync(disk, str(tmp_path)) * 1e6:.1f} us")
    store = DiskStore(tmp_path / "data", "cluster", "node-1", disk=disk, sync_in_thread=False)
    store.load()
    report("one vote", timed(ROUNDS, lambda number: store.save([voted(number, VALUE)])))
    report("16 votes in one save", timed(ROUNDS, lambda number: store.save(group(number))))
    begun = time.perf_counter()
    store._journal._next_segment(0)
    report("a new segment", [time.perf_counter() - begun])
    report("the mark of a save", timed(ROUNDS, store._acknowledged.saved))
    disk.idle = True
    report("one vote, without its write and sync", timed(ROUNDS, lambda number: store.save([voted(number, VALUE)])))
    report("16 votes, without their write and sync", timed(ROUNDS, lambda number: store.save(group(number))))


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_save_in_a_thread(tmp_path: Path) -> None:
    from twisted.internet import reactor

    store = DiskStore(tmp_path / "data", "cluster", "node-1", sync_in_thread=True)
    store.load()
    seconds = []
    for number in range(ROUNDS):
        begun = time.perf_counter()
        await store.save([voted(number, VALUE)]).addTimeout(30, reactor)
        seconds.append(time.perf_counter() - begun)
    report("one vote, in a thread", seconds)
    await store.close().addTimeout(30, reactor)


def test_opening(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "data", "cluster", "node-1", sync_in_thread=False)
    store.load()
    for number in range(ROUNDS):
        store.save([voted(slot, VALUE) for slot in range(20 * number, 20 * number + 20)])
    store.close()
    begun = time.perf_counter()
    store = DiskStore(tmp_path / "data", "cluster", "node-1", sync_in_thread=False)
    assert len(store.load()) == 20 * ROUNDS
    report(f"opening a store of {20 * ROUNDS} votes", [time.perf_counter() - begun])
    store.close()


@pytest.mark.parametrize(
    ("records", "calls"),
    [
        ([], []),
        ([voted(1)], ["write_at", "sync_data", "write_at"]),
        ([voted(slot) for slot in range(16)], ["write_at", "sync_data", "write_at"]),
    ],
)
def test_the_system_calls_of_a_save(tmp_path: Path, records: list[Record], calls: list[str]) -> None:
    disk = FaultyDisk(Disk())
    store = DiskStore(tmp_path / "data", "cluster", "node-1", disk=disk, sync_in_thread=False)
    store.load()
    disk.calls.clear()
    store.save(records)
    assert disk.calls == calls
    store.close()
