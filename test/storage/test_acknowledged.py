"""What vanishes from a data folder is missed: segments, the ends of journals, files of subjects, the mark itself."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, VolatileDisk, crash_before, crash_within
from txpaxos.core.messages import Ballot
from txpaxos.core.ready import Checkpoint, Promised, Record
from txpaxos.errors import StoreError
from txpaxos.storage.acknowledged import NOTHING, SECURED_SAVES, SLOT_BYTES, Acknowledged, Mark
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.identity import read_identity, write_identity
from txpaxos.storage.segment import Frames, SegmentHeader
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers, voted_state
from txpaxos.testing.store.harness import StoreHarness, voted

wait = StoreHarness().wait
SEGMENT_BYTES = 2048


def open_store(disk: Disk, folder: str, segment_bytes: int = SEGMENT_BYTES) -> DiskStore:
    return DiskStore(
        folder,
        "cluster",
        "node-1",
        disk=disk,
        execute=execute_now,
        segment_bytes=segment_bytes,
        random_bytes=random.Random(1).randbytes,
    )


def take(store: DiskStore, slot: int) -> None:
    """A snapshot at ``slot``, with its Checkpoint and what follows that."""
    wait(store.save([Checkpoint(slot), Promised(Ballot(slot, "node-1"))]))
    writer = store.write_snapshot(slot)
    wait(writer.write(b"state %d" % slot * 20))
    wait(writer.finish())


def fill(store: DiskStore, rounds: range = range(1, 9)) -> None:
    """Votes, promises and snapshots, in several segments."""
    store.load()
    for slot in rounds:
        wait(store.save([Promised(Ballot(slot, "node-1")), voted(slot, b"value" * (60 * (slot % 4)))]))
        wait(store.save([voted(slot, b"again")]))
        if slot % 3 == 0:
            take(store, slot)


def add_registers_first(folder: str) -> None:
    """Make a folder with registers of an earlier release in it."""
    store = open_store(UnsyncedDisk(), folder)
    store.load()
    wait(store.close())
    add_registers(UnsyncedDisk(), folder, [voted_state(f"subject {number}", number + 1) for number in range(5)])


class Lab:
    """A data folder that was filled, and copies of it that come to harm."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good = path / "good"
        self._count = itertools.count()

    def fill(self, *, killed: bool) -> None:
        """Fill the folder, with registers of an earlier release, and close it in order, or not."""
        disk = FaultyDisk(UnsyncedDisk())
        add_registers_first(str(self.good))
        store = open_store(disk, str(self.good))
        fill(store)
        if killed:
            disk.kill()
        else:
            wait(store.close())
        self.records = self.load(self.good)[0]

    def copy(self) -> Path:
        """A folder like the filled one."""
        target = self.path / f"copy-{next(self._count)}"
        shutil.copytree(self.good, target)
        return target

    def load(self, folder: Path) -> tuple[list[Record], str]:
        """What the node has, snapshot and all, or the line with which it does not start."""
        try:
            store = open_store(UnsyncedDisk(), str(folder))
        except StoreError as error:
            return [], str(error)
        try:
            records = store.load()
            snapshot = store.snapshot
            self.snapshot = 0 if snapshot is None else snapshot.slot
            return records, ""
        except StoreError as error:
            return [], str(error)
        finally:
            wait(store.close())

    def assert_missed(self, folder: Path, named: str) -> None:
        """That the folder is refused, by a line that names what is wrong; also when it is tried again."""
        for _ in range(2):
            assert named in self.load(folder)[1], folder

    def newest(self, folder: Path) -> Path:
        return max((folder / "journal").iterdir())

    def frames(self) -> list[int]:
        """Where in the newest segment each frame begins, and where the last one ends."""
        path = self.newest(self.good)
        data = path.read_bytes()
        frames = Frames(data, SegmentHeader.unpack(data, str(path)), str(path))
        return [*(frame.offset for frame in frames), frames.end]


