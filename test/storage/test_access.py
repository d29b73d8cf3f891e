"""A data folder in which others could have changed something is refused, by one line that says what to do."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from test.storage.test_disk import UnsyncedDisk
from txpaxos.errors import StoreError
from txpaxos.storage.disk import FileStatus
from txpaxos.storage.executor import execute_now
from txpaxos.storage.store import DiskStore
from txpaxos.testing.older_registers import add_registers, voted_state
from txpaxos.testing.simulator.disk import USER, SimulatedDisk
from txpaxos.testing.store.harness import StoreHarness, voted

wait = StoreHarness().wait
FOLDERS = ["", "journal", "snapshots", "subjects", "subjects/??"]
FILES = ["identity", "acknowledged", "lock", "journal/*.segment", "subjects/??/*", "snapshots/*.snapshot"]


class AsAnother(UnsyncedDisk):
    """The real disk, for a process that runs as another user than the one who made the folder."""

    def user(self) -> int:
        return super().user() + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one of everything."""
    store = open_store(tmp_path / "data")
    store.load()
    wait(store.save([voted(1)]))
    writer = store.write_snapshot(1)
    wait(writer.write(b"state"))
    wait(writer.finish())
    wait(store.close())
    add_registers(UnsyncedDisk(), str(tmp_path / "data"), [voted_state("s", 1)])
    return tmp_path / "data"


def open_store(path: Path | str, disk: UnsyncedDisk | SimulatedDisk | None = None) -> DiskStore:
    return DiskStore(path, "cluster", "node-1", disk=disk or UnsyncedDisk(), execute=execute_now, segment_bytes=4096)


def changes(path: Path) -> dict[Path, int]:
    """When each name under ``path`` was changed in any way."""
    return {one: one.lstat().st_ctime_ns for one in path.rglob("*")}


def refusal(path: Path) -> str:
    """The one line with which the folder is refused. Nothing in it is changed."""
    before = changes(path)
    with pytest.raises(StoreError) as refused:
        open_store(path)
    assert changes(path) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("bits", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("name", FOLDERS + FILES)
def test_what_others_may_write_is_refused(folder: Path, name: str, bits: int) -> None:
    path = next(folder.glob(name)) if name else folder
    mode = path.stat().st_mode & 0o777
    path.chmod(mode | bits)
    assert refusal(folder) == (
        f"{path} may be written by other users (mode {mode | bits:04o}): if no other user has changed anything in"
        f" there, 'chmod -R go-w {folder}', then start the node again"
    )
    path.chmod(mode)
    wait(open_store(folder).close())


@pytest.mark.parametrize("name", ["journal", "snapshots", "subjects", "subjects/??", *FILES])
def test_a_symbolic_link_is_refused(folder: Path, name: str, tmp_path: Path) -> None:
    path = next(folder.glob(name))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refusal(folder).startswith(f"{path} is a symbolic link, and a data folder may not contain one: replace")


def test_a_link_that_leads_nowhere_is_refused_before_anything_is_made_through_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data/lock").symlink_to(tmp_path / "made")
    assert "data/lock is a symbolic link" in refusal(tmp_path / "data")
    assert not (tmp_path / "made").exists()


def test_the_folder_of_another_user_is_refused(folder: Path) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(folder, AsAnother())
    user = os.geteuid()
    assert str(refused.value) == (
        f"{folder} belongs to user {user}, and this process runs as user {user + 1}: run it as the owner of the data"
        f" folder, or, if no other user has changed anything in there, 'chown -R {user + 1} {folder}'"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", FILES + FOLDERS[1:])
def test_what_another_user_owns_in_it_is_refused(folder: Path, name: str) -> None:
    path = next(folder.glob(name))
    os.chown(path, 12345, -1)
    assert refusal(folder).startswith(f"{path} belongs to user 12345, and this process runs as user 0: ")


def test_names_that_are_not_the_store_s_are_left_alone(folder: Path) -> None:
    """What stands on a disk of its own, or what an operator put there."""
    (folder / "lost+found").mkdir()
    (folder / "lost+found").chmod(0o777)
    (folder / "notes").symlink_to("/nowhere")
    wait(open_store(folder).close())


def test_the_folder_itself_may_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    wait(open_store(tmp_path / "link").close())
    folder.chmod(0o770)
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path}/link may be written by other users (mode 0770)")):
        open_store(tmp_path / "link")


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_whatever_the_umask_a_new_folder_is_private(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            store = open_store(tmp_path / "above" / "data")
            store.load()
            wait(store.save([voted(1)]))
            wait(store.close())
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "above/data", *(tmp_path / "above/data").rglob("*")]}
    assert modes == {0o700, 0o600}


def test_simulated_disks_refuse_the_same() -> None:
    disk = SimulatedDisk(random.Random(0))
    wait(open_store("/data", disk).close())
    for path, status, line in (
        ("/data", FileStatus("folder", 0o770, USER), "/data may be written by other users"),
        ("/data/journal", FileStatus("link", 0o777, USER), "/data/journal is a symbolic link"),
        ("/data/identity", FileStatus("file", 0o600, USER + 1), "/data/identity belongs to user 1001"),
    ):
        disk.statuses = {path: status}
        with pytest.raises(StoreError, match=line):
            open_store("/data", disk)
    disk.statuses = {}
    wait(open_store("/data", disk).close())
    assert disk.inspect("/").kind == "folder"
    with pytest.raises(FileNotFoundError):
        disk.inspect("/data/nothing")


def test_what_is_neither_file_nor_folder_is_something_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert UnsyncedDisk().inspect(f"{tmp_path}/pipe").kind == "other"


def test_a_folder_that_vanishes_is_told_by_what_comes_next(tmp_path: Path) -> None:
    class Gone(UnsyncedDisk):
        def inspect(self, path: str, follow: bool = False) -> FileStatus:
            raise FileNotFoundError(2, "gone", path)

    wait(open_store(tmp_path / "data", Gone()).close())
