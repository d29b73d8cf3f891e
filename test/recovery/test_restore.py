"""The folder of a founder is made from a backup, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.helpers.folders import cluster_of, files, start_node, total_of, value
from test.recovery.test_backup_file import head_of, make_backup
from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, crash_after, crash_before
from txpaxos.core.ready import Voter
from txpaxos.errors import StoreError
from txpaxos.recovery.backup_file import Backup, BackupWriter
from txpaxos.recovery.restore import check_restore, restore
from txpaxos.recovery.survivors import read_survivor
from txpaxos.storage.diagnosis import Verdict, diagnose
from txpaxos.storage.inspection import inspect_folder
from txpaxos.wire.members import MemberEntry, MembersEntry, encode_members

NEW = cluster_of(("x", "y", "z"), "other")
TOTAL = 15 + 6 + 7 + 8
SEGMENT_BYTES = 8192


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return make_backup(tmp_path)


def restored(backup: Backup, path: Path, node: str = "x", **options: Any) -> Path:
    options = {"disk": UnsyncedDisk(), "segment_bytes": SEGMENT_BYTES, **options}
    restore(backup, NEW, node, str(path), **options)
    return path


def test_the_state_continues(tmp_path: Path, backup: Backup) -> None:
    done: list[int] = []
    paths = [restored(backup, tmp_path / node, node, progress=done.append) for node in ("x", "y")]
    assert sum(done) > 0
    survivors = [read_survivor(str(path)) for path in paths]
    for one, path in zip(survivors, paths, strict=True):
        assert (one.cluster, one.voters, one.chosen_through, one.snapshot_slot) == ("other", (), 8, 5)
        assert one.application == "txpaxos.counter:Counter"
        assert (path / "restored").exists()
        assert total_of(path, one.node, NEW) == TOTAL
        report = inspect_folder(str(path))
        assert diagnose(report).verdict is Verdict.HEALTHY
        assert report.identity is not None
        assert not isinstance(report.identity.voter, Voter)  # It votes when all founders have met.
    first, second = survivors
    assert first.incarnation != second.incarnation
    assert first.snapshot is not None
    assert second.snapshot is not None
    assert [*first.snapshot.chunks()] == [*second.snapshot.chunks()]


def test_members_that_the_log_named_are_not_those_of_the_new_cluster(tmp_path: Path) -> None:
    entry = MembersEntry(0, {"old": MemberEntry("10.0.0.1:1", "10.0.0.1:2", incarnation=7)})
    writer = BackupWriter(str(tmp_path / "backup"), head_of(0, 0, 3), UnsyncedDisk())
    writer.values([value(1), encode_members(entry), value(3)])
    path = restored(writer.finish(), tmp_path / "x")
    started = start_node(path, "x", NEW)
    assert [*started.members.entry.members] == ["x", "y", "z"]
    assert set(started._replica.membership.voters) == {"x", "y", "z"}
    started.stop()
    assert total_of(path, "x", NEW) == 1 + 3


def test_a_backup_without_a_snapshot(tmp_path: Path) -> None:
    path = restored(make_backup(tmp_path, "plain", snapshot=False), tmp_path / "x")
    assert total_of(path, "x", NEW) == 1 + 2 + 3


def test_a_folder_that_is_empty_or_holds_an_unfinished_restore(tmp_path: Path, backup: Backup) -> None:
    path = tmp_path / "x"
    (path / "recovery" / "journal").mkdir(parents=True)
    (path / "lost+found").mkdir()
    path.chmod(0o700)
    assert total_of(restored(backup, path), "x", NEW) == TOTAL


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"node": "q"}, "q is not in the cluster file: its nodes are x, y, z"),
        ({"node": "z"}, "z is no founder: restore x, y, and start z with an empty folder; it gets the state from them"),
        ({"cluster": cluster_of(("x", "y", "z"))}, 'for instance cluster = "counter~[0-9a-f]{16}"'),
    ],
)
def test_what_is_refused(tmp_path: Path, backup: Backup, options: dict[str, Any], line: str) -> None:
    options = {"cluster": NEW, "node": "x", **options}
    with pytest.raises(StoreError, match=line):
        check_restore(backup, options["cluster"], options["node"], str(tmp_path / "x"))


def test_the_name_that_is_proposed_is_taken(tmp_path: Path, backup: Backup) -> None:
    name = f"counter~{backup.digest[:16]}"
    check_restore(backup, attrs.evolve(NEW, name=name), "x", str(tmp_path / "x"))


def test_a_folder_that_is_not_empty(tmp_path: Path, backup: Backup) -> None:
    path = restored(backup, tmp_path / "x")
    before = files(path)
    with pytest.raises(StoreError, match=r"is not empty \(it holds '.*'\): name an empty folder; nothing was changed"):
        restored(backup, path)
    assert files(path) == before


def test_a_snapshot_without_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test.helpers.folders.HEAD", b"\7")
    with pytest.raises(StoreError, match=r"the snapshot in .*counter.backup cannot be used: it has no head"):
        restored(make_backup(tmp_path), tmp_path / "x")


@pytest.mark.parametrize(("fault", "offset"), [(crash_before, 0), (crash_after, 3)])
def test_a_restore_that_is_interrupted_is_made_again(
    tmp_path: Path, backup: Backup, fault: Callable[..., Any], offset: int
) -> None:
    outcomes: set[str] = set()
    for at in range(offset, 500, 11):
        path = tmp_path / str(at)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        with suppress(Crash):
            restored(backup, path, disk=disk)
        if not disk.struck:
            break
        disk.kill()
        if "is in place" not in (outcome := start_error(path)):
            restored(backup, path)
        outcomes.add(outcome)
        assert total_of(path, "x", NEW) == TOTAL
    assert outcomes >= {"it is in place", "the restore is not finished"}


def start_error(path: Path) -> str:
    """What a start of the node finds. It must not found a cluster without the state."""
    names = {one.name for one in path.iterdir()} if path.exists() else set[str]()
    if not names - {"lock"}:
        return "nothing"
    try:
        return "it is in place" if total_of(path, "x", NEW) == TOTAL else "another state"
    except StoreError as error:
        line = str(error)
    assert "holds an unfinished restore: give 'txpaxos restore' again, or empty the folder" in line
    return "the restore is not finished"
