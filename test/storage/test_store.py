"""The store on disk: whose folder it is, where it syncs, and what it refuses."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import Deferred

from test.storage.test_contract import ReactorThread
from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, crash_before, failing
from txpaxos.core.ready import LogRecord, PeerMet, SubjectState, Voter
from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import SLOW_SYNC_SECONDS, Work, execute_now
from txpaxos.storage.identity import VERSION, Identity, read_identity, write_identity
from txpaxos.storage.records import decode, encode
from txpaxos.storage.replacement import PREPARED
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers
from txpaxos.testing.older_registers import voted_state as subject
from txpaxos.testing.store.harness import voted


class Folder:
    """A folder for a store, and the stores opened on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stores: list[DiskStore] = []

    def open(self, cluster: str = "cluster", node: str = "node-1", **options: Any) -> DiskStore:
        options = {"disk": UnsyncedDisk(), "sync_in_thread": False, "segment_bytes": 8192, **options}
        store = DiskStore(str(self.path), cluster, node, **options)
        self.stores.append(store)
        return store

    def filled(self) -> None:
        """Fill it: two votes, and a register of an earlier release."""
        store = self.open()
        store.load()
        for records in ([voted(1)], [voted(2)]):
            assert store.save(records).called
        store.close()
        add_registers(UnsyncedDisk(), str(self.path), [subject("s", 1)])

    @property
    def segment(self) -> Path:
        return self.path / "journal" / "00000000.segment"

    @property
    def subject_file(self) -> Path:
        (file,) = (self.path / "subjects").glob("*/*")
        return file

    def files(self) -> dict[str, bytes]:
        """All that is in it."""
        found = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in found}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path / "above" / "data")
    yield folder
    for store in folder.stores:
        store.close()


# ---------------------------------------------------------------- the folder


