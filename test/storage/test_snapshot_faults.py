"""Snapshots when everything goes wrong: every system call of a script fails, or is the last one before a crash.

Afterwards the newest complete snapshot must be there, or the one that was being finished, and what was saved beside it;
and if that one is moved aside, the one before it, and all that was saved beside that.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from test.storage.test_disk import (
    Crash,
    FaultyDisk,
    UnsyncedDisk,
    VolatileDisk,
    crash_after,
    crash_before,
    crash_within,
    failing,
    short_write,
)
from txpaxos.core.ready import Checkpoint, Promised, Record
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.snapshots import SnapshotWriter
from txpaxos.storage.store import DiskStore
from txpaxos.testing.simulator.disk import Crash as SimulatedCrash
from txpaxos.testing.simulator.disk import SimulatedDisk
from txpaxos.testing.store.harness import BALLOT, voted

Fault = Callable[..., Any]
SYNC_BYTES = 300
SLOTS = (10, 20, 30, 40)
RECEIVED = (30,)


@pytest.fixture(autouse=True)
def _small_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.storage.snapshots.SYNC_BYTES", SYNC_BYTES)


def open_store(disk: Disk, folder: str) -> DiskStore:
    return DiskStore(
        folder,
        "cluster",
        "node-1",
        disk=disk,
        execute=execute_now,
        segment_bytes=2048,
        random_bytes=random.Random(1).randbytes,
    )


def chunks(slot: int) -> list[bytes]:
    """What the snapshot at ``slot`` holds."""
    return [b"%d" % slot * 100, bytes(slot), b"end"]


def write(writer: SnapshotWriter) -> Iterator[Deferred[None]]:
    """Write the whole snapshot."""
    if writer.slot not in RECEIVED:
        yield from map(writer.write, chunks(writer.slot))
        return
    peer = MemoryStore()
    peer.load()
    theirs = peer.write_snapshot(writer.slot)
    for chunk in chunks(writer.slot):
        theirs.write(chunk)
    theirs.finish()
    assert peer.snapshot is not None
    while data := peer.snapshot.read(writer.size_bytes, 150):
        yield writer.write_raw(data)
        if not writer.open:
            return


@attrs.define
class Progress:
    """How far the script came: ``fired`` of the ``saves`` are done, and so are the ``complete`` snapshots. The last one
    was begun at ``begun``."""

    saves: list[list[Record]] = attrs.field(factory=list)
    fired: int = 0
    complete: list[int] = attrs.field(factory=lambda: [0])
    begun: int = 0

    def save(self, store: DiskStore, records: list[Record]) -> None:
        sound = len(self.saves) == self.fired
        if sound:
            self.saves.append(records)
        worked = done(store.save(records))
        assert sound or not worked, "a save worked after one that failed"
        self.fired += worked

    def snapshot(self, store: DiskStore, slot: int) -> None:
        self.begun = slot
        writer = (store.receive_snapshot if slot in RECEIVED else store.write_snapshot)(slot)
        written = [done(write) for write in write(writer)]
        finished = done(writer.finish())
        assert all(written) or not finished
        if store.snapshot is not None and store.snapshot.slot == slot:
            self.complete.append(slot)  # though not finished, if the journal failed then


def done(deferred: Deferred[Any]) -> bool:
    """Whether it worked, which is known."""
    outcomes: list[object] = []
    deferred.addBoth(outcomes.append)
    (outcome,) = outcomes
    if isinstance(outcome, Failure):
        outcome.trap(StoreError)
    return not isinstance(outcome, Failure)


def run(disk: Disk, folder: str) -> Progress:
    """Do the script until it is done or the process crashes."""
    progress = Progress()
    try:
        store = open_store(disk, folder)
        store.load()
        for slot in SLOTS:
            checkpoint: list[Record] = [Checkpoint(slot), Promised(BALLOT), voted(slot + 1, b"%d" % slot * 200)]
            progress.save(store, [voted(slot, bytes(900))])
            if slot not in RECEIVED:
                progress.save(store, checkpoint)
            progress.snapshot(store, slot)
            if slot in RECEIVED:
                progress.save(store, checkpoint)
            progress.save(store, [voted(slot + 2, b"x" * 700)])
        done(store.close())
    except (Crash, SimulatedCrash, StoreError):
        pass
    return progress


def expected(saves: list[list[Record]], slot: int) -> list[Record]:
    """What is loaded beside the snapshot at ``slot`` if ``saves`` is all that was saved."""
    records = [*itertools.chain.from_iterable(saves)]
    starts = [n for n, record in enumerate(records) if isinstance(record, Checkpoint) and record.slot <= slot]
    return records[max(starts, default=0) :]


def check(disk: Disk, folder: str, progress: Progress, slots: set[int]) -> int:
    """That a store opened now has the snapshot at one of ``slots``, whole, and what was saved beside it. That slot."""
    store = open_store(disk, folder)
    try:
        loaded = store.load()
        slot = 0 if store.snapshot is None else store.snapshot.slot
        assert slot in slots
        if store.snapshot is not None:
            assert list(store.snapshot.chunks()) == chunks(slot)
        prefixes = [progress.saves[:count] for count in range(progress.fired, len(progress.saves) + 1)]
        assert loaded in [expected(saves, slot) for saves in prefixes]
    finally:
        store.close()
    return slot


def check_all(disk: Disk, folder: str, progress: Progress, lose_power: Callable[[], None] = lambda: None) -> None:
    """Check what the script left; then without the newest snapshot; then that the store goes on."""
    slot = check(disk, folder, progress, {progress.complete[-1], progress.begun})
    lose_power()
    check(disk, folder, progress, {slot})
    if slot:
        disk.unlink(f"{folder}/snapshots/{slot:012d}.snapshot")
        check(disk, folder, progress, {max(complete for complete in progress.complete if complete < slot)})
    store = open_store(disk, folder)
    store.load()
    writer = store.write_snapshot(99)
    assert all([done(write) for write in write(writer)] + [done(writer.finish()), done(store.save([Checkpoint(99)]))])
    store.close()
    lose_power()
    store = open_store(disk, folder)
    assert store.load() == [Checkpoint(99)]
    assert store.snapshot is not None
    assert list(store.snapshot.chunks()) == chunks(99)
    store.close()


def calls_of_the_script() -> int:
    """How many system calls the script makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("txpaxos.storage.snapshots.SYNC_BYTES", SYNC_BYTES)
        disk = FaultyDisk(VolatileDisk(random.Random(0)))
        progress = run(disk, "/data")
    assert progress.complete == [0, *SLOTS]
    assert progress.fired == len(progress.saves) == 3 * len(SLOTS)
    assert {"create", "write_at", "sync", "sync_data", "replace", "unlink", "read_at"} <= {*disk.calls}
    return len(disk.calls)