@pytest.fixture(params=["closed", "killed"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.fill(killed=request.param == "killed")
    return lab


# ---------------------------------------------------------------- what vanishes


def test_each_file_that_is_removed_is_missed(lab: Lab) -> None:
    """But for the lock, for the older snapshot, and for the newest snapshot, for which the older one stands."""
    files = sorted(path.relative_to(lab.good) for path in lab.good.rglob("*") if path.is_file())
    missed = []
    for file in files:
        folder = lab.copy()
        (folder / file).unlink()
        records, line = lab.load(folder)
        if line:
            missed.append(file)
        else:
            assert records[-len(lab.records) :] == lab.records or lab.snapshot == 6, file
    rest = sorted(map(str, set(files) - set(missed)))
    assert rest == ["lock", *(f"snapshots/00000000000{slot}.snapshot" for slot in (3, 6))]
    assert len(missed) >= 5 + 5


def test_the_newest_segments_removed_are_missed(lab: Lab) -> None:
    segments = sorted((lab.good / "journal").iterdir())
    assert len(segments) >= 3
    for count in range(1, len(segments)):
        folder = lab.copy()
        for segment in segments[-count:]:
            (folder / "journal" / segment.name).unlink()
        lab.assert_missed(
            folder, f"{folder}/journal/{segments[-count].name} is damaged at offset 0: the file is missing"
        )


def test_the_oldest_segment_removed_is_missed_also_when_the_snapshots_were_moved_away(lab: Lab) -> None:
    folder = lab.copy()
    (folder / "snapshots").rename(folder / "snapshots.discarded")
    oldest = min((folder / "journal").iterdir())
    assert oldest.name != "00000000.segment"
    oldest.unlink()
    lab.assert_missed(folder, oldest.name)


def test_the_newest_segment_removed_before_it_has_a_frame_is_missed(tmp_path: Path) -> None:
    """A process dies between the birth of a segment and its first frame; the next start goes on in that segment."""
    disk = FaultyDisk(UnsyncedDisk())
    store = open_store(disk, str(tmp_path / "data"))
    store.load()
    wait(store.save([voted(1, bytes(1000))]))
    # create, allocate, write, sync, replace, sync_directory, close: then the mark, then the frame.
    disk.at, disk.fault = len(disk.calls) + 9, crash_before
    with pytest.raises(Crash):
        store.save([voted(2, bytes(1000))])
    disk.kill()
    (tmp_path / "data/journal/00000001.segment").unlink()
    with pytest.raises(StoreError, match=r"00000001.segment is damaged at offset 0: the file is missing"):
        open_store(UnsyncedDisk(), str(tmp_path / "data")).load()


def test_the_tail_zeroed_from_any_byte_on_is_missed(lab: Lab) -> None:
    frames = lab.frames()
    assert len(frames) >= 4
    data = lab.newest(lab.good).read_bytes()
    folder = lab.copy()
    near = {offset + near for offset in frames[:-1] for near in (-1, 0, 1, 32, 33)}
    for start in sorted(near.union(range(512, frames[-1], 37)) & set(range(512, frames[-1]))):
        lab.newest(folder).write_bytes(data[:start].ljust(len(data), b"\0"))
        records, line = lab.load(folder)
        assert line, start
        at = max(offset for offset in frames if offset <= start)
        assert f"{lab.newest(folder)} is damaged at offset {at}: frame " in line
        assert records == []
    lab.newest(folder).write_bytes(data)
    assert lab.load(folder) == (lab.records, "")


def test_a_sector_zeroed_is_missed(lab: Lab) -> None:
    data = lab.newest(lab.good).read_bytes()
    folder = lab.copy()
    for sector in range(0, len(data), 512):
        if data[sector : sector + 512].strip(b"\0"):
            lab.newest(folder).write_bytes(data[:sector] + bytes(512) + data[sector + 512 :])
            lab.assert_missed(folder, str(lab.newest(folder)))


def test_a_folder_of_subjects_removed_is_missed(lab: Lab) -> None:
    for path in (lab.good / "subjects").iterdir():
        folder = lab.copy()
        shutil.rmtree(folder / "subjects" / path.name)
        lab.assert_missed(folder, f"{folder}/subjects is damaged at offset 0: of 5 subjects' files")


@pytest.mark.parametrize("others", [1, 2])
def test_a_subject_s_file_in_place_of_another_s_is_missed(others: int, lab: Lab, tmp_path: Path) -> None:
    wait(open_store(UnsyncedDisk(), str(tmp_path / "other")).close())
    states = [voted_state(f"another {number}", 1) for number in range(others)]
    add_registers(UnsyncedDisk(), str(tmp_path / "other"), states)
    folder = lab.copy()
    next((folder / "subjects").glob("*/*")).unlink()
    for source in (tmp_path / "other/subjects").glob("*/*"):
        target = folder / source.relative_to(tmp_path / "other")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    lab.assert_missed(folder, f"({4 + others} are here)")


@pytest.mark.parametrize("name", ["journal", "subjects"])
def test_a_folder_in_it_removed_is_missed(name: str, lab: Lab) -> None:
    folder = lab.copy()
    shutil.rmtree(folder / name)
    lab.assert_missed(folder, f"{folder}/{name} is damaged at offset 0: the folder is missing")


@pytest.mark.parametrize("left", ["snapshots", "snapshots.discarded", "snapshots.replaced", "diverged"])
def test_what_is_left_of_a_folder_is_no_new_one(left: str, lab: Lab) -> None:
    folder = lab.copy()
    (folder / "snapshots").rename(folder / left)
    for path in folder.iterdir():
        if path.name != left:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(StoreError, match="holds what a node saved, but no identity file"):
        open_store(Disk(), str(folder)).load()


@pytest.mark.parametrize("what", ["a snapshot", "many saves"])
def test_a_folder_that_is_removed_under_a_store_is_missed(what: str, tmp_path: Path) -> None:
    """What it saves from then on is in files that have no name. It makes no new folder in the place of the old one."""
    folder = tmp_path / "data"
    store = open_store(UnsyncedDisk(), str(folder), 1 << 20)
    fill(store, range(1, 3))
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="No such file or directory"):
        go_on(store, what)
    assert not folder.exists()
    with suppress(StoreError):
        wait(store.close())


def go_on(store: DiskStore, what: str) -> None:
    """Save what makes a file of its own, and then votes, until a mark is due."""
    if what == "a snapshot":
        take(store, 2)
    for slot in range(3, 3 + SECURED_SAVES):
        wait(store.save([voted(slot, b"")]))


# ------------------------------------------------------------ the mark's own file


def test_a_flipped_bit_of_the_mark_loses_nothing(lab: Lab) -> None:
    """One slot may be lost: the others tell as much, or that of the save before. The rest is zeros."""
    data = (lab.good / "acknowledged").read_bytes()
    folder = lab.copy()
    for slot, byte in itertools.product(range(4), range(89)):
        damaged = bytearray(data)
        damaged[slot * SLOT_BYTES + byte] ^= 1 << byte % 8
        (folder / "acknowledged").write_bytes(damaged)
        assert lab.load(folder) == (lab.records, "")


def test_a_mark_cut_short_or_too_long_is_refused(lab: Lab) -> None:
    data = (lab.good / "acknowledged").read_bytes()
    folder = lab.copy()
    for size in (0, 1, 512, SLOT_BYTES, 3 * SLOT_BYTES, len(data) - 1, len(data) + 1):
        (folder / "acknowledged").write_bytes(data[:size].ljust(size, b"\0"))
        lab.assert_missed(folder, f"{folder}/acknowledged is damaged at offset {min(size, len(data))}: it has {size}")


def test_a_mark_without_a_synced_slot_is_refused(lab: Lab) -> None:
    folder = lab.copy()
    data = (folder / "acknowledged").read_bytes()
    (folder / "acknowledged").write_bytes(bytes(2 * SLOT_BYTES) + data[2 * SLOT_BYTES :])
    lab.assert_missed(folder, f"{folder}/acknowledged is damaged at offset 0: neither of the two slots")


def test_the_synced_slots_alone_tell_all_when_the_store_was_closed(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.fill(killed=False)
    folder = lab.copy()
    data = (folder / "acknowledged").read_bytes()
    (folder / "acknowledged").write_bytes(data[: 2 * SLOT_BYTES].ljust(len(data), b"\0"))
    newest = lab.newest(folder).read_bytes()
    lab.newest(folder).write_bytes(newest[: lab.frames()[-2]].ljust(len(newest), b"\0"))
    lab.assert_missed(folder, str(lab.newest(folder)))


def test_another_store_s_mark_and_another_version_s_are_refused(lab: Lab, tmp_path: Path) -> None:
    folder = lab.copy()
    mark = Acknowledged(Disk(), f"{folder}/acknowledged", 123)
    mark.create()
    lab.assert_missed(folder, "acknowledged belongs to another store (7b, this is ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("txpaxos.storage.acknowledged.VERSION", 2)
        Acknowledged(Disk(), f"{folder}/acknowledged", 1).create()
    lab.assert_missed(folder, "acknowledged has format version 2, this program knows version 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("txpaxos.storage.acknowledged._MAGIC", b"txpaxosX")
        Acknowledged(Disk(), f"{folder}/acknowledged", 1).create()
    lab.assert_missed(folder, "acknowledged is damaged at offset 0: neither")


def test_a_mark_without_an_identity_is_what_a_node_saved(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.fill(killed=False)
    folder = lab.copy()
    (folder / "identity").unlink()
    shutil.rmtree(folder / "journal")
    shutil.rmtree(folder / "subjects")
    with pytest.raises(StoreError, match="holds what a node saved, but no identity file"):
        open_store(UnsyncedDisk(), str(folder))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    mark = Acknowledged(Disk(), f"{tmp_path}/acknowledged", 5)
    mark.create()
    assert mark.read() == NOTHING
    for position in range(1, 5):
        mark.saved(position)
        shutil.copy(tmp_path / "acknowledged", tmp_path / "copy")
        assert Acknowledged(Disk(), f"{tmp_path}/copy", 5).read() == Mark(position)
    mark.segment_created(7)
    mark.segments_dropped(5)
    again = Acknowledged(Disk(), f"{tmp_path}/acknowledged", 5)
    assert again.read() == Mark(4, 7, 5)
    again.begin(Mark(9, 8, 6, 3, 2**256 - 1))
    assert Acknowledged(Disk(), f"{tmp_path}/acknowledged", 5).read() == Mark(9, 8, 6, 3, 2**256 - 1)
    again.registers_removed()
    mark.close()
    mark.close()
    again.close()
    assert Acknowledged(Disk(), f"{tmp_path}/acknowledged", 5).read() == Mark(9, 8, 6)


def test_a_synced_mark_that_is_torn_leaves_the_one_before(tmp_path: Path) -> None:
    """It may be the only one that is left: what was noted without a sync goes with the power, too."""
    path = tmp_path / "acknowledged"
    mark = Acknowledged(Disk(), str(path), 5)
    mark.create()
    for segment in range(1, 6):
        before = path.read_bytes()
        mark.segment_created(segment)
        after = path.read_bytes()
        (torn,) = {at // SLOT_BYTES for at in range(len(after)) if after[at] != before[at]}
        assert torn < 2
        damaged = bytearray(after[: 2 * SLOT_BYTES] + bytes(2 * SLOT_BYTES))
        damaged[torn * SLOT_BYTES : (torn + 1) * SLOT_BYTES] = bytes(SLOT_BYTES)
        (tmp_path / "copy").write_bytes(damaged)
        assert Acknowledged(Disk(), f"{tmp_path}/copy", 5).read() == Mark(0, segment - 1)
    mark.close()


# ------------------------------------------------------------------ loss of power


def test_the_mark_is_synced_now_and_then(tmp_path: Path) -> None:
    disk = FaultyDisk(UnsyncedDisk())
    store = open_store(disk, str(tmp_path / "data"), 1 << 20)
    store.load()
    syncs = []
    for slot in range(1, 3 * SECURED_SAVES):
        disk.calls.clear()
        wait(store.save([voted(slot, b"")]))
        syncs.append(disk.calls.count("sync_data"))
    assert [number for number, count in enumerate(syncs, 1) if count > 1] == [SECURED_SAVES, 2 * SECURED_SAVES]
    wait(store.close())


def test_after_a_loss_of_power_what_was_synced_of_the_mark_counts() -> None:
    """Everything up to the last synced mark must be there; what is missing of what came later looks torn."""
    refused = 0
    for seed in range(200):
        disk = VolatileDisk(random.Random(seed))
        store = open_store(disk, "/data")
        fill(store)
        disk.lose_power()
        path = max(path for path in disk.names if path.endswith(".segment"))
        mark = Acknowledged(disk, "/data/acknowledged", store.incarnation).read()
        data = disk.read(path)
        header = SegmentHeader.unpack(data, path)
        kept = random.Random(seed).randrange(len(Frames(data, header, path)) + 1)
        ends = [512, *(frame.end for frame in Frames(data, header, path))]
        handle = disk.open(path)
        disk.write_at(handle, bytes(len(data) - ends[kept]), ends[kept])
        disk.sync_data(handle)
        again = open_store(disk, "/data")
        if header.first_position + kept < mark.position:
            refused += 1
            with pytest.raises(StoreError, match="frames were acknowledged"):
                again.load()
        else:
            again.load()
    assert refused > 50


# ------------------------------------------------------- folders of an earlier version


def as_before(folder: Path) -> None:
    """Make the folder what the version before had."""
    os.unlink(folder / "acknowledged")
    new = AtomicFile(Disk(), f"{folder}/identity", 3)
    payload = new.read()
    assert payload is not None
    old = AtomicFile(Disk(), f"{folder}/identity")
    old.serial = 1
    old.write(payload)


def put_back_identity(folder: Path, version: int, *, complete: bool) -> None:
    """Put an identity back as it was long ago."""
    (folder / "identity").rename(folder / "found")
    found = read_identity(AtomicFile(Disk(), f"{folder}/found", 3))
    assert found is not None
    (folder / "found").unlink()
    file = AtomicFile(Disk(), f"{folder}/identity", version)
    file.serial = 1
    write_identity(file, attrs.evolve(found, complete=complete, voter=None))


@pytest.mark.parametrize(("version", "complete"), [(1, True), (1, False), (2, False), (2, True), (3, True)])
def test_an_identity_from_long_ago_switches_no_mark_off(lab: Lab, version: int, complete: bool) -> None:
    """A backup of the identity alone; the rest of the folder is of today, but for its end, which is gone."""
    *_, last, end = lab.frames()
    folder = lab.copy()
    put_back_identity(folder, version, complete=complete)
    with lab.newest(folder).open("r+b") as file:
        file.seek(last)
        file.write(bytes(end - last))
    lab.assert_missed(folder, "journal")
    folder = lab.copy()
    put_back_identity(folder, version, complete=complete)
    for _ in range(2):
        assert lab.load(folder) == (lab.records, "")
    with pytest.raises(StoreError, match="identity has format version 3, this program knows version 1"):
        AtomicFile(Disk(), f"{folder}/identity").read()
    (folder / "acknowledged").unlink()
    lab.assert_missed(folder, "acknowledged")


@pytest.mark.parametrize("version", [1, 2])
def test_a_mark_that_cannot_be_read_is_missed_whatever_the_identity_says(lab: Lab, version: int) -> None:
    folder = lab.copy()
    put_back_identity(folder, version, complete=True)
    (folder / "acknowledged").write_bytes(bytes(16384))
    lab.assert_missed(folder, "acknowledged is damaged")


def test_a_folder_of_an_earlier_version_is_taken_over_once(lab: Lab) -> None:
    folder = lab.copy()
    as_before(folder)
    for _ in range(2):
        assert lab.load(folder) == (lab.records, "")
    (folder / "acknowledged").unlink()
    lab.assert_missed(folder, f"{folder}/acknowledged is damaged at offset 0: the file is missing")


def test_a_crash_at_every_step_of_taking_over_leaves_what_can_be_taken_over(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.fill(killed=False)
    for at, fault in itertools.product(range(0, 200, 2), (crash_before, crash_within)):
        folder = lab.copy()
        as_before(folder)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        try:
            open_store(disk, str(folder)).load()
        except Crash:
            disk.kill()
        else:
            break
        assert lab.load(folder) == (lab.records, "")
        (folder / "acknowledged").unlink()
        lab.assert_missed(folder, "acknowledged")
        shutil.rmtree(folder)
    else:
        raise AssertionError("it never ended")
    assert at > 20


def test_an_older_program_refuses_the_folder(lab: Lab) -> None:
    with pytest.raises(StoreError, match="identity has format version 3, this program knows version 1"):
        AtomicFile(Disk(), f"{lab.good}/identity").read()


def test_what_was_missed_once_is_missed_after_a_loss_of_power(tmp_path: Path) -> None:
    """The first start knows it from slots that were not synced. It syncs what it knows before it refuses."""
    for seed in range(20):
        disk = VolatileDisk(random.Random(seed))
        store = open_store(disk, "/data")
        store.load()
        for slot in range(1, 5):
            wait(store.save([voted(slot)]))
        disk.handles.clear()
        disk.locked.clear()  # The process is gone, and the machine runs on.
        path = max(path for path in disk.names if path.endswith(".segment"))
        handle = disk.open(path)
        disk.write_at(handle, bytes(SEGMENT_BYTES - 512), 512)
        disk.sync_data(handle)
        for _ in range(3):
            again = open_store(disk, "/data")
            with pytest.raises(StoreError, match="4 frames were acknowledged"):
                again.load()
            disk.lose_power()
