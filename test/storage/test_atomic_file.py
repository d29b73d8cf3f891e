"""A state replaced as a whole: the old one or the new one, whatever happens."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from test.storage.test_disk import (
    Crash,
    FaultyDisk,
    crash_after,
    crash_before,
    crash_within,
    failing,
    short_write,
)
from txpaxos.errors import StoreError
from txpaxos.storage.atomic_file import AtomicFile
from txpaxos.storage.disk import Disk

WRITE = ["create", "write_at", "sync", "close", "replace", "sync_directory"]


def written(path: Path, *payloads: bytes) -> AtomicFile:
    file = AtomicFile(Disk(), str(path))
    for payload in payloads:
        file.write(payload)
    return file


def test_nothing_was_written(tmp_path: Path) -> None:
    file = AtomicFile(Disk(), f"{tmp_path}/state")
    assert (file.serial, file.read(), file.serial) == (-1, None, 0)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(100_000)])
def test_the_last_state_comes_back_and_the_serial_counts(tmp_path: Path, payload: bytes) -> None:
    file = written(tmp_path / "state", b"first", payload)
    assert file.serial == 2
    again = AtomicFile(Disk(), file.path)
    assert again.read() == payload
    again.write(b"third")
    assert (again.serial, AtomicFile(Disk(), file.path).read()) == (3, b"third")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_write_reads_the_serial_first(tmp_path: Path) -> None:
    file = written(tmp_path / "state", b"first")
    again = AtomicFile(Disk(), file.path)
    again.write(b"second")
    assert again.serial == 2


def test_the_order_of_a_write(tmp_path: Path) -> None:
    disk = FaultyDisk(Disk())
    file = AtomicFile(disk, f"{tmp_path}/state")
    file.read()
    assert disk.calls == ["sync_directory", "unlink", "read"]
    disk.calls.clear()
    file.write(b"state")
    assert disk.calls == WRITE


def test_a_reader_may_have_synced_the_folder_itself(tmp_path: Path) -> None:
    disk = FaultyDisk(Disk())
    AtomicFile(disk, f"{tmp_path}/state").read(sync_folder=False)
    assert "sync_directory" not in disk.calls


def test_what_a_crash_left_behind_is_removed(tmp_path: Path) -> None:
    file = written(tmp_path / "state", b"good")
    (tmp_path / "state.new").write_bytes(b"half a sta")
    assert AtomicFile(Disk(), file.path).read() == b"good"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("at", range(len(WRITE)), ids=WRITE)
@pytest.mark.parametrize("fault", [crash_before, crash_after, crash_within])
def test_a_crash_leaves_the_old_state_or_the_new(tmp_path: Path, at: int, fault: object) -> None:
    written(tmp_path / "state", b"old")
    disk = FaultyDisk(Disk())
    file = AtomicFile(disk, f"{tmp_path}/state")
    assert file.read() == b"old"
    disk.at, disk.fault = len(disk.calls) + at, fault  # type: ignore[assignment]
    with pytest.raises(Crash):
        file.write(b"new")
    disk.kill()
    replaced = at > WRITE.index("replace") or (WRITE[at] == "replace" and fault is crash_after)
    assert AtomicFile(Disk(), file.path).read() == (b"new" if replaced else b"old")


@pytest.mark.parametrize("at", range(len(WRITE)), ids=WRITE)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_write_is_final_and_leaves_the_old_state(tmp_path: Path, at: int, number: int) -> None:
    written(tmp_path / "state", b"old")
    disk = FaultyDisk(Disk())
    file = AtomicFile(disk, f"{tmp_path}/state")
    file.read()
    disk.at, disk.fault = len(disk.calls) + at, failing(number)
    with pytest.raises(StoreError, match=rf"cannot write {file.path}: .*; (check|free)"):
        file.write(b"new")
    calls = len(disk.calls)
    with pytest.raises(StoreError, match="an earlier write failed"):
        file.write(b"newer")
    assert len(disk.calls) == calls  # the second one touched nothing
    disk.kill()
    replaced = WRITE[at] == "sync_directory"
    assert AtomicFile(Disk(), file.path).read() == (b"new" if replaced else b"old")


def test_a_short_write_is_completed(tmp_path: Path) -> None:
    disk = FaultyDisk(Disk())
    file = AtomicFile(disk, f"{tmp_path}/state")
    file.read()
    disk.at, disk.fault = len(disk.calls) + WRITE.index("write_at"), short_write
    file.write(b"whole")
    assert AtomicFile(Disk(), file.path).read() == b"whole"


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = written(path, b"payload")
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(StoreError, match=rf"{path} is damaged at offset {length}: .* as a new node"):
            file.read()
    path.write_bytes(data + b"\0")
    with pytest.raises(StoreError, match="8 bytes of state instead of 7"):
        file.read()


def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = written(path, b"payload")
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match=str(path)):
            file.read()
    path.write_bytes(data)
    assert file.read() == b"payload"


def test_a_damaged_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state"
    written(path, b"payload")
    damaged = path.read_bytes()[:-1] + b"!"
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="checksum"):
        AtomicFile(Disk(), str(path)).write(b"new")
    assert path.read_bytes() == damaged


def test_another_format_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    file = written(path, b"payload")
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"format version 9, this program knows version 1: run the program"):
        file.read()


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*state: Is a directory; correct that"):
        AtomicFile(Disk(), f"{tmp_path}/state").read()
