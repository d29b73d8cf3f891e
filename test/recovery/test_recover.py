"""A cluster is made from the folders of a minority, and a crash at any step does no harm."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.helpers.folders import (
    NAMES,
    cluster_of,
    files,
    learned,
    promised,
    start_node,
    total_of,
    value,
    voted,
    write_folder,
)
from test.storage.test_disk import Crash, FaultyDisk, UnsyncedDisk, crash_after, crash_before, failing
from txpaxos.cluster import Cluster
from txpaxos.core.messages import NO_OP, Ballot
from txpaxos.core.ready import DecreeState, Learned, Record, SubjectState
from txpaxos.errors import StoreError
from txpaxos.recovery import recover as recovery_module
from txpaxos.recovery import survivors as survivors_module
from txpaxos.recovery.recover import (
    Recovery,
    complete,
    find_begun,
    find_done,
    locked,
    nonce_of,
    plan_recovery,
    recover,
)
from txpaxos.recovery.survivors import ALPHA, read_survivor
from txpaxos.storage.diagnosis import Verdict, diagnose
from txpaxos.storage.disk import Disk
from txpaxos.storage.inspection import inspect_folder
from txpaxos.storage.replacement import SET_ASIDE, replace_contents
from txpaxos.wire.commands import decode_batch
from txpaxos.wire.members import MemberEntry, MembersEntry, encode_members
from txpaxos.wire.registers import ImportRegisters, decode_command

SEGMENT_BYTES = 8192
KEEP, LOSE = ("a", "b"), ("c", "d", "e")
TOTAL = sum(range(1, 9)) + 100
"""The counter after the recovery of :func:`disaster`."""


def disaster(tmp_path: Path) -> list[str]:
    """The folders of a and b. They differ in their snapshots, in how far they know the log, and in their votes."""
    register = SubjectState("owner", DecreeState(Ballot(1, "c"), None, b"node-1"))
    a: list[Record] = [learned(6, 8), promised(3, "c"), voted(10, 3, "c", 100, 8), register]
    b: list[Record] = [learned(3, 7), promised(2, "d"), voted(8, 2, "d", 88, 7), voted(10, 2, "d", 99, 7)]
    write_folder(tmp_path / "a", "a", a, snapshot=(5, 15))
    write_folder(tmp_path / "b", "b", b, snapshot=(2, 3))
    return [str(tmp_path / node) for node in KEEP]


def plan(directories: list[str], **options: Any) -> Recovery:
    return plan_recovery(directories, KEEP, LOSE, cluster_of(), **options)


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    directories = disaster(tmp_path)
    before = files(tmp_path)
    recovery = plan(directories, random_bytes=lambda count: b"\x5f" * count)
    assert files(tmp_path) == before
    assert recovery.cluster.name == "counter~5f5f5f5f5f5f5f5f"
    assert recovery.cluster.members == {node: cluster_of().members[node] for node in KEEP}
    assert Cluster.parse(recovery.cluster.dumps()) == recovery.cluster
    assert [one.node for one in recovery.kept] == ["a", "b"]
    union = recovery.union
    assert (union.chosen_through, union.through, union.guessed, union.empty) == (8, 10, (10,), (9,))


def test_the_kept_nodes_have_the_same_state_in_a_cluster_of_their_own(tmp_path: Path) -> None:
    directories = disaster(tmp_path)
    before = {node: files(tmp_path / node) for node in KEEP}
    recovery = plan(directories)
    written: list[Cluster] = []
    done: list[int] = []
    recover(recovery, written.append, done.append, UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert written == [recovery.cluster]
    assert sum(done) > 0
    survivors = {node: read_survivor(str(tmp_path / node)) for node in KEEP}
    for node, one in survivors.items():
        assert (one.cluster, one.node, set(one.voters)) == (recovery.cluster.name, node, set(KEEP))
        assert (one.chosen_through, one.snapshot_slot, one.votes) == (11, 5, {})
        ((run,),) = [decode_batch(one.chosen.pop(11))]
        assert decode_command(*run.payloads) == ImportRegisters((("owner", b"node-1"),))
        assert one.chosen == {6: value(6), 7: value(7), 8: value(8), 9: NO_OP, 10: value(100)}
        assert one.promised > Ballot(3, "c")
        assert one.application == "txpaxos.counter:Counter"
        assert one.registers == {}
        assert total_of(tmp_path / node, node, recovery.cluster) == TOTAL
        report = inspect_folder(str(tmp_path / node))
        assert diagnose(report).verdict is Verdict.HEALTHY
        assert [*report.met] == [other for other in KEEP if other != node]
        aside = tmp_path / node / f"{SET_ASIDE}.{nonce_of(recovery.cluster)}"
        kept = {name: data for name, data in files(aside).items() if not name.startswith("recovery/")}
        assert kept == before[node]
    snapshots = {one.snapshot.read(0, one.snapshot.size_bytes) for one in survivors.values() if one.snapshot}
    assert len(snapshots) == 1
    reports = [inspect_folder(directory) for directory in directories]
    assert [[*report.met.values()] for report in reports] == [
        [reports[1].identity.incarnation],  # type: ignore[union-attr]
        [reports[0].identity.incarnation],  # type: ignore[union-attr]
    ]


def test_a_folder_of_a_node_that_is_given_up_is_read_and_left_alone(tmp_path: Path) -> None:
    directories = disaster(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    write_folder(tmp_path / "b", "b", [learned(1, 1)])
    (tmp_path / "c").rename(tmp_path / "moved")
    before = files(tmp_path / "moved")
    a_alone = plan_recovery([directories[0], str(tmp_path / "b")], ("a",), ("b", *LOSE), cluster_of())
    recover(a_alone, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert total_of(tmp_path / "a", "a", a_alone.cluster) == TOTAL
    assert read_survivor(str(tmp_path / "b")).cluster == "counter"
    assert files(tmp_path / "moved") == before


def test_a_long_log_without_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery_module, "SAVE_BYTES", 200)
    directories = [str(write_folder(tmp_path / "a", "a", [learned(1, 40)]))]
    recovery = plan_recovery(directories, ("a",), ("b", *LOSE), cluster_of())
    recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert read_survivor(directories[0]).chosen_through == 40
    assert inspect_folder(directories[0]).segments[0].frames == 8
    assert total_of(tmp_path / "a", "a", recovery.cluster) == sum(range(1, 41))


def test_nothing_was_ever_chosen(tmp_path: Path) -> None:
    directories = [str(write_folder(tmp_path / "a", "a"))]
    recovery = plan_recovery(directories, ("a",), ("b", *LOSE), cluster_of())
    recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert total_of(tmp_path / "a", "a", recovery.cluster) == 0


def test_a_recovered_cluster_is_recovered_again(tmp_path: Path) -> None:
    recovery = plan(disaster(tmp_path))
    recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    again = plan_recovery([str(tmp_path / "a")], ("a",), ("b",), recovery.cluster)
    assert again.cluster.name.count("~") == 1
    assert again.cluster.name != recovery.cluster.name
    recover(again, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert total_of(tmp_path / "a", "a", again.cluster) == TOTAL


# ------------------------------------------------------------------ members that changed


def changed_members(tmp_path: Path) -> list[str]:
    """Folders of a and f. In place of e there is f since slot 3."""
    founders = {node: MemberEntry(f"10.0.0.{at}:1", f"10.0.0.{at}:2") for at, node in enumerate("abcd")}
    entry = MembersEntry(0, {**founders, "f": MemberEntry("10.0.0.9:1", "10.0.0.9:2", incarnation=77)}, ("e",))
    late = MembersEntry(0, founders)  # It changes the founders, as the one before, so it does not count.
    log = [
        Learned(1, (value(1), value(2), encode_members(entry), value(4), encode_members(late), b"M")),
        learned(7, 20),
    ]
    for node in ("a", "f"):
        write_folder(tmp_path / node, node, log)
    return [str(tmp_path / node) for node in ("a", "f")]


def test_members_that_the_log_names_are_recovered_with_a_change_of_members(tmp_path: Path) -> None:
    directories = changed_members(tmp_path)
    with pytest.raises(StoreError, match="the members are a, b, c, d, f, and --keep and --lose name a, b, c, d, e, f"):
        plan_recovery(directories, ("a", "f"), ("b", "c", "d", "e"), cluster_of())
    recovery = plan_recovery(directories, ("a", "f"), ("b", "c", "d"), cluster_of())
    assert str(recovery.cluster.members["f"].address) == "10.0.0.9:1"
    recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    for node in ("a", "f"):
        one = read_survivor(str(tmp_path / node))
        assert one.chosen_through == 21 + ALPHA - 1
        started = start_node(tmp_path / node, node, recovery.cluster)
        assert set(started.members.entry.members) == {"a", "f"}
        assert started.members.entry.members[node].incarnation == one.incarnation
        assert set(started.members.entry.retired) == {"b", "c", "d", "e"}
        assert set(started._replica.membership.voters) == {"a", "f"}
        assert not started._replica.membership.is_changing
        assert started.application.total == 1 + 2 + 4 + sum(range(7, 21))  # type: ignore[attr-defined]
        started.stop()
    again = plan_recovery([str(tmp_path / "a")], ("a",), ("f",), recovery.cluster)
    recover(again, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    started = start_node(tmp_path / "a", "a", again.cluster)
    assert started._replica.membership.voters == ("a",)
    started.stop()


def test_a_majority_of_the_members_that_the_log_names(tmp_path: Path) -> None:
    directories = changed_members(tmp_path)
    more = [str(write_folder(tmp_path / node, node)) for node in ("b",)]
    with pytest.raises(StoreError, match="the folders of a, f, b are a majority of 5: start these nodes instead"):
        plan_recovery([*directories, *more], ("a", "f"), ("b", "c", "d"), cluster_of())


# ------------------------------------------------------------------ refused


def test_a_kept_node_needs_a_folder_and_an_address(tmp_path: Path) -> None:
    directories = disaster(tmp_path)
    with pytest.raises(StoreError, match="--keep names node b, and no folder of it is given"):
        plan(directories[:1])
    cluster = cluster_of(("a", "c", "d", "e"))
    with pytest.raises(StoreError, match="node b is not in the cluster file: give the one of cluster counter"):
        plan_recovery(directories, KEEP, LOSE, cluster)
    with pytest.raises(StoreError, match="and the cluster file is of 'another': give the file of the folders' cluster"):
        plan_recovery(directories, KEEP, LOSE, cluster_of(name="another"))


def test_the_folders_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = disaster(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StoreError, match=f"a belongs to user {owner}: run this as that user"):
        plan(directories)


@pytest.mark.parametrize(("pid", "by"), [(77, "process 77"), (0, "a process")])
def test_a_folder_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, by: str) -> None:
    directories = disaster(tmp_path)
    monkeypatch.setattr(recovery_module, "process_using", lambda directory: pid)
    with pytest.raises(StoreError, match=f"a is in use by {by}: stop all nodes of the cluster first"):
        plan(directories)
    assert plan(directories, are_locked=True).union.through == 10
    with locked(directories, Disk()):
        assert lock_error(directories[1:]).endswith(
            "/b is in use by another process: stop it, or give this node a folder of its own"
        )
    assert "nothing: No such file or directory" in lock_error([str(tmp_path / "nothing")])
    assert not (tmp_path / "nothing").exists()


def lock_error(directories: list[str]) -> str:
    """Why the locks of some folders cannot be had."""
    with pytest.raises(StoreError) as refusal, locked(directories, Disk()):
        pass
    return str(refusal.value)


def test_a_snapshot_without_a_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test.helpers.folders.HEAD", b"\7")
    directories = disaster(tmp_path)
    monkeypatch.undo()
    before = files(tmp_path)
    with pytest.raises(StoreError, match="the snapshot at slot 5 cannot be used: it has no head"):
        recover(plan(directories), disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    assert {name: data for name, data in files(tmp_path).items() if "/recovery/" not in name} == before


def test_what_was_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = plan(disaster(tmp_path))
    short = attrs.evolve(recovery.survivors[0], chosen_through=9)
    monkeypatch.setattr(recovery_module, "read_survivor", lambda path: short)
    with pytest.raises(StoreError, match="recovery does not hold what was written to it: check the disk"):
        recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    monkeypatch.undo()
    assert survivors_module.read_survivor(str(tmp_path / "a")).cluster == "counter"


# ------------------------------------------------------------------ interrupted


def again(directories: list[str]) -> str:
    """The same command again, as the command line does it. Returns the name of the new cluster."""
    with locked(directories, Disk()):
        name = find_begun(directories)
        if name:
            complete(directories, name, UnsyncedDisk())
        name = name or find_done(directories, KEEP, cluster_of())
        if not name:
            recovery = plan(directories, are_locked=True)
            recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
            name = recovery.cluster.name
    return name


@pytest.mark.parametrize(("fault", "offset"), [(crash_before, 0), (crash_after, 3), (failing(errno.ENOSPC), 6)])
def test_a_recovery_that_is_interrupted_is_completed_by_the_same_command(
    tmp_path: Path, fault: Callable[..., Any], offset: int
) -> None:
    outcomes: set[tuple[str, ...]] = set()
    for at in range(offset, 500, 17):
        folder = tmp_path / str(at)
        directories = disaster(folder)
        recovery = plan(directories)
        disk = FaultyDisk(UnsyncedDisk(), at, fault)
        with contextlib.suppress(Crash, StoreError):
            recover(recovery, disk=disk, segment_bytes=SEGMENT_BYTES)
        if not disk.struck:
            break
        disk.kill()
        new = recovery.cluster.name
        name = again(directories)
        found = [read_survivor(directory).cluster for directory in directories]
        assert found == [name, name]
        outcomes.add(("completed",) if name == new else ("begun anew",))
        made = Cluster(name, recovery.cluster.members)
        assert {total_of(folder / node, node, made) for node in KEEP} == {TOTAL}
        assert again(directories) == name
    assert outcomes == {("completed",), ("begun anew",)}


def test_between_two_folders_one_is_new_and_the_other_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = disaster(tmp_path)
    recovery = plan(directories)

    def replace_first(disk: Disk, directory: str) -> None:
        if directory != directories[0]:
            raise Crash
        replace_contents(disk, directory)

    monkeypatch.setattr(recovery_module, "replace_contents", replace_first)
    with pytest.raises(Crash):
        recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    monkeypatch.undo()
    assert [read_survivor(directory).cluster for directory in directories] == [recovery.cluster.name, "counter"]
    assert find_begun(directories) == recovery.cluster.name
    assert find_begun(directories[1:]) == ""
    assert find_done(directories, KEEP, cluster_of()) == ""
    assert again(directories) == recovery.cluster.name
    assert find_begun(directories) == ""
    assert find_done(directories, KEEP, cluster_of()) == recovery.cluster.name
    assert find_done(directories, ("a",), cluster_of()) == ""
    assert find_done(directories, KEEP, cluster_of(name="another")) == ""


def test_a_start_completes_what_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directories = disaster(tmp_path)
    recovery = plan(directories)
    monkeypatch.setattr("txpaxos.storage.replacement.finish_replacement", lambda disk, directory: False)
    recover(recovery, disk=UnsyncedDisk(), segment_bytes=SEGMENT_BYTES)
    monkeypatch.undo()
    report = inspect_folder(directories[0])
    assert report.marker == {"recovering": "a recovery of this folder was interrupted"}
    diagnosis = diagnose(report)
    assert diagnosis.verdict is Verdict.REFUSED
    assert "the next start of its node, or the same recovery again, completes it" in diagnosis.summary
    assert total_of(tmp_path / "a", "a", recovery.cluster) == TOTAL
    assert diagnose(inspect_folder(directories[0])).verdict is Verdict.HEALTHY


def test_all_nodes_are_named() -> None:
    assert set(KEEP) | set(LOSE) == set(NAMES)
