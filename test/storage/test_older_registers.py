"""The files of registers that an earlier release has written: they are read, never written, and removed once."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import msgspec
import pytest
from twisted.internet.defer import Deferred

from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, VolatileDisk, crash_before, failing
from txpaxos.core.ready import Record, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import TEMPORARY, AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import Work, execute_now
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.register_files import path_of
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers, voted_state
from txpaxos.testing.store.harness import StoreHarness, voted

wait = StoreHarness().wait
STATES = [voted_state(f"register {number}", number + 1) for number in range(5)]
VERSION_OF_EARLIER_RELEASES = 2


def open_store(folder: str | Path, disk: Disk | None = None) -> DiskStore:
    options = {"disk": disk or UnsyncedDisk(), "execute": execute_now, "segment_bytes": 4096}
    return DiskStore(folder, "cluster", "node-1", **options)  # type: ignore[arg-type]


def make(folder: str | Path, disk: Disk | None = None) -> None:
    """A folder with a vote, and with registers of an earlier release."""
    store = open_store(folder, disk)
    store.load()
    wait(store.save([voted(1)]))
    wait(store.close())
    add_registers(disk or UnsyncedDisk(), str(folder), STATES)


def loaded(folder: str | Path, disk: Disk | None = None) -> list[Record]:
    store = open_store(folder, disk)
    try:
        return store.load()
    finally:
        wait(store.close())


def files(folder: Path) -> list[Path]:
    return [*folder.glob("subjects/*/*")]


def test_they_are_loaded_until_they_are_forgotten(tmp_path: Path) -> None:
    make(tmp_path / "data")
    for _ in range(2):
        assert loaded(tmp_path / "data") == [voted(1), *STATES]
    store = open_store(tmp_path / "data")
    store.load()
    wait(store.forget_registers())
    wait(store.save([voted(2)]))
    wait(store.forget_registers())
    wait(store.close())
    assert files(tmp_path / "data") == []
    assert loaded(tmp_path / "data") == [voted(1), voted(2)]


def test_a_store_in_memory_does_the_same() -> None:
    store = MemoryStore([voted(1), *reversed(STATES)])
    assert store.load() == [voted(1), *STATES]
    store = store.reopen()
    assert store.load() == [voted(1), *STATES]
    wait(store.forget_registers())
    assert store.saved == store.reopen().load() == [voted(1)]


def test_a_new_folder_has_none(tmp_path: Path) -> None:
    assert loaded(tmp_path / "data") == []
    assert not (tmp_path / "data/subjects").exists()


def test_a_folder_of_the_release_before_is_one_of_this_release_once_it_is_loaded(tmp_path: Path) -> None:
    """From then on the release before, which would vote for registers, does not open it."""
    make(tmp_path / "data")
    path = tmp_path / "data/identity"
    identity = msgspec.msgpack.decode((AtomicFile(Disk(), str(path), 3).read() or b"")[1:])
    del identity["has_registers"]
    path.unlink()
    identity["voter"] = {"members": ["node-1"], "founders": []}
    AtomicFile(Disk(), str(path), VERSION_OF_EARLIER_RELEASES).write(b"\2" + msgspec.msgpack.encode(identity))
    store = open_store(tmp_path / "data")
    AtomicFile(Disk(), str(path), VERSION_OF_EARLIER_RELEASES).read()
    assert store.load() == [voted(1), *STATES, Voter(("node-1",))]
    with pytest.raises(StoreError, match="format version 3"):
        AtomicFile(Disk(), str(path), VERSION_OF_EARLIER_RELEASES).read()
    wait(store.close())
    assert loaded(tmp_path / "data") == [voted(1), *STATES, Voter(("node-1",))]


def test_a_process_that_ends_while_they_are_removed(tmp_path: Path) -> None:
    """At each system call. The next start finds all of them, or needs none, and removes the rest."""
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        make(folder)
        disk = FaultyDisk(UnsyncedDisk())
        store = open_store(folder, disk)
        store.load()
        before = len(disk.calls)
        disk.at, disk.fault = before + calls, crash_before
        try:
            wait(store.forget_registers())
        except Crash:
            disk.kill()
        else:
            break
        records = loaded(folder)
        assert records in ([voted(1), *STATES], [voted(1)])
        assert len(files(folder)) == (len(STATES) if len(records) > 1 else 0)
        calls += 1
    assert calls > len(STATES)
    assert files(folder) == []


def test_one_more_than_acknowledged_was_just_being_saved(tmp_path: Path) -> None:
    """The process of the earlier release ended between the file and the mark, or before the file was in place."""
    make(tmp_path / "data")
    mark = (tmp_path / "data/acknowledged").read_bytes()
    last = voted_state("the last one", 9)
    add_registers(UnsyncedDisk(), str(tmp_path / "data"), [last])
    (tmp_path / "data/acknowledged").write_bytes(mark)
    assert loaded(tmp_path / "data") == [voted(1), *STATES, last]
    file = Path(path_of(str(tmp_path / "data/subjects"), last.subject))
    file.rename(f"{file}{TEMPORARY}")
    (tmp_path / "data/acknowledged").write_bytes(mark)
    assert loaded(tmp_path / "data") == [voted(1), *STATES]


def test_they_are_forgotten_once(tmp_path: Path) -> None:
    make(tmp_path / "data")
    waiting: list[tuple[Work, Deferred[None]]] = []

    def execute(work: Work) -> Deferred[None]:
        waiting.append((work, Deferred()))
        return waiting[-1][1]

    store = DiskStore(tmp_path / "data", "cluster", "node-1", disk=UnsyncedDisk(), execute=execute)
    store.load()
    done = [store.forget_registers(), store.forget_registers(), store.close()]
    for work, deferred in waiting:
        execute_now(work).chainDeferred(deferred)
    for one in done:
        wait(one)
    assert files(tmp_path / "data") == []


def test_a_store_that_has_failed_forgets_nothing(tmp_path: Path) -> None:
    make(tmp_path / "data")
    disk = FaultyDisk(UnsyncedDisk())
    store = open_store(tmp_path / "data", disk)
    store.load()
    disk.at, disk.fault = len(disk.calls) + 1, failing(errno.EIO)
    for failed in (store.save([voted(2)]), store.forget_registers()):
        StoreHarness().refusal(failed)
    assert len(files(tmp_path / "data")) == len(STATES)


@pytest.mark.parametrize("seed", range(4))
def test_the_power_goes_while_they_are_removed(seed: int) -> None:
    rng = Random(seed)
    for calls in range(60):
        disk = VolatileDisk(rng)
        make("/data", disk)
        faulty = FaultyDisk(disk)
        store = open_store("/data", faulty)
        store.load()
        faulty.at, faulty.fault = len(faulty.calls) + calls, crash_before
        try:
            wait(store.forget_registers())
        except Crash:
            faulty.kill()
        disk.lose_power()
        assert loaded("/data", disk) in ([voted(1), *STATES], [voted(1)])
