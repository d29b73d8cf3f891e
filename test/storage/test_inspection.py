"""What is found in a data folder by reading alone, with each kind of damage; and that nothing in it changes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test.storage.test_disk import Crash, UnsyncedDisk
from txpaxos.core.ready import Checkpoint, PeerMet, Voter
from txpaxos.errors import StoreError
from txpaxos.storage import inspection, read_only_disk
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.diagnosis import Verdict, diagnose
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import VERSION, new_identity, write_identity
from txpaxos.storage.inspection import ATTEMPTS, FolderReport, inspect_folder
from txpaxos.storage.read_only_disk import ReadOnlyDisk, process_using
from txpaxos.storage.replacement import MARKER, note_ready, prepared_path, replace_contents
from txpaxos.storage.segment import Frames, SegmentHeader, pack_frame
from txpaxos.storage.snapshot_file import SnapshotPacker
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers, voted_state
from txpaxos.testing.store.harness import voted

SEGMENT_BYTES = 8192
SLOTS = 140
SNAPSHOTS = (80, 120)


def open_store(path: Path) -> DiskStore:
    return DiskStore(path, "counter", "a", disk=UnsyncedDisk(), execute=execute_now, segment_bytes=SEGMENT_BYTES)


def take(store: DiskStore, slot: int) -> None:
    writer = store.write_snapshot(slot)
    for number in range(3):
        writer.write(b"%d" % number * 5000)
    writer.finish()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with several segments, two snapshots and two registers of an earlier release."""
    path = tmp_path_factory.mktemp("inspection") / "data"
    store = open_store(path)
    store.load()
    store.save([Voter(("a", "b", "c")), PeerMet("b", 7)])
    for slot in range(1, SLOTS + 1):
        store.save([voted(slot, b"%d" % slot * 40)])
        if slot in SNAPSHOTS:
            store.save([Checkpoint(slot), voted(slot + 1, b"%d" % (slot + 1) * 40)])
            take(store, slot)
    store.close()
    add_registers(Disk(), str(path), [voted_state("s", 1), voted_state("t", 2)])
    return path


@pytest.fixture
def folder(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "data"))


def contents(path: Path) -> dict[str, bytes | None]:
    """Everything below ``path``."""
    found = sorted(path.rglob("*"))
    return {str(one.relative_to(path)): one.read_bytes() if one.is_file() else None for one in found}


def inspect_unchanged(path: Path) -> FolderReport:
    """The report of a folder, which must not change by it."""
    before = contents(path)
    stamps = {one: one.stat().st_mtime_ns for one in path.rglob("*")}
    report = inspect_folder(str(path))
    assert contents(path) == before
    assert {one: one.stat().st_mtime_ns for one in path.rglob("*")} == stamps
    return report


def start_error(path: Path) -> str:
    """Why a real start is refused with ``path``; empty if it is not. It also reads its snapshot, as a node does."""
    try:
        store = open_store(path)
        try:
            store.load()
            if store.snapshot is not None:
                for _ in store.snapshot.chunks():
                    pass
        finally:
            store.close()
    except StoreError as error:
        return str(error)
    return ""


def segments(path: Path) -> list[Path]:
    return sorted((path / "journal").glob("*.segment"))


def snapshots(path: Path) -> list[Path]:
    return sorted((path / "snapshots").glob("*.snapshot"))


def register(path: Path) -> Path:
    return sorted((path / "subjects").glob("*/*"))[0]


