"""The file of a backup: it is whole, or it is refused."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from test.helpers.folders import value, write_folder
from test.storage.test_disk import FaultyDisk, UnsyncedDisk, failing
from txpaxos.errors import StoreError
from txpaxos.recovery.backup_file import DIGEST, Backup, BackupWriter, read_backup, snapshot_of, values_of
from txpaxos.recovery.survivors import read_survivor
from txpaxos.storage.snapshot_file import SnapshotPacker, SnapshotReader
from txpaxos.wire.client_messages import BackupHead

PART_BYTES = 50


def head_of(snapshot_slot: int, snapshot_bytes: int, through: int, cluster: str = "counter") -> BackupHead:
    members = {"a": ("127.0.0.1:4000", "127.0.0.1:5000")}
    return BackupHead(cluster, "a", "txpaxos.counter:Counter", members, snapshot_slot, snapshot_bytes, through)


def make_backup(tmp_path: Path, name: str = "counter.backup", slots: int = 3, snapshot: bool = True) -> Backup:
    """A backup of a counter: a snapshot at slot 5 with the total 15, and the values of some slots behind it."""
    folder = write_folder(tmp_path / f"{name}.data", "a", snapshot=(5, 15))
    made = read_survivor(str(folder)).snapshot
    assert made is not None
    base = 5 if snapshot else 0
    data = made.read(0, made.size_bytes) if snapshot else b""
    writer = BackupWriter(str(tmp_path / name), head_of(base, len(data), base + slots), UnsyncedDisk())
    for slot in range(base + 1, base + slots + 1):
        writer.values([value(slot)])
    for at in range(0, len(data), PART_BYTES):
        writer.snapshot(data[at : at + PART_BYTES])
    return writer.finish()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    backup = make_backup(tmp_path)
    done: list[int] = []
    assert read_backup(backup.path, done.append) == backup
    assert sum(done) > 0
    assert backup.size_bytes == Path(backup.path).stat().st_size
    assert len(backup.digest) == 32
    assert [*values_of(backup)] == [[value(6)], [value(7)], [value(8)]]
    snapshot = read_survivor(str(tmp_path / "counter.backup.data")).snapshot
    assert snapshot is not None
    assert [*snapshot_of(backup)] == [*snapshot.chunks()]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["counter.backup"]


def test_a_backup_without_a_snapshot_and_one_of_nothing(tmp_path: Path) -> None:
    assert [*values_of(make_backup(tmp_path, snapshot=False))] == [[value(1)], [value(2)], [value(3)]]
    assert make_backup(tmp_path, "none", slots=0, snapshot=False).head.through == 0


def test_the_checksum_is_that_of_the_contents(tmp_path: Path) -> None:
    one, same, other = (make_backup(tmp_path, name, slots).digest for name, slots in (("1", 1), ("2", 1), ("3", 2)))
    assert one == same != other


def test_any_byte_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, slots=1)
    data = Path(backup.path).read_bytes()
    for offset in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[offset] ^= 4
        Path(backup.path).write_bytes(damaged)
        with pytest.raises(StoreError):
            read_backup(backup.path)


def test_a_backup_that_ends_too_soon_is_noticed(tmp_path: Path) -> None:
    backup = make_backup(tmp_path, slots=1)
    data = Path(backup.path).read_bytes()
    for size in [*range(0, len(data), 11), len(data) - 1]:
        Path(backup.path).write_bytes(data[:size])
        with pytest.raises(StoreError, match=r"is damaged at offset|cannot read"):
            read_backup(backup.path)


def pieces(path: Path, *pieces: bytes) -> str:
    """A file whose checksums are right, whatever is in it."""
    packer = SnapshotPacker(1)
    path.write_bytes(packer.header + b"".join(map(packer.frame, pieces)) + packer.end())
    return str(path)


@pytest.mark.parametrize(
    ("contents", "line"),
    [
        ([b"X"], "it has no head"),
        ([b"H\xc1"], "is damaged at offset .*, or no backup: "),
        ([], "it has no head"),
    ],
)
def test_what_is_no_backup(tmp_path: Path, contents: list[bytes], line: str) -> None:
    with pytest.raises(StoreError, match=line):
        read_backup(pieces(tmp_path / "file", *contents))


def rewritten(backup: Backup, change: str) -> str:
    """The backup with its pieces in disorder, and all checksums of pieces right."""
    data = Path(backup.path).read_bytes()
    found = [*SnapshotReader(lambda at, size: data[at : at + size], len(data), backup.head.through, "").chunks()]
    match change:
        case "one value less":
            found = [found[0], *found[2:]]
        case "digest":
            found[-1] = DIGEST + bytes(16)
        case "more":
            found.append(b"more")
        case "longer":
            found.insert(-1, b"S" + bytes(2**20))
            found.insert(-1, b"Smore")
        case "swapped":
            found[1], found[2] = found[2], found[1]
    packer = SnapshotPacker(backup.head.through)
    Path(backup.path).write_bytes(packer.header + b"".join(map(packer.frame, found)) + packer.end())
    return backup.path


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("one value less", "it holds 2 values behind slot 5, and not through 8"),
        ("digest", "its checksum is not that of its contents"),
        ("more", "something follows its end"),
        ("longer", "the snapshot in it is longer than it says"),
        ("swapped", "its checksum is not that of its contents"),
    ],
)
def test_pieces_that_are_not_those_of_the_backup(tmp_path: Path, change: str, line: str) -> None:
    with pytest.raises(StoreError, match=line):
        read_backup(rewritten(make_backup(tmp_path), change))


def test_a_backup_that_is_given_up_leaves_nothing_and_the_old_one_as_it_was(tmp_path: Path) -> None:
    before = Path(make_backup(tmp_path).path).read_bytes()
    writer = BackupWriter(str(tmp_path / "counter.backup"), head_of(0, 0, 1), UnsyncedDisk())
    writer.abandon()
    writer.abandon()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["counter.backup"]
    assert (tmp_path / "counter.backup").read_bytes() == before


def test_a_full_disk(tmp_path: Path) -> None:
    for at in range(1, 4):
        disk = FaultyDisk(UnsyncedDisk(), at, failing(errno.ENOSPC))
        with pytest.raises(StoreError, match=r"counter\.backup\.new: No space left on device"):
            BackupWriter(str(tmp_path / "counter.backup"), head_of(0, 0, 0), disk).finish()