def test_the_layout(folder: Folder) -> None:
    folder.filled()
    names = sorted(folder.files())
    assert names[:4] == ["acknowledged", "identity", "journal/00000000.segment", "lock"]
    (file,) = names[4:]
    top, first, rest = file.split("/")
    assert (top, len(first), len(rest)) == ("subjects", 2, 62)
    folders = [folder.path, *(path for path in folder.path.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = DiskStore("data", "cluster", "node-1", sync_in_thread=False)
    monkeypatch.chdir("/")
    assert store.load() == []
    store.save([voted(1)])
    store.close()
    assert len(list((tmp_path / "data/journal").iterdir())) == 1


def test_the_incarnation_is_random_and_never_0(folder: Folder, tmp_path: Path) -> None:
    asked: list[int] = []

    def zeros(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    assert folder.open(random_bytes=zeros).incarnation == 1
    assert asked == [8]
    others = {Folder(tmp_path / str(number)).open().incarnation for number in range(3)}
    assert len(others) == 3


@pytest.mark.parametrize(("cluster", "node"), [("cluster", "node-2"), ("other", "node-1")])
def test_the_folder_of_another_is_refused(folder: Folder, cluster: str, node: str) -> None:
    folder.filled()
    before = folder.files()
    with pytest.raises(StoreError) as refusal:
        folder.open(cluster, node)
    assert str(refusal.value) == (
        f"{folder.path} belongs to node 'node-1' of cluster 'cluster', not to node '{node}' of cluster '{cluster}':"
        " give each node a folder of its own, or correct the name; nothing was changed"
    )
    assert folder.files() == before
    folder.open().load()  # the lock was let go


def test_a_folder_in_use_is_refused(folder: Folder) -> None:
    store = folder.open()
    with pytest.raises(StoreError, match=rf"{folder.path} is in use by another process: stop it"):
        folder.open()
    store.close()
    folder.open()


@pytest.mark.parametrize("kept", ["journal", "subjects"])
def test_saved_records_without_an_identity_are_refused(folder: Folder, kept: str) -> None:
    folder.filled()
    (folder.path / "identity").unlink()
    (folder.segment if kept == "subjects" else folder.subject_file).unlink()
    before = folder.files()
    with pytest.raises(StoreError, match=rf"{folder.path} holds what a node saved, but no identity file"):
        folder.open()
    assert folder.files() == before


def test_no_store_is_made_where_a_restore_was_interrupted(folder: Folder) -> None:
    """The operator wants a node with a state: a new one would start without, and say nothing."""
    (folder.path / PREPARED).mkdir(parents=True)
    with pytest.raises(StoreError, match=rf"{folder.path} holds an unfinished restore: give 'txpaxos restore' again"):
        folder.open()
    assert sorted(folder.files()) == ["lock"]
    (folder.path / PREPARED).rmdir()
    assert folder.open().load() == []


def test_an_unfinished_file_is_nothing_saved(folder: Folder) -> None:
    (folder.path / "subjects" / "ab").mkdir(parents=True)
    (folder.path / "journal").mkdir()
    (folder.path / "subjects" / "ab" / "cdef.new").write_bytes(b"x")
    (folder.path / "journal" / "00000000.segment.new").write_bytes(b"x")
    assert folder.open().load() == []
    assert sorted(folder.files()) == ["acknowledged", "identity", "journal/00000000.segment", "lock"]


@pytest.mark.parametrize("lost", ["journal", "journal/00000000.segment", "subjects"])
def test_a_lost_part_of_a_complete_folder_is_refused(folder: Folder, lost: str) -> None:
    folder.filled()
    (folder.path / lost).rename(folder.path.parent / "lost")
    with pytest.raises(StoreError, match=str(folder.path / lost.split("/")[0])):
        folder.open().load()


def test_a_damaged_identity_is_refused(folder: Folder) -> None:
    folder.filled()
    for payload in (b"", b"\1", b"\2", b"\3", b"\1\x80", b"\2\x80"):
        file = AtomicFile(Disk(), f"{folder.path}/identity", VERSION)
        file.write(payload)
        with pytest.raises(StoreError, match=r"identity is damaged at offset 0: this is no identity"):
            folder.open()


def test_an_identity_comes_back(tmp_path: Path) -> None:
    file = AtomicFile(Disk(), f"{tmp_path}/identity")
    assert read_identity(file) is None
    for voter in (None, Voter(("n",)), Voter(("n", "m"), (PeerMet("m", 2**64 - 1),))):
        identity = Identity("c", "n", 2**64 - 1, complete=True, voter=voter)
        write_identity(file, identity)
        assert read_identity(file) == identity


def test_a_folder_of_before_there_were_newcomers_opens(folder: Folder) -> None:
    folder.filled()
    (folder.path / "identity").unlink()  # Of the format before.
    file = AtomicFile(Disk(), f"{folder.path}/identity")
    (incarnation,) = {store.incarnation for store in folder.stores}
    fields = {"cluster": "cluster", "node": "node-1", "incarnation": incarnation, "complete": True}
    file.write(b"\1" + msgspec.msgpack.encode(fields))
    kept = [voted(1), voted(2), subject("s", 1)]
    assert folder.open().load() == kept
    folder.stores[-1].save([Voter(("node-1",))])
    folder.stores[-1].close()
    assert folder.open().load() == [*kept, Voter(("node-1",))]


def test_a_file_in_place_of_the_folder_is_refused(folder: Folder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_bytes(b"x")
    with pytest.raises(StoreError, match=r"cannot lock .*/data/lock: Not a directory"):
        folder.open()


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "give the user"), (errno.EROFS, "mount it writable")],
)
def test_a_folder_that_cannot_be_made_is_refused(folder: Folder, number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=rf"cannot create {folder.path}: .*; {advice}"):
        folder.open(disk=FaultyDisk(Disk(), 0, failing(number)))


def test_an_error_without_a_number_is_told_too(folder: Folder) -> None:
    def odd(*_: object) -> None:
        raise OSError("out of luck")

    with pytest.raises(StoreError, match="out of luck; correct that, then start the node again"):
        folder.open(disk=FaultyDisk(Disk(), 0, odd))


# ------------------------------------------------------------------- damage


def test_a_frame_that_holds_no_records_is_refused(folder: Folder) -> None:
    folder.filled()
    for body in (b"\1", b"\5\0\0\0\2x", b"\1\0\0\0\2x", b"\1\0\0\0\x09x"):
        with pytest.raises(ValueError, match=r"too soon|kind"):
            decode(body)
    store = folder.open()
    store.load()
    store._journal.append(encode([voted(3)]) + b"\1\0\0\0\x09x")
    store.close()
    with pytest.raises(
        StoreError, match=rf"{folder.segment} is damaged at offset 704: frame 2 holds no records \(unknown kind 9\)"
    ):
        folder.open().load()


def test_a_store_that_could_not_be_read_takes_nothing(folder: Folder) -> None:
    folder.filled()
    data = bytearray(folder.segment.read_bytes())
    data[600] ^= 1
    folder.segment.write_bytes(data)
    store = folder.open()
    with pytest.raises(StoreError, match="is damaged"):
        store.load()
    with pytest.raises(StoreError, match="is loaded once"):
        store.load()
    failures: list[Any] = []
    store.save([voted(3)]).addErrback(failures.append)
    assert failures[0].check(StoreError)
    assert folder.segment.read_bytes() == data


@pytest.mark.parametrize("payload", [b"", b"\5", encode([voted(1)]), encode([subject("other", 1)])])
def test_a_subject_s_file_that_holds_something_else_is_refused(folder: Folder, payload: bytes) -> None:
    folder.filled()
    file = AtomicFile(Disk(), str(folder.subject_file))
    file.write(payload)
    with pytest.raises(StoreError, match=rf"{folder.subject_file} is damaged at offset 0: this is (no|not the) state"):
        folder.open().load()


def test_a_damaged_subject_s_file_is_refused(folder: Folder) -> None:
    folder.filled()
    folder.subject_file.write_bytes(folder.subject_file.read_bytes()[:-1])
    with pytest.raises(StoreError, match=rf"{folder.subject_file} is damaged"):
        folder.open().load()


def test_other_names_among_the_subjects_are_left_alone(folder: Folder) -> None:
    folder.filled()
    (folder.path / "subjects" / "notes.txt").write_bytes(b"x")
    assert folder.open().load() == [voted(1), voted(2), subject("s", 1)]


# ------------------------------------------------------------------- failing


def test_a_failed_save_says_what_failed_and_later_ones_say_so_too(folder: Folder) -> None:
    disk = FaultyDisk(UnsyncedDisk())
    store = folder.open(disk=disk)
    store.load()
    disk.at, disk.fault = len(disk.calls) + 1, failing(errno.EIO)
    lines: list[str] = []
    for records in ([voted(1)], [voted(2)], [voted(3)], []):
        store.save(records).addErrback(lambda failure: lines.append(failure.getErrorMessage()))
    first = (
        f"cannot write {folder.segment}: Input/output error;"
        " check the disk (the kernel log says more) before the node is started again"
    )
    again = f"{folder.path} takes no more saves after a failed save ({first}); start the node again"
    assert lines == [first, again, again, again]


def no_frames(folder: Folder) -> bool:
    """Whether the journal is empty, seen behind the store's back."""
    return not folder.segment.read_bytes()[512:].strip(b"\0")


def test_a_close_that_fails_says_so_and_lets_go_of_the_lock(folder: Folder) -> None:
    disk = FaultyDisk(UnsyncedDisk())
    store = folder.open(disk=disk)
    store.load()
    disk.at, disk.fault = len(disk.calls), failing(errno.EIO)
    failures: list[Any] = []
    store.close().addErrback(failures.append)
    assert failures[0].check(StoreError)
    folder.open().load()


def test_opening_lets_go_of_the_lock_when_it_fails(folder: Folder) -> None:
    for at in range(4, 60):
        disk = FaultyDisk(UnsyncedDisk(), at, failing(errno.EIO))
        try:
            store = folder.open(disk=disk, sync_in_thread=None)
        except StoreError:
            assert disk.struck
            assert not disk.open_handles or disk.calls[at] == "close"
        else:
            assert not disk.struck
            disk.fault = None
            store.close()
            break
    else:
        raise AssertionError("it never opened")
    folder.open()


def test_a_crash_in_the_reactor_s_thread_is_not_caught(folder: Folder) -> None:
    disk = FaultyDisk(UnsyncedDisk())
    store = folder.open(disk=disk)
    store.load()
    disk.at, disk.fault = len(disk.calls), crash_before
    with pytest.raises(Crash):
        store.save([voted(1)])
    disk.kill()
    folder.stores.clear()


# ----------------------------------------------------------- where it happens


@pytest.mark.parametrize(("seconds", "thread"), [(0.00001, False), (SLOW_SYNC_SECONDS, False), (0.004, True)])
def test_a_slow_disk_gets_a_thread(folder: Folder, seconds: float, thread: bool) -> None:
    reactor = ReactorThread()
    store = folder.open(sync_in_thread=None, measure=lambda disk, directory: seconds, reactor=reactor)
    assert (store.sync_seconds, store.sync_in_thread) == (seconds, thread)
    reactor.wait(store.close())


def test_the_choice_can_be_made_for_it(folder: Folder) -> None:
    def measure(disk: Disk, directory: str) -> float:
        raise AssertionError("not asked for")

    for thread in (False, True):
        reactor = ReactorThread()
        store = folder.open(sync_in_thread=thread, reactor=reactor, measure=measure)
        assert (store.sync_seconds, store.sync_in_thread) == (None, thread)
        reactor.wait(store.close())


def test_a_simulator_decides_when_a_save_happens(folder: Folder) -> None:
    waiting: list[tuple[Work, Deferred[None]]] = []

    def execute(work: Work) -> Deferred[None]:
        waiting.append((work, Deferred()))
        return waiting[-1][1]

    store = folder.open(execute=execute, sync_in_thread=None)
    assert (store.sync_seconds, store.sync_in_thread) == (None, False)
    store.load()
    fired: list[str] = []
    store.save([voted(1)]).addCallback(lambda _: fired.append("saved"))
    store.close().addCallback(lambda _: fired.append("closed"))
    assert no_frames(folder)
    for work, deferred in waiting:
        execute_now(work).chainDeferred(deferred)
    assert fired == ["saved", "closed"]
    assert folder.open().load() == [voted(1)]


def test_a_failing_thread_fails_all_that_waits_behind(folder: Folder) -> None:
    reactor, disk = ReactorThread(), FaultyDisk(UnsyncedDisk())
    store = folder.open(sync_in_thread=True, reactor=reactor, disk=disk)
    store.load()
    disk.at, disk.fault = len(disk.calls) + 1, failing(errno.EIO)
    lines: list[str] = []
    saves = [store.save([voted(slot)]) for slot in range(4)]
    for save in saves:
        save.addErrback(lambda failure: lines.append(failure.getErrorMessage()))
    reactor.wait(store.close())
    assert len(lines) == 4
    assert lines[0].startswith("cannot write")
    assert all(line.startswith(f"{folder.path} takes no more") for line in lines[1:])


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]
async def test_a_thread_under_the_real_reactor(tmp_path: Path) -> None:
    from twisted.internet import reactor

    store = DiskStore(f"{tmp_path}/data", "cluster", "node-1", sync_in_thread=True)
    store.load()
    saves = [store.save([voted(slot)]) for slot in range(50)]
    await store.close().addTimeout(30, reactor)
    assert all(save.called for save in saves)
    again = DiskStore(f"{tmp_path}/data", "cluster", "node-1", sync_in_thread=False)
    assert again.load() == [voted(slot) for slot in range(50)]
    await again.close()


# ----------------------------------------------------------------- encoding


def test_records_and_their_bytes() -> None:
    records: list[LogRecord | SubjectState] = [voted(1), subject("s", 2), voted(3)]
    assert decode(encode(records)) == records
    assert decode(b"") == []
    data = encode(records)
    for length in range(1, len(data)):
        try:
            assert decode(data[:length]) == records[: len(decode(data[:length]))]
        except ValueError:
            continue


def test_what_cannot_be_encoded_changes_nothing(folder: Folder) -> None:
    store = folder.open()
    store.load()
    with pytest.raises(OverflowError):
        store.save([attrs.evolve(voted(1), slot=2**64)])
    with pytest.raises(KeyError):
        store.save(["no record"])  # type: ignore[list-item]
    assert store.save([voted(1)]).called
    store.close()
    assert folder.open().load() == [voted(1)]


def test_the_default_is_the_real_disk(tmp_path: Path) -> None:
    store = DiskStore(f"{tmp_path}/data", "cluster", "node-1", sync_in_thread=False)
    store.load()
    assert store.save([voted(1)]).called
    store.close()
    assert os.path.getsize(f"{tmp_path}/data/journal/00000000.segment") == 64 << 20