def flip(path: Path, offset: int) -> None:
    """Turn one bit over."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def used(path: Path) -> int:
    return len(path.read_bytes().rstrip(b"\0"))


# ------------------------------------------------------------------ sound folders


def test_a_healthy_folder(folder: Path) -> None:
    read: list[int] = []
    report = inspect_folder(str(folder), lambda path, size_bytes: read.append(size_bytes))
    assert sum(read) >= sum(path.stat().st_size for path in [*segments(folder), *snapshots(folder)]) - 100
    assert report.identity is not None
    assert (report.identity.cluster, report.identity.node) == ("counter", "a")
    assert report.mark is not None
    frames = sum(one.frames for one in report.segments)
    assert report.mark.position == report.segments[0].first_position + frames
    assert sum(one.records for one in report.segments) > frames
    assert [(one.slot, one.is_complete, one.fault) for one in report.snapshots] == [(80, True, None), (120, True, None)]
    assert report.snapshots[0].first_chunk == b"0" * 5000
    assert report.registers == (2, 0)
    assert report.log is not None
    assert (report.log.promised, report.log.chosen_through) == ("7.node-1", SLOTS - 1)
    assert report.log.votes == {SLOTS: "7.node-1"}
    assert report.used_by is None
    assert report.faults == []
    diagnosis = diagnose(report)
    assert (diagnosis.verdict, diagnosis.advice) == (Verdict.HEALTHY, ())
    assert diagnosis.summary == "a node starts with this folder as it is"


def test_nothing_is_opened_for_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these calls of the disk could change something."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("a file was opened for writing, or changed")

    opened = os.open

    def open_to_read(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        assert not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC), path
        return opened(path, flags, *rest, **options)

    for name in ("mkdir", "replace", "rename", "unlink", "remove", "pwrite", "fsync", "fdatasync", "ftruncate"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(os, "open", open_to_read)
    tail = used(segments(folder)[-1])
    assert tail
    assert diagnose(inspect_folder(str(folder))).verdict is Verdict.HEALTHY
    (folder / "diverged").write_bytes(b"")
    inspect_folder(str(folder))


def tear_last_save(path: Path) -> None:
    """One more save, of which a crash leaves a part on disk, and nothing in the mark."""
    mark = (path / "acknowledged").read_bytes()
    store = open_store(path)
    store.load()
    store.save([voted(SLOTS + 1, b"x" * 2000)])
    store.close()
    (path / "acknowledged").write_bytes(mark)
    segment = segments(path)[-1]
    data, end = segment.read_bytes(), used(segment)
    segment.write_bytes(data[: end - 1500] + bytes(len(data) - end + 1500))


def test_a_torn_tail_is_no_damage(folder: Path) -> None:
    tear_last_save(folder)
    report = inspect_unchanged(folder)
    assert report.segments[-1].torn_bytes > 400
    assert report.faults == []
    diagnosis = diagnose(report)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert diagnosis.summary.endswith("removes a save that a crash interrupted: nothing acknowledged it")
    assert start_error(folder) == ""


def test_a_part_of_a_snapshot_is_told(folder: Path) -> None:
    packer = SnapshotPacker(200)
    sound = packer.header + packer.frame(b"x" * 5000)
    (folder / "snapshots" / "000000000200.snapshot.part").write_bytes(sound + packer.frame(b"y" * 5000)[:100])
    report = inspect_unchanged(folder)
    (part,) = [one for one in report.snapshots if not one.is_complete]
    assert (part.slot, part.size_bytes, part.sound_bytes, part.fault) == (200, len(sound) + 100, len(sound), None)
    assert diagnose(report).verdict is Verdict.HEALTHY


def test_a_folder_whose_making_was_interrupted(tmp_path: Path) -> None:
    store = open_store(tmp_path / "data")
    store.close()
    assert diagnose(inspect_unchanged(tmp_path / "data")).verdict is Verdict.HEALTHY


def test_a_folder_that_a_crash_left_without_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "data"
    identity = new_identity("counter", "a", bytes)
    for name in ("journal", "subjects"):
        (path / name).mkdir(parents=True, mode=0o700)
    path.chmod(0o700)
    report = inspect_unchanged(path)
    assert diagnose(report).summary.startswith("the folder is new and not complete")
    write_identity(AtomicFile(Disk(), f"{path}/identity", VERSION), identity)
    report = inspect_unchanged(path)
    assert (report.identity, report.mark) == (identity, None)
    assert diagnose(report).verdict is Verdict.HEALTHY
    assert start_error(path) == ""


# ------------------------------------------------------------------ no data folder


def test_an_absent_folder(tmp_path: Path) -> None:
    diagnosis = diagnose(inspect_folder(str(tmp_path / "data")))
    assert (diagnosis.verdict, diagnosis.summary) == (Verdict.NOTHING, "there is no such folder")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        assert diagnose(inspect_folder(str(path))).summary == "this is not a folder"


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    diagnosis = diagnose(inspect_unchanged(tmp_path))
    assert diagnosis.verdict is Verdict.NOTHING
    assert diagnosis.summary.startswith("the folder is empty: a node that starts here is new")


def test_a_folder_full_of_other_files(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"letter {number}\n").write_text("Dear")
    diagnosis = diagnose(inspect_unchanged(tmp_path))
    assert diagnosis.verdict is Verdict.NOTHING
    assert "it holds 'letter 0\\n', 'letter 1\\n'" in diagnosis.summary
    assert "letter 7" not in diagnosis.summary


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(StoreError, match=r"cannot read .*: Permission denied; give the user"):
        inspect_folder(str(tmp_path))


# ------------------------------------------------------------------ damage


def newest_frame(path: Path) -> int:
    return used(segments(path)[-1]) - 60


DAMAGE: dict[str, tuple[Callable[[Path], object], Verdict, str]] = {
    "identity removed": (lambda path: (path / "identity").unlink(), Verdict.REFUSED, "but no identity file"),
    "identity changed": (lambda path: flip(path / "identity", 40), Verdict.LOST, "checksum does not match"),
    "mark removed": (lambda path: (path / "acknowledged").unlink(), Verdict.LOST, "how far this store has come"),
    "mark cut short": (lambda path: os.truncate(path / "acknowledged", 99), Verdict.LOST, "it has 99 bytes"),
    "newest segment removed": (lambda path: segments(path)[-1].unlink(), Verdict.LOST, "the file is missing"),
    "segment in the middle removed": (lambda path: segments(path)[-2].unlink(), Verdict.LOST, "before and after it"),
    "oldest segment removed": (lambda path: segments(path)[0].unlink(), Verdict.LOST, "though it is needed"),
    "journal removed": (lambda path: shutil.rmtree(path / "journal"), Verdict.LOST, "the folder is missing"),
    "segment cut short": (lambda path: os.truncate(segments(path)[-1], 4000), Verdict.LOST, "4000 bytes instead of"),
    "bit of the newest frame": (
        lambda path: flip(segments(path)[-1], newest_frame(path)),
        Verdict.LOST,
        "frames were acknowledged",
    ),
    "bit of a frame in the middle": (
        lambda path: flip(segments(path)[-1], 700),
        Verdict.LOST,
        "cannot be read",
    ),
    "bit of an old frame": (lambda path: flip(segments(path)[0], 700), Verdict.STARTS, "1 of its files are damaged"),
    "zeros at the end": (
        lambda path: segments(path)[-1].write_bytes(
            segments(path)[-1].read_bytes()[:2000] + bytes(SEGMENT_BYTES - 2000)
        ),
        Verdict.LOST,
        "frames were acknowledged",
    ),
    "newest snapshot changed": (
        lambda path: flip(snapshots(path)[-1], 6000),
        Verdict.SNAPSHOT_DAMAGED,
        "the checksum of a chunk does not match",
    ),
    "newest snapshot cut short": (
        lambda path: os.truncate(snapshots(path)[-1], 6000),
        Verdict.SNAPSHOT_DAMAGED,
        "is damaged at offset",
    ),
    "older snapshot changed": (lambda path: flip(snapshots(path)[0], 6000), Verdict.STARTS, "1 of its files"),
    "all snapshots removed": (lambda path: shutil.rmtree(path / "snapshots"), Verdict.LOST, "no snapshot replaces"),
    "register removed": (lambda path: register(path).unlink(), Verdict.LOST, "files at least one is missing"),
    "register changed": (lambda path: flip(register(path), 30), Verdict.LOST, "the checksum does not match"),
    "register of another name": (
        lambda path: register(path).rename(register(path).with_name("0" * 62)),
        Verdict.LOST,
        "not the state of the subject",
    ),
    "subjects removed": (lambda path: shutil.rmtree(path / "subjects"), Verdict.LOST, "the folder is missing"),
    "others may write": (lambda path: path.chmod(0o777), Verdict.REFUSED, "may be written by other users"),
    "a symbolic link": (
        lambda path: (path / "subjects" / "link").symlink_to(path / "journal"),
        Verdict.REFUSED,
        "is a symbolic link",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage(folder: Path, what: str) -> None:
    damage, verdict, line = DAMAGE[what]
    damage(folder)
    report = inspect_unchanged(folder)
    diagnosis = diagnose(report)
    assert (diagnosis.verdict, diagnosis.summary) == (verdict, diagnosis.summary)
    assert line in diagnosis.summary
    assert diagnosis.advice
    assert all("\n" not in text for text in (diagnosis.summary, *diagnosis.advice))
    error = start_error(folder)
    assert (error == "") == (verdict is Verdict.STARTS), error
    assert error == "" or error in [fault.line for fault in report.faults]


def test_a_segment_of_another_store(folder: Path, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other")
    other.load()
    other.close()
    shutil.copy(segments(tmp_path / "other")[0], segments(folder)[-1])
    diagnosis = diagnose(inspect_unchanged(folder))
    assert diagnosis.verdict is Verdict.REFUSED
    assert "belongs to another store" in diagnosis.summary


def test_a_save_that_holds_no_records(folder: Path) -> None:
    report = inspect_folder(str(folder))
    assert report.identity is not None
    newest, position = segments(folder)[-1], report.segments[-1].first_position + report.segments[-1].frames
    end = report.segments[-1].used_bytes
    frame = pack_frame(b"no records", report.identity.incarnation, position, end)
    data = newest.read_bytes()
    newest.write_bytes(data[:end] + frame + data[end + len(frame) :])
    diagnosis = diagnose(inspect_unchanged(folder))
    assert diagnosis.verdict is Verdict.LOST
    assert f"{newest} is damaged at offset {end}: " in diagnosis.summary


def test_an_old_segment_whose_end_is_torn(folder: Path) -> None:
    """A start does not read it. It must hold all of its frames: a later segment follows."""
    report = inspect_folder(str(folder))
    oldest, end = segments(folder)[0], report.segments[0].used_bytes
    data = oldest.read_bytes()
    oldest.write_bytes(data[: end - 20] + bytes(len(data) - end + 20))
    after = inspect_unchanged(folder)
    assert diagnose(after).verdict is Verdict.STARTS
    assert "though a later segment follows" in after.faults[0].line


def test_an_old_segment_that_lacks_its_last_frames(folder: Path) -> None:
    report = inspect_folder(str(folder))
    oldest = segments(folder)[0]
    frames = Frames(oldest.read_bytes(), SegmentHeader.unpack(oldest.read_bytes(), ""), "")
    oldest.write_bytes(oldest.read_bytes()[: frames[-1].offset].ljust(SEGMENT_BYTES, b"\0"))
    after = inspect_unchanged(folder)
    assert diagnose(after).verdict is Verdict.STARTS
    (fault,) = after.faults
    assert fault.path == str(oldest)
    assert f"though frame {report.segments[1].first_position} was written after it" in fault.line


@pytest.mark.parametrize("what", ["newest snapshot changed", "newest snapshot cut short"])
def test_the_advice_for_a_damaged_snapshot_works(folder: Path, what: str) -> None:
    DAMAGE[what][0](folder)
    report = inspect_folder(str(folder))
    assert report.start_without == [str(snapshots(folder)[-1])]
    assert start_error(folder)
    snapshots(folder)[-1].unlink()
    assert start_error(folder) == ""


def test_the_advice_for_two_damaged_snapshots_works(folder: Path) -> None:
    for path in snapshots(folder):
        flip(path, 6000)
    report = inspect_folder(str(folder))
    (advice,) = diagnose(report).advice
    assert advice.startswith(f"rename {folder}/snapshots to {folder}/snapshots.discarded, then start the node")
    (folder / "snapshots").rename(folder / "snapshots.discarded")
    after = inspect_unchanged(folder)
    assert after.discarded == ["snapshots.discarded"]
    assert after.log is not None
    assert 0 < after.log.lost_through <= SNAPSHOTS[0]
    assert f"promises nothing about the slots up to {after.log.lost_through}" in diagnose(after).summary
    assert start_error(folder) == ""


def test_no_advice_to_move_a_snapshot_where_the_journal_is_damaged_too(folder: Path) -> None:
    flip(snapshots(folder)[-1], 6000)
    (folder / "acknowledged").unlink()
    report = inspect_folder(str(folder))
    assert report.start_without == []
    assert diagnose(report).verdict is Verdict.LOST


def test_a_diverged_folder(folder: Path) -> None:
    store = open_store(folder)
    store.load()
    store.quarantine("the state differs at slot 100: b, c against a")
    store.close()
    report = inspect_unchanged(folder)
    diagnosis = diagnose(report)
    assert (diagnosis.verdict, diagnosis.summary) == (Verdict.DIVERGED, "the state differs at slot 100: b, c against a")
    assert "snapshots.discarded" in diagnosis.advice[-1]
    (folder / "snapshots").rename(folder / "snapshots.discarded")
    assert diagnose(inspect_unchanged(folder)).verdict is Verdict.HEALTHY
    flip(folder / "diverged", 30)
    assert diagnose(inspect_unchanged(folder)).verdict is Verdict.LOST


def test_the_folder_of_a_removed_node(folder: Path) -> None:
    AtomicFile(Disk(), f"{folder}/removed").write(b"removed at slot 9")
    diagnosis = diagnose(inspect_unchanged(folder))
    assert (diagnosis.verdict, diagnosis.summary) == (
        Verdict.REMOVED,
        "the node was removed from its cluster: removed at slot 9",
    )


class DiskOfACrash(UnsyncedDisk):
    """The process ends when it has just written that the new contents count."""

    def replace(self, source: str, target: str) -> None:
        super().replace(source, target)
        if os.path.basename(target) == MARKER:
            raise Crash


def test_a_recovery_that_was_interrupted_is_completed_by_the_advice(folder: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "new")
    store.load()
    store.save([voted(1, b"recovered")])
    store.close()
    shutil.copytree(tmp_path / "new", prepared_path(str(folder)))
    note_ready(Disk(), str(folder), "5f")
    with pytest.raises(Crash):
        replace_contents(DiskOfACrash(), str(folder))
    diagnosis = diagnose(inspect_unchanged(folder))
    assert (diagnosis.verdict, diagnosis.advice) == (Verdict.REFUSED, ("run txpaxos recover again, as before",))
    assert diagnosis.summary.startswith("a recovery of this folder was interrupted: the next start of its node")
    assert start_error(folder) == ""
    assert diagnose(inspect_unchanged(folder)).verdict is Verdict.HEALTHY


def test_snapshots_that_were_replaced_are_told(folder: Path) -> None:
    (folder / "snapshots.replaced").mkdir(mode=0o700)
    assert inspect_unchanged(folder).replaced == ["snapshots.replaced"]


# ------------------------------------------------------------------ a folder in use

HOLD = "import sys; from txpaxos.storage.disk import Disk; Disk().lock(sys.argv[1]); print(flush=True); input()"


@pytest.mark.parametrize("has_list", [True, False])
def test_a_folder_in_use_is_told_and_its_node_not_disturbed(
    folder: Path, has_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_list:
        monkeypatch.setattr(read_only_disk, "_LOCKS", "/proc/there-is-no-such-file")
    elif not Path("/proc/locks").exists():
        pytest.skip("this system has no list of locks")
    assert inspect_folder(str(folder)).used_by is None
    holding = [sys.executable, "-c", HOLD, str(folder / "lock")]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        report = inspect_folder(str(folder))
        process.communicate(b"\n")
    assert report.used_by == (process.pid if has_list else 0)
    diagnosis = diagnose(report)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert diagnosis.advice == ("do not remove, edit or copy anything in the folder while it is in use",)
    assert process_using(str(folder)) is None


def test_a_lock_of_a_process_whose_files_may_not_be_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_only_disk, "_locks", lambda: [(1, 1), (1, os.stat(folder / "lock").st_ino)])
    monkeypatch.setattr(read_only_disk, "_has_open", lambda pid, file: False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert process_using(str(folder)) == 1


def test_locks_of_other_kinds_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "locks"
    locks.write_text("1: POSIX  ADVISORY  WRITE 7 fe:00:21 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 fe:00:22 0 EOF\n")
    locks.write_text(locks.read_text() + "2: -> FLOCK  ADVISORY  WRITE 9 fe:00:22 0 EOF\n\n")
    monkeypatch.setattr(read_only_disk, "_LOCKS", str(locks))
    assert [*read_only_disk._locks()] == [(8, 22), (9, 22)]


def test_a_process_has_only_those_files_open_that_it_has(folder: Path) -> None:
    segment = (folder / "identity").stat()
    assert not read_only_disk._has_open(os.getpid(), segment)
    with open(folder / "identity"):
        assert read_only_disk._has_open(os.getpid(), segment)
    assert not read_only_disk._has_open(2**22 + 1, segment)


def test_a_lock_that_cannot_be_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(read_only_disk, "_locked_by", refuse)
    with pytest.raises(StoreError, match="Permission denied; run this as the user of the node"):
        process_using(str(folder))
    (folder / "lock").unlink()
    monkeypatch.undo()
    assert process_using(str(folder)) is None


def test_the_folder_of_a_running_node_is_read_again_if_something_seems_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = snapshots(folder)[0].rename(folder.parent / "removed")
    segments(folder)[-1].rename(folder.parent / "segment")
    looks: list[str] = []

    def used_by(directory: str) -> int:
        looks.append(directory)
        if len(looks) == 2:
            (folder.parent / "segment").rename(folder / "journal" / "00000099.segment")
        return 5

    monkeypatch.setattr(inspection, "process_using", used_by)
    report = inspect_folder(str(folder))
    assert len(looks) == ATTEMPTS
    diagnosis = diagnose(report)
    assert diagnosis.verdict is Verdict.LOST
    assert diagnosis.advice[1].startswith("stop the node first: ")
    assert removed.exists()


def test_files_that_a_running_node_removes_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {str(segments(folder)[0]), str(snapshots(folder)[0])}
    read, file_size = ReadOnlyDisk.read, ReadOnlyDisk.file_size

    def read_what_is_left(self: ReadOnlyDisk, path: str) -> bytes:
        if path in gone and sys._getframe(1).f_code.co_name == "_segment":
            raise FileNotFoundError
        return read(self, path)

    def size_of_what_is_left(self: ReadOnlyDisk, path: str) -> int:
        if path in gone and sys._getframe(1).f_code.co_name == "_snapshot":
            raise FileNotFoundError
        return file_size(self, path)

    monkeypatch.setattr(ReadOnlyDisk, "read", read_what_is_left)
    monkeypatch.setattr(ReadOnlyDisk, "file_size", size_of_what_is_left)
    report = inspect_folder(str(folder))
    assert report.segments[0].frames == 0
    assert [one.slot for one in report.snapshots] == [SNAPSHOTS[1]]
    assert report.faults == []


def test_the_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may look at it; the node would start as its owner."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert diagnose(inspect_folder(str(folder))).verdict is Verdict.HEALTHY