CALLS = calls_of_the_script()


@pytest.mark.parametrize("fault", [crash_before, crash_after, crash_within, failing(errno.EIO), failing(errno.ENOSPC)])
def test_a_fault_at_every_call(tmp_path: Path, fault: Fault) -> None:
    for at in range(CALLS):
        folder = f"{tmp_path}/{at}"
        os.mkdir(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        progress = run(disk, f"{folder}/data")
        assert disk.struck
        disk.kill()
        check_all(UnsyncedDisk(), f"{folder}/data", progress)


def test_a_short_write_at_every_call_is_completed(tmp_path: Path) -> None:
    for at in range(CALLS):
        folder = f"{tmp_path}/{at}"
        os.mkdir(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, short_write)
        progress = run(disk, f"{folder}/data")
        disk.kill()
        assert progress.complete == [0, *SLOTS]
        check_all(UnsyncedDisk(), f"{folder}/data", progress)


@pytest.mark.parametrize("seed", range(4))
def test_the_power_goes_at_every_call(seed: int) -> None:
    for at, fault in itertools.product(range(CALLS), (crash_before, crash_after, crash_within)):
        disk = VolatileDisk(random.Random(f"{seed} {at} {fault.__name__}"))
        faulty = FaultyDisk(disk, at, fault)
        progress = run(faulty, "/data")
        faulty.kill()
        if seed % 2:  # else what was loaded must survive it
            disk.lose_power()
        check_all(disk, "/data", progress, disk.lose_power)


@pytest.mark.parametrize("seed", range(4))
def test_a_sync_fails_and_drops_what_it_should_have_written(seed: int) -> None:
    def failed_sync(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        if name not in ("sync", "sync_data"):
            return call(*arguments)
        disk.drop_dirty(*arguments)
        raise OSError(errno.EIO, "sync")

    for at in range(CALLS):
        disk = VolatileDisk(random.Random(f"{seed} {at}"))
        faulty = FaultyDisk(disk, at, failed_sync)
        progress = run(faulty, "/data")
        faulty.kill()
        check_all(disk, "/data", progress, disk.lose_power)


@pytest.mark.parametrize("seed", range(4))
def test_the_power_goes_on_the_simulator_s_disk(seed: int) -> None:
    for at in range(1, CALLS):
        calls = itertools.count()

        def before_call(name: str, path: str, at: int = at, calls: Iterator[int] = calls) -> None:
            if next(calls) >= at:
                raise SimulatedCrash

        disk = SimulatedDisk(random.Random(f"{seed} {at}"), before_call)
        progress = run(disk, "/data")
        disk.before_call = None
        disk.crash()
        check_all(disk, "/data", progress, disk.crash)


@pytest.mark.parametrize("seed", range(4))
def test_a_received_snapshot_is_gone_on_with_after_the_power_went(seed: int) -> None:
    """What stands is sound, and what is missing makes it whole."""
    found = set()
    for at in range(120):
        disk = VolatileDisk(random.Random(f"{seed} {at}"))
        faulty = FaultyDisk(disk, at, crash_before)
        with contextlib.suppress(Crash):
            store = open_store(faulty, "/data")
            store.load()
            Progress().snapshot(store, 30)
        faulty.kill()
        disk.lose_power()
        store = open_store(disk, "/data")
        assert store.load() == []
        if store.snapshot is None:
            writer = store.receive_snapshot(30)
            found.add(writer.size_bytes)
            assert all([done(write) for write in write(writer)] + [done(writer.finish())])
        assert store.snapshot is not None
        assert list(store.snapshot.chunks()) == chunks(30)
        store.close()
    assert found >= {0, 281}  # nothing; or the header and all frames, which the first sync covers, but not the end
