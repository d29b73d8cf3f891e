"""Snapshots on a real disk: their files, what damage to them means, and in which thread they are written."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from test.storage.test_contract import ReactorThread
from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, VolatileDisk, crash_after, crash_before
from txpaxos.core.ready import Checkpoint, JournalRecord, Promised, Record, SubjectState
from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.records import decode
from txpaxos.storage.snapshot_file import SnapshotPacker
from txpaxos.storage.snapshots import SYNC_BYTES, Snapshot
from txpaxos.storage.store import DiskStore
from txpaxos.testing.store.harness import BALLOT, StoreHarness, voted

wait = StoreHarness().wait
refusal = StoreHarness().refusal


OPTIONS: dict[str, Any] = {"execute": execute_now, "segment_bytes": 4096}


class Folder:
    """A data folder, and the stores opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disks: list[FaultyDisk] = []

    @property
    def disk(self) -> FaultyDisk:
        """The disk of the store opened last."""
        return self.disks[-1]

    def open(self, inner: Disk | None = None, **options: Any) -> DiskStore:
        """A store that is loaded; the one before it is dead."""
        self.kill()
        self.disks.append(FaultyDisk(inner or UnsyncedDisk()))
        options = {**OPTIONS, **options}
        store = DiskStore(self.path, "cluster", "node-1", disk=self.disk, **options)
        self.loaded = store.load()
        return store

    def file(self, slot: int, ending: str = "") -> Path:
        return self.path / f"snapshots/{slot:012d}.snapshot{ending}"

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path / "snapshots"))

    def break_next(self, number: int, name: str, nth: int = 0) -> None:
        """The ``nth`` call of ``name`` from now on fails, and later ones do not."""
        disk, left = self.disk, [nth]

        def fault(called: str, call: Callable[..., Any], *arguments: Any) -> Any:
            if called != name or left[0]:
                left[0] -= called == name
                disk.at += 1
                return call(*arguments)
            raise OSError(number, os.strerror(number))

        disk.at, disk.fault = len(disk.calls), fault

    def kill(self) -> None:
        for disk in self.disks:
            disk.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A data folder in the making."""
    folder = Folder(tmp_path / "data")
    yield folder
    folder.kill()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        if event["log_level"].name == "warn":
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def take(store: DiskStore | MemoryStore, slot: int, *chunks: bytes) -> Snapshot:
    """Checkpoint and snapshot at ``slot``."""
    wait(store.save([Checkpoint(slot), Promised(BALLOT), voted(slot + 1, bytes(3000))]))
    writer = store.write_snapshot(slot)
    for chunk in chunks or (b"state of %d" % slot,):
        wait(writer.write(chunk))
    return wait(writer.finish())


def records(slot: int) -> list[Record]:
    """What :func:`take` saved."""
    return [Checkpoint(slot), Promised(BALLOT), voted(slot + 1, bytes(3000))]


# ------------------------------------------------------------------- the files


def test_the_bytes_of_a_snapshot() -> None:
    """They go from node to node and stay for years: what was written once must be read."""
    packer = SnapshotPacker(7)
    parts = [packer.header.hex(), packer.frame(b"abc").hex(), packer.end().hex()]
    assert parts == [
        "74787061786f735301000000070000000000000025bd53cb",
        "03000000335de166616263",
        "00000000d8b799d30100000000000000c4d287e4",
    ]


def test_the_layout(folder: Folder) -> None:
    store = folder.open()
    for slot in (10, 20, 30):
        take(store, slot)
    complete = ["000000000020.snapshot", "000000000030.snapshot"]
    wait(store.write_snapshot(40).write(b"x"))
    assert folder.names() == [*complete, "000000000040.snapshot.new"]
    wait(store.receive_snapshot(50).write_raw(b"x"))
    assert folder.names() == [*complete, "000000000050.snapshot.part"]
    folder.file(40, ".new").write_bytes(b"a crash may bring it back")
    for name in ("x.snapshot", "60.snapshot", "000000000060.other", "000000000060.snapshot.old"):
        (folder.path / "snapshots" / name).write_bytes(b"not ours")
    store = folder.open()
    assert folder.loaded == records(30)
    assert store.snapshot is not None
    assert store.snapshot.path == str(folder.file(30))
    assert folder.file(50, ".part").exists()
    assert store.part == (50, 0), "of the one byte nothing can be checked"
    assert not folder.file(40, ".new").exists()
    assert len(folder.names()) == 7


def test_a_folder_from_before_there_were_snapshots(folder: Folder) -> None:
    wait(folder.open().save([voted(1)]))
    assert not (folder.path / "snapshots").exists()
    store = folder.open()
    assert folder.loaded == [voted(1)]
    take(store, 1)
    folder.open()
    assert folder.loaded == records(1)


def test_the_journal_reaches_back_to_the_older_snapshot(folder: Folder) -> None:
    store = folder.open()
    for slot in range(10, 60, 10):
        wait(store.save([voted(slot, bytes(3000))]))
        take(store, slot)
    numbers = sorted(int(name[:8]) for name in os.listdir(folder.path / "journal"))
    assert numbers[0] > 3
    folder.file(50).unlink()
    store = folder.open()
    assert folder.loaded == [*records(40), voted(50, bytes(3000)), *records(50)]
    assert store.snapshot is not None
    assert list(store.snapshot.chunks()) == [b"state of 40"]
    take(store, 60)
    assert sorted(int(name[:8]) for name in os.listdir(folder.path / "journal"))[0] == numbers[0]


def test_a_journal_that_no_snapshot_stands_before_is_refused(folder: Folder) -> None:
    store = folder.open()
    for slot in range(10, 60, 10):
        take(store, slot)
    for slot in (40, 50):
        folder.file(slot).unlink()
    with pytest.raises(StoreError, match=r"segment is damaged at offset 0: it begins with frame \d+, and no snapshot"):
        folder.open()


def test_snapshots_that_were_moved_away_are_not_needed(folder: Folder) -> None:
    """An operator moves them away to have the state from the other nodes. Later promises and votes are still there."""
    store = folder.open()
    for slot in (5, 10, 15):
        take(store, slot)
    (folder.path / "snapshots").rename(folder.path / "snapshots.discarded-1")
    store = folder.open()
    assert store.snapshot is None
    assert folder.loaded == [*records(10), *records(15)]
    take(store, 20)
    folder.open()
    assert folder.loaded == records(20)


def aside(folder: Folder) -> list[str]:
    """The names of the folders that were moved away."""
    return sorted(path.name for path in folder.path.iterdir() if path.name.startswith("snapshots."))


@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_what_was_moved_away_excuses_nothing_once_the_state_is_there_again(
    folder: Folder, checkpoint_first: bool
) -> None:
    store = folder.open()
    for slot in (5, 10, 15):
        take(store, slot)
    for name in ("snapshots.discarded", "snapshots.discarded-1"):
        (folder.path / "snapshots").rename(folder.path / name)
        store = folder.open()
        assert aside(folder)[0] == name
        if checkpoint_first:
            take(store, 20)
        else:
            finish(folder, store, 20)
            wait(store.save([Checkpoint(20), Promised(BALLOT)]))
    assert aside(folder) == ["snapshots.replaced", "snapshots.replaced-1"]
    (folder.path / "snapshots").rename(folder.path / "lost")
    with pytest.raises(StoreError, match=r"it begins with frame \d+, and no snapshot replaces the frames before it"):
        folder.open()


def finish(folder: Folder, store: DiskStore, slot: int) -> None:
    """A snapshot at ``slot`` from a peer, without its Checkpoint."""
    peer = MemoryStore()
    peer.load()
    writer = store.receive_snapshot(slot)
    wait(writer.write_raw(take(peer, slot).read(0, 1 << 20)))
    wait(writer.finish())


def test_what_was_moved_away_excuses_nothing_where_the_journal_tells_all(folder: Folder) -> None:
    store = folder.open(segment_bytes=1 << 20)
    for slot in (5, 10):
        take(store, slot)
    for name in ("replaced", "discarded"):
        (folder.path / f"snapshots.{name}").mkdir()
    folder.open()
    assert aside(folder) == ["snapshots.replaced", "snapshots.replaced+"]
    assert folder.loaded == records(10)


def test_a_snapshot_older_than_what_the_journal_goes_on_from_is_not_the_state(folder: Folder) -> None:
    store = folder.open()
    for slot in (20, 30, 40):
        take(store, slot)
    (folder.path / "snapshots").rename(folder.path / "snapshots.discarded")
    store = folder.open()
    finish(folder, store, 25)
    assert aside(folder) == ["snapshots.discarded"]
    store = folder.open()
    assert aside(folder) == ["snapshots.discarded"]
    wait(store.save([Checkpoint(25), *records(30), *records(40)]))
    assert aside(folder) == ["snapshots.replaced"]


def test_a_crash_at_every_step_of_having_the_state_again(tmp_path: Path) -> None:
    """Whatever step is the last: moved away snapshots excuse their loss until there is a state, and not after that."""
    for at, fault in itertools.product(range(200), (crash_before, crash_after)):
        disk = VolatileDisk(random.Random(at))
        folder = Folder(Path("/data"))
        store = folder.open(inner=disk)
        for slot in (5, 10, 15):
            take(store, slot)
        disk.replace("/data/snapshots", "/data/snapshots.discarded")
        disk.sync_directory("/data")
        store = folder.open(inner=disk)
        folder.disk.at, folder.disk.fault = len(folder.disk.calls) + at, fault
        try:
            finish(folder, store, 20)
            wait(store.save([Checkpoint(20), Promised(BALLOT)]))
            ended = True
        except Crash:
            ended = False
        folder.kill()
        disk.lose_power()
        excused = folder.open(inner=disk).snapshot is None
        assert any(name.startswith("/data/snapshots.discarded") for name in disk.names) == excused
        for name in [name for name in disk.names if name.startswith("/data/snapshots/")]:
            del disk.names[name]
        if excused:
            folder.open(inner=disk)
        else:
            with pytest.raises(StoreError, match="no snapshot replaces the frames before it"):
                folder.open(inner=disk)
        if ended:
            break
    assert at > 10


def test_what_a_crash_left_too_much_of_goes_at_the_start(folder: Folder) -> None:
    store = folder.open()
    for slot in (10, 20, 30):
        take(store, slot)
    for name in (folder.file(5), folder.file(10), folder.file(40, ".part"), folder.file(50, ".part")):
        name.write_bytes(b"removed, but the folder was not synced")
    folder.open()
    assert folder.names() == [folder.file(20).name, folder.file(30).name, folder.file(50, ".part").name]


def test_a_snapshot_received_before_its_checkpoint(folder: Folder) -> None:
    """A crash between the two: everything from an earlier Checkpoint on stands, which is more than is needed."""
    store = folder.open()
    take(store, 10)
    wait(store.save([voted(11)]))
    peer = MemoryStore()
    peer.load()
    data = take(peer, 100).read(0, 1 << 20)
    writer = store.receive_snapshot(100)
    wait(writer.write_raw(data))
    wait(writer.finish())
    store = folder.open()
    assert folder.loaded == [*records(10), voted(11)]
    wait(store.save([Checkpoint(100), voted(101)]))
    folder.open()
    assert folder.loaded == [Checkpoint(100), voted(101)]


def test_a_received_snapshot_that_no_caller_has_checked_is_checked_at_the_end(folder: Folder) -> None:
    peer = MemoryStore()
    peer.load()
    data = bytearray(take(peer, 100).read(0, 1 << 20))
    data[len(data) // 2] ^= 1
    store = folder.open()
    writer = store.receive_snapshot(100)
    wait(writer.write_raw(bytes(data)))
    with pytest.raises(StoreError, match="checksum"):
        wait(writer.finish())
    assert store.snapshot is None


def test_a_snapshot_of_one_s_own_needs_no_check(folder: Folder) -> None:
    writer = folder.open().write_snapshot(10)
    with pytest.raises(TypeError, match="needs no check"):
        writer.check(lambda chunk: None)
    with pytest.raises(TypeError, match="is written with write"):
        writer.write_raw(b"")


def test_only_what_follows_the_checkpoint_is_decoded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    store = folder.open(segment_bytes=1 << 20)
    for slot in range(1, 100):
        wait(store.save([voted(slot)]))
    take(store, 99)
    decoded: list[bytes] = []

    def counted(body: bytes) -> list[JournalRecord | SubjectState]:
        decoded.append(body)
        return decode(body)

    monkeypatch.setattr("txpaxos.storage.store.decode", counted)
    folder.open()
    assert folder.loaded == records(99)
    assert len(decoded) == 1


def test_segments_before_the_checkpoint_are_not_read(folder: Folder) -> None:
    store = folder.open()
    take(store, 1)
    for slot in range(2, 50):
        wait(store.save([voted(slot, bytes(500))]))
    take(store, 49)
    folder.open()
    assert folder.loaded == records(49)
    assert folder.disk.calls.count("read_at") > 8
    assert folder.disk.calls.count("read") == 5  # the identity, no two markers, how far it came, one segment


# -------------------------------------------------------------------- damage


@pytest.mark.parametrize("at", [3, 8, 15, 21, -20, -14, -9, -1])
def test_a_newest_snapshot_with_a_damaged_beginning_or_end_stops_the_start(folder: Folder, at: int) -> None:
    store = folder.open()
    for slot in (10, 20):
        take(store, slot)
    data = bytearray(folder.file(20).read_bytes())
    data[at] ^= 1
    folder.file(20).write_bytes(data)
    with pytest.raises(
        StoreError, match=r"000000000020.snapshot (is damaged at offset \d+: .*; put the file back, or|has)"
    ):
        folder.open()
    folder.file(20).rename(folder.path / "aside")
    folder.open()
    assert folder.loaded == [*records(10), *records(20)]


@pytest.mark.parametrize("size", [0, 10, 24, 30, 43, 60])
def test_a_cut_off_snapshot_stops_the_start(folder: Folder, size: int) -> None:
    take(folder.open(), 10)
    os.truncate(folder.file(10), size)
    with pytest.raises(StoreError, match=r"snapshot is damaged at offset \d+: .*; put the file back, or move it away"):
        folder.open()


def test_another_snapshot_s_file_stops_the_start(folder: Folder) -> None:
    take(folder.open(), 10)
    folder.file(10).rename(folder.file(11))
    with pytest.raises(StoreError, match="at offset 0: this is the snapshot at slot 10, not 11"):
        folder.open()


def test_damage_inside_is_found_where_it_is_read(folder: Folder) -> None:
    take(folder.open(), 10, b"x" * 92, b"y" * 92, b"z" * 92)
    sound = folder.file(10).read_bytes()
    for at in range(124, 224):
        data = bytearray(sound)
        data[at] ^= 1
        folder.file(10).write_bytes(data)
        store = folder.open()
        assert store.snapshot is not None
        chunks = store.snapshot.chunks()
        assert next(chunks) == b"x" * 92
        with pytest.raises(
            StoreError, match=r"000000000010.snapshot is damaged at offset (124|344): .*; put the file back"
        ):
            next(chunks)


def test_big_chunks_are_read_whole_and_no_further(folder: Folder) -> None:
    chunks = [os.urandom(size) for size in (1, (3 << 20) + 1, 1 << 20, 5, (1 << 20) - 8, 700_000, 700_000)]
    snapshot = take(folder.open(), 10, *chunks)
    assert list(snapshot.chunks()) == chunks
    assert "read" not in folder.disk.calls[-10:]


# ----------------------------------------------------------------- what fails


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["create", "write_at", "sync", "replace", "sync_directory", "close"])
def test_a_snapshot_that_cannot_be_written_is_as_if_never_begun(folder: Folder, name: str, number: int) -> None:
    store = folder.open()
    take(store, 10)
    folder.break_next(number, name, nth=name == "sync_directory")  # the first one comes before there is a file
    writer = store.write_snapshot(20)
    lines = []
    for done in (writer.write(b"x"), writer.finish()):
        done.addErrback(lambda failure: lines.append(failure.getErrorMessage()))
    cannot = f"cannot write the snapshot {folder.file(20, '.new')}: {os.strerror(number)}"
    assert {*lines} == {f"{cannot}; nothing is lost, and the node continues without it"}
    assert folder.names() == [folder.file(10).name]
    assert store.snapshot is not None
    assert store.snapshot.slot == 10
    wait(writer.abandon())
    take(store, 20)
    folder.open()
    assert folder.loaded == records(20)


def test_a_failed_writer_leaves_the_file_of_the_next_one_alone(folder: Folder) -> None:
    store = folder.open()
    first = store.write_snapshot(10)
    wait(first.write(b"x"))
    folder.break_next(errno.EIO, "write_at")
    refusal(first.write(b"x"))
    second = store.write_snapshot(10)
    wait(second.write(b"y"))
    wait(first.abandon())
    assert list(wait(second.finish()).chunks()) == [b"y"]


def test_what_cannot_be_removed_is_left_behind_and_told(folder: Folder, warnings: list[str]) -> None:
    store = folder.open()
    writer = store.write_snapshot(10)
    wait(writer.write(b"x"))
    folder.break_next(errno.EACCES, "unlink")
    wait(writer.abandon())
    assert warnings == [f"{folder.file(10, '.new')} is left behind: [Errno 13] Permission denied"]
    for slot in (11, 12):
        take(store, slot)
    folder.break_next(errno.EACCES, "unlink")
    assert take(store, 13).slot == 13
    assert warnings[1:] == [f"an old snapshot in {folder.path}/snapshots is left behind: [Errno 13] Permission denied"]
    folder.open()
    assert folder.loaded == records(13)


def test_a_failed_drop_of_the_journal_is_final(folder: Folder) -> None:
    store = folder.open()
    take(store, 10)
    take(store, 20)
    wait(store.save([*records(30)]))
    folder.break_next(errno.EIO, "unlink", nth=1)  # the first one is that of the oldest snapshot
    line = refusal(store.write_snapshot(30).finish())
    assert ".segment: Input/output error" in line
    assert "after a failed drop" in refusal(store.save([voted(99)]))
    assert "after a failed drop" in refusal(store.write_snapshot(40).finish())
    wait(store.close())
    folder.open()
    assert folder.loaded == records(30)


def test_nothing_is_dropped_after_a_failed_save(folder: Folder) -> None:
    store = folder.open()
    take(store, 10)
    folder.break_next(errno.EIO, "sync_data")
    refusal(store.save([voted(12)]))
    assert "after a failed save" in refusal(store.write_snapshot(20).finish())
    store = folder.open()
    assert store.snapshot is not None
    assert store.snapshot.slot == 20


def test_the_rest_of_a_part_is_cut_off(folder: Folder) -> None:
    peer = MemoryStore()
    peer.load()
    data = take(peer, 10, b"x" * 92, b"y" * 92).read(0, 1 << 20)
    wait(folder.open().receive_snapshot(10).write_raw(data[:124] + b"z" * 5000))
    store = folder.open()
    writer = store.receive_snapshot(10)
    assert writer.size_bytes == 124
    wait(writer.write_raw(data[124:]))
    assert wait(writer.finish()).read(0, 1 << 20) == data


def test_a_part_that_is_gone_is_received_anew(folder: Folder) -> None:
    peer = MemoryStore()
    peer.load()
    data = take(peer, 10).read(0, 1 << 20)
    wait(folder.open().receive_snapshot(10).write_raw(data))
    store = folder.open()
    folder.file(10, ".part").unlink()
    writer = store.receive_snapshot(10)
    assert writer.size_bytes == len(data)
    assert "No such file" in refusal(writer.finish())
    assert store.receive_snapshot(10).size_bytes == 0


def full(room_bytes: int) -> MemoryStore:
    """A store whose disk has room for this much."""
    store = MemoryStore()
    store.load()
    store.files.room_bytes = room_bytes
    return store


def test_a_peer_s_snapshot_that_does_not_fit_on_the_disk_is_not_begun() -> None:
    peer = MemoryStore()
    peer.load()
    data = take(peer, 10, b"x" * 900).read(0, 1 << 20)
    store = full(len(data) - 1)
    lacks = f"it needs {len(data)} bytes more and the disk has {len(data) - 1}; nothing is lost, and the node continues"
    with pytest.raises(StoreError, match=lacks):
        store.receive_snapshot(10, len(data))
    assert store.files.contents == {}
    store.files.room_bytes = len(data)
    writer = store.receive_snapshot(10, len(data))
    wait(writer.write_raw(data))
    assert wait(writer.finish()).read(0, 1 << 20) == data


def test_the_part_of_a_snapshot_that_has_come_needs_no_room() -> None:
    peer = MemoryStore()
    peer.load()
    data = take(peer, 10, b"x" * 92, b"y" * 92).read(0, 1 << 20)
    store = full(len(data))
    wait(store.receive_snapshot(10, len(data)).write_raw(data[:124]))
    store = store.reopen()
    store.load()
    store.files.room_bytes = len(data) - 125
    with pytest.raises(StoreError, match=f"it needs {len(data) - 124} bytes more and the disk has {len(data) - 125};"):
        store.receive_snapshot(10, len(data))
    store.files.room_bytes += 1
    writer = store.receive_snapshot(10, len(data))
    wait(writer.write_raw(data[124:]))
    assert wait(writer.finish()).read(0, 1 << 20) == data


def test_a_disk_that_is_full_meanwhile_ends_the_snapshot() -> None:
    store = full(100)
    writer = store.write_snapshot(10)
    assert os.strerror(errno.ENOSPC) in refusal(writer.write(b"x" * 1000))
    assert store.snapshot is None
    wait(writer.abandon())
    store.files.room_bytes = 1 << 20
    assert list(take(store, 10, b"x" * 1000).chunks()) == [b"x" * 1000]


# ------------------------------------------------------- how and where it syncs


def test_a_big_snapshot_is_synced_as_it_grows(folder: Folder) -> None:
    store = folder.open()
    writer = store.write_snapshot(10)
    before = folder.disk.calls.count("sync")
    for chunk in [bytes(1 << 20)] * 10 + [bytes(3 * SYNC_BYTES)]:
        wait(writer.write(chunk))
    assert folder.disk.calls.count("sync") - before == (10 + 12) // 4
    wait(writer.finish())
    assert folder.disk.calls.count("sync") - before == (10 + 12) // 4 + 1


class NotedDisk(UnsyncedDisk):
    """Notes which thread writes, by the name of the file's folder."""

    def __init__(self) -> None:
        self.threads: dict[str, set[int]] = {}
        self.folders: dict[int, str] = {}

    def create(self, path: str) -> int:
        return self._noted(super().create(path), path)

    def open(self, path: str) -> int:
        return self._noted(super().open(path), path)

    def write_at(self, handle: int, data: bytes | memoryview, offset: int) -> int:
        self.threads.setdefault(self.folders[handle], set()).add(threading.get_ident())
        return super().write_at(handle, data, offset)

    def _noted(self, handle: int, path: str) -> int:
        self.folders[handle] = os.path.basename(os.path.dirname(path))
        return handle


@pytest.mark.parametrize("sync_in_thread", [False, True])
def test_snapshots_have_a_thread_of_their_own(tmp_path: Path, sync_in_thread: bool) -> None:
    disk, reactor = NotedDisk(), ReactorThread()
    store = DiskStore(tmp_path / "data", "c", "a", disk=disk, reactor=reactor, sync_in_thread=sync_in_thread)
    store.load()
    disk.threads.clear()
    before = threading.active_count()

    def done(deferred: Deferred[Any]) -> Any:
        reactor.wait(deferred)
        return wait(deferred)

    done(store.save([voted(1)]))
    for slot in (1, 2):
        writer = store.write_snapshot(slot)
        done(writer.write(b"x"))
        assert threading.active_count() == before + 1
        snapshot = done(writer.finish())
    assert store.snapshot == snapshot
    done(store.save([voted(2)]))
    done(store.close())
    assert threading.active_count() == before - sync_in_thread
    (saving,), (writing,) = disk.threads["journal"], disk.threads["snapshots"]
    assert writing != threading.get_ident()
    assert (saving == threading.get_ident()) is not sync_in_thread
    assert saving != writing
